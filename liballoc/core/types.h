/*
 * types.h - the map of the engine: every struct of private memory, how they nest, the equations that tie them.
 *
 *   source  ──has──►  segment  ──cut into──►  macro block (2 MiB)  ──of 32──►  slices (64 KiB)
 *     ▲                                             │ owned by                     │ one to 32 make
 *     └───── takes and gives macro blocks ────── chain ◄──────── owns ─────────  page (blocks of one class,
 *                                                  │                                   or one large block)
 *                                                  └─ bin per size class: pointers to free blocks, last in first out
 *
 * A block is free in exactly one place: a bin of its chain; the list or the untouched tail of its page; a
 * remote free queue, or a batch that some thread gathers for one. Then:
 *
 *   E1  page->used + page->free_count + (page->capacity - page->bump) == page->capacity
 *       (used: live blocks, blocks in bins, in queues and in batches)
 *   E2  a page is on chain->avail[class] exactly while free_count > 0 or bump < capacity, and its kind is SMALL
 *   E3  macro->free_slices and the slices of the macro's pages are disjoint and together are macro->all_slices
 *   E4  a macro block with free slices is on chain->by_run[longest run of free slices], and run_mask has that bit
 *   E5  region map: entry[address >> 16] is the head page of the slice while the page lives, else NULL
 *   E6  only the owner of page->chain writes the owner's fields; page->chain changes under the source's lock
 *
 * Metadata lies in the segment's header, apart from payload (R3). Private segments hold absolute pointers: no other
 * process ever maps them. Shared heaps keep their truth in position-independent words (core/shared.h, R2, R10) and use
 * struct la_page only as this process's private view.
 */
#ifndef CORE_TYPES_H
#define CORE_TYPES_H

#include <stdatomic.h>

#include <liballoc/chain.h>
#include <liballoc/source.h>

#include "base/list.h"
#include "base/lock.h"
#include "base/util.h"

enum {
    SLICE_SHIFT = 16,           /* of segments from 2 MiB on; smaller user buffers use smaller slices (R7) */
    SLICES_PER_MACRO = 32,      /* one bit each in a uint32_t */
    MIN_SLICE_SHIFT = 9,
};
#define SLICE_SIZE ((size_t)1 << SLICE_SHIFT)
#define MACRO_SIZE (SLICE_SIZE * SLICES_PER_MACRO)

/* Small classes: 8, 16, 32, 48 .. 128 by 16, then eight per doubling up to 32 KiB. See size_class.c. */
enum { SMALL_CLASSES = 9 + 8 * 8 };
#define SMALL_MAX ((size_t)32 << 10)
/* Above, a class for each number of slices up to a macro block's: runs, each a page with one block (PAGE_LARGE). They have bins, too. */
enum { RUN_CLASSES = SLICES_PER_MACRO, BIN_CLASSES = SMALL_CLASSES + RUN_CLASSES };
/* Sizes up to this find their class in a table. */
#define TABLE_MAX ((size_t)1 << 10)

struct la_chain;
struct la_macro;
struct la_segment;

/*
 * The hot end of a size class: a stack of pointers to free blocks.
 *   top:  the youngest entry; below the first entry lies one that is never free (&la_no_block carries no mark): an empty bin needs
 *         no test of its own
 *   last: the last place; top == last: full
 * Written by the chain's user only.
 */
struct la_bin {
    void **top;
    void **last;
};

/* The cold end: where the stack lies, how much it may hold. */
struct la_bin_room {
    void **base;            /* holds the one that is never free; entries follow */
    uint32_t capacity;      /* entries; 0: the chain has no bin for this class */
    uint32_t refills;       /* since the last flush: a bin that is refilled and flushed in turn grows */
    void **idle_top;        /* top at the last visit of the scavenger */
};

/*
 * Out of band, a second stack runs beside the first: where the state word of each entry is. Apart, as the block's address is known
 * before the word's: one entry that holds both would make each allocation wait for the free before it.
 */
struct la_bin_words {
    _Alignas(16) ptrdiff_t distance;    /* bytes from an entry to its word's; by the offset of the bin */
};

_Static_assert(sizeof(struct la_bin_words) == sizeof(struct la_bin), "one offset leads to both");

