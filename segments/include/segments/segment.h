/*
 * segment.h - one contiguous range of memory with known properties, got from a backend.
 *
 * A request names a kind of memory, the properties it must have and those it would like to have, and two sizes. The
 * answer (struct seg_info) says what was got, and why a wish was not fulfilled. Parts of the segment are then acquired
 * and released; what is acquired is committed, so that memory which is not there is an error code and never SIGBUS.
 *
 *     struct seg_request request = { .struct_size = sizeof(request), .kind = SEG_MEMFD, .name = "frames",
 *                                    .required = SEG_SHARED | SEG_SEALED, .preferred = SEG_HUGE,
 *                                    .min_size = 64 << 20, .wanted_size = 256 << 20 };
 *     struct seg_segment *segment;
 *     struct la_source *source;
 *
 *     if (seg_open(&request, &segment) == 0 && seg_source_create(segment, &source) == 0)
 *         la_chain_create(source, 0, &chain);
 *
 * Every failure leaves a sentence in la_last_error(). docs/segments.md is the guide.
 */
#ifndef SEGMENTS_SEGMENT_H
#define SEGMENTS_SEGMENT_H

#include <stddef.h>
#include <stdint.h>

#include <liballoc/source.h>

LA_BEGIN_DECLS

struct seg_segment;

/* Where the memory comes from. */
enum seg_kind {
    SEG_ANON = 1,           /* private memory of this process */
    SEG_MEMFD = 2,          /* a file without a name, shared by handing its descriptor over */
    SEG_POSIX_SHM = 3,      /* a file in /dev/shm, shared by name (shm_open() finds it too) */
    SEG_USER = 4,           /* the caller's buffer */
    SEG_FILE = 5,           /* a file by its path: on a disk, on a hugetlbfs mount, on a DAX mount */
};

/* Properties, for seg_request.required and .preferred and seg_info.capabilities. */
enum seg_capability {
    SEG_SHARED = 1u << 0,           /* other processes can map it and see stores */
    SEG_NAMED = 1u << 1,            /* other processes find it by name */
    SEG_SEALED = 1u << 2,           /* nobody can change its length any more: no SIGBUS by a hostile peer */
    SEG_FIXED_ADDRESS = 1u << 3,    /* the same address in every process, so plain pointers work (liballoc/vspace.h) */
    SEG_HUGE = 1u << 4,             /* pages from the system's pool, of 2 MiB or of seg_request.page_size */
    SEG_THP = 1u << 5,              /* the kernel may use huge pages where it finds them; tried when SEG_HUGE is missed */
    SEG_PURGE = 1u << 6,            /* released parts go back to the system */
    SEG_PLACED = 1u << 7,           /* its pages lie where seg_request.numa says */
    SEG_DAX = 1u << 8,              /* stores reach the medium without a page cache (MAP_SYNC) */
    SEG_PINNED = 1u << 9,           /* its pages never move or leave: a registrar saw to it (segments/registrar.h) */
    SEG_DEVICE_ONLY = 1u << 10,     /* memory of a device, which the processor must not touch; of sources only (segments/cuda.h) */
};

enum seg_flags {
    SEG_CREATE = 1u << 0,   /* POSIX_SHM, FILE: make it; alone: -EEXIST when the name is taken */
    SEG_ATTACH = 1u << 1,   /* POSIX_SHM, FILE: use the one that exists; alone: -ENOENT when there is none. Both: either */
    SEG_IMPORT = 1u << 2,   /* MEMFD: .fd is an existing file; it is duplicated, the caller keeps his */
};

#define SEG_NAME_MAX 63     /* bytes of a name: [A-Za-z0-9._-], the first no '.' or '-' */

/* On which NUMA nodes pages lie. Only what is not yet touched can be placed. */
enum seg_numa_mode {
    SEG_NUMA_ANY = 0,       /* as the thread that touches them first is told (set_mempolicy) */
    SEG_NUMA_BIND,          /* on .nodes, or nowhere: pages are made by seg_acquire(), which fails when the nodes have not enough */
    SEG_NUMA_PREFER,        /* on the first of .nodes, elsewhere when it is full */
    SEG_NUMA_INTERLEAVE,    /* in turn on all of .nodes */
    SEG_NUMA_LOCAL,         /* on the node of the processor that touches them first */
};

struct seg_numa {
    enum seg_numa_mode mode;
    uint64_t nodes;         /* bit i: node i. LOCAL and ANY: 0 */
};

