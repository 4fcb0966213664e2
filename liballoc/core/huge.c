/*
 * huge.c - blocks of more than 2 MiB.
 *
 * In chains over the default source each has its own mapping, so that it can grow by mremap() without a copy. Freed
 * mappings are kept in a small cache: a cycle of allocate, touch, free then takes no page fault (peers that unmap pay 300
 * times more). Chains over other sources get a run of macro blocks instead (source.c), as their memory must come from there.
 *
 * Colour: regular placement of large arrays puts their elements of one index into the same cache sets (measured by the MPC
 * allocator's author: up to a factor of 3). So a block starts a varying multiple of 64 bytes behind the start of its
 * mapping, inside the first 4 KiB. The price is one page of address space. A mapping from the cache keeps its block's start: its lines are the ones
 * that are in the processor's caches still (a block of 16 MiB with a word written in every page: 52 us with another start each time, 31 with the same).
 *
 * The page descriptor is from the metadata allocator. Only the first 64 KiB window of a block is in the region map: free() is
 * always given the start, and a map entry per 64 KiB of a terabyte would cost 128 MiB. huge_around() walks the list.
 *
 * Locking: huge_lock for the list and the cache; no system call but munmap of evicted mappings under it.
 */
#include "core/huge.h"

#include <errno.h>

#include "base/error.h"
#include "core/macroblock.h"
#include "core/meta.h"
#include "core/policy.h"
#include "core/region_map.h"
#include "core/source.h"
#include "os/nodes.h"
#include "os/os.h"

struct cached {
    char *base;
    size_t size;
    size_t colour;          /* where its block started */
    unsigned node;          /* NUMA node that it was made on: where its pages lie, as far as they do */
    uint64_t freed_at;      /* ms */
};

enum { CACHE_ENTRIES = 64, COLOUR_STEP = 5 * 64, COLOUR_SPAN = 4096 };

static struct la_lock huge_lock = LOCK_INIT(RANK_HUGE);
static struct la_page *live;            /* linked by next, prev */
static struct cached cache[CACHE_ENTRIES];
static unsigned cache_used;
static size_t cache_bytes, live_bytes;
static unsigned colour;

/* ---- mappings, as far as the source's limit allows ---- */

static char *map(size_t size, size_t alignment)
{
    char *base;

    if (!source_charge(&la_default_source, size))
        return NULL;
    base = os_map_aligned(size, alignment);
    if (base)
        return base;
    source_uncharge(&la_default_source, size);
    la_fail(-ENOMEM, "the system refuses %zu bytes: RLIMIT_AS, overcommit or memory is exhausted", size);
    return NULL;
}

static void unmap(void *base, size_t size)
{
    os_unmap(base, size);
    source_uncharge(&la_default_source, size);
}

/* The map must have room for the entry before the pages move: afterwards there is no way back. */
static bool can_be_entered(void *target)
{
    return region_reserve((uintptr_t)target, 1);
}

static char *remap(char *base, size_t old_size, size_t new_size)
{
    char *moved;

    if (new_size > old_size && !source_charge(&la_default_source, new_size - old_size))
        return NULL;
    moved = os_remap(base, old_size, new_size, SLICE_SIZE, can_be_entered);
    if (!moved && new_size > old_size)
        source_uncharge(&la_default_source, new_size - old_size);
    if (moved && new_size < old_size)
        source_uncharge(&la_default_source, old_size - new_size);
    return moved;
}

/* ---- cache of mappings; under huge_lock ---- */

static void cache_remove(unsigned i)
{
    cache_bytes -= cache[i].size;
    cache[i] = cache[--cache_used];
}

static void cache_evict(unsigned i)
{
    unmap(cache[i].base, cache[i].size);
    cache_remove(i);
}

static unsigned cache_oldest(void)
{
    unsigned oldest = 0;

    for (unsigned i = 1; i < cache_used; i++)
        if (cache[i].freed_at < cache[oldest].freed_at)
            oldest = i;
    return oldest;
}

static void cache_apply_policy(void)
{
    while (cache_used > 0) {
        unsigned oldest = cache_oldest();
        struct policy_input in = { .cached = cache_bytes, .mapped = cache_bytes + live_bytes,
                                   .age_ms = os_now_ms() - cache[oldest].freed_at };
        if (policy_keeps(&in))
            return;
        cache_evict(oldest);
    }
}

static void cache_put(char *base, size_t size, size_t block_colour, unsigned node)
{
    if (cache_used == CACHE_ENTRIES)
        cache_evict(cache_oldest());
    cache[cache_used++] = (struct cached){ base, size, block_colour, node, os_now_ms() };
    cache_bytes += size;
    cache_apply_policy();
}

