/*
 * pool.c - between the bins and the pages.
 *
 * A bin is a stack of pointers in the engine's own memory, so that handing out the youngest free block touches nothing but the
 * stack; the block freed last is the one still in cache (measured: that is what wins random replacement of many
 * live objects). A bin that overflows gives its older half back to the pages; one that is refilled and flushed in turn is too
 * small and grows, up to 4 MiB worth of blocks; one that was left alone for a while is given back bit by bit (scavenge()).
 * The alternative, a list through the blocks, costs a cache miss per allocation; page-local lists alone
 * (mimalloc) hand out colder blocks.
 *
 * Runs (large blocks) have bins of the same kind; behind them are no pages but the macro blocks' slices. What lies in them never makes a chain
 * grow: before it takes a macro block, they are given back (slices_of_own()).
 */
#include "core/pool.h"

#include <assert.h>
#include <string.h>

#include "core/huge.h"
#include "core/macroblock.h"
#include "core/meta.h"
#include "core/misuse.h"
#include "core/page.h"
#include "core/region_map.h"
#include "core/remote_free.h"
#include "core/size_class.h"
#include "core/source.h"
#include "core/thread.h"

enum { FIRST_ROOM = 16, SCAVENGE_EVERY = 32, REFILL_MIN = 24 };

uint64_t la_no_block = 1;    /* no mark: see page_mark_init() */
_Atomic(uint32_t) la_no_word = UINT32_MAX;
/* The empty stack that all closed bins share: has no room. */
void *la_closed_stack[1] = { &la_no_block };

void pool_bins_close(struct la_bin *bins)
{
    for (unsigned c = 0; c < BIN_CLASSES; c++)
        bins[c] = (struct la_bin){ la_closed_stack, la_closed_stack };
}

/* Bytes of a stack with room for @capacity entries. */
static size_t stack_bytes(unsigned capacity, bool with_words)
{
    return (capacity + 1) * sizeof(void *) * (with_words ? 2 : 1);
}

/* Entries of a new bin. Runs: at most a macro block's worth. A shared heap's are known by their state words only. */
static unsigned first_room(unsigned c, bool with_words)
{
    if (c < SMALL_CLASSES)
        return FIRST_ROOM;
    return with_words ? 0 : (unsigned)MIN(MACRO_SIZE / class_size(c), (size_t)FIRST_ROOM);
}

size_t pool_bins_bytes(bool with_words)
{
    size_t bytes = BIN_CLASSES * sizeof(struct la_bin_room);

    for (unsigned c = 0; c < BIN_CLASSES; c++)
        if (first_room(c, with_words) > 0)
            bytes += stack_bytes(first_room(c, with_words), with_words);
    return bytes;
}

/* Where the word of the entry at @entry is said. */
static void **word_slot(const struct la_chain *chain, unsigned c, void **entry)
{
    return (void **)((char *)entry + chain->words[c].distance);
}

/* @base is the bin's stack from now on, with its @n entries. */
static void set_room(struct la_chain *chain, unsigned c, void **base, unsigned capacity, unsigned n)
{
    chain->rooms[c] = (struct la_bin_room){ .base = base, .capacity = capacity };
    chain->bins[c] = (struct la_bin){ base + n, base + capacity };
    base[0] = &la_no_block;
    if (!chain->words)
        return;
    chain->words[c].distance = (ptrdiff_t)((capacity + 1) * sizeof(void *));
    *word_slot(chain, c, base) = &la_no_word;
}

void pool_bins_open(struct la_chain *chain, void *memory)
{
    char *stack = (char *)((struct la_bin_room *)memory + BIN_CLASSES);
    bool with_words = chain->words != NULL;

    chain->rooms = memory;
    for (unsigned c = 0; c < BIN_CLASSES; c++) {
        unsigned room = first_room(c, with_words);

        chain->rooms[c] = (struct la_bin_room){ .base = la_closed_stack };
        if (room == 0)
            continue;
        set_room(chain, c, (void **)stack, room, 0);
        stack += stack_bytes(room, with_words);
    }
}

