/*
 * lock.h - a mutex of one word, usable before libc is ready and after fork.
 *
 * word: 0 free, 1 taken, 2 taken and somebody may sleep. U. Drepper, "Futexes Are Tricky" (2011), mutex 2.
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

void lock_take(struct la_lock *lock);
/* The same for one of several locks of one rank, by a caller that has an order for them. */
void lock_take_peer(struct la_lock *lock);
void lock_give(struct la_lock *lock);
/* After fork: the child is alone, whoever held it is gone. */
void lock_reset(struct la_lock *lock);

#endif
