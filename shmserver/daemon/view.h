/*
 * view.h - the daemon's own attachments to its heaps, to read their tables and to recover the dead.
 *
 * A process may be attached to a few heaps at a time only, so these are opened on demand and the one that was not used for the longest
 * time gives way. The daemon never allocates in a heap. It is not counted among the processes of the heap that it tells others about.
 */
#ifndef DAEMON_VIEW_H
#define DAEMON_VIEW_H

#include <shmserver/client.h>

#include "shmserver/daemon/registry.h"

enum { VIEW_MAX = 8 };

/* Return: 0 or a negative errno. The heap stays attached at least until the next view_open(). */
int view_open(struct segment *segment, struct la_heap **ret);
void view_close(struct segment *segment);

/* The processes in the heap's table, the daemon excepted. Return: their number or a negative errno. */
int view_processes(struct segment *segment, struct la_heap_process ret[LA_HEAP_MAX_PROCESSES]);

/* All that is known of the heap. Return: 0 or a negative errno. */
int view_describe(struct segment *segment, struct shms_heap *ret);

/* Somebody is attached for reading: he is in no table, so this is all that is known of who has no connection. */
bool view_has_readers(struct segment *segment);

#endif