void pool_bins_release(struct la_chain *chain)
{
    for (unsigned c = 0; chain->rooms && c < BIN_CLASSES; c++)
        if (chain->rooms[c].capacity > first_room(c, chain->words != NULL))
            la_meta_free(chain->rooms[c].base, stack_bytes(chain->rooms[c].capacity, chain->words != NULL));
}

void pool_bins_empty(struct la_chain *chain)
{
    for (unsigned c = 0; chain->rooms && c < BIN_CLASSES; c++)
        chain->bins[c].top = chain->rooms[c].base;
}

unsigned pool_bin_count(const struct la_chain *chain, unsigned c)
{
    return chain->rooms ? (unsigned)(chain->bins[c].top - chain->rooms[c].base) : 0;
}

bool pool_bin_holds(const struct la_chain *chain, unsigned c, const void *block)
{
    for (unsigned i = pool_bin_count(chain, c); i > 0; i--)
        if (chain->rooms[c].base[i] == block)
            return true;
    return false;
}

/* ---- private memory: in band, or by a shadow ---- */

static struct la_page *in_band_page_of(struct la_chain *chain, void *block)
{
    (void)chain;
    return region_page(block);
}

static bool in_band_hand_out(struct la_chain *chain, void *block)
{
    uint64_t *first = chain_is_device_only(chain) ? page_words(region_page(block), block) : block;

    if (unlikely(*first != la_free_mark)) {
        misuse_report(block, "was freed twice, or written to after it was freed: found before it was handed out again");
        return false;
    }
    *first = 0;
    return true;
}

static void in_band_enter(struct la_page *page, void *block, void **entry)
{
    *page_words(page, block) = la_free_mark;
    *entry = block;
}

static unsigned in_band_take(struct la_chain *chain, struct la_page *page, void **out, unsigned wanted)
{
    (void)chain;
    return page_take(page, out, wanted);
}

static bool in_band_page_made(struct la_chain *chain, struct la_page *page)
{
    struct la_segment *s = page->macro->segment;

    if (chain_is_device_only(chain) && !page_shadow_make(page))
        return false;
    if (!segment_is_direct(s) || region_set(slice_address(s, page), page->slices, page))
        return true;
    page_shadow_drop(page);
    return false;
}

static void in_band_page_given(struct la_chain *chain, struct la_page *page)
{
    struct la_segment *s = page->macro->segment;

    (void)chain;
    if (segment_is_direct(s))
        region_clear(slice_address(s, page), page->slices);
    page_shadow_drop(page);
}

static bool in_band_take_macro(struct la_chain *chain, unsigned c, unsigned slices)
{
    return source_take_macro(chain->source, chain, c, slices);
}

static void in_band_give_macro(struct la_chain *chain, struct la_macro *m)
{
    source_give_macro(chain->source, chain, m);
}

static void in_band_slow_call(struct la_chain *chain)
{
    pool_drain(chain);
    remote_flush(chain);
}

const struct la_pool_ops la_pool_in_band = {
    .page_of = in_band_page_of, .hand_out = in_band_hand_out, .enter = in_band_enter, .take = in_band_take, .put = page_put,
    .page_made = in_band_page_made, .page_given = in_band_page_given, .take_macro = in_band_take_macro,
    .give_macro = in_band_give_macro, .slow_call = in_band_slow_call,
};

/* ---- pages on chain->avail ---- */

void pool_list_page(struct la_chain *chain, struct la_page *page)
{
    struct la_page **head = &chain->avail[page->size_class];

    if (page->listed)
        return;
    page->prev = NULL;
    page->next = *head;
    if (*head)
        (*head)->prev = page;
    *head = page;
    page->listed = 1;
}

void pool_unlist_page(struct la_chain *chain, struct la_page *page)
{
    if (!page->listed)
        return;
    if (page->prev)
        page->prev->next = page->next;
    else
        chain->avail[page->size_class] = page->next;
    if (page->next)
        page->next->prev = page->prev;
    page->next = page->prev = NULL;
    page->listed = 0;
}

/*
 * Against thrashing a chain keeps one wholly free macro block, a thread's own chain some more: each that goes to the source and comes back costs four
 * system calls (base/lock.h), half of what its 64 blocks of 32 KiB cost otherwise.
 */
