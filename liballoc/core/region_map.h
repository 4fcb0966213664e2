/*
 * region_map.h - which page owns this address? Two dependent loads, no lock.
 */
#ifndef CORE_REGION_MAP_H
#define CORE_REGION_MAP_H

#include "core/types.h"

enum { REGION_LEAF_SHIFT = 32, REGION_ADDRESS_BITS = 48 };
#define REGION_ROOTS (1u << (REGION_ADDRESS_BITS - REGION_LEAF_SHIFT))
#define REGION_LEAF_ENTRIES (1u << (REGION_LEAF_SHIFT - SLICE_SHIFT))

struct region_leaf {
    _Atomic(struct la_page *) entry[REGION_LEAF_ENTRIES];
};

extern HIDDEN _Atomic(struct region_leaf *) la_region_roots[REGION_ROOTS];

/*
 * What is entered for the 64 KiB window around @p: a page, a PAGE_WINDOW, or NULL. For a live block's address the
 * caller got the block from its allocator, which entered the page before: relaxed loads suffice (I3 in region_map.c).
 */
static inline struct la_page *region_entry(const void *p)
{
    uintptr_t address = (uintptr_t)p;
    uintptr_t root = address >> REGION_LEAF_SHIFT;
    struct region_leaf *leaf;

    if (unlikely(root >= REGION_ROOTS))
        return NULL;
    leaf = atomic_load_explicit(&la_region_roots[root], memory_order_relaxed);
    if (unlikely(!leaf))
        return NULL;
    return atomic_load_explicit(&leaf->entry[(uint16_t)(address >> SLICE_SHIFT)], memory_order_relaxed);
}

/* The page around @p, also through windows and for slices in the middle of a page; NULL: none. */
struct la_page *region_page(const void *p);

/* Enter @page for @slices windows of 64 KiB from @start on; false: out of memory for the map. */
bool region_set(uintptr_t start, size_t slices, struct la_page *page);
void region_clear(uintptr_t start, size_t slices);

/* Small user segments: enter and remove. -EEXIST when another small segment has the same bytes. */
int region_window_add(struct la_segment *segment);
void region_window_remove(struct la_segment *segment);

void region_fork_prepare(void);
void region_fork_done(bool child);

#endif
