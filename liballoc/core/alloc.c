/*
 * alloc.c - the malloc family on chains: the fast path (R4), and which slow path comes after it.
 *
 * The life of one small block: la_malloc() finds its class's bin of the thread's default chain in a table and takes the youngest
 * entry. la_free() finds the page in the region map, sees that the chain is the thread's own and the pointer the start
 * of a block, and puts it on the bin. No lock, no atomic read-modify-write, no loop.
 */
#include <errno.h>
#include <string.h>

#include <liballoc/chain.h>

#include "base/error.h"
#include "core/chain.h"
#include "core/counted.h"
#include "core/huge.h"
#include "core/macroblock.h"
#include "core/misuse.h"
#include "core/page.h"
#include "core/pool.h"
#include "core/region_map.h"
#include "core/remote_free.h"
#include "core/restartable.h"
#include "core/shared.h"
#include "core/shared_fast.h"
#include "core/size_class.h"
#include "core/thread.h"

/* ---- allocate ---- */

static NOINLINE void *alloc_slow(size_t size, struct la_chain *chain)
{
    int saved;
    bool zeroed;
    void *block;

    if (chain->kind == CHAIN_HEAP) {
        block = shared_alloc_fast(chain, size);
        if (likely(block != NULL))
            return block;
    }
    saved = errno;
    block = chain_alloc(chain, size, &zeroed);

    errno = block ? saved : ENOMEM;
    return block;
}

/* Above SMALL_MAX: a run of slices, out of its bin. */
static NOINLINE void *alloc_run(size_t size, struct la_chain *chain)
{
    size_t slices = (size + SLICE_SIZE - 1) >> SLICE_SHIFT;
    void *block;

    if (unlikely(size > MACRO_SIZE))
        return alloc_slow(size, chain);
    block = bin_pop(&chain->fast[class_of_run(slices)]);
    if (unlikely(!block))
        return alloc_slow(size, chain);
    *(uint64_t *)block = 0;
    /* It starts where its last user's size left room for a colour. */
    if (unlikely(((uintptr_t)block & (SLICE_SIZE - 1)) + size > slices << SLICE_SHIFT))
        return pool_fit_large(region_entry(block), size, 16);
    return block;
}

/* TABLE_MAX to SMALL_MAX: the class is computed. */
static NOINLINE void *alloc_medium(size_t size, struct la_chain *chain)
{
    struct la_bin *bin;
    void *block;

    if (unlikely(size > SMALL_MAX))
        return alloc_run(size, chain);
    bin = &chain->fast[class_of_large(size)];
    block = bin_pop(bin);
    if (unlikely(!block))
        return alloc_slow(size, chain);
    *(uint64_t *)block = 0;
    return block;
}

/* A bin by its offset in the chain. Hidden from the compiler, which else spends an instruction on the sum to use it twice. */
static inline struct la_bin *bin_at(struct la_chain *chain, size_t offset)
{
    __asm__("" : "+r"(offset));
    return (struct la_bin *)((char *)chain + offset);
}

static inline __attribute__((always_inline)) void *alloc_from(struct la_chain *chain, size_t size)
{
    void *block;

    if (unlikely(size > TABLE_MAX))
        return alloc_medium(size, chain);
    block = bin_pop(bin_at(chain, la_bin_offset[size]));
    if (unlikely(!block))
        return alloc_slow(size, chain);
    /* Takes the mark away: a second entry of the block will not be handed out. */
    *(uint64_t *)block = 0;
    return block;
}

FAST_PATH void *la_malloc(size_t size)
{
    return alloc_from(la_tls_default, size);
}

/* Of a chain that a signal handler may name while a slow path of this thread is at work on it; la_malloc() has the default chain closed. */
static void *alloc_named(struct la_chain *chain, size_t size)
{
    return unlikely(la_tls_slow != NULL) ? alloc_slow(size, chain) : alloc_from(chain, size);
}

FAST_PATH void *la_chain_alloc(struct la_chain *chain, size_t size)
{
    return alloc_named(chain, size);
}

static COLD void *refuse_product(size_t count, size_t size)
{
    la_fail(-ENOMEM, "%zu objects of %zu bytes are more than an address space holds: was a number computed below 0?", count, size);
    errno = ENOMEM;
    return NULL;
}

