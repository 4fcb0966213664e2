/*
 * lane.h - a lane: the chain that a thread has over a shared heap. At most one thread has it at a time; heap->lock is for lending it and taking it back.
 *
 * In the heap it is an entry of the table (struct heap_lane), which tells whose it is, and a number that state words have. The rest is private memory,
 * and can be made anew from the words (lane_rebuild()).
 */
#ifndef CORE_LANE_H
#define CORE_LANE_H

#include "core/shared_heap.h"

/* Private memory. */
struct lane {
    struct la_chain chain;      /* first; kind CHAIN_LANE, owner_data: this */
    struct la_bin_words words[SMALL_CLASSES];
    struct la_heap *heap;
    struct lane *next;          /* heap->lanes */
    struct la_bundle *bundle;
    unsigned number;            /* in the heap */
    uint32_t incarnation;
    uint32_t sweep_at;          /* macro block whose hints are looked at next */
    uint32_t restarts_seen;     /* of la_tls_restarts: what those may have left out of their bins is found */
    uint32_t starved_seen;      /* of the header's: what others lack was looked for */
    unsigned slow_calls;        /* since then */
    /* Bytes of blocks that left their pages for the bin and did not come back by our own hand; the most of it since the lane was trimmed. */
    int64_t out, most_out;
    bool idle;                  /* no thread has it */
    /* trail.h: its row (NULL: no memory for it), the entry written last, the state word of the block of each. */
    struct heap_trail *trail;
    unsigned trail_at;
    _Atomic(word_t) *trail_word[TRAIL_ENTRIES];
    /* Marks: there may be some; words that may be looked at; where to go on; macro blocks without a mark in a row. */
    bool has_marks;
    int earned;
    uint32_t wipe_macro, wipe_slice, rounds_without;
    _Alignas(64) char bins[];
};

/* The calling thread's lane in @heap, lent now if need be; NULL: none left or out of memory. */
struct lane *heap_lane(struct la_heap *heap);

/* Which lane the thread has in each heap of the table; the serial tells lanes of a heap that was detached. */
struct thread_lane {
    struct lane *lane;
    uint32_t serial;
    struct la_bin *hot;         /* of la_tls_lane: the bin that it freed into last. A guess, see guess_bin() */
};

extern HIDDEN __thread struct thread_lane la_tls_lanes[MAX_HEAPS];
/* The one it used last; serial 0: none, or the thread is in a slow path of it. */
extern HIDDEN __thread struct thread_lane la_tls_lane;

/* The same, but NULL if it has none. */
static inline struct lane *heap_lane_if_any(const struct la_heap *heap)
{
    const struct thread_lane *mine = &la_tls_lanes[heap->index];

    return likely(mine->serial == heap->serial) ? mine->lane : NULL;
}

/*
 * Around everything that works on a lane's bins and pages: a signal handler that comes in between finds the lane's fast paths closed, and
 * its frees go the way of another lane's. chain.user == NULL says that it is at work.
 */
static inline void lane_enter(struct lane *lane, struct slow_path *slow)
{
    slow_begin(slow);
    atomic_store_explicit(&lane->chain.user, NULL, memory_order_relaxed);
    la_tls_lane.serial = 0;
    atomic_signal_fence(memory_order_seq_cst);
}

static inline void lane_leave(struct lane *lane, struct slow_path *slow)
{
    atomic_signal_fence(memory_order_seq_cst);
    la_tls_lane = (struct thread_lane){ .lane = lane, .serial = lane->heap->serial };
    atomic_store_explicit(&lane->chain.user, thread_self(), memory_order_relaxed);
    slow_end(slow);
}

/* The calling thread ends: its lane of @heap waits for the next one. */
void lane_give_back(struct la_heap *heap);
/* The calling thread has jumped out of a call that was at work on its lane of @heap: the words say what there is. */
void lane_begin_anew(struct la_heap *heap);
/* The calling thread has no lane any more, in any heap. */
void lanes_forget_all(void);
/* Nobody uses @heap any more: the memory of its lanes. */
void lanes_release(struct la_heap *heap);

#endif
