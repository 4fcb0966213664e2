/*
 * numa.c - mbind() and what it cannot do, in words.
 *
 * Flags are left zero: pages that exist stay where they are. A segment is placed between its mapping and its first commit, so
 * there are none, but for one that is attached.
 */
#include "segments/numa.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/mempolicy.h>

#include "base/error.h"
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
    /* The kernel looks at one bit less than it is told. */
    if (syscall(SYS_mbind, s->base, s->size, modes[numa->mode].policy, modes[numa->mode].takes_nodes ? &nodes : NULL,
                modes[numa->mode].takes_nodes ? 64 + 1 : 0, 0) < 0)
        return seg_miss(s, request, SEG_PLACED, "NUMA placement: %s on nodes %#lx refused (errno %d: %s)", modes[numa->mode].name,
                        nodes, errno, errno == EINVAL ? "no such node, or not allowed to this process (cpuset)"
                                                      : "this kernel or sandbox has no mbind()");
    s->capabilities |= SEG_PLACED;
    return 0;
}

int seg_numa_node(const struct seg_numa *numa)
{
    bool single = numa->mode == SEG_NUMA_BIND && (numa->nodes & (numa->nodes - 1)) == 0;

    return single && numa->nodes ? __builtin_ctzll(numa->nodes) : -1;
}
