/*
 * heap.h - a heap shared by processes that may be killed at any instruction.
 *
 * A shared heap is one file, mapped whole at the same address in every process. Each thread works through
 * its own lane: a small record in the heap that says what it holds and what it is about to do. Whether a
 * block is free, and who holds it, is one state word. When a process dies, whoever looks first
 * (la_heap_recover(), the next attach, or shmserver) frees what it held and finishes or undoes the step it
 * was in; nobody waits for the dead or the stopped. docs/shared-heap.md tells the protocol.
 *
 * Policies:
 *   LA_KEEP  blocks outlive their process from the moment they are allocated (what users of shared memory
 *            expect); a block not yet linked at a kill is a leak that fsck counts.
 *   LA_HELD  blocks belong to the lane until la_publish(): leak-free, by the discipline of publish and take. At a death they are
 *            freed, or left to an heir (la_heap_set_heir()).
 *
 * Fork: nothing of a heap is in the child, neither its memory nor its attachment. A child that works in the heap attaches to it itself and uses the
 * handle that it gets; every call on the parent's handle is undefined (SIGSEGV, mostly; -ECHILD of la_heap_detach(), la_heap_info(),
 * la_heap_processes(), la_heap_recover(), la_heap_root(), la_heap_fsck() and la_heap_walk()), and so is every touch of an object.
 */
#ifndef LIBALLOC_HEAP_H
#define LIBALLOC_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <liballoc/chain.h>

LA_BEGIN_DECLS

struct la_heap;
struct la_bundle;

/*
 * A link: one pointer-sized word that other processes change at the same time. C++ has no _Atomic; there it is
 * a plain pointer of the same layout, to be touched through the calls below or std::atomic_ref only.
 */
#ifdef __cplusplus
typedef void *la_link;
typedef uint32_t la_word;
#else
typedef void *_Atomic la_link;
typedef _Atomic(uint32_t) la_word;
#endif

#define LA_HEAP_MIN_SIZE ((size_t)8 << 20)      /* bytes: header and at least two macro blocks */
#define LA_HEAP_MAX_PROCESSES 256
#define LA_HEAP_MAX_LANES 4095
#define LA_HEAP_MAX_ROOTS 256
#define LA_HEAP_NAME_MAX 63                     /* bytes of a heap's or root's name, [A-Za-z0-9._-], first no '.' or '-' */

enum la_policy { LA_KEEP = 0, LA_HELD = 1 };

enum la_heap_flags {
    /*
     * A fork() by a thread whose default chain is the heap's is reported as a misuse before it happens (la_misuse_set() says whether the process
     * then goes on): the child would allocate from private memory, and cannot touch what lies in the heap. exec and posix_spawn() are fine.
     */
    LA_HEAP_FORK_REPORT = 1u << 0,
    LA_HEAP_NO_RECOVER = 1u << 1,   /* do not recover dead processes at attach (for fsck and tests) */
    /*
     * Map the heap for reading only: roots, la_load(), objects, la_heap_info(), la_heap_fsck(), la_heap_walk(). Everything that would change the
     * heap is refused with -EROFS, freeing is a misuse, a store is SIGSEGV. Takes no process slot. What is read may be freed by others at
     * the same time: validate it (la_ref_read()). A boundary only if the file belongs to another user (as shmserver's); else advisory.
     */
    LA_HEAP_READ_ONLY = 1u << 2,
    /*
     * This process's core dumps hold the heap's memory, too; by default they do not. The kernel asks core(5)'s coredump_filter as well: a heap with a name
     * in /dev/shm needs bit 3, the daemon's bit 1 (set by default).
     */
    LA_HEAP_DUMP = 1u << 3,
    /*
     * For who creates the heap: of huge pages (both: of 1 GiB). What la_heap_info() calls page_size says what a heap is made of; whoever attaches to
     * one that exists gets that. A macro block has its memory before it is handed out: an empty pool is NULL, or an error with the remedy, never SIGBUS.
     */
    LA_HEAP_HUGE_2M = 1u << 4,
    LA_HEAP_HUGE_1G = 1u << 5,
};

