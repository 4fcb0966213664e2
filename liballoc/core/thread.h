/*
 * thread.h - the calling thread's own chain, and what happens when threads begin, end and fork.
 */
#ifndef CORE_THREAD_H
#define CORE_THREAD_H

#include "core/types.h"

/* The calling thread's own chain, made on first use; NULL: out of memory. */
struct la_chain *thread_own_chain(void);

/*
 * A slow path that is running, in its stack frame: la_tls_slow leads to the outermost one of the thread, whatever runs inside of it (a handler, the
 * callback of a report). token: the frame has not been left by a jump and used for something else. Several words, as the frames of later calls
 * have gaps.
 */
struct slow_path {
    const void *frame;      /* where the stack is: ASan has stacks of its own for what has an address */
    uintptr_t token[8];
};

/* Survive the frame: the default chain that is closed meanwhile, and the chain that is at work. */
extern HIDDEN __thread struct la_chain *la_tls_closed, *la_tls_work;

/* What no other frame leaves there by chance. */
static inline uintptr_t slow_token(const struct slow_path *slow)
{
    return (uintptr_t)la_free_mark ^ (uintptr_t)slow;
}

/*
 * Around slow paths. A signal handler that comes in between finds the default chain closed: what it allocates is a mapping of its own, what it
 * frees goes into remote queues, and nothing that the interrupted call has half changed is touched (R9).
 */
static inline __attribute__((always_inline)) void slow_begin(struct slow_path *slow)
{
    if (unlikely(la_tls_slow != NULL))
        return;
    for (unsigned i = 0; i < ARRAY_SIZE(slow->token); i++)
        slow->token[i] = slow_token(slow);
    slow->frame = __builtin_frame_address(0);
    la_tls_closed = la_tls_default;
    atomic_signal_fence(memory_order_seq_cst);
    la_tls_slow = slow;
    atomic_signal_fence(memory_order_seq_cst);
    la_tls_default = &la_chain_none;
    atomic_signal_fence(memory_order_seq_cst);
}

/* false: inside of another one, whose chain and lock must not be touched. */
static inline bool slow_is_outermost(const struct slow_path *slow)
{
    return likely(la_tls_slow == slow);
}

/* In the outermost one: what a jump out of it leaves in pieces is @chain. Before its lock is taken. */
static inline void slow_work_on(struct la_chain *chain)
{
    la_tls_work = chain;
    atomic_signal_fence(memory_order_seq_cst);
}

static inline void slow_end(struct slow_path *slow)
{
    if (unlikely(!slow_is_outermost(slow)))
        return;
    atomic_signal_fence(memory_order_seq_cst);
    la_tls_work = NULL;
    la_tls_default = la_tls_closed;
    slow->token[0] = 0;
    atomic_signal_fence(memory_order_seq_cst);
    la_tls_slow = NULL;
}

/*
 * A slow path is said to be running: is it, so that this is a handler's call, or did a handler jump out of it (siglongjmp)? Then what it
 * left is put in order first. true: keep out of its way.
 */
bool slow_path_is_alive(const void *frame);

/* To be called by the function that calls slow_begin(), if any does: where its own frame was, none can be alive now. */
static inline __attribute__((always_inline)) bool thread_is_in_slow_path(void)
{
    return unlikely(la_tls_slow != NULL) && slow_path_is_alive(__builtin_frame_address(0));
}

/* Every chain of the process, for statistics and checks. */
void chains_add(struct la_chain *chain);
void chains_remove(struct la_chain *chain);
void chains_each(void (*visit)(struct la_chain *chain, void *arg), void *arg);

/* A chain's structure from the metadata allocator, with bins if @with_bins; for the caller to add (chains_add()) when it is complete. */
struct la_chain *chain_new(enum la_chain_kind kind, struct la_source *source, bool with_bins);
void chain_delete(struct la_chain *chain);

/* Hooks for shared heaps (core/shared_heap.c), called at thread end and around fork; NULL until the first heap is attached. */
struct thread_hooks {
    void (*thread_ends)(void);
    void (*slow_path_is_gone)(void);    /* by a jump out of it */
    void (*fork_prepare)(void);
    void (*fork_parent)(void);
    void (*fork_child)(void);
};
void thread_set_hooks(const struct thread_hooks *hooks);
/* The calling thread will run thread_ends even if it never allocates privately. */
void thread_watch_end(void);

#endif
