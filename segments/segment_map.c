/*
 * segment_map.c - address -> extent.
 *
 *     address  | 47 ........ 34 | 33 ........ 21 | 20 ... 0 |
 *                     |                 |           ignored
 *                     v                 v
 *     roots[16384] -> leaf: entry[8192] -> cell, or (tagged) a window, or none
 *                     (64 KiB each, covers 16 GiB, made on first use, never freed)
 *
 * A window holds the cells of a granule of 2 MiB that several small extents share. Measured before it was chosen: a binary search over 16,384
 * extents takes 70 to 365 ns, this 5 (most of it cache misses).
 *
 * I1  A record is entered in all granules that it touches, from map_enter() to map_leave().
 * I2  Entered records do not overlap.
 * I3  Leaves, windows, cells and records are never unmapped and never become something else; so a reader that comes late reads a cell that
 *     does not cover its address, or one whose sequence has moved, never memory of others.
 * I4  A cell and its record's answer change only while the sequence is odd. A reader compares the sequence before and after; no value comes twice.
 *
 * Locking: writers under vspace_lock(); readers none.
 * Cost: 128 KiB of .bss (touched page by page), 4 MiB per TiB of extents.
 */
#include "segments/segment_map.h"

#include <errno.h>
#include <string.h>

#include <liballoc/error.h>

#include "base/error.h"
#include "os/os.h"
#include "os/vspace.h"

enum { ROOTS = 1 << (MAP_ADDRESS_BITS - MAP_LEAF_SHIFT), LEAF_ENTRIES = 1 << (MAP_LEAF_SHIFT - MAP_GRANULE_SHIFT), WINDOW_CELLS = 14 };

/* Room for a few of them at a time. */
enum { SLAB_SIZE = 64 << 10 };

typedef _Atomic(uintptr_t) entry_t;

struct leaf {
    entry_t entry[LEAF_ENTRIES];
};

struct window {
    _Atomic(struct map_cell *) cell[WINDOW_CELLS];
    _Atomic(struct window *) next;      /* more of the same granule; also of the list of free ones */
};

static _Atomic(struct leaf *) roots[ROOTS];
static struct map_record *free_records;
static struct map_cell *free_cells;
static struct window *free_windows;
static _Atomic(uint64_t) last_generation;       /* even */

/* ---- memory; under the lock ---- */

static void *slab_of(size_t size, void (*put)(void *))
{
    char *slab = os_map(SLAB_SIZE);

    for (size_t at = 0; slab && at + size <= SLAB_SIZE; at += size)
        put(slab + at);
    return slab;
}

static void put_cell(void *p)
{
    struct map_cell *cell = p;

    cell->record = (struct map_record *)free_cells;     /* until it has one */
    free_cells = cell;
}

static void put_record(struct map_record *record)
{
    record->next = free_records;
    free_records = record;
}

/* A record and its cell, for ever. */
static void pair(void *p)
{
    struct map_record *record = p;

    if (!free_cells && !slab_of(sizeof(struct map_cell), put_cell))
        return;
    record->cell = free_cells;
    free_cells = (struct map_cell *)record->cell->record;
    record->cell->record = record;
    put_record(record);
}

static void put_window(void *p)
{
    struct window *w = p;

    atomic_store_explicit(&w->next, free_windows, memory_order_relaxed);
    free_windows = w;
}

struct map_record *map_record_new(void)
{
    struct map_record *record;
    uint64_t sequence;

    vspace_lock();
    if (!free_records)
        slab_of(sizeof(*record), pair);
    record = free_records;
    if (record)
        free_records = record->next;
    vspace_unlock();
    if (!record)
        return NULL;
    sequence = atomic_load_explicit(&record->cell->sequence, memory_order_relaxed);
    atomic_store_explicit(&record->cell->sequence, sequence | 1, memory_order_relaxed);
    memset(&record->extent, 0, sizeof(*record) - offsetof(struct map_record, extent));
    return record;
}

void map_record_free(struct map_record *record)
{
    vspace_lock();
    put_record(record);
    vspace_unlock();
}

static struct window *window_new(void)
{
    struct window *w;

    if (!free_windows && !slab_of(sizeof(*w), put_window))
        return NULL;
    w = free_windows;
    free_windows = atomic_load_explicit(&w->next, memory_order_relaxed);
    atomic_store_explicit(&w->next, NULL, memory_order_relaxed);
    return w;
}

