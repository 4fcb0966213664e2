/*
 * region_map.c - address -> page descriptor.
 *
 * free(p) is given an address and nothing else. Slices of private and shared segments are 64 KiB and aligned to it,
 * so the map has one entry per 64 KiB of the 48 bit address space, in two levels; an entry is the head page of the
 * slice, so that nothing is left to compute. Against a map of 2 MiB macro blocks this saves six instructions
 * of every free; it costs 8 bytes per 64 KiB in use (1/8192), and 1 MiB of .bss that is touched page by page.
 *
 *     address  | 47 ........ 32 | 31 ........ 16 | 15 ... 0 |
 *                     |                 |           ignored
 *                     v                 v
 *     root[65536] -> leaf: entry[65536] -> struct la_page, or none
 *                     (512 KiB each, covers 4 GiB, made on first use, never freed)
 *
 * User buffers below 2 MiB start anywhere and may share a window with each other or lie inside a block of another chain. Such a
 * window's entry is a struct window: a page of kind PAGE_WINDOW, which no fast path accepts, followed by what shares it.
 *
 * I1  entry != none exactly while a live page or small segment touches the window.
 * I2  A root goes from the empty leaf to one of its own once and never back: readers take no lock.
 * I3  Entries are set when the page's bin is known, before the first block of a page is handed out and cleared after its last is freed. Whoever
 *     holds a live block synchronised with its allocator (else it could not know the address), so relaxed loads see the entry.
 * I4  Windows are rebuilt under map_lock between two increments of window_sequence; readers of a window retry when it
 *     moved. Their memory is recycled for windows only, so that a late reader reads some window, never freed memory.
 */
#include "core/region_map.h"

#include <assert.h>
#include <errno.h>

#include "base/error.h"
#include "core/meta.h"
#include "os/os.h"

struct region la_region;

/* At most this many small segments share one window of 64 KiB; each has at least LA_CHAIN_MIN_SIZE, so 64/16 + 2 at the edges. */
enum { WINDOW_MEMBERS = 6 };

/* With its own copy of the bounds: a neighbour's segment may be unmapped by its user while we look for ours. */
struct member {
    _Atomic(struct la_segment *) segment;       /* NULL: free place */
    _Atomic(uintptr_t) base;
    _Atomic(size_t) size;
};

struct window {
    struct la_page page;                        /* kind PAGE_WINDOW; fast_chain NULL */
    _Atomic(struct la_page *) under;            /* page of another chain that the small segments lie in, or NULL */
    struct member member[WINDOW_MEMBERS];
    struct window *next_free;
};

static struct la_lock map_lock = LOCK_INIT(RANK_REGION);
static _Atomic(unsigned) window_sequence;       /* odd: a window is being changed */
static struct window *free_windows;

static intptr_t distance(const void *to, const void *from)
{
    return (const char *)to - (const char *)from;
}

static struct region_leaf *leaf_at(intptr_t root)
{
    return root ? (struct region_leaf *)((char *)&la_region.empty + root) : NULL;
}

static struct region_leaf *leaf_of(uintptr_t address)
{
    _Atomic(intptr_t) *root = &la_region.root[address >> REGION_LEAF_SHIFT];
    intptr_t seen = atomic_load_explicit(root, memory_order_acquire);
    struct region_leaf *made;

    if (likely(seen != 0))
        return leaf_at(seen);
    made = os_map(sizeof(*made));
    if (!made)
        return NULL;
    /* Release: publishes the zeroed leaf; two threads may race, one leaf wins. */
    if (atomic_compare_exchange_strong_explicit(root, &seen, distance(made, &la_region.empty), memory_order_acq_rel,
                                                memory_order_acquire))
        return made;
    os_unmap(made, sizeof(*made));
    return leaf_at(seen);
}

static _Atomic(intptr_t) *entry_of(uintptr_t address)
{
    struct region_leaf *leaf;

    if (address >> REGION_ADDRESS_BITS)
        return NULL;
    leaf = leaf_of(address);
    return leaf ? &leaf->entry[(uint32_t)address >> SLICE_SHIFT] : NULL;
}

