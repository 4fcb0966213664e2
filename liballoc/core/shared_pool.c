/*
 * shared_pool.c - the out-of-band half of the pool: pages, macro blocks and blocks of a shared heap, for one lane.
 *
 * The pool (pool.c) runs unchanged over private views: struct la_macro and struct la_page in this process's memory, one per macro
 * block and slice of the heap, filled for what its lanes own. The truth is in the heap: the macro block's owner word, the page
 * word of each slice, the state word of each block (shared_layout.h). Views can be rebuilt from it at any time (adopt()).
 *
 * A page's free blocks are simply the ones whose word says FREE; no list has to be kept, and what another process frees is
 * found by looking. To look only where something was freed, a page has eighths: the owner keeps a mask of those that may have free
 * blocks, and others leave a bit in the page's hint byte, and a flag for the macro block (R5). A refill looks at the flags of
 * a bounded number of macro blocks.
 *
 * The fields of struct la_page in a view:
 *   mapping     the page's state words
 *   free_count  mask of eighths to look at (so that page_has_free() is right)
 *   used        1 + index of the first block not looked at yet in the lowest of them; never 0: pool.c gives no page back
 *   bump        == capacity
 * A bin holds blocks whose words are FREE, too. A page is looked at only when the bin of its class is empty, so a block is
 * never listed twice. (drain, flush and the scavenger only ever take from bins.)
 *
 * Order of stores, for a death between any two (R11): a page exists from the store of its page word on; before that its state
 * words are made FREE. A block is allocated by the store of its state word. Recovery frees by the words alone.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/error.h"
#include "core/macroblock.h"
#include "core/misuse.h"
#include "core/page.h"
#include "core/shared_heap.h"
#include "core/size_class.h"

enum { EIGHTHS = 8, SWEEP_MACROS = 4, ALL_EIGHTHS = 0xff };

static uint64_t class_divisor[SMALL_CLASSES];

__attribute__((constructor)) static void init_divisors(void)
{
    for (unsigned c = 0; c < SMALL_CLASSES; c++)
        class_divisor[c] = page_divisor(class_size(c));
}

/* offset / size for offsets below 2^32: the upper half of the product, see page.h. */
static inline size_t quotient(size_t offset, uint64_t divisor)
{
    return (size_t)(((unsigned __int128)offset * divisor) >> 64);
}

static struct lane *lane_of(struct la_chain *chain)
{
    return chain->owner_data;
}

static struct heap_slice *slice_of(struct la_heap *heap, uint32_t macro, unsigned slice)
{
    return &heap->slices[(size_t)macro * SLICES_PER_MACRO + slice];
}

static char *slice_memory(struct la_heap *heap, uint32_t macro, unsigned slice)
{
    return heap->payload + (size_t)macro * MACRO_SIZE + (size_t)slice * SLICE_SIZE;
}

static unsigned eighth_of(size_t index, size_t capacity)
{
    return (unsigned)(index * EIGHTHS / capacity);
}

static size_t eighth_start(unsigned eighth, size_t capacity)
{
    return (eighth * capacity + EIGHTHS - 1) / EIGHTHS;
}

/* ---- finding a block ---- */

static _Atomic(word_t) *words_at(struct la_heap *heap, uint32_t macro, unsigned granule)
{
    return (_Atomic(word_t) *)(slice_memory(heap, macro, granule / GRANULES_PER_SLICE) +
                               (size_t)(granule % GRANULES_PER_SLICE) * WORDS_PER_GRANULE * sizeof(word_t));
}

/* The upper half of the 64 bit word of a run: same layout as a small block's. */
static _Atomic(word_t) *run_word(struct heap_slice *slice)
{
    return (_Atomic(word_t) *)&slice->run + 1;
}

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "run_word() takes the upper half at the higher address");

static uint32_t run_length(struct heap_slice *slice)
{
    return (uint32_t)atomic_load_explicit(&slice->run, memory_order_relaxed);
}

static bool find_small(struct la_heap *heap, slice_t page, size_t offset, struct block_ref *ref)
{
    unsigned c = slice_class(page);
    size_t size, capacity, index;

    if (c >= SMALL_CLASSES || ref->slice + slice_count(page) > SLICES_PER_MACRO ||
        slice_words(page) / GRANULES_PER_SLICE >= SLICES_PER_MACRO)
        return false;
    size = class_size(c);
    capacity = slice_count(page) * SLICE_SIZE / size;
    index = quotient(offset, class_divisor[c]);
    if (index >= capacity)
        return false;
    ref->start = slice_memory(heap, ref->macro, ref->slice) + index * size;
    ref->size = size;
    ref->word = words_at(heap, ref->macro, slice_words(page)) + index;
    ref->epoch = slice_epoch(page);
    return true;
}

static bool find_run(struct la_heap *heap, slice_t page, struct block_ref *ref)
{
    struct heap_slice *slice = slice_of(heap, ref->macro, ref->slice);

    ref->start = slice_memory(heap, ref->macro, ref->slice);
    ref->size = slice_kind(page) == SLICE_LARGE ? slice_count(page) * SLICE_SIZE : (size_t)run_length(slice) * 4096;
    ref->word = run_word(slice);
    ref->epoch = slice_epoch(page);
    return ref->size <= heap->size;
}

