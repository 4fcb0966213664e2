/*
 * page.h - a page: slices that hold blocks of one class, and its list of free blocks: in band, or in a shadow of the blocks (R1, R3).
 *
 * The first word of a free block says where it is: la_free_mark (a secret of the process) in a bin, la_queue_mark() in a remote free queue
 * or a batch for one, the complement of the first on its page's list; the link is in the second word. A block is handed out only if it
 * carries the mark, and loses it then: a block that was freed twice, or written to after it was freed, is found out
 * before it can do harm, when its second entry surfaces. (Reading the mark in free() would find it earlier, at the price of a
 * cache miss per free of a cold block: measured, that doubles the time of random replacement. Two quick looks at the bin's
 * youngest entries catch the usual case at once.) Blocks of 8 bytes have no second word: on a list the link replaces
 * the mark.
 *
 * Of a page of up to 64 blocks the free ones are bits in its descriptor instead, and keep the mark of a bin: blocks of 32 KiB all have their first
 * words in the same few cache sets, and a list through them is a miss per step (a batch of 1,000: 2.0 misses per pair, with a list 3.0; cachegrind).
 *
 * Is an address the start of a block? With divisor = floor(2^64 / size) + 1, offset * divisor mod 2^64 is below divisor
 * exactly for multiples of size (D. Lemire, O. Kaser, N. Kurz, "Faster remainder by direct computation", 2019);
 * exact for offsets below 2^32.
 */
#ifndef CORE_PAGE_H
#define CORE_PAGE_H

#include "core/types.h"

static inline uint64_t page_divisor(size_t block_size)
{
    return UINT64_MAX / block_size + 1;
}

static inline bool page_is_block_start(const struct la_page *page, const void *p)
{
    uint64_t rest = (uintptr_t)p - page->start;

#ifdef __x86_64__
    /* From memory twice, which compilers take for dearer than a register: it saves free() an instruction. */
    __asm__("imulq %1, %0" : "+r"(rest) : "m"(page->divisor) : "cc");
#else
    rest *= page->divisor;
#endif
    return rest < page->divisor;
}

/*
 * The two words of a free block: the block's own, or in memory that the processor must not touch its shadow's (out of band). All that is
 * said here of first and second words is said of these.
 */
uint64_t *page_shadow_words(const struct la_page *page, const void *block);

static inline uint64_t *page_words(const struct la_page *page, const void *block)
{
    return likely(!page->mapping) ? (uint64_t *)(uintptr_t)block : page_shadow_words(page, block);
}

/* Before the page has a block; false: out of memory. And when it has none any more; does nothing in band. */
bool page_shadow_make(struct la_page *page);
void page_shadow_drop(struct la_page *page);

/* Where a free block of @page keeps the link to the next. */
static inline void **page_link(const struct la_page *page, const void *block)
{
    return (void **)page_words(page, block) + (page->block_size > 8 || page->kind != PAGE_SMALL);
}

static inline bool page_has_bits(const struct la_page *page)
{
    return page->capacity <= 64;
}

/* Of the block that starts at @block. */
static inline unsigned page_block_index(const struct la_page *page, const void *block)
{
    return (unsigned)((unsigned __int128)((uintptr_t)block - page->start) * page->divisor >> 64);
}

static inline bool page_has_free(const struct la_page *page)
{
    return page->free_count > 0 || page->bump < page->capacity;
}

static inline bool page_block_is_marked(const struct la_page *page, const void *block)
{
    return *page_words(page, block) == la_free_mark;
}

/* Of a block that waits for its owner. */
static inline uint64_t la_queue_mark(void)
{
    return la_free_mark ^ 1;
}

static inline bool page_block_is_queued(const struct la_page *page, const void *block)
{
    return *page_words(page, block) == la_queue_mark();
}

/* Choose la_free_mark, once: never 0, as before that, nor 1, as la_no_block. */
void page_mark_init(void);

/* Make @slices at @start a page of class @c for @chain. */
void page_init_small(struct la_page *page, struct la_chain *chain, unsigned c, uintptr_t start, size_t bytes);

/* Move up to @wanted free blocks, marked, to @out, lowest address last; returns how many. */
unsigned page_take(struct la_page *page, void **out, unsigned wanted);

/* The fast path frees into bins that are open to it: not into those of a thread-safe chain, say. */
static inline void page_open_to_fast_path(struct la_page *page, struct la_chain *chain)
{
    atomic_store_explicit(&page->fast_chain, chain->bins == chain->fast ? chain : NULL, memory_order_relaxed);
}

/* Put one marked block back on the page's list; false: it was no free block, reported. The caller looks after chain->avail. */
bool page_put(struct la_page *page, void *block);

/* The block is on the page's list, or was never handed out: slow, for reports. */
bool page_block_is_free(const struct la_page *page, const void *block);

/* E1 and the list's links; returns a description of what is wrong, or NULL. */
const char *page_check(const struct la_page *page);

/*
 * The page's blocks are the chain's own to free. A plain load, so that it folds into the compare: the value changes only between other chains
 * while it is not ours, and an aligned pointer is read whole.
 */
static inline bool page_is_own(const struct la_page *page, const struct la_chain *chain)
{
#ifdef __SANITIZE_THREAD__
    return atomic_load_explicit(&page->fast_chain, memory_order_relaxed) == chain;
#else
    return *(struct la_chain *const *)&page->fast_chain == chain;
#endif
}

#endif
