#include "core/shared_run.h"

#include <errno.h>

#include "base/error.h"
#include "base/lock.h"
#include "core/lane.h"
#include "core/shared_macro.h"

static bool claim_run(struct la_heap *heap, unsigned lane, uint32_t first, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (!macro_claim(heap, first + i, owner_make(OWNER_NONE, 0), owner_make(OWNER_CLAIMING, lane))) {
            while (i-- > 0)
                macro_set_owner(heap, first + i, owner_make(OWNER_NONE, 0));
            return false;
        }
    return true;
}

static bool find_free_run(struct la_heap *heap, unsigned lane, uint32_t n, uint32_t *ret)
{
    uint32_t run = 0;

    if (n > heap->macro_count)
        return false;
    for (uint32_t i = 0; i < heap->macro_count; i++) {
        if (i >= heap_rows(heap) && !macro_commit_rows(heap, i + 1024))
            return false;
        run = atomic_load_explicit(&heap->macros[i].owner, memory_order_relaxed) == owner_make(OWNER_NONE, 0) ? run + 1 : 0;
        if (run < n)
            continue;
        if (claim_run(heap, lane, i + 1 - n, n)) {
            *ret = i + 1 - n;
            return true;
        }
        run = 0;
    }
    return false;
}

/*
 * A block of several macro blocks. HELD from the first store on, so that a death on the way frees it; only the last store
 * makes it outlive the process (commit() of the caller).
 */
static void *take(struct lane *lane, size_t size)
{
    struct la_heap *heap = lane->heap;
    uint32_t n = (uint32_t)((size + MACRO_SIZE - 1) / MACRO_SIZE), first;
    struct heap_slice *slice;
    word_t held;

    if (heap_is_quarantined(heap))
        return NULL;
    if (size > heap->size || !find_free_run(heap, lane->number, n, &first)) {
        la_fail(-ENOMEM, "heap %s is full: no room for a block of %zu bytes (macro blocks of 2 MiB in a row): free blocks, or create it larger",
                heap->header->name, size);
        return NULL;
    }
    if (!macro_commit(heap, first, n)) {
        for (uint32_t i = first; i < first + n; i++)
            macro_set_owner(heap, i, owner_make(OWNER_NONE, 0));
        return NULL;
    }
    /* What was words is payload now: whoever has the macro blocks next must make new ones. */
    for (uint32_t i = first; i < first + n; i++)
        atomic_store_explicit(&slice_of(heap, i, 0)->page, 0, memory_order_relaxed);
    slice = slice_of(heap, first, 0);
    held = word_make(word_generation(atomic_load_explicit(run_word(slice), memory_order_relaxed)), 0, WORD_HELD, lane->number);
    atomic_store_explicit(&slice->run, (uint64_t)held << 32 | (uint64_t)n * (MACRO_SIZE / 4096), memory_order_release);
    atomic_store_explicit(&slice->page, slice_make(SLICE_HUGE, 0, 1, 0, 0), memory_order_release);
    for (uint32_t i = first; i < first + n; i++)
        macro_set_owner(heap, i, owner_run(first));
    return slice_memory(heap, first, 0);
}

/* No handler jumps out of it: what it claims is in no view that could be made again. */
void *run_take(struct lane *lane, size_t size)
{
    void *block;

    signals_hold();
    block = take(lane, size);
    signals_release();
    return block;
}

/* Macro blocks of the run, as far as they are in the heap. */
static uint32_t macros_of(const struct block_ref *ref)
{
    uint32_t n = run_length(slice_of(ref->heap, ref->macro, 0)) / (MACRO_SIZE / 4096);

    return MIN(n, ref->heap->macro_count - ref->macro);
}

bool run_is_whole(const struct block_ref *ref)
{
    for (uint32_t i = macros_of(ref); i-- > 0;)
        if (atomic_load_explicit(&ref->heap->macros[ref->macro + i].owner, memory_order_relaxed) != owner_run(ref->macro))
            return false;
    return true;
}

static void dismantle(const struct block_ref *ref, unsigned lane)
{
    struct la_heap *heap = ref->heap;
    struct heap_slice *slice = slice_of(heap, ref->macro, 0);
    uint32_t n = macros_of(ref);
    word_t w;

    for (uint32_t i = n; i-- > 1;)
        if (!macro_claim(heap, ref->macro + i, owner_run(ref->macro), owner_make(OWNER_NONE, 0)))
            macro_claim(heap, ref->macro + i, owner_make(OWNER_CLAIMING, lane), owner_make(OWNER_NONE, 0));
    /* From here on the first one is found by its owner word, as its page is about to go: recovery frees what a dead lane claims. */
    if (!macro_claim(heap, ref->macro, owner_run(ref->macro), owner_make(OWNER_CLAIMING, lane)))
        return;
    w = atomic_load_explicit(ref->word, memory_order_relaxed);
    atomic_store_explicit(&slice->page, slice_make(SLICE_FREE, 0, 0, 0, 0), memory_order_release);
    atomic_store_explicit(ref->word, word_make(word_generation(w) + 1, 0, WORD_FREE, 0), memory_order_release);
    macro_release(heap, ref->macro);
}

void run_dismantle(const struct block_ref *ref, unsigned lane)
{
    signals_hold();
    dismantle(ref, lane);
    signals_release();
}
