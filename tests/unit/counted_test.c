/* counted_test.c - chains that count every call (LA_CHAIN_STATS): exact whatever is done to their blocks, by whomever. */
#include "engine.h"

#include <pthread.h>


#include "core/counted.h"

static struct la_stats stats_of(struct la_chain *chain)
{
    struct la_stats s = { .struct_size = sizeof(s) };

    assert_int_equal(la_chain_stats(chain, &s), 0);
    return s;
}

static void assert_counts(struct la_chain *chain, uint64_t requested, uint64_t allocations, uint64_t frees)
{
    struct la_stats s = stats_of(chain);

    assert_int_equal(s.requested, requested);
    assert_int_equal(s.allocations, allocations);
    assert_int_equal(s.frees, frees);
}

static struct la_chain *new_chain(unsigned flags)
{
    struct la_chain *chain;

    assert_int_equal(la_chain_create(NULL, LA_CHAIN_STATS | flags, &chain), 0);
    return chain;
}

static void bytes_asked_for_are_exact_for_any_size(void **state)
{
    static const size_t sizes[] = { 0, 1, 8, 16, 17, 1000, 1024, 1025, 32760, 32768, 40000, 300000, (size_t)2 << 20, (size_t)9 << 20 };
    struct la_chain *chain = new_chain(0);
    void *blocks[sizeof(sizes) / sizeof(*sizes)];
    uint64_t sum = 0, n = sizeof(sizes) / sizeof(*sizes);

    (void)state;
    for (unsigned i = 0; i < n; i++) {
        blocks[i] = i % 2 ? la_chain_alloc(chain, sizes[i]) : la_chain_calloc(chain, 1, sizes[i]);
        assert_true(la_usable_size(blocks[i]) >= sizes[i]);
        /* All of it is the user's: the count must survive. */
        memset(blocks[i], 0xff, la_usable_size(blocks[i]));
        sum += sizes[i];
        assert_counts(chain, sum, i + 1, 0);
    }
    assert_true(stats_of(chain).allocated >= sum);
    for (unsigned i = 0; i < n; i++) {
        la_free(blocks[i]);
        sum -= sizes[i];
        assert_counts(chain, sum, n, i + 1);
    }
    assert_int_equal(la_chain_check(chain, NULL, NULL), 0);
    assert_int_equal(la_chain_destroy(chain), 0);
}

static void realloc_moves_the_count_along(void **state)
{
    struct la_chain *chain = new_chain(0);
    char *block = NULL;

    (void)state;
    for (size_t size = 1; size < (size_t)20 << 20; size = size * 5 / 3 + 1) {
        block = la_chain_realloc(chain, block, size);
        memset(block, 1, la_usable_size(block));
        assert_int_equal(stats_of(chain).requested, size);
    }
    for (size_t size = (size_t)16 << 20; size > 0; size = size * 2 / 5) {
        block = la_chain_realloc(chain, block, size);
        assert_int_equal(stats_of(chain).requested, size);
    }
    la_free(block);
    assert_int_equal(stats_of(chain).requested, 0);
    assert_int_equal(stats_of(chain).allocations, stats_of(chain).frees);
    assert_null(la_chain_realloc(chain, la_chain_alloc(chain, 100000), SIZE_MAX - 4));
    assert_null(la_chain_alloc(chain, SIZE_MAX - 4));
    assert_int_equal(la_chain_destroy(chain), 0);
}

static void *free_all(void *arg)
{
    void **blocks = arg;

    for (unsigned i = 0; i < 1000; i++)
        la_free(blocks[i]);
    return NULL;
}

static void frees_by_another_thread_count_at_once(void **state)
{
    static const unsigned kinds[] = { 0, LA_CHAIN_MT };

    (void)state;
    for (unsigned k = 0; k < 2; k++) {
        struct la_chain *chain = new_chain(kinds[k]);
        void *blocks[1000];
        pthread_t thread;

        for (unsigned i = 0; i < 1000; i++)
            blocks[i] = la_chain_aligned_alloc(chain, 64, 50 + i * 10);
        assert_counts(chain, 50 * 1000 + 10 * 999 * 500, 1000, 0);
        assert_int_equal(pthread_create(&thread, NULL, free_all, blocks), 0);
        pthread_join(thread, NULL);
        assert_counts(chain, 0, 1000, 1000);
        assert_int_equal(la_chain_destroy(chain), 0);
    }
}

static void a_second_free_is_not_counted(void **state)
{
    struct la_chain *chain = new_chain(0), *previous = la_default_set(chain);
    void *small = la_malloc(100), *large = la_malloc(100000);

    (void)state;
    la_misuse_set(LA_MISUSE_REPORT, NULL, NULL);
    la_free(small);
    la_free(small);
    la_free(large);
    la_free(large);
    assert_counts(chain, 0, 2, 2);
    la_default_set(previous);
    assert_int_equal(la_chain_destroy(chain), 0);
}

static void buffers_and_resets_count_too(void **state)
{
    static char buffer[1 << 20];
    struct la_chain *chain;

    (void)state;
    assert_int_equal(la_chain_create_in(buffer + 3, sizeof(buffer) - 3, LA_CHAIN_STATS, &chain), 0);
    for (unsigned i = 0; i < 100; i++)
        assert_non_null(la_chain_alloc(chain, 777));
    assert_counts(chain, 77700, 100, 0);
    assert_int_equal(la_chain_reset(chain), 0);
    assert_counts(chain, 0, 0, 0);
    assert_non_null(la_chain_alloc(chain, 5));
    assert_counts(chain, 5, 1, 0);
    assert_int_equal(la_chain_destroy(chain), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_asked_for_are_exact_for_any_size),
        cmocka_unit_test(realloc_moves_the_count_along),
        cmocka_unit_test(frees_by_another_thread_count_at_once),
        cmocka_unit_test(a_second_free_is_not_counted),
        cmocka_unit_test(buffers_and_resets_count_too),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
