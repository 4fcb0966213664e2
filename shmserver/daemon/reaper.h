/*
 * reaper.h - free what dead clients held.
 *
 * A hang-up or a readable pidfd only says when to look: the kernel drops the certificate of a process a little later (its memory is
 * torn down first), or not at all if the process has merely disconnected, or has a child that holds it. So la_heap_recover() decides, and
 * a peer that went stays "unsettled" until as many dead were recovered, or nobody is attached any more. Meanwhile the reaper looks again,
 * after 1 ms, 2 ms, 4 ms ... REAPER_MAX_DELAY_MS. Nobody waits for it: others allocate and free all the time.
 */
#ifndef DAEMON_REAPER_H
#define DAEMON_REAPER_H

#include "shmserver/daemon/registry.h"

enum { REAPER_MAX_DELAY_MS = 2000 };

/* A peer that held @segment went without giving it back: look now, and later if need be. The segment may be freed. */
void reaper_peer_went(struct segment *segment, uint64_t now);

/*
 * An earlier daemon's segment, just taken over: free what died meanwhile. Those who live may have no connection to us, so that nobody says
 * when they die; the reaper looks after them by the clock until they have resumed.
 */
void reaper_restored(struct segment *segment, uint64_t now);

/* A process that reaper_restored() found has a connection again. */
void reaper_resumed(struct segment *segment);

/* Look at one segment. Return: number of dead processes recovered. The segment may be freed. */
int reaper_look(struct segment *segment, uint64_t now);

/* Look at all that are due. Return: ms until the next look, -1: none is due. */
int reaper_run(struct registry *registry, uint64_t now);

#endif
