/* util_test.c - descriptors that close themselves, alignment arithmetic. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/util.h"

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) != -1;
}

static int open_null(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    return fd;
}

static void descriptor_is_closed_at_the_end_of_its_scope(void **state)
{
    int seen;

    (void)state;
    {
        CLEANUP(close_fd) int fd = open_null();
        seen = fd;
        assert_true(is_open(seen));
    }
    assert_false(is_open(seen));
}

static void stolen_descriptor_stays_open(void **state)
{
    int seen;

    (void)state;
    {
        CLEANUP(close_fd) int fd = open_null();
        seen = steal_fd(&fd);
        assert_int_equal(fd, -1);
    }
    assert_true(is_open(seen));
    close(seen);
}

static void closing_keeps_errno_and_ignores_an_empty_variable(void **state)
{
    int fd = open_null();

    (void)state;
    errno = ENOSPC;
    close_fd(&fd);
    assert_int_equal(fd, -1);
    close_fd(&fd);      /* would set EBADF if it were passed on */
    assert_int_equal(errno, ENOSPC);
}

static void alignment_rounds_to_the_next_multiple(void **state)
{
    (void)state;
    assert_int_equal(align_up(0, 16), 0);
    assert_int_equal(align_up(1, 16), 16);
    assert_int_equal(align_up(16, 16), 16);
    assert_int_equal(align_down(31, 16), 16);
    assert_int_equal(align_down(UINTPTR_MAX, 2 * MiB), UINTPTR_MAX - (2 * MiB - 1));
}

static void zero_and_mixed_bits_are_no_power_of_two(void **state)
{
    (void)state;
    assert_false(is_power_of_2(0));
    assert_true(is_power_of_2(1));
    assert_true(is_power_of_2((size_t)1 << 63));
    assert_false(is_power_of_2(24));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(descriptor_is_closed_at_the_end_of_its_scope),
        cmocka_unit_test(stolen_descriptor_stays_open),
        cmocka_unit_test(closing_keeps_errno_and_ignores_an_empty_variable),
        cmocka_unit_test(alignment_rounds_to_the_next_multiple),
        cmocka_unit_test(zero_and_mixed_bits_are_no_power_of_two),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
