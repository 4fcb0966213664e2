/*
 * shared_reset.c - free every block of a shared heap at once: the page epoch makes older state words mean free.
 *
 * One store per page, not per block. When the epoch (6 bits) comes round to 0, the words are made free one by one, so that none of an
 * old epoch comes to life again.
 */
#include <errno.h>
#include <string.h>

#include <liballoc/error.h>

#include "base/error.h"
#include "core/lane.h"
#include "core/page.h"
#include "core/shared_pool.h"
#include "core/shared_run.h"
#include "core/size_class.h"

enum { EPOCHS = 1 << WORD_EPOCH_BITS };

static void clear_words(struct la_heap *heap, uint32_t macro, unsigned slice, slice_t page)
{
    struct block_ref ref;
    size_t n = 1;

    if (!block_find(heap, heap->payload + (size_t)macro * MACRO_SIZE + slice * SLICE_SIZE, &ref))
        return;
    if (slice_kind(page) == SLICE_SMALL)
        n = slice_count(page) * SLICE_SIZE / ref.size;
    for (size_t i = 0; i < n; i++)
        atomic_store_explicit(&ref.word[i], 0, memory_order_relaxed);
}

static void reset_pages(struct la_heap *heap, uint32_t macro)
{
    for (unsigned i = 0; i < SLICES_PER_MACRO; i++) {
        _Atomic(slice_t) *word = &heap->slices[(size_t)macro * SLICES_PER_MACRO + i].page;
        slice_t page = atomic_load(word);
        unsigned epoch = (slice_epoch(page) + 1) % EPOCHS;

        if (slice_kind(page) != SLICE_SMALL && slice_kind(page) != SLICE_LARGE)
            continue;
        if (epoch == 0)
            clear_words(heap, macro, i, page);
        atomic_store(word, slice_make(slice_kind(page), slice_class(page), slice_count(page), epoch, slice_words(page)));
    }
}

static void reset_run(struct la_heap *heap, uint32_t macro, unsigned lane)
{
    struct block_ref ref;
    word_t w;

    if (!block_find(heap, heap->payload + (size_t)macro * MACRO_SIZE, &ref) || ref.macro != macro)
        return;
    w = atomic_load(ref.word);
    atomic_store(ref.word, word_make(word_generation(w) + 1, ref.epoch, WORD_HELD, lane));
    run_dismantle(&ref, lane);
}

int la_heap_reset(struct la_heap *heap)
{
    uint32_t rows = heap_rows(heap);
    struct lane *lane = heap_lane(heap);

    if (!lane)
        return la_last_error_code();
    la_heap_recover(heap, NULL, NULL);
    if (la_heap_processes(heap, NULL, 0) > 1)
        return la_fail(-EBUSY, "heap %s is attached by %d processes: only the last one may reset it", heap->header->name,
                       la_heap_processes(heap, NULL, 0));
    for (unsigned i = 0; i < LA_HEAP_MAX_ROOTS; i++) {
        /* First, so that nobody finds the root empty in the version that he has read. */
        if (atomic_load(&heap->roots[i].value))
            atomic_fetch_add(&heap->roots[i].version, 1);
        atomic_store(&heap->roots[i].value, 0);
    }
    for (uint32_t i = 0; i < rows; i++)
        if (owner_state(atomic_load(&heap->macros[i].owner)) == OWNER_RUN)
            reset_run(heap, i, lane->number);
        else if (owner_state(atomic_load(&heap->macros[i].owner)) != OWNER_NONE)
            reset_pages(heap, i);
    /* What was left to heirs is gone, too. */
    for (unsigned i = 1; i < heap_lanes(heap); i++) {
        uint64_t owner = atomic_load(&heap->lane_table[i].owner);

        if ((uint32_t)owner & LANE_LEFT)
            atomic_store(&heap->lane_table[i].owner, owner >> 32 << 32);
    }
    for (struct lane *l = heap->lanes; l; l = l->next) {
        lane_rebuild(l);
        lane_trim(&l->chain);
    }
    return 0;
}