/* ---- entries; under the lock ---- */

static struct window *window_in(uintptr_t entry)
{
    return entry & 1 ? (struct window *)(entry - 1) : NULL;
}

static entry_t *entry_of(uintptr_t address)
{
    _Atomic(struct leaf *) *root = &roots[address >> MAP_LEAF_SHIFT];
    struct leaf *leaf = atomic_load_explicit(root, memory_order_relaxed);

    if (!leaf) {
        leaf = os_map(sizeof(*leaf));
        if (!leaf)
            return NULL;
        /* Release: publishes the zeroed leaf to find(). */
        atomic_store_explicit(root, leaf, memory_order_release);
    }
    return &leaf->entry[address >> MAP_GRANULE_SHIFT & (LEAF_ENTRIES - 1)];
}

static bool window_put(struct window *w, struct map_cell *cell)
{
    for (;; w = atomic_load_explicit(&w->next, memory_order_relaxed)) {
        for (unsigned i = 0; i < WINDOW_CELLS; i++)
            if (!atomic_load_explicit(&w->cell[i], memory_order_relaxed)) {
                atomic_store_explicit(&w->cell[i], cell, memory_order_release);
                return true;
            }
        if (!atomic_load_explicit(&w->next, memory_order_relaxed)) {
            struct window *more = window_new();

            if (!more)
                return false;
            atomic_store_explicit(&w->next, more, memory_order_release);
        }
    }
}

static bool entry_put(entry_t *entry, struct map_cell *cell)
{
    uintptr_t old = atomic_load_explicit(entry, memory_order_relaxed);
    struct window *w = window_in(old);

    if (!old) {
        /* Release: whoever finds the cell sees its sequence. */
        atomic_store_explicit(entry, (uintptr_t)cell, memory_order_release);
        return true;
    }
    if (!w) {
        w = window_new();
        if (!w)
            return false;
        atomic_store_explicit(&w->cell[0], (struct map_cell *)old, memory_order_relaxed);
        atomic_store_explicit(entry, (uintptr_t)w | 1, memory_order_release);
    }
    return window_put(w, cell);
}

static bool window_drop(struct window *w, const struct map_cell *cell)
{
    bool empty = true;

    for (; w; w = atomic_load_explicit(&w->next, memory_order_relaxed))
        for (unsigned i = 0; i < WINDOW_CELLS; i++) {
            if (atomic_load_explicit(&w->cell[i], memory_order_relaxed) == cell)
                atomic_store_explicit(&w->cell[i], NULL, memory_order_release);
            else if (atomic_load_explicit(&w->cell[i], memory_order_relaxed))
                empty = false;
        }
    return empty;
}

static void entry_drop(entry_t *entry, const struct map_cell *cell)
{
    uintptr_t old = atomic_load_explicit(entry, memory_order_relaxed);
    struct window *w = window_in(old), *next;

    if (old == (uintptr_t)cell) {
        atomic_store_explicit(entry, 0, memory_order_release);
    } else if (w && window_drop(w, cell)) {
        atomic_store_explicit(entry, 0, memory_order_release);
        for (; w; w = next) {
            next = atomic_load_explicit(&w->next, memory_order_relaxed);
            put_window(w);
        }
    }
}

static bool meets(const struct map_cell *cell, uintptr_t base, size_t size)
{
    uintptr_t start = (uintptr_t)cell->record->extent.base;

    return start < base + size && base < start + cell->record->extent.size;
}

static bool is_taken(entry_t *entry, uintptr_t base, size_t size)
{
    uintptr_t value = atomic_load_explicit(entry, memory_order_relaxed);

    if (!(value & 1))
        return value && meets((struct map_cell *)value, base, size);
    for (struct window *w = window_in(value); w; w = atomic_load_explicit(&w->next, memory_order_relaxed))
        for (unsigned i = 0; i < WINDOW_CELLS; i++) {
            struct map_cell *cell = atomic_load_explicit(&w->cell[i], memory_order_relaxed);

            if (cell && meets(cell, base, size))
                return true;
        }
    return false;
}

#define FOR_EACH_GRANULE(a, base, size)                                                                                \
    for (uintptr_t a = align_down(base, (size_t)1 << MAP_GRANULE_SHIFT); a < (base) + (size); a += (size_t)1 << MAP_GRANULE_SHIFT)

