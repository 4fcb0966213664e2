/*
 * catalogue.h - sources by name, and ordered lists of them in one string.
 *
 *     LIST  = ENTRY { "," ENTRY }        ENTRY = NAME [ ":" TEXT ]        "hugetlb:2M,thp,anon"
 */
#ifndef SEGMENTS_CATALOGUE_H
#define SEGMENTS_CATALOGUE_H

#include <segments/source.h>

#include "base/util.h"

enum { SOURCE_TEXT_SIZE = 128 };

struct list_entry {
    const struct seg_source_ops *ops;
    char text[SOURCE_TEXT_SIZE];
};

/* Return: entries read, -EINVAL (empty, unknown name), -E2BIG (more than @room, or a text too long). */
int list_read(const char *list, struct list_entry *entries, size_t room);

/* Return: 0, -EINVAL: a member is missing. */
int source_check_ops(const struct seg_source_ops *ops);

#define SOURCE_HAS(ops, member)                                                                                        \
    ((ops)->struct_size >= offsetof(struct seg_source_ops, member) + sizeof((ops)->member) && (ops)->member)

extern HIDDEN const struct seg_source_ops kind_sources[];
extern HIDDEN const size_t kind_source_count;
extern HIDDEN const struct seg_source_ops cuda_host_source, cuda_device_source;

#endif
