/*
 * headroom.c - limits that the kernel enforces by killing instead of by an error.
 *
 * fallocate() on a memfd knows no limit but the memory itself: asked for more than there is, it fills the machine and wakes the OOM
 * killer. So the request is compared before. Page cache that can be dropped counts as available.
 */
#include "os/headroom.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/fmt.h"
#include "os/sysfile.h"

enum { TEXT_SIZE = 4096, PATH_SIZE = 512 };

static size_t machine_headroom(void)
{
    char text[TEXT_SIZE];
    size_t kib = os_read_text("/proc/meminfo", text, sizeof(text)) ? os_number_after(text, "MemAvailable:") : SIZE_MAX;

    return kib == SIZE_MAX ? SIZE_MAX : kib * KiB;
}

/* Where the two generations of control groups keep the same things. */
static const struct layout {
    const char *mark;           /* before our group's path in /proc/self/cgroup */
    const char *root;
    const char *limit, *usage;  /* files */
    const char *cache;          /* word in memory.stat: pages that can be dropped */
} layouts[] = {
    { "0::", "/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file" },
    { ":memory:", "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file" },
};

static size_t group_number(const struct layout *l, const char *group, const char *file, const char *key)
{
    char path[PATH_SIZE], text[TEXT_SIZE];

    if (la_format(path, sizeof(path), "%s%s/%s", l->root, group, file) >= sizeof(path) || !os_read_text(path, text, sizeof(text)))
        return SIZE_MAX;
    return os_number_after(text, key);
}

static size_t headroom_of(const struct layout *l, const char *group)
{
    size_t limit = group_number(l, group, l->limit, ""), usage, cache;

    if (limit == SIZE_MAX)
        return SIZE_MAX;
    usage = group_number(l, group, l->usage, "");
    cache = group_number(l, group, "memory.stat", l->cache);
    if (usage == SIZE_MAX)
        return SIZE_MAX;
    usage -= MIN(usage, cache == SIZE_MAX ? 0 : cache);
    return limit - MIN(limit, usage);
}

/* A limit may be set on our group or on any above it. */
static size_t group_headroom(const struct layout *l)
{
    char text[TEXT_SIZE], *group, *end;
    size_t least = SIZE_MAX;

    if (!os_read_text("/proc/self/cgroup", text, sizeof(text)) || !(group = strstr(text, l->mark)))
        return SIZE_MAX;
    group += strlen(l->mark);
    group[strcspn(group, "\n")] = '\0';
    while ((end = strrchr(group, '/'))) {
        size_t here = headroom_of(l, group[1] ? group : "");

        least = MIN(least, here);
        *end = '\0';
    }
    return least;
}

size_t os_headroom(void)
{
    size_t least = machine_headroom();

    for (size_t i = 0; i < ARRAY_SIZE(layouts); i++) {
        size_t group = group_headroom(&layouts[i]);

        least = MIN(least, group);
    }
    return least;
}

/* ---- committing ---- */

/*
 * A look costs 75 us, 2 MiB of fallocate() 500 us. So a look that finds plenty pays for what follows: a share of what was left, small enough
 * that several processes that looked at the same moment do not fill the machine together, and only for a short while.
 */
enum { SHARE = 16, ALLOWANCE_MS = 100 };

static _Atomic(size_t) allowance;
static _Atomic(uint64_t) allowed_until;

static uint64_t coarse_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static bool take_allowance(size_t size)
{
    size_t left = atomic_load_explicit(&allowance, memory_order_relaxed);

    if (coarse_ms() >= atomic_load_explicit(&allowed_until, memory_order_relaxed))
        return false;
    while (left >= size)
        if (atomic_compare_exchange_weak_explicit(&allowance, &left, left - size, memory_order_relaxed, memory_order_relaxed))
            return true;
    return false;
}

static bool is_affordable(size_t size)
{
    size_t left;

    if (take_allowance(size))
        return true;
    left = os_headroom();
    if (size > left)
        return false;
    atomic_store_explicit(&allowance, (left - size) / SHARE, memory_order_relaxed);
    atomic_store_explicit(&allowed_until, coarse_ms() + ALLOWANCE_MS, memory_order_relaxed);
    return true;
}

int os_commit_file(int fd, off_t offset, size_t size, bool pool)
{
    int r;

    if (!pool && !is_affordable(size))
        return -ENOMEM;
    do
        r = fallocate(fd, 0, offset, (off_t)size) < 0 ? -errno : 0;
    while (r == -EINTR);        /* a profiler's timer is no reason to fail */
    return r == -ENOMEM ? -ENOSPC : r;
}