bool block_find(struct la_heap *heap, const void *address, struct block_ref *ref)
{
    size_t offset = (size_t)((const char *)address - heap->payload);
    uint32_t macro = (uint32_t)(offset / MACRO_SIZE);
    unsigned slice = (unsigned)(offset / SLICE_SIZE % SLICES_PER_MACRO);
    slice_t page;

    if (!heap_contains(heap, address) || macro >= atomic_load_explicit(&heap->header->rows, memory_order_relaxed))
        return false;
    if (owner_state(atomic_load_explicit(&heap->macros[macro].owner, memory_order_relaxed)) == OWNER_RUN) {
        macro = owner_head(atomic_load_explicit(&heap->macros[macro].owner, memory_order_relaxed));
        slice = 0;
        if (macro >= heap->macro_count)
            return false;
    }
    /* Acquire: pairs with the release in make_page_word(). */
    page = atomic_load_explicit(&slice_of(heap, macro, slice)->page, memory_order_acquire);
    if (slice_kind(page) == SLICE_CONTINUED) {
        if (slice_count(page) > slice)
            return false;
        slice -= slice_count(page);
        page = atomic_load_explicit(&slice_of(heap, macro, slice)->page, memory_order_acquire);
    }
    *ref = (struct block_ref){ .heap = heap, .macro = macro, .slice = slice };
    offset -= (size_t)macro * MACRO_SIZE + (size_t)slice * SLICE_SIZE;
    if (slice_kind(page) == SLICE_SMALL)
        return find_small(heap, page, offset, ref);
    if (slice_kind(page) == SLICE_LARGE || slice_kind(page) == SLICE_HUGE)
        return find_run(heap, page, ref) && offset < ref->size;
    return false;
}

bool block_release(const struct block_ref *ref, word_t seen)
{
    word_t freed = word_make(word_generation(seen) + 1, ref->epoch, WORD_FREE, 0);

    /* Release: what was written to the block comes before its reuse. Pairs with the acquire in commit() and take(). */
    return atomic_compare_exchange_strong_explicit(ref->word, &seen, freed, memory_order_acq_rel, memory_order_relaxed);
}

void block_hint(const struct block_ref *ref)
{
    struct heap_macro *macro = &ref->heap->macros[ref->macro];
    slice_t page = atomic_load_explicit(&slice_of(ref->heap, ref->macro, ref->slice)->page, memory_order_relaxed);
    uint8_t bit = 1;

    if (slice_kind(page) == SLICE_SMALL) {
        size_t capacity = slice_count(page) * SLICE_SIZE / ref->size;
        bit = (uint8_t)(1u << eighth_of((size_t)(ref->start - slice_memory(ref->heap, ref->macro, ref->slice)) / ref->size, capacity));
    }
    /* Reads first: a bit that is set already costs no write to a line that others read. Release: after the block's word. */
    if (!(atomic_load_explicit(&macro->hint[ref->slice], memory_order_relaxed) & bit))
        atomic_fetch_or_explicit(&macro->hint[ref->slice], bit, memory_order_release);
    if (!atomic_load_explicit(&macro->hinted, memory_order_relaxed))
        atomic_store_explicit(&macro->hinted, 1, memory_order_release);
}

/* ---- pages ---- */

static struct la_page *lane_page_of(struct la_chain *chain, void *block)
{
    struct la_heap *heap = lane_of(chain)->heap;
    size_t slice = (size_t)((char *)block - heap->payload) >> SLICE_SHIFT;
    struct la_page *page = &heap->segment.pages[slice];

    /* Views of continued slices lead back to the head: only pages of more than one slice need it. */
    while (page->kind == PAGE_NONE && page > heap->segment.pages)
        page--;
    return page;
}

static bool lane_hand_out(void *block)
{
    (void)block;    /* commit() looks at the state word */
    return true;
}

static void lane_mark(void *block)
{
    (void)block;    /* the state word says it */
}

static unsigned resume_index(const struct la_page *page)
{
    return page->used - 1;
}

static _Atomic(word_t) *page_words(const struct la_page *page)
{
    return page->mapping;
}

static unsigned page_epoch(const struct la_page *page)
{
    return (unsigned)page->large_size;
}

/* Every word of the page is FREE; the bin of its class must be empty. */
static bool page_is_empty(const struct la_page *page)
{
    const _Atomic(word_t) *words = page_words(page);

    for (uint32_t i = 0; i < page->capacity; i++)
        if (word_state(atomic_load_explicit(&words[i], memory_order_relaxed), page_epoch(page)) != WORD_FREE)
            return false;
    return true;
}

static unsigned look_at_eighth(struct la_page *page, unsigned eighth, void **out, unsigned wanted)
{
    _Atomic(word_t) *words = page_words(page);
    size_t at = MAX(eighth_start(eighth, page->capacity), (size_t)resume_index(page));
    size_t end = eighth_start(eighth + 1, page->capacity);
    unsigned n = 0;

    for (; at < end && n < wanted; at++)
        /* Acquire: pairs with the release in block_release(): the freer's last writes come before ours. */
        if (word_state(atomic_load_explicit(&words[at], memory_order_acquire), page_epoch(page)) == WORD_FREE)
            out[n++] = (char *)page->start + at * page->block_size;
    page->used = 1 + (uint32_t)at;
    if (at >= end)
        page->free_count &= ~(1u << eighth);
    return n;
}

static unsigned lane_take(struct la_chain *chain, struct la_page *page, void **out, unsigned wanted)
{
    unsigned n = 0;

    /* Handed in again whole: if another page serves the class, give this one back. */
    if (page->free_count == ALL_EIGHTHS && page->free && (chain->avail[page->size_class] != page || page->next) &&
        page_is_empty(page)) {
        pool_unlist_page(chain, page);
        pool_give_page(chain, page);
        return 0;
    }
    page->free = page;      /* no longer fresh */
    while (n < wanted && page->free_count) {
        unsigned eighth = (unsigned)__builtin_ctz(page->free_count);

        if (resume_index(page) >= eighth_start(eighth + 1, page->capacity) || resume_index(page) < eighth_start(eighth, page->capacity))
            page->used = 1 + (uint32_t)eighth_start(eighth, page->capacity);
        n += look_at_eighth(page, eighth, out + n, wanted - n);
    }
    /* Lowest on top. */
    for (unsigned i = 0; i < n / 2; i++) {
        void *swap = out[i];
        out[i] = out[n - 1 - i];
        out[n - 1 - i] = swap;
    }
    return n;
}

