/*
 * chain.c - chains over buffers and sources: create, reset, destroy; the slow way into any chain.
 */
#include "core/chain.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "core/counted.h"
#include "core/huge.h"
#include "core/macroblock.h"
#include "core/meta.h"
#include "core/page.h"
#include "core/pool.h"
#include "core/region_map.h"
#include "core/remote_free.h"
#include "core/segment.h"
#include "core/shared.h"
#include "core/source.h"
#include "core/thread.h"

/* What a user buffer holds in front of its slices, beside the segment's own header. */
struct buffer_head {
    struct la_source source;
    struct la_chain chain, orphan;
    struct la_bin hidden[];     /* where the fast path must not serve it; behind them what the bins need */
};

/* From this size on a buffer can spare the memory for bins. */
#define BUFFER_BINS_MIN (512 * KiB)

void chain_init(struct la_chain *chain, enum la_chain_kind kind, struct la_source *source, void *bins_memory)
{
    *chain = (struct la_chain){ .kind = (uint8_t)kind, .source = source, .slice_shift = SLICE_SHIFT,
                                .lock = LOCK_INIT(RANK_CHAIN) };
    page_mark_init();
    chain->bins = chain->fast;
    chain->ops = &la_pool_in_band;
    list_init(&chain->all);
    pool_bins_close(chain->fast);
    if (bins_memory)
        pool_bins_open(chain, bins_memory);
}

/*
 * The fast path, which reads and writes blocks' first words, must not serve a chain of several threads, one that counts, nor one over memory that
 * is not the processor's: its bins are elsewhere, those at the front read empty.
 */
static bool hides_bins(unsigned flags, const struct la_source *source)
{
    return flags & (LA_CHAIN_MT | LA_CHAIN_STATS) || (source && source->ops.flags & LA_SOURCE_DEVICE_ONLY);
}

static void hide_bins(struct la_chain *chain, struct la_bin *hidden)
{
    memcpy(hidden, chain->fast, sizeof(chain->fast));
    chain->bins = hidden;
    pool_bins_close(chain->fast);
}

static int check_flags(unsigned flags)
{
    if (flags & ~(unsigned)(LA_CHAIN_MT | LA_CHAIN_STATS))
        return la_fail(-EINVAL, "chain flags %#x: only LA_CHAIN_MT and LA_CHAIN_STATS are known", flags);
    return 0;
}

struct claim {
    uintptr_t base, end;
    bool taken;
};

/* A buffer may be a block of a chain over a larger buffer, but not below 2 MiB (one map for both: region_map.c); else their bytes must be apart. */
static void compare_with_buffer(struct la_chain *chain, void *arg)
{
    const struct la_segment *s = chain->segment;
    struct claim *claim = arg;
    struct la_owner o = { .struct_size = sizeof(o) };

    if (!s || claim->base >= s->base + s->size || s->base >= claim->end)
        return;
    if (segment_is_direct(s) && la_owner_of((void *)claim->base, &o) == 0 && o.live && claim->end <= (uintptr_t)o.block + o.block_size)
        return;
    claim->taken = true;
}

/* Asked before the first byte is written: it would be another chain's descriptors. */
static bool is_taken(const void *buffer, size_t size)
{
    struct claim claim = { (uintptr_t)buffer, (uintptr_t)buffer + size, false };

    chains_each(compare_with_buffer, &claim);
    return claim.taken;
}

