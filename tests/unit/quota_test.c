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
    const struct quota_limits limits = { .clients = 2, .heaps = 3, .bytes = 1000 };

    (void)state;
    quota_init(&quota, &limits);
    return 0;
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
    assert_true(list_is_empty(&quota.users));
}

static void heaps_are_limited_by_number_and_by_bytes(void **state)
{
    (void)state;
    assert_int_equal(quota_take_heap(&quota, 1, 1001), -EDQUOT);
    assert_int_equal(quota_take_heap(&quota, 1, 600), 0);
    assert_int_equal(quota_take_heap(&quota, 1, 401), -EDQUOT);
    assert_non_null(strstr(la_last_error(), "401 more"));
    assert_int_equal(quota_take_heap(&quota, 1, UINT64_MAX - 100), -EDQUOT);
    assert_int_equal(quota_take_heap(&quota, 1, 400), 0);
    assert_int_equal(quota_take_heap(&quota, 1, 0), 0);
    assert_int_equal(quota_take_heap(&quota, 1, 0), -EDQUOT);
    assert_non_null(strstr(la_last_error(), "3 heaps"));
    quota_give_heap(&quota, 1, 600);
    assert_int_equal(quota_take_heap(&quota, 1, 600), 0);
    quota_give_heap(&quota, 1, 600);
    quota_give_heap(&quota, 1, 400);
    quota_give_heap(&quota, 1, 0);
    assert_true(list_is_empty(&quota.users));
}

static void refusal_leaves_nothing_behind(void **state)
{
    (void)state;
    assert_int_equal(quota_take_heap(&quota, 7, 5000), -EDQUOT);
    assert_true(list_is_empty(&quota.users));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(connections_are_counted_per_user, setup),
        cmocka_unit_test_setup(heaps_are_limited_by_number_and_by_bytes, setup),
        cmocka_unit_test_setup(refusal_leaves_nothing_behind, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
