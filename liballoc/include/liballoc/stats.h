/*
 * stats.h - how much memory is where. All sizes are bytes.
 */
#ifndef LIBALLOC_STATS_H
#define LIBALLOC_STATS_H

#include <stdint.h>
#include <stdio.h>

#include <liballoc/chain.h>

LA_BEGIN_DECLS

struct la_stats {
    size_t struct_size;             /* in: sizeof(struct la_stats) of the caller */
    uint64_t blocks;                /* live blocks */
    uint64_t allocated;             /* bytes of live blocks, rounded to their size class */
    uint64_t cached;                /* bytes of free blocks that the chain keeps: bins and pages */
    uint64_t mapped;                /* bytes of macro blocks and huge blocks the chain holds */
    uint64_t allocations;           /* blocks handed out so far; exact with LA_CHAIN_STATS, else about: taken from pages, less what
                                       bins hold now */
    uint64_t remote_frees;          /* blocks that came back through the remote free queue */
    uint64_t macro_blocks;          /* macro blocks held */
    uint64_t huge_blocks;           /* live blocks with a mapping of their own */
    uint64_t requested;             /* bytes asked for in live blocks; only chains with LA_CHAIN_STATS count them */
    uint64_t frees;                 /* blocks freed so far, also those still in a queue; the same */
};

/**
 * la_chain_stats() - one chain's figures
 * @chain: NULL: the calling thread's own chain
 * @ret:   filled; set struct_size first
 *
 * Threads: called by the chain's user while nobody else allocates, all is exact but what is said above, with blocks that wait in the
 * remote free queue still counted in @ret->blocks and @ret->allocated; else a snapshot.
 * Return: 0, -EINVAL.
 */
LA_API int la_chain_stats(struct la_chain *chain, struct la_stats *ret);

/** la_process_stats() - the sum over all chains of the process; @ret->cached also counts the sources' */
LA_API int la_process_stats(struct la_stats *ret);

/**
 * la_heap_check() - verify every invariant of the process's chains, sources and region map
 * @report: called with one line per finding, NULL: only count
 *
 * Threads: chains of other running threads are checked only as far as that is safe.
 * Return: number of findings, 0 when all is well.
 */
LA_API unsigned la_heap_check(void (*report)(void *user, const char *line), void *user);

/** la_chain_check() - the same for one chain, to be called by its user */
LA_API unsigned la_chain_check(struct la_chain *chain, void (*report)(void *user, const char *line), void *user);

/** la_dump() - write a readable picture of all chains to @fd, without allocating. Return: 0 or a negative errno. */
LA_API int la_dump(int fd);

LA_END_DECLS
#endif
