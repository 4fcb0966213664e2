/* The calling thread's private chain, by the same calls; for one process only. */
#include <liballoc/chain.h>

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
    return la_malloc(size);
}

static inline void shared_free(void *block)
{
    la_free(block);
}
