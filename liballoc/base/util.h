/* util.h - what every file needs: alignment, likelihood, cleanup. Allocates nothing, knows no chain. */
#ifndef BASE_UTIL_H
#define BASE_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KiB ((size_t)1 << 10)
#define MiB ((size_t)1 << 20)
#define GiB ((size_t)1 << 30)

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* Bring the cache line of @p here, to be written. The compiler's own names no such instruction for every x86-64, though all of them take it. */
static inline void prefetch_to_write(const void *p)
{
#ifdef __x86_64__
    __asm__ volatile("prefetchw (%0)" : : "r"(p));
#else
    __builtin_prefetch(p, 1);
#endif
}

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#define container_of(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))

#define NOINLINE __attribute__((noinline))
#define COLD __attribute__((cold, noinline))
/* Begins with a line of the instruction cache: where else it begins changes with each edit of what stands before it, and 2 ns of a pair's 6 with it. */
#define FAST_PATH __attribute__((aligned(64)))
#define HIDDEN __attribute__((visibility("hidden")))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))

static inline bool is_power_of_2(size_t n)
{
    return n != 0 && (n & (n - 1)) == 0;
}

static inline uintptr_t align_up(uintptr_t n, size_t to)
{
    return (n + to - 1) & ~(uintptr_t)(to - 1);
}

static inline uintptr_t align_down(uintptr_t n, size_t to)
{
    return n & ~(uintptr_t)(to - 1);
}

/* "%u heap%s" of people's sentences. */
static inline const char *plural(uint64_t n)
{
    return n == 1 ? "" : "s";
}

/* CLEANUP(close_fd) int fd = -1; runs close_fd(&fd) when the variable goes out of scope. */
#define CLEANUP(f) __attribute__((cleanup(f)))

void close_fd(int *fd);

/* Give a resource away: the variable is emptied so that its cleanup does nothing. */
static inline int steal_fd(int *fd)
{
    int stolen = *fd;
    *fd = -1;
    return stolen;
}

#endif
