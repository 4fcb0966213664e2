/*
 * source.h - a kind of memory as a table of functions: fill one to plug in your own.
 *
 * A source yields extents: ranges of memory that can be touched at once, each with what is known of it. A supply (segments/supply.h) asks
 * sources in order, decorates what they give by registrars, and hands it to chains. examples/own_memory.c is a source in a page;
 * segments/conformance.h runs any source through the contract below.
 *
 * (liballoc/source.h is the engine's own, smaller table: ranges without properties.)
 */
#ifndef SEGMENTS_SOURCE_H
#define SEGMENTS_SOURCE_H

#include <segments/segment.h>

LA_BEGIN_DECLS

/* What a source is asked for. */
struct seg_ask {
    size_t struct_size;     /* sizeof(struct seg_ask) of the asker: fields behind that are not there */
    size_t min_size;        /* bytes, above 0: with less the ask has failed */
    size_t wanted_size;     /* bytes, at least min_size */
    unsigned required;      /* OR of enum seg_capability: what cannot have them says -ENOTSUP */
    unsigned preferred;
    struct seg_numa numa;   /* with SEG_PLACED */
};

struct seg_source_ops;

/* What it gave. */
struct seg_extent {
    size_t struct_size;     /* set by the asker before the call */
    void *base;             /* a multiple of page_size */
    size_t size;            /* bytes, at least min_size, a multiple of page_size */
    size_t page_size;       /* bytes, a power of two, at least the machine's */
    unsigned capabilities;  /* all of seg_ask.required, and what else it has */
    unsigned missed;        /* of seg_ask.preferred */
    int fd;                 /* the file it lies in, the source's; -1: none */
    uint64_t offset;        /* of base in that file */
    int node;               /* NUMA node of all its pages, -1: several or unknown */
    char reason[192];       /* why something was missed; "" */
    void *cookie;           /* the source's own */
    const struct seg_source_ops *source;    /* these two are set by whoever has asked, behind the call: for seg_dmabuf_of() */
    void *source_self;
};

/* A descriptor by which another device's driver finds the memory of an extent: a dmabuf of the kernel. */
struct seg_dmabuf {
    size_t struct_size;     /* set by the asker */
    int fd;                 /* a new one, owned by the asker: close it. Whoever has attached to the memory by it holds it without */
    uint64_t offset;        /* of the extent's base in it, bytes */
};

/* What is known of a source without asking it for memory. */
struct seg_source_info {
    size_t struct_size;     /* set by the asker */
    unsigned can;           /* capabilities that an extent may have */
    size_t page_size;       /* of its extents, bytes */
    size_t available;       /* bytes it could give now, as far as it knows; SIZE_MAX: no limit of its own */
};

/* What another process needs to map the same memory; the descriptor goes beside it (SCM_RIGHTS). */
struct seg_handle {
    size_t struct_size;
    int fd;                 /* owned by whoever receives the struct: close it */
    uint64_t offset;
    size_t size;
    uint64_t address;       /* where the maker has it, 0: anywhere */
};

/*
 * Contract
 * - Functions return 0 or a negative errno, best by seg_fail(). On failure nothing has changed and nothing is left behind.
 * - Calls on one opened source by one supply come one at a time, with no lock of the allocator held that a malloc inside of them could
 *   need; they may take seconds.
 * - An extent is given once: it overlaps no other one that is out. All of it can be read and written without a signal, unless it is
 *   SEG_DEVICE_ONLY: that a source says in .can, and then chains over it never touch its memory.
 * - A source outlives its extents: close() comes when all are released. Nothing is called from an exit handler.
 */
struct seg_source_ops {
    size_t struct_size;     /* sizeof(struct seg_source_ops) of the author's header: later members are optional */
    const char *name;       /* how lists say it ("mine" in "mine:arg,anon"): letters, digits, - and _ */
    unsigned can;           /* capabilities that its extents may have: what is required beyond is refused without a call */

    /** open() - @text: what stood behind the colon, "" if nothing; @user: from struct seg_choice; @ret: handed to all other calls */
    int (*open)(const char *text, void *user, void **ret);
    void (*close)(void *self);
    int (*info)(void *self, struct seg_source_info *ret);
    int (*acquire)(void *self, const struct seg_ask *ask, struct seg_extent *ret);
    /** release() - take a whole extent back; failure: it is quarantined, neither used nor asked about again */
    int (*release)(void *self, struct seg_extent *extent);

    /* Optional: NULL, or not there by struct_size. */
    /** resize() - in place, never moves; pages between the sizes are like new ones */
    int (*resize)(void *self, struct seg_extent *extent, size_t size);
    /** advise() - @range: whole pages of the extent */
    int (*advise)(void *self, struct seg_extent *extent, struct la_range range, enum seg_advice advice);
    int (*export_handle)(void *self, struct seg_extent *extent, struct seg_handle *ret);
    int (*import_handle)(void *self, const struct seg_handle *handle, struct seg_extent *ret);
    /** export_dmabuf() - for registrars of other devices, once for each; -ENOTSUP: driver or device cannot, and the sentence says what could */
    int (*export_dmabuf)(void *self, const struct seg_extent *extent, struct seg_dmabuf *ret);
};

/* One of an ordered list of sources. */
struct seg_choice {
    const struct seg_source_ops *ops;
    const char *text;       /* for open(); NULL: "" */
    void *user;             /* for open() */
};

/**
 * seg_source_register() - let lists name a source of your own
 * @ops: not copied; must stay as long as the process
 *
 * Return: 0, -EINVAL (a member is missing, name), -EEXIST (name taken), -ENOSPC (more than 16).
 */
LA_API int seg_source_register(const struct seg_source_ops *ops);

/**
 * seg_source_find() - a source by its name, built in or registered; NULL: none
 *
 * Built in: "anon", "thp", "hugetlb:SIZE" (2M or 1G), "memfd", "memfd:SIZE" (huge pages), "shm:NAME" and "file:PATH" (extents are
 * NAME.1, NAME.2 ... and go with their release), "cuda-host", "cuda-host:portable+mapped+wc", "cuda-device" and "cuda-device:NUMBER"
 * (segments/cuda.h).
 */
LA_API const struct seg_source_ops *seg_source_find(const char *name);

/** seg_source_parts() - extents are parts of an open segment: struct seg_choice.user is the struct seg_segment */
LA_API const struct seg_source_ops *seg_source_parts(void);

/**
 * seg_dmabuf_of() - have an extent described by a dmabuf, in attach() of a registrar or in a subscriber's call, whose extent it is
 * @ret: struct_size is set by the caller; the descriptor is the caller's, closed on exec
 *
 * Return: 0, -ENOTSUP (the source has no such operation; or it, its driver or its device cannot: la_last_error() says what could), -EPROTO (what it
 * gave is no descriptor, or too short for the extent), or the source's own.
 */
LA_API int seg_dmabuf_of(const struct seg_extent *extent, struct seg_dmabuf *ret);

/** seg_fail() - leave a sentence in la_last_error(), for functions of yours that the library calls; returns @code */
LA_API int seg_fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

LA_END_DECLS
#endif
