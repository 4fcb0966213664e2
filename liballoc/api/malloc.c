/*
 * malloc.c - the allocating half of glibc's malloc family, on the calling thread's default chain.
 *
 * No engine is here: every call ends in liballoc.so, of which a process has one. malloc() and free() are one jump
 * through the GOT (-fno-plt), so preloading costs no second call. Statistics and tuning are in malloc_info.c.
 *
 * What the caller may pass is what glibc 2.36 accepts, with two exceptions that later versions share: aligned_alloc()
 * refuses an alignment that is no power of two, and no function accepts one by accident of rounding but memalign(),
 * which always rounded.
 */
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <unistd.h>

#include <liballoc/chain.h>

#include "api/misuse_report.h"
#include "base/util.h"

/* Gone from the headers since glibc 2.26; old binaries still call it. */
LA_API void cfree(void *block);

LA_API FAST_PATH void *malloc(size_t size)
{
    return la_malloc(size);
}

LA_API FAST_PATH void free(void *block)
{
    la_free(block);
}

LA_API void cfree(void *block)
{
    la_free(block);
}

LA_API void *calloc(size_t count, size_t size)
{
    return la_calloc(count, size);
}

LA_API void *realloc(void *block, size_t size)
{
    void *moved;

    if (!block)
        return la_malloc(size);
    /* As glibc: the block is gone, and NULL is no failure. */
    if (size == 0) {
        la_free(block);
        return NULL;
    }
    api_operation = "realloc";
    moved = la_realloc(block, size);
    api_operation = NULL;
    return moved;
}

LA_API void *reallocarray(void *block, size_t count, size_t size)
{
    size_t bytes;

    if (__builtin_mul_overflow(count, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return realloc(block, bytes);
}

/* ---- alignment ---- */

LA_API int posix_memalign(void **ret, size_t alignment, size_t size)
{
    int saved = errno;
    void *block;

    if (!is_power_of_2(alignment) || alignment % sizeof(void *) != 0)
        return EINVAL;
    block = la_aligned_alloc(alignment, size);
    /* The code is the result; errno is not this function's. */
    errno = saved;
    if (!block)
        return ENOMEM;
    *ret = block;
    return 0;
}

LA_API void *aligned_alloc(size_t alignment, size_t size)
{
    return la_aligned_alloc(alignment, size);
}

static size_t next_power_of_2(size_t n)
{
    return n <= 1 ? 1 : (size_t)1 << (64 - __builtin_clzl(n - 1));
}

LA_API void *memalign(size_t alignment, size_t size)
{
    if (alignment > SIZE_MAX / 2 + 1) {
        errno = EINVAL;
        return NULL;
    }
    return la_aligned_alloc(next_power_of_2(alignment), size);
}

static size_t page_size(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

LA_API void *valloc(size_t size)
{
    return la_aligned_alloc(page_size(), size);
}

LA_API void *pvalloc(size_t size)
{
    size_t page = page_size();

    if (size > SIZE_MAX - (page - 1)) {
        errno = ENOMEM;
        return NULL;
    }
    return la_aligned_alloc(page, align_up(size, page));
}

LA_API size_t malloc_usable_size(void *block)
{
    return la_usable_size(block);
}

_Static_assert(sizeof(size_t) == sizeof(unsigned long) && sizeof(size_t) == 8, "next_power_of_2() counts 64 bits");
