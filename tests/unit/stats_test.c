/* stats_test.c - the figures of small scenarios are exact. */
#include "engine.h"

#include "core/size_class.h"
#include "core/thread.h"

struct fixture {
    struct la_chain *chain;
};

static int setup(void **state)
{
    static struct fixture f;

    assert_int_equal(la_chain_create(NULL, 0, &f.chain), 0);
    la_default_set(f.chain);        /* so that frees take effect at once */
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    la_default_set(NULL);
    assert_int_equal(la_chain_destroy(f->chain), 0);
    la_source_trim(NULL);
    return 0;
}

static struct la_stats stats_of(struct la_chain *chain)
{
    struct la_stats s = { .struct_size = sizeof(s) };

    assert_int_equal(la_chain_stats(chain, &s), 0);
    assert_int_equal(s.struct_size, sizeof(s));
    return s;
}

static struct la_stats of_process(void)
{
    struct la_stats s = { .struct_size = sizeof(s) };

    assert_int_equal(la_process_stats(&s), 0);
    return s;
}

static void new_chain_has_nothing(void **state)
{
    struct fixture *f = *state;
    struct la_stats s = stats_of(f->chain);

    assert_int_equal(s.blocks + s.allocated + s.cached + s.mapped + s.allocations + s.macro_blocks + s.huge_blocks, 0);
}

static void small_blocks_are_counted_by_their_class(void **state)
{
    struct fixture *f = *state;
    void *blocks[10];
    struct la_stats s;

    for (unsigned i = 0; i < 10; i++)
        blocks[i] = la_malloc(100);
    s = stats_of(f->chain);
    assert_int_equal(s.blocks, 10);
    assert_int_equal(s.allocated, 10 * class_size(class_of(100)));
    assert_int_equal(s.macro_blocks, 1);
    assert_int_equal(s.mapped, MACRO_SIZE);
    assert_int_equal(s.huge_blocks, 0);
    for (unsigned i = 0; i < 4; i++)
        la_free(blocks[i]);
    s = stats_of(f->chain);
    assert_int_equal(s.blocks, 6);
    assert_int_equal(s.allocated, 6 * class_size(class_of(100)));
    assert_true(s.cached >= 4 * class_size(class_of(100)));
    for (unsigned i = 4; i < 10; i++)
        la_free(blocks[i]);
    s = stats_of(f->chain);
    assert_int_equal(s.blocks, 0);
    assert_int_equal(s.allocated, 0);
}

static void blocks_of_all_classes_add_up(void **state)
{
    struct fixture *f = *state;
    void *blocks[SMALL_CLASSES * 3];
    uint64_t bytes = 0;

    for (unsigned i = 0; i < ARRAY_SIZE(blocks); i++) {
        blocks[i] = la_malloc(class_size(i % SMALL_CLASSES));
        bytes += class_size(i % SMALL_CLASSES);
        assert_int_equal(stats_of(f->chain).blocks, i + 1);
        assert_int_equal(stats_of(f->chain).allocated, bytes);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(blocks); i++) {
        la_free(blocks[i]);
        bytes -= class_size(i % SMALL_CLASSES);
        assert_int_equal(stats_of(f->chain).blocks, ARRAY_SIZE(blocks) - 1 - i);
        assert_int_equal(stats_of(f->chain).allocated, bytes);
    }
}

static void large_and_huge_blocks_are_counted_by_what_they_hold(void **state)
{
    struct fixture *f = *state;
    void *large = la_malloc(100000), *huge = la_malloc(5 * MiB);
    struct la_stats s = stats_of(f->chain);

    assert_int_equal(s.blocks, 2);
    assert_int_equal(s.huge_blocks, 1);
    assert_int_equal(s.macro_blocks, 1);
    assert_true(s.allocated >= 100000 + 5 * MiB && s.allocated <= 100000 + 5 * MiB + 2 * SLICE_SIZE);
    assert_true(s.mapped >= MACRO_SIZE + 5 * MiB && s.mapped <= MACRO_SIZE + 5 * MiB + 16 * KiB);
    large = la_realloc(large, 300000);
    huge = la_realloc(huge, 20 * MiB);
    s = stats_of(f->chain);
    assert_int_equal(s.blocks, 2);
    assert_true(s.allocated >= 300000 + 20 * MiB);
    la_free(large);
    assert_int_equal(stats_of(f->chain).blocks, 1);
    la_free(huge);
    s = stats_of(f->chain);
    assert_int_equal(s.blocks + s.huge_blocks + s.allocated, 0);
    assert_true(s.mapped <= MACRO_SIZE);
}

static void free_and_allocated_bytes_fit_into_what_is_mapped(void **state)
{
    struct fixture *f = *state;
    void *blocks[1000];

    for (unsigned i = 0; i < 1000; i++) {
        struct la_stats s;

        blocks[i] = la_malloc(i * 37 % 40000);
        s = stats_of(f->chain);
        assert_true(s.allocated + s.cached <= s.mapped);
    }
    for (unsigned i = 0; i < 1000; i++)
        la_free(blocks[i]);
}

static void remote_frees_are_counted_when_they_arrive(void **state)
{
    struct fixture *f = *state;
    void *block = la_malloc(100);

    free_in_other_thread(block);
    assert_int_equal(stats_of(f->chain).remote_frees, 0);
    la_free(la_malloc(100000));     /* a slow path */
    assert_int_equal(stats_of(f->chain).remote_frees, 1);
    assert_int_equal(stats_of(f->chain).blocks, 0);
}

