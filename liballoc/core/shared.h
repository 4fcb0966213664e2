/*
 * shared.h - what the engine needs to know of shared heaps; the heaps themselves are in shared_*.c.
 */
#ifndef CORE_SHARED_H
#define CORE_SHARED_H

#include "core/types.h"

/* A block of the heap behind the face @chain (CHAIN_HEAP), by the calling thread's lane; @alignment 0: the usual. */
void *shared_alloc(struct la_chain *chain, size_t size, size_t alignment);

/* Its usual case: a small block from the calling thread's bin. NULL: not that simple, nothing was done. */
void *shared_alloc_fast(struct la_chain *chain, size_t size);

/*
 * The usual case of freeing another lane's block: a small one that is HEAP, or that the thread has taken. @page: what the region map has for it,
 * page_is_shared(). false: not that simple, nothing was done. A signal handler may call it at any time.
 */
bool shared_free_fast(const struct la_page *page, void *block);

/* Free @block if it lies in a shared heap; false: it does not. Reports misuse itself. */
bool shared_free(void *block, bool nested);

/* Usable bytes of @block if it lies in a shared heap and is live; 0 otherwise. */
size_t shared_usable_size(const void *block);
/* Fills what is known of an address in a shared heap; false: in none. */
bool shared_owner(const void *address, struct la_owner *ret);

#endif