enum { SPARE_MACROS = 4 };

/* Half of them, those that were freed last, stay. */
static void give_spare(struct la_chain *chain)
{
    struct la_macro *m = chain->by_run[SLICES_PER_MACRO], *next;

    /* Once for all of them. */
    signals_hold();
    for (unsigned i = 0; m; i++, m = next) {
        next = m->next;
        if (i >= SPARE_MACROS / 2)
            chain->ops->give_macro(chain, m);
    }
    signals_release();
}

static bool has_more_spare_than(const struct la_chain *chain, unsigned limit)
{
    unsigned n = 0;

    for (const struct la_macro *m = chain->by_run[SLICES_PER_MACRO]; m && n <= limit; m = m->next)
        n++;
    return n > limit;
}

/* A page's slices go back; a wholly free macro block too, if the chain has spare ones. */
void pool_give_page(struct la_chain *chain, struct la_page *page)
{
    struct la_macro *m = page->macro;

    chain->ops->page_given(chain, page);
    slices_give(chain, page);
    if (m->free_slices != m->all_slices || chain->segment)
        return;
    if (chain->kind == CHAIN_THREAD && m->run == SLICES_PER_MACRO) {
        if (has_more_spare_than(chain, SPARE_MACROS))
            give_spare(chain);
    } else if (m->next || m->prev || chain->by_run[m->run] != m) {
        chain->ops->give_macro(chain, m);
    }
}

static void page_got_block(struct la_chain *chain, struct la_page *page)
{
    pool_list_page(chain, page);
    if (page->used > 0 || (chain->avail[page->size_class] == page && !page->next))
        return;
    pool_unlist_page(chain, page);
    pool_give_page(chain, page);
}

/* ---- out of the bins ---- */

static void give_small(struct la_chain *chain, void *block)
{
    struct la_page *page = chain->ops->page_of(chain, block);

    if (chain->ops->put(page, block))
        page_got_block(chain, page);
}

static void free_large(struct la_chain *chain, struct la_page *page)
{
    page->free_count = 1;   /* for repair.c; not used == 0, which says the same of a block in a queue */
    atomic_signal_fence(memory_order_release);
    chain->large_live--;
    chain->large_bytes -= (uint64_t)page->slices << chain->slice_shift;
    pool_give_page(chain, page);
}

/* Twice in the bin, its page may be another by now. */
static void give_large(struct la_chain *chain, void *block)
{
    struct la_page *page = region_page(block);

    if (likely(page && page->kind == PAGE_LARGE && page->start == (uintptr_t)block && page_block_is_marked(page, block)))
        free_large(chain, page);
    else
        misuse_report(block, "was freed twice, or written to after it was freed");
}

/* The oldest @n, which lie at the bottom, go back. */
static void flush(struct la_chain *chain, unsigned c, unsigned n)
{
    struct la_bin_room *room = &chain->rooms[c];
    struct la_bin *bin = &chain->bins[c];

    if (n == 0)
        return;
    for (unsigned i = 1; i <= n; i++)
        if (c < SMALL_CLASSES)
            give_small(chain, room->base[i]);
        else
            give_large(chain, room->base[i]);
    bin->top -= n;
    memmove(room->base + 1, room->base + 1 + n, (size_t)(bin->top - room->base) * sizeof(void *));
    if (chain->words)
        memmove(word_slot(chain, c, room->base + 1), word_slot(chain, c, room->base + 1 + n),
                (size_t)(bin->top - room->base) * sizeof(void *));
}

/* Not with smaller slices, whose runs are of other sizes. */
static bool has_run_bins(const struct la_chain *chain)
{
    return chain->rooms && !chain->words && chain->slice_shift == SLICE_SHIFT;
}

/* The bins of runs; true: something was there. */
static bool flush_runs(struct la_chain *chain)
{
    bool any = false;

    for (unsigned c = SMALL_CLASSES; has_run_bins(chain) && c < BIN_CLASSES; c++) {
        unsigned n = pool_bin_count(chain, c);

        any |= n > 0;
        flush(chain, c, n);
    }
    return any;
}

/* ---- pages from slices ---- */