static void drop_all(struct map_record *record)
{
    uintptr_t base = (uintptr_t)record->extent.base;

    FOR_EACH_GRANULE(a, base, record->extent.size)
        entry_drop(entry_of(a), record->cell);
}

/* All or nothing. */
static int put_all(struct map_record *record, uintptr_t base, size_t size)
{
    FOR_EACH_GRANULE(a, base, size) {
        entry_t *entry = entry_of(a);

        if (!entry)
            return -ENOMEM;
        if (is_taken(entry, base, size))
            return -EEXIST;
    }
    record->extent.base = (void *)base;
    record->extent.size = size;
    FOR_EACH_GRANULE(a, base, size)
        if (!entry_put(entry_of(a), record->cell)) {
            drop_all(record);
            return -ENOMEM;
        }
    return 0;
}

int map_enter(struct map_record *record, uintptr_t base, size_t size)
{
    int r;

    if (size == 0 || base + size < base || (base + size - 1) >> MAP_ADDRESS_BITS)
        return la_fail(-EINVAL, "%#lx + %zu bytes lies outside of the 48 bits of address that extents have", base, size);
    vspace_lock();
    r = put_all(record, base, size);
    vspace_unlock();
    if (r == -EEXIST)
        return la_fail(r, "%#lx + %zu bytes overlaps an extent that is in use", base, size);
    return r < 0 ? la_fail(r, "no memory for the map of extents") : 0;
}

void map_leave(struct map_record *record)
{
    vspace_lock();
    drop_all(record);
    vspace_unlock();
}

/* ---- answers ---- */

/* Relaxed words: what is torn is thrown away by the sequence. */
static void copy_words(void *to, const void *from, size_t size)
{
    for (size_t i = 0; i < size / sizeof(uintptr_t); i++)
        __atomic_store_n((uintptr_t *)to + i, __atomic_load_n((const uintptr_t *)from + i, __ATOMIC_RELAXED), __ATOMIC_RELAXED);
}

_Static_assert(sizeof(struct map_answer) % sizeof(uintptr_t) == 0, "whole words");

void map_show(struct map_record *record, const struct map_answer *answer)
{
    struct map_answer shown = *answer;
    struct map_cell *cell = record->cell;

    shown.generation = atomic_fetch_add_explicit(&last_generation, 2, memory_order_relaxed) + 2;
    copy_words(&record->answer, &shown, sizeof(shown));
    copy_words(&cell->base, &shown.base, sizeof(cell->base));
    copy_words(&cell->size, &shown.size, sizeof(cell->size));
    copy_words(&cell->first, &shown.keys[0], sizeof(cell->first));
    /* Release: all that is seen by whoever sees the even number. Pairs with the acquire in covers(). */
    atomic_store_explicit(&cell->sequence, shown.generation, memory_order_release);
}

void map_hide(struct map_record *record)
{
    atomic_fetch_or_explicit(&record->cell->sequence, 1, memory_order_acq_rel);
    /* No store of the next answer before the odd number. Pairs with the fence in is_same(). */
    atomic_thread_fence(memory_order_release);
}

static inline bool is_same(struct map_cell *cell, uint64_t sequence)
{
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(&cell->sequence, memory_order_relaxed) == sequence;
}

#define WORD(place) __atomic_load_n(&(place), __ATOMIC_RELAXED)

/* Is @address in the cell's extent, and that shown? *sequence: for is_same() when all is copied. */
static inline bool covers(struct map_cell *cell, uintptr_t address, uint64_t *sequence)
{
    *sequence = atomic_load_explicit(&cell->sequence, memory_order_acquire);
    return !(*sequence & 1) && address - WORD(cell->base) < WORD(cell->size);
}

static NOINLINE struct map_cell *find_in_window(struct window *w, uintptr_t address, uint64_t *sequence)
{
    for (; w; w = atomic_load_explicit(&w->next, memory_order_acquire))
        for (unsigned i = 0; i < WINDOW_CELLS; i++) {
            struct map_cell *cell = atomic_load_explicit(&w->cell[i], memory_order_acquire);

            if (cell && covers(cell, address, sequence))
                return cell;
        }
    return NULL;
}