enum la_page_kind {
    PAGE_NONE = 0,      /* free slice, or not the first of its page */
    PAGE_SMALL,         /* blocks of one class */
    PAGE_LARGE,         /* one block of 1 to 32 slices */
    PAGE_HUGE,          /* one block with a mapping of its own, or a run of macro blocks in a user segment */
    PAGE_WINDOW,        /* not a page: several small segments share this 64 KiB window, see region_map.c */
    PAGE_SHARED,        /* a slice of a shared heap: the truth is in the heap, see core/shared.h */
    PAGE_LANE,          /* the same, with small blocks of a lane of this process: its view, see core/shared_fast.h */
};

/*
 * One per slice; the one of a page's first slice speaks for the page. The first line is read by free() in any
 * thread while the block is live; the rest belongs to the owner.
 */
struct la_page {
    _Alignas(64) _Atomic(struct la_chain *) fast_chain;     /* owner, if its blocks may be freed by the fast path; else NULL */
    uintptr_t start;            /* address of the first block */
    uint64_t divisor;           /* UINT64_MAX / block_size + 1: tells multiples of block_size, see page.h */
    uint16_t bin_offset;        /* of the bin in struct la_chain, in bytes */
    uint8_t kind;               /* enum la_page_kind */
    uint8_t size_class;         /* of PAGE_SMALL and, by its slices, of PAGE_LARGE */
    uint32_t block_size;        /* of PAGE_SMALL, bytes */
    _Atomic(struct la_chain *) chain;       /* owner; the source's orphan chain between owners */
    size_t large_size;          /* usable bytes of the one block of PAGE_LARGE and PAGE_HUGE */
    struct la_macro *macro;
    void *mapping;              /* PAGE_HUGE: where the mapping starts, mapping_size long; SMALL, LARGE: the shadow of blocks, NULL: in band */

    union {
        void *free;             /* list of free blocks, linked through the blocks */
        uint64_t free_bits;     /* of a page of few blocks (page_has_bits()): bit i, block i is free */
    };
    uint32_t free_count;        /* length of that list, bits set; of PAGE_HUGE: the NUMA node that its mapping was made on */
    uint32_t used;              /* see E1 */
    uint32_t capacity;          /* blocks that fit */
    uint32_t bump;              /* blocks handed out at least once; the ones above were never touched */
    struct la_page *next, *prev;    /* on chain->avail[], or the list of huge blocks; LARGE: its shadow, if it has one */
    uint16_t slices;            /* length of the page */
    uint16_t listed;            /* on a list */
    size_t mapping_size;
};

_Static_assert(sizeof(struct la_page) == 128, "two cache lines, and 32 of them are one page of metadata");

/* A macro block: 32 slices that change hands together. Owner's fields, but for the lists of the source. */
struct la_macro {
    struct la_segment *segment;
    struct la_chain *chain;         /* owner, NULL: free in the source, orphan: abandoned */
    struct la_macro *next, *prev;   /* on chain->by_run[], or a list of the source */
    struct la_macro *chain_next, *chain_prev;   /* on chain->macros */
    uint32_t free_slices;           /* bit i: slice i is in no page */
    uint32_t all_slices;            /* bit i: slice i exists (the last macro block of a user buffer may be short) */
    uint32_t index;                 /* in the segment */
    uint8_t run;                    /* list of by_run[] it is on, 0: none */
    uint8_t state;                  /* enum la_macro_state */
    uint8_t dirty;                  /* its pages may be resident */
    uint64_t freed_at;              /* ms, while free in the source */
};

enum la_macro_state { MACRO_FREE, MACRO_OWNED, MACRO_ABANDONED, MACRO_RUN, MACRO_RETIRED };

/* One contiguous range of memory. It lies, with all its descriptors, at the front of the range, or apart from it. */
struct la_segment {
    struct la_source *source;
    struct la_segment *next;        /* of the source */
    uintptr_t base, size;           /* the whole range, bytes */
    uintptr_t first;                /* address of slice 0 */
    size_t usable;                  /* bytes from there on */
    uint32_t slice_shift;
    uint32_t slice_count;
    uint32_t macro_count;
    uint32_t node;                  /* whose macro blocks they are: index into source->nodes */
    size_t apart;                   /* bytes of the mapping that it lies in; 0: in front of its range */
    struct la_page *pages;          /* [slice_count] */
    struct la_macro *macros;        /* [macro_count] */
};

/* Blocks of other chains, gathered by a thread that frees them: one push per batch (R5). */
struct la_remote_batch {
    struct la_chain *owner;
    void *head, *tail;
    uint32_t count;
};

