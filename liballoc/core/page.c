#include "core/page.h"

#include <assert.h>

#include "base/error.h"
#include "core/meta.h"
#include "core/misuse.h"
#include "core/size_class.h"
#include "os/os.h"

uint64_t la_free_mark;      /* 0 until the first chain is made: no block is free before */

void page_mark_init(void)
{
    uint64_t none = 0;

    if (__atomic_load_n(&la_free_mark, __ATOMIC_RELAXED) == 0)
        __atomic_compare_exchange_n(&la_free_mark, &none, os_random() | 2, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

/* ---- shadow ---- */

enum { SHADOW_WORDS = 2 };

static size_t shadow_bytes(const struct la_page *page)
{
    return page->capacity * SHADOW_WORDS * sizeof(uint64_t);
}

uint64_t *page_shadow_words(const struct la_page *page, const void *block)
{
    size_t index = page->kind == PAGE_SMALL ? ((uintptr_t)block - page->start) / page->block_size : 0;

    return (uint64_t *)page->mapping + index * SHADOW_WORDS;
}

/* Of one block: two words of the page itself, which a large page has no use for. */
static void *shadow_inside(struct la_page *page)
{
    return &page->next;
}

_Static_assert(offsetof(struct la_page, prev) - offsetof(struct la_page, next) == sizeof(uint64_t), "two words in a row");

bool page_shadow_make(struct la_page *page)
{
    page->next = page->prev = NULL;
    page->mapping = page->kind == PAGE_SMALL ? la_meta_alloc(shadow_bytes(page)) : shadow_inside(page);
    return page->mapping != NULL;
}

void page_shadow_drop(struct la_page *page)
{
    void *shadow = page->mapping;

    page->mapping = NULL;
    /* A page without its shadow is none: see repair.c. */
    atomic_signal_fence(memory_order_release);
    if (shadow != shadow_inside(page))
        la_meta_free(shadow, shadow_bytes(page));
}

/* ---- blocks ---- */

void page_init_small(struct la_page *page, struct la_chain *chain, unsigned c, uintptr_t start, size_t bytes)
{
    size_t size = class_size(c);

    page->start = start;
    page->block_size = (uint32_t)size;
    page->divisor = page_divisor(size);
    page->bin_offset = (uint16_t)(c * sizeof(struct la_bin));
    page->size_class = (uint8_t)c;
    page->capacity = (uint32_t)(bytes / size);
    page->bump = page->used = page->free_count = 0;
    page->free = page->mapping = NULL;
    page->listed = 0;
    atomic_store_explicit(&page->chain, chain, memory_order_relaxed);
    page_open_to_fast_path(page, chain);
    /* Last: from here on it is a page, also for repair.c. */
    atomic_signal_fence(memory_order_release);
    page->kind = PAGE_SMALL;
}

/* Write after free: the link cannot be trusted any more. Forget the list; its blocks stay allocated. */
static COLD void list_is_corrupt(struct la_page *page, const void *block)
{
    page->used += page->free_count;
    page->free = NULL;
    page->free_count = 0;
    misuse_report(block, "written to after it was freed (its page's list of free blocks is dropped)");
}

/* The lowest @wanted, lowest address last. */
static unsigned take_bits(struct la_page *page, void **out, unsigned wanted)
{
    unsigned n = MIN(wanted, page->free_count);

    for (unsigned i = n; i-- > 0;) {
        unsigned index = (unsigned)__builtin_ctzll(page->free_bits);

        page->free_bits &= page->free_bits - 1;
        out[i] = (void *)(page->start + (size_t)index * page->block_size);
    }
    page->free_count -= n;
    return n;
}

static unsigned take_listed(struct la_page *page, void **out, unsigned wanted)
{
    unsigned n = 0;

    while (n < wanted && page->free_count > 0) {
        void *block = page->free, *next = *page_link(page, block);
        uint64_t *first = page_words(page, block);

        if (unlikely(page->block_size > 8 && *first != ~la_free_mark)) {
            list_is_corrupt(page, block);
            break;
        }
        /* One of 8 bytes must not lose its link while it is on the list: see repair.c. */
        page->free = next;
        atomic_signal_fence(memory_order_release);
        *first = la_free_mark;
        page->free_count--;
        out[n++] = block;
    }
    return n;
}

/*
 * The blocks that come next, of small ones: they were used long ago, if ever, and the processor does not guess them while several classes take turns.
 * (A group of a million objects: 25 ns per object without, 16 with.) Memory that was never touched stays so.
 */
static void fetch_fresh(const struct la_page *page)
{
    enum { AHEAD = 1024, LINE = 64 };
    const char *next = (const char *)page->start + (size_t)page->bump * page->block_size;

    if (page->block_size > AHEAD || page->mapping)
        return;
    for (size_t at = 0; at < AHEAD; at += LINE)
        prefetch_to_write(next + at);
}

/* Blocks that were never handed out. At most a 4 KiB page of them, or a few, for marking them touches it. */
static unsigned take_fresh(struct la_page *page, void **out, unsigned wanted)
{
    enum { FEW = 4 };
    unsigned n = MIN(MIN(wanted, page->capacity - page->bump), MAX(4096u / page->block_size, (unsigned)FEW));
    char *first = (char *)page->start + (size_t)page->bump * page->block_size;

    /* Highest first, so that they are handed out in rising order. */
    for (unsigned i = 0; i < n; i++) {
        void *block = first + (size_t)(n - 1 - i) * page->block_size;

        *page_words(page, block) = la_free_mark;
        out[i] = block;
    }
    /* Not before they carry the mark: see repair.c. */
    atomic_signal_fence(memory_order_release);
    page->bump += n;
    fetch_fresh(page);
    return n;
}

unsigned page_take(struct la_page *page, void **out, unsigned wanted)
{
    unsigned n = page_has_bits(page) ? take_bits(page, out, wanted) : take_listed(page, out, wanted);

    if (n == 0 && page->bump < page->capacity)
        n = take_fresh(page, out, wanted);
    page->used += n;
    return n;
}

/* The block itself is not looked at: what was written to after it was freed is found when it leaves the bin again. */
static bool put_bit(struct la_page *page, const void *block)
{
    uint64_t bit = 1ull << page_block_index(page, block);

    if (unlikely(page->free_bits & bit)) {
        misuse_report(block, "was freed twice: block of %u bytes", page->block_size);
        return false;
    }
    assert(page->used > 0);
    page->free_bits |= bit;
    page->free_count++;
    page->used--;
    return true;
}

bool page_put(struct la_page *page, void *block)
{
    if (page_has_bits(page))
        return put_bit(page, block);
    if (unlikely(!page_block_is_marked(page, block))) {
        misuse_report(block, "was freed twice, or written to after it was freed: block of %u bytes", page->block_size);
        return false;
    }
    assert(page->used > 0);
    *page_words(page, block) = ~la_free_mark;
    *page_link(page, block) = page->free;
    atomic_signal_fence(memory_order_release);
    page->free = block;
    page->free_count++;
    page->used--;
    return true;
}

bool page_block_is_free(const struct la_page *page, const void *block)
{
    size_t index = ((uintptr_t)block - page->start) / page->block_size;
    const void *b = page->free;

    if (index >= page->bump)
        return true;
    if (page_has_bits(page))
        return page->free_bits >> index & 1;
    for (uint32_t i = 0; b && i < page->free_count; i++) {
        if (b == block)
            return true;
        b = *page_link(page, b);
    }
    return false;
}

static const char *check_bits(const struct la_page *page)
{
    if (page->bump < 64 && page->free_bits >> page->bump)
        return "a bit says of a block that was never handed out that it is free";
    return (uint32_t)__builtin_popcountll(page->free_bits) == page->free_count ? NULL : "the bits of free blocks are not as many as their count";
}

const char *page_check(const struct la_page *page)
{
    const void *b = page->free;

    if (page->used + page->free_count + (page->capacity - page->bump) != page->capacity)
        return "used + free + untouched blocks are not the capacity (E1)";
    if (page_has_bits(page))
        return check_bits(page);
    for (uint32_t i = 0; i < page->free_count; i++) {
        if (!b || !page_is_block_start(page, b) || (uintptr_t)b - page->start >= (size_t)page->bump * page->block_size)
            return "a link of the free list leaves the page";
        b = *page_link(page, b);
    }
    return b ? "the free list is longer than its count" : NULL;
}
