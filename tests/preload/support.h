/*
 * support.h - what the tests under preload share: proof that malloc is ours, patterns in blocks, resident memory.
 *
 * The tests call malloc() through a volatile pointer where the compiler would remove a pair of malloc() and free().
 */
#ifndef TESTS_PRELOAD_SUPPORT_H
#define TESTS_PRELOAD_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {        /* CMocka's header does not say so itself */
#endif
#include <cmocka.h>
#ifdef __cplusplus
}
#endif

#include <dlfcn.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KiB ((size_t)1 << 10)
#define MiB ((size_t)1 << 20)
#define GiB ((size_t)1 << 30)
#define TiB ((size_t)1 << 40)

/* Group setup: a test of another malloc would prove nothing. */
static inline int require_preload(void **state)
{
    Dl_info info;

    (void)state;
    if (dladdr(dlsym(RTLD_DEFAULT, "malloc"), &info) && strstr(info.dli_fname, "liballoc-malloc.so"))
        return 0;
    fprintf(stderr, "malloc is not liballoc's: run this test with LD_PRELOAD=.../liballoc-malloc.so\n");
    return -1;
}

/* The compiler does not know what comes back, so it keeps the call, and every size that is "too large". */
static inline void *opaque(void *block)
{
    __asm__ volatile("" : "+r"(block) : : "memory");
    return block;
}

static inline size_t opaque_size(size_t size)
{
    __asm__ volatile("" : "+r"(size));
    return size;
}

/* A block's bytes follow from its number, so that a block which overlaps another one is found out. */
static inline void fill(void *block, size_t size, unsigned number)
{
    memset(block, (int)(number * 37 % 251 + 1), size);
}

static inline bool is_filled(const void *block, size_t size, unsigned number)
{
    const unsigned char *bytes = (const unsigned char *)block;
    unsigned char wanted = (unsigned char)(number * 37 % 251 + 1);

    return size == 0 || (bytes[0] == wanted && memcmp(bytes, bytes + 1, size - 1) == 0);
}

static inline bool is_aligned(const void *block, size_t alignment)
{
    return ((uintptr_t)block & (alignment - 1)) == 0;
}

/* Bytes of this process that are in memory. */
static inline size_t resident_bytes(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    unsigned long size = 0, resident = 0;

    if (file) {
        if (fscanf(file, "%lu %lu", &size, &resident) != 2)
            resident = 0;
        fclose(file);
    }
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}

#endif
