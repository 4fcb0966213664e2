/*
 * shared_macro.h - the rows of macro blocks in a shared heap: who owns one, and the memory behind it.
 */
#ifndef CORE_SHARED_MACRO_H
#define CORE_SHARED_MACRO_H

#include "core/shared_heap.h"

/* From one owner to the next; false: it had another one. */
bool macro_claim(struct la_heap *heap, uint32_t macro, uint64_t from, uint64_t to);
/* By its owner alone. */
void macro_set_owner(struct la_heap *heap, uint32_t macro, uint64_t owner);
/* Its pages are lane @number's. True is what only that lane can change. */
static inline bool macro_is_of_lane(const struct la_heap *heap, uint32_t macro, unsigned number)
{
    return atomic_load_explicit(&heap->macros[macro].owner, memory_order_relaxed) == owner_make(OWNER_LANE, number);
}
/* To nobody; it is the first to be looked at by whoever needs one. */
void macro_release(struct la_heap *heap, uint32_t macro);

/* Memory for @n macro blocks that the caller claimed, before they are touched: no SIGBUS later. false: la_last_error() says why. */
bool macro_commit(struct la_heap *heap, uint32_t macro, uint32_t n);
bool macro_is_committed(const struct la_heap *heap, uint32_t macro);
/* Tables for the first @rows macro blocks; false: the file system is full. */
bool macro_commit_rows(struct la_heap *heap, uint32_t rows);
/* The lane's row in the table of trail.h. */
bool macro_commit_trail(struct la_heap *heap, unsigned lane);

/* Nothing may be allocated any more (reported). */
bool heap_is_quarantined(const struct la_heap *heap);

#endif
