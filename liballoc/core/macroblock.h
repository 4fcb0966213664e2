/*
 * macroblock.h - 32 slices, one bit each: find, take and give runs of them.
 */
#ifndef CORE_MACROBLOCK_H
#define CORE_MACROBLOCK_H

#include "core/types.h"

/* Length of the longest run of ones. */
unsigned bits_longest_run(uint32_t bits);

/* Lowest index of @n ones in a row whose index is a multiple of @step (a power of two); -1: none. */
int bits_find_run(uint32_t bits, unsigned n, unsigned step);

static inline uint32_t bits_run(unsigned at, unsigned n)
{
    return (n >= 32 ? UINT32_MAX : (1u << n) - 1) << at;
}

static inline struct la_page *macro_page(const struct la_macro *m, unsigned slice)
{
    return &m->segment->pages[(size_t)m->index * SLICES_PER_MACRO + slice];
}

static inline uintptr_t slice_address(const struct la_segment *s, const struct la_page *page)
{
    return s->first + ((uintptr_t)(page - s->pages) << s->slice_shift);
}

static inline uintptr_t macro_address(const struct la_macro *m)
{
    return m->segment->first + ((uintptr_t)m->index * SLICES_PER_MACRO << m->segment->slice_shift);
}

static inline size_t macro_bytes(const struct la_macro *m)
{
    return (size_t)__builtin_popcount(m->all_slices) << m->segment->slice_shift;
}

/* Slices of segments with 64 KiB slices are entered in the region map one by one; smaller ones as windows. */
static inline bool segment_is_direct(const struct la_segment *s)
{
    return s->slice_shift == SLICE_SHIFT;
}

/* chain->macros and chain->by_run (E4). */
void macro_join(struct la_chain *chain, struct la_macro *m);
void macro_leave(struct la_chain *chain, struct la_macro *m);
/* On chain->by_run, whose lists have been forgotten. */
void macro_list_anew(struct la_chain *chain, struct la_macro *m);

/*
 * A page of @n slices for @chain out of its own macro blocks, the start a multiple of @step slices; kind still PAGE_NONE, not
 * in the region map. NULL: no macro block has room.
 */
struct la_page *slices_take(struct la_chain *chain, unsigned n, unsigned step);
/* Give a page's slices back to its macro block; the page becomes PAGE_NONE. */
void slices_give(struct la_chain *chain, struct la_page *page);
/* Change a page's length in place; false: the slices behind it are taken. */
bool slices_resize(struct la_chain *chain, struct la_page *page, unsigned n);

#endif
