/*
 * client.h - shared heaps through the daemon: connect, then attach-or-create by name.
 *
 *     struct shms_client *client;
 *     struct la_heap *heap;
 *
 *     if (shms_connect(NULL, &client) < 0 || shms_heap_open(client, "notes", 1 << 30, 0, &heap) < 0)
 *         puts(la_last_error());
 *
 * From then on <liballoc/heap.h> does the work: the daemon is never in the data path. It names the heaps, keeps
 * those that nobody is attached to, seals their files against shrinking, and frees what a dead process held.
 * Leave the connection open while you are attached: its end tells the daemon when to look.
 *
 * A daemon that dies is started again, with all heaps (shmserver(8)): a call that gets no answer connects to the next one, tells it which heaps are
 * attached, and asks again, for about a second. One that is there and stopped (SIGSTOP) is waited for 10 s in each call, which is -ETIMEDOUT then.
 * What is attached never waits for any of this.
 *
 * Threads: every call may be made from every thread; one request at a time is on its way.
 * Fork: a child does not share its parent's connection (it is closed there, calls answer -ECHILD); it makes its own.
 * Errors: 0 or a negative errno, with a sentence in la_last_error() that names the path or heap and the remedy.
 */
#ifndef SHMSERVER_CLIENT_H
#define SHMSERVER_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <liballoc/heap.h>

LA_BEGIN_DECLS

struct shms_client;

/* For shms_heap_open(), beside enum la_heap_flags. */
enum shms_open_flags {
    SHMS_CREATE_ONLY = 1u << 16,    /* -EEXIST when the name is taken */
};

/**
 * shms_connect() - connect to a daemon
 * @path: its socket; NULL: $SHMSERVER_SOCKET if set, else $XDG_RUNTIME_DIR/shmserver.sock, then
 *        /run/shmserver/shmserver.sock
 * @ret:  set on success, untouched on failure; ended by shms_disconnect()
 *
 * Return: 0, -ECONNREFUSED (no daemon there), -EACCES (no rights on the socket, or the daemon refuses this user),
 * -EUSERS (too many connections of this user), -EPROTO (it speaks no version of ours), -ENAMETOOLONG, -ETIMEDOUT, ...
 */
LA_API int shms_connect(const char *path, struct shms_client **ret);

/**
 * shms_disconnect() - end a connection; NULL does nothing. Heaps stay attached, but the daemon then notices this
 * process's death at its next look only. Return: NULL.
 */
LA_API struct shms_client *shms_disconnect(struct shms_client *client);

/**
 * shms_heap_open() - attach to a heap of the daemon, or create it
 * @name:  see LA_HEAP_NAME_MAX
 * @size:  bytes, if it has to be created (as for la_heap_create()); 0: it must exist
 * @flags: OR of enum la_heap_flags and enum shms_open_flags. LA_HEAP_READ_ONLY needs right r only, and cannot be turned into writing
 *         by processes of other users than the daemon's. LA_HEAP_HUGE_2M and LA_HEAP_HUGE_1G: if it has to be created
 * @ret:   set on success, untouched on failure; ended by shms_heap_close(), or by la_heap_detach()
 *
 * Return: 0, -ENOENT (no such heap and @size is 0), -EEXIST (with SHMS_CREATE_ONLY), -EINVAL (name, size, flags),
 * -EACCES (it is another user's, see shms_heap_set_acl()), -EROFS (it is sealed, and not to be read only),
 * -EDQUOT (this user's share of heaps, bytes or huge pages is used up), -ENOSPC (no huge page is left), -EOPNOTSUPP (huge pages, and
 * the daemon is too old), those of la_heap_attach(), -ENOTCONN (the daemon is
 * gone and none has come in its place, or this process was kicked), -ECHILD, -ETIMEDOUT, ...
 */
LA_API int shms_heap_open(struct shms_client *client, const char *name, size_t size, unsigned flags,
                          struct la_heap **ret);

/**
 * shms_heap_close() - la_heap_detach(), and tell the daemon so
 * @client: the connection that @heap was opened through; if it has failed meanwhile, the heap is detached all the same
 *
 * Return: 0, -EBUSY (as la_heap_detach(): the heap stays attached).
 */
LA_API int shms_heap_close(struct shms_client *client, struct la_heap *heap);

/** shms_heap_create() - create a heap without attaching. Return: 0, -EEXIST, -EINVAL, -EDQUOT, -ENOSPC, ... */
LA_API int shms_heap_create(struct shms_client *client, const char *name, size_t size);

/**
 * shms_heap_create_huge() - the same, of huge pages
 * @page_size: 2 MiB, 1 GiB, or another size of the machine's huge pages; 0: small ones. @size is rounded up to it
 *
 * Return: as shms_heap_create(); -EINVAL (the machine has no such pages), -ENOSPC (none is left for the header), -EOPNOTSUPP (the daemon is too old).
 */
LA_API int shms_heap_create_huge(struct shms_client *client, const char *name, size_t size, size_t page_size);

/**
 * shms_heap_remove() - forget a name; its memory goes when the last attached process has left
 *
 * Return: 0, -ENOENT, -EPERM (it was created by another user; root and the daemon's user may), ...
 */
