/*
 * trail.h - where recovery must look: what a lane holds can be found without a look at every block of the heap (R12).
 *
 * In macro blocks of its own a lane marks each slice in which it holds a block, before the block's state word says so: a byte per slice. Marks are
 * wiped off again while the lane allocates, a few words looked at for each block that it gets, from pages in which it holds nothing any more.
 *
 * In macro blocks of others it holds only what it has taken or inherited. The place of each is written into the lane's row, before the step that makes
 * the block its own. So is the block that it is about to free there, until its owner has been told: a death in between would hide a free block. Entries are
 * not taken back: the block's word says whether one still counts. What does not fit (too much is held at once; a thread frees that has no lane, or a signal
 * handler while its thread frees) loses the trail of the process: recovery then looks at every block.
 *
 * Only the lane's thread writes its marks and its row, but for a recoverer that gives a dead lane's bundle back; only recovery and the checker read them.
 */
#ifndef CORE_TRAIL_H
#define CORE_TRAIL_H

#include "core/lane.h"
#include "core/shared_block.h"

/* The lane gets its row, empty; without memory for it the trail is lost when it takes something. */
void trail_open(struct lane *lane);

/* Before @lane comes to hold the block, wherever that is. */
void trail_note(struct lane *lane, const struct block_ref *ref);

/* Before a lane holds a block of a macro block of its own. false: the slice was marked. */
static inline bool trail_mark(const struct la_heap *heap, const void *block)
{
    _Atomic(uint8_t) *mark = &heap->marks[((uintptr_t)block - (uintptr_t)heap->payload) >> SLICE_SHIFT];

    if (likely(atomic_load_explicit(mark, memory_order_relaxed) == MARK_HELD))
        return false;
    /* Release: pairs with nothing but the order of a death. */
    atomic_store_explicit(mark, MARK_HELD, memory_order_release);
    return true;
}

/* It got @n blocks; and: wipe marks off, as many as these pay for. */
void trail_earn(struct lane *lane, unsigned n);
void trail_wipe(struct lane *lane);

/* Nobody holds anything by a mark of the macro block: it has got another owner. */
void trail_forget(struct la_heap *heap, uint32_t macro);

/* Recovery of this process has to look at every block. */
void trail_lose(struct la_heap *heap);

/* Around the release and the hint of a block that is in no macro block of @lane; NULL: the thread has none. Return: for the other one. */
static inline bool trail_free_begin(struct la_heap *heap, const struct lane *lane, const void *block)
{
    struct heap_lane *entry = lane ? &heap->lane_table[lane->number] : NULL;

    /* Not 0: we are in a signal handler. */
    if (unlikely(!entry || !lane->trail || atomic_load_explicit(&entry->freeing, memory_order_relaxed))) {
        trail_lose(heap);
        return false;
    }
    /* Before the release of the block. */
    atomic_store_explicit(&entry->freeing, heap_offset(heap, block), memory_order_release);
    return true;
}

static inline void trail_free_end(const struct lane *lane, bool noted)
{
    /* Release: after the hint. */
    if (noted)
        atomic_store_explicit(&lane->heap->lane_table[lane->number].freeing, 0, memory_order_release);
}

/* ---- recovery ---- */

/* It does not lead to everything that the process has. */
bool trail_is_lost(const struct la_heap *heap, unsigned process);

/* The marked slices of a macro block. */
uint32_t trail_marks(const struct la_heap *heap, uint32_t macro);

/* Each block that the row of lane @number leads to, once or more often. */
void trail_each(struct la_heap *heap, unsigned number, block_visitor *visit, void *user);

/* Lane @number, whose word the block has, would be found to hold it. */
bool trail_leads_to(struct la_heap *heap, unsigned number, const struct block_ref *ref);

#endif