bool region_reserve(uintptr_t start, size_t bytes)
{
    for (uintptr_t root = start >> REGION_LEAF_SHIFT; root <= (start + bytes - 1) >> REGION_LEAF_SHIFT; root++)
        if (root >= REGION_ROOTS || !leaf_of(root << REGION_LEAF_SHIFT))
            return false;
    return true;
}

static struct la_page *entry_get(_Atomic(intptr_t) *entry)
{
    intptr_t seen = atomic_load_explicit(entry, memory_order_relaxed);

    return seen ? (struct la_page *)((char *)&la_region + (seen >> REGION_BIN_BITS)) : NULL;
}

/* Release: whoever finds the page sees its fields. */
static void entry_put(_Atomic(intptr_t) *entry, const struct la_page *page)
{
    uintptr_t made = page ? (uintptr_t)distance(page, &la_region) << REGION_BIN_BITS | page->bin_offset : 0;

    atomic_store_explicit(entry, (intptr_t)made, memory_order_release);
}

/* One window's page changes. When small segments lie in the window, it goes below them. */
static bool set_one(uintptr_t address, struct la_page *page)
{
    _Atomic(intptr_t) *entry = entry_of(address);
    struct la_page *old;

    if (!entry)
        return page == NULL;
    old = entry_get(entry);
    if (unlikely(old && old->kind == PAGE_WINDOW))
        atomic_store_explicit(&((struct window *)old)->under, page, memory_order_release);
    else
        entry_put(entry, page);
    return true;
}

bool region_set(uintptr_t start, size_t slices, struct la_page *page)
{
    for (size_t i = 0; i < slices; i++)
        if (!set_one(start + i * SLICE_SIZE, page)) {
            region_clear(start, i);
            return false;
        }
    return true;
}

void region_clear(uintptr_t start, size_t slices)
{
    for (size_t i = 0; i < slices; i++)
        set_one(start + i * SLICE_SIZE, NULL);
}

static struct la_page *page_in_segment(const struct la_segment *segment, uintptr_t address)
{
    size_t slice;

    if (address < segment->first || address - segment->first >= (size_t)segment->slice_count << segment->slice_shift)
        return NULL;
    slice = (address - segment->first) >> segment->slice_shift;
    /* Go back to the first slice of the page: at most 31 steps. */
    for (size_t back = 0; back < SLICES_PER_MACRO && back <= slice; back++) {
        struct la_page *page = &segment->pages[slice - back];
        if (page->kind != PAGE_NONE)
            return page->slices > back ? page : NULL;
    }
    return NULL;
}

static bool member_has(const struct member *m, uintptr_t address)
{
    return address - atomic_load_explicit(&m->base, memory_order_relaxed) < atomic_load_explicit(&m->size, memory_order_relaxed);
}

static struct la_page *page_in_window(const struct window *w, uintptr_t address)
{
    unsigned before, after;
    struct la_segment *segment;
    struct la_page *page;

    do {
        /* Acquire: the loads below see what the writer stored before it made the sequence even. */
        before = atomic_load_explicit(&window_sequence, memory_order_acquire);
        page = atomic_load_explicit(&w->under, memory_order_acquire);
        segment = NULL;
        for (unsigned i = 0; i < WINDOW_MEMBERS; i++) {
            struct la_segment *s = atomic_load_explicit(&w->member[i].segment, memory_order_acquire);
            if (s && member_has(&w->member[i], address))
                segment = s;
        }
        atomic_thread_fence(memory_order_acquire);
        after = atomic_load_explicit(&window_sequence, memory_order_relaxed);
    } while (before != after || (before & 1));
    return segment ? page_in_segment(segment, address) : page;
}

struct la_page *region_page(const void *p)
{
    struct la_page *page = region_entry(p);