static void *calloc_from(struct la_chain *chain, size_t count, size_t size)
{
    size_t bytes;
    bool zeroed = false;
    void *block;

    if (unlikely(__builtin_mul_overflow(count, size, &bytes)))
        return refuse_product(count, size);
    if (bytes <= MACRO_SIZE) {
        block = alloc_named(chain, bytes);
    } else {
        int saved = errno;
        block = chain_alloc(chain, bytes, &zeroed);
        errno = block ? saved : ENOMEM;
    }
    if (block && !zeroed)
        memset(block, 0, bytes);
    return block;
}

void *la_calloc(size_t count, size_t size)
{
    return calloc_from(la_tls_default, count, size);
}

/* NULL, with the sentence why: @what would read or write memory that is a device's only. */
static COLD void *refuse_to_touch(const char *what, const void *where)
{
    la_fail(-ENOTSUP, "%s would touch memory that is the device's only (%p): let the device copy or fill it", what, where);
    errno = ENOTSUP;
    return NULL;
}

void *la_chain_calloc(struct la_chain *chain, size_t count, size_t size)
{
    if (unlikely(chain_is_device_only(chain)))
        return refuse_to_touch("calloc", (void *)chain);
    return calloc_from(chain, count, size);
}

void *la_chain_aligned_alloc(struct la_chain *chain, size_t alignment, size_t size)
{
    int saved = errno;
    void *block;

    if (!is_power_of_2(alignment)) {
        la_fail(-EINVAL, "alignment %zu is not a power of two", alignment);
        errno = EINVAL;
        return NULL;
    }
    block = chain_alloc_aligned(chain, alignment, size);
    errno = block ? saved : ENOMEM;
    return block;
}

void *la_aligned_alloc(size_t alignment, size_t size)
{
    return la_chain_aligned_alloc(la_tls_default, alignment, size);
}

/* ---- free ---- */

static const char *const foreign_text = "is no live block of liballoc (freed already, or from another allocator)";

static const char *const lost_text = "is the parent's: this child of fork() does not have its memory";

static bool chain_is_lost(const struct la_chain *chain)
{
    return chain && source_is_lost(chain->source);
}

static const char *const again_text = "was freed already";

/* The one block of @page lies in a bin of a chain of the calling thread. (Into others' it must not look; their owner finds it out.) */
static bool large_is_in_bin(const struct la_chain *owner, const struct la_page *page)
{
    const void *block = (const void *)page->start;

    return page->kind == PAGE_LARGE && (owner == la_tls_own || owner == la_tls_closed) && pool_bin_count(owner, page->size_class) > 0 &&
           page_block_is_marked(page, block) && pool_bin_holds(owner, page->size_class, block);
}

/*
 * The one block of a large or huge page: whoever takes @used from 1 to 0 frees it. Two threads may be wrong at once, and a
 * block that is twice in a remote free queue would make a ring of it. What is wrong; NULL: it is the caller's to free.
 */
static const char *claim_large(const struct la_chain *owner, struct la_page *page, const void *block)
{
    if ((uintptr_t)block != page->start)
        return "is not the start of its large block";
    if (large_is_in_bin(owner, page))
        return again_text;
    return __atomic_exchange_n(&page->used, 0, __ATOMIC_RELAXED) == 1 ? NULL : again_text;
}

/* What is wrong with freeing @block of @page, which looks free already or is no start; NULL: nothing after all. */
static const char *why_not(const struct la_chain *chain, const struct la_page *page, const void *block)
{
    if (page->kind != PAGE_SMALL)
        return NULL;    /* claimed before */
    if (!page_is_block_start(page, block))
        return "is not the start of a block";
    if (page_block_is_queued(page, block))
        return again_text;      /* by another thread than its owner, or its chain is not the thread's own */
    if (!page_block_is_marked(page, block) && *page_words(page, block) != ~la_free_mark)
        return NULL;
    /* The mark may have come by copying freed memory: look. */
    if (chain && (pool_bin_holds(chain, page->size_class, block) || page_block_is_free(page, block)))
        return again_text;
    return NULL;
}

