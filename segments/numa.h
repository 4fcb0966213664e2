/*
 * numa.h - on which nodes the pages of a range lie. By raw system calls: no libnuma.
 */
#ifndef SEGMENTS_NUMA_H
#define SEGMENTS_NUMA_H

#include "segments/backend.h"

/* Return: 0, -EINVAL (mode unknown, no nodes, nodes where none belong; SEG_PLACED required without a mode). */
int seg_check_numa(const struct seg_numa *numa, unsigned required);

/* Tell the kernel where the pages of @s go, before any is touched. Return: 0 (also: missed), -ENOTSUP. */
int seg_place(struct seg_segment *s, const struct seg_request *request);

/* The one node that @numa means, -1: several or none. */
int seg_numa_node(const struct seg_numa *numa);

#endif
