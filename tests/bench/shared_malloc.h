/* malloc and free of whatever allocator is preloaded: private memory, one process. */
#include <stdlib.h>

static void backend_create(const char *name, size_t bytes)
{
    (void)name, (void)bytes;
}

static void backend_attach(const char *name)
{
    (void)name;
}

static void backend_remove(const char *name)
{
    (void)name;
}

static inline void *shared_alloc(size_t size)
{
    return malloc(size);
}

static inline void shared_free(void *block)
{
    free(block);
}