/* Without a further macro block. */
static struct la_page *slices_of_own(struct la_chain *chain, unsigned n, unsigned step)
{
    struct la_page *page = slices_take(chain, n, step);

    return page || !flush_runs(chain) ? page : slices_take(chain, n, step);
}

/* The page leads chain->avail[c] and lies in the region map. */
static struct la_page *make_page(struct la_chain *chain, unsigned c, unsigned slices)
{
    struct la_page *page = slices_of_own(chain, slices, 1);
    struct la_segment *s;

    if (!page)
        return NULL;
    s = page->macro->segment;
    page_init_small(page, chain, c, slice_address(s, page), (size_t)slices << s->slice_shift);
    if (!chain->ops->page_made(chain, page)) {
        slices_give(chain, page);
        return NULL;
    }
    pool_list_page(chain, page);
    return page;
}

static unsigned page_slices(const struct la_chain *chain, unsigned c)
{
    return chain->slice_shift == SLICE_SHIFT ? class_page_slices(c) : 1;
}

static struct la_page *new_page(struct la_chain *chain, unsigned c)
{
    unsigned slices = page_slices(chain, c);
    struct la_page *page = make_page(chain, c, slices);

    /* Twice: out of band, the first try may have used its slice for state words. */
    if (!page)
        page = make_page(chain, c, slices);
    if (page)
        return page;
    /* Once is the rule. An adopted macro block may have just so much room that state words take it. */
    for (int tries = 0; tries < 4 && !page && chain->ops->take_macro(chain, c, slices); tries++) {
        if (chain->avail[c])
            return chain->avail[c];     /* adopted */
        for (int i = 0; i < 2 && !page; i++)
            page = make_page(chain, c, slices);
    }
    /* A user buffer that is nearly full may still have room for a shorter page. */
    while (!page && slices > 1 && ((size_t)(slices / 2) << chain->slice_shift) >= class_size(c)) {
        slices /= 2;
        page = make_page(chain, c, slices);
    }
    return page;
}

/* ---- bins ---- */

static unsigned room_limit(unsigned c)
{
    size_t n = 4 * MiB / class_size(c);

    return (unsigned)(c < SMALL_CLASSES ? MIN(MAX(n, (size_t)64), (size_t)2048) : n);
}

static bool grow_room_held(struct la_chain *chain, unsigned c)
{
    struct la_bin_room old = chain->rooms[c];
    unsigned n = pool_bin_count(chain, c), capacity = MIN(old.capacity * 2, room_limit(c));
    void **old_words = chain->words ? word_slot(chain, c, old.base) : NULL;
    void **base;

    if (capacity <= old.capacity || chain->segment)
        return false;
    base = la_meta_alloc(stack_bytes(capacity, chain->words != NULL));
    if (!base)
        return false;
    set_room(chain, c, base, capacity, n);
    memcpy(base + 1, old.base + 1, n * sizeof(void *));
    if (chain->words)
        memcpy(word_slot(chain, c, base + 1), old_words + 1, n * sizeof(void *));
    if (old.capacity > first_room(c, chain->words != NULL))
        la_meta_free(old.base, stack_bytes(old.capacity, chain->words != NULL));
    return true;
}

/* No handler jumps out of it: the bin would have the top of one stack and the base of another. */
static bool grow_room(struct la_chain *chain, unsigned c)
{
    bool grown;

    signals_hold();
    grown = grow_room_held(chain, c);
    signals_release();
    return grown;
}

/* Once in a while look at one bin: what has not moved since the last visit goes back, half of it at a time. */
static void scavenge(struct la_chain *chain)
{
    unsigned c = chain->scavenge_at;
    struct la_bin_room *room = &chain->rooms[c];
    unsigned n = pool_bin_count(chain, c);

    chain->scavenge_at = (c + 1) % BIN_CLASSES;
    if (n > 0 && room->idle_top == (void *)chain->bins[c].top)
        flush(chain, c, (n + 1) / 2);
    room->idle_top = (void *)chain->bins[c].top;
}

