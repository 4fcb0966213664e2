/*
 * registry.h - the segments of the daemon, by name, and who was handed which.
 *
 * I1  No two segments that are not removed have the same name.
 * I2  A segment that is removed exists as long as a process may have it mapped: its address must not be used for another heap.
 *     "May have" is: a peer holds it, its table of processes is not empty, or it has readers (segment_is_used()).
 * I3  serial is unique and grows along the list: it is the cursor of lists, so a page begins where the last one ended whatever
 *     came and went meanwhile.
 * I5  A segment is kept when its file is in the store and its record in the state; it is told to nobody before. A file without a record
 *     is one that nobody was told of, or that is gone: registry_restore() forgets it.
 * I4  Every segment counts in its owner's quota from its creation until it is freed, removed or not.
 */
#ifndef DAEMON_REGISTRY_H
#define DAEMON_REGISTRY_H

#include <liballoc/heap.h>

#include "base/list.h"
#include "shmserver/daemon/acl.h"
#include "shmserver/daemon/events.h"
#include "shmserver/daemon/memfile.h"
#include "shmserver/daemon/named_fds.h"
#include "shmserver/daemon/quota.h"
#include "shmserver/daemon/state.h"
#include "shmserver/daemon/store.h"

struct segment {
    struct la_list node;        /* registry.segments */
    struct registry *registry;
    char name[LA_HEAP_NAME_MAX + 1];
    uint64_t serial;
    uint64_t id;                /* of the heap, from its header */
    uint64_t key;               /* of the request that created it; 0: it had none */
    struct acl acl;
    int64_t created;            /* seconds since 1970 */
    struct memfile file;
    bool removed;
    bool sealed;                /* nobody can write any more, nor can we */
    struct la_list holders;     /* struct holding.in_segment */
    /* The daemon's own attachment, see view.h. */
    struct la_heap *view;
    uint64_t view_used;         /* registry.clock at its last use */
    bool broken;                /* holes.h: it is not looked into any more */
    bool view_failed;           /* the last attempt; told once */
    /* Peers that went, whose processes were not yet found dead, see reaper.h. */
    unsigned unsettled;
    uint64_t look_at;           /* now_ms(); 0: no look is due */
    uint64_t next_obituary;     /* number of the first in the heap that was not told */
    unsigned delay_ms;
};

/* A peer was handed a segment, and has not given it back. */
struct holding {
    struct la_list in_segment;
    struct la_list in_peer;
    struct segment *segment;
    void *peer;
    bool read_only;             /* it has nothing that could be freed */
};

struct registry {
    struct la_list segments;    /* by serial */
    struct quota *quota;
    struct events *events;      /* NULL: nobody keeps them */
    struct state *state;        /* these two NULL: nothing outlives this process */
    struct store *store;
    unsigned count, max;
    uint64_t next_serial;
    uint64_t clock;
};

void registry_init(struct registry *registry, struct quota *quota, unsigned max_segments);
/*
 * Forget all. What is attached somewhere lives on there, and keeps its address; with @kept that is so for all heaps, as the store
 * has them.
 */
void registry_deinit(struct registry *registry, bool kept);

/* The heaps of the daemon before this one, out of the state and @inherited. Return: their number, or a negative errno. */
int registry_restore(struct registry *registry, struct named_fds *inherited);

/* Copies of all files, for who goes on with them. Return: 0 or a negative errno. */
int registry_copy_files(struct registry *registry, struct named_fds *ret);

/*
 * Create a segment of @size bytes, for its owner alone, of huge pages if @page_size is not 0. With a @key other than 0, repeating the call gives the
 * same segment.
 * Return: 0, -EEXIST, -EINVAL, -EDQUOT, -ENOSPC, ... with the reason in la_last_error().
 */
int registry_create(struct registry *registry, const char *name, uint64_t size, uint64_t page_size, uint64_t key, uid_t owner, gid_t group,
                    struct segment **ret);

/*
 * A heap that nobody has kept for us, from a process that is attached to it: with the name and for the owner that it was made with, who alone
 * may use it (what was changed since is forgotten). See memfile_examine() for what is believed.
 * Return: 0, -EPERM (@fd is no heap of ours), -EINVAL (its header is not that of heap @id), -EEXIST (its name or address is taken), -EDQUOT, ...
 */
int registry_adopt(struct registry *registry, uint64_t id, int fd, struct segment **ret);

/* NULL, with the reason in la_last_error(): no such name */
struct segment *registry_find(struct registry *registry, const char *name);
/* Also one that is removed. NULL: no such heap */
struct segment *registry_find_id(struct registry *registry, uint64_t id);
/* The first with a serial above @serial, NULL: none. Removed ones are among them. */
struct segment *registry_after(struct registry *registry, uint64_t serial);

/* Say who may use it; a new owner's quota counts it from now on. Return: 0, -EDQUOT, -ENOMEM, -ENOSPC. */
int registry_set_acl(struct segment *segment, const struct acl *acl);

/* Forget the name; registry_release() frees the rest when nobody uses it any more (reaper.h sees to that). */
void registry_remove(struct segment *segment);

/* Free the segment if it is removed and nobody uses it; true: it is gone. */
bool registry_release(struct segment *segment);

/* Return: 0, -ENOMEM. Holding it already is fine; what it was handed for writing counts. @peer_list: the peer's list of holdings. */
int segment_hold(struct segment *segment, void *peer, struct la_list *peer_list, bool read_only);
struct holding *segment_find_holding(struct segment *segment, const void *peer);
void holding_drop(struct holding *holding);

bool segment_is_used(struct segment *segment);

/* I1, I3, I4, for tests. */
bool registry_is_valid(const struct registry *registry);

#endif
