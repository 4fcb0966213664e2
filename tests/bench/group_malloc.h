/* The objects of a group come from malloc() and are freed one by one: what a program without groups does. */
#include <stdlib.h>

static void group_begin(void)
{
}

static inline void *group_alloc(size_t size)
{
    return malloc(size);
}

static void group_release(void **object, int count)
{
    for (int i = 0; i < count; i++)
        free(object[i]);
}
