/*
 * shared_pool.c - the out-of-band half of the pool: pages, macro blocks and blocks of a shared heap, for one lane.
 *
 * The pool (pool.c) runs unchanged over private views: struct la_macro and struct la_page in this process's memory, one per macro
 * block and slice of the heap, filled for what its lanes own. The truth is in the heap: the macro block's owner word, the page
 * word of each slice, the state word of each block (shared_layout.h). Views can be rebuilt from it at any time (adopt()).
 *
 * A page's free blocks are simply the ones whose word says FREE; no list has to be kept, and what another process frees is
 * found by looking. To look only where something was freed, a page has 32 parts: the owner keeps a mask of those that may have free
 * blocks, and others leave hints, one byte per 2 KiB of payload, and a flag for the macro block (R5). A refill looks at the flags of
 * a bounded number of macro blocks.
 *
 * The fields of struct la_page in a view:
 *   mapping     the page's state words
 *   free_count  mask of parts to look at (so that page_has_free() is right)
 *   used        1 + index of the first block not looked at yet in the lowest of them; never 0: pool.c gives no page back
 *   bump        == capacity
 *   large_size  what a state word says of a block of the page that is HEAP: epoch and state
 * A bin holds blocks whose words are FREE, too. A page is looked at only when the bin of its class is empty, so a block is
 * never listed twice. (drain, flush and the scavenger only ever take from bins.)
 *
 * Order of stores, for a death between any two (R11): a page exists from the store of its page word on; before that its state
 * words are made FREE. A block is allocated by the store of its state word. Recovery frees by the words alone.
 */
#include "core/shared_pool.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "core/lane.h"
#include "core/macroblock.h"
#include "core/page.h"
#include "core/region_map.h"
#include "core/shared_fast.h"
#include "core/shared_macro.h"
#include "core/size_class.h"
#include "core/trail.h"

enum { SWEEP_MACROS = 4 };
#define PARTS 32u
#define ALL_PARTS UINT32_MAX

_Static_assert(PARTS == (unsigned)HINTS_PER_SLICE, "in a page of one slice each hint byte is a part");

static struct lane *lane_of(struct la_chain *chain)
{
    return chain->owner_data;
}

/* ---- pages ---- */

struct la_page *lane_page_of(struct la_chain *chain, void *block)
{
    struct la_heap *heap = lane_of(chain)->heap;
    size_t slice = (size_t)((char *)block - heap->payload) >> SLICE_SHIFT;
    struct la_page *page = &heap->segment.pages[slice];

    /* Views of continued slices lead back to the head: only pages of more than one slice need it. */
    while (page->kind == PAGE_NONE && page > heap->segment.pages)
        page--;
    return page;
}

static bool lane_hand_out(struct la_chain *chain, void *block)
{
    (void)chain;
    (void)block;    /* whoever claims its state word sees whether it is free */
    return true;
}

static unsigned resume_index(const struct la_page *page)
{
    return page->used - 1;
}

static unsigned page_epoch(const struct la_page *page)
{
    return word_epoch(lane_page_heap_bits(page));
}

_Atomic(word_t) *lane_page_word(const struct la_page *page, const void *block)
{
    return lane_page_words(page) + quotient((uintptr_t)block - page->start, page->divisor);
}

static void make_entry(struct la_page *page, void *block, _Atomic(word_t) *word, void **entry)
{
    struct la_chain *chain = atomic_load_explicit(&page->chain, memory_order_relaxed);

    *entry = block;
    *word_slot(chain, page->bin_offset, entry) = word;
}

static void lane_enter_bin(struct la_page *page, void *block, void **entry)
{
    make_entry(page, block, lane_page_word(page, block), entry);
}

/*
 * Every word of the page is FREE; the bin of its class must be empty. Acquire: pairs with the release in block_release(): who freed a block has looked at
 * the page for the last time before the page becomes another.
 */
static bool page_is_empty(const struct la_page *page)
{
    const _Atomic(word_t) *words = lane_page_words(page);

    for (uint32_t i = 0; i < page->capacity; i++)
        if (word_state(atomic_load_explicit(&words[i], memory_order_acquire), page_epoch(page)) != WORD_FREE)
            return false;
    return true;
}