/*
 * Embedded use: heaps named in /dev/shm (or a hugetlbfs), no daemon, one user. shmserver/client.h has the same through the daemon.
 */

/**
 * la_heap_create() - create and attach a heap
 * @name:  see LA_HEAP_NAME_MAX; the file is /dev/shm/liballoc-UID-NAME, mode 0600; of huge pages, in the first hugetlbfs of such pages that this
 *         user may write to
 * @size:  bytes, at least LA_HEAP_MIN_SIZE, rounded up to 2 MiB; address space, not memory: pages are
 *         committed macro block by macro block
 * @flags: OR of enum la_heap_flags
 * @ret:   set on success, untouched on failure; for this process only: a child of fork() calls la_heap_attach()
 *
 * Return: 0, -EINVAL (name, size, flags), -EEXIST (name taken), -ENOSPC (/dev/shm, arena or pool of huge pages full), -ENODEV (no such hugetlbfs),
 * -EMFILE (16 heaps are attached in this process), -ENOMEM, ... A creation that fails leaves nothing behind.
 */
LA_API int la_heap_create(const char *name, size_t size, unsigned flags, struct la_heap **ret);

/**
 * la_heap_attach() - attach to a heap that exists
 *
 * Return: 0, -ENOENT, -EINVAL (no heap, truncated), -EPROTO (other layout version), -EALREADY (attached in this
 * process already), -EEXIST (its address is taken here; la_last_error() names by what), -EUSERS (all process slots in use),
 * -EMFILE (16 heaps are attached in this process), ... A child of fork() attaches again, whatever its parent has attached.
 */
LA_API int la_heap_attach(const char *name, unsigned flags, struct la_heap **ret);

/** la_heap_open() - attach, or create with @size when the name is new; errors of both */
LA_API int la_heap_open(const char *name, size_t size, unsigned flags, struct la_heap **ret);

/**
 * la_heap_detach() - leave a heap; what this process still holds is freed as at its death
 *
 * Return: 0, -EBUSY (a chain of the heap is some thread's default chain), -ECHILD (it is the parent's: nothing to leave).
 */
LA_API int la_heap_detach(struct la_heap *heap);

/** la_heap_remove() - unlink the name; attached processes keep the heap. Return: 0, -ENOENT, -EINVAL. */
LA_API int la_heap_remove(const char *name);

/*
 * The two steps underneath, for whoever brings the file descriptor (shmserver does).
 */

/**
 * la_heap_format() - write a new heap into an empty file
 * @fd:      memfd or file, writable; set to @size by this call. Of huge pages if it was made so (MFD_HUGETLB, or in hugetlbfs)
 * @size:    rounded up to 2 MiB, or to a huge page if that is larger
 * @address: where every process will map it, from la_vspace_claim(), or la_vspace_claim_aligned() with the size of a huge page
 * @name:    for reports
 */
LA_API int la_heap_format(int fd, size_t size, uintptr_t address, const char *name);

/**
 * la_heap_attach_fd() - attach through @fd
 * @fd: opened by or for this process alone (its own open file description: it carries the process's death
 *      certificate), read and write, or with LA_HEAP_READ_ONLY for reading; owned by the heap from now on, also on failure
 */
LA_API int la_heap_attach_fd(int fd, unsigned flags, struct la_heap **ret);

/**
 * la_heap_descriptor() - a duplicate of the descriptor that a heap is attached through: shows another process that this one has it
 * @id: la_heap_info.id
 *
 * It stands for the same open file description: this process counts as attached until it is closed, so close it soon.
 * Return: a descriptor, close-on-exec; -ENOENT (no heap of that id is attached here), or another errno.
 */
LA_API int la_heap_descriptor(uint64_t id);

/* What is known of a heap. */
struct la_heap_info {
    size_t struct_size;         /* in: sizeof(struct la_heap_info) of the caller */
    char name[LA_HEAP_NAME_MAX + 1];
    uint64_t id;                /* random at creation */
    uintptr_t address;
    uint64_t size;              /* bytes of address space */
    uint64_t committed;         /* bytes of macro blocks ever committed, with the header */
    uint32_t macro_blocks, macro_blocks_used;
    uint32_t processes;         /* attached now */
    uint32_t lanes;             /* threads have them, processes keep them for their next thread, or they are left to an heir */
    uint64_t recovered_processes, recovered_blocks, recovered_bytes;   /* since creation */
    bool quarantined;           /* an invariant was found broken: nothing is allocated any more */
    bool readers;               /* another process is attached by LA_HEAP_READ_ONLY */
    uint64_t page_size;         /* of the file: above the machine's, the heap is of huge pages */
};

