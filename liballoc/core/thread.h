/*
 * thread.h - the calling thread's own chain, and what happens when threads begin, end and fork.
 */
#ifndef CORE_THREAD_H
#define CORE_THREAD_H

#include "core/types.h"

/* The calling thread's own chain, made on first use; NULL: out of memory. */
struct la_chain *thread_own_chain(void);

/*
 * Around slow paths. A signal handler that comes in between finds the default chain closed: what it allocates is a mapping of its own, what it
 * frees goes into remote queues (la_tls_busy > 1), and nothing that the interrupted call has half changed is touched (R9).
 * Return: the thread's default chain, for slow_end().
 */
static inline struct la_chain *slow_begin(void)
{
    struct la_chain *chain = la_tls_default;

    if (la_tls_busy++ == 0)
        la_tls_frame = __builtin_frame_address(0);
    la_tls_default = &la_chain_none;
    atomic_signal_fence(memory_order_seq_cst);
    return chain;
}

/*
 * A slow path is said to be running (la_tls_busy): is it, or did a handler jump out of it (siglongjmp)? Then its chain and its lanes may be in
 * pieces: the thread leaves them as they are and begins anew. false: we are in a handler, or cannot tell.
 */
bool thread_begins_anew(void);

static inline void slow_end(struct la_chain *chain)
{
    atomic_signal_fence(memory_order_seq_cst);
    la_tls_default = chain;
    if (la_tls_busy > 0)    /* 0: the thread began anew, wrongly (a user-level thread on another stack) */
        la_tls_busy--;
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
    void (*thread_begins_anew)(void);
    void (*fork_prepare)(void);
    void (*fork_parent)(void);
    void (*fork_child)(void);
};
void thread_set_hooks(const struct thread_hooks *hooks);
/* The calling thread will run thread_ends even if it never allocates privately. */
void thread_watch_end(void);

#endif