/* An eighth is to be looked at from its start again. */
static void reopen(struct la_page *page, unsigned mask)
{
    page->free_count |= mask;
    page->used = 1;
}

static bool lane_put(struct la_page *page, void *block)
{
    reopen(page, 1u << eighth_of(quotient((uintptr_t)block - page->start, page->divisor), page->capacity));
    return true;
}

/* ---- making pages ---- */

/* Marks the granules that the macro block's pages use. */
static void map_words(struct la_heap *heap, uint32_t macro, uint64_t *used, uint32_t *word_slices)
{
    *word_slices = 0;
    for (unsigned i = 0; i < SLICES_PER_MACRO; i++) {
        slice_t page = atomic_load_explicit(&slice_of(heap, macro, i)->page, memory_order_relaxed);
        unsigned granules;

        if (slice_kind(page) == SLICE_WORDS)
            *word_slices |= 1u << i;
        if (slice_kind(page) != SLICE_SMALL)
            continue;
        granules = (unsigned)((slice_count(page) * SLICE_SIZE / class_size(slice_class(page)) + WORDS_PER_GRANULE - 1) /
                              WORDS_PER_GRANULE);
        for (unsigned g = slice_words(page); g < slice_words(page) + granules && g < SLICES_PER_MACRO * GRANULES_PER_SLICE; g++)
            used[g / 64] |= 1ull << g % 64;
    }
}

/* @granules free ones in a row in one of the slices of words; -1: none. */
static int find_granules(const uint64_t *used, uint32_t word_slices, unsigned granules)
{
    for (; word_slices; word_slices &= word_slices - 1) {
        unsigned first = (unsigned)__builtin_ctz(word_slices) * GRANULES_PER_SLICE, run = 0;

        for (unsigned g = first; g < first + GRANULES_PER_SLICE; g++) {
            run = used[g / 64] >> g % 64 & 1 ? 0 : run + 1;
            if (run == granules)
                return (int)(g + 1 - granules);
        }
    }
    return -1;
}

static void make_words_slice(struct la_heap *heap, struct la_macro *m, unsigned slice)
{
    /* It may have been payload: as words it must read FREE everywhere before it is one. */
    memset(slice_memory(heap, m->index, slice), 0, SLICE_SIZE);
    m->all_slices &= ~(1u << slice);
    atomic_store_explicit(&slice_of(heap, m->index, slice)->page, slice_make(SLICE_WORDS, 0, 1, 0, 0), memory_order_release);
}

/*
 * State words for @page; -1: the macro block has no room for more words. Then the first slice of @page has become words, the rest is
 * free, and the page is left with no slices: the caller tries again, elsewhere or here.
 */
static int get_words(struct la_chain *chain, struct la_page *page, unsigned granules)
{
    struct la_heap *heap = lane_of(chain)->heap;
    struct la_macro *m = page->macro;
    uint64_t used[SLICES_PER_MACRO * GRANULES_PER_SLICE / 64] = { 0 };
    unsigned at = (unsigned)(page - macro_page(m, 0));
    uint32_t word_slices;
    int found;

    map_words(heap, m->index, used, &word_slices);
    found = find_granules(used, word_slices, granules);
    if (found >= 0)
        return found;
    make_words_slice(heap, m, at);
    m->free_slices |= bits_run(at, page->slices) & ~(1u << at);
    page->slices = 0;
    return -1;
}

static void clean_words(_Atomic(word_t) *words, size_t n, unsigned epoch)
{
    for (size_t i = 0; i < n; i++) {
        word_t w = atomic_load_explicit(&words[i], memory_order_relaxed);

        /* Of any epoch: an old one must not come to life when the page's epoch comes round to it. */
        if (word_state(w, word_epoch(w)) != WORD_FREE)
            atomic_store_explicit(&words[i], word_make(word_generation(w) + 1, epoch, WORD_FREE, 0), memory_order_relaxed);
    }
}

/* The page begins to exist with the last store. */
static void make_page_word(struct la_heap *heap, const struct la_page *page, slice_t word)
{
    struct la_macro *m = page->macro;
    unsigned at = (unsigned)(page - macro_page(m, 0));

    for (unsigned i = 1; i < page->slices; i++)
        atomic_store_explicit(&slice_of(heap, m->index, at + i)->page, slice_make(SLICE_CONTINUED, 0, i, 0, 0), memory_order_relaxed);
    atomic_store_explicit(&slice_of(heap, m->index, at)->page, word, memory_order_release);
}

static void view_small(struct la_heap *heap, struct la_page *page, unsigned granule, unsigned epoch)
{
    page->mapping = (void *)words_at(heap, page->macro->index, granule);
    page->large_size = epoch;
    page->free_count = ALL_EIGHTHS;
    page->bump = page->capacity;
    page->used = 1;
    page->free = NULL;
}

static bool lane_page_made(struct la_chain *chain, struct la_page *page)
{
    struct la_heap *heap = lane_of(chain)->heap;
    struct la_macro *m = page->macro;
    unsigned at = (unsigned)(page - macro_page(m, 0));
    struct heap_slice *slice = slice_of(heap, m->index, at);
    unsigned epoch = slice_epoch(atomic_load_explicit(&slice->page, memory_order_relaxed));
    int granule;

    atomic_store_explicit(&heap->macros[m->index].hint[at], 0, memory_order_relaxed);
    if (page->kind == PAGE_LARGE) {
        clean_words(run_word(slice), 1, epoch);
        make_page_word(heap, page, slice_make(SLICE_LARGE, 0, page->slices, epoch, 0));
        return true;
    }
    granule = get_words(chain, page, (page->capacity + WORDS_PER_GRANULE - 1) / WORDS_PER_GRANULE);
    if (granule < 0)
        return false;
    clean_words(words_at(heap, m->index, (unsigned)granule), page->capacity, epoch);
    make_page_word(heap, page, slice_make(SLICE_SMALL, page->size_class, page->slices, epoch, (unsigned)granule));
    view_small(heap, page, (unsigned)granule, epoch);
    return true;
}

