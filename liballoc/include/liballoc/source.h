/*
 * source.h - where chains get memory: the table a program fills to plug in its own.
 *
 * A source yields ranges of memory (segments). The engine cuts macro blocks of 2 MiB out of them, hands
 * those to chains, and gives a segment back only when nothing in it is in use.
 */
#ifndef LIBALLOC_SOURCE_H
#define LIBALLOC_SOURCE_H

#include <stdbool.h>
#include <stddef.h>

#include <liballoc/visibility.h>

LA_BEGIN_DECLS

struct la_source;

struct la_range {
    void *base;
    size_t size;    /* bytes */
};

/* What is special about a source's memory. Descriptors of either kind lie apart from it. */
enum la_source_flags {
    /*
     * The processor must not touch it, as memory of a GPU: nor does the engine. Chains over it have no LA_CHAIN_STATS, are nobody's default,
     * and what would write to a block (la_chain_calloc(), la_realloc() that must move it) is refused. 16 bytes of other memory for each block.
     */
    LA_SOURCE_DEVICE_ONLY = 1u << 0,
    /* A child of fork() does not have it (MADV_DONTFORK): there chains over it give nothing, and their blocks cannot be freed. */
    LA_SOURCE_NOT_INHERITED = 1u << 1,
};

struct la_source_ops {
    size_t struct_size;     /* sizeof(struct la_source_ops) of the author's header */
    const char *name;       /* for reports, at most 31 bytes are kept */

    /**
     * acquire() - get at least @min bytes, better @wanted
     * @ret: any alignment; zeroed or not; readable and writable, but for LA_SOURCE_DEVICE_ONLY
     *
     * Called with no lock of the allocator held that another thread's fast path needs, but serialised
     * per source. Must not allocate from a chain of the same source.
     * Return: 0 or a negative errno; every failure makes the allocation return NULL.
     */
    int (*acquire)(void *self, size_t min, size_t wanted, struct la_range *ret);

    /** release() - take a whole range back; NULL: ranges are kept until the source ends */
    void (*release)(void *self, struct la_range range);

    /** purge() - give the pages of @range back but keep the addresses; NULL: cannot; 0 or a negative errno */
    int (*purge)(void *self, struct la_range range);

    /* Optional: not there by struct_size, or zero. */
    unsigned flags;         /* OR of enum la_source_flags */
    /**
     * acquire_on() - acquire() for chains of NUMA node @node; called instead of it
     *
     * With it the source tells nodes apart: a chain draws from the node that its thread runs on when it needs a macro block, or that it is
     * pinned to (la_chain_pin()), and what is free goes to chains of the same node first.
     */
    int (*acquire_on)(void *self, unsigned node, size_t min, size_t wanted, struct la_range *ret);
    unsigned nodes;         /* told apart: 0 to nodes - 1; 0: those of the machine */
    bool strict;            /* a node that has nothing more to give is an error; else other nodes' free memory is used then */
};

/* The most nodes that are told apart; threads on others draw from node 0. */
#define LA_NODES_MAX 64

/**
 * la_source_create() - make a source from a table of operations
 * @ops:  copied; unknown trailing fields must be zero
 * @self: handed to every operation
 * @ret:  set on success, untouched on failure
 *
 * Return: 0, -EINVAL (no acquire, struct_size or a flag unknown, more than LA_NODES_MAX nodes), -ENOMEM.
 */
LA_API int la_source_create(const struct la_source_ops *ops, void *self, struct la_source **ret);

/**
 * la_source_destroy() - end a source and release its ranges
 * @source: NULL does nothing
 *
 * Return: 0, -EBUSY (a chain still uses it), -EINVAL (the default source).
 */
LA_API int la_source_destroy(struct la_source *source);

/** la_source_default() - the process's own source of anonymous memory */
LA_API struct la_source *la_source_default(void);

/**
 * la_source_default_set() - let the default source, malloc's under liballoc-malloc.so too, grow by operations of yours
 * @ops:  copied. Ranges are never released: the default source does not end. purge() is asked about ranges that it had before, too
 * @self: handed to every operation
 *
 * For good: it can be set once. What is allocated stays where it is, and so does what follows in the same macro blocks of 2 MiB; blocks above
 * 2 MiB come from @ops too, and then grow by copying. Ranges must be private memory: after fork() both processes write to them.
 *
 * Return: 0, -EINVAL (as la_source_create(), or any of enum la_source_flags), -EBUSY (set before).
 */
LA_API int la_source_default_set(const struct la_source_ops *ops, void *self);

/**
 * la_source_trim() - give unused pages back to the system now
 * @source: NULL: the default source
 *
 * Return: bytes given back.
 */
LA_API size_t la_source_trim(struct la_source *source);

/**
 * la_source_limit() - hard limit on the bytes a source may have mapped; 0: none
 *
 * Return: 0, -EINVAL (already above @bytes).
 */
LA_API int la_source_limit(struct la_source *source, size_t bytes);

LA_END_DECLS
#endif