LA_API int la_heap_info(struct la_heap *heap, struct la_heap_info *ret);

/* One attached process, for lists. */
struct la_heap_process {
    uint32_t slot;
    int32_t pid;                /* as the process saw itself: for people, never for decisions */
    uint32_t lanes;
    bool alive;                 /* its certificate is held */
    bool self;                  /* the calling process */
    char command[16];           /* printable: what is not, reads '?' */
};

/** la_heap_processes() - fill up to @max records; Return: number of attached processes, or a negative errno. */
LA_API int la_heap_processes(struct la_heap *heap, struct la_heap_process *ret, size_t max);

/**
 * la_heap_holder() - which process holds the block around an address (LA_HELD, or between two steps of a publish or take)
 * @ret: set on success, untouched on failure. As it was when it was looked at: the block may have gone elsewhere since
 *
 * Return: 0; -ENOENT (nobody: it is free, kept by the heap, or left to an heir); -EINVAL (not in the heap).
 */
LA_API int la_heap_holder(struct la_heap *heap, const void *address, struct la_heap_process *ret);

/**
 * la_heap_chain() - the heap's chain in this process, for la_chain_*() and la_default_set()
 *
 * Threads: any number; each thread is lent a lane on its first call; when it ends its process keeps it for the next one.
 */
LA_API struct la_chain *la_heap_chain(struct la_heap *heap, enum la_policy policy);

/** la_heap_alloc() - la_chain_alloc() on la_heap_chain(@heap, LA_KEEP); free with la_free() */
LA_API LA_GIVES_BLOCK void *la_heap_alloc(struct la_heap *heap, size_t size);

/** la_heap_hold() - the same with LA_HELD: freed with the process unless published */
LA_API LA_GIVES_BLOCK void *la_heap_hold(struct la_heap *heap, size_t size);

/*
 * Named roots: pointer words that every process finds by name.
 */

/**
 * la_heap_root() - find or make the root @name
 * @ret: set to a pointer-sized word in the heap, NULL at first; use it with la_publish(), la_take() and la_load(), or with
 *       atomics and nothing else
 *
 * Return: 0, -EINVAL (name), -ENOSPC (LA_HEAP_MAX_ROOTS reached: a name is for good).
 */
LA_API int la_heap_root(struct la_heap *heap, const char *name, la_link **ret);

/** la_heap_root_at() - the @index-th root, for lists; Return: 0, -ENOENT past the end. */
LA_API int la_heap_root_at(struct la_heap *heap, unsigned index, const char **name, la_link **ret);

/*
 * Roots with a version: read what a root points to, make the next one of it, put it there if nobody was faster. The version is the number of
 * swaps that happened; la_publish(), la_take() and la_push() on the same root are safe, but do not count.
 */

/**
 * la_root_read() - what a root points to, and its version, of the same instant
 * @root: from la_heap_root(); also in a heap attached for reading only
 *
 * Return: 0, -EINVAL (@root is none).
 */
LA_API int la_root_read(struct la_heap *heap, la_link *root, void **value, uint64_t *version);

/**
 * la_root_swap() - let @root point to @block, if its version is @version now; the version is @version + 1 then
 * @block: a block that the calling thread holds, or NULL; from the instant of the swap the heap's
 * @old:   set to what @root pointed to, held by the calling thread now: free it when no reader can look at it any more. NULL if there was
 *         nothing. Of an object of several blocks only this one is held, the others are the heap's
 *
 * All or nothing, at whatever instruction the process is killed: then either @block is freed by recovery, or it is there, and the old one is freed.
 *
 * Return: 0; -EAGAIN (@root has another version, @block is still held); -EINVAL (@root is none, @block is not held by this thread, or what @root
 * holds is no block of the heap that could be held); -EROFS. Without an old and a new block nothing happens, and nothing is counted.
 */
