/* range_table_test.c - ranges stay sorted and apart; gaps are found where they are. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

#include "os/range_table.h"

static int teardown(void **state)
{
    range_clear(*state);
    return 0;
}

static int setup(void **state)
{
    static struct range_table table;

    table = (struct range_table){ 0 };
    *state = &table;
    return 0;
}

static void assert_sorted(const struct range_table *t)
{
    for (size_t i = 0; i < t->count; i++) {
        assert_true(t->entries[i].start < t->entries[i].end);
        if (i > 0)
            assert_true(t->entries[i - 1].end <= t->entries[i].start);
    }
}

static void overlapping_range_is_refused_and_a_touching_one_is_not(void **state)
{
    struct range_table *t = *state;

    assert_int_equal(range_insert(t, 100, 200, 0), 0);
    assert_int_equal(range_insert(t, 199, 201, 0), -EEXIST);
    assert_int_equal(range_insert(t, 50, 101, 0), -EEXIST);
    assert_int_equal(range_insert(t, 120, 130, 0), -EEXIST);
    assert_int_equal(range_insert(t, 0, 1000, 0), -EEXIST);
    assert_int_equal(range_insert(t, 200, 300, 0), 0);
    assert_int_equal(range_insert(t, 0, 100, 0), 0);
    assert_int_equal(t->count, 3);
    assert_sorted(t);
}

static void only_the_exact_range_is_removed(void **state)
{
    struct range_table *t = *state;

    range_insert(t, 100, 200, 7);
    assert_false(range_remove(t, 100, 199));
    assert_false(range_remove(t, 101, 200));
    assert_false(range_remove(t, 300, 400));
    assert_true(range_remove(t, 100, 200));
    assert_int_equal(t->count, 0);
}

static void lowest_overlapping_entry_is_found(void **state)
{
    struct range_table *t = *state;

    range_insert(t, 300, 400, 2);
    range_insert(t, 100, 200, 1);
    assert_int_equal(range_find(t, 0, 1000)->tag, 1);
    assert_int_equal(range_find(t, 200, 301)->tag, 2);
    assert_int_equal(range_find(t, 399, 400)->tag, 2);
    assert_null(range_find(t, 200, 300));
    assert_null(range_find(t, 400, 1000));
}

static void first_gap_is_the_lowest_that_is_long_enough(void **state)
{
    struct range_table *t = *state;
    uintptr_t at = 0;

    range_insert(t, 110, 200, 0);
    range_insert(t, 250, 300, 0);
    assert_true(range_first_gap(t, 100, 1000, 10, &at));
    assert_int_equal(at, 100);
    assert_true(range_first_gap(t, 100, 1000, 11, &at));
    assert_int_equal(at, 200);
    assert_true(range_first_gap(t, 100, 1000, 51, &at));
    assert_int_equal(at, 300);
    assert_true(range_first_gap(t, 120, 1000, 1, &at));      /* starts inside an entry */
    assert_int_equal(at, 200);
    assert_true(range_first_gap(t, 300, 1000, 700, &at));
    assert_int_equal(at, 300);
    assert_false(range_first_gap(t, 100, 1000, 701, &at));
    assert_false(range_first_gap(t, 100, 299, 60, &at));
    assert_false(range_first_gap(t, 110, 200, 1, &at));
    assert_false(range_first_gap(t, 100, 1000, SIZE_MAX, &at));
}

static void longest_gap_counts_both_ends(void **state)
{
    struct range_table *t = *state;

    assert_int_equal(range_longest_gap(t, 100, 1000), 900);
    range_insert(t, 150, 400, 0);
    assert_int_equal(range_longest_gap(t, 100, 1000), 600);
    range_insert(t, 500, 990, 0);
    assert_int_equal(range_longest_gap(t, 100, 1000), 100);
    assert_int_equal(range_longest_gap(t, 100, 440), 50);
    assert_int_equal(range_longest_gap(t, 200, 300), 0);
}

/* Enough for several growths of the array, in an order that moves its tail. */
static void thousands_of_ranges_stay_sorted(void **state)
{
    struct range_table *t = *state, copy;

    for (uintptr_t i = 0; i < 5000; i++)
        assert_int_equal(range_insert(t, i * 7919 % 5000 * 10 + 1, i * 7919 % 5000 * 10 + 6, i), 0);
    assert_int_equal(t->count, 5000);
    assert_sorted(t);
    assert_int_equal(range_copy(t, &copy), 0);
    for (uintptr_t i = 0; i < 5000; i += 2)
        assert_true(range_remove(t, i * 10 + 1, i * 10 + 6));
    assert_int_equal(t->count, 2500);
    assert_sorted(t);
    assert_null(range_find(t, 20, 30));
    assert_non_null(range_find(t, 30, 40));
    assert_int_equal(copy.count, 5000);
    assert_non_null(range_find(&copy, 20, 30));
    range_clear(&copy);
    assert_null(copy.entries);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(overlapping_range_is_refused_and_a_touching_one_is_not, setup, teardown),
        cmocka_unit_test_setup_teardown(only_the_exact_range_is_removed, setup, teardown),
        cmocka_unit_test_setup_teardown(lowest_overlapping_entry_is_found, setup, teardown),
        cmocka_unit_test_setup_teardown(first_gap_is_the_lowest_that_is_long_enough, setup, teardown),
        cmocka_unit_test_setup_teardown(longest_gap_counts_both_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(thousands_of_ranges_stay_sorted, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
