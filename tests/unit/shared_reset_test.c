#include "../support/shared.h"

#include <errno.h>

static void fill_heap(struct la_heap *heap)
{
    for (int i = 0; i < 3000; i++)
        if (!la_heap_alloc(heap, (size_t)(i % 400) * 8 + 1))
            abort();
    if (!la_heap_alloc(heap, 300000) || !la_heap_alloc(heap, (size_t)5 << 20))
        abort();
}

/* More often than the epoch has values: old words must not come to life when it comes round. */
static void reset_frees_everything_as_often_as_you_like(void **state)
{
    struct shared *s = *state;
    struct la_fsck first = { 0 };

    for (int round = 0; round < 150; round++) {
        fill_heap(s->heap);
        if (round == 0)
            first = shared_count(s);
        assert_int_equal(shared_count(s).blocks[HEAP], 3002);
        assert_int_equal(la_heap_reset(s->heap), 0);
        assert_int_equal(shared_count(s).blocks[HEAP], 0);
    }
    fill_heap(s->heap);
    assert_true(shared_count(s).macro_blocks <= first.macro_blocks + 1);
}

static void reset_empties_the_roots(void **state)
{
    struct shared *s = *state;
    la_link *root = shared_root(s->heap, "root");

    assert_int_equal(la_publish(s->heap, root, NULL, la_heap_hold(s->heap, 10)), 0);
    assert_int_equal(la_heap_reset(s->heap), 0);
    assert_null(la_load(s->heap, root));
}

static int another_reset_is_refused(struct la_heap *heap)
{
    return la_heap_reset(heap) == -EBUSY ? 0 : 1;
}

static void reset_is_for_the_last_one_attached(void **state)
{
    assert_int_equal(shared_run(*state, another_reset_is_refused), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        shared_test(reset_frees_everything_as_often_as_you_like),
        shared_test(reset_empties_the_roots),
        shared_test(reset_is_for_the_last_one_attached),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
