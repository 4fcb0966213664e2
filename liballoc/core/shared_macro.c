#include "core/shared_macro.h"

#include <errno.h>
#include <fcntl.h>

#include "base/error.h"
#include "core/shared_block.h"
#include "os/headroom.h"
#include "os/huge_pages.h"

bool macro_is_committed(const struct la_heap *heap, uint32_t macro)
{
    return atomic_load_explicit(&heap->macros[macro].committed, memory_order_relaxed) != 0;
}

static int commit_file(const struct la_heap *heap, uint64_t offset, size_t size)
{
    return os_commit_file(heap->fd, (off_t)offset, size, heap_is_huge(heap));
}

static void report(const struct la_heap *heap, int r, size_t size, const char *what)
{
    char text[POOL_TEXT_SIZE];

    if (r == -ENOSPC && heap_is_huge(heap))
        la_fail(r, "heap %s cannot commit %zu KiB for %s: %s", heap->header->name, size / KiB, what, os_pool_explain(heap->page_size, size, text));
    else
        la_fail(r, "heap %s cannot commit %zu KiB for %s: %s (errno %d)", heap->header->name, size / KiB, what,
                r == -ENOMEM ? "the machine or this control group has not that much left"
                : r == -ENOSPC ? "its tmpfs (/dev/shm?) is full" : "the kernel refuses", -r);
}

/*
 * hugetlbfs keeps what it has allocated of a request that it then refuses. Whole pages of a range that nobody else may touch go back; one that
 * reaches beyond it stays: others may live there.
 */
static void uncommit(const struct la_heap *heap, uint64_t offset, size_t size)
{
    uint64_t from = align_up(offset, heap->page_size), to = align_down(offset + size, heap->page_size);

    if (from < to)
        fallocate(heap->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from, (off_t)(to - from));
}

/* All or nothing: a block that does not fit must not take what is left with it. */
static bool commit_run(struct la_heap *heap, uint32_t macro, uint32_t n)
{
    uint64_t offset = heap_offset(heap, slice_memory(heap, macro, 0));
    int r = commit_file(heap, offset, n * MACRO_SIZE);

    if (r < 0) {
        if (heap_is_huge(heap))
            uncommit(heap, offset, n * MACRO_SIZE);
        report(heap, r, n * MACRO_SIZE, "blocks");
        return false;
    }
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

static bool commit_table(const struct la_heap *heap, uint64_t table, size_t row, uint32_t from, uint32_t to)
{
    int r = commit_file(heap, table + from * row, (to - from) * row);

    if (r < 0)
        report(heap, r, (to - from) * row, "its tables");
    return r == 0;
}

bool macro_commit_rows(struct la_heap *heap, uint32_t rows)
{
    struct heap_header *h = heap->header;
    uint32_t have = heap_rows(heap);

    rows = MIN(rows, heap->macro_count);
    if (have >= rows)
        return true;
    if (!commit_table(heap, h->macros_at, sizeof(struct heap_macro), have, rows) ||
        !commit_table(heap, h->slices_at, SLICES_PER_MACRO * sizeof(struct heap_slice), have, rows) ||
        !commit_table(heap, h->marks_at, SLICES_PER_MACRO, have, rows))
        return false;
    while (have < rows && !atomic_compare_exchange_weak_explicit(&h->rows, &have, rows, memory_order_release, memory_order_relaxed))
        ;
    return true;
}

bool macro_commit_trail(struct la_heap *heap, unsigned lane)
{
    if (atomic_load_explicit(&heap->lane_table[lane].has_row, memory_order_relaxed))
        return true;
    return commit_table(heap, heap_offset(heap, heap->trail), sizeof(struct heap_trail), lane, lane + 1);
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