LA_API int la_root_swap(struct la_heap *heap, la_link *root, uint64_t version, void *block, void **old);

/*
 * Publish and take: hand a block over through any pointer-sized word of the heap, so that a death at any
 * instruction leaves it either reachable or free.
 */

/** la_load() - read a link word that others publish to or take from at the same time (an operation in progress leaves a mark there) */
LA_API void *la_load(struct la_heap *heap, la_link *link);

/**
 * la_publish() - let @link point to @block, if it points to @expected now
 * @block: a block that the calling thread holds (LA_HELD, or got from la_take())
 * @expected: value of @link that @block replaces; what it points to is not freed
 *
 * Return: 0 (the block now outlives this process), -EAGAIN (@link had another value; @block is still held),
 * -EINVAL (@block is not held by this thread, @link is not in the heap).
 */
LA_API int la_publish(struct la_heap *heap, la_link *link, void *expected, void *block);

/** la_push() - la_publish() on a list head: stores the old head at @next_offset of @block first, retries until done */
LA_API int la_push(struct la_heap *heap, la_link *head, void *block, size_t next_offset);

#define LA_NO_NEXT ((size_t)-1)

/**
 * la_take() - remove the block that @link points to and hold it
 * @next_offset: offset in the block of the word that replaces it in @link, or LA_NO_NEXT for NULL
 *
 * Return: the block, held by the calling thread; NULL when @link is NULL (then la_last_error_code() is 0, whatever failed before), or on an error
 * (then it is that one).
 */
LA_API void *la_take(struct la_heap *heap, la_link *link, size_t next_offset);

/** la_keep() - make a held block outlive the process without linking it (a stated leak if nobody knows it) */
LA_API int la_keep(struct la_heap *heap, void *block);

/*
 * References: read an object that others may take or free at the same time, also where the heap is attached for reading only. A reference names a block and its
 * generation, which moves when the block is freed or taken. It tells an object from the next one in its place, not one state of an object from
 * another: who changes objects in place keeps a version in them, or publishes a new one (la_root_swap()).
 */
struct la_ref {
    void *block;
    uint32_t generation, epoch;
};

/**
 * la_ref_get() - a reference to what @link points to
 *
 * Return: 0; -ENOENT (NULL); -EAGAIN (it is being taken, or was never published: another process holds it. Who may write helps; a read-only
 * attachment tries again later); -EINVAL (@link is not in the heap, or points to no block of it).
 */
LA_API int la_ref_get(struct la_heap *heap, la_link *link, struct la_ref *ret);

/** la_ref_is_valid() - the object is there still; generations have 12 bits, so 4,096 uses of its block in between look like none */
LA_API bool la_ref_is_valid(struct la_heap *heap, const struct la_ref *ref);

/**
 * la_ref_read() - copy bytes of the object
 *
 * Links in the copy may have gone elsewhere: follow them by la_ref_get() on the link in the object, and look at this reference once more.
 * Return: 0; -ESTALE (it was taken or freed: @to holds anything); -EINVAL (outside the block).
 */
LA_API int la_ref_read(struct la_heap *heap, const struct la_ref *ref, size_t offset, void *to, size_t size);

/*
 * Bundles: an object of several blocks that one word publishes whole.
 */

/** la_bundle_begin() - start a bundle on the calling thread; Return: 0, -EBUSY (one is open), -ENOMEM. */
LA_API int la_bundle_begin(struct la_heap *heap, struct la_bundle **ret);
/** la_bundle_alloc() - a block of the bundle, held; NULL when out of memory */
LA_API LA_GIVES_BLOCK void *la_bundle_alloc(struct la_bundle *bundle, size_t size);
/** la_bundle_publish() - la_publish() of @root, which makes every block of the bundle outlive the process; ends the
 *  bundle when it returns 0, leaves it open on -EAGAIN */
LA_API int la_bundle_publish(struct la_bundle *bundle, la_link *link, void *expected, void *root);
/** la_bundle_swap() - la_root_swap() of @block, which makes every block of the bundle outlive the process; ends the bundle when it returns 0,
 *  leaves it open otherwise */
