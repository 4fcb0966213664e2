/*
 * shared.h - one workload over several shared heaps. SHARED_BACKEND names the header of the heap under test:
 *
 *   shared_liballoc.h   a shared heap of liballoc
 *   shared_private.h    liballoc's private chain: what sharing costs is measured against it
 *   shared_malloc.h     malloc of whatever is preloaded: the same for others
 *   shared_boost.h      Boost.Interprocess, managed_shared_memory
 *   shared_rmm.h        APR-util's relocatable memory
 *   shared_mm.h         OSSP mm
 *   shared_dpdk.h       DPDK's rte_malloc
 *
 * Each gives backend_create(), _attach() and _remove(); shared_alloc() and shared_free(); shared_word() and
 * shared_block(), because a block has another address in each process for Boost and APR. Those for one process only have no use for the latter.
 */
#ifndef TESTS_BENCH_SHARED_H
#define TESTS_BENCH_SHARED_H

#include <stdio.h>

#include "bench.h"
#include SHARED_BACKEND

/* The first process creates the heap, the second attaches; the name goes at once, so that no crash leaves it behind. */
static inline void shared_open(size_t bytes, unsigned processes)
{
    char name[32];

    snprintf(name, sizeof(name), "bench-%d", (int)bench_first_pid());
    if (bench_is_first())
        backend_create(name, bytes);
    if (processes > 1) {
        bench_meet();
        if (!bench_is_first())
            backend_attach(name);
        bench_meet();
    }
    if (bench_is_first())
        backend_remove(name);
}

#endif
