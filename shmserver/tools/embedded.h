/*
 * embedded.h - the heaps without a daemon, by the same calls that client.h has for those of a daemon.
 *
 * They are files of this user in /dev/shm, or in a hugetlbfs. To look at one, shms attaches to it for a moment; it does not count itself.
 */
#ifndef TOOLS_EMBEDDED_H
#define TOOLS_EMBEDDED_H

#include <shmserver/client.h>

int embedded_create(const char *name, size_t size, unsigned flags);
int embedded_info(const char *name, struct shms_heap *ret);
int embedded_list(void (*each)(void *user, const struct shms_heap *heap), void *user);
int embedded_processes(const char *name, void (*each)(void *user, const struct shms_process *process), void *user);
/* Free what dead processes held. @name: only in this heap; NULL: in all. @recovered: set to how many there were. */
int embedded_gc(const char *name, uint64_t *recovered);

#endif
