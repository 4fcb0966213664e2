/*
 * state.h - what the daemon knows of its heaps beside their files: a memory file that outlives it.
 *
 * A heap's own header says nothing that the daemon believes: whoever is attached may write into it. Name, owner, mode and limits lie in
 * this file, which nobody else gets; it is kept together with the heaps' files (store.h).
 *
 *     file:  header | record | record | ...      256 bytes each
 *
 * I1  A record is written by one pwrite() and lies in one page. A process is not killed in the middle of that, so a record is there
 *     as it was or as it is now.
 * I2  There is one record per kind and id.
 */
#ifndef DAEMON_STATE_H
#define DAEMON_STATE_H

#include <sys/types.h>

#include <liballoc/heap.h>

#include "base/util.h"

enum state_kind { STATE_FREE = 0, STATE_HEAP = 1, STATE_LIMITS = 2 };

/* Fields are only ever appended: an older file has zeros there. */
struct state_record {
    uint32_t kind;              /* enum state_kind */
    uint32_t removed;           /* HEAP: its name is forgotten, somebody still has it mapped */
    uint64_t id;                /* HEAP: the heap's; LIMITS: the user's */
    uint64_t serial, key, address, size;
    int64_t created;
    uint32_t owner, group, mode;
    uint32_t clients, heaps, requests;  /* LIMITS: struct quota_limits */
    uint64_t bytes;
    char name[LA_HEAP_NAME_MAX + 1];
    uint64_t committed;         /* LIMITS; 0: none, as in files of daemons that had no such limit */
    uint64_t huge;              /* LIMITS: one more than the limit, so that 0, as in files of daemons that had none, says UINT64_MAX */
    uint64_t unused[11];
};

_Static_assert(sizeof(struct state_record) == 256, "records are read by other versions of the daemon");

enum { STATE_RECORDS = 8192 };

struct state {
    int fd;                             /* -1: there is none */
    const struct state_record *map;     /* of the whole file, for reading */
    size_t slots;                       /* that have memory; reading those behind would give them some */
};

/* @fd: a file that an earlier daemon has written; -1: make one. Takes @fd, also on failure. Return: 0, -EPROTO (it is something else), ... */
int state_open(struct state *state, int fd);
void state_close(struct state *state);

/* Write a record, in place of the one with its kind and id if there is one. Return: 0, -ENOSPC, ... */
int state_put(struct state *state, const struct state_record *record);
void state_drop(struct state *state, enum state_kind kind, uint64_t id);

/* The next record of a kind after @after (NULL: the first); NULL: there is none. */
const struct state_record *state_next(const struct state *state, enum state_kind kind, const struct state_record *after);

#endif
