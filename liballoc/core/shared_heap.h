/*
 * shared_heap.h - a shared heap as this process sees it: the mapping, its lanes, the private views of its pages.
 */
#ifndef CORE_SHARED_HEAP_H
#define CORE_SHARED_HEAP_H

#include "core/pool.h"
#include "core/shared.h"
#include "core/shared_layout.h"
#include "core/thread.h"

enum { MAX_HEAPS = 16 };

/* A lane lent to a thread: its chain over the heap. Private memory. */
struct lane {
    struct la_chain chain;      /* first; kind CHAIN_LANE, owner_data: this */
    struct la_bin_words words[SMALL_CLASSES];
    struct la_heap *heap;
    struct lane *next;          /* heap->lanes */
    struct la_bundle *bundle;
    unsigned number;            /* in the heap */
    uint32_t incarnation;
    uint32_t sweep_at;          /* macro block whose hints are looked at next */
    uint32_t restarts_seen;     /* of la_tls_restarts: what those may have left out of their bins is found */
    bool idle;                  /* no thread has it */
    /* trail.h: its row (NULL: no memory for it), the entry written last, the state word of the block of each. */
    struct heap_trail *trail;
    unsigned trail_at;
    _Atomic(word_t) *trail_word[TRAIL_ENTRIES];
    /* Marks: there may be some; words that may be looked at; where to go on; macro blocks without a mark in a row. */
    bool has_marks;
    int earned;
    uint32_t wipe_macro, wipe_slice, rounds_without;
    _Alignas(64) char bins[];
};

struct la_heap {
    struct la_chain face[2];    /* by enum la_policy; kind CHAIN_HEAP, owner_data: this */
    struct la_page page;        /* PAGE_SHARED, in the region map for slices of the heap */
    int fd;                     /* carries the death certificate */
    unsigned flags;
    unsigned index;             /* in the table of heaps */
    uint32_t serial;            /* of attachments in this process: tells old thread-local lanes */
    unsigned process;           /* our slot */
    char *base;
    size_t size;
    size_t page_size;           /* of the file */
    uint64_t device, inode;
    struct heap_header *header;
    struct heap_process *processes;
    struct heap_lane *lane_table;
    struct heap_root *roots;
    struct heap_notice *notices;
    struct heap_trail *trail;
    _Atomic(uint8_t) *marks;
    _Atomic(uint8_t) *marks_of_addresses;   /* that of a block: at its address >> SLICE_SHIFT */
    struct heap_macro *macros;
    struct heap_slice *slices;
    char *payload;
    uint32_t macro_count;
    _Atomic(uint32_t) none_abandoned_at;    /* header->abandoned when a search for abandoned macro blocks found none */
    struct la_segment segment;  /* private view: descriptors of macro blocks and pages that our lanes own */
    void *view;                 /* memory of those descriptors */
    size_t view_size;
    struct la_lock lock;        /* lanes, attach and detach of threads */
    struct la_lock recovering;
    struct lane *lanes;
};

/* Of readers there is any number: they share one byte, behind those of the process slots. Their heap->process is this. */
enum { READERS_SLOT = LA_HEAP_MAX_PROCESSES };

/* Macro blocks whose rows in the tables are committed. Acquire: pairs with macro_commit_rows(). Never more than there are, whatever the heap says. */
static inline uint32_t heap_rows(const struct la_heap *heap)
{
    uint32_t rows = atomic_load_explicit(&heap->header->rows, memory_order_acquire);

    return MIN(rows, heap->macro_count);
}

/* Lanes that anybody may have or have had are below. Never more than there are. */
static inline unsigned heap_lanes(const struct la_heap *heap)
{
    unsigned lanes = atomic_load_explicit(&heap->header->lanes, memory_order_acquire);

    return MIN(lanes, (unsigned)HEAP_LANES);
}

/* Made of huge pages. */
bool heap_is_huge(const struct la_heap *heap);

/* Attached for reading only; reported, as -EROFS. */
bool heap_is_read_only(const struct la_heap *heap);

/* The heap around an address, attached in this process; NULL: none. */
struct la_heap *heap_around(const void *address);

/* The calling thread's lane in @heap, lent now if need be; NULL: none left or out of memory. */
struct lane *heap_lane(struct la_heap *heap);

/* Which lane the thread has in each heap of the table; the serial tells lanes of a heap that was detached. */
struct thread_lane {
    struct lane *lane;
    uint32_t serial;
    struct la_bin *hot;         /* of la_tls_lane: the bin that it freed into last. A guess, see guess_bin() */
};

extern HIDDEN __thread struct thread_lane la_tls_lanes[MAX_HEAPS];
/* The one it used last; serial 0: none, or the thread is in a slow path of it. */
extern HIDDEN __thread struct thread_lane la_tls_lane;

/* The same, but NULL if it has none. */
static inline struct lane *heap_lane_if_any(const struct la_heap *heap)
{
    const struct thread_lane *mine = &la_tls_lanes[heap->index];

    return likely(mine->serial == heap->serial) ? mine->lane : NULL;
}

/*
 * Around everything that works on a lane's bins and pages: a signal handler that comes in between finds the lane's fast paths closed, and
 * its frees go the way of another lane's. chain.user == NULL says that it is at work.
 */
static inline void lane_enter(struct lane *lane, struct slow_path *slow)
{
    slow_begin(slow);
    atomic_store_explicit(&lane->chain.user, NULL, memory_order_relaxed);
    la_tls_lane.serial = 0;
    atomic_signal_fence(memory_order_seq_cst);
}

static inline void lane_leave(struct lane *lane, struct slow_path *slow)
{
    atomic_signal_fence(memory_order_seq_cst);
    la_tls_lane = (struct thread_lane){ .lane = lane, .serial = lane->heap->serial };
    atomic_store_explicit(&lane->chain.user, thread_self(), memory_order_relaxed);
    slow_end(slow);
}

/* Finish or undo what a lane of a dead process was doing. */
void lane_resolve_intent(struct la_heap *heap, struct heap_lane *lane, unsigned number, struct la_obituary *obituary);

/* A slot's owner holds its certificate. */
bool heap_process_is_alive(struct la_heap *heap, unsigned slot);

int heap_check_name(const char *name);

/* A process's name as it wrote it, safe to print: others can write it, too. */
void heap_copy_command(char to[16], const char from[16]);

/* Recover process slot @slot, whose certificate byte the caller holds. */
void heap_recover_process(struct la_heap *heap, unsigned slot, struct la_obituary *obituary);

static inline uint64_t heap_offset(const struct la_heap *heap, const void *p)
{
    return (uint64_t)((const char *)p - heap->base);
}

static inline bool heap_contains(const struct la_heap *heap, const void *p)
{
    return (uintptr_t)p - (uintptr_t)heap->payload < (uintptr_t)(heap->base + heap->size) - (uintptr_t)heap->payload;
}

/* An invariant of the heap is broken: nothing is allocated from it any more. */
void heap_quarantine(struct la_heap *heap, const char *what);

bool heap_link_is_valid(const struct la_heap *heap, const void *link);

#endif