/* The bin takes one more. */
static void make_room(struct la_chain *chain, unsigned c)
{
    struct la_bin_room *room = &chain->rooms[c];

    if (chain->bins[c].top != chain->bins[c].last)
        return;
    if (room->refills > 0 && grow_room(chain, c))
        return;
    room->refills = 0;
    flush(chain, c, (room->capacity + 1) / 2);
}

static void enter_bin(struct la_chain *chain, unsigned c, struct la_page *page, void *block)
{
    make_room(chain, c);
    chain->ops->enter(page, block, ++chain->bins[c].top);
}

static void free_run(struct la_chain *chain, struct la_page *page, void *block)
{
    bool twice;

    if (!has_run_bins(chain)) {
        free_large(chain, page);
        return;
    }
    /* Its owner freed it before a thread that saw no bin did. Whoever frees it has claimed it: what lies in the bin can be claimed again. */
    twice = pool_bin_holds(chain, page->size_class, block);
    if (twice)
        *page_words(page, block) = la_free_mark;
    else
        enter_bin(chain, page->size_class, page, block);
    page->used = 1;
    if (unlikely(twice))
        misuse_report(block, "was freed twice: block of %zu bytes", page->large_size);
}

void pool_free(struct la_chain *chain, struct la_page *page, void *block)
{
    if (page->kind == PAGE_LARGE) {
        free_run(chain, page, block);
    } else if (chain->rooms) {
        enter_bin(chain, page->size_class, page, block);
    } else {
        *page_words(page, block) = la_free_mark;
        page_put(page, block);
        page_got_block(chain, page);
    }
}

void pool_drain(struct la_chain *chain)
{
    struct la_page *page;
    uint64_t n = 0;
    void *block;

    if (!remote_begin_drain(chain))
        return;
    for (; (block = remote_drain(chain, &page)) != NULL; n++)
        if (likely(atomic_load_explicit(&page->chain, memory_order_relaxed) == chain))
            pool_free(chain, page, block);
        else
            remote_free_now(page, block);   /* its page was abandoned or adopted meanwhile */
    if (n)
        atomic_fetch_add_explicit(&chain->remote_frees, n, memory_order_relaxed);
}

static void slow_call(struct la_chain *chain)
{
    chain->ops->slow_call(chain);
    if (++chain->slow_calls % SCAVENGE_EVERY == 0 && chain->rooms)
        scavenge(chain);
}

/* The youngest entry that is a free block indeed. */
static void *pop(struct la_chain *chain, unsigned c)
{
    struct la_bin *bin = &chain->bins[c];

    while (pool_bin_count(chain, c) > 0) {
        void *block = *bin->top--;

        if (likely(chain->ops->hand_out(chain, block)))
            return block;
    }
    return NULL;
}

/* Blocks of @page into the bin, or one straight out (*block) when there are no bins; returns how many. */
static unsigned take_page(struct la_chain *chain, unsigned c, struct la_page *page, void **block)
{
    struct la_bin *bin = &chain->bins[c];
    unsigned n;

    if (chain->rooms) {
        n = chain->ops->take(chain, page, bin->top + 1, MIN(MAX(chain->rooms[c].capacity / 2, 1u), (unsigned)(bin->last - bin->top)));
        bin->top += n;
    } else {
        n = page_take(page, block, 1);
        if (n > 0 && !chain->ops->hand_out(chain, *block))
            *block = NULL;
    }
    if (!page_has_free(page))
        pool_unlist_page(chain, page);
    return n;
}

/* *@out: there is no page to be had. Else NULL says only that this one had nothing. */
static void *take_small(struct la_chain *chain, unsigned c, bool *out)
{
    struct la_page *page = chain->avail[c];
    void *block = NULL;
    unsigned n = 0;

    if (!page)
        page = new_page(chain, c);
    *out = !page;
    /* Where pages have a free block here and there, several share the cost of the slow path. */
    for (; page && n < REFILL_MIN; page = chain->avail[c]) {
        unsigned got = take_page(chain, c, page, &block);

        n += got;
        if (got == 0 || !chain->rooms)
            break;
    }
    chain->taken += n;
    if (chain->rooms && n > 0) {
        chain->rooms[c].refills++;
        block = pop(chain, c);
    }
    return block;
}

