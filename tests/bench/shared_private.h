/* The calling thread's private chain, by the same calls; for one process only. */
#include <liballoc/chain.h>

#include "shared_one_process.h"

static void backend_create(const char *name, size_t bytes)
{
    (void)name, (void)bytes;
}

static inline void *shared_alloc(size_t size)
{
    return la_malloc(size);
}

static inline void shared_free(void *block)
{
    la_free(block);
}
