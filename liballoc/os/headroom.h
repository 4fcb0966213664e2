/*
 * headroom.h - how much memory this process may still take before somebody is killed for it.
 *
 * Both commit files by fallocate(): segments of any kind, and a shared heap one macro block at a time.
 */
#ifndef OS_HEADROOM_H
#define OS_HEADROOM_H

#include <sys/types.h>

#include "base/util.h"

/*
 * Bytes: what the machine has available, and what this process's control group leaves; SIZE_MAX when neither is known.
 * A snapshot, for refusing what is hopeless; not a promise.
 */
size_t os_headroom(void);

/*
 * Commit @size bytes at @offset of @fd, a file in memory, so that touching them cannot fail. @pool: they come from the pool of huge pages,
 * which is no part of the headroom.
 * Return: 0; -ENOMEM (the machine or the control group has not that much left: nothing was tried); -ENOSPC (the file system or
 * the pool is full); another errno. Leaves no la_last_error(): the caller knows whose memory it is.
 */
int os_commit_file(int fd, off_t offset, size_t size, bool pool);

#endif
