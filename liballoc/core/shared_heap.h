/*
 * shared_heap.h - a shared heap as this process sees it: the mapping and the private views of its pages. Its lanes: lane.h.
 */
#ifndef CORE_SHARED_HEAP_H
#define CORE_SHARED_HEAP_H

#include "core/pool.h"
#include "core/shared.h"
#include "core/shared_layout.h"
#include "core/thread.h"

enum { MAX_HEAPS = 16 };

struct lane;

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

/* Finish or undo what a lane of a dead process was doing. */
void lane_resolve_intent(struct la_heap *heap, struct heap_lane *lane, unsigned number, struct la_obituary *obituary);

/* A slot's owner holds its certificate. */
bool heap_process_is_alive(struct la_heap *heap, unsigned slot);

/* A process's or a root's name of at most @size bytes, safe to print: anybody who writes to the heap can write it. */
void heap_copy_text(char *to, const char *from, size_t size);

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

/* A child of fork() still has its parent's handles, and nothing behind them: 0, or -ECHILD. For calls that are rare. */
int heap_check_attached(const struct la_heap *heap);

/* What an attachment may ask for: 0, or -EINVAL. */
int heap_check_flags(unsigned flags);

bool heap_link_is_valid(const struct la_heap *heap, const void *link);

#endif