LA_API int shms_heap_remove(struct shms_client *client, const char *name);

/* For shms_heap_set_acl(): as it is. */
#define SHMS_UNCHANGED UINT32_MAX

/**
 * shms_heap_set_acl() - say who may use a heap
 * @owner: user id; his quota counts the heap. Only root and the daemon's user may change it
 * @group: group id; the owner may name groups that he is a member of
 * @mode:  as of a file, without x: r attach for reading and look at it, w (with r) attach. A new heap has 0600: nobody but
 *         its owner, root and the daemon's user, who may do everything anyhow
 *
 * Who is attached stays attached.
 *
 * Return: 0, -ENOENT, -EPERM (not the owner), -EINVAL (@mode), -EDQUOT (the new owner's share is used up), -EOPNOTSUPP (the daemon
 * is too old).
 */
LA_API int shms_heap_set_acl(struct shms_client *client, const char *name, uint32_t owner, uint32_t group, uint32_t mode);

/**
 * shms_heap_seal() - nobody can write into the heap any more, for good; it can be attached to with LA_HEAP_READ_ONLY
 *
 * Return: 0 (also when it is sealed already), -ENOENT, -EPERM (not the owner), -EBUSY (processes are attached for writing: they
 * must leave first), -EOPNOTSUPP (the daemon is too old).
 */
LA_API int shms_heap_seal(struct shms_client *client, const char *name);

/* A heap as the daemon sees it; its own attachment is not counted. Fields are only ever appended. */
struct shms_heap {
    uint64_t struct_size;       /* in: sizeof(struct shms_heap) of the caller */
    uint64_t id;                /* random at creation */
    uint64_t address;
    uint64_t size;              /* bytes of address space */
    uint64_t committed;         /* bytes of macro blocks ever committed, with the header */
    uint64_t recovered_processes, recovered_blocks, recovered_bytes;    /* since creation */
    int64_t created;            /* seconds since 1970 */
    uint32_t macro_blocks, macro_blocks_used;
    uint32_t processes;         /* attached now */
    uint32_t lanes;             /* in use now */
    uint32_t owner;             /* user id of the creator */
    uint32_t quarantined;       /* 1: an invariant was found broken */
    char name[LA_HEAP_NAME_MAX + 1];
    uint32_t group;             /* group id, see shms_heap_set_acl(); 0 from a daemon of protocol version 1, as mode */
    uint32_t mode;
    uint32_t sealed;            /* 1: see shms_heap_seal() */
    uint32_t unused;
    uint64_t page_size;         /* bytes; 0 from a daemon before protocol version 4, whose heaps are all of small pages */
};

/** shms_heap_info() - look at one heap; set @ret->struct_size first. Return: 0, -ENOENT, -EINVAL, ... */
LA_API int shms_heap_info(struct shms_client *client, const char *name, struct shms_heap *ret);

/** shms_list() - call @each for every heap that this user may look at, oldest first. Return: number of heaps, or a negative errno. */
LA_API int shms_list(struct shms_client *client, void (*each)(void *user, const struct shms_heap *heap), void *user);

enum shms_process_state {
    SHMS_CONNECTED = 0,         /* a connection without a heap */
    SHMS_ATTACHED = 1,          /* in the heap's table of processes, and alive */
    SHMS_DEAD = 2,              /* in the table, but dead: about to be recovered */
    SHMS_READING = 3,           /* a connection that has heaps for reading only; heap: one of them */
};

/* A process of a heap, or a connection without a heap. Fields are only ever appended. */
struct shms_process {
    uint64_t struct_size;
    int32_t pid;                /* as the process sees itself; of a connection: as the daemon sees it */
    uint32_t uid;               /* UINT32_MAX: unknown (it has no connection, or is in another PID namespace) */
    uint32_t lanes;
    uint32_t state;             /* enum shms_process_state */
    char command[16];
    char heap[LA_HEAP_NAME_MAX + 1];    /* "": none */
};

/**
 * shms_processes() - call @each for every process of a heap and for connections without one
 * @name: only of this heap; NULL: of all
 *
 * Return: number of records, or a negative errno (-ENOENT: no such heap).
 */
LA_API int shms_processes(struct shms_client *client, const char *name,
                          void (*each)(void *user, const struct shms_process *process), void *user);

/* For shms_quota.max_huge, to set: he may have no heap of huge pages. */
#define SHMS_NO_HUGE UINT64_C(1)

/* What a user has of the daemon, and may have. Fields are only ever appended. */
struct shms_quota {
    uint64_t struct_size;       /* in: sizeof(struct shms_quota) of the caller */
    uint64_t bytes, max_bytes;  /* sizes of his heaps, used or not: no writer can have more */
    uint64_t committed;         /* memory behind them */
    uint64_t refused;           /* connections and heaps, for a limit */
    uint64_t delayed;           /* requests that waited for their turn */
    uint32_t uid;
    uint32_t clients, max_clients;      /* connections */
    uint32_t heaps, max_heaps;
    uint32_t max_requests;      /* per second; more wait, with a second's worth in advance; 0: any number */
    uint64_t max_committed;     /* memory above which there is an event, and what shmserver --over-committed says; UINT64_MAX: none; to set: 0: as it is */
    uint64_t huge, max_huge;    /* bytes of his heaps of huge pages; UINT64_MAX: no limit but max_bytes; to set: 0: as it is, SHMS_NO_HUGE: none at all */
};