static void lane_page_given(struct la_chain *chain, struct la_page *page)
{
    struct la_heap *heap = lane_of(chain)->heap;
    unsigned at = (unsigned)(page - macro_page(page->macro, 0));
    struct heap_slice *slice = slice_of(heap, page->macro->index, at);
    unsigned epoch = slice_epoch(atomic_load_explicit(&slice->page, memory_order_relaxed));

    atomic_store_explicit(&page->chain, NULL, memory_order_relaxed);    /* see own_page() */
    atomic_store_explicit(&slice->page, slice_make(SLICE_FREE, 0, 0, epoch, 0), memory_order_release);
    for (unsigned i = 1; i < page->slices; i++)
        atomic_store_explicit(&(slice + i)->page, 0, memory_order_relaxed);
}

/* ---- macro blocks ---- */

/* Row and payload of a macro block are committed before they are touched: no SIGBUS later. */
static bool commit_memory(struct la_heap *heap, uint32_t macro, uint32_t n)
{
    for (uint32_t i = macro; i < macro + n; i++) {
        if (atomic_load_explicit(&heap->macros[i].committed, memory_order_relaxed))
            continue;
        if (fallocate(heap->fd, 0, (off_t)heap_offset(heap, slice_memory(heap, i, 0)), MACRO_SIZE) < 0) {
            la_fail(-errno, "heap %s cannot commit 2 MiB more (errno %d): /dev/shm, the cgroup or the huge pages are used up",
                    heap->header->name, errno);
            return false;
        }
        atomic_store_explicit(&heap->macros[i].committed, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&heap->header->committed, MACRO_SIZE, memory_order_relaxed);
    }
    return true;
}

bool heap_commit_rows(struct la_heap *heap, uint32_t rows)
{
    struct heap_header *h = heap->header;
    uint32_t have = atomic_load_explicit(&h->rows, memory_order_acquire);

    rows = MIN(rows, heap->macro_count);
    if (have >= rows)
        return true;
    if (fallocate(heap->fd, 0, (off_t)(h->macros_at + have * sizeof(struct heap_macro)),
                  (off_t)((rows - have) * sizeof(struct heap_macro))) < 0 ||
        fallocate(heap->fd, 0, (off_t)(h->slices_at + (uint64_t)have * SLICES_PER_MACRO * sizeof(struct heap_slice)),
                  (off_t)((uint64_t)(rows - have) * SLICES_PER_MACRO * sizeof(struct heap_slice))) < 0) {
        la_fail(-errno, "heap %s cannot commit its tables (errno %d)", h->name, errno);
        return false;
    }
    while (have < rows && !atomic_compare_exchange_weak_explicit(&h->rows, &have, rows, memory_order_release, memory_order_relaxed))
        ;
    return true;
}

static bool claim(struct la_heap *heap, uint32_t macro, uint64_t from, uint64_t to)
{
    /* Acquire: pairs with the release of whoever gave it back. */
    return atomic_compare_exchange_strong_explicit(&heap->macros[macro].owner, &from, to, memory_order_acq_rel, memory_order_relaxed);
}

static void set_owner(struct la_heap *heap, uint32_t macro, uint64_t owner)
{
    atomic_store_explicit(&heap->macros[macro].owner, owner, memory_order_release);
}

/* The one block of a large page is free. Acquire: see take(). */
static bool run_is_free(struct la_heap *heap, uint32_t macro, unsigned slice, unsigned epoch)
{
    return word_state(atomic_load_explicit(run_word(slice_of(heap, macro, slice)), memory_order_acquire), epoch) == WORD_FREE;
}

/* Our view of a macro block that we own, from the page words; its pages with free blocks are listed. */
static void view_macro(struct la_chain *chain, uint32_t macro)
{
    struct la_heap *heap = lane_of(chain)->heap;
    struct la_macro *m = &heap->segment.macros[macro];
    uint32_t covered = 0;

    *m = (struct la_macro){ .segment = &heap->segment, .index = macro, .state = MACRO_OWNED, .all_slices = UINT32_MAX, .dirty = 1 };
    for (unsigned i = 0; i < SLICES_PER_MACRO; i++) {
        slice_t word = atomic_load_explicit(&slice_of(heap, macro, i)->page, memory_order_acquire);
        struct la_page *page = macro_page(m, i);

        page->kind = PAGE_NONE;
        page->macro = m;
        page->listed = 0;
        if (slice_kind(word) == SLICE_WORDS) {
            m->all_slices &= ~(1u << i);
        } else if (slice_kind(word) == SLICE_SMALL) {
            page->slices = (uint16_t)slice_count(word);
            page_init_small(page, chain, slice_class(word), (uintptr_t)slice_memory(heap, macro, i), page->slices * SLICE_SIZE);
            view_small(heap, page, slice_words(word), slice_epoch(word));
            page->free = page;
            covered |= bits_run(i, page->slices);
            pool_list_page(chain, page);
        } else if (slice_kind(word) == SLICE_LARGE && run_is_free(heap, macro, i, slice_epoch(word))) {
            atomic_store_explicit(&slice_of(heap, macro, i)->page, slice_make(SLICE_FREE, 0, 0, slice_epoch(word), 0), memory_order_release);
        } else if (slice_kind(word) == SLICE_LARGE) {
            page->kind = PAGE_LARGE;
            page->slices = (uint16_t)slice_count(word);
            page->start = (uintptr_t)slice_memory(heap, macro, i);
            page->large_size = page->slices * SLICE_SIZE;
            atomic_store_explicit(&page->chain, chain, memory_order_relaxed);
            atomic_store_explicit(&page->fast_chain, NULL, memory_order_relaxed);
            covered |= bits_run(i, page->slices);
            chain->large_live++;
            chain->large_bytes += page->large_size;
        }
    }
    m->free_slices = m->all_slices & ~covered;
    macro_join(chain, m);
}

