/* sysfile_test.c - small files of the kernel: what is there is read, what is not is told apart from zero. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "os/sysfile.h"

static void number_stands_behind_its_key_at_the_start_of_a_line(void **state)
{
    static const char text[] = "17\nMemTotal:  100 kB\nXMemFree: 1\nMemFree:\t 5 kB\nlimit max\nnothing:\nlast: 7";

    (void)state;
    assert_int_equal(os_number_after(text, ""), 17);
    assert_int_equal(os_number_after(text, "MemTotal:"), 100);
    assert_int_equal(os_number_after(text, "MemFree:"), 5);
    assert_int_equal(os_number_after(text, "last:"), 7);
    assert_true(os_number_after(text, "limit") == SIZE_MAX);
    assert_true(os_number_after(text, "nothing:") == SIZE_MAX);
    assert_true(os_number_after(text, "absent:") == SIZE_MAX);
    assert_true(os_number_after("", "") == SIZE_MAX);
}

static void file_that_is_not_there_is_told_and_keeps_errno(void **state)
{
    char text[16] = "before";

    (void)state;
    errno = 77;
    assert_false(os_read_text("/nonexistent/file", text, sizeof(text)));
    assert_string_equal(text, "");
    assert_true(os_read_number("/nonexistent/file") == SIZE_MAX);
    assert_int_equal(errno, 77);
    assert_true(os_read_text("/proc/self/status", text, sizeof(text)));
    assert_int_equal(strlen(text), sizeof(text) - 1);
    assert_memory_equal(text, "Name:", 5);
    assert_true(os_read_number("/proc/sys/kernel/pid_max") > 0 && os_read_number("/proc/sys/kernel/pid_max") < SIZE_MAX);
    assert_int_equal(errno, 77);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(number_stands_behind_its_key_at_the_start_of_a_line),
        cmocka_unit_test(file_that_is_not_there_is_told_and_keeps_errno),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
