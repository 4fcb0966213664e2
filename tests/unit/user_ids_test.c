/* user_ids_test.c - ids that may be anybody's are told from those that say who somebody is, in namespaces with and without a map. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/user_ids.h"
#include "base/util.h"
#include "os/sysfile.h"

enum { UNMAPPED = 65534, USER = 54321, OTHER = 54322, NO_NAMESPACES = 77 };

/* @body runs in a child; its exit status. */
static int in_child(int (*body)(void))
{
    int status = -1;
    pid_t pid;

    fflush(stdout);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(body());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void in_child_or_skip(int (*body)(void))
{
    int status = in_child(body);

    if (status == NO_NAMESPACES) {
        print_message("skipped: no right to make user namespaces here (or, below, to change the user)\n");
        skip();
    }
    assert_int_equal(status, 0);
}

static bool write_text(const char *path, const char *text)
{
    CLEANUP(close_fd) int fd = open(path, O_WRONLY | O_CLOEXEC);

    return fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
}

/* In a namespace that maps nobody, then only this user. */
static int ids_without_a_map(void)
{
    char map[64];
    uid_t uid = geteuid();

    if (unshare(CLONE_NEWUSER) < 0)
        return NO_NAMESPACES;
    if (geteuid() != UNMAPPED || user_id_is_certain(UNMAPPED) || group_id_is_certain(UNMAPPED) || !user_id_is_certain(0) || !group_id_is_certain(0))
        return 1;
    snprintf(map, sizeof(map), "5 %u 1", uid);
    if (!write_text("/proc/self/uid_map", map))
        return NO_NAMESPACES;
    return geteuid() == 5 && user_id_is_certain(5) && !user_id_is_certain(UNMAPPED) ? 0 : 2;
}

static void number_of_the_unmapped_is_certain_only_where_all_are_mapped(void **state)
{
    char map[64] = "";

    (void)state;
    assert_true(user_id_is_certain(0) && user_id_is_certain(geteuid()) && group_id_is_certain(getegid()));
    /* The machine's own namespace has one line for all. */
    os_read_text("/proc/self/uid_map", map, sizeof(map));
    assert_int_equal(user_id_is_certain(UNMAPPED), strstr(map, " 4294967295\n") != NULL);
    in_child_or_skip(ids_without_a_map);
}

/* A file without a name, open to all, of @owner. */
static int file_of(uid_t owner)
{
    int fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0666);

    return fd >= 0 && fchmod(fd, 0666) == 0 && fchown(fd, owner, (gid_t)-1) == 0 ? fd : -1;
}

static int files_of_two_who_look_alike(void)
{
    int own = file_of(USER), others = file_of(OTHER);
    struct stat st_own, st_others;

    if (own < 0 || others < 0 || setresuid(USER, USER, USER) < 0)
        return NO_NAMESPACES;
    if (fstat(own, &st_own) < 0 || !file_is_own(own, &st_own) || fstat(others, &st_others) < 0 || file_is_own(others, &st_others))
        return 1;
    if (unshare(CLONE_NEWUSER) < 0)
        return NO_NAMESPACES;
    if (fstat(own, &st_own) < 0 || fstat(others, &st_others) < 0 || st_own.st_uid != geteuid() || st_others.st_uid != geteuid())
        return 2;
    return file_is_own(own, &st_own) && !file_is_own(others, &st_others) ? 0 : 3;
}

static void file_of_another_unmapped_user_is_not_taken_for_ones_own(void **state)
{
    (void)state;
    in_child_or_skip(files_of_two_who_look_alike);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(number_of_the_unmapped_is_certain_only_where_all_are_mapped),
        cmocka_unit_test(file_of_another_unmapped_user_is_not_taken_for_ones_own),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
