#include "core/shared_macro.h"

#include <errno.h>

#include "base/error.h"
#include "core/shared_block.h"
#include "os/headroom.h"

bool macro_is_committed(const struct la_heap *heap, uint32_t macro)
{
    return atomic_load_explicit(&heap->macros[macro].committed, memory_order_relaxed) != 0;
}

static bool commit(struct la_heap *heap, uint64_t offset, size_t size, const char *what)
{
    int r = os_commit_file(heap->fd, (off_t)offset, size, false);

    if (r < 0)
        la_fail(r, "heap %s cannot commit %zu KiB for %s: %s (errno %d)", heap->header->name, size / KiB, what,
                r == -ENOMEM ? "the machine or this control group has not that much left"
                : r == -ENOSPC ? "its tmpfs (/dev/shm?) is full" : "the kernel refuses", -r);
    return r == 0;
}

/* All or nothing: a block that does not fit must not take what is left with it. */
static bool commit_run(struct la_heap *heap, uint32_t macro, uint32_t n)
{
    if (!commit(heap, heap_offset(heap, slice_memory(heap, macro, 0)), n * MACRO_SIZE, "blocks"))
        return false;
    for (uint32_t i = macro; i < macro + n; i++)
        atomic_store_explicit(&heap->macros[i].committed, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&heap->header->committed, n * MACRO_SIZE, memory_order_relaxed);
    return true;
}

/* Row and payload of a macro block are committed before they are touched: no SIGBUS later. */
bool macro_commit(struct la_heap *heap, uint32_t macro, uint32_t n)
{
    for (uint32_t i = macro, run; i < macro + n; i += MAX(run, 1u)) {
        for (run = 0; i + run < macro + n && !macro_is_committed(heap, i + run);)
            run++;
        if (run && !commit_run(heap, i, run))
            return false;
    }
    return true;
}

bool macro_commit_rows(struct la_heap *heap, uint32_t rows)
{
    struct heap_header *h = heap->header;
    uint32_t have = heap_rows(heap);

    rows = MIN(rows, heap->macro_count);
    if (have >= rows)
        return true;
    if (!commit(heap, h->macros_at + have * sizeof(struct heap_macro), (rows - have) * sizeof(struct heap_macro), "its tables") ||
        !commit(heap, h->slices_at + (uint64_t)have * SLICES_PER_MACRO * sizeof(struct heap_slice),
                (size_t)(rows - have) * SLICES_PER_MACRO * sizeof(struct heap_slice), "its tables") ||
        !commit(heap, h->marks_at + (uint64_t)have * SLICES_PER_MACRO, (size_t)(rows - have) * SLICES_PER_MACRO, "its tables"))
        return false;
    while (have < rows && !atomic_compare_exchange_weak_explicit(&h->rows, &have, rows, memory_order_release, memory_order_relaxed))
        ;
    return true;
}

bool macro_commit_trail(struct la_heap *heap, unsigned lane)
{
    if (atomic_load_explicit(&heap->lane_table[lane].has_row, memory_order_relaxed))
        return true;
    return commit(heap, heap_offset(heap, &heap->trail[lane]), sizeof(struct heap_trail), "its lanes");
}

bool macro_claim(struct la_heap *heap, uint32_t macro, uint64_t from, uint64_t to)
{
    /* Acquire: pairs with the release of whoever gave it back. */
    return atomic_compare_exchange_strong_explicit(&heap->macros[macro].owner, &from, to, memory_order_acq_rel, memory_order_relaxed);
}

void macro_set_owner(struct la_heap *heap, uint32_t macro, uint64_t owner)
{
    atomic_store_explicit(&heap->macros[macro].owner, owner, memory_order_release);
}

bool heap_is_quarantined(const struct la_heap *heap)
{
    if (!atomic_load_explicit(&heap->header->quarantined, memory_order_relaxed))
        return false;
    la_fail(-EUCLEAN, "heap %s is quarantined: an invariant was found broken, la_heap_fsck() names it", heap->header->name);
    return true;
}

void macro_release(struct la_heap *heap, uint32_t macro)
{
    macro_set_owner(heap, macro, owner_make(OWNER_NONE, 0));
    atomic_store_explicit(&heap->header->next_macro, macro, memory_order_relaxed);
}
