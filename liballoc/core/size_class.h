/*
 * size_class.h - size in bytes <-> index of its class.
 *
 * Eight classes per doubling bound the rounding to 12.5 %; below 128 bytes steps of 16 keep the ABI's alignment. Above SMALL_MAX a class is a
 * number of slices.
 */
#ifndef CORE_SIZE_CLASS_H
#define CORE_SIZE_CLASS_H

#include "core/types.h"

/* [size] -> offset in bytes of the class's bin in struct la_chain. 2 KiB: by steps of 8 it would cost two instructions more. */
extern HIDDEN const uint16_t la_bin_offset[TABLE_MAX + 1];

static inline unsigned class_of_large(size_t size)
{
    /* size in (2^shift * 8, 2^shift * 16]: the top four bits of size - 1 give the step. */
    unsigned top = 63 - (unsigned)__builtin_clzll(size - 1);
    unsigned step = (unsigned)((size - 1) >> (top - 3)) & 7;

    return 9 + (top - 7) * 8 + step;
}

/* @size at most SMALL_MAX. */
static inline unsigned class_of(size_t size)
{
    if (size <= 128)
        return size <= 8 ? 0 : (unsigned)((size + 15) >> 4);
    return class_of_large(size);
}

/* @slices from 1 to RUN_CLASSES. */
static inline unsigned class_of_run(size_t slices)
{
    return SMALL_CLASSES - 1 + (unsigned)slices;
}

static inline size_t class_size(unsigned c)
{
    if (c < 9)
        return c == 0 ? 8 : (size_t)c * 16;
    if (c >= SMALL_CLASSES)
        return (size_t)(c - SMALL_CLASSES + 1) << SLICE_SHIFT;
    return (size_t)(9 + ((c - 9) & 7)) << (4 + (c - 9) / 8);
}

/*
 * Slices of 64 KiB that a page of this class takes: few, with little left over at the end, and room for eight blocks. (Four: making pages and giving them back
 * was a quarter of what 1,000 blocks of 32 KiB cost.)
 */
unsigned class_page_slices(unsigned c);

#endif
