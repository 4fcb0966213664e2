/*
 * page.h - a page: slices that hold blocks of one class, and its list of free blocks, in band.
 *
 * A free block carries la_free_mark (a secret of the process) in its first word, which tells a block freed
 * twice at the cost of one compare; the link of the page's list is in the second word. Blocks of 8 bytes have no second
 * word: there the link replaces the mark, and a second free is noticed only while the block sits in a bin.
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
    return ((uintptr_t)p - page->start) * page->divisor < page->divisor;
}

/* Where a free block of @page keeps the link to the next. */
static inline void **page_link(const struct la_page *page, void *block)
{
    return (void **)block + (page->block_size > 8 || page->kind != PAGE_SMALL);
}

static inline bool page_has_free(const struct la_page *page)
{
    return page->free_count > 0 || page->bump < page->capacity;
}

/* Choose la_free_mark, once. */
void page_mark_init(void);

/* Make @slices at @start a page of class @c for @chain. */
void page_init_small(struct la_page *page, struct la_chain *chain, unsigned c, uintptr_t start, size_t bytes);

/* Move up to @wanted free blocks to @out, lowest address last; returns how many. */
unsigned page_take(struct la_page *page, void **out, unsigned wanted);

/* Put one free block back on the page's list. The caller looks after chain->avail and empty pages. */
void page_put(struct la_page *page, void *block);

/* The block is on the page's list, or was never handed out: slow, for reports. */
bool page_block_is_free(const struct la_page *page, const void *block);

/* E1 and the list's links; returns a description of what is wrong, or NULL. */
const char *page_check(const struct la_page *page);

#endif
