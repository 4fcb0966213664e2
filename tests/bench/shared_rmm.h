/* APR-util's relocatable memory manager: first fit in a list, searched from its start. The lock is the caller's: a process-shared mutex. */
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <apr_general.h>
#include <apr_rmm.h>

struct backend {
    pthread_mutex_t mutex;
    size_t size;
    _Alignas(4096) char memory[];
};

static struct backend *backend;
static apr_rmm_t *heap;
static apr_anylock_t no_lock;

static void backend_check(int ok)
{
    if (!ok) {
        fputs("shared_rmm: no heap\n", stderr);
        exit(2);
    }
}

static apr_pool_t *backend_pool(void)
{
    apr_pool_t *pool = NULL;

    backend_check(apr_initialize() == APR_SUCCESS && apr_pool_create(&pool, NULL) == APR_SUCCESS);
    return pool;
}

static void backend_map(const char *name, int flags, size_t bytes)
{
    int fd = shm_open(name, flags, 0600);

    backend_check(fd >= 0 && (!(flags & O_CREAT) || ftruncate(fd, (off_t)bytes) == 0));
    backend = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    backend_check(backend != MAP_FAILED);
    close(fd);
}

static void backend_create(const char *name, size_t bytes)
{
    pthread_mutexattr_t shared;

    backend_map(name, O_CREAT | O_EXCL | O_RDWR, bytes);
    backend->size = bytes;
    pthread_mutexattr_init(&shared);
    pthread_mutexattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(&backend->mutex, &shared);
    backend_check(apr_rmm_init(&heap, &no_lock, backend->memory, bytes - sizeof(*backend), backend_pool()) == APR_SUCCESS);
}

static inline void backend_attach(const char *name)
{
    size_t bytes;

    backend_map(name, O_RDWR, sizeof(*backend));
    bytes = backend->size;
    munmap(backend, sizeof(*backend));
    backend_map(name, O_RDWR, bytes);
    backend_check(apr_rmm_attach(&heap, &no_lock, backend->memory, backend_pool()) == APR_SUCCESS);
}

static void backend_remove(const char *name)
{
    shm_unlink(name);
}

static inline void *shared_alloc(size_t size)
{
    apr_rmm_off_t offset;

    pthread_mutex_lock(&backend->mutex);
    offset = apr_rmm_malloc(heap, size);
    pthread_mutex_unlock(&backend->mutex);
    return offset ? apr_rmm_addr_get(heap, offset) : NULL;
}

static inline void shared_free(void *block)
{
    pthread_mutex_lock(&backend->mutex);
    apr_rmm_free(heap, apr_rmm_offset_get(heap, block));
    pthread_mutex_unlock(&backend->mutex);
}

static inline uint64_t shared_word(void *block)
{
    return apr_rmm_offset_get(heap, block);
}

static inline void *shared_block(uint64_t word)
{
    return apr_rmm_addr_get(heap, word);
}
