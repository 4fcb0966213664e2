/*
 * shared_fast.h - the usual case in a shared heap: a small block out of the calling lane's bin, and back into it (R4).
 *
 * Beside the stack of blocks runs one of where their state words are (struct la_bin_words), so that allocation looks at no page. The words
 * of what is in a bin are FREE and have their page's epoch (lane_take() sees to it): allocating is one or. An empty bin reads a word
 * that is never FREE, so that it needs no test of its own.
 *
 * Freeing by the page's own lane is a load and a store, not a compare-and-swap. Somebody else who frees the same block at the same moment
 * (a double free) makes the same word of it, FREE with the next generation; whoever else might change the word of a block that is
 * HEAP has taken it first (la_take()), and then it is not ours to free. So nothing is lost but the report.
 *
 * Only the lane's thread comes here, never while it is in a slow path of the heap: chain->user and la_tls_lane say so. Handlers of the same
 * thread are restartable.h's matter.
 */
#ifndef CORE_SHARED_FAST_H
#define CORE_SHARED_FAST_H

#include "core/page.h"
#include "core/restartable.h"
#include "core/lane.h"
#include "core/size_class.h"

enum {
    WORD_STATE_MASK = 3 << 12,
    WORD_HOLDER_MASK = (1 << 14) - 1,               /* state and lane */
    WORD_MEANING_MASK = (1 << 20) - 1,              /* epoch, state and lane */
    WORD_NEXT_GENERATION = 1 << 20,
    WORD_HEAP_BITS = WORD_HEAP << 12,
    WORD_HELD_BITS = WORD_HELD << 12,
};

/* The state words of a PAGE_LANE, and what a word says of a block that is HEAP: its page's epoch and the state. */
static inline _Atomic(word_t) *lane_page_words(const struct la_page *page)
{
    return page->mapping;
}

static inline word_t lane_page_heap_bits(const struct la_page *page)
{
    return (word_t)page->large_size;
}

/* The one store that allocates; false: the block is in use. */
static inline bool word_claim(_Atomic(word_t) *word, word_t holder)
{
    /* Acquire: pairs with the release in block_release(): what the last user did to the block comes before what the next does. */
    word_t w = atomic_load_explicit(word, memory_order_acquire);

    if (unlikely(w & WORD_STATE_MASK))
        return false;
    atomic_store_explicit(word, w | holder, memory_order_release);
    return true;
}

/* From an entry of a lane's bin to where its state word is said. Not to be kept: a slow path, a handler's too, may make the bin grow. */
static inline const ptrdiff_t *words_distance(const struct la_bin *bin)
{
    return &((const struct la_bin_words *)((const char *)bin + offsetof(struct lane, words)))->distance;
}

static inline struct la_bin *lane_bin(struct la_chain *lane, size_t offset)
{
    return (struct la_bin *)((char *)lane + offset);
}

static inline _Atomic(word_t) **word_slot(struct la_chain *lane, size_t offset, void **entry)
{
    return (_Atomic(word_t) **)((char *)entry + *words_distance(lane_bin(lane, offset)));
}

/*
 * @bin, but known before it is computed if it is the one that the thread freed into last: the processor goes on with its guess. Else the next allocation
 * of this class, whose loads are to see what this free() stores, waits until the region map has said where (a pair of one object on an Ice Lake: 12.5 ns,
 * with the guess 8.6).
 */
static inline struct la_bin *guess_bin(struct la_bin *bin)
{
    struct la_bin *hot = la_tls_lane.hot;

    __asm__("" : "+r"(hot));            /* to the compiler another value than @bin, whatever the comparison says */
    if (likely(bin == hot)) {
        __asm__ volatile("" : "+r"(hot));       /* a branch, no conditional move */
        return hot;
    }
    la_tls_lane.hot = bin;
    return bin;
}

/* What the word of a block says that is allocated with @policy. */
static inline word_t lane_holder_bits(const struct lane *lane, enum la_policy policy)
{
    return policy == LA_KEEP ? (word_t)WORD_HEAP_BITS : (word_t)WORD_HELD_BITS | lane->number;
}

static inline __attribute__((always_inline)) void *lane_alloc_fast(const struct la_heap *heap, size_t size, enum la_policy policy)
{
    struct lane *lane = la_tls_lane.lane;
    struct la_bin *bin;
    size_t offset;

    if (unlikely(la_tls_lane.serial != heap->serial))
        return NULL;
    if (likely(size <= TABLE_MAX))
        offset = la_bin_offset[size];
    else if (size <= SMALL_MAX)
        offset = class_of_large(size) * sizeof(struct la_bin);
    else
        return NULL;
    bin = lane_bin(&lane->chain, offset);
    return bin_claim(bin, words_distance(bin), WORD_STATE_MASK, lane_holder_bits(lane, policy),
                     policy == LA_HELD ? heap->marks_of_addresses : NULL);
}

/* The calling thread's lane, and not in a slow path. A plain load, as in page_is_own(): only the thread itself writes what it would take for true. */
static inline bool lane_is_mine(const struct la_chain *lane)
{
#ifdef __SANITIZE_THREAD__
    return atomic_load_explicit(&lane->user, memory_order_relaxed) == thread_self();
#else
    return *(const void *const *)&lane->user == thread_self();
#endif
}

/*
 * @page (what the region map has for a block) is of the lane that the thread used last, whose pointer is at hand: it is the thread's, not another's that was
 * made at its place since its heap was detached.
 */
static inline bool page_is_of_last_lane(const struct la_page *page)
{
    const struct la_chain *last = &la_tls_lane.lane->chain;

    return likely(page_is_own(page, last)) && likely(lane_is_mine(last));
}

/* The chain of any lane of the calling thread, if @page is its; else NULL. */
static inline struct la_chain *lane_of_page(const struct la_page *page)
{
    struct la_chain *chain = atomic_load_explicit(&page->fast_chain, memory_order_relaxed);

    return chain && lane_is_mine(chain) ? chain : NULL;
}

/* @page is @chain's, with its bin at @offset; false: it is not that simple, nothing was done. */
static inline __attribute__((always_inline)) bool lane_free_fast(struct la_chain *chain, const struct la_page *page, size_t offset, void *block)
{
    unsigned __int128 product = (unsigned __int128)((uintptr_t)block - page->start) * page->divisor;
    _Atomic(word_t) *word;
    struct la_bin *bin;
    word_t w;

    if (unlikely((uint64_t)product >= page->divisor))
        return false;
    word = lane_page_words(page) + (size_t)(product >> 64);
    w = atomic_load_explicit(word, memory_order_relaxed);
    /* The next allocation hands it out and its user writes to it; private memory has the line from the mark that free() writes. */
    prefetch_to_write(block);
    if (unlikely((w & WORD_MEANING_MASK) != lane_page_heap_bits(page)) &&
        (w & WORD_MEANING_MASK) != ((lane_page_heap_bits(page) ^ (WORD_HEAP_BITS ^ WORD_HELD_BITS)) | ((struct lane *)chain)->number))
        return false;
    bin = guess_bin(lane_bin(chain, offset));
    return bin_release(bin, words_distance(bin), block, word, w, ~WORD_HOLDER_MASK, WORD_NEXT_GENERATION);
}

#endif
