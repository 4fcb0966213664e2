/*
 * pool.h - a chain's free blocks: bins, refill, flush, large blocks. Slow paths; the fast one is in alloc.c.
 *
 * Called by the chain's user (for a thread-safe chain: with its lock held).
 */
#ifndef CORE_POOL_H
#define CORE_POOL_H

#include "core/types.h"

extern HIDDEN const struct la_pool_ops la_pool_in_band;

/* Every bin reads empty and full: no room, nothing to pop. What a chain without bins, or hidden from the fast path, has. */
void pool_bins_close(struct la_bin *bins);
/* Give @chain bins in @memory of pool_bins_bytes() bytes, with words beside them if chain->words is set. */
void pool_bins_open(struct la_chain *chain, void *memory);
size_t pool_bins_bytes(bool with_words);
/* The bins' memory that came later goes back. */
void pool_bins_release(struct la_chain *chain);
/* Forget what is in the bins: their pages are gone. */
void pool_bins_empty(struct la_chain *chain);

/* Any size and alignment; NULL: out of memory. *zeroed: the block reads as zero. */
void *pool_alloc(struct la_chain *chain, size_t size, bool *zeroed);
void *pool_alloc_aligned(struct la_chain *chain, size_t alignment, size_t size);
/* The two halves of it: a block of class @c; one of whole slices, not longer than a macro block. */
void *pool_alloc_small(struct la_chain *chain, unsigned c);
void *pool_alloc_large(struct la_chain *chain, size_t size, size_t alignment);

/* A block of one of @chain's own small or large pages. */
void pool_free(struct la_chain *chain, struct la_page *page, void *block);
/* The block of @page has just left its bin: let it start where @size bytes have room. */
void *pool_fit_large(struct la_page *page, size_t size, size_t alignment);
/* Grow or shrink a large block in place. */
bool pool_resize_large(struct la_chain *chain, struct la_page *page, size_t size);

/* @page has free blocks: on chain->avail (E2); or no more. */
void pool_list_page(struct la_chain *chain, struct la_page *page);
void pool_unlist_page(struct la_chain *chain, struct la_page *page);
/* An empty page that is on no list goes back. */
void pool_give_page(struct la_chain *chain, struct la_page *page);

/* Take the remote free queue in. */
void pool_drain(struct la_chain *chain);
/* All bins back to their pages, empty pages and macro blocks back to the source. */
void pool_flush_all(struct la_chain *chain);
/* The calling thread's own chain: queue, batches, bins. */
void pool_trim_own(void);

/* Is the block in a bin of @chain? For reports; slow. */
bool pool_bin_holds(const struct la_chain *chain, unsigned c, const void *block);
unsigned pool_bin_count(const struct la_chain *chain, unsigned c);

#endif
