/*
 * shared_pool.h - one lane's pages and macro blocks: the operations of pool.c over state words.
 */
#ifndef CORE_SHARED_POOL_H
#define CORE_SHARED_POOL_H

#include "core/shared_block.h"

extern HIDDEN const struct la_pool_ops lane_pool_ops;

/* The view of the page around @block, which is of one of the lane's own pages. */
struct la_page *lane_page_of(struct la_chain *chain, void *block);
/* The state word of a block of a PAGE_LANE. */
_Atomic(word_t) *lane_page_word(const struct la_page *page, const void *block);

/*
 * Every page of the lane without a live block goes back to its macro block, every macro block without a page to the heap: another size
 * can have them. Takes a look at every page: for when memory is out.
 */
void lane_trim(struct la_chain *chain);

/* The same if the lane has much more than it needs; after a free. */
void lane_give_surplus(struct la_chain *chain);
/* There is no memory for @lane: others are to give what they can do without, when they come to it. */
void lane_starves(struct lane *lane);

/* Make @lane's private view again from the words of the heap; no thread may be using it. */
void lane_rebuild(struct lane *lane);

#endif