static void allocate_in(void *chain)
{
    for (unsigned i = 0; i < 100; i++)
        if (!la_chain_alloc(chain, 1000))
            abort();
}

static void thread_safe_chain_is_exact_from_any_thread(void **state)
{
    struct la_chain *chain = NULL;

    (void)state;
    assert_int_equal(la_chain_create(NULL, LA_CHAIN_MT, &chain), 0);
    in_other_thread(allocate_in, chain);
    assert_int_equal(stats_of(chain).blocks, 100);
    assert_int_equal(stats_of(chain).allocated, 100 * class_size(class_of(1000)));
    assert_int_equal(la_chain_destroy(chain), 0);
}

static void null_means_the_calling_threads_own_chain(void **state)
{
    struct la_stats before, after;
    void *block;

    (void)state;
    la_default_set(NULL);
    la_free(la_malloc(5000));
    before = stats_of(NULL);
    block = la_malloc(5000);
    after = stats_of(NULL);
    assert_int_equal(after.blocks, before.blocks + 1);
    assert_int_equal(stats_of(la_tls_own).blocks, after.blocks);
    la_free(block);
}

static void process_is_the_sum_of_its_chains(void **state)
{
    struct fixture *f = *state;
    struct la_stats before, after;
    struct la_chain *second = NULL;

    assert_int_equal(la_chain_create(NULL, 0, &second), 0);
    before = of_process();
    assert_non_null(la_chain_alloc(f->chain, 1000));
    assert_non_null(la_chain_alloc(second, 100000));
    assert_non_null(la_chain_alloc(second, 5 * MiB));
    after = of_process();
    assert_int_equal(after.blocks - before.blocks, 3);
    assert_int_equal(after.huge_blocks - before.huge_blocks, 1);
    assert_int_equal(after.macro_blocks - before.macro_blocks, 2);
    assert_int_equal(after.allocated - before.allocated, stats_of(f->chain).allocated + stats_of(second).allocated);
    assert_int_equal(la_chain_destroy(second), 0);
    after = of_process();
    assert_int_equal(after.blocks - before.blocks, 1);
    /* What went back is kept for the next, and still counted. */
    assert_true(after.cached >= before.cached + 5 * MiB);
    la_source_trim(NULL);
    assert_true(of_process().cached < 2 * MACRO_SIZE);
}

static void leave_blocks(void *arg)
{
    void **blocks = arg;

    for (unsigned i = 0; i < 30; i++)
        blocks[i] = la_malloc(i < 10 ? 100 : i < 20 ? 100000 : 3 * MiB);
}

static void blocks_of_ended_threads_are_part_of_the_process(void **state)
{
    struct la_stats before = of_process(), after;
    void *blocks[30];

    (void)state;
    in_other_thread(leave_blocks, blocks);
    after = of_process();
    assert_int_equal(after.blocks - before.blocks, 30);
    assert_int_equal(after.huge_blocks - before.huge_blocks, 10);
    for (unsigned i = 0; i < 30; i++)
        la_free(blocks[i]);
    la_source_trim(NULL);
    after = of_process();
    assert_int_equal(after.blocks, before.blocks);
    assert_int_equal(after.huge_blocks, before.huge_blocks);
    assert_int_equal(after.allocated, before.allocated);
}

static void caller_of_another_version_gets_what_it_knows(void **state)
{
    struct fixture *f = *state;
    struct {
        struct la_stats s;
        uint64_t later[8];
    } newer;
    struct la_stats older;

    assert_non_null(la_malloc(100));
    memset(&newer, 0xff, sizeof(newer));
    newer.s.struct_size = sizeof(newer);
    assert_int_equal(la_chain_stats(f->chain, &newer.s), 0);
    assert_int_equal(newer.s.blocks, 1);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(newer.later[i], 0);
    memset(&older, 0xff, sizeof(older));
    older.struct_size = offsetof(struct la_stats, cached);
    assert_int_equal(la_chain_stats(f->chain, &older), 0);
    assert_int_equal(older.blocks, 1);
    assert_int_equal(older.cached, UINT64_MAX);
    older.struct_size = 0;
    assert_int_equal(la_chain_stats(f->chain, &older), -EINVAL);
    older.struct_size = 100000;
    assert_int_equal(la_process_stats(&older), -EINVAL);
    assert_int_equal(la_chain_stats(f->chain, NULL), -EINVAL);
    assert_int_equal(la_process_stats(NULL), -EINVAL);
}

static void version_is_a_number(void **state)
{
    unsigned major, minor, patch;

    (void)state;
    assert_int_equal(sscanf(la_library_version(), "%u.%u.%u", &major, &minor, &patch), 3);
}

#define stats_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        stats_test(new_chain_has_nothing),
        stats_test(small_blocks_are_counted_by_their_class),
        stats_test(blocks_of_all_classes_add_up),
        stats_test(large_and_huge_blocks_are_counted_by_what_they_hold),
        stats_test(free_and_allocated_bytes_fit_into_what_is_mapped),
        stats_test(remote_frees_are_counted_when_they_arrive),
        stats_test(thread_safe_chain_is_exact_from_any_thread),
        stats_test(null_means_the_calling_threads_own_chain),
        stats_test(process_is_the_sum_of_its_chains),
        stats_test(blocks_of_ended_threads_are_part_of_the_process),
        stats_test(caller_of_another_version_gets_what_it_knows),
        cmocka_unit_test(version_is_a_number),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