/** shms_quotas() - call @each for every user that the daemon knows (root and the daemon's user see all of them, others themselves), by user
 *  id. Return: number of users, or a negative errno. */
LA_API int shms_quotas(struct shms_client *client, void (*each)(void *user, const struct shms_quota *quota), void *user);

/**
 * shms_quota_set() - set the limits of one user
 * @quota: uid and the six limits, of which SHMS_UNCHANGED (max_bytes: UINT64_MAX, max_committed and max_huge: 0) stay as they are; what he has
 * beyond a lower limit he keeps
 *
 * Return: 0, -EPERM (only root and the daemon's user may), -EOPNOTSUPP (the daemon is too old, or only for max_huge), ...
 */
LA_API int shms_quota_set(struct shms_client *client, const struct shms_quota *quota);

/**
 * shms_metrics() - what a monitor wants to know, as OpenMetrics text
 * @path: socket of the daemon, as for shms_connect(); the metrics' one is beside it, with ".metrics" at its end
 * @each: called with one part after the other; the last ends with "# EOF"
 *
 * Return: 0, -ECONNREFUSED (no daemon), -EACCES, ...
 */
LA_API int shms_metrics(const char *path, void (*each)(void *user, const char *text, size_t size), void *user);

enum shms_event_kind {
    SHMS_EVENT_CREATED = 1,     /* a heap; pid, uid, command: who did it, as for the next ones */
    SHMS_EVENT_REMOVED = 2,
    SHMS_EVENT_SEALED = 3,
    SHMS_EVENT_ACL = 4,         /* who may use it has changed */
    SHMS_EVENT_ATTACHED = 5,
    SHMS_EVENT_REFUSED = 6,     /* a request, for want of rights or for a limit; heap: if it was about one */
    SHMS_EVENT_DIED = 7,        /* a process that was attached: its obituary; pid as it saw itself, uid unknown */
    SHMS_EVENT_KICKED = 8,      /* a process */
    SHMS_EVENT_COMMITTED = 9,   /* the heaps of user uid have more memory than max_committed: bytes */
};

/* Something that happened. Fields are only ever appended. */
struct shms_event {
    uint64_t struct_size;
    uint64_t serial;            /* grows by 1; a gap: events that are gone, or not for this user */
    int64_t time;               /* seconds since 1970 */
    uint64_t blocks, bytes;     /* DIED: held by it, and freed */
    uint32_t kind;              /* enum shms_event_kind; others may be added */
    int32_t pid;
    uint32_t uid;               /* UINT32_MAX: unknown */
    uint32_t published, undone; /* DIED: steps of it that were finished, undone */
    uint32_t happened;          /* DIED: 1: that operation has happened, 0: it has not */
    char command[16];
    char heap[LA_HEAP_NAME_MAX + 1];    /* "": about none */
    uint64_t operation;         /* DIED: la_heap_operation() of one of its threads; 0: it had none */
    uint64_t left_blocks, left_bytes;   /* DIED: held by it, and left to its heir */
    char heir[LA_HEAP_NAME_MAX + 1];    /* DIED: la_heap_set_heir(); "": it had none */
    char reason[160];           /* REFUSED: the sentence that the process was told */
};

/**
 * shms_events() - call @each for every event after @after that the daemon still knows (the last 1,024), oldest first
 * @after: serial of the last event that is known; 0: from the oldest
 *
 * Root and the daemon's user are told everything, others what concerns them or their heaps.
 *
 * Return: number of events, or a negative errno.
 */
LA_API int shms_events(struct shms_client *client, uint64_t after, void (*each)(void *user, const struct shms_event *event), void *user);

/**
 * shms_kick() - end the connections of a process
 * @pid:  as the daemon sees it
 * @kill: end the process as well, by SIGKILL; also one that is attached without a connection, if the daemon can see (/proc/PID/maps) that it
 *        is. Else it stays attached: memory that is mapped cannot be called back. Its library does not connect again; the process may
 *
 * Return: 0, -ESRCH (it has no connection; with @kill: and is not attached), -EPERM (of another user: only root and the daemon's user may; or the
 * daemon may not kill it, or cannot see who it is),
 * -EINVAL (it is this process), -EOPNOTSUPP (the daemon is too old).
 */
LA_API int shms_kick(struct shms_client *client, int32_t pid, bool kill);

/**
 * shms_gc() - look for dead processes in all heaps now, and free removed heaps that nobody uses
 * @recovered: set to the number of processes, @freed: of heaps; both may be NULL
 *
 * The daemon does so by itself when a connection ends; this is for who does not want to wait, and for processes that had none.
 *
 * Return: 0, -EPERM (only root and the daemon's user may), ...
 */
LA_API int shms_gc(struct shms_client *client, uint64_t *recovered, uint64_t *freed);

LA_END_DECLS
#endif