static void report(const struct la_page *page, const void *block, const char *why)
{
    if (page && page->kind == PAGE_SMALL) {
        size_t offset = ((uintptr_t)block - page->start) % page->block_size;
        misuse_report(block, "%s: %zu bytes into a block of %u bytes at %p", why, offset, page->block_size,
                      (const void *)((uintptr_t)block - offset));
    } else if (page) {
        misuse_report(block, "%s: block of %zu bytes at %p", why, page->large_size, (const void *)page->start);
    } else {
        misuse_report(block, "%s", why);
    }
}

/* The block of another thread, or of a chain that is at work in the call which a handler interrupted. */
static void free_other(struct la_page *page, void *block, bool gather)
{
    const char *why = why_not(NULL, page, block);

    if (why) {
        report(page, block, why);
        return;
    }
    counted_back(atomic_load_explicit(&page->chain, memory_order_relaxed), page, block);
    if (gather)
        remote_free(la_tls_own, page, block);
    else
        remote_free_now(page, block);
}

static void free_shared_chain(struct la_chain *chain, struct la_page *page, void *block)
{
    const char *why;

    slow_work_on(chain);
    if (unlikely(!lock_take_patiently(&chain->lock))) {
        free_other(page, block, false);
        return;
    }
    why = why_not(chain, page, block);
    if (!why) {
        counted_back(chain, page, block);
        pool_free(chain, page, block);
    }
    lock_give(&chain->lock);
    if (why)
        report(page, block, why);
}

static void free_own(struct la_chain *chain, struct la_page *page, void *block)
{
    const char *why = why_not(chain, page, block);

    if (why) {
        report(page, block, why);
        return;
    }
    slow_work_on(chain);
    counted_back(chain, page, block);
    pool_free(chain, page, block);
}

/* @nested: in a handler. The interrupted call may be at work on the chain, or hold its lock. */
static void free_page_block(bool nested, struct la_page *page, void *block)
{
    struct la_chain *owner = atomic_load_explicit(&page->chain, memory_order_relaxed);
    const char *why = chain_is_lost(owner) ? lost_text : page->kind == PAGE_SMALL ? NULL : claim_large(owner, page, block);

    if (why) {
        report(page, block, why);
        return;
    }
    if (page->kind == PAGE_HUGE) {
        counted_back(owner, page, block);
        huge_free(page);
        return;
    }
    if (unlikely(nested))
        free_other(page, block, false);
    else if (owner->flags & LA_CHAIN_MT)
        free_shared_chain(owner, page, block);
    else if (owner == la_tls_own || owner == la_tls_closed)
        free_own(owner, page, block);
    else
        free_other(page, block, la_tls_own != NULL);
}

/*
 * Who frees many blocks of other threads gathers them in a chain of its own, also a thread that allocates nothing. Who frees a few pushes them
 * one by one, and needs none.
 */
static void gather_from_now_on(void)
{
    enum { FEW = 64 };
    static __thread unsigned frees;

    if (++frees == FEW) {
        frees = 0;
        thread_own_chain();
    }
}

static NOINLINE void free_slow(void *block)
{
    struct slow_path slow;
    struct la_page *page;
    bool nested;
    int saved;

    if (!block)
        return;
    saved = errno;
    nested = thread_is_in_slow_path();
    page = region_page(block);
    if (unlikely(!la_tls_own) && !nested)
        gather_from_now_on();
    slow_begin(&slow);
    if (page && !page_is_shared(page))
        free_page_block(nested, page, block);
    else if (!shared_free(block, nested))
        report(NULL, block, foreign_text);
    slow_end(&slow);
    errno = saved;
}

/* Another thread's, or of a shared heap by another lane. */
static NOINLINE void free_of_others(void *block, const struct la_page *page)
{
    if (!page_is_shared(page) || !shared_free_fast(page, block))
        free_slow(block);
}

/* The thread has lanes in several heaps, or none in this one. */
static NOINLINE void free_in_other_lane(void *block, const struct la_page *page, size_t bin)
{
    struct la_chain *lane = lane_of_page(page);

    if (!lane)
        free_of_others(block, page);
    else if (unlikely(!lane_free_fast(lane, page, bin, block)))
        free_slow(block);
}

