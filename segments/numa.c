/*
 * numa.c - mbind() and what it cannot do, in words; move_pages() to see what came of it.
 *
 * Flags are left zero: pages that exist stay where they are. A segment is placed between its mapping and its first commit, so
 * there are none, but for one that is attached.
 */
#include "segments/numa.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/mempolicy.h>

#include <segments/find.h>
#include <segments/nodes.h>

#include "base/error.h"
#include "os/nodes.h"
#include "os/os.h"

static const struct {
    const char *name;
    int policy;
    bool takes_nodes;
} modes[] = {
    [SEG_NUMA_BIND] = { "bind", MPOL_BIND, true },
    [SEG_NUMA_PREFER] = { "prefer", MPOL_PREFERRED, true },
    [SEG_NUMA_INTERLEAVE] = { "interleave", MPOL_INTERLEAVE, true },
    [SEG_NUMA_LOCAL] = { "local", MPOL_LOCAL, false },
};

int seg_check_numa(const struct seg_numa *numa, unsigned required)
{
    if (numa->mode == SEG_NUMA_ANY) {
        if (required & SEG_PLACED || numa->nodes)
            return la_fail(-EINVAL, "NUMA placement without a mode: set numa.mode");
        return 0;
    }
    if ((unsigned)numa->mode >= ARRAY_SIZE(modes))
        return la_fail(-EINVAL, "NUMA mode %d is unknown", (int)numa->mode);
    if (modes[numa->mode].takes_nodes != (numa->nodes != 0))
        return la_fail(-EINVAL, "NUMA mode %s %s", modes[numa->mode].name,
                       numa->nodes ? "takes no nodes" : "needs nodes: one bit each in numa.nodes");
    return 0;
}

int seg_place(struct seg_segment *s, const struct seg_request *request)
{
    const struct seg_numa *numa = &request->numa;
    unsigned long nodes = (unsigned long)numa->nodes;

    if (!(s->backend->can & SEG_PLACED))
        return 0;       /* told by miss_impossible() */
    /* mbind() would say yes and mean nothing: page cache does not look at a mapping's policy. */
    if (s->on_disk)
        return seg_miss(s, request, SEG_PLACED, "NUMA placement: pages of a file on a disk lie where the kernel caches them");
    /* The kernel looks at one bit less than it is told. */
    if (syscall(SYS_mbind, s->base, s->size, modes[numa->mode].policy, modes[numa->mode].takes_nodes ? &nodes : NULL,
                modes[numa->mode].takes_nodes ? 64 + 1 : 0, 0) < 0)
        return seg_miss(s, request, SEG_PLACED, "NUMA placement: %s on nodes %#lx refused (errno %d: %s)", modes[numa->mode].name,
                        nodes, errno, errno == EINVAL ? "no such node, or not allowed to this process (cpuset)"
                                                      : "this kernel or sandbox has no mbind()");
    s->capabilities |= SEG_PLACED;
    s->numa = *numa;
    return 0;
}

unsigned seg_node_count(void)
{
    return MIN(os_node_count(), (unsigned)LA_NODES_MAX);
}

int seg_node_of(const struct seg_segment *s)
{
    const struct seg_numa *numa = &s->numa;

    return numa->mode == SEG_NUMA_BIND && is_power_of_2(numa->nodes) && !s->adopted ? __builtin_ctzll(numa->nodes) : -1;
}

size_t seg_numa_headroom(const struct seg_numa *numa)
{
    size_t sum = 0;

    if (numa->mode != SEG_NUMA_BIND)
        return SIZE_MAX;
    for (uint64_t left = numa->nodes; left; left &= left - 1) {
        size_t bytes = os_node_headroom((unsigned)__builtin_ctzll(left));

        if (bytes == SIZE_MAX)
            return SIZE_MAX;
        sum += bytes;
    }
    return sum;
}

/* ---- where pages are ---- */

/* @count pages of @page bytes from @at on. */
static int look_at_pages(uintptr_t at, size_t page, unsigned count, size_t *bytes)
{
    enum { AT_ONCE = 256 };
    void *pages[AT_ONCE];
    int nodes[AT_ONCE];

    for (unsigned n; count > 0; count -= n, at += n * page) {
        n = MIN(count, (unsigned)AT_ONCE);
        for (unsigned i = 0; i < n; i++)
            pages[i] = (void *)(at + i * page);
        if (syscall(SYS_move_pages, 0, (unsigned long)n, pages, NULL, nodes, 0) < 0)
            return la_fail(-ENOTSUP, "move_pages() refused (errno %d): this kernel or sandbox does not say where pages lie", errno);
        for (unsigned i = 0; i < n; i++)
            if (nodes[i] >= 0 && nodes[i] < LA_NODES_MAX)
                bytes[nodes[i]] += page;
    }
    return 0;
}

int seg_pages_on_nodes(struct la_range range, size_t *bytes)
{
    struct seg_location l = { .struct_size = sizeof(l) };
    size_t page = os_page_size();
    uintptr_t start, end = (uintptr_t)range.base + range.size;

    if (!range.base || !bytes || end < (uintptr_t)range.base)
        return la_fail(-EINVAL, "pages of %p + %zu bytes: no range, or no place for the answer", range.base, range.size);
    if (seg_find(range.base, &l) == 0)
        page = MAX(page, l.page_size);
    start = align_down((uintptr_t)range.base, page);
    memset(bytes, 0, LA_NODES_MAX * sizeof(*bytes));
    return look_at_pages(start, page, (unsigned)((align_up(end, page) - start) / page), bytes);
}