LA_API int la_bundle_swap(struct la_bundle *bundle, la_link *root, uint64_t version, void *block, void **old);
/** la_bundle_abort() - free every block of the bundle and end it */
LA_API void la_bundle_abort(struct la_bundle *bundle);

/*
 * A mutex and a condition variable for shared memory. The mutex is one word that names the holder's lane; when
 * the holder's process dies, the next one gets it with -EOWNERDEAD. No libc lock, no PID, no TID.
 */
struct la_mutex { la_word word; };    /* all zero: unlocked */
struct la_cond { la_word sequence; }; /* all zero: ready */

/**
 * la_mutex_lock() - lock, waiting as long as it takes
 *
 * Return: 0; -EOWNERDEAD (locked, but the last holder died inside: repair what it protects); -EDEADLK (this thread
 * has it already); -EINVAL (not in the heap).
 */
LA_API int la_mutex_lock(struct la_heap *heap, struct la_mutex *mutex);
/** la_mutex_trylock() - the same without waiting: -EBUSY when a living lane has it */
LA_API int la_mutex_trylock(struct la_heap *heap, struct la_mutex *mutex);
/** la_mutex_unlock() - Return: 0, -EPERM (this thread has not locked it). */
LA_API int la_mutex_unlock(struct la_heap *heap, struct la_mutex *mutex);
/** la_cond_wait() - unlock, wait for a signal or @timeout (relative; NULL: for ever), lock again.
 *  Return: 0 (also without a signal: test your condition again), -ETIMEDOUT, -EINVAL (@timeout negative, or a second or more of nanoseconds; @mutex is
 *  still locked), or la_mutex_lock()'s. */
LA_API int la_cond_wait(struct la_heap *heap, struct la_cond *cond, struct la_mutex *mutex, const struct timespec *timeout);
LA_API int la_cond_signal(struct la_heap *heap, struct la_cond *cond);
LA_API int la_cond_broadcast(struct la_heap *heap, struct la_cond *cond);

/*
 * Recovery and checking.
 */

/* What a recovery found. */
struct la_obituary {
    uint32_t slot;              /* process slot */
    int32_t pid;                /* as the process saw itself */
    char command[16];
    uint32_t lanes;
    uint64_t blocks, bytes;     /* held and freed */
    uint32_t published, undone; /* steps that were finished or undone */
    uint64_t left_blocks, left_bytes;   /* held, and left to the heir */
    char heir[LA_HEAP_NAME_MAX + 1];    /* la_heap_set_heir(); "": it had none */
    uint64_t operation;         /* la_heap_operation() of one of its threads, la_heap_outcome() knows of the others; 0: it had none */
    bool happened;              /* that one */
};

/**
 * la_heap_recover() - look for dead processes and free what they held
 * @each: called once per dead process; may be NULL
 *
 * Idempotent; any process may call it at any time; a process that holds its certificate is never touched.
 * Return: number of dead processes recovered, or a negative errno.
 */
LA_API int la_heap_recover(struct la_heap *heap, void (*each)(void *user, const struct la_obituary *), void *user);

/**
 * la_heap_obituary() - read the obituaries of a heap one after the other: whoever recovers a process leaves one there
 * @number: in: 0 at first, later what the last call made of it; out: where to go on. Every reader has one of its own
 * @ret:    set on success, untouched on failure. Counts are those of the recoverer that ended the recovery
 *
 * The heap keeps the last 256 notices: an obituary, and one more for each thread of the dead that had given its operation a number. Also in a heap attached for
 * reading only. Return: 0; -ENOENT (no other one yet: call again with the same @number); -EOVERFLOW (some are lost, as more have come
 * since; @number is that of the oldest there is).
 */
LA_API int la_heap_obituary(struct la_heap *heap, uint64_t *number, struct la_obituary *ret);

/*
 * Outcomes: did my last operation happen? A process that may be killed gives its operations numbers of its own choice, and writes down, in the
 * heap or elsewhere, which one comes next. Whoever comes after it, or its parent, asks for that number.
 */

