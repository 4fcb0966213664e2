/*
 * region_map.h - which page owns this address? Two dependent loads, no lock.
 */
#ifndef CORE_REGION_MAP_H
#define CORE_REGION_MAP_H

#include "core/types.h"

enum { REGION_LEAF_SHIFT = 32, REGION_ADDRESS_BITS = 48, REGION_BIN_BITS = 16 };
#define REGION_ROOTS (1u << (REGION_ADDRESS_BITS - REGION_LEAF_SHIFT))
#define REGION_LEAF_ENTRIES (1u << (REGION_LEAF_SHIFT - SLICE_SHIFT))

/*
 * Entries and roots are distances from la_region, so that zeroed memory means "no page" and "the empty leaf", and
 * the lookup needs no test before it dereferences. An entry has the offset of the page's bin as well: free() waits for every load between the
 * address and the bin (the next malloc() reads what it writes there), and this is one less, 5 of 14 ns on Intel's Sapphire Rapids.
 *
 *     entry    | distance to the page 48 | bin_offset 16 |
 */
struct region_leaf {
    _Atomic(intptr_t) entry[REGION_LEAF_ENTRIES];
};

struct region {
    struct la_page none;                        /* distance 0: no fast path accepts it */
    _Atomic(intptr_t) root[REGION_ROOTS];       /* from here to the leaf, less offsetof(struct region, empty) */
    struct region_leaf empty;
};

_Static_assert(REGION_ROOTS == 1 << 16 && REGION_LEAF_ENTRIES == 1 << 16, "as region_lookup() has it");

extern HIDDEN struct region la_region;

static inline uintptr_t region_load(uintptr_t at)
{
    return (uintptr_t)atomic_load_explicit((_Atomic(intptr_t) *)at, memory_order_relaxed);
}

/*
 * What is entered for the 64 KiB window around @p: a page, a PAGE_WINDOW, or &la_region.none; @bin: that page's bin_offset, if it has bins. For a live
 * block's address the caller got the block from its allocator, which entered the page before: relaxed loads suffice (I3 in region_map.c).
 * Bits above 47 are not looked at: such an address traps when it is dereferenced.
 */
static inline struct la_page *region_lookup(const void *p, size_t *bin)
{
    uintptr_t address = (uintptr_t)p, base = (uintptr_t)&la_region, leaf, entry;

    /* By bytes from one register: else the compiler spends four instructions on addresses. */
    __asm__("" : "+r"(base));
    leaf = region_load(base + (address >> REGION_LEAF_SHIFT & (REGION_ROOTS - 1)) * sizeof(intptr_t) + offsetof(struct region, root));
    __asm__("" : "+r"(leaf));
    leaf += base;
    __asm__("" : "+r"(leaf));
    entry = region_load(leaf + ((uint32_t)address >> SLICE_SHIFT) * sizeof(intptr_t) + offsetof(struct region, empty));
    *bin = entry & ((1u << REGION_BIN_BITS) - 1);
    return (struct la_page *)(base + (uintptr_t)((intptr_t)entry >> REGION_BIN_BITS));
}

static inline struct la_page *region_entry(const void *p)
{
    size_t bin;

    return region_lookup(p, &bin);
}

/* The page around @p, also through windows and for slices in the middle of a page; NULL: none. */
struct la_page *region_page(const void *p);

/* Make the map's own memory for a range, so that region_set() cannot fail there; false: out of memory. */
bool region_reserve(uintptr_t start, size_t bytes);

/* Enter @page for @slices windows of 64 KiB from @start on; false: out of memory for the map. */
bool region_set(uintptr_t start, size_t slices, struct la_page *page);
void region_clear(uintptr_t start, size_t slices);

/* Small user segments: enter and remove. -EEXIST when another small segment has the same bytes. */
int region_window_add(struct la_segment *segment);
void region_window_remove(struct la_segment *segment);

void region_fork_prepare(void);
void region_fork_done(bool child);

#endif