void *pool_alloc_small(struct la_chain *chain, unsigned c)
{
    void *block = pop(chain, c);

    if (!block) {
        slow_call(chain);
        block = pop(chain, c);
    }
    /* A page may turn out to have nothing, an adopted one too: its list was corrupt, or (out of band) its free blocks were overestimated. */
    for (bool out = false; !block && !out;)
        block = take_small(chain, c, &out);
    return block;
}

/* ---- large ---- */

static size_t small_limit(const struct la_chain *chain)
{
    return MIN(SMALL_MAX, (size_t)1 << (chain->slice_shift - 1));
}

static size_t macro_limit(const struct la_chain *chain)
{
    return (size_t)SLICES_PER_MACRO << chain->slice_shift;
}

static struct la_page *take_slices(struct la_chain *chain, unsigned n, unsigned step)
{
    struct la_page *page = slices_of_own(chain, n, step);

    if (!page && chain->ops->take_macro(chain, SMALL_CLASSES, n))
        page = slices_take(chain, n, step);
    return page;
}

/* Spread the starts of large blocks over the cache sets, as far as the rounding to slices leaves room. */
static size_t large_colour(struct la_chain *chain, size_t slack)
{
    static const size_t step = 5 * 64, span = 4096;

    return MIN(chain->large_allocated * step % span, slack / 64 * 64);
}

void *pool_fit_large(struct la_page *page, size_t size, size_t alignment)
{
    uintptr_t base = align_down(page->start, SLICE_SIZE);

    if (page->large_size >= size && page->start % alignment == 0)
        return (void *)page->start;
    /* What has stood there since it was some block's first word is no mark of this one. */
    *page_words(page, (void *)base) = 0;
    atomic_signal_fence(memory_order_release);
    page->large_size += page->start - base;
    page->start = base;
    return (void *)base;
}

static void *take_binned(struct la_chain *chain, unsigned n, size_t size, size_t alignment)
{
    void *block = pop(chain, class_of_run(n));

    return block ? pool_fit_large(region_page(block), size, alignment) : NULL;
}

static void set_run_class(struct la_page *page)
{
    page->size_class = (uint8_t)class_of_run(page->slices);
    page->bin_offset = (uint16_t)(page->size_class * sizeof(struct la_bin));
}

/* @page has @n slices and is nothing yet. */
static void *make_large(struct la_chain *chain, struct la_page *page, size_t size, size_t alignment)
{
    uintptr_t base = slice_address(page->macro->segment, page);
    size_t total = (size_t)page->slices << chain->slice_shift;

    page->start = align_up(base, alignment);
    if (alignment <= 64 && chain->kind != CHAIN_LANE)
        page->start += large_colour(chain, total - size - (page->start - base));
    page->large_size = total - (page->start - base);
    page->block_size = 0;
    page->divisor = 0;
    page->capacity = page->bump = page->used = 1;
    page->free_count = page->listed = 0;
    page->mapping = NULL;
    set_run_class(page);
    atomic_store_explicit(&page->chain, chain, memory_order_relaxed);
    atomic_store_explicit(&page->fast_chain, NULL, memory_order_relaxed);
    atomic_signal_fence(memory_order_release);
    page->kind = PAGE_LARGE;    /* last: see repair.c */
    if (!chain->ops->page_made(chain, page)) {
        slices_give(chain, page);
        return NULL;
    }
    chain->large_allocated++;
    chain->large_live++;
    chain->large_bytes += total;
    if (chain->kind != CHAIN_LANE) {
        *page_words(page, (void *)page->start) = 0;
        page_open_to_fast_path(page, chain);
    }
    return (void *)page->start;
}

