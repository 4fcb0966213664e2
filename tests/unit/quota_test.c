/* quota_test.c - what a user may have; what he gives back he may have again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include <liballoc/error.h>

#include "shmserver/daemon/quota.h"

static struct quota quota;

static int setup(void **state)
{
    const struct quota_limits limits = { .clients = 2, .heaps = 3, .bytes = 1000, .requests = 10, .committed = UINT64_MAX };

    (void)state;
    quota_init(&quota, &limits);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    quota_deinit(&quota);
    return !list_is_empty(&quota.users);
}

static void connections_are_counted_per_user(void **state)
{
    (void)state;
    assert_int_equal(quota_take_client(&quota, 1), 0);
    assert_int_equal(quota_take_client(&quota, 1), 0);
    assert_int_equal(quota_take_client(&quota, 1), -EUSERS);
    assert_int_equal(quota_take_client(&quota, 2), 0);
    quota_give_client(&quota, 1);
    assert_int_equal(quota_take_client(&quota, 1), 0);
    quota_give_client(&quota, 1);
    quota_give_client(&quota, 1);
    quota_give_client(&quota, 2);
}

static void heaps_are_limited_by_number_and_by_bytes(void **state)
{
    (void)state;
    assert_int_equal(quota_take_heap(&quota, 1, 1001, false), -EDQUOT);
    assert_int_equal(quota_take_heap(&quota, 1, 600, false), 0);
    assert_int_equal(quota_take_heap(&quota, 1, 401, false), -EDQUOT);
    assert_non_null(strstr(la_last_error(), "401 more"));
    assert_int_equal(quota_take_heap(&quota, 1, UINT64_MAX - 100, false), -EDQUOT);
    assert_int_equal(quota_take_heap(&quota, 1, 400, false), 0);
    assert_int_equal(quota_take_heap(&quota, 1, 0, false), 0);
    assert_int_equal(quota_take_heap(&quota, 1, 0, false), -EDQUOT);
    assert_non_null(strstr(la_last_error(), "3 heaps"));
    quota_give_heap(&quota, 1, 600, false);
    assert_int_equal(quota_take_heap(&quota, 1, 600, false), 0);
    quota_give_heap(&quota, 1, 600, false);
    quota_give_heap(&quota, 1, 400, false);
    quota_give_heap(&quota, 1, 0, false);
}

static void huge_pages_have_a_limit_of_their_own(void **state)
{
    struct quota_limits own = { .heaps = 9, .bytes = 1000, .huge = 100 };
    struct quota_usage usage;

    (void)state;
    assert_int_equal(quota_set_limits(&quota, 5, &own), 0);
    assert_int_equal(quota_take_heap(&quota, 5, 60, true), 0);
    assert_int_equal(quota_take_heap(&quota, 5, 41, true), -EDQUOT);
    assert_non_null(strstr(la_last_error(), "41 more"));
    assert_int_equal(quota_take_heap(&quota, 5, 41, false), 0);
    /* They count as bytes, too. */
    assert_int_equal(quota_take_heap(&quota, 5, 900, false), -EDQUOT);
    assert_int_equal(quota_count_heap(&quota, 5, 500, true), 0);
    assert_int_equal(quota_take_heap(&quota, 5, 0, true), -EDQUOT);
    quota_give_heap(&quota, 5, 500, true);
    assert_int_equal(quota_take_heap(&quota, 5, 40, true), 0);
    assert_true(quota_next(&quota, 5, &usage));
    assert_true(usage.huge == 100 && usage.bytes == 141 && usage.limits.huge == 100);
    quota_give_heap(&quota, 5, 60, true);
    quota_give_heap(&quota, 5, 40, true);
    quota_give_heap(&quota, 5, 41, false);
    assert_true(quota_next(&quota, 5, &usage) && usage.huge == 0 && usage.bytes == 0);
}

static void refusal_is_remembered(void **state)
{
    struct quota_usage usage;

    (void)state;
    assert_int_equal(quota_take_heap(&quota, 7, 5000, false), -EDQUOT);
    assert_true(quota_next(&quota, 0, &usage));
    assert_int_equal(usage.uid, 7);
    assert_int_equal(usage.refused, 1);
    assert_int_equal(usage.heaps, 0);
    assert_int_equal(usage.bytes, 0);
}

