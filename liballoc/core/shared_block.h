/*
 * shared_block.h - a block of a shared heap from its address: its page word, its state word (shared_layout.h).
 *
 * Every index that is read from the heap is checked before it is used: whatever another process wrote there, nothing outside
 * the heap is touched.
 */
#ifndef CORE_SHARED_BLOCK_H
#define CORE_SHARED_BLOCK_H

#include "core/shared_heap.h"

/* Everything about a block's state word. */
struct block_ref {
    struct la_heap *heap;
    char *start;
    size_t size;                /* usable bytes */
    uint32_t macro, slice;      /* first slice of its page, in the macro block */
    unsigned epoch;
    _Atomic(word_t) *word;      /* the state word; of runs the upper half of the 64 bits */
};

static inline struct heap_slice *slice_of(const struct la_heap *heap, uint32_t macro, unsigned slice)
{
    return &heap->slices[(size_t)macro * SLICES_PER_MACRO + slice];
}

static inline char *slice_memory(const struct la_heap *heap, uint32_t macro, unsigned slice)
{
    return heap->payload + (size_t)macro * MACRO_SIZE + (size_t)slice * SLICE_SIZE;
}

enum { WORDS_PER_SLICE = WORDS_PER_GRANULE * GRANULES_PER_SLICE };
_Static_assert(WORDS_PER_SLICE * sizeof(word_t) == SLICE_SIZE, "granules follow one another, from slice to slice");

/* The state words from @granule on (slice_words()). */
static inline _Atomic(word_t) *words_at(const struct la_heap *heap, uint32_t macro, unsigned granule)
{
    return (_Atomic(word_t) *)(slice_memory(heap, macro, 0) + (size_t)granule * WORDS_PER_GRANULE * sizeof(word_t));
}

/* Where the page's state words begin in their slice of words. */
static inline size_t first_word(slice_t page)
{
    return (size_t)(slice_words(page) % GRANULES_PER_SLICE) * WORDS_PER_GRANULE;
}

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "run_word() takes the upper half at the higher address");

/* The upper half of the 64 bit word of a run: same layout as a small block's. */
static inline _Atomic(word_t) *run_word(struct heap_slice *slice)
{
    return (_Atomic(word_t) *)&slice->run + 1;
}

static inline uint32_t run_length(struct heap_slice *slice)
{
    return (uint32_t)atomic_load_explicit(&slice->run, memory_order_relaxed);
}

/* offset / size for offsets below 2^32: the upper half of the product, see page.h. */
static inline size_t quotient(size_t offset, uint64_t divisor)
{
    return (size_t)(((unsigned __int128)offset * divisor) >> 64);
}

/*
 * The first block of the page that word @page says begins at a slice; the others follow, in memory and in their state words. Return: how many blocks the page
 * has; 0: the word makes no sense. Words are anybody's to overwrite, so it is asked wherever all blocks of a page are looked at.
 */
size_t block_first(struct la_heap *heap, uint32_t macro, unsigned slice, slice_t page, struct block_ref *ret);

/*
 * Call @visit with every block, free or not, of every page, and every block of several macro blocks. The heap may change meanwhile: a block that is
 * live all the time is visited. @skip, if not NULL, is asked first for BLOCK_ROW blocks of a page at once, whose words follow that of @row: true
 * passes over them.
 */
enum { BLOCK_ROW = 16 };
typedef void block_visitor(void *user, struct block_ref *ref);
typedef bool block_row_test(void *user, const struct block_ref *row);
void block_each(struct la_heap *heap, block_visitor *visit, block_row_test *skip, void *user);

/* The same for one macro block, of it the pages that have a slice in @slices. The block of several is that of the first of them. */
void block_each_in(struct la_heap *heap, uint32_t macro, uint32_t slices, block_visitor *visit, block_row_test *skip, void *user);

/* false: @address is in no live page of the heap. The start of the block may differ from @address. */
bool block_find(struct la_heap *heap, const void *address, struct block_ref *ret);

/* So that no call has to divide. */
struct block_class {
    size_t size;
    uint64_t divisor;
};

extern HIDDEN struct block_class la_block_classes[SMALL_CLASSES];

/*
 * The same for the usual case: @block is the start of a small one, in the first slice of its page. false: look with block_find(). It and what follows are
 * inline: to free a block of another lane takes 200 instructions and 14 ns (blocks in a row, AMD EPYC), where it took 300 and 20 with calls in between.
 */
static inline __attribute__((always_inline)) bool block_find_small(struct la_heap *heap, void *block, struct block_ref *ret)
{
    size_t offset = (size_t)((char *)block - heap->payload), in_page = offset % SLICE_SIZE;
    uint32_t macro = (uint32_t)(offset / MACRO_SIZE), slice = (uint32_t)(offset / SLICE_SIZE % SLICES_PER_MACRO);
    const struct block_class *class;
    unsigned __int128 product;
    size_t index;
    slice_t page;

    if (offset / MACRO_SIZE >= heap_rows(heap))
        return false;
    page = atomic_load_explicit(&heap->slices[offset / SLICE_SIZE].page, memory_order_acquire);
    /* Class 0 is not for shared heaps. */
    if (slice_kind(page) != SLICE_SMALL || slice_class(page) - 1 >= SMALL_CLASSES - 1)
        return false;
    class = &la_block_classes[slice_class(page)];
    product = (unsigned __int128)in_page * class->divisor;
    index = (size_t)(product >> 64);
    /* It begins at a block; which ends in the page; whose word is in a slice. */
    if ((uint64_t)product >= class->divisor || in_page + class->size > slice_count(page) * SLICE_SIZE ||
        slice + slice_count(page) > SLICES_PER_MACRO || slice_words(page) >= SLICES_PER_MACRO * GRANULES_PER_SLICE ||
        first_word(page) + index >= WORDS_PER_SLICE)
        return false;
    *ret = (struct block_ref){ .heap = heap, .start = block, .size = class->size, .macro = macro, .slice = slice, .epoch = slice_epoch(page),
                               .word = words_at(heap, macro, slice_words(page)) + index };
    return true;
}

/* Free the block with the word @seen; false: it changed meanwhile. */
static inline bool block_release(const struct block_ref *ref, word_t seen)
{
    word_t freed = word_make(word_generation(seen) + 1, ref->epoch, WORD_FREE, 0);

    /* Release: what was written to the block comes before its reuse. Pairs with the acquire in commit() and take(). */
    return atomic_compare_exchange_strong_explicit(ref->word, &seen, freed, memory_order_acq_rel, memory_order_relaxed);
}

/* Tell the owner of the page. */
static inline void block_hint(const struct block_ref *ref)
{
    struct heap_macro *macro = &ref->heap->macros[ref->macro];
    size_t offset = (size_t)(ref->start - slice_memory(ref->heap, ref->macro, 0));

    /* Release: after the block's word, and the flag after the byte. Plain stores; take_hints() says why none gets lost. */
    atomic_store_explicit(&macro->hint[offset >> HINT_SHIFT], 1, memory_order_release);
    atomic_store_explicit(&macro->hinted, 1, memory_order_release);
}

#endif