void lane_rebuild(struct lane *lane)
{
    struct la_chain *chain = &lane->chain;
    struct la_heap *heap = lane->heap;
    uint32_t rows = atomic_load_explicit(&heap->header->rows, memory_order_relaxed);

    pool_bins_empty(chain);
    memset(chain->avail, 0, sizeof(chain->avail));
    memset(chain->by_run, 0, sizeof(chain->by_run));
    chain->run_mask = 0;
    chain->macros = NULL;
    chain->macro_count = 0;
    chain->large_live = chain->large_bytes = 0;
    for (uint32_t i = 0; i < rows; i++)
        if (atomic_load_explicit(&heap->macros[i].owner, memory_order_relaxed) == owner_make(OWNER_LANE, lane->number))
            view_macro(chain, i);
}

/*
 * The header counts how often macro blocks were abandoned; who found none at some count need not look again before it changes. (A
 * count of those that wait would have to be right: a death between the owner word and the count, or a scan that ends while one is
 * abandoned, would hide a macro block for good.)
 */
static bool adopt(struct la_chain *chain)
{
    struct lane *lane = lane_of(chain);
    struct la_heap *heap = lane->heap;
    uint32_t rows = atomic_load_explicit(&heap->header->rows, memory_order_relaxed);
    /* Acquire: pairs with the release in recover.c; the owner words of what is counted are there. */
    uint32_t count = atomic_load_explicit(&heap->header->abandoned, memory_order_acquire);

    if (count == atomic_load_explicit(&heap->none_abandoned_at, memory_order_relaxed))
        return false;
    for (uint32_t i = 0; i < rows; i++)
        if (atomic_load_explicit(&heap->macros[i].owner, memory_order_relaxed) == owner_make(OWNER_ABANDONED, 0) &&
            claim(heap, i, owner_make(OWNER_ABANDONED, 0), owner_make(OWNER_LANE, lane->number))) {
            view_macro(chain, i);
            /* Its hints may be from before: everything is looked at anyway. */
            return true;
        }
    atomic_store_explicit(&heap->none_abandoned_at, count, memory_order_relaxed);
    return false;
}

/* @i is CLAIMING by us: its pages go, slice 0 is for words. */
static void prepare_macro(struct la_heap *heap, uint32_t i)
{
    for (unsigned s = 1; s < SLICES_PER_MACRO; s++) {
        struct heap_slice *slice = slice_of(heap, i, s);
        unsigned epoch = slice_epoch(atomic_load_explicit(&slice->page, memory_order_relaxed));

        atomic_store_explicit(&slice->page, slice_make(SLICE_FREE, 0, 0, epoch, 0), memory_order_relaxed);
    }
    if (slice_kind(atomic_load_explicit(&slice_of(heap, i, 0)->page, memory_order_relaxed)) != SLICE_WORDS) {
        memset(slice_memory(heap, i, 0), 0, SLICE_SIZE);
        atomic_store_explicit(&slice_of(heap, i, 0)->page, slice_make(SLICE_WORDS, 0, 1, 0, 0), memory_order_release);
    }
    for (unsigned s = 0; s < SLICES_PER_MACRO; s++)
        atomic_store_explicit(&heap->macros[i].hint[s], 0, memory_order_relaxed);
    atomic_store_explicit(&heap->macros[i].hinted, 0, memory_order_relaxed);
}

/* A row to look at next, also when the tables have to grow for it; -1: none. */
static int64_t next_row(struct la_heap *heap, uint32_t looked)
{
    uint32_t rows = atomic_load_explicit(&heap->header->rows, memory_order_acquire);

    if (looked < rows)
        return (atomic_load_explicit(&heap->header->next_macro, memory_order_relaxed) + looked) % rows;
    if (rows == heap->macro_count || !heap_commit_rows(heap, rows + 1024))
        return -1;
    return rows;
}

static bool take_free(struct la_chain *chain)
{
    struct lane *lane = lane_of(chain);
    struct la_heap *heap = lane->heap;
    int64_t i;

    for (uint32_t looked = 0; (i = next_row(heap, looked)) >= 0; looked++) {
        uint32_t macro = (uint32_t)i;

        if (atomic_load_explicit(&heap->macros[macro].owner, memory_order_relaxed) != owner_make(OWNER_NONE, 0) ||
            !claim(heap, macro, owner_make(OWNER_NONE, 0), owner_make(OWNER_CLAIMING, lane->number)))
            continue;
        if (!commit_memory(heap, macro, 1)) {
            set_owner(heap, macro, owner_make(OWNER_NONE, 0));
            return false;
        }
        prepare_macro(heap, macro);
        set_owner(heap, macro, owner_make(OWNER_LANE, lane->number));
        atomic_store_explicit(&heap->header->next_macro, macro + 1, memory_order_relaxed);
        view_macro(chain, macro);
        return true;
    }
    la_fail(-ENOMEM, "heap %s is full: %u macro blocks of 2 MiB are in use, it cannot grow beyond the size of its creation",
            heap->header->name, heap->macro_count);
    return false;
}

/* Pages of @m that others freed blocks of. Acquire: pairs with block_hint(); the blocks' words are FREE when we look. */
static void take_hints(struct la_chain *chain, struct la_macro *m)
{
    struct heap_macro *macro = &lane_of(chain)->heap->macros[m->index];

    if (!atomic_load_explicit(&macro->hinted, memory_order_relaxed))
        return;
    /* The flag first: a freer that sets a byte after we looked at it sets the flag again. */
    atomic_exchange_explicit(&macro->hinted, 0, memory_order_acq_rel);
    for (unsigned i = 0; i < SLICES_PER_MACRO; i++) {
        struct la_page *page = macro_page(m, i);
        uint8_t hint;

        if (!atomic_load_explicit(&macro->hint[i], memory_order_relaxed))
            continue;
        hint = atomic_exchange_explicit(&macro->hint[i], 0, memory_order_acq_rel);
        if (page->kind == PAGE_SMALL) {
            reopen(page, hint);
            pool_list_page(chain, page);
        } else if (page->kind == PAGE_LARGE) {
            struct la_heap *heap = lane_of(chain)->heap;
            slice_t word = atomic_load_explicit(&slice_of(heap, m->index, i)->page, memory_order_relaxed);

            if (run_is_free(heap, m->index, i, slice_epoch(word))) {
                pool_free(chain, page, (void *)page->start);
                if (m->chain != chain)
                    return;     /* that was its last block: the macro block went back */
            }
        }
    }
}

