#include "os/os.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>

size_t os_page_size(void)
{
    static _Atomic(size_t) cached;
    size_t size = atomic_load_explicit(&cached, memory_order_relaxed);

    if (unlikely(size == 0)) {
        size = getauxval(AT_PAGESZ);
        atomic_store_explicit(&cached, size, memory_order_relaxed);
    }
    return size;
}

void *os_map(size_t size)
{
    int saved = errno;
    /* Not MAP_NORESERVE: a request that the machine can never fill is to fail here, not at the OOM killer's hands. */
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    errno = saved;
    return p == MAP_FAILED ? NULL : p;
}

/* Keep [p, p + size) of a longer mapping. */
static void trim(char *mapping, size_t length, char *p, size_t size)
{
    if (p > mapping)
        os_unmap(mapping, (size_t)(p - mapping));
    if (mapping + length > p + size)
        os_unmap(p + size, (size_t)(mapping + length - p - size));
}

void *os_map_aligned(size_t size, size_t alignment)
{
    char *mapping = os_map(size);
    char *p;

    if (!mapping || ((uintptr_t)mapping & (alignment - 1)) == 0)
        return mapping;
    os_unmap(mapping, size);
    if (size + alignment < size)
        return NULL;
    mapping = os_map(size + alignment);
    if (!mapping)
        return NULL;
    p = (char *)align_up((uintptr_t)mapping, alignment);
    trim(mapping, size + alignment, p, size);
    return p;
}

void os_unmap(void *p, size_t size)
{
    int saved = errno;

    munmap(p, size);
    errno = saved;
}

void *os_remap(void *p, size_t old_size, size_t new_size, size_t alignment, bool (*accept)(void *target))
{
    int saved = errno;
    void *moved = mremap(p, old_size, new_size, 0);
    char *room, *target;

    if (moved != MAP_FAILED) {
        errno = saved;
        return moved;
    }
    room = new_size + alignment < new_size
               ? MAP_FAILED
               : mmap(NULL, new_size + alignment, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED) {
        errno = saved;
        return NULL;
    }
    target = (char *)align_up((uintptr_t)room, alignment);
    trim(room, new_size + alignment, target, new_size);
    moved = accept && !accept(target) ? MAP_FAILED : mremap(p, old_size, new_size, MREMAP_MAYMOVE | MREMAP_FIXED, target);
    if (moved == MAP_FAILED) {
        os_unmap(target, new_size);
        moved = NULL;
    }
    errno = saved;
    return moved;
}

int os_purge(void *p, size_t size)
{
    int saved = errno;
    int r = madvise(p, size, MADV_DONTNEED) < 0 ? -errno : 0;

    errno = saved;
    return r;
}

void os_populate(const void *p, size_t size)
{
#ifdef MADV_POPULATE_READ
    int saved = errno;

    (void)madvise((void *)(uintptr_t)p, align_up(size, os_page_size()), MADV_POPULATE_READ);
    errno = saved;
#else
    (void)p, (void)size;
#endif
}

uint64_t os_now_ms(void)
{
    struct timespec t;
    int saved = errno;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    errno = saved;
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

uint64_t os_random(void)
{
    uint64_t value;
    int saved = errno;

    if (getrandom(&value, sizeof(value), GRND_NONBLOCK) != sizeof(value)) {
        const uint64_t *seed = (const uint64_t *)(uintptr_t)getauxval(AT_RANDOM);
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        value = (seed ? *seed : 0) ^ (uint64_t)t.tv_nsec * 0x9e3779b97f4a7c15;
    }
    errno = saved;
    return value;
}
