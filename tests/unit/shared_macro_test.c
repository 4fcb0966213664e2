#include "../support/shared.h"

#include "core/shared_macro.h"

static void one_of_two_claimants_gets_a_macro_block(void **state)
{
    struct shared *s = *state;
    const uint64_t none = owner_make(OWNER_NONE, 0);

    assert_true(macro_claim(s->heap, 5, none, owner_make(OWNER_CLAIMING, 7)));
    assert_false(macro_claim(s->heap, 5, none, owner_make(OWNER_CLAIMING, 8)));
    assert_int_equal(owner_lane(atomic_load(&s->heap->macros[5].owner)), 7);
    macro_release(s->heap, 5);
    assert_int_equal(atomic_load(&s->heap->macros[5].owner), none);
    assert_int_equal(atomic_load(&s->heap->header->next_macro), 5);
}

static void memory_is_committed_once(void **state)
{
    struct shared *s = *state;
    uint64_t before;

    assert_true(macro_commit_rows(s->heap, 12));
    before = atomic_load(&s->heap->header->committed);
    assert_true(macro_commit(s->heap, 10, 2));
    assert_true(macro_commit(s->heap, 9, 3));
    assert_int_equal(atomic_load(&s->heap->header->committed), before + 3 * MACRO_SIZE);
}

static void there_are_never_more_rows_than_macro_blocks(void **state)
{
    struct shared *s = *state;

    assert_true(macro_commit_rows(s->heap, UINT32_MAX));
    assert_int_equal(atomic_load(&s->heap->header->rows), s->heap->macro_count);
    assert_true(macro_commit_rows(s->heap, 1));
    assert_int_equal(atomic_load(&s->heap->header->rows), s->heap->macro_count);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        shared_test(one_of_two_claimants_gets_a_macro_block),
        shared_test(memory_is_committed_once),
        shared_test(there_are_never_more_rows_than_macro_blocks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
