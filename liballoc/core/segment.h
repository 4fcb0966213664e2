/*
 * segment.h - a range of memory with its descriptors at the front (R3), cut into macro blocks and slices (R7).
 */
#ifndef CORE_SEGMENT_H
#define CORE_SEGMENT_H

#include "core/types.h"

/*
 * Lay out [base, base + size). @extra bytes behind the segment's own header are left for the caller (*extra_at).
 * @zeroed: the range is a fresh mapping, its descriptors need not be touched.
 * From 2 MiB on slices are 64 KiB; below, a 32nd of the buffer, so that one macro block covers it.
 * Return: the segment, or NULL when @size leaves no slice.
 */
struct la_segment *segment_init(void *base, size_t size, bool zeroed, size_t extra, void **extra_at);

/* The same with the descriptors in a mapping of their own; no byte of [base, base + size) is touched. NULL also when out of memory. */
struct la_segment *segment_init_apart(void *base, size_t size);
/* That mapping goes; does nothing for the others. */
void segment_end(struct la_segment *segment);

/* Bytes that a range needs beside @payload bytes, at most. */
size_t segment_overhead(size_t payload, bool apart);

#endif
