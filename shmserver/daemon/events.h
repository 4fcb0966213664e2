/*
 * events.h - what happened lately, for who asks: the last EVENTS_MAX events in a ring.
 *
 * The daemon calls nobody: who wants to follow asks again with the serial of the last event that he knows. A gap in the serials says how many
 * he has missed. Everybody is told of his own doings and of his own heaps; root and the daemon's user of everything.
 */
#ifndef DAEMON_EVENTS_H
#define DAEMON_EVENTS_H

#include <shmserver/client.h>

#include "shmserver/daemon/identity.h"

enum { EVENTS_MAX = 1024 };

struct event {
    struct shms_event public;
    uid_t owner;                /* of the heap */
};

struct events {
    uint64_t before;            /* serial of the one before the first */
    uint64_t last;              /* serial; the same as before: none yet */
    struct event ring[EVENTS_MAX];      /* by serial % EVENTS_MAX */
};

/*
 * @before: above all serials of an earlier daemon, so that who has followed that one goes on with this one: microseconds since the machine
 * was started are, as no daemon has an event in each.
 */
void events_init(struct events *events, uint64_t before);

/* @event: struct_size, serial and time are set here. @heap: its name, NULL: about none. */
void events_add(struct events *events, const struct shms_event *event, const char *heap, uid_t owner);

/* The same of what the process @id did; @heap may be NULL. */
void events_add_deed(struct events *events, enum shms_event_kind kind, const struct identity *id, const char *heap, uid_t owner);

/* The first event after @serial that is still there, NULL: none. */
const struct event *events_after(const struct events *events, uint64_t serial);

#endif
