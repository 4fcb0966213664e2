/*
 * maps.h - the process's mappings, read from /proc without stdio and without allocating.
 *
 *     struct maps_reader reader;
 *     struct maps_entry entry;
 *
 *     r = maps_open(&reader);
 *     while (r == 0 && (r = maps_next(&reader, &entry)) > 0)
 *         r = 0, look at entry;
 *     maps_close(&reader);
 *
 * The kernel writes whole lines, in rising address order. Mappings that change meanwhile may be seen before or
 * after the change, or missed.
 */
#ifndef OS_MAPS_H
#define OS_MAPS_H

#include "base/util.h"

struct maps_reader {
    int fd;
    size_t at, end;     /* unread part of buffer */
    size_t wanted;      /* by the next read: little at first, as the kernel writes lines for what is asked, and most callers stop early */
    char buffer[4096];
};

struct maps_entry {
    uintptr_t start, end;
    char perms[5];      /* "rw-p" */
    uint64_t offset;
    uint64_t inode;     /* 0: no file */
    char path[256];     /* "" when the mapping has no name; longer ones are cut */
};

/* The calling process's mappings. Return: 0 or a negative errno (no /proc). */
int maps_open(struct maps_reader *reader);

/* The same from any file of that format. */
int maps_open_file(struct maps_reader *reader, const char *path);

/* Return: 1 (*ret is filled), 0 at the end, -EPROTO (not the format), or a negative errno. */
int maps_next(struct maps_reader *reader, struct maps_entry *ret);

void maps_close(struct maps_reader *reader);

/* The lowest mapping that overlaps [start, end). Return: 1, 0 (none), or a negative errno. */
int maps_find(uintptr_t start, uintptr_t end, struct maps_entry *ret);

#endif