static inline struct map_cell *find(uintptr_t address, uint64_t *sequence)
{
    struct leaf *leaf;
    uintptr_t entry;

    if (unlikely(address >> MAP_ADDRESS_BITS))
        return NULL;
    leaf = atomic_load_explicit(&roots[address >> MAP_LEAF_SHIFT], memory_order_acquire);
    if (unlikely(!leaf))
        return NULL;
    entry = atomic_load_explicit(&leaf->entry[address >> MAP_GRANULE_SHIFT & (LEAF_ENTRIES - 1)], memory_order_acquire);
    if (unlikely(entry & 1))
        return find_in_window(window_in(entry), address, sequence);
    return likely(entry && covers((struct map_cell *)entry, address, sequence)) ? (struct map_cell *)entry : NULL;
}

static COLD int fail_to_find(const void *address)
{
    return la_fail(-ENOENT, "%p lies in no extent of a supply", address);
}

static COLD int fail_to_match(const void *address)
{
    return la_fail(-ENOKEY, "the extent around %p is not registered with that registrar", address);
}

/* The key of @registrar in @cell's extent; NULL: none. The first is at hand, the others are one line further. */
static inline struct map_key *key_in(struct map_cell *cell, const struct seg_registrar *registrar)
{
    struct map_key *keys = cell->record->answer.keys;

    if (likely(registrar && WORD(cell->first.registrar) == registrar))
        return &cell->first;
    for (int i = 1; i < SEG_REGISTRARS_MAX && registrar; i++)
        if (WORD(keys[i].registrar) == registrar)
            return &keys[i];
    return NULL;
}

int seg_key_of(const void *address, const struct seg_registrar *registrar, struct seg_key_here *ret)
{
    for (;;) {
        struct seg_key_here key = { 0 };
        uint64_t sequence;
        struct map_cell *cell = find((uintptr_t)address, &sequence);
        struct map_key *there = likely(cell) ? key_in(cell, registrar) : NULL;

        if (unlikely(!cell))
            return fail_to_find(address);
        if (likely(there)) {
            size_t offset = (uintptr_t)address - WORD(cell->base);

            key.local = WORD(there->local);
            key.remote = WORD(there->remote);
            key.device = WORD(there->device);
            key.device += key.device ? offset : 0;
            key.bytes = WORD(cell->size) - offset;
            key.generation = sequence;
        }
        if (unlikely(!is_same(cell, sequence)))
            continue;       /* it was given up or made anew meanwhile: look again */
        if (unlikely(!there))
            return fail_to_match(address);
        *ret = key;
        return 0;
    }
}

bool map_read(uintptr_t address, struct map_answer *ret)
{
    for (;;) {
        uint64_t sequence;
        struct map_cell *cell = find(address, &sequence);

        if (!cell)
            return false;
        copy_words(ret, &cell->record->answer, sizeof(*ret));
        if (is_same(cell, sequence))
            return true;
    }
}

int seg_check(const void *address, uint64_t generation)
{
    struct map_answer answer;

    if (map_read((uintptr_t)address, &answer) && answer.generation == generation)
        return 0;
    return la_fail(-ESTALE, "the keys of %p are no more: its extent was given back%s", address,
                   generation ? "" : ", or they never were");
}

int seg_find(const void *address, struct seg_location *ret)
{
    struct map_answer answer;
    struct seg_location l;
    size_t size = ret ? ret->struct_size : 0;

    if (size < offsetof(struct seg_location, capabilities) || size > 4 * sizeof(l))
        return la_fail(-EINVAL, "set struct_size to sizeof(struct seg_location) before the call");
    if (!map_read((uintptr_t)address, &answer))
        return fail_to_find(address);
    l = (struct seg_location){ .struct_size = size, .supply = answer.supply, .base = (void *)answer.base, .size = answer.size,
                               .page_size = answer.page_size, .offset = (uintptr_t)address - answer.base,
                               .capabilities = answer.capabilities, .node = answer.node, .fd = answer.fd,
                               .generation = answer.generation };
    l.file_offset = answer.fd >= 0 ? answer.file_offset + l.offset : 0;
    for (; l.key_count < SEG_REGISTRARS_MAX && answer.keys[l.key_count].registrar; l.key_count++) {
        const struct map_key *key = &answer.keys[l.key_count];

        l.registrars[l.key_count] = key->registrar;
        l.keys[l.key_count] = (struct seg_key){ key->local, key->remote, key->device, answer.handles[l.key_count] };
    }
    memset(ret, 0, size);
    memcpy(ret, &l, MIN(size, sizeof(l)));
    return 0;
}
