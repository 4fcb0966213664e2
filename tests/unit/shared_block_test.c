#include "../support/shared.h"

#include "core/shared_block.h"

static void a_block_is_found_from_any_of_its_bytes(void **state)
{
    struct shared *s = *state;

    for (size_t size = 9; size < (size_t)10 << 20; size = size * 3 / 2 + 1) {
        char *block = la_heap_alloc(s->heap, size);
        const size_t offsets[] = { 0, 1, size / 2, size - 1 };
        struct block_ref ref;

        for (unsigned i = 0; i < 4; i++) {
            assert_true(block_find(s->heap, block + offsets[i], &ref));
            assert_ptr_equal(ref.start, block);
            assert_true(ref.size >= size);
            assert_int_equal(word_state(atomic_load(ref.word), ref.epoch), WORD_HEAP);
        }
        la_free(block);
        assert_int_equal(word_state(atomic_load(ref.word), ref.epoch), WORD_FREE);
    }
}

static void the_short_way_agrees_with_the_long_one(void **state)
{
    struct shared *s = *state;

    for (size_t size = 9; size <= (size_t)40 << 10; size += 1 + size / 9) {
        char *block = la_heap_alloc(s->heap, size);
        struct block_ref found, ref;

        assert_true(block_find(s->heap, block, &ref));
        assert_false(block_find_small(s->heap, block + 8, &found));
        if (block_find_small(s->heap, block, &found)) {
            assert_ptr_equal(found.word, ref.word);
            assert_ptr_equal(found.start, ref.start);
            assert_int_equal(found.epoch, ref.epoch);
        } else {
            /* Only what does not begin in the first slice of its page. */
            assert_true(size > (size_t)32 << 10 || (uintptr_t)block - (uintptr_t)slice_memory(s->heap, ref.macro, ref.slice) >= SLICE_SIZE);
        }
        la_free(block);
    }
    assert_false(block_find_small(s->heap, s->heap->base, &(struct block_ref){ 0 }));
    assert_false(block_find_small(s->heap, s->heap->base + s->heap->size, &(struct block_ref){ 0 }));
}

/* Whatever a hostile process writes into a page word: an address in the heap or no block at all. */
static void no_page_word_leads_out_of_the_heap(void **state)
{
    struct shared *s = *state;
    char *block = la_heap_alloc(s->heap, 100);
    struct block_ref ref, found;
    _Atomic(slice_t) *page;
    slice_t kept;
    uint64_t random = 88172645463325252;

    assert_true(block_find(s->heap, block, &ref));
    page = &slice_of(s->heap, ref.macro, ref.slice)->page;
    kept = atomic_load(page);
    for (int i = 0; i < 200000; i++) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        atomic_store(page, i % 2 ? random : (kept & ~(0xffull << 8 * (random % 8))) | (random >> 8 & 0xff) << 8 * (random % 8));
        if (!block_find(s->heap, block, &found))
            continue;
        assert_true(heap_contains(s->heap, found.start));
        assert_true((char *)found.word >= s->heap->base && (char *)(found.word + 1) <= s->heap->base + s->heap->size);
    }
    atomic_store(page, kept);
    la_free(block);
}

static void a_word_that_changed_is_not_released(void **state)
{
    struct shared *s = *state;
    char *block = la_heap_alloc(s->heap, 100);
    struct block_ref ref;
    word_t w;

    assert_true(block_find(s->heap, block, &ref));
    w = atomic_load(ref.word);
    assert_false(block_release(&ref, w + 1));
    assert_int_equal(atomic_load(ref.word), w);
    assert_true(block_release(&ref, w));
    assert_false(block_release(&ref, w));
    block_hint(&ref);
    assert_int_equal(atomic_load(&s->heap->macros[ref.macro].hinted), 1);
    assert_int_equal(atomic_load(&s->heap->macros[ref.macro].hint[((size_t)(block - s->heap->payload) % MACRO_SIZE) >> HINT_SHIFT]), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        shared_test(a_block_is_found_from_any_of_its_bytes),
        shared_test(the_short_way_agrees_with_the_long_one),
        shared_test(no_page_word_leads_out_of_the_heap),
        shared_test(a_word_that_changed_is_not_released),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