int la_chain_create_in(void *buffer, size_t size, unsigned flags, struct la_chain **ret)
{
    unsigned hidden = hides_bins(flags, NULL) ? BIN_CLASSES : 0;
    bool with_bins = size >= BUFFER_BINS_MIN;
    size_t extra = sizeof(struct buffer_head) + hidden * sizeof(struct la_bin) + (with_bins ? pool_bins_bytes(false) : 0);
    struct la_segment *segment;
    struct buffer_head *head;
    int r = check_flags(flags);

    if (r < 0)
        return r;
    if (!buffer)
        return la_fail(-EINVAL, "chain over a NULL buffer: give it memory");
    if (size < LA_CHAIN_MIN_SIZE || (uintptr_t)buffer + size < (uintptr_t)buffer)
        return la_fail(-ENOSPC, "a buffer of %zu bytes cannot hold a chain: give it at least %d", size, LA_CHAIN_MIN_SIZE);
    if (is_taken(buffer, size))
        return la_fail(-EEXIST, "buffer %p overlaps another chain's buffer: destroy that chain first, or nest in a buffer of 2 MiB or more",
                       buffer);
    segment = segment_init(buffer, size, false, extra, (void **)&head);
    if (!segment)
        return la_fail(-ENOSPC, "a buffer of %zu bytes cannot hold a chain and one block", size);
    source_init_fixed(&head->source, segment, &head->orphan);
    chain_init(&head->chain, CHAIN_USER, &head->source, with_bins ? &head->hidden[hidden] : NULL);
    head->chain.segment = segment;
    head->chain.slice_shift = segment->slice_shift;
    head->chain.flags = (uint8_t)flags;
    head->source.users = 1;
    if (hidden)
        hide_bins(&head->chain, head->hidden);
    if (!segment_is_direct(segment)) {
        r = region_window_add(segment);
        if (r < 0)
            return la_fail(r, r == -EEXIST ? "buffer %p overlaps another chain's buffer: destroy that chain first"
                                           : "no memory for the region map of buffer %p", buffer);
    }
    chains_add(&head->chain);
    *ret = &head->chain;
    return 0;
}

int la_chain_create(struct la_source *source, unsigned flags, struct la_chain **ret)
{
    struct la_chain *chain;
    int r = check_flags(flags);

    if (r < 0)
        return r;
    if (!source)
        source = &la_default_source;
    if (source->fixed)
        return la_fail(-EINVAL, "the source of a user buffer serves its one chain only");
    if (source_is_lost(source))
        return la_fail(-ECHILD, "source %s is not inherited: a child of fork() makes one of its own", source->ops.name);
    if (flags & LA_CHAIN_STATS && source->ops.flags & LA_SOURCE_DEVICE_ONLY)
        return la_fail(-EINVAL, "LA_CHAIN_STATS writes to blocks, and the memory of source %s is the device's only", source->ops.name);
    chain = chain_new(CHAIN_USER, source, true);
    if (!chain)
        return la_fail(-ENOMEM, "no memory for a chain");
    chain->flags = (uint8_t)flags;
    if (hides_bins(flags, source)) {
        struct la_bin *hidden = la_meta_alloc(sizeof(chain->fast));
        if (!hidden) {
            chain_delete(chain);
            return la_fail(-ENOMEM, "no memory for a chain");
        }
        hide_bins(chain, hidden);
    }
    lock_take(&source->lock);
    source->users++;
    lock_give(&source->lock);
    chains_add(chain);
    *ret = chain;
    return 0;
}

/* All pages of a macro block at once: stale frees find no page. */
static void wipe_macro(struct la_macro *m)
{
    if (segment_is_direct(m->segment))
        region_clear(macro_address(m), (size_t)__builtin_popcount(m->all_slices));   /* the last one may be short */
    for (unsigned i = 0; i < SLICES_PER_MACRO && (m->all_slices & (1u << i)); i++) {
        struct la_page *page = macro_page(m, i);

        atomic_store_explicit(&page->fast_chain, NULL, memory_order_relaxed);
        if (page->kind != PAGE_NONE && m->segment->apart)
            page_shadow_drop(page);
        page->kind = PAGE_NONE;
        page->listed = 0;
    }
    m->free_slices = m->all_slices;
}

void chain_drop_memory(struct la_chain *chain)
{
    pool_drain(chain);
    huge_free_all(chain);
    pool_bins_empty(chain);
    memset(chain->avail, 0, sizeof(chain->avail));
    while (chain->macros) {
        wipe_macro(chain->macros);
        source_give_macro(chain->source, chain, chain->macros);
    }
    chain->large_live = chain->large_bytes = 0;
}

/* What the fast paths do with a block of the default chain reads the block. */
static void close_pages(struct la_macro *m)
{
    for (unsigned i = 0; i < SLICES_PER_MACRO; i++)
        if (m->all_slices & (1u << i))
            atomic_store_explicit(&macro_page(m, i)->fast_chain, NULL, memory_order_relaxed);
}

void chain_lose(struct la_chain *chain)
{
    for (struct la_macro *m = chain->macros; m; m = m->chain_next)
        close_pages(m);
    pool_bins_close(chain->bins);
    chain->rooms = NULL;        /* a few KiB that are the child's price */
    chain->draining = NULL;
    atomic_store_explicit(&chain->remote, NULL, memory_order_relaxed);
    memset(chain->avail, 0, sizeof(chain->avail));
}