/* Not the default chain's: the thread's lane in a shared heap is next. Every call is a last one, so that none needs a frame. */
static NOINLINE FAST_PATH void free_elsewhere(void *block, const struct la_page *page, size_t bin)
{
    if (unlikely(!page_is_of_last_lane(page))) {
        free_in_other_lane(block, page, bin);
        return;
    }
    if (unlikely(!lane_free_fast(&la_tls_lane.lane->chain, page, bin, block)))
        free_slow(block);
}

/* A block of the default chain, but no small one's start. What is in the bin already, or waits for its owner in a queue, says so in its first word. */
static NOINLINE void free_run(void *block, const struct la_page *page)
{
    bool fits = page->kind == PAGE_LARGE && page->start == (uintptr_t)block && (*(const uint64_t *)block ^ la_free_mark) > 1;

    if (unlikely(!fits) || unlikely(!bin_push(la_tls_default, page->bin_offset, block)))
        free_slow(block);
}

FAST_PATH void la_free(void *block)
{
    struct la_chain *chain = la_tls_default;
    size_t bin;
    struct la_page *page = region_lookup(block, &bin);

    if (unlikely(!page_is_own(page, chain))) {
        free_elsewhere(block, page, bin);
        return;
    }
    if (unlikely(!page_is_block_start(page, block))) {
        /* Hidden from the compiler, which else keeps what was read of it in a register for that call, at an instruction more for all the others. */
        __asm__("" : "+r"(page));
        free_run(block, page);
        return;
    }
    /* Full, or freed again at once. */
    if (unlikely(!bin_push(chain, bin, block)))
        free_slow(block);
}

/* ---- size, realloc ---- */

static size_t usable(const struct la_page *page)
{
    return page->kind == PAGE_SMALL ? page->block_size : page->large_size;
}

size_t la_usable_size(const void *block)
{
    struct la_page *page = block ? region_page(block) : NULL;
    struct la_chain *owner;

    if (!page || page_is_shared(page))
        return block ? shared_usable_size(block) : 0;
    if (page->kind == PAGE_SMALL ? !page_is_block_start(page, block) : (uintptr_t)block != page->start)
        return 0;
    owner = atomic_load_explicit(&page->chain, memory_order_relaxed);
    return large_is_in_bin(owner, page) ? 0 : usable(page) - counted_tail(owner);
}

static void note_size(struct la_page *page, void *block, size_t size)
{
    struct la_chain *owner = atomic_load_explicit(&page->chain, memory_order_relaxed);

    counted_resized(owner, page, block, counted_size(owner, page, block), size);
}

static bool resize_large(struct la_chain *owner, struct la_page *page, size_t size)
{
    bool shared = owner->flags & LA_CHAIN_MT, ok;

    if (!shared && owner != la_tls_own && owner != la_tls_closed)
        return false;
    slow_work_on(owner);
    if (shared && !lock_take_patiently(&owner->lock))
        return false;
    ok = pool_resize_large(owner, page, size);
    if (shared)
        lock_give(&owner->lock);
    return ok;
}

/* Grow or shrink where it lies; the block's address afterwards, NULL: it must be copied. */
static void *resize_bytes(struct la_page *page, void *block, size_t size)
{
    struct slow_path slow;
    struct la_chain *owner;
    bool ok;

    if (page->kind == PAGE_SMALL || thread_is_in_slow_path())
        return NULL;
    if (page->kind == PAGE_HUGE)
        return size > MACRO_SIZE ? huge_resize(page, size) : NULL;
    owner = atomic_load_explicit(&page->chain, memory_order_relaxed);
    slow_begin(&slow);
    ok = resize_large(owner, page, size);
    slow_end(&slow);
    return ok ? block : NULL;
}

static void *resize_in_place(struct la_page *page, void *block, size_t size)
{
    struct la_chain *owner = atomic_load_explicit(&page->chain, memory_order_relaxed);
    uint64_t old = counted_size(owner, page, block);
    size_t bytes;
    void *there;

    if (__builtin_add_overflow(size, counted_tail(owner), &bytes))
        return NULL;
    there = resize_bytes(page, block, bytes);
    if (there)
        counted_resized(owner, page, there, old, size);
    return there;
}

