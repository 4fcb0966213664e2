#include "core/shared_block.h"

#include "core/page.h"
#include "core/size_class.h"

struct block_class la_block_classes[SMALL_CLASSES];

__attribute__((constructor)) static void init_classes(void)
{
    for (unsigned c = 0; c < SMALL_CLASSES; c++) {
        la_block_classes[c].size = class_size(c);
        la_block_classes[c].divisor = page_divisor(class_size(c));
    }
}

static bool find_small(struct la_heap *heap, slice_t page, size_t offset, struct block_ref *ref)
{
    unsigned c = slice_class(page);
    size_t size, index;

    /* Class 0 is not for shared heaps. */
    if (c == 0 || c >= SMALL_CLASSES || ref->slice + slice_count(page) > SLICES_PER_MACRO ||
        slice_words(page) / GRANULES_PER_SLICE >= SLICES_PER_MACRO)
        return false;
    size = la_block_classes[c].size;
    index = quotient(offset, la_block_classes[c].divisor);
    if ((index + 1) * size > slice_count(page) * SLICE_SIZE || first_word(page) + index >= WORDS_PER_SLICE)
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
    size_t room = SLICES_PER_MACRO * SLICE_SIZE;

    ref->start = slice_memory(heap, ref->macro, ref->slice);
    ref->size = slice_kind(page) == SLICE_LARGE ? slice_count(page) * SLICE_SIZE : (size_t)run_length(slice) * 4096;
    ref->word = run_word(slice);
    ref->epoch = slice_epoch(page);
    if (slice_kind(page) == SLICE_HUGE)
        room = (size_t)(heap->macro_count - ref->macro) * MACRO_SIZE;
    return ref->size <= room - ref->slice * SLICE_SIZE;
}

static bool words_are_there(const struct la_heap *heap, uint32_t macro, slice_t page)
{
    slice_t words = atomic_load_explicit(&slice_of(heap, macro, slice_words(page) / GRANULES_PER_SLICE)->page, memory_order_relaxed);

    return slice_kind(words) == SLICE_WORDS;
}

size_t block_first(struct la_heap *heap, uint32_t macro, unsigned slice, slice_t page, struct block_ref *ret)
{
    size_t n;

    *ret = (struct block_ref){ .heap = heap, .macro = macro, .slice = slice };
    if (slice_kind(page) == SLICE_LARGE)
        return find_run(heap, page, ret) && ret->size > 0;
    if (slice_kind(page) != SLICE_SMALL || !find_small(heap, page, 0, ret) || !words_are_there(heap, macro, page))
        return 0;
    n = slice_count(page) * SLICE_SIZE / ret->size;
    return first_word(page) + n <= WORDS_PER_SLICE ? n : 0;
}

bool block_find(struct la_heap *heap, const void *address, struct block_ref *ref)
{
    size_t offset = (size_t)((const char *)address - heap->payload);
    uint32_t macro = (uint32_t)(offset / MACRO_SIZE);
    unsigned slice = (unsigned)(offset / SLICE_SIZE % SLICES_PER_MACRO);
    uint64_t owner;
    slice_t page;

    if (!heap_contains(heap, address) || macro >= heap_rows(heap))
        return false;
    owner = atomic_load_explicit(&heap->macros[macro].owner, memory_order_relaxed);
    if (owner_state(owner) == OWNER_RUN) {
        if (owner_head(owner) > macro)
            return false;
        macro = owner_head(owner);
        slice = 0;
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

/* ---- all of them ---- */

struct visit {
    uint32_t slices;
    block_visitor *block;
    block_row_test *skip;
    void *user;
};

static void each_of_row(const struct visit *visit, struct block_ref ref, size_t n)
{
    if (visit->skip && n == BLOCK_ROW && visit->skip(visit->user, &ref))
        return;
    for (; n > 0; n--, ref.word++, ref.start += ref.size)
        visit->block(visit->user, &ref);
}

static void each_of_page(struct la_heap *heap, uint32_t macro, unsigned slice, slice_t page, const struct visit *visit)
{
    struct block_ref ref;
    size_t n = block_first(heap, macro, slice, page, &ref), row;

    if (n == 0)
        heap_quarantine(heap, "a page word makes no sense");
    for (; n > 0; n -= row, ref.word += row, ref.start += row * ref.size) {
        row = MIN(n, (size_t)BLOCK_ROW);
        each_of_row(visit, ref, row);
    }
}

/* Of the page that begins in slice 0, as far as the word makes sense. */
static uint32_t slice_mask(slice_t page)
{
    return slice_count(page) < 32 ? (1u << slice_count(page)) - 1 : UINT32_MAX;
}

static void each_of_pages(struct la_heap *heap, uint32_t macro, const struct visit *visit)
{
    for (unsigned i = 0; i < SLICES_PER_MACRO; i++) {
        slice_t page = atomic_load_explicit(&slice_of(heap, macro, i)->page, memory_order_acquire);

        if ((slice_kind(page) == SLICE_SMALL || slice_kind(page) == SLICE_LARGE) && visit->slices >> i & slice_mask(page))
            each_of_page(heap, macro, i, page, visit);
    }
}

void block_each_in(struct la_heap *heap, uint32_t macro, uint32_t slices, block_visitor *block, block_row_test *skip, void *user)
{
    uint64_t owner = atomic_load_explicit(&heap->macros[macro].owner, memory_order_acquire);
    struct block_ref ref;

    if (owner_state(owner) == OWNER_LANE || owner_state(owner) == OWNER_ABANDONED)
        each_of_pages(heap, macro, &(struct visit){ slices, block, skip, user });
    else if (owner_state(owner) == OWNER_RUN && owner_head(owner) == macro && block_find(heap, slice_memory(heap, macro, 0), &ref))
        block(user, &ref);
}

void block_each(struct la_heap *heap, block_visitor *block, block_row_test *skip, void *user)
{
    uint32_t rows = heap_rows(heap);

    for (uint32_t i = 0; i < rows; i++)
        block_each_in(heap, i, UINT32_MAX, block, skip, user);
}