/* Look for hints in up to @n of the lane's macro blocks, in turn. */
static void sweep(struct la_chain *chain, uint32_t n)
{
    struct lane *lane = lane_of(chain);
    struct la_heap *heap = lane->heap;

    for (; n > 0 && chain->macros; n--) {
        struct la_macro *m = &heap->segment.macros[lane->sweep_at < heap->macro_count ? lane->sweep_at : 0];

        if (m->chain != chain || !m->chain_next)
            m = chain->macros;
        else
            m = m->chain_next;
        lane->sweep_at = m->index;
        take_hints(chain, m);
    }
}

static void lane_slow_call(struct la_chain *chain)
{
    sweep(chain, SWEEP_MACROS);
}

static bool is_quarantined(const struct la_heap *heap)
{
    if (!atomic_load_explicit(&heap->header->quarantined, memory_order_relaxed))
        return false;
    la_fail(-EUCLEAN, "heap %s is quarantined: an invariant was found broken, la_heap_fsck() names it", heap->header->name);
    return true;
}

static bool lane_take_macro(struct la_chain *chain, unsigned c, unsigned slices)
{
    uint32_t macros = chain->macro_count;

    if (is_quarantined(lane_of(chain)->heap))
        return false;
    if (adopt(chain) || take_free(chain))
        return true;
    /* Full: now every hint counts. */
    sweep(chain, macros);
    return (c < SMALL_CLASSES && chain->avail[c]) || chain->run_mask >> slices != 0;
}

static void release_macro(struct la_heap *heap, uint32_t macro)
{
    set_owner(heap, macro, owner_make(OWNER_NONE, 0));
    atomic_store_explicit(&heap->header->next_macro, macro, memory_order_relaxed);
}

static void lane_give_macro(struct la_chain *chain, struct la_macro *m)
{
    macro_leave(chain, m);
    m->chain = NULL;
    release_macro(lane_of(chain)->heap, m->index);
}

const struct la_pool_ops lane_pool_ops = {
    .page_of = lane_page_of, .hand_out = lane_hand_out, .mark = lane_mark, .take = lane_take, .put = lane_put,
    .page_made = lane_page_made, .page_given = lane_page_given, .take_macro = lane_take_macro,
    .give_macro = lane_give_macro, .slow_call = lane_slow_call,
};

/* ---- runs of macro blocks ---- */

static bool claim_run(struct la_heap *heap, unsigned lane, uint32_t first, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (!claim(heap, first + i, owner_make(OWNER_NONE, 0), owner_make(OWNER_CLAIMING, lane))) {
            while (i-- > 0)
                set_owner(heap, first + i, owner_make(OWNER_NONE, 0));
            return false;
        }
    return true;
}

static bool find_free_run(struct la_heap *heap, unsigned lane, uint32_t n, uint32_t *ret)
{
    uint32_t run = 0;

    if (n > heap->macro_count)
        return false;
    for (uint32_t i = 0; i < heap->macro_count; i++) {
        if (i >= atomic_load_explicit(&heap->header->rows, memory_order_acquire) && !heap_commit_rows(heap, i + 1024))
            return false;
        run = atomic_load_explicit(&heap->macros[i].owner, memory_order_relaxed) == owner_make(OWNER_NONE, 0) ? run + 1 : 0;
        if (run < n)
            continue;
        if (claim_run(heap, lane, i + 1 - n, n)) {
            *ret = i + 1 - n;
            return true;
        }
        run = 0;
    }
    return false;
}

/*
 * A block of several macro blocks. HELD from the first store on, so that a death on the way frees it; only the last store
 * makes it outlive the process (commit() of the caller).
 */
static void *take_run(struct lane *lane, size_t size)
{
    struct la_heap *heap = lane->heap;
    uint32_t n = (uint32_t)((size + MACRO_SIZE - 1) / MACRO_SIZE), first;
    struct heap_slice *slice;
    word_t held;

    if (is_quarantined(heap))
        return NULL;
    if (size > heap->size || !find_free_run(heap, lane->number, n, &first)) {
        la_fail(-ENOMEM, "heap %s has no %u free macro blocks in a row", heap->header->name, n);
        return NULL;
    }
    if (!commit_memory(heap, first, n)) {
        for (uint32_t i = first; i < first + n; i++)
            set_owner(heap, i, owner_make(OWNER_NONE, 0));
        return NULL;
    }
    /* What was words is payload now: whoever has the macro blocks next must make new ones. */
    for (uint32_t i = first; i < first + n; i++)
        atomic_store_explicit(&slice_of(heap, i, 0)->page, 0, memory_order_relaxed);
    slice = slice_of(heap, first, 0);
    held = word_make(word_generation(atomic_load_explicit(run_word(slice), memory_order_relaxed)), 0, WORD_HELD, lane->number);
    atomic_store_explicit(&slice->run, (uint64_t)held << 32 | (uint64_t)n * (MACRO_SIZE / 4096), memory_order_release);
    atomic_store_explicit(&slice->page, slice_make(SLICE_HUGE, 0, 1, 0, 0), memory_order_release);
    for (uint32_t i = first; i < first + n; i++)
        set_owner(heap, i, owner_run(first));
    return slice_memory(heap, first, 0);
}