enum { REMOTE_BATCHES = 4, REMOTE_BATCH_MAX = 128 };

enum la_chain_kind {
    CHAIN_NONE = 0,     /* what a thread has before its first allocation */
    CHAIN_THREAD,       /* a thread's own */
    CHAIN_USER,         /* made by la_chain_create*() */
    CHAIN_ORPHAN,       /* a source's: owner of abandoned macro blocks */
    CHAIN_HEAP,         /* face of a shared heap: finds the calling thread's lane */
    CHAIN_LANE,         /* one lane's pool in a shared heap */
};

/*
 * Where a page's free blocks are listed: by words in them or in their shadow (page.h, pool.c), or by state words in a shared heap
 * (shared_pool.c). The one thing in which kinds of memory differ (R1); called on slow paths only.
 */
struct la_pool_ops {
    struct la_page *(*page_of)(struct la_chain *chain, void *block);
    /* @block leaves the bin for a user; false: it is no free block (reported), take another. */
    bool (*hand_out)(struct la_chain *chain, void *block);
    void (*enter)(struct la_page *page, void *block, void **entry);     /* @block goes into the bin, there */
    unsigned (*take)(struct la_chain *chain, struct la_page *page, void **out, unsigned wanted);
    bool (*put)(struct la_page *page, void *block);
    bool (*page_made)(struct la_chain *chain, struct la_page *page);    /* it has blocks from now on; false: cannot be */
    void (*page_given)(struct la_chain *chain, struct la_page *page);   /* before its slices are free */
    bool (*take_macro)(struct la_chain *chain, unsigned c, unsigned slices);
    void (*give_macro)(struct la_chain *chain, struct la_macro *m);
    void (*slow_call)(struct la_chain *chain);      /* frees of others are taken in */
};

/* What fork() does about the lock of a thread-safe chain. */
enum chain_forking { FORK_UNLOCKED, FORK_LOCKED, FORK_IN_PIECES };

/*
 * An allocation chain. Everything is written by its user (one thread, or whoever holds the lock of a thread-safe
 * chain), except remote and the fields said otherwise.
 */
struct la_chain {
    struct la_bin fast[BIN_CLASSES];    /* first: the size table holds offsets into it */
    const struct la_pool_ops *ops;
    struct la_bin *bins;                /* fast, or for chains that the fast path must not serve: hidden */
    _Atomic(const void *) user;         /* of CHAIN_LANE: its thread (thread_self()), NULL while in a slow path; else NULL */
    struct la_bin_room *rooms;          /* NULL: no bins, every block comes from its page */
    struct la_bin_words *words;         /* of CHAIN_LANE, else NULL */
    struct la_page *avail[SMALL_CLASSES];       /* E2 */
    struct la_macro *by_run[SLICES_PER_MACRO + 1];  /* E4 */
    uint64_t run_mask;
    struct la_macro *macros;            /* all of them */
    struct la_source *source;
    struct la_segment *segment;         /* of a chain over a user buffer, else NULL */
    struct la_remote_batch batches[REMOTE_BATCHES];
    uint8_t kind;                       /* enum la_chain_kind */
    uint8_t flags;                      /* enum la_chain_flags */
    uint8_t policy;                     /* of CHAIN_LANE: enum la_policy */
    uint32_t scavenge_at;               /* next class to visit */
    uint32_t slow_calls;
    uint32_t macro_count;
    uint32_t slice_shift;               /* of its segments */
    uint32_t pinned;                    /* to this NUMA node, plus one; 0: draws from the node its thread runs on */
    struct la_lock lock;                /* LA_CHAIN_MT */
    uint8_t forking;                    /* enum chain_forking */

    _Alignas(64)
    /* Remote free queue. Pushed by any thread, emptied whole by the chain's user: no ABA. */
    _Atomic(void *) remote;
    void *draining;                     /* the rest of what its user has taken from there */
    _Atomic(uint32_t) dead;             /* set under the source's lock: nobody empties the queue any more */
    _Atomic(uint32_t) default_users;    /* threads that have it as default */

