/*
 * backend.h - what a kind of memory must be able to do, and what all kinds share.
 *
 * A new kind is one file in backends/ with one table, listed in segment.c. segment.c checks requests, keeps the book of which
 * parts are in use, and calls the table; so a backend never sees a bad argument or two calls for one part at once.
 */
#ifndef SEGMENTS_BACKEND_H
#define SEGMENTS_BACKEND_H

#include <segments/segment.h>

#include "base/util.h"
#include "os/range_table.h"

struct seg_backend;

struct seg_segment {
    const struct seg_backend *backend;
    unsigned capabilities, missed;  /* OR of enum seg_capability */
    char reason[192];
    char name[SEG_NAME_MAX + 1];
    char *base;
    size_t size, page_size;         /* bytes */
    int fd;                         /* -1: none */
    bool fixed;                     /* mapped by la_mmap() */
    bool on_disk;                   /* its memory is page cache: the machine's headroom is no limit, and it cannot be placed */
    bool adopted;                   /* of an existing file: pages may lie there already */
    struct seg_numa numa;           /* with SEG_PLACED */
    unsigned number;                /* of a source's extent, see sources/kinds.c */
    uintptr_t claim;                /* address to unclaim at the end; 0: none, or it outlives us */
    struct range_table used;        /* acquired parts; guarded by vspace_lock() */
};

struct seg_backend {
    size_t struct_size;             /* sizeof(struct seg_backend) of the author's header: later fields are optional */
    enum seg_kind kind;
    const char *name;               /* "memfd" */
    unsigned can;                   /* capabilities it may have; the others are refused before open() */
    unsigned flags;                 /* request flags it understands */

    /*
     * Fill base, size, page_size, fd and capabilities. @size is what to try, page-aligned and at least the least that
     * will do; on -ENOMEM and -ENOSPC it is called again with less. A miss goes to seg_miss(). On failure nothing is left.
     */
    int (*open)(struct seg_segment *s, const struct seg_request *request, size_t size);
    void (*close)(struct seg_segment *s);

    /* Fill what only the backend knows: ->committed. */
    void (*info)(struct seg_segment *s, struct seg_info *ret);

    /* Commit, so that no touch of @range can fail; all or nothing. NULL: it is so since open(). */
    int (*acquire)(struct seg_segment *s, struct la_range range);
    /* Give the memory back, keep the addresses. NULL: the content stays. */
    void (*release)(struct seg_segment *s, struct la_range range);

    /* Optional. */
    int (*advise)(struct seg_segment *s, struct la_range range, enum seg_advice advice);
};

#define SEG_BACKEND_HAS(b, member)                                                                                     \
    ((b)->struct_size >= offsetof(struct seg_backend, member) + sizeof((b)->member) && (b)->member)

extern HIDDEN const struct seg_backend seg_anon_backend, seg_memfd_backend, seg_posix_shm_backend, seg_user_backend, seg_path_backend;

/*
 * The segment does not get @capability. Preferred: noted with the reason, 0. Required: -ENOTSUP with the reason as
 * la_last_error(). Neither: nothing, 0.
 */
int seg_miss(struct seg_segment *s, const struct seg_request *request, unsigned capability, const char *format, ...) PRINTF_LIKE(4, 5);

/* "shared, huge pages": of OR of enum seg_capability. */
void seg_capability_names(unsigned capabilities, char *text, size_t size);

static inline bool seg_wants(const struct seg_request *request, unsigned capability)
{
    return (request->required | request->preferred) & capability;
}

#endif