/* A small block keeps its size when it is freed, and realloc() may leave it where it is: the mark has to tell. */
static const char *why_not_resize(const struct la_page *page, const void *block)
{
    struct la_chain *owner = page && !page_is_shared(page) ? atomic_load_explicit(&page->chain, memory_order_relaxed) : NULL;

    if (chain_is_lost(owner))
        return lost_text;
    if (!page || page->kind != PAGE_SMALL || likely(!page_block_is_marked(page, block) && !page_block_is_queued(page, block)))
        return NULL;
    return why_not(owner == la_tls_own ? owner : NULL, page, block);
}

/* la_usable_size() knows no live block there: the same words as of la_free(). */
static COLD const char *why_no_block(const struct la_page *page, const void *block)
{
    if (!page || page_is_shared(page))
        return foreign_text;
    if (page->kind == PAGE_SMALL)
        return "is not the start of a block";
    return (uintptr_t)block != page->start ? "is not the start of its large block" : again_text;
}

/* A huge block's page has no shadow, but a segment too. */
static bool block_is_device_only(const struct la_page *page)
{
    return page && !page_is_shared(page) && page->macro && (page->macro->segment->source->ops.flags & LA_SOURCE_DEVICE_ONLY);
}

/*
 * The usual case: a block of the default chain that is long enough, and of which at least half is used (programs shrink and grow in turn). One that is
 * free has a mark. Reads only: also for handlers.
 */
static inline __attribute__((always_inline)) bool stays(const void *block, size_t size)
{
    const struct la_page *page = region_entry(block);
    size_t old;

    if (!page_is_own(page, la_tls_default))
        return false;
    old = usable(page);
    if (!page_is_block_start(page, block) && (page->kind != PAGE_LARGE || page->start != (uintptr_t)block))
        return false;
    return size <= old && size >= old / 2 && (*(const uint64_t *)block ^ la_free_mark) > 1;
}

/*
 * A block for the first @size bytes of one of @old bytes. Who grows a block by a bit will do so again: a quarter more than before makes the copies half as
 * many (28 to 64 KiB, not 57). Not where every byte is counted.
 */
static void *alloc_to_move(struct la_chain *chain, size_t old, size_t size)
{
    size_t ample = size > old ? MAX(size, old + old / 4) : size;
    void *block = ample > size && !counted_tail(chain) ? alloc_named(chain, ample) : NULL;

    return block ? block : alloc_named(chain, size);
}

static COLD void *refuse_to_resize(const struct la_page *page, const void *block, const char *why)
{
    struct la_owner o = { .live = false };

    if (why == foreign_text && shared_owner(block, &o) && o.live && o.block != block)
        misuse_report(block, "is %zu bytes into a block of %zu bytes at %p in heap %s", (size_t)((const char *)block - (const char *)o.block), o.block_size,
                      o.block, o.chain_name);
    else
        report(why == foreign_text ? NULL : page, block, why);
    errno = EINVAL;
    return NULL;
}

static NOINLINE void *realloc_in(struct la_chain *chain, void *block, size_t size)
{
    size_t old = la_usable_size(block);
    struct la_page *page = region_page(block);
    const char *why = old == 0 ? why_no_block(page, block) : why_not_resize(page, block);
    void *moved;

    if (unlikely(why != NULL))
        return refuse_to_resize(page, block, why);
    /* Stay while at least half of the block is used: programs shrink and grow in turn. */
    if (size <= old && size >= old / 2) {
        if (page && !page_is_shared(page))
            note_size(page, block, size);
        return block;
    }
    if (page && !page_is_shared(page) && size > SMALL_MAX) {
        int saved = errno;
        moved = resize_in_place(page, block, size);
        errno = saved;
        if (moved)
            return moved;
    }
    if (unlikely(chain_is_device_only(chain) || block_is_device_only(page)))
        return refuse_to_touch("realloc", block);
    moved = alloc_to_move(chain, old, size);
    if (!moved)
        return NULL;
    memcpy(moved, block, MIN(old, size));
    la_free(block);
    return moved;
}

void *la_chain_realloc(struct la_chain *chain, void *block, size_t size)
{
    if (!block)
        return alloc_named(chain, size);
    return likely(stays(block, size)) ? block : realloc_in(chain, block, size);
}

void *la_realloc(void *block, size_t size)
{
    return la_chain_realloc(la_tls_default, block, size);
}
