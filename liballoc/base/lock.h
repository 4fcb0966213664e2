/*
 * lock.h - a mutex of one word, usable before libc is ready and after fork.
 *
 * word: 0 free; else twice the number of the thread that has it, odd: somebody may sleep. After U. Drepper, "Futexes Are Tricky" (2011),
 * mutex 2.
 * Rank: locks are taken in rising rank only; debug builds check it (see enum lock_rank).
 */
#ifndef BASE_LOCK_H
#define BASE_LOCK_H

#include <stdatomic.h>

#include "base/util.h"

/* Order of acquisition: earlier ones first. */
enum lock_rank {
    RANK_HEAP = 1,      /* list of attached shared heaps */
    RANK_THREADS,       /* list of chains, dead chains */
    RANK_CHAIN,         /* a thread-safe chain */
    RANK_GROW,          /* a source asking its owner for memory */
    RANK_SOURCE,        /* a source: macro blocks, abandoned blocks, huge cache */
    RANK_HUGE,          /* list and cache of huge blocks */
    RANK_REGION,        /* writers of the region map */
    RANK_META,          /* the metadata allocator */
    RANK_REGISTRY,      /* the registry of addresses, then its file */
    RANK_VSPACE,        /* fixed mappings of this process; which parts of a segment are in use */
    RANK_COUNT
};

struct la_lock {
    _Atomic(uint32_t) word;
    uint8_t rank;
};

#define LOCK_INIT(r) { .rank = (r) }

/*
 * While a thread holds a lock, its signals wait, but for those that it brings upon itself (SIGSEGV ...): no handler finds the lock taken by the
 * call that it interrupted, and none jumps out and leaves it taken (R9). Two system calls; nested ones cost nothing more. Not for
 * RANK_CHAIN, which is taken by every call on a thread-safe chain.
 */
void lock_take(struct la_lock *lock);
/* The same for one of several locks of one rank, by a caller that has an order for them. */
void lock_take_peer(struct la_lock *lock);
void lock_give(struct la_lock *lock);
/*
 * Of rank RANK_CHAIN, whose holder may have jumped out of the call that took it (siglongjmp from a handler), and gives it back when it calls the
 * next time: false after a second without it.
 */
bool lock_take_patiently(struct la_lock *lock);
/* The calling thread has it: it is in a handler, or has jumped. */
bool lock_is_mine(const struct la_lock *lock);
/* After fork: the child is alone, whoever held it is gone. */
void lock_reset(struct la_lock *lock);
/* After fork, in the child, when all locks are reset: what the forking thread held is held no more. */
void lock_child(void);

/* The same around several locks that are taken one after the other. */
void signals_hold(void);
void signals_release(void);

#endif