/* Best fit of the node; a much longer one is cut, its rest stays. Mappings start at multiples of 64 KiB. */
static char *cache_take(size_t size, size_t alignment, unsigned node, size_t *got, size_t *block_colour)
{
    unsigned best = CACHE_ENTRIES;
    char *base;

    for (unsigned i = 0; i < cache_used; i++)
        if (cache[i].size >= size && cache[i].node == node && ((uintptr_t)cache[i].base & (alignment - 1)) == 0 &&
            (best == CACHE_ENTRIES || cache[i].size < cache[best].size))
            best = i;
    if (best == CACHE_ENTRIES)
        return NULL;
    base = cache[best].base;
    *got = cache[best].size;
    *block_colour = cache[best].colour;
    if (*got - size > size / 8 + SLICE_SIZE) {
        size_t keep = align_up(size, SLICE_SIZE);

        cache[best].base += keep;
        cache[best].size -= keep;
        cache_bytes -= keep;
        *got = keep;
    } else {
        cache_remove(best);
    }
    return base;
}

size_t huge_trim(void)
{
    size_t given;

    lock_take(&huge_lock);
    given = cache_bytes;
    while (cache_used > 0)
        cache_evict(cache_used - 1);
    lock_give(&huge_lock);
    return given;
}

size_t huge_cached_bytes(void)
{
    size_t bytes;

    lock_take(&huge_lock);
    bytes = cache_bytes;
    lock_give(&huge_lock);
    return bytes;
}

/* ---- list of live blocks ---- */

static void count(struct la_page *page, int64_t blocks, int64_t bytes)
{
    struct la_chain *chain = atomic_load_explicit(&page->chain, memory_order_relaxed);

    atomic_fetch_add_explicit(&chain->huge_live, (uint64_t)blocks, memory_order_relaxed);
    atomic_fetch_add_explicit(&chain->huge_mapped, (uint64_t)bytes, memory_order_relaxed);
    live_bytes += (size_t)bytes;
}

static void link_live(struct la_page *page)
{
    lock_take(&huge_lock);
    page->prev = NULL;
    page->next = live;
    if (live)
        live->prev = page;
    live = page;
    page->listed = 1;
    count(page, 1, (int64_t)page->mapping_size);
    lock_give(&huge_lock);
}

/* Under huge_lock. */
static void unlink_live(struct la_page *page)
{
    if (page->prev)
        page->prev->next = page->next;
    else
        live = page->next;
    if (page->next)
        page->next->prev = page->prev;
    page->next = page->prev = NULL;
    page->listed = 0;
    count(page, -1, -(int64_t)page->mapping_size);
}

struct la_page *huge_around(const void *address)
{
    struct la_page *found = NULL;

    lock_take(&huge_lock);
    for (struct la_page *page = live; page && !found; page = page->next)
        if ((uintptr_t)address - (uintptr_t)page->mapping < page->mapping_size)
            found = page;
    lock_give(&huge_lock);
    return found;
}

/* ---- blocks ---- */

static size_t next_colour(void)
{
    colour = (colour + COLOUR_STEP) % COLOUR_SPAN;
    return colour;
}

/* Where what the calling thread touches first will lie. */
static unsigned node_here(void)
{
    return os_node_count() == 1 ? 0 : os_node_here();
}

static struct la_page *new_mapping(size_t size, size_t alignment, bool *zeroed)
{
    size_t page_size = os_page_size(), length = align_up(size + COLOUR_SPAN, page_size), got = length;
    size_t map_alignment = MAX(alignment, SLICE_SIZE), offset;
    unsigned node = node_here();
    struct la_page *page;
    char *base;

    if (length < size)
        return NULL;
    lock_take(&huge_lock);
    base = cache_take(length, map_alignment, node, &got, &offset);
    if (!base)
        offset = next_colour();
    if (alignment > 64)
        offset = 0;
    lock_give(&huge_lock);
    *zeroed = !base;
    if (!base)
        base = map(length, map_alignment);
    page = base ? la_meta_alloc(sizeof(*page)) : NULL;
    if (!page) {
        if (base)
            unmap(base, got);
        return NULL;
    }
    page->mapping = base;
    page->mapping_size = got;
    page->free_count = node;
    page->start = (uintptr_t)base + offset;
    page->large_size = got - offset;
    return page;
}

/* What a huge block holds beyond its mapping: nothing goes through the fast path, one block per page. */
static void describe(struct la_page *page, struct la_chain *chain)
{
    page->kind = PAGE_HUGE;
    page->divisor = 0;      /* page_is_block_start() is for small pages */
    page->capacity = page->bump = page->used = 1;
    page->block_size = 0;
    atomic_store_explicit(&page->fast_chain, NULL, memory_order_relaxed);
    atomic_store_explicit(&page->chain, chain, memory_order_relaxed);
}

static bool enter(struct la_page *page)
{
    if (page->macro && !segment_is_direct(page->macro->segment))
        return true;    /* found through its window */
    return region_set(align_down(page->start, SLICE_SIZE), 1, page);
}

static void leave(struct la_page *page)
{
    if (!page->macro || segment_is_direct(page->macro->segment))
        region_clear(align_down(page->start, SLICE_SIZE), 1);
}

