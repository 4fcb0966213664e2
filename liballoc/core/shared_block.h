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

/* The state words from @granule on (slice_words()). */
static inline _Atomic(word_t) *words_at(const struct la_heap *heap, uint32_t macro, unsigned granule)
{
    return (_Atomic(word_t) *)(slice_memory(heap, macro, granule / GRANULES_PER_SLICE) +
                               (size_t)(granule % GRANULES_PER_SLICE) * WORDS_PER_GRANULE * sizeof(word_t));
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

/* The same for the usual case: @block is the start of a small one, in the first slice of its page. false: look with block_find(). */
bool block_find_small(struct la_heap *heap, void *block, struct block_ref *ret);

/* Free the block with the word @seen; false: it changed meanwhile. */
bool block_release(const struct block_ref *ref, word_t seen);

/* Tell the owner of the page. */
void block_hint(const struct block_ref *ref);

#endif