    _Alignas(64)
    /* Statistics. Counted on slow paths; the fast path is derived from bins (stats.c). */
    uint64_t taken;                     /* blocks moved from pages into bins, or straight out */
    uint64_t large_allocated;           /* large and huge blocks handed out, ever */
    uint64_t large_live, large_bytes;   /* live or in bins; bytes of their slices */
    _Atomic(uint64_t) huge_live, huge_mapped;   /* huge blocks may be freed by any thread */
    _Atomic(uint64_t) remote_frees;
    _Atomic(uint64_t) requested, counted_allocations, counted_frees;    /* of LA_CHAIN_STATS, see counted.h */
    struct la_list all;                 /* of every chain of the process; under chains_lock */
    void *owner_data;                   /* lane, group: whoever stands on top */
    void *meta;                         /* block of the metadata allocator that holds this chain, or NULL */
    size_t meta_size;
    char name[32];
};

/* What a source has for the chains of one NUMA node. */
struct la_source_node {
    struct la_macro *free_dirty, *free_clean;   /* free macro blocks: maybe resident, surely not */
    struct la_macro *abandoned;                 /* of ended threads, with live blocks */
    size_t next_segment;                        /* bytes to ask for next */
};

/* Source: macro blocks for chains. Everything under its lock. */
struct la_source {
    struct la_lock lock;
    struct la_lock grow_lock;                   /* held, alone, while its owner is asked for memory */
    struct la_source_ops ops;
    void *self;
    struct la_segment *segments;
    struct la_source_node *nodes;               /* [node_count]: &all_nodes where nodes are not told apart */
    struct la_source_node all_nodes;
    _Atomic(uint32_t) node_count;               /* never falls */
    _Atomic(bool) knows_nodes;                  /* node_count is of this machine, or of a user's operations */
    size_t mapped, limit;                       /* bytes of segments; limit 0: none */
    _Atomic(size_t) outside;                    /* bytes of huge blocks' own mappings, in use or cached; count against the limit */
    size_t dirty_bytes;                         /* of every free_dirty */
    uint32_t users;                             /* chains */
    _Atomic(bool) replaced;                     /* the default source grows by a user's operations */
    bool fixed;                                 /* a user buffer: one segment, never grows */
    bool forking;                               /* its lock is held for fork() */
    uint32_t forks;                             /* la_forks when it was made */
    struct la_chain *dead;                      /* ended chains whose queue may still receive blocks */
    _Atomic(uint32_t) dead_hint;                /* a dead chain's or the orphan's queue is not empty */
    struct la_chain *orphan;                    /* owner of what is on abandoned */
};

extern HIDDEN __thread struct la_chain *la_tls_default;     /* never NULL */
extern HIDDEN __thread struct la_chain *la_tls_own;         /* NULL before the first allocation */
extern HIDDEN __thread struct slow_path *la_tls_slow;       /* the slow path that is running: see thread.h */
/* Which thread is this? An address that no other living thread has. */
static inline const void *thread_self(void)
{
#if defined(__x86_64__) && !defined(__ILP32__)
    const void *self;

    /* The thread pointer, which lies at itself: one load. */
    __asm__("movq %%fs:0, %0" : "=r"(self));
    return self;
#else
    return &la_tls_slow;
#endif
}

/* How many forks lie between this process and the first of its kind; changes in children only, before they have threads. */
extern HIDDEN uint32_t la_forks;

/* Its memory stayed with the parent: descriptors are there, blocks and what is written in them are not. */
static inline bool source_is_lost(const struct la_source *source)
{
    return source && unlikely(source->ops.flags & LA_SOURCE_NOT_INHERITED) && source->forks != la_forks;
}

/* The processor must not touch its blocks: what the engine has to say of them is in their shadow. */
static inline bool chain_is_device_only(const struct la_chain *chain)
{
    return chain->source && (chain->source->ops.flags & LA_SOURCE_DEVICE_ONLY);
}

/* The page's truth is in a shared heap. */
static inline bool page_is_shared(const struct la_page *page)
{
    return page->kind >= PAGE_SHARED;
}

extern HIDDEN struct la_chain la_chain_none;                /* every bin empty: sends the first call to the slow path */
extern HIDDEN uint64_t la_no_block;                         /* never the mark: what an empty bin reads */
extern HIDDEN _Atomic(uint32_t) la_no_word;                 /* never FREE: the word that an empty bin reads */
extern HIDDEN void *la_closed_stack[1];                     /* what bins without room point to */
extern HIDDEN uint64_t la_free_mark;                        /* secret in the first word of free blocks, see page.h */

#endif