/* The first block that begins in or behind a part of the page. */
static size_t part_start(const struct la_page *page, unsigned part)
{
    size_t bytes = (size_t)page->slices * (SLICE_SIZE / PARTS);

    return MIN(quotient(part * bytes + page->block_size - 1, page->divisor), (size_t)page->capacity);
}

/*
 * Past words in use, eight at a time; where it stops there may be a free one. Not atomic: only a glance, the caller looks again. By
 * vectors: most words of a busy heap are in use, and one by one they were half of the time of a refill.
 */
__attribute__((no_sanitize("thread"))) static size_t skip_used(const _Atomic(word_t) *words, size_t at, size_t end, unsigned epoch)
{
    typedef int32_t four __attribute__((vector_size(16), aligned(4), may_alias));
    typedef uint64_t two __attribute__((vector_size(16)));
    const int32_t here = (int32_t)word_make(0, epoch, WORD_FREE, 0), meaning = WORD_MEANING_MASK & ~((1 << WORD_LANE_BITS) - 1);

    for (; at + 8 <= end; at += 8) {
        four a = (*(const four *)&words[at] ^ here) & meaning, b = (*(const four *)&words[at + 4] ^ here) & meaning;
        two free = (two)((a == 0) | (a > WORD_STATE_MASK) | (b == 0) | (b > WORD_STATE_MASK));

        if (free[0] | free[1])
            break;
    }
    return at;
}

static unsigned look_at_part(struct la_page *page, unsigned part, void **out, unsigned wanted)
{
    _Atomic(word_t) *words = lane_page_words(page);
    size_t at = MAX(part_start(page, part), (size_t)resume_index(page)), end = part_start(page, part + 1);
    unsigned n = 0, epoch = page_epoch(page);

    while (at < end && n < wanted) {
        word_t w = atomic_load_explicit(&words[at], memory_order_relaxed);

        if (word_state(w, epoch) != WORD_FREE) {
            at = skip_used(words, at + 1, end, epoch);
            continue;
        }
        /* Free by its epoch only: from now on by its state, as word_claim() wants it. */
        if (unlikely(word_epoch(w) != epoch))
            atomic_store_explicit(&words[at], word_make(word_generation(w), epoch, WORD_FREE, 0), memory_order_relaxed);
        make_entry(page, (char *)page->start + at * page->block_size, &words[at], &out[n++]);
        at++;
    }
    page->used = 1 + (uint32_t)at;
    if (at >= end) {
        page->free_count &= ~(1u << part);
        page->used = 1;
    }
    return n;
}

static void count_out(struct lane *lane, int64_t bytes)
{
    lane->out += bytes;
    lane->most_out = MAX(lane->most_out, lane->out);
}

static void swap(void **a, void **b)
{
    void *kept = *a;

    *a = *b;
    *b = kept;
}

static unsigned lane_take(struct la_chain *chain, struct la_page *page, void **out, unsigned wanted)
{
    unsigned n = 0;

    /*
     * Handed in again whole: if another page serves the class, give this one back. Not in the second round of a refill: its blocks may be in
     * the bin since the first, and what others freed in between makes it look empty.
     */
    if (pool_bin_count(chain, page->size_class) == 0 && page->free_count == ALL_PARTS && page->free &&
        (chain->avail[page->size_class] != page || page->next) && page_is_empty(page)) {
        pool_unlist_page(chain, page);
        pool_give_page(chain, page);
        return 0;
    }
    page->free = page;      /* no longer fresh */
    while (n < wanted && page->free_count)
        n += look_at_part(page, (unsigned)__builtin_ctz(page->free_count), out + n, wanted - n);
    /* Lowest on top. */
    for (unsigned i = 0; i < n / 2; i++) {
        swap(&out[i], &out[n - 1 - i]);
        swap((void **)word_slot(chain, page->bin_offset, &out[i]), (void **)word_slot(chain, page->bin_offset, &out[n - 1 - i]));
    }
    trail_earn(lane_of(chain), n);
    count_out(lane_of(chain), (int64_t)n * page->block_size);
    return n;
}

/* These parts are to be looked at from their start again. */
static void reopen(struct la_page *page, uint32_t mask)
{
    page->free_count |= mask;
    page->used = 1;
}

/* The part that a hint byte of the page belongs to. */
static unsigned part_of(const struct la_page *page, size_t hint)
{
    return (unsigned)(page->slices == 1 ? hint : hint / page->slices);
}

