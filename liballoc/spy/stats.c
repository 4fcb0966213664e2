/*
 * stats.c - figures of chains, sources and huge blocks.
 *
 * The fast path counts nothing: what is live follows from what pages gave out and what bins hold. Chains with LA_CHAIN_STATS do not
 * use it and count each call (core/counted.h).
 */
#include <errno.h>
#include <string.h>

#include <liballoc/liballoc.h>

#include "base/error.h"
#include "core/huge.h"
#include "core/macroblock.h"
#include "core/page.h"
#include "core/pool.h"
#include "core/size_class.h"
#include "core/source.h"
#include "core/thread.h"

static int check_size(const struct la_stats *ret)
{
    if (!ret || ret->struct_size < offsetof(struct la_stats, allocated) || ret->struct_size > 4 * sizeof(*ret))
        return la_fail(-EINVAL, "set struct_size to sizeof(struct la_stats) before the call");
    return 0;
}

static void answer(struct la_stats *ret, const struct la_stats *got)
{
    size_t size = ret->struct_size;

    memset(ret, 0, size);
    memcpy(ret, got, MIN(size, sizeof(*got)));
    ret->struct_size = size;
}

static void add_page(struct la_stats *sum, const struct la_page *page)
{
    if (page->kind != PAGE_SMALL)
        return;
    sum->blocks += page->used;
    sum->allocated += (uint64_t)page->used * page->block_size;
    sum->cached += (uint64_t)(page->bump - page->used) * page->block_size;
}

static void add_macro(struct la_stats *sum, struct la_macro *m)
{
    sum->macro_blocks++;
    sum->mapped += macro_bytes(m);
    for (unsigned i = 0; i < SLICES_PER_MACRO; i++)
        if (m->all_slices & ~m->free_slices & (1u << i))
            add_page(sum, macro_page(m, i));
}

/* Blocks in bins are free, though their pages, or the count of large ones, have them as used. */
static void subtract_bins(struct la_stats *sum, const struct la_chain *chain)
{
    for (unsigned c = 0; c < BIN_CLASSES; c++) {
        uint64_t n = MIN((uint64_t)pool_bin_count(chain, c), sum->blocks);
        uint64_t bytes = n * class_size(c);

        sum->blocks -= n;
        sum->allocated -= MIN(bytes, sum->allocated);
        sum->cached += bytes;
        if (c < SMALL_CLASSES)      /* the others' have all been handed out once */
            sum->allocations -= MIN(n, sum->allocations);
    }
}

static void add_chain(struct la_chain *chain, void *arg)
{
    struct la_stats *sum = arg, own = { .struct_size = sizeof(own) };
    bool mt = chain->flags & LA_CHAIN_MT;

    /* Not to be had: a handler has jumped out of a call on it, so that its lists may be in pieces. */
    if (mt && !lock_take_patiently(&chain->lock))
        return;
    own.allocations = chain->taken + chain->large_allocated;
    own.remote_frees = atomic_load_explicit(&chain->remote_frees, memory_order_relaxed);
    for (struct la_macro *m = chain->macros; m; m = m->chain_next)
        add_macro(&own, m);
    own.blocks += chain->large_live;
    own.allocated += chain->large_bytes;
    subtract_bins(&own, chain);
    if (chain->flags & LA_CHAIN_STATS) {
        own.requested = atomic_load_explicit(&chain->requested, memory_order_relaxed);
        own.allocations = atomic_load_explicit(&chain->counted_allocations, memory_order_relaxed);
        own.frees = atomic_load_explicit(&chain->counted_frees, memory_order_relaxed);
    }
    own.huge_blocks = atomic_load_explicit(&chain->huge_live, memory_order_relaxed);
    own.blocks += own.huge_blocks;
    own.mapped += atomic_load_explicit(&chain->huge_mapped, memory_order_relaxed);
    own.allocated += atomic_load_explicit(&chain->huge_mapped, memory_order_relaxed);
    if (mt)
        lock_give(&chain->lock);
    for (unsigned i = sizeof(size_t) / sizeof(uint64_t); i < sizeof(own) / sizeof(uint64_t); i++)
        ((uint64_t *)sum)[i] += ((uint64_t *)&own)[i];
}

_Static_assert(sizeof(size_t) == sizeof(uint64_t), "struct la_stats is an array of 64 bit words");

int la_chain_stats(struct la_chain *chain, struct la_stats *ret)
{
    struct la_stats sum = { 0 };
    int r = check_size(ret);

    if (r < 0)
        return r;
    if (!chain)
        chain = la_tls_own;
    if (chain && chain->kind != CHAIN_HEAP)
        add_chain(chain, &sum);
    answer(ret, &sum);
    return 0;
}

int la_process_stats(struct la_stats *ret)
{
    struct la_stats sum = { 0 };
    int r = check_size(ret);

    if (r < 0)
        return r;
    chains_each(add_chain, &sum);
    lock_take(&la_default_source.lock);
    for (unsigned i = 0; i < la_default_source.node_count; i++)
        for (struct la_macro *m = la_default_source.nodes[i].abandoned; m; m = m->next)
            add_macro(&sum, m);
    add_chain(la_default_source.orphan, &sum);      /* large and huge blocks of ended threads */
    lock_give(&la_default_source.lock);
    sum.cached += la_default_source.dirty_bytes + huge_cached_bytes();
    sum.mapped += la_default_source.dirty_bytes + huge_cached_bytes();
    answer(ret, &sum);
    return 0;
}

const char *la_library_version(void)
{
    return "0.1.0";
}