static int check_is_user_chain(const struct la_chain *chain)
{
    if (chain->kind != CHAIN_USER)
        return la_fail(-EINVAL, "chain %p is a thread's own or a shared heap's: only chains of la_chain_create*() can be "
                                "reset or destroyed", (const void *)chain);
    return 0;
}

int la_chain_reset(struct la_chain *chain)
{
    int r = check_is_user_chain(chain);

    if (r < 0)
        return r;
    signals_hold();
    /* What this thread has gathered for the chain would come back after its pages are gone. */
    if (la_tls_own)
        remote_flush(la_tls_own);
    chain_drop_memory(chain);
    signals_release();
    chain->taken = chain->large_allocated = 0;
    atomic_store_explicit(&chain->requested, 0, memory_order_relaxed);
    atomic_store_explicit(&chain->counted_allocations, 0, memory_order_relaxed);
    atomic_store_explicit(&chain->counted_frees, 0, memory_order_relaxed);
    return 0;
}

static void destroy(struct la_chain *chain)
{
    if (la_tls_own)
        remote_flush(la_tls_own);
    if (chain->segment) {
        huge_free_all(chain);
        if (segment_is_direct(chain->segment))
            region_clear(chain->segment->first, chain->segment->slice_count);
        else
            region_window_remove(chain->segment);
        chains_remove(chain);
        return;
    }
    chain_drop_memory(chain);
    lock_take(&chain->source->lock);
    chain->source->users--;
    lock_give(&chain->source->lock);
    if (hides_bins(chain->flags, chain->source))
        la_meta_free(chain->bins, sizeof(chain->fast));
    chain_delete(chain);
}

int la_chain_destroy(struct la_chain *chain)
{
    uint32_t users;
    int r;

    if (!chain)
        return 0;
    r = check_is_user_chain(chain);
    if (r < 0)
        return r;
    users = atomic_load_explicit(&chain->default_users, memory_order_acquire);
    if (users > 0)
        return la_fail(-EBUSY, "chain %p is the default chain of %u thread%s: put the previous one back first", (void *)chain,
                       users, plural(users));
    signals_hold();
    destroy(chain);
    signals_release();
    return 0;
}

int la_chain_pin(struct la_chain *chain, int node)
{
    int r = check_is_user_chain(chain);

    if (r < 0)
        return r;
    if (!chain->source->ops.acquire_on)
        return la_fail(-ENOTSUP, "source %s does not tell NUMA nodes apart: give it acquire_on(), or make a supply with per_node",
                       chain->source->ops.name);
    if (node < -1 || node >= (int)chain->source->node_count)
        return la_fail(-EINVAL, "NUMA node %d: source %s has nodes 0 to %u", node, chain->source->ops.name, chain->source->node_count - 1);
    if (chain->macros || chain->huge_live)
        return la_fail(-EBUSY, "chain %p has memory already: pin it before its first allocation, or after la_chain_reset()", (void *)chain);
    chain->pinned = (uint32_t)(node + 1);
    return 0;
}

void la_chain_name(struct la_chain *chain, const char *name)
{
    strncpy(chain->name, name ? name : "", sizeof(chain->name) - 1);
}

/* ---- the slow way in ---- */

/* The calling thread's own chain stands in for "none yet". */
static struct la_chain *resolve(struct la_chain *chain)
{
    return chain->kind == CHAIN_NONE ? thread_own_chain() : chain;
}

/* Memory of these chains must come from one place: there, a signal handler gets nothing rather than something else. */
static bool has_fixed_memory(const struct la_chain *chain)
{
    return chain->kind == CHAIN_HEAP || (chain->kind == CHAIN_USER && chain->source != &la_default_source);
}

static size_t slices_in_use(const struct la_chain *chain)
{
    size_t n = 0;

    for (const struct la_macro *m = chain->macros; m; m = m->chain_next)
        n += (size_t)__builtin_popcount(m->all_slices & ~m->free_slices);
    return n;
}

