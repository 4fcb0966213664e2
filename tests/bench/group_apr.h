/* A pool of the Apache Portable Runtime, cleared at once. */
#include <apr_general.h>
#include <apr_pools.h>

static apr_pool_t *pool;

static void group_begin(void)
{
    apr_initialize();
    apr_pool_create(&pool, NULL);
}

static inline void *group_alloc(size_t size)
{
    return apr_palloc(pool, size);
}

static void group_release(void **object, int count)
{
    (void)object, (void)count;
    apr_pool_clear(pool);
}