/* Set struct_size; what is left zero has the default. */
struct seg_request {
    size_t struct_size;     /* sizeof(struct seg_request) of the caller */
    enum seg_kind kind;
    unsigned flags;         /* OR of enum seg_flags; POSIX_SHM needs one of them */
    unsigned required;      /* OR of enum seg_capability: without these seg_open() fails */
    unsigned preferred;     /* these are tried */
    size_t min_size;        /* bytes; 0: wanted_size */
    size_t wanted_size;     /* bytes; 0: min_size. When attaching: ignored, min_size is the least that will do */
    const char *name;       /* POSIX_SHM: its name; MEMFD: for /proc/PID/maps; others: for reports; may be NULL but for POSIX_SHM */
    void *buffer;           /* USER: start of wanted_size bytes, at any alignment */
    int fd;                 /* MEMFD with SEG_IMPORT */
    uintptr_t address;      /* MEMFD with SEG_IMPORT and SEG_FIXED_ADDRESS: where its maker has it; else 0: chosen */
    struct seg_numa numa;   /* with SEG_PLACED required, else it is a wish */
    size_t page_size;       /* of SEG_HUGE: bytes, 2 MiB or 1 GiB on x86-64; 0: 2 MiB */
    const char *path;       /* FILE */
};

/* The answer. */
struct seg_info {
    size_t struct_size;     /* in: sizeof(struct seg_info) of the caller */
    enum seg_kind kind;
    unsigned capabilities;  /* what it has */
    unsigned missed;        /* preferred, but not got */
    char reason[192];       /* why, one sentence per miss; "" when nothing was missed */
    char name[SEG_NAME_MAX + 1];
    void *base;
    size_t size;            /* bytes of address space, a multiple of page_size (USER: as given) */
    size_t page_size;       /* bytes; acquired parts are multiples of it */
    size_t acquired;        /* bytes in use by this process's seg_acquire() */
    size_t committed;       /* bytes of memory behind it, as far as the backend can tell */
    int fd;                 /* to hand over; stays the segment's; -1: none */
    int node;               /* NUMA node of all its pages, -1: several or unknown */
};

/**
 * seg_open() - get a segment
 * @ret: set on success, untouched on failure
 *
 * Ownership: with SEG_USER the caller keeps the buffer until seg_close() has returned 0.
 * Threads: all calls on a segment may be made from any thread.
 *
 * Return: 0, -EINVAL (size 0 or overflow, NULL buffer, name, flags or bits unknown, a file that is no segment), -ENOTSUP
 * (a required capability that this kind does not have or the machine does not give; la_last_error() says why), -ENAMETOOLONG,
 * -EEXIST, -ENOENT, -EACCES (another user's), -ENOSPC (existing file smaller than min_size), -ENOMEM, or an errno of the
 * system.
 */
LA_API int seg_open(const struct seg_request *request, struct seg_segment **ret);

/**
 * seg_close() - give a segment back; a named one keeps its name and content, see seg_remove()
 * @segment: NULL does nothing
 *
 * Return: 0, -EBUSY (parts are acquired).
 */
LA_API int seg_close(struct seg_segment *segment);

/** seg_info() - what a segment is. Return: 0, -EINVAL (@ret->struct_size not set). */
LA_API int seg_info(struct seg_segment *segment, struct seg_info *ret);

/**
 * seg_acquire() - take a part of at least @min bytes, better @wanted, and commit its memory
 * @ret: a multiple of the page size, aligned to it
 *
 * Shared segments: parts are this process's own bookkeeping. Two processes that both acquire in one segment agree
 * among themselves who has what, or use a shared heap (liballoc/heap.h).
 *
 * Return: 0, -EINVAL (@min 0 or above @wanted), -ENOMEM (no room of @min bytes in the segment), -ENOSPC (the file system or huge
 * page pool is full), or another errno of the system.
 */
LA_API int seg_acquire(struct seg_segment *segment, size_t min, size_t wanted, struct la_range *ret);

/** seg_release() - give a part back, exactly as acquired. Return: 0, -EINVAL (no such part), -EBUSY (it is an extent of a supply). */
LA_API int seg_release(struct seg_segment *segment, struct la_range range);

/* What seg_advise() may say of a range. */
enum seg_advice {
    SEG_POPULATE = 1,       /* it will be used: make its page tables now; content is kept */
    SEG_DISCARD = 2,        /* its content is not needed: pages go back, it reads as zero and can be used again */
};

/**
 * seg_advise() - tell what will happen to part of an acquired range
 * @range: inside one acquired part, multiples of the page size
 *
 * Shared segments cannot discard: the memory might be gone at the next touch, which would be a SIGBUS. Release the part
 * and acquire it again instead.
 *
 * Return: 0, -EINVAL (range, advice), -ENOTSUP (the backend cannot), -EBUSY (discard of a registered extent), or an errno of the system.
 */
LA_API int seg_advise(struct seg_segment *segment, struct la_range range, enum seg_advice advice);

/** seg_remove() - unlink a SEG_POSIX_SHM name; who has it open keeps it. Return: 0, -ENOENT, -EINVAL, -EACCES. */
LA_API int seg_remove(const char *name);

/**
 * seg_source_create() - let chains allocate from a segment
 * @ret: a source for la_chain_create(); end it by la_source_destroy(), then close the segment
 *
 * The source asks for parts of 4 MiB and more; for one small buffer use la_chain_create_in().
 *
 * Return: 0, -EINVAL, -ENOMEM.
 */
LA_API int seg_source_create(struct seg_segment *segment, struct la_source **ret);

LA_END_DECLS
#endif
