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

/* The one node that all pages of @s lie on, those to come too; -1: several or unknown. */
int seg_node_of(const struct seg_segment *s);

/* Bytes of small pages that the nodes of @numa can give; SIZE_MAX: it holds nobody to its nodes (not SEG_NUMA_BIND), or they are not known. */
size_t seg_numa_headroom(const struct seg_numa *numa);

#endif
