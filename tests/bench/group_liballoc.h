/* A group of liballoc: freed at once. */
#include <stdio.h>
#include <stdlib.h>

#include <liballoc/error.h>
#include <liballoc/group.h>

static struct la_group *group;

static void group_begin(void)
{
    if (la_group_create(NULL, NULL, &group) < 0) {
        fprintf(stderr, "group: %s\n", la_last_error());
        exit(2);
    }
}

static inline void *group_alloc(size_t size)
{
    return la_group_alloc(group, size);
}

static void group_release(void **object, int count)
{
    (void)object, (void)count;
    la_group_free_all(group);
}
