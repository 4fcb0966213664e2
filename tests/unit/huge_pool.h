/*
 * huge_pool.h - the machine's pool of 2 MiB pages, made larger for the length of a test and put back.
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

#define POOL "/sys/kernel/mm/hugepages/hugepages-2048kB/"

static inline long pool_number(const char *file)
{
    char path[96];
    long n = -1;
    FILE *f;

    snprintf(path, sizeof(path), POOL "%s", file);
    f = fopen(path, "r");
    if (f && fscanf(f, "%ld", &n) != 1)
        n = -1;
    if (f)
        fclose(f);
    return n;
}

static inline bool set_pool(long pages)
{
    FILE *f = fopen(POOL "nr_hugepages", "w");
    bool written = f && fprintf(f, "%ld", pages) > 0;

    return f && fclose(f) == 0 && written && pool_number("nr_hugepages") == pages;
}

/* @body runs in a child with @extra more free pages than anybody else has; the pool is put back afterwards. */
static inline int with_pool(long extra, void (*body)(void *), void *arg)
{
    bool locked = lock_pool();
    int status = CANNOT;
    long before = pool_number("nr_hugepages");

    if (locked && before >= 0 && set_pool(before + extra))
        status = run_in_child(body, arg);
    if (locked && before >= 0)
        set_pool(before);
    return status;
}

#endif
