/*
 * shared_format.h - the file of a shared heap before anybody is attached: its geometry, its name, its header written (la_heap_format()) and read.
 */
#ifndef CORE_SHARED_FORMAT_H
#define CORE_SHARED_FORMAT_H

#include "core/shared_layout.h"

/* Offsets for a file of @size bytes; false: too small. */
bool heap_geometry(uint64_t size, struct heap_header *ret);

/* Of a heap or one of its roots. Return: 0 or -EINVAL, with what is allowed. */
int heap_check_name(const char *name);

/* Return: 0; -EINVAL: no heap, or a damaged one; -EPROTO: another layout. */
int heap_read_header(int fd, struct heap_header *ret);

#endif
