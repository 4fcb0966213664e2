/*
 * remote_free.h - the remote free queue: blocks freed by a thread that does not own their chain (R5).
 *
 * A thread gathers such blocks per owner and pushes a batch with one compare-and-swap; the owner takes the whole queue with
 * one exchange at its next slow path. Nodes are never popped one by one, so there is no ABA. (snmalloc gathers
 * the same way; the MPC allocator's queue of 2011 had one exchange per block.)
 */
#ifndef CORE_REMOTE_FREE_H
#define CORE_REMOTE_FREE_H

#include "core/page.h"
#include "core/types.h"

/* Free a small or large block of another chain from @me (the calling thread's own chain): gathered if the owner is a thread's. */
void remote_free(struct la_chain *me, struct la_page *page, void *block);
/* The same, pushed at once. */
void remote_free_now(struct la_page *page, void *block);
/* Push what @me has gathered. */
void remote_flush(struct la_chain *me);

/* The whole queue, linked by remote_next(); NULL when empty. */
void *remote_take_all(struct la_chain *chain);

/*
 * The same by the chain's user, to be taken block by block from chain->draining, where a jump out of the slow path finds the rest (repair.c).
 * false: it is empty.
 */
bool remote_begin_drain(struct la_chain *chain);
/* The next of them, and its page; NULL: that was the last. */
void *remote_drain(struct la_chain *chain, struct la_page **page);
/* After a jump: what is said to be draining may be in the queue still. */
void remote_repair(struct la_chain *chain);

/*
 * The page of a block from the queue. NULL: since it was queued, the block was freed again or written to, which is reported;
 * its link leads anywhere, so the walk ends here.
 */
struct la_page *remote_page_of(void *block);

static inline void *remote_next(const struct la_page *page, void *block)
{
    return *page_link(page, block);
}

#endif