static void give_memory(struct la_page *page)
{
    if (page->macro) {
        source_give_run(page->macro->segment->source, page);
        return;
    }
    lock_take(&huge_lock);
    cache_put(page->mapping, page->mapping_size, page->start - (uintptr_t)page->mapping, page->free_count);
    lock_give(&huge_lock);
    la_meta_free(page, sizeof(*page));
}

/* Where somebody else says what memory malloc is made of, it is made of nothing else. */
static bool maps_its_own(const struct la_source *source)
{
    return source == &la_default_source && !atomic_load_explicit(&source->replaced, memory_order_relaxed);
}

static void *alloc_listed(struct la_chain *chain, size_t size, size_t alignment, bool *zeroed)
{
    struct la_page *page;

    *zeroed = false;
    page = maps_its_own(chain->source) ? new_mapping(size, alignment, zeroed) : NULL;
    /* Also when the system has no address space left: what small blocks have given back lies in the source. */
    if (!page)
        page = source_take_run(chain->source, chain, size, alignment);
    if (!page)
        return NULL;
    describe(page, chain);
    if (!enter(page)) {
        give_memory(page);
        return NULL;
    }
    link_live(page);
    return (void *)page->start;
}

void *huge_alloc(struct la_chain *chain, size_t size, size_t alignment, bool *zeroed)
{
    void *block;

    signals_hold();
    block = alloc_listed(chain, size, alignment, zeroed);
    signals_release();
    return block;
}

void huge_free(struct la_page *page)
{
    signals_hold();
    leave(page);
    if (page->listed) {
        lock_take(&huge_lock);
        unlink_live(page);
        lock_give(&huge_lock);
        give_memory(page);
    } else {    /* detached */
        unmap(page->mapping, page->mapping_size);
    }
    signals_release();
}

static void *resize(struct la_page *page, size_t size)
{
    size_t offset = page->start - (uintptr_t)page->mapping;
    size_t need = align_up(offset + size, os_page_size());
    char *base;

    if (need < size)
        return NULL;
    if (need <= page->mapping_size && need >= page->mapping_size / 2)
        return (void *)page->start;
    if (page->macro || !page->listed)
        return NULL;
    /* Slack, so that growth in small steps is not a system call each: address space only, until touched. */
    if (need > page->mapping_size)
        need = align_up(need + need / 8, os_page_size());
    /* Out of the map while it moves: nobody but the block's user may look it up. */
    leave(page);
    base = remap(page->mapping, page->mapping_size, need);
    if (!base) {
        enter(page);
        return NULL;
    }
    lock_take(&huge_lock);
    count(page, 0, (int64_t)need - (int64_t)page->mapping_size);
    page->mapping = base;
    page->mapping_size = need;
    page->start = (uintptr_t)base + offset;
    page->large_size = need - offset;
    lock_give(&huge_lock);
    enter(page);
    return (void *)page->start;
}

void *huge_resize(struct la_page *page, size_t size)
{
    void *block;

    signals_hold();
    block = resize(page, size);
    signals_release();
    return block;
}

void *huge_alloc_detached(size_t size)
{
    size_t length = align_up(size + sizeof(struct la_page) + 64, os_page_size());
    struct la_page *page = length < size ? NULL : os_map_aligned(length, SLICE_SIZE);

    if (!page)
        return NULL;
    page->mapping = page;
    page->mapping_size = length;
    page->start = (uintptr_t)page + align_up(sizeof(*page), 64);
    page->large_size = length - (page->start - (uintptr_t)page);
    describe(page, NULL);
    /* Counted, not refused: the interrupted call may hold the source's lock. */
    atomic_fetch_add_explicit(&la_default_source.outside, length, memory_order_relaxed);
    if (!enter(page)) {
        unmap(page, length);
        return NULL;
    }
    return (void *)page->start;
}

static struct la_page *first_of(const struct la_chain *chain)
{
    struct la_page *page;

    for (page = live; page; page = page->next)
        if (atomic_load_explicit(&page->chain, memory_order_relaxed) == chain)
            break;
    return page;
}

void huge_orphan(struct la_chain *chain)
{
    struct la_page *page;

    lock_take(&huge_lock);
    while ((page = first_of(chain)) != NULL) {
        count(page, -1, -(int64_t)page->mapping_size);
        atomic_store_explicit(&page->chain, chain->source->orphan, memory_order_relaxed);
        count(page, 1, (int64_t)page->mapping_size);
    }
    lock_give(&huge_lock);
}

void huge_free_all(struct la_chain *chain)
{
    for (;;) {
        struct la_page *page;

        lock_take(&huge_lock);
        page = first_of(chain);
        if (page)
            unlink_live(page);
        lock_give(&huge_lock);
        if (!page)
            return;
        leave(page);
        give_memory(page);
    }
}

void huge_fork_prepare(void)
{
    lock_take(&huge_lock);
}

void huge_fork_done(bool child)
{
    if (child)
        lock_reset(&huge_lock);
    else
        lock_give(&huge_lock);
}
