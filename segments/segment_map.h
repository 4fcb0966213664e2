/*
 * segment_map.h - which extent is this address in? Two loads, no lock, at any number of extents.
 */
#ifndef SEGMENTS_SEGMENT_MAP_H
#define SEGMENTS_SEGMENT_MAP_H

#include <stdatomic.h>

#include <segments/find.h>

#include "base/util.h"

enum { MAP_GRANULE_SHIFT = 21, MAP_LEAF_SHIFT = 34, MAP_ADDRESS_BITS = 48 };

/* A registrar's key, but for the handle, which devices and peers have no use for. */
struct map_key {
    struct seg_registrar *registrar;    /* NULL: no more keys */
    uint64_t local, remote, device;
};

/* What lookups copy, word by word; changed only while the extent is hidden. */
struct map_answer {
    uintptr_t base;
    size_t size, page_size;
    uint64_t generation;
    uint64_t file_offset;
    struct seg_supply *supply;
    uint32_t capabilities;
    int32_t node, fd;
    uint32_t reserved;
    struct map_key keys[SEG_REGISTRARS_MAX];
    void *handles[SEG_REGISTRARS_MAX];
};

struct map_record;

/*
 * What seg_key_of() reads, in one cache line, and the cells of all extents side by side: with 16,384 of them records alone would be
 * more pages than a processor has TLB entries.
 */
struct map_cell {
    _Alignas(64) _Atomic(uint64_t) sequence;    /* even: shown, and the extent's generation; odd: hidden */
    uintptr_t base;
    size_t size;
    struct map_record *record;                  /* the same for ever */
    struct map_key first;                       /* of the first registrar */
};

_Static_assert(sizeof(struct map_cell) == 64, "one cache line");

/* One extent. Cells and records are used for nothing else, so that a late reader reads some extent. */
struct map_record {
    struct map_cell *cell;          /* the same for ever */
    struct map_answer answer;
    struct seg_extent extent;       /* the rest is the supply's, under its lock */
    struct seg_key keys[SEG_REGISTRARS_MAX];
    struct map_record *next;        /* of the supply, or free */
    uint32_t source;                /* which of the supply's */
    uint32_t node;                  /* NUMA node that it was asked for, 0 where nodes are not told apart */
    uint32_t attached;              /* registrars that have attached, of the first ones */
    bool quarantined;
};

/* Hidden, all else zero; NULL: out of memory. */
struct map_record *map_record_new(void);
void map_record_free(struct map_record *record);

/*
 * Enter a hidden record for [base, base + size): nobody else can have a byte of it from now on, and showing it cannot fail.
 * Return: 0, -EEXIST (overlaps another record), -EINVAL (beyond 48 bits), -ENOMEM.
 */
int map_enter(struct map_record *record, uintptr_t base, size_t size);
void map_leave(struct map_record *record);

/* What is around @address now; false: nothing. Leaves no sentence. */
bool map_read(uintptr_t address, struct map_answer *ret);

void map_show(struct map_record *record, const struct map_answer *answer);
void map_hide(struct map_record *record);

#endif
