#include "core/shared_macro.h"

#include <errno.h>
#include <fcntl.h>

#include "base/error.h"
#include "core/shared_block.h"

/* Row and payload of a macro block are committed before they are touched: no SIGBUS later. */
bool macro_commit(struct la_heap *heap, uint32_t macro, uint32_t n)
{
    for (uint32_t i = macro; i < macro + n; i++) {
        if (atomic_load_explicit(&heap->macros[i].committed, memory_order_relaxed))
            continue;
        if (fallocate(heap->fd, 0, (off_t)heap_offset(heap, slice_memory(heap, i, 0)), MACRO_SIZE) < 0) {
            la_fail(-errno, "heap %s cannot commit 2 MiB more (errno %d): /dev/shm, the cgroup or the huge pages are used up",
                    heap->header->name, errno);
            return false;
        }
        atomic_store_explicit(&heap->macros[i].committed, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&heap->header->committed, MACRO_SIZE, memory_order_relaxed);
    }
    return true;
}

bool macro_commit_rows(struct la_heap *heap, uint32_t rows)
{
    struct heap_header *h = heap->header;
    uint32_t have = atomic_load_explicit(&h->rows, memory_order_acquire);

    rows = MIN(rows, heap->macro_count);
    if (have >= rows)
        return true;
    if (fallocate(heap->fd, 0, (off_t)(h->macros_at + have * sizeof(struct heap_macro)),
                  (off_t)((rows - have) * sizeof(struct heap_macro))) < 0 ||
        fallocate(heap->fd, 0, (off_t)(h->slices_at + (uint64_t)have * SLICES_PER_MACRO * sizeof(struct heap_slice)),
                  (off_t)((uint64_t)(rows - have) * SLICES_PER_MACRO * sizeof(struct heap_slice))) < 0) {
        la_fail(-errno, "heap %s cannot commit its tables (errno %d)", h->name, errno);
        return false;
    }
    while (have < rows && !atomic_compare_exchange_weak_explicit(&h->rows, &have, rows, memory_order_release, memory_order_relaxed))
        ;
    return true;
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
