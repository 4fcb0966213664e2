/*
 * huge.h - blocks above one macro block: a mapping of their own (R9).
 */
#ifndef CORE_HUGE_H
#define CORE_HUGE_H

#include "core/types.h"

/* @size bytes for @chain; NULL: out of memory. *zeroed is set when the block is known to read as zero. */
void *huge_alloc(struct la_chain *chain, size_t size, size_t alignment, bool *zeroed);

/* By any thread. */
void huge_free(struct la_page *page);

/* Make the block @size bytes long, in place or by moving pages; its new address, or NULL: copy it. By the block's user. */
void *huge_resize(struct la_page *page, size_t size);

/* What the cache keeps goes back to the system; bytes. */
size_t huge_trim(void);
size_t huge_cached_bytes(void);

/* Huge blocks of an ending chain: to the orphan, or freed. */
void huge_orphan(struct la_chain *chain);
void huge_free_all(struct la_chain *chain);

/*
 * A block for a signal handler that interrupted an allocation: takes no lock but for a new leaf of the region map, belongs to
 * no chain, goes back to the system when it is freed.
 */
void *huge_alloc_detached(size_t size);

/* The huge block around @address, also in its middle; for reports. */
struct la_page *huge_around(const void *address);

void huge_fork_prepare(void);
void huge_fork_done(bool child);

#endif
