/*
 * sysfile.h - small text files of the kernel: /proc, /sys. Allocates nothing, keeps errno.
 */
#ifndef OS_SYSFILE_H
#define OS_SYSFILE_H

#include "base/util.h"

/* The first @size - 1 bytes; "" and false when it is not there or empty. */
bool os_read_text(const char *path, char *text, size_t size);

/* The number behind the first @key at the start of a line ("": of the first line); SIZE_MAX when it is not there or no number ("max"). */
size_t os_number_after(const char *text, const char *key);

/* The number that is all of a file; SIZE_MAX: not there. */
size_t os_read_number(const char *path);

#endif
