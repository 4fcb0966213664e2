/*
 * shared.h - what the engine needs to know of shared heaps; the heaps themselves are in shared_*.c.
 */
#ifndef CORE_SHARED_H
#define CORE_SHARED_H

#include "core/types.h"

/* The calling thread's lane chain behind the heap's face @chain; NULL: no lane free or out of memory. */
struct la_chain *shared_lane_chain(struct la_chain *chain);

/* A block for a lane chain; @alignment 0: the usual. */
void *shared_alloc(struct la_chain *lane, size_t size, size_t alignment);

/* Free @block if it lies in a shared heap; false: it does not. Reports misuse itself. */
bool shared_free(void *block);

/* Usable bytes of @block if it lies in a shared heap and is live; 0 otherwise. */
size_t shared_usable_size(const void *block);
/* Fills what is known of an address in a shared heap; false: in none. */
bool shared_owner(const void *address, struct la_owner *ret);

#endif