static bool lane_put(struct la_page *page, void *block)
{
    struct la_chain *chain = atomic_load_explicit(&page->chain, memory_order_relaxed);

    count_out(lane_of(chain), -(int64_t)page->block_size);
    reopen(page, 1u << part_of(page, ((uintptr_t)block - page->start) >> HINT_SHIFT));
    return true;
}

/* ---- making pages ---- */

static unsigned granules_for(size_t words)
{
    return (unsigned)((words + WORDS_PER_GRANULE - 1) / WORDS_PER_GRANULE);
}

/* Marks the granules that the macro block's pages use. */
static void map_words(struct la_heap *heap, uint32_t macro, uint64_t *used, uint32_t *word_slices)
{
    *word_slices = 0;
    for (unsigned i = 0; i < SLICES_PER_MACRO; i++) {
        slice_t page = atomic_load_explicit(&slice_of(heap, macro, i)->page, memory_order_relaxed);
        struct block_ref ref;

        if (slice_kind(page) == SLICE_WORDS)
            *word_slices |= 1u << i;
        if (slice_kind(page) != SLICE_SMALL)
            continue;
        for (unsigned g = slice_words(page), end = g + granules_for(block_first(heap, macro, i, page, &ref)); g < end; g++)
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
    page->kind = PAGE_LANE;
    page->mapping = (void *)words_at(heap, page->macro->index, granule);
    page->large_size = word_make(0, epoch, WORD_HEAP, 0);
    page->free_count = ALL_PARTS;
    page->bump = page->capacity;
    page->used = 1;
    page->free = NULL;
    /* From now on free() is led straight here; without memory for the map it takes the longer way. */
    region_set(page->start, page->slices, page);
}

static bool lane_page_made(struct la_chain *chain, struct la_page *page)
{
    struct la_heap *heap = lane_of(chain)->heap;
    struct la_macro *m = page->macro;
    unsigned at = (unsigned)(page - macro_page(m, 0));
    struct heap_slice *slice = slice_of(heap, m->index, at);
    unsigned epoch = slice_epoch(atomic_load_explicit(&slice->page, memory_order_relaxed));
    int granule;

    if (page->kind == PAGE_LARGE) {
        clean_words(run_word(slice), 1, epoch);
        make_page_word(heap, page, slice_make(SLICE_LARGE, 0, page->slices, epoch, 0));
        return true;
    }
    granule = get_words(chain, page, granules_for(page->capacity));
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

    if (page->kind == PAGE_LANE)
        region_clear(page->start, page->slices);
    atomic_store_explicit(&page->chain, NULL, memory_order_relaxed);
    atomic_store_explicit(&slice->page, slice_make(SLICE_FREE, 0, 0, epoch, 0), memory_order_release);
    for (unsigned i = 1; i < page->slices; i++)
        atomic_store_explicit(&(slice + i)->page, 0, memory_order_relaxed);
}

/* ---- macro blocks ---- */

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
    struct block_ref ref;
    uint32_t covered = 0;

    *m = (struct la_macro){ .segment = &heap->segment, .index = macro, .state = MACRO_OWNED, .all_slices = UINT32_MAX, .dirty = 1 };
    for (unsigned i = 0; i < SLICES_PER_MACRO; i++) {
        slice_t word = atomic_load_explicit(&slice_of(heap, macro, i)->page, memory_order_acquire);
        struct la_page *page = macro_page(m, i);

        if (page->kind == PAGE_LANE)
            region_clear((uintptr_t)slice_memory(heap, macro, i), 1);
        page->kind = PAGE_NONE;
        page->macro = m;
        page->listed = 0;
        atomic_store_explicit(&page->fast_chain, NULL, memory_order_relaxed);
        if (slice_kind(word) == SLICE_WORDS) {
            m->all_slices &= ~(1u << i);
        } else if ((slice_kind(word) == SLICE_SMALL || slice_kind(word) == SLICE_LARGE) &&
                   (block_first(heap, macro, i, word, &ref) == 0 || (covered & bits_run(i, slice_count(word))))) {
            /* Two views of one block would be the end of both. */
            heap_quarantine(heap, "a page word makes no sense");
            covered |= 1u << i;
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
    uint32_t rows = heap_rows(heap);

    pool_bins_empty(chain);
    memset(chain->avail, 0, sizeof(chain->avail));
    memset(chain->by_run, 0, sizeof(chain->by_run));
    chain->run_mask = 0;
    chain->macros = NULL;
    chain->macro_count = 0;
    chain->large_live = chain->large_bytes = 0;
    for (uint32_t i = 0; i < rows; i++)
        if (macro_is_of_lane(heap, i, lane->number))
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
    uint32_t rows = heap_rows(heap);
    /* Acquire: pairs with the release in recover.c; the owner words of what is counted are there. */
    uint32_t count = atomic_load_explicit(&heap->header->abandoned, memory_order_acquire);

    if (count == atomic_load_explicit(&heap->none_abandoned_at, memory_order_relaxed))
        return false;
    for (uint32_t i = 0; i < rows; i++)
        if (atomic_load_explicit(&heap->macros[i].owner, memory_order_relaxed) == owner_make(OWNER_ABANDONED, 0) &&
            macro_claim(heap, i, owner_make(OWNER_ABANDONED, 0), owner_make(OWNER_LANE, lane->number))) {
            trail_forget(heap, i);
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
    atomic_store_explicit(&heap->macros[i].hinted, 0, memory_order_relaxed);
    memset((void *)heap->macros[i].hint, 0, sizeof(heap->macros[i].hint));
    trail_forget(heap, i);
}

/* A row to look at next, also when the tables have to grow for it; -1: none. */
static int64_t next_row(struct la_heap *heap, uint32_t looked)
{
    uint32_t rows = heap_rows(heap);

    if (looked < rows)
        return (atomic_load_explicit(&heap->header->next_macro, memory_order_relaxed) + looked) % rows;
    if (rows == heap->macro_count || !macro_commit_rows(heap, rows + 1024))
        return -1;
    return rows;
}

static bool take_free_held(struct la_chain *chain)
{
    struct lane *lane = lane_of(chain);
    struct la_heap *heap = lane->heap;
    bool memory_is_out = false;
    int64_t i;

    for (uint32_t looked = 0; (i = next_row(heap, looked)) >= 0; looked++) {
        uint32_t macro = (uint32_t)i;

        /* What was given back is still committed, and may lie anywhere. */
        if (memory_is_out && !macro_is_committed(heap, macro))
            continue;
        if (atomic_load_explicit(&heap->macros[macro].owner, memory_order_relaxed) != owner_make(OWNER_NONE, 0) ||
            !macro_claim(heap, macro, owner_make(OWNER_NONE, 0), owner_make(OWNER_CLAIMING, lane->number)))
            continue;
        if (!macro_commit(heap, macro, 1)) {
            macro_set_owner(heap, macro, owner_make(OWNER_NONE, 0));
            memory_is_out = true;
            continue;
        }
        prepare_macro(heap, macro);
        macro_set_owner(heap, macro, owner_make(OWNER_LANE, lane->number));
        atomic_store_explicit(&heap->header->next_macro, macro + 1, memory_order_relaxed);
        view_macro(chain, macro);
        return true;
    }
    if (memory_is_out)
        return false;
    la_fail(-ENOMEM, "heap %s is full: all its %u macro blocks of 2 MiB are in use (each thread that allocates has at least one), and it does not grow "
                     "beyond the size of its creation: create it larger", heap->header->name, heap->macro_count);
    return false;
}

/* No handler jumps out of it and leaves a macro block CLAIMING. */
static bool take_free(struct la_chain *chain)
{
    bool ok;

    signals_hold();
    ok = take_free_held(chain);
    signals_release();
    return ok;
}

/* The large block in @slice may be free. false: that was the last of its macro block, which went back. */
static bool take_large_hint(struct la_chain *chain, struct la_macro *m, unsigned slice, struct la_page *page)
{
    struct la_heap *heap = lane_of(chain)->heap;
    slice_t word = atomic_load_explicit(&slice_of(heap, m->index, slice)->page, memory_order_relaxed);

    if (run_is_free(heap, m->index, slice, slice_epoch(word)))
        pool_free(chain, page, (void *)page->start);
    return m->chain == chain;
}

/* The hints of one slice as a mask; they are cleared. */
static uint32_t collect(struct heap_macro *macro, unsigned slice)
{
    _Atomic(uint8_t) *hints = &macro->hint[slice * HINTS_PER_SLICE];
    uint32_t mask = 0;

    for (unsigned i = 0; i < HINTS_PER_SLICE; i += sizeof(uint64_t)) {
        /* Eight at a time to see that there is none: a glance, no more. */
        if (__atomic_load_n((uint64_t *)&hints[i], __ATOMIC_RELAXED) == 0)
            continue;
        for (unsigned k = i; k < i + sizeof(uint64_t); k++)
            if (atomic_load_explicit(&hints[k], memory_order_relaxed)) {
                atomic_store_explicit(&hints[k], 0, memory_order_relaxed);
                mask |= 1u << k;
            }
    }
    return mask;
}

/* Blocks were freed behind these hints of the slice: their page is looked at there. */
static void take_small_hints(struct la_chain *chain, struct la_page *page, uint32_t mask, size_t first)
{
    uint32_t parts = mask;

    if (page->slices > 1) {
        parts = 0;
        for (; mask; mask &= mask - 1)
            parts |= 1u << part_of(page, first + (unsigned)__builtin_ctz(mask));
    }
    reopen(page, parts);
    pool_list_page(chain, page);
    for (; parts; parts &= parts - 1)
        __builtin_prefetch((void *)&lane_page_words(page)[part_start(page, (unsigned)__builtin_ctz(parts))], 1);
}

/*
 * What others freed in @m. Each freer makes the word FREE, then sets the byte, then the flag; we clear the flag, then the bytes, then
 * look at the words. A store of ours that hides one of theirs comes after it, and what it announced is visible to loads after the fence.
 */
static bool take_hints(struct la_chain *chain, struct la_macro *m)
{
    struct heap_macro *macro = &lane_of(chain)->heap->macros[m->index];
    uint32_t masks[SLICES_PER_MACRO];

    if (!atomic_load_explicit(&macro->hinted, memory_order_relaxed))
        return false;
    atomic_store_explicit(&macro->hinted, 0, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
    for (unsigned i = 0; i < SLICES_PER_MACRO; i++)
        masks[i] = collect(macro, i);
    atomic_thread_fence(memory_order_seq_cst);
    for (unsigned i = 0; i < SLICES_PER_MACRO; i++) {
        struct la_page *page = macro_page(m, i);
        unsigned head = i;

        if (!masks[i])
            continue;
        while (page->kind == PAGE_NONE && head > 0)
            page = macro_page(m, --head);
        if (page->kind == PAGE_LANE && i - head < page->slices)
            take_small_hints(chain, page, masks[i], (size_t)(i - head) * HINTS_PER_SLICE);
        else if (page->kind == PAGE_LARGE && head == i && !take_large_hint(chain, m, i, page))
            break;
    }
    return true;
}

static struct la_macro *next_to_sweep(struct la_chain *chain)
{
    struct lane *lane = lane_of(chain);
    struct la_heap *heap = lane->heap;
    struct la_macro *last = &heap->segment.macros[lane->sweep_at], *m = chain->macros;

    /* Given back since: another thread may be making its own view of it. */
    if (macro_is_of_lane(heap, lane->sweep_at, lane->number) && last->chain == chain && last->chain_next)
        m = last->chain_next;
    lane->sweep_at = m->index;
    return m;
}

/*
 * Somebody has got no memory lately. What this lane has and does not use is given back, but not again and again in a heap that is simply full: a trim
 * looks at every page.
 */
static void share_with_the_starved(struct la_chain *chain)
{
    enum { SLOW_CALLS_PER_MACRO = 16 };
    struct lane *lane = lane_of(chain);
    uint32_t starved = atomic_load_explicit(&lane->heap->header->starved, memory_order_relaxed);

    lane->slow_calls++;
    if (likely(starved == lane->starved_seen) || lane->slow_calls < SLOW_CALLS_PER_MACRO * chain->macro_count)
        return;
    lane->starved_seen = starved;
    lane->slow_calls = 0;
    lane_trim(chain);
}

/* Look at the flags of a few of the lane's macro blocks, in turn, until one has hints. */
static void lane_slow_call(struct la_chain *chain)
{
    share_with_the_starved(chain);
    trail_wipe(lane_of(chain));
    for (unsigned n = SWEEP_MACROS; n > 0 && chain->macros; n--)
        if (take_hints(chain, next_to_sweep(chain)))
            return;
}

static void take_all_hints(struct la_chain *chain)
{
    for (uint32_t n = chain->macro_count; n > 0 && chain->macros; n--)
        take_hints(chain, next_to_sweep(chain));
}

/*
 * The thread's fast paths were interrupted since the last time: a free block may be in no bin, and no hint says where. What is in bins now is not
 * found a second time, as pages are looked at when the bin is empty.
 */
static void look_for_left_out(struct la_chain *chain)
{
    struct lane *lane = lane_of(chain);

    if (lane->restarts_seen == la_tls_restarts)
        return;
    lane->restarts_seen = la_tls_restarts;
    for (struct la_macro *m = chain->macros; m; m = m->chain_next)
        for (unsigned i = 0; i < SLICES_PER_MACRO; i++) {
            struct la_page *page = macro_page(m, i);

            if (page->kind != PAGE_LANE)
                continue;
            reopen(page, ALL_PARTS);
            pool_list_page(chain, page);
        }
}

static void give_empty_pages(struct la_chain *chain, struct la_macro *m)
{
    for (unsigned i = 0; i < SLICES_PER_MACRO && m->chain == chain; i++) {
        struct la_page *page = macro_page(m, i);

        /* Not listed: nothing of it is free. */
        if (page->kind != PAGE_LANE || !page->listed || !page_is_empty(page))
            continue;
        pool_unlist_page(chain, page);
        pool_give_page(chain, page);
    }
}

void lane_trim(struct la_chain *chain)
{
    struct lane *lane = lane_of(chain);

    take_all_hints(chain);
    pool_flush_all(chain);
    for (struct la_macro *m = chain->macros, *next; m; m = next) {
        next = m->chain_next;
        give_empty_pages(chain, m);
        if (m->chain == chain && m->free_slices == m->all_slices)
            chain->ops->give_macro(chain, m);
    }
    lane->most_out = lane->out;
}

/*
 * Half of what was handed out has come back, and it is an eighth of the heap: there are pages and macro blocks for others, and this lane may never allocate
 * again. What others free is not counted: it is looked at when the lane needs memory, or somebody starves.
 */
void lane_give_surplus(struct la_chain *chain)
{
    struct lane *lane = lane_of(chain);
    int64_t back = lane->most_out - lane->out, worth_a_look = (int64_t)MAX(lane->heap->size / 8, 2 * MACRO_SIZE);

    if (unlikely(back >= worth_a_look && back >= lane->most_out / 2))
        lane_trim(chain);
}

void lane_starves(struct lane *lane)
{
    lane->starved_seen = atomic_fetch_add_explicit(&lane->heap->header->starved, 1, memory_order_relaxed) + 1;
}

static bool has_room(const struct la_chain *chain, unsigned c, unsigned slices)
{
    return (c < SMALL_CLASSES && chain->avail[c]) || chain->run_mask >> slices != 0;
}

static bool lane_take_macro(struct la_chain *chain, unsigned c, unsigned slices)
{
    if (heap_is_quarantined(lane_of(chain)->heap))
        return false;
    /* What is adopted may be full. */
    while (adopt(chain))
        if (has_room(chain, c, slices))
            return true;
    if (take_free(chain))
        return true;
    /* Full: now every hint counts, every block that was left out, and every page that could serve another size. */
    take_all_hints(chain);
    look_for_left_out(chain);
    if (c < SMALL_CLASSES && chain->avail[c])
        return true;
    lane_trim(chain);
    if (chain->run_mask >> slices == 0 && take_free(chain))
        return true;
    if (has_room(chain, c, slices))
        return true;
    lane_starves(lane_of(chain));
    return false;
}

static void lane_give_macro(struct la_chain *chain, struct la_macro *m)
{
    macro_leave(chain, m);
    m->chain = NULL;
    macro_release(lane_of(chain)->heap, m->index);
}

const struct la_pool_ops lane_pool_ops = {
    .page_of = lane_page_of, .hand_out = lane_hand_out, .enter = lane_enter_bin, .take = lane_take, .put = lane_put,
    .page_made = lane_page_made, .page_given = lane_page_given, .take_macro = lane_take_macro,
    .give_macro = lane_give_macro, .slow_call = lane_slow_call,
};