/* Memory is short: what waits in bins for a size that nobody asks for may be what this size needs. True: try again. */
static COLD bool reclaim(struct la_chain *chain, size_t size)
{
    size_t slices = slices_in_use(chain), macros = chain->macro_count;

    if (size > PTRDIFF_MAX)
        return false;
    pool_flush_all(chain);
    return slices_in_use(chain) < slices || chain->macro_count < macros;
}

/*
 * A signal handler that interrupted a slow path of this thread must not touch its structures and locks: it gets a block that belongs to
 * nobody.
 */
static void *alloc_detached(const struct la_chain *chain, size_t alignment, size_t size)
{
    return alignment > 64 || size > PTRDIFF_MAX || has_fixed_memory(chain) ? NULL : huge_alloc_detached(size);
}

static void *alloc_once(struct la_chain *chain, size_t alignment, size_t size, bool *zeroed)
{
    return alignment ? pool_alloc_aligned(chain, alignment, size) : pool_alloc(chain, size, zeroed);
}

/* @bytes: what @size takes in this chain. */
static void *alloc_counted(struct la_chain *chain, size_t alignment, size_t size, size_t bytes, bool *zeroed)
{
    void *block = alloc_once(chain, alignment, bytes, zeroed);

    if (unlikely(!block) && reclaim(chain, bytes))
        block = alloc_once(chain, alignment, bytes, zeroed);
    if (block)
        counted_out(chain, block, size);
    return block;
}

static void *alloc_locked(struct la_chain *chain, size_t alignment, size_t size, size_t bytes, bool *zeroed)
{
    void *block;

    if (unlikely(!lock_take_patiently(&chain->lock))) {
        block = alloc_detached(chain, alignment, size);
        if (!block)
            la_fail(-EBUSY, "chain %p has been locked for a second: a signal handler has jumped out of a thread's call on it (siglongjmp); that "
                            "thread's next call gives it back", (void *)chain);
        return block;
    }
    block = alloc_counted(chain, alignment, size, bytes, zeroed);
    lock_give(&chain->lock);
    return block;
}

/* @alignment 0: the usual. */
static void *alloc(struct la_chain *chain, size_t alignment, size_t size, bool *zeroed)
{
    struct slow_path slow;
    size_t bytes;
    void *block;

    *zeroed = false;
    if (thread_is_in_slow_path())
        return alloc_detached(chain, alignment, size);
    if (chain->kind == CHAIN_HEAP)
        return shared_alloc(chain, size, alignment);
    chain = resolve(chain);
    if (chain && source_is_lost(chain->source)) {
        la_fail(-ECHILD, "source %s is not inherited: in this child of fork() chain %p has no memory", chain->source->ops.name, (void *)chain);
        return NULL;
    }
    if (!chain || __builtin_add_overflow(size, counted_tail(chain), &bytes))
        return NULL;
    slow_begin(&slow);
    slow_work_on(chain);
    block = chain->flags & LA_CHAIN_MT ? alloc_locked(chain, alignment, size, bytes, zeroed)
                                       : alloc_counted(chain, alignment, size, bytes, zeroed);
    slow_end(&slow);
    if (unlikely(!block) && chain->segment)
        la_fail(-ENOMEM, "the user buffer of %zu bytes has no room for %zu bytes: free blocks or give it more memory",
                chain->segment->size, size);
    return block;
}

/* What no memory could serve: who has more to say has said it in alloc(). */
static COLD void explain(const struct la_chain *chain, size_t alignment, size_t size)
{
    if (size > PTRDIFF_MAX || alignment > PTRDIFF_MAX)
        la_fail(-ENOMEM, "%zu bytes, aligned to %zu, are more than an address space holds: was a size computed below 0?", size,
                MAX(alignment, (size_t)16));
    else if (chain->kind == CHAIN_HEAP && alignment > MACRO_SIZE)
        la_fail(-ENOMEM, "alignment %zu: blocks of shared heap %s can be aligned to 2 MiB at most", alignment, chain->name);
}

void *chain_alloc(struct la_chain *chain, size_t size, bool *zeroed)
{
    void *block = alloc(chain, 0, size, zeroed);

    if (unlikely(!block))
        explain(chain, 0, size);
    return block;
}

void *chain_alloc_aligned(struct la_chain *chain, size_t alignment, size_t size)
{
    bool zeroed;
    void *block = alloc(chain, alignment, size, &zeroed);

    if (unlikely(!block))
        explain(chain, alignment, size);
    return block;
}