/* The caller holds the block by its lane, or recovers the lane that did. Restartable: each macro block goes by its own word. */
void heap_dismantle_run(const struct block_ref *ref, unsigned lane)
{
    struct la_heap *heap = ref->heap;
    struct heap_slice *slice = slice_of(heap, ref->macro, 0);
    uint32_t n = (uint32_t)MIN((uint64_t)run_length(slice) / (MACRO_SIZE / 4096), (uint64_t)(heap->macro_count - ref->macro));
    word_t w;

    for (uint32_t i = n; i-- > 1;)
        if (!claim(heap, ref->macro + i, owner_run(ref->macro), owner_make(OWNER_NONE, 0)))
            claim(heap, ref->macro + i, owner_make(OWNER_CLAIMING, lane), owner_make(OWNER_NONE, 0));
    /* From here on the first one is found by its owner word, as its page is about to go: recovery frees what a dead lane claims. */
    if (!claim(heap, ref->macro, owner_run(ref->macro), owner_make(OWNER_CLAIMING, lane)))
        return;
    w = atomic_load_explicit(ref->word, memory_order_relaxed);
    atomic_store_explicit(&slice->page, slice_make(SLICE_FREE, 0, 0, 0, 0), memory_order_release);
    atomic_store_explicit(ref->word, word_make(word_generation(w) + 1, 0, WORD_FREE, 0), memory_order_release);
    release_macro(heap, ref->macro);
}

/* ---- allocate ---- */

/* The one store that allocates; false: somebody has the block already. */
static bool commit(struct lane *lane, _Atomic(word_t) *word, unsigned epoch, enum la_policy policy)
{
    /* Acquire: see block_release(). */
    word_t w = atomic_load_explicit(word, memory_order_acquire);

    if (unlikely(word_state(w, epoch) != WORD_FREE))
        return false;
    atomic_store_explicit(word, policy == LA_HELD ? word_make(word_generation(w), epoch, WORD_HELD, lane->number)
                                                  : word_make(word_generation(w), epoch, WORD_HEAP, 0),
                          memory_order_release);
    return true;
}

static void *alloc_small(struct lane *lane, unsigned c, enum la_policy policy)
{
    for (;;) {
        struct la_bin *bin = &lane->hidden[c];
        void *block = *bin->top;
        struct la_page *page;

        if (likely(block != &la_no_block))
            bin->top--;
        else
            block = pool_alloc_small(&lane->chain, c);
        if (unlikely(!block))
            return NULL;
        page = lane_page_of(&lane->chain, block);
        if (likely(commit(lane, page_words(page) + quotient((uintptr_t)block - page->start, page->divisor), page_epoch(page), policy)))
            return block;
        misuse_report(block, "was on a free list although its state word says that it is in use: skipped");
    }
}

static unsigned class_for(size_t size, size_t alignment)
{
    unsigned c = MAX(class_of(MAX(size, alignment)), 1u);

    while (alignment > 16 && c < SMALL_CLASSES && class_size(c) % alignment != 0)
        c++;
    return c;
}

static void *alloc_run(struct lane *lane, size_t size, size_t alignment, enum la_policy policy)
{
    struct block_ref ref;
    void *block;

    if (size > (SLICES_PER_MACRO - 1) * SLICE_SIZE || alignment > MACRO_SIZE / 2) {
        if (alignment > MACRO_SIZE)
            return NULL;
        block = take_run(lane, size);
        if (block && policy == LA_KEEP && block_find(lane->heap, block, &ref)) {
            word_t w = atomic_load_explicit(ref.word, memory_order_relaxed);
            atomic_store_explicit(ref.word, word_make(word_generation(w), 0, WORD_HEAP, 0), memory_order_release);
        }
        return block;
    }
    block = pool_alloc_large(&lane->chain, size, MAX(alignment, (size_t)16));
    if (!block || !block_find(lane->heap, block, &ref))
        return NULL;
    return commit(lane, ref.word, ref.epoch, policy) ? block : NULL;
}

void *shared_alloc(struct la_chain *face, size_t size, size_t alignment)
{
    struct la_heap *heap = face->owner_data;
    struct lane *lane = heap_lane(heap);
    unsigned c = SMALL_CLASSES;
    void *block;

    if (unlikely(!lane))
        return NULL;
    if (size > PTRDIFF_MAX || alignment > heap->size)
        return NULL;
    if (MAX(size, alignment) <= SMALL_MAX)
        c = class_for(size, alignment);
    la_tls_busy++;
    block = c < SMALL_CLASSES ? alloc_small(lane, c, face->policy) : alloc_run(lane, MAX(size, (size_t)1), alignment, face->policy);
    la_tls_busy--;
    return block;
}

/* The view of the page around @block, if the page is one slice of small blocks of @lane's own; else NULL. */
static inline struct la_page *own_page(const struct la_heap *heap, const struct lane *lane, const void *block)
{
    struct la_page *page = &heap->segment.pages[(size_t)((const char *)block - heap->payload) >> SLICE_SHIFT];

    /* The chain first: only its owner writes the rest of a view. */
    if (atomic_load_explicit(&page->chain, memory_order_relaxed) != &lane->chain || page->kind != PAGE_SMALL)
        return NULL;
    return page;
}

enum { STATE_MASK = (1 << 20) - 1, FREE_MASK = 3 << 12 };   /* epoch, state and lane; state */

void *shared_alloc_fast(struct la_chain *face, size_t size)
{
    struct la_heap *heap = face->owner_data;
    struct lane *lane = heap_lane_if_any(heap);
    struct la_bin *bin;
    struct la_page *page;
    _Atomic(word_t) *word;
    void *block;
    word_t w, mine;

    if (unlikely(!lane) || unlikely(size > TABLE_MAX) || unlikely(la_tls_busy))
        return NULL;
    bin = (struct la_bin *)((char *)lane->hidden + la_bin_offset[MAX(size, (size_t)9)]);
    block = *bin->top;
    if (unlikely(block == &la_no_block))
        return NULL;
    page = own_page(heap, lane, block);
    if (unlikely(!page))
        return NULL;
    word = page_words(page) + quotient((uintptr_t)block - page->start, page->divisor);
    /* Acquire: see block_release(). */
    w = atomic_load_explicit(word, memory_order_acquire);
    if (unlikely(w & FREE_MASK))
        return NULL;
    bin->top--;
    mine = face->policy == LA_KEEP ? (word_t)WORD_HEAP << 12 : (word_t)WORD_HELD << 12 | lane->number;
    atomic_store_explicit(word, (w & ~(word_t)STATE_MASK) | page_epoch(page) << 14 | mine, memory_order_release);
    return block;
}