static void limits_of_one_user_are_his_alone(void **state)
{
    struct quota_limits own = { .clients = 1, .heaps = 1, .bytes = 50 };
    struct quota_usage usage;

    (void)state;
    assert_int_equal(quota_take_heap(&quota, 5, 60, false), 0);
    assert_int_equal(quota_set_limits(&quota, 5, &own), 0);
    /* What he has beyond it he keeps; more he does not get, whatever the size. */
    assert_int_equal(quota_take_heap(&quota, 5, 0, false), -EDQUOT);
    own.heaps = 9;
    assert_int_equal(quota_set_limits(&quota, 5, &own), 0);
    assert_int_equal(quota_take_heap(&quota, 5, 0, false), -EDQUOT);
    assert_int_equal(quota_take_heap(&quota, 5, UINT64_MAX - 20, false), -EDQUOT);
    quota_give_heap(&quota, 5, 60, false);
    assert_int_equal(quota_take_heap(&quota, 5, 51, false), -EDQUOT);
    assert_int_equal(quota_take_heap(&quota, 5, 50, false), 0);
    assert_int_equal(quota_take_heap(&quota, 6, 1000, false), 0);
    /* Found in the order of ids. */
    assert_true(quota_next(&quota, 5, &usage));
    assert_int_equal(usage.uid, 5);
    assert_int_equal(usage.limits.bytes, 50);
    assert_true(quota_next(&quota, 6, &usage));
    assert_int_equal(usage.limits.bytes, 1000);
    assert_false(quota_next(&quota, 7, &usage));
}

static void requests_above_the_limit_wait(void **state)
{
    uint64_t now = 5000;
    struct quota_usage usage;
    unsigned n = 0;

    (void)state;
    assert_int_equal(quota_take_client(&quota, 1), 0);
    assert_int_equal(quota_take_client(&quota, 2), 0);
    while (quota_take_request(&quota, 1, now) == 0)
        n++;
    assert_int_equal(n, 10);            /* a second's worth at once */
    assert_in_range(quota_take_request(&quota, 1, now), 1, 101);
    assert_int_equal(quota_take_request(&quota, 2, now), 0);
    now += quota_take_request(&quota, 1, now);
    while (quota_take_request(&quota, 1, now) == 0)
        n++;
    assert_in_range(n, 11, 12);

    /* A new connection is no new beginning. */
    quota_give_client(&quota, 1);
    assert_int_equal(quota_take_client(&quota, 1), 0);
    assert_true(quota_take_request(&quota, 1, now) > 0);
    assert_true(quota_next(&quota, 1, &usage));
    assert_int_equal(usage.delayed, 5);

    /* In the long run: ten per second, and not more for a silence before. */
    for (n = 0, now += 60000; now < 5000 + 60000 + 10000; now += 7)
        n += quota_take_request(&quota, 1, now) == 0;
    assert_in_range(n, 90, 111);
}

static void memory_is_watched_while_anybody_has_a_limit(void **state)
{
    struct quota_limits limits;

    (void)state;
    assert_false(quota_watches_memory(&quota));
    assert_int_equal(quota_take_client(&quota, 1), 0);
    limits = quota_limits_of(&quota, 1);
    limits.committed = 5;
    assert_int_equal(quota_set_limits(&quota, 1, &limits), 0);
    assert_true(quota_watches_memory(&quota));
    assert_false(quota_is_over(&quota, 1));
    assert_true(quota_set_over(&quota, 1, true));
    assert_false(quota_set_over(&quota, 1, true));      /* told once */
    assert_true(quota_is_over(&quota, 1));
    assert_true(quota_set_over(&quota, 1, false));
    assert_false(quota_set_over(&quota, 2, true));      /* nobody knows him */
    quota_give_client(&quota, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(connections_are_counted_per_user, setup, teardown),
        cmocka_unit_test_setup_teardown(heaps_are_limited_by_number_and_by_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(huge_pages_have_a_limit_of_their_own, setup, teardown),
        cmocka_unit_test_setup_teardown(refusal_is_remembered, setup, teardown),
        cmocka_unit_test_setup_teardown(limits_of_one_user_are_his_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(requests_above_the_limit_wait, setup, teardown),
        cmocka_unit_test_setup_teardown(memory_is_watched_while_anybody_has_a_limit, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
