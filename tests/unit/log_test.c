/* log_test.c - a peer cannot fill the log. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "shmserver/daemon/log.h"

static void burst_is_written_and_then_a_line_now_and_then(void **state)
{
    uint64_t now = 1000000;
    unsigned written = 0;

    (void)state;
    while (log_bucket_take(now))
        written++;
    assert_int_equal(written, LOG_BURST);
    assert_false(log_bucket_take(now + 1000 / LOG_PER_SECOND - 1));
    assert_true(log_bucket_take(now + 1000 / LOG_PER_SECOND));
    assert_false(log_bucket_take(now + 1000 / LOG_PER_SECOND));

    /* After an hour it is full again, not fuller. */
    now += 3600 * 1000;
    for (written = 0; log_bucket_take(now); written++)
        ;
    assert_int_equal(written, LOG_BURST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(burst_is_written_and_then_a_line_now_and_then),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
