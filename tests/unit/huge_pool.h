/*
 * huge_pool.h - the machine's pools of huge pages, made larger for the length of a test and put back.
 */
#ifndef TESTS_UNIT_HUGE_POOL_H
#define TESTS_UNIT_HUGE_POOL_H

#include <fcntl.h>
#include <sys/file.h>

#include "child.h"

static int pool_lock = -1;

/* One pool serves the machine: tests that look at it or change it wait for each other, until the test's end (also when it fails). */
static inline bool lock_pool(void)
{
    if (pool_lock < 0)
        pool_lock = open("/tmp/liballoc-test-huge-pages.lock", O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    return pool_lock >= 0 && flock(pool_lock, LOCK_EX) == 0;
}

/* In teardown. */
static inline void unlock_pool(void)
{
    if (pool_lock >= 0)
        close(pool_lock);
    pool_lock = -1;
}

enum { KIB_2M = 2 << 10, KIB_1G = 1 << 20 };

static inline FILE *pool_file(long kib, const char *file, const char *mode)
{
    char path[96];

    snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%ldkB/%s", kib, file);
    return fopen(path, mode);
}

/* -1: there is no such pool. */
static inline long pool_number_of(long kib, const char *file)
{
    FILE *f = pool_file(kib, file, "r");
    long n = -1;

    if (f && fscanf(f, "%ld", &n) != 1)
        n = -1;
    if (f)
        fclose(f);
    return n;
}

static inline long pool_number(const char *file)
{
    return pool_number_of(KIB_2M, file);
}

/* Nobody has them, and nobody was promised them. */
static inline long pool_left(long kib)
{
    return pool_number_of(kib, "free_hugepages") - pool_number_of(kib, "resv_hugepages");
}

static inline bool set_pool(long kib, long pages)
{
    FILE *f = pool_file(kib, "nr_hugepages", "w");
    bool written = f && fprintf(f, "%ld", pages) > 0;

    return f && fclose(f) == 0 && written && pool_number_of(kib, "nr_hugepages") == pages;
}

/* @body runs in a child with @extra more free pages than anybody else has; the pool is put back afterwards. */
static inline int with_pool_of(long kib, long extra, void (*body)(void *), void *arg)
{
    bool locked = lock_pool();
    int status = CANNOT;
    long before = pool_number_of(kib, "nr_hugepages");

    if (locked && before >= 0 && set_pool(kib, before + extra))
        status = run_in_child(body, arg);
    if (locked && before >= 0)
        set_pool(kib, before);
    return status;
}

static inline int with_pool(long extra, void (*body)(void *), void *arg)
{
    return with_pool_of(KIB_2M, extra, body, arg);
}

#endif
