/*
 * chain.h - allocation chains: a pool of free blocks, a source of memory, a remote free queue.
 *
 * Every thread has a private chain made on first use; la_malloc() serves from the thread's default
 * chain (default.h). This header makes further chains: over a caller's buffer, or over a source.
 *
 * The words are the MPC allocator's (S. Valat, 2011): chain, macro block, source, remote free queue.
 */
#ifndef LIBALLOC_CHAIN_H
#define LIBALLOC_CHAIN_H

#include <stdbool.h>
#include <stddef.h>

#include <liballoc/visibility.h>

LA_BEGIN_DECLS

struct la_chain;
struct la_source;

/* Blocks of 16 bytes and more are aligned to this; smaller ones to 8. */
#define LA_BLOCK_ALIGN 16
/* The smallest user buffer that la_chain_create_in() accepts, in bytes. */
#define LA_CHAIN_MIN_SIZE 16384

enum la_chain_flags {
    LA_CHAIN_MT = 1u << 0,      /* many threads may allocate: calls are serialised by a lock */
    LA_CHAIN_STATS = 1u << 1,   /* count every call (stats.h: requested, frees, exact allocations): slower, 8 bytes more per block */
};

/**
 * la_chain_create_in() - make a chain that serves blocks from caller memory and from nowhere else
 * @buffer: start of the memory, not NULL; any alignment
 * @size:   length of @buffer in bytes, at least LA_CHAIN_MIN_SIZE
 * @flags:  OR of enum la_chain_flags
 * @ret:    set to the chain on success, untouched on failure
 *
 * Ownership: the chain's metadata lives at the front of @buffer; the caller keeps @buffer mapped
 * until la_chain_destroy() has returned 0, and frees it.
 * Threads: one thread at a time may allocate, any number with LA_CHAIN_MT; any thread may free.
 *
 * Return: 0, -EINVAL (NULL @buffer, unknown bit in @flags), -ENOSPC (@size too small),
 * -EEXIST (@buffer overlaps another chain's buffer; a block of a chain over 2 MiB or more may be one), -ENOMEM.
 */
LA_API int la_chain_create_in(void *buffer, size_t size, unsigned flags, struct la_chain **ret);

/**
 * la_chain_create() - make a chain over a source
 * @source: where macro blocks come from, see source.h; NULL: the process's default source
 * @flags:  OR of enum la_chain_flags
 * @ret:    set to the chain on success, untouched on failure
 *
 * Return: 0, -EINVAL (unknown bit in @flags, LA_CHAIN_STATS over a source with LA_SOURCE_DEVICE_ONLY), -ENOMEM,
 * -ECHILD (the source is the parent's, and has LA_SOURCE_NOT_INHERITED).
 */
LA_API int la_chain_create(struct la_source *source, unsigned flags, struct la_chain **ret);

/**
 * la_chain_destroy() - end a chain; its live blocks become invalid and its memory goes back
 * @chain: a chain made by la_chain_create() or la_chain_create_in(); NULL does nothing
 *
 * Return: 0, or -EBUSY (it is some thread's default chain; put that one back first), -EINVAL (a
 * thread's own chain or a shared heap's).
 */
LA_API int la_chain_destroy(struct la_chain *chain);

/**
 * la_chain_reset() - free every block of a chain at once
 * @chain: as for la_chain_destroy(); stays usable
 *
 * Cost: proportional to the chain's macro blocks, not to its blocks. No destructor runs (see group.h).
 * Threads: nobody else may use the chain or its blocks during the call.
 *
 * Return: 0, or -EINVAL (a thread's own chain).
 */
LA_API int la_chain_reset(struct la_chain *chain);

/**
 * la_chain_pin() - a chain draws from one NUMA node, wherever its thread runs
 * @chain: made by la_chain_create() over a source that tells nodes apart (source.h: acquire_on; segments/supply.h: per_node), and without
 *         memory: before its first allocation, or after la_chain_reset()
 * @node:  -1: from the node its thread runs on, as it is without this call
 *
 * What happens when the node is full is the source's affair. Threads: to be called by the chain's user.
 *
 * Return: 0, -EINVAL (no such node, not a chain of la_chain_create()), -ENOTSUP (its source does not tell nodes apart), -EBUSY (it has memory).
 */
LA_API int la_chain_pin(struct la_chain *chain, int node);

/**
 * la_chain_name() - give a chain a name for reports, at most 31 bytes are kept
 */
LA_API void la_chain_name(struct la_chain *chain, const char *name);

/*
 * Allocation from a named chain. Sizes are bytes. All return NULL with errno ENOMEM when the chain's
 * memory is exhausted or the size overflows, EINVAL for an alignment that is no power of two, ENOTSUP for what would write to memory that
 * is a device's only (la_chain_calloc(), la_chain_realloc() when the block has to move; see source.h).
 * A size of 0 gives a block of the smallest class.
 */
LA_API LA_GIVES_BLOCK void *la_chain_alloc(struct la_chain *chain, size_t size);
LA_API LA_GIVES_BLOCK void *la_chain_calloc(struct la_chain *chain, size_t count, size_t size);
LA_API LA_GIVES_BLOCK void *la_chain_aligned_alloc(struct la_chain *chain, size_t alignment, size_t size);
/* The result lies in @chain whenever the block has to move; on failure the old block is untouched. */
LA_API __attribute__((warn_unused_result)) void *la_chain_realloc(struct la_chain *chain, void *block, size_t size);

/*
 * The malloc family on the calling thread's default chain. la_free() accepts blocks of every chain
 * from every thread, and NULL; it keeps errno. A pointer that is no live block is refused, see error.h.
 */
LA_API LA_MALLOC_LIKE void *la_malloc(size_t size);
LA_API LA_MALLOC_LIKE void *la_calloc(size_t count, size_t size);
LA_API LA_MALLOC_LIKE void *la_aligned_alloc(size_t alignment, size_t size);
LA_API __attribute__((warn_unused_result)) void *la_realloc(void *block, size_t size);
LA_API void la_free(void *block);

/** la_usable_size() - bytes that may be used in a live block; 0 for NULL and for a foreign pointer */
LA_API size_t la_usable_size(const void *block);

/* What is known of an address. */
struct la_owner {
    size_t struct_size;         /* in: sizeof(struct la_owner) of the caller */
    struct la_chain *chain;     /* owning chain, NULL when between owners or in another process */
    const char *chain_name;     /* its name, "" when it has none */
    void *block;                /* start of the block around the address, NULL when in no block */
    size_t block_size;          /* usable bytes of that block */
    bool live;                  /* the block is allocated, as far as the calling thread can tell */
    bool shared;                /* the address lies in a shared heap */
    void *segment_base;         /* segment around the address, and its length in bytes */
    size_t segment_size;
};

/**
 * la_owner_of() - look up any address, also in the middle of a block
 * @address: any value; never dereferenced
 * @ret:     filled on success; set @ret->struct_size first
 *
 * Return: 0, -ENOENT (not memory of liballoc), -EINVAL (@ret->struct_size unknown).
 */
LA_API int la_owner_of(const void *address, struct la_owner *ret);

LA_END_DECLS
#endif