bool shared_free_fast(struct la_page *entry, void *block)
{
    struct la_heap *heap = container_of(entry, struct la_heap, page);
    struct lane *lane = heap_lane_if_any(heap);
    unsigned __int128 product;
    struct la_page *page;
    struct la_bin *bin;
    _Atomic(word_t) *word;
    word_t w, freed, epoch;

    if (unlikely(!lane) || unlikely(la_tls_busy))
        return false;
    page = own_page(heap, lane, block);
    if (unlikely(!page))
        return false;
    product = (unsigned __int128)((uintptr_t)block - page->start) * page->divisor;
    bin = (struct la_bin *)((char *)lane->hidden + page->bin_offset);
    if (unlikely((uint64_t)product >= page->divisor) || unlikely(bin->top == bin->last))
        return false;
    word = page_words(page) + (size_t)(product >> 64);
    w = atomic_load_explicit(word, memory_order_relaxed);
    epoch = page_epoch(page) << 14;
    freed = ((w & ~(word_t)STATE_MASK) + (1u << 20)) | epoch;
    if ((w & STATE_MASK) == (epoch | (word_t)WORD_HELD << 12 | lane->number)) {
        atomic_store_explicit(word, freed, memory_order_release);
    } else if ((w & STATE_MASK) != (epoch | (word_t)WORD_HEAP << 12) ||
               !atomic_compare_exchange_strong_explicit(word, &w, freed, memory_order_acq_rel, memory_order_relaxed)) {
        return false;
    }
    *++bin->top = block;
    return true;
}

/* ---- free ---- */

static void refuse(const struct block_ref *ref, const void *block, word_t w)
{
    static const char *const states[] = { "was freed already", "changed hands while it was freed", "is being published", "was freed twice at once" };

    misuse_report(block, "%s: block of %zu bytes in heap %s, generation %u", states[word_state(w, ref->epoch)], ref->size,
                  ref->heap->header->name, word_generation(w));
}

static void free_found(const struct block_ref *ref, struct lane *lane, void *block)
{
    word_t w = atomic_load_explicit(ref->word, memory_order_relaxed);
    enum word_state state = word_state(w, ref->epoch);
    struct la_page *page;

    if (unlikely(state == WORD_FREE || state == WORD_IN_DOUBT)) {
        refuse(ref, block, w);
        return;
    }
    if (unlikely(owner_state(atomic_load_explicit(&ref->heap->macros[ref->macro].owner, memory_order_relaxed)) == OWNER_RUN)) {
        if (!lane)
            lane = heap_lane(ref->heap);
        if (lane && atomic_compare_exchange_strong_explicit(ref->word, &w, word_make(word_generation(w) + 1, ref->epoch, WORD_HELD, lane->number),
                                                            memory_order_acq_rel, memory_order_relaxed))
            heap_dismantle_run(ref, lane->number);
        else
            refuse(ref, block, w);
        return;
    }
    if (lane && state == WORD_HELD && word_lane(w) == lane->number) {
        /* Ours alone: one store. */
        atomic_store_explicit(ref->word, word_make(word_generation(w) + 1, ref->epoch, WORD_FREE, 0), memory_order_release);
    } else if (unlikely(!block_release(ref, w))) {
        refuse(ref, block, atomic_load_explicit(ref->word, memory_order_relaxed));
        return;
    }
    page = &ref->heap->segment.pages[(size_t)ref->macro * SLICES_PER_MACRO + ref->slice];
    if (lane && owner_lane(atomic_load_explicit(&ref->heap->macros[ref->macro].owner, memory_order_relaxed)) == lane->number &&
        page->kind != PAGE_NONE)
        pool_free(&lane->chain, page, block);
    else
        block_hint(ref);
}

bool shared_free(void *block)
{
    struct la_heap *heap = heap_around(block);
    struct block_ref ref;

    if (!heap)
        return false;
    if (!block_find(heap, block, &ref))
        misuse_report(block, "is in no live block of heap %s", heap->header->name);
    else if (ref.start != block)
        misuse_report(block, "is %zu bytes into a block of %zu bytes at %p in heap %s", (size_t)((char *)block - ref.start),
                      ref.size, (void *)ref.start, heap->header->name);
    else
        free_found(&ref, heap_lane_if_any(heap), block);
    return true;
}

size_t shared_usable_size(const void *block)
{
    struct la_heap *heap = heap_around(block);
    struct block_ref ref;

    if (!heap || !block_find(heap, block, &ref) || ref.start != block)
        return 0;
    return word_state(atomic_load_explicit(ref.word, memory_order_relaxed), ref.epoch) == WORD_FREE ? 0 : ref.size;
}

bool shared_owner(const void *address, struct la_owner *ret)
{
    struct la_heap *heap = heap_around(address);
    struct block_ref ref;

    if (!heap)
        return false;
    ret->shared = true;
    ret->chain = &heap->face[LA_KEEP];
    ret->chain_name = heap->header->name;
    ret->segment_base = heap->base;
    ret->segment_size = heap->size;
    if (block_find(heap, address, &ref)) {
        ret->block = ref.start;
        ret->block_size = ref.size;
        ret->live = word_state(atomic_load_explicit(ref.word, memory_order_relaxed), ref.epoch) != WORD_FREE;
    }
    return true;
}
