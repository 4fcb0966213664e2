/* named_fds_test.c - descriptors with names, from one program to the next. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shmserver/daemon/named_fds.h"

static void descriptors_are_found_taken_and_dropped_by_name(void **state)
{
    struct named_fds fds = { 0 };
    char longest[NAMED_FD_NAME_MAX + 2];
    int fd;

    (void)state;
    assert_int_equal(named_fds_add(&fds, "a", open("/dev/null", O_RDONLY | O_CLOEXEC)), 0);
    assert_int_equal(named_fds_add(&fds, "b", open("/dev/null", O_RDONLY | O_CLOEXEC)), 0);
    assert_int_equal(named_fds_add(&fds, "a", open("/dev/null", O_RDONLY | O_CLOEXEC)), 0);
    assert_int_equal(named_fds_take(&fds, "c"), -1);
    fd = named_fds_take(&fds, "b");
    assert_int_equal(close(fd), 0);
    assert_int_equal(fds.count, 2);
    fd = fds.list[1].fd;
    named_fds_drop(&fds, "a");
    assert_int_equal(fds.count, 0);
    assert_int_equal(fcntl(fd, F_GETFD), -1);

    memset(longest, 'n', sizeof(longest));
    longest[NAMED_FD_NAME_MAX + 1] = '\0';
    fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_int_equal(named_fds_add(&fds, longest, fd), -EINVAL);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
    assert_int_equal(named_fds_add(&fds, "a:b", open("/dev/null", O_RDONLY | O_CLOEXEC)), -EINVAL);
    named_fds_close(&fds);
}

/* A file that can be told from others. */
static int numbered_file(int number)
{
    char path[] = "/tmp/named-fds-test-XXXXXX";
    int fd = mkostemp(path, O_CLOEXEC);

    unlink(path);
    assert_int_equal(ftruncate(fd, number), 0);
    return fd;
}

static long number_of(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 ? (long)st.st_size : -1;
}

enum { MANY = 40 };

/* In a child, which becomes what it has passed: as after exec, but that nothing is closed. */
static int pass_and_inherit(void)
{
    struct named_fds fds = { 0 }, again;

    for (int i = 0; i < MANY; i++) {
        char name[16];

        snprintf(name, sizeof(name), "file-%d", i);
        /* Their own numbers are among those that they are to get, in another order. */
        if (named_fds_add(&fds, name, numbered_file(i + 1)) < 0)
            return 1;
    }
    for (int i = 0; i < MANY / 2; i++) {
        struct named_fd first = fds.list[i];

        fds.list[i] = fds.list[MANY - 1 - i];
        fds.list[MANY - 1 - i] = first;
    }
    if (named_fds_pass(&fds) < 0 || !named_fds_are_there() || fcntl(3, F_GETFD) != 0)
        return 2;
    if (named_fds_inherit(&again) < 0 || again.count != MANY || getenv("LISTEN_FDS") || getenv("LISTEN_FDNAMES"))
        return 3;
    for (int i = 0; i < MANY; i++) {
        char name[16];
        int fd;

        snprintf(name, sizeof(name), "file-%d", i);
        fd = named_fds_take(&again, name);
        if (number_of(fd) != i + 1 || !(fcntl(fd, F_GETFD) & FD_CLOEXEC))
            return 4;
    }
    return again.count == 0 && !named_fds_are_there() ? 0 : 5;
}

static void what_is_passed_is_inherited_by_name(void **state)
{
    int status;
    pid_t pid = fork();

    (void)state;
    if (pid == 0)
        _exit(pass_and_inherit());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void descriptors_of_another_process_are_not_ours(void **state)
{
    struct named_fds fds;

    (void)state;
    setenv("LISTEN_PID", "1", 1);
    setenv("LISTEN_FDS", "3", 1);
    assert_false(named_fds_are_there());
    assert_int_equal(named_fds_inherit(&fds), 0);
    assert_int_equal(fds.count, 0);
    assert_null(getenv("LISTEN_PID"));
}

static void descriptors_without_names_and_such_that_are_not_open_are_no_trouble(void **state)
{
    char number[16];
    struct named_fds fds;
    int fd = dup(0), last = fd + 1;

    (void)state;
    close(last);
    snprintf(number, sizeof(number), "%d", getpid());
    setenv("LISTEN_PID", number, 1);
    snprintf(number, sizeof(number), "%d", last - 3 + 1);
    setenv("LISTEN_FDS", number, 1);
    assert_int_equal(named_fds_inherit(&fds), 0);
    assert_true(fds.count >= 1 && fds.count <= (size_t)(last - 3));
    assert_string_equal(fds.list[fds.count - 1].name, "unknown");
    named_fds_close(&fds);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(descriptors_are_found_taken_and_dropped_by_name),
        cmocka_unit_test(what_is_passed_is_inherited_by_name),
        cmocka_unit_test(descriptors_of_another_process_are_not_ours),
        cmocka_unit_test(descriptors_without_names_and_such_that_are_not_open_are_no_trouble),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