/**
 * la_heap_operation() - give a number to the calling thread's next operation
 * @number: not 0, and of no other operation of any process, e.g. a worker's number and a counter; 0: those that follow have none
 *
 * An operation is one call of la_publish(), la_push(), la_take(), la_root_swap(), la_queue_push(), la_queue_pop() or of their forms for bundles. The
 * number is that of all operations until the next call: give each that matters one of its own.
 *
 * Return: 0, or a negative errno (no lane left, -EROFS).
 */
LA_API int la_heap_operation(struct la_heap *heap, uint64_t number);

/**
 * la_heap_outcome() - what became of the operation with that number
 *
 * Known of each thread's last number, and of the last that happened before it, until another thread of the process has its lane; of the dead as long as
 * the heap keeps their notices (la_heap_obituary()), but it is decided when they are recovered, not before. Also in a heap attached for reading only.
 *
 * Return: 1 (it has happened); 0 (it has not, and will not); -EINPROGRESS (it has not happened yet, its thread may still be at it: call
 * la_heap_recover() if its process is dead); -ENOENT (nobody has it: it was not begun, or it is forgotten); -EINVAL (@number is 0).
 */
LA_API int la_heap_outcome(struct la_heap *heap, uint64_t number);

/*
 * Heirs: what a process held is not freed at its death, but kept for whoever comes in its place.
 */

/**
 * la_heap_set_heir() - name the heir of the calling process in this heap
 * @name: see LA_HEAP_NAME_MAX; the heap's root of that name (la_heap_root()) stands for the heir, its value is not touched. NULL: no heir (as at first)
 *
 * From now on a death, or la_heap_detach(), leaves every held block as it is, also those of bundles that were not published, for la_heap_inherit() with that
 * name. Nobody need be there to inherit: blocks and lanes (LA_HEAP_MAX_LANES) wait.
 *
 * Return: 0, -EINVAL (name), -ENOSPC (no root left), -EROFS.
 */
LA_API int la_heap_set_heir(struct la_heap *heap, const char *name);

/**
 * la_heap_inherit() - hold what the dead have left to the heir @name
 * @each: called with each block, which the calling thread holds from then on; may free or publish it. NULL: count only, nothing is taken
 *
 * What a block is, only its bytes say: the dead may have been about to write or to free it. Of the recovered: call la_heap_recover() first where no
 * daemon does. Any number of heirs of one name share what there is. One that dies meanwhile holds what it has got so far, the rest waits for the next.
 *
 * Return: number of blocks, or a negative errno.
 */
LA_API long la_heap_inherit(struct la_heap *heap, const char *name, void (*each)(void *user, void *block, size_t size), void *user);

struct la_fsck {
    size_t struct_size;
    uint64_t blocks[4];         /* by state: free, held, in doubt, heap */
    uint64_t bytes[4];
    uint32_t pages, macro_blocks;
    unsigned errors;
};

/**
 * la_heap_fsck() - verify every invariant of the heap
 * @report: one line per finding; may be NULL
 * @ret: counts, may be NULL; set struct_size first
 *
 * Exact when no other process changes the heap meanwhile. Return: number of errors, or a negative errno.
 */
LA_API int la_heap_fsck(struct la_heap *heap, void (*report)(void *user, const char *line), void *user, struct la_fsck *ret);

/**
 * la_heap_quarantine() - nothing is allocated from the heap any more, in any process; what is in it stays, can be read, taken and freed
 * @on: false: after what was wrong is mended or found to be none. The library sets it by itself when it meets a broken invariant
 *
 * Return: 0, -EROFS.
 */
LA_API int la_heap_quarantine(struct la_heap *heap, bool on);

/** la_heap_reset() - free every block of the heap at once, by a page epoch; roots become NULL. Return: 0, -EBUSY
 *  (other processes are attached). */
LA_API int la_heap_reset(struct la_heap *heap);

/** la_heap_walk() - call @each for every live block; for inspection. Return: number of blocks or a negative errno. */
LA_API long la_heap_walk(struct la_heap *heap, void (*each)(void *user, void *block, size_t size, bool held), void *user);

LA_END_DECLS
#endif
