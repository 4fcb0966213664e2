/*
 * thread.h - the calling thread's own chain, and what happens when threads begin, end and fork.
 */
#ifndef CORE_THREAD_H
#define CORE_THREAD_H

#include "core/types.h"

/* The calling thread's own chain, made on first use; NULL: out of memory. */
struct la_chain *thread_own_chain(void);

/* Every chain of the process, for statistics and checks. */
void chains_add(struct la_chain *chain);
void chains_remove(struct la_chain *chain);
void chains_each(void (*visit)(struct la_chain *chain, void *arg), void *arg);

/* A chain's structure from the metadata allocator, with bins if @with_bins; @kind as given. */
struct la_chain *chain_new(enum la_chain_kind kind, struct la_source *source, bool with_bins);
void chain_delete(struct la_chain *chain);

/* Hooks for shared heaps (core/shared_heap.c), called at thread end and around fork; NULL until the first heap is attached. */
struct thread_hooks {
    void (*thread_ends)(void);
    void (*fork_prepare)(void);
    void (*fork_parent)(void);
    void (*fork_child)(void);
};
void thread_set_hooks(const struct thread_hooks *hooks);
/* The calling thread will run thread_ends even if it never allocates privately. */
void thread_watch_end(void);

#endif
