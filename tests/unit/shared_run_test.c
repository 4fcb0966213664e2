#include "../support/shared.h"

#include <errno.h>

#include "base/error.h"
#include "core/lane.h"
#include "core/shared_run.h"

static unsigned used_macros(struct la_heap *heap)
{
    struct la_heap_info info = { .struct_size = sizeof(info) };

    assert_int_equal(la_heap_info(heap, &info), 0);
    return info.macro_blocks_used;
}

static void a_run_is_whole_macro_blocks_in_a_row(void **state)
{
    struct shared *s = *state;
    struct lane *lane = heap_lane(s->heap);
    unsigned before = used_macros(s->heap);
    char *run = run_take(lane, 3 * MACRO_SIZE + 1);
    struct block_ref ref;

    assert_int_equal((uintptr_t)run % MACRO_SIZE, 0);
    assert_int_equal(used_macros(s->heap), before + 4);
    memset(run, 1, 4 * MACRO_SIZE);
    assert_true(block_find(s->heap, run + 4 * MACRO_SIZE - 1, &ref));
    assert_ptr_equal(ref.start, run);
    assert_int_equal(ref.size, 4 * MACRO_SIZE);
    assert_int_equal(word_state(atomic_load(ref.word), ref.epoch), WORD_HELD);
    run_dismantle(&ref, lane->number);
    assert_int_equal(used_macros(s->heap), before);
    assert_false(block_find(s->heap, run, &ref));
}

static void a_run_that_does_not_fit_takes_nothing(void **state)
{
    struct shared *s = *state;
    struct lane *lane = heap_lane(s->heap);
    unsigned before = used_macros(s->heap);

    assert_null(run_take(lane, s->heap->size));
    assert_non_null(strstr(la_last_error(), "is full: no room for a block of 67108864 bytes"));
    assert_null(run_take(lane, SIZE_MAX / 2));
    assert_int_equal(used_macros(s->heap), before);
}

static void what_no_heap_can_serve_leaves_a_sentence(void **state)
{
    struct shared *s = *state;
    size_t volatile below_zero = SIZE_MAX;

    la_fail(-EIO, "an older failure");
    assert_null(la_heap_hold(s->heap, below_zero));
    assert_int_equal(la_last_error_code(), -ENOMEM);
    assert_non_null(strstr(la_last_error(), "18446744073709551615 bytes"));
    assert_null(la_chain_aligned_alloc(la_heap_chain(s->heap, LA_HELD), (size_t)4 << 20, 100));
    assert_non_null(strstr(la_last_error(), "alignment 4194304"));
}

/* What was a run is small blocks afterwards, and the other way round: no state word of the one is taken for the other's. */
static void runs_and_pages_take_turns_in_the_same_memory(void **state)
{
    struct shared *s = *state;
    void *small[2000];

    for (int round = 0; round < 4; round++) {
        char *run = la_heap_alloc(s->heap, 40 << 20);

        assert_non_null(run);
        memset(run, 0xff, 40 << 20);
        la_free(run);
        for (int i = 0; i < 2000; i++)
            assert_non_null(small[i] = la_heap_alloc(s->heap, 20000));
        for (int i = 0; i < 2000; i++)
            la_free(small[i]);
        assert_int_equal(shared_count(s).blocks[HEAP], 0);
        assert_int_equal(la_heap_reset(s->heap), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        shared_test(a_run_is_whole_macro_blocks_in_a_row),
        shared_test(a_run_that_does_not_fit_takes_nothing),
        shared_test(what_no_heap_can_serve_leaves_a_sentence),
        shared_test(runs_and_pages_take_turns_in_the_same_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
