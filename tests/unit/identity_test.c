/* identity_test.c - who is at the other end, and may he come in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shmserver/daemon/identity.h"

static void other_end_is_who_the_kernel_says(void **state)
{
    struct identity id;
    int ends[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    assert_int_equal(identity_read(ends[0], &id), 0);
    assert_int_equal(id.pid, getpid());
    assert_int_equal(id.uid, geteuid());
    assert_int_equal(id.gid, getegid());
    assert_true(id.command[0] != '\0');
    identity_deinit(&id);
    assert_int_equal(id.pidfd, -1);
    close(ends[0]);
    close(ends[1]);
    assert_true(identity_read(-1, &id) < 0);
}

static void process_is_found_by_its_number_and_ended(void **state)
{
    struct identity id, own;
    int status;
    pid_t pid = fork();

    (void)state;
    if (pid == 0) {
        alarm(60);      /* should this test end before it */
        for (;;)
            pause();
    }
    assert_int_equal(identity_of(getpid(), &own), 0);
    assert_int_equal(identity_of(pid, &id), 0);
    assert_int_equal(id.pid, pid);
    assert_int_equal(id.uid, geteuid());
    assert_string_equal(id.command, own.command);
    assert_int_equal(identity_kill(&id), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    /* It is dead, as was wanted. */
    assert_int_equal(identity_kill(&id), 0);
    identity_deinit(&id);
    identity_deinit(&own);
    assert_int_equal(identity_of(pid, &id), -ESRCH);
    assert_int_equal(identity_kill(&id), -ESRCH);
}

static void own_user_comes_in_and_groups_count(void **state)
{
    struct access nobody = { .by_group = false }, group = { .by_group = true, .group = getegid() };
    struct identity id, stranger;
    int ends[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    assert_int_equal(identity_read(ends[0], &id), 0);
    assert_true(access_allows(&nobody, ends[0], &id));
    stranger = id;
    stranger.uid = 54321;
    assert_false(access_allows(&nobody, ends[0], &stranger));
    assert_true(access_allows(&group, ends[0], &stranger));
    group.group = 54321;
    assert_false(access_allows(&group, ends[0], &stranger));
    assert_true(identity_has_group(ends[0], &id, getegid()));
    identity_deinit(&id);
    close(ends[0]);
    close(ends[1]);
}

/* As root of nothing: a namespace that maps nobody shows us, and everybody, by the same number. */
static int judge_ourselves_without_a_map(void)
{
    struct access access = { .by_group = true };
    struct identity id;
    int ends[2];

    if (unshare(CLONE_NEWUSER) < 0)
        return 77;
    access.group = getegid();
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0 || identity_read(ends[0], &id) < 0)
        return 1;
    if (id.uid != geteuid() || id.gid != access.group || id.is_certain)
        return 2;
    return !access_allows(&access, ends[0], &id) && !identity_has_group(ends[0], &id, id.gid) ? 0 : 3;
}

static void who_is_not_mapped_is_neither_ourselves_nor_a_member(void **state)
{
    int status;
    pid_t pid;

    (void)state;
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(judge_ourselves_without_a_map());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WEXITSTATUS(status) == 77) {
        print_message("skipped: no right to make user namespaces here\n");
        skip();
    }
    assert_int_equal(status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(other_end_is_who_the_kernel_says),
        cmocka_unit_test(process_is_found_by_its_number_and_ended),
        cmocka_unit_test(own_user_comes_in_and_groups_count),
        cmocka_unit_test(who_is_not_mapped_is_neither_ourselves_nor_a_member),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