void *pool_alloc_large(struct la_chain *chain, size_t size, size_t alignment)
{
    size_t slice = (size_t)1 << chain->slice_shift;
    size_t padding = alignment > 64 ? alignment - 1 : 0;
    unsigned n = (unsigned)((size + padding + slice - 1) >> chain->slice_shift);
    unsigned step = 1;
    bool binned = has_run_bins(chain) && alignment <= SLICE_SIZE;
    struct la_page *page;
    void *block;

    /* 64 KiB slices are aligned to their size, and in shared heaps macro blocks to theirs: no padding needed. */
    if (chain->slice_shift == SLICE_SHIFT && (alignment <= SLICE_SIZE || chain->kind == CHAIN_LANE)) {
        n = (unsigned)((size + slice - 1) >> chain->slice_shift);
        step = (unsigned)MAX(alignment >> SLICE_SHIFT, (size_t)1);
    }
    block = binned ? take_binned(chain, n, size, alignment) : NULL;
    if (block)
        return block;
    slow_call(chain);
    block = binned ? take_binned(chain, n, size, alignment) : NULL;
    if (block)
        return block;
    page = take_slices(chain, n, step);
    if (binned)
        chain->rooms[class_of_run(n)].refills++;
    return page ? make_large(chain, page, size, alignment) : NULL;
}

bool pool_resize_large(struct la_chain *chain, struct la_page *page, size_t size)
{
    uintptr_t base = slice_address(page->macro->segment, page);
    size_t offset = page->start - base, total;
    unsigned n = (unsigned)((offset + size + ((size_t)1 << chain->slice_shift) - 1) >> chain->slice_shift);

    if (size > macro_limit(chain) || n > SLICES_PER_MACRO || !slices_resize(chain, page, n))
        return false;
    set_run_class(page);
    total = ((size_t)n << chain->slice_shift) - offset;
    chain->large_bytes += total - page->large_size;
    page->large_size = total;
    return true;
}

void *pool_alloc(struct la_chain *chain, size_t size, bool *zeroed)
{
    *zeroed = false;
    if (size <= small_limit(chain))
        return pool_alloc_small(chain, class_of(size));
    if (size <= macro_limit(chain))
        return pool_alloc_large(chain, size, 16);
    if (size > PTRDIFF_MAX)
        return NULL;
    slow_call(chain);
    return huge_alloc(chain, size, 64, zeroed);
}

/* A class whose blocks all are multiples of @alignment, from a page that starts at one. */
static void *alloc_aligned_small(struct la_chain *chain, size_t alignment, size_t size)
{
    if (chain->slice_shift != SLICE_SHIFT || alignment > SMALL_MAX)
        return NULL;
    for (unsigned c = class_of(MAX(size, alignment)); c < SMALL_CLASSES; c++)
        if (class_size(c) % alignment == 0)
            return pool_alloc_small(chain, c);
    return NULL;
}

void *pool_alloc_aligned(struct la_chain *chain, size_t alignment, size_t size)
{
    bool zeroed;
    void *block = NULL;

    if (alignment <= 16)
        return pool_alloc(chain, MAX(size, alignment), &zeroed);
    if (size > PTRDIFF_MAX || alignment > PTRDIFF_MAX / 2)
        return NULL;
    if (MAX(size, alignment) <= small_limit(chain))
        block = alloc_aligned_small(chain, alignment, size);
    if (!block && size + alignment <= macro_limit(chain))
        block = pool_alloc_large(chain, MAX(size, (size_t)1), alignment);
    if (!block) {
        slow_call(chain);
        block = huge_alloc(chain, size, alignment, &zeroed);
    }
    return block;
}

void pool_flush_all(struct la_chain *chain)
{
    chain->ops->slow_call(chain);
    flush_runs(chain);
    for (unsigned c = 0; c < SMALL_CLASSES; c++) {
        if (chain->rooms)
            flush(chain, c, pool_bin_count(chain, c));
        for (struct la_page *page = chain->avail[c], *next; page; page = next) {
            next = page->next;
            if (page->used == 0 && chain->kind != CHAIN_LANE) {     /* kept against thrashing */
                pool_unlist_page(chain, page);
                pool_give_page(chain, page);
            }
        }
    }
    for (struct la_macro *m = chain->macros, *next; m; m = next) {
        next = m->chain_next;
        if (m->free_slices == m->all_slices)
            chain->ops->give_macro(chain, m);
    }
}

void pool_trim_own(void)
{
    struct slow_path slow;

    if (!la_tls_own || thread_is_in_slow_path())
        return;
    slow_begin(&slow);
    slow_work_on(la_tls_own);
    pool_flush_all(la_tls_own);
    slow_end(&slow);
}