    if ((uintptr_t)p >> REGION_ADDRESS_BITS || page == &la_region.none)
        return NULL;
    if (page->kind == PAGE_WINDOW)
        return page_in_window((struct window *)page, (uintptr_t)p);
    return page;
}

static struct window *window_new(struct la_page *under)
{
    struct window *w = free_windows;

    if (w)
        free_windows = w->next_free;
    else
        w = la_meta_alloc(sizeof(*w));
    if (!w)
        return NULL;
    *w = (struct window){ .page.kind = PAGE_WINDOW };
    atomic_store_explicit(&w->under, under, memory_order_relaxed);
    return w;
}

static int window_insert(uintptr_t address, struct la_segment *segment)
{
    _Atomic(intptr_t) *entry = entry_of(address);
    struct la_page *old;
    struct window *w;

    if (!entry)
        return -ENOMEM;
    old = entry_get(entry);
    w = old && old->kind == PAGE_WINDOW ? (struct window *)old : window_new(old);
    if (!w)
        return -ENOMEM;
    for (unsigned i = 0; i < WINDOW_MEMBERS; i++) {
        struct la_segment *s = atomic_load_explicit(&w->member[i].segment, memory_order_relaxed);
        if (s && s != segment && segment->base < s->base + s->size && s->base < segment->base + segment->size)
            return -EEXIST;
    }
    for (unsigned i = 0; i < WINDOW_MEMBERS; i++)
        if (!atomic_load_explicit(&w->member[i].segment, memory_order_relaxed)) {
            atomic_store_explicit(&w->member[i].base, segment->base, memory_order_relaxed);
            atomic_store_explicit(&w->member[i].size, segment->size, memory_order_relaxed);
            atomic_store_explicit(&w->member[i].segment, segment, memory_order_release);
            entry_put(entry, &w->page);
            return 0;
        }
    return -ENOMEM;
}

static void window_delete(uintptr_t address, const struct la_segment *segment)
{
    _Atomic(intptr_t) *entry = entry_of(address);
    struct la_page *old = entry ? entry_get(entry) : NULL;
    struct window *w = (struct window *)old;
    bool empty = true;

    if (!old || old->kind != PAGE_WINDOW)
        return;
    for (unsigned i = 0; i < WINDOW_MEMBERS; i++) {
        if (atomic_load_explicit(&w->member[i].segment, memory_order_relaxed) == segment)
            atomic_store_explicit(&w->member[i].segment, NULL, memory_order_release);
        else if (atomic_load_explicit(&w->member[i].segment, memory_order_relaxed))
            empty = false;
    }
    if (empty) {
        entry_put(entry, atomic_load_explicit(&w->under, memory_order_relaxed));
        w->next_free = free_windows;
        free_windows = w;
    }
}

static void begin_change(void)
{
    lock_take(&map_lock);
    atomic_fetch_add_explicit(&window_sequence, 1, memory_order_acq_rel);
}

static void end_change(void)
{
    atomic_fetch_add_explicit(&window_sequence, 1, memory_order_release);
    lock_give(&map_lock);
}

static void remove_windows(struct la_segment *segment)
{
    for (uintptr_t a = align_down(segment->base, SLICE_SIZE); a < segment->base + segment->size; a += SLICE_SIZE)
        window_delete(a, segment);
}

int region_window_add(struct la_segment *segment)
{
    int r = 0;

    begin_change();
    for (uintptr_t a = align_down(segment->base, SLICE_SIZE); a < segment->base + segment->size && r == 0; a += SLICE_SIZE)
        r = window_insert(a, segment);
    if (r < 0)
        remove_windows(segment);
    end_change();
    return r;
}

void region_window_remove(struct la_segment *segment)
{
    begin_change();
    remove_windows(segment);
    end_change();
}

void region_fork_prepare(void)
{
    lock_take(&map_lock);
}

void region_fork_done(bool child)
{
    if (child)
        lock_reset(&map_lock);
    else
        lock_give(&map_lock);
}
