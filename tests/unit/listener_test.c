/* listener_test.c - one listener per path; what a dead one left is replaced. */
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
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <liballoc/error.h>

#include "shmserver/daemon/listener.h"

struct fixture {
    char folder[32];
    char path[64];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    strcpy(f->folder, "/tmp/listener-test-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    snprintf(f->path, sizeof(f->path), "%s/socket", f->folder);
    unsetenv("LISTEN_PID");
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char lock[80];

    unlink(f->path);
    snprintf(lock, sizeof(lock), "%s.lock", f->path);
    unlink(lock);
    assert_int_equal(rmdir(f->folder), 0);
    free(f);
    return 0;
}

static int connect_to(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    strcpy(address.sun_path, path);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    close(fd);
    return -1;
}

static void connection_is_accepted_and_the_socket_is_private(void **state)
{
    struct fixture *f = *state;
    struct listener listener;
    struct stat st;
    int client, server;

    assert_int_equal(listener_open(&listener, f->path, SOCK_SEQPACKET, -1), 0);
    assert_int_equal(stat(f->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(listener_accept(&listener), -EAGAIN);
    client = connect_to(f->path);
    server = listener_accept(&listener);
    assert_true(client >= 0 && server >= 0);
    assert_true(fcntl(server, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(server, F_GETFD) & FD_CLOEXEC);
    close(client);
    close(server);
    listener_close(&listener);
    assert_int_equal(access(f->path, F_OK), -1);
}

static void group_gets_the_socket(void **state)
{
    struct fixture *f = *state;
    struct listener listener;
    struct stat st;

    assert_int_equal(listener_open(&listener, f->path, SOCK_SEQPACKET, (long)getegid()), 0);
    assert_int_equal(stat(f->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0660);
    assert_int_equal(st.st_gid, getegid());
    listener_close(&listener);
}

static void second_listener_is_refused_and_does_no_harm(void **state)
{
    struct fixture *f = *state;
    struct listener first, second;
    int client;

    assert_int_equal(listener_open(&first, f->path, SOCK_SEQPACKET, -1), 0);
    assert_int_equal(listener_open(&second, f->path, SOCK_SEQPACKET, -1), -EADDRINUSE);
    client = connect_to(f->path);
    assert_true(client >= 0);
    close(client);
    listener_close(&first);
    assert_int_equal(listener_open(&second, f->path, SOCK_SEQPACKET, -1), 0);
    listener_close(&second);
}

static void socket_of_the_dead_is_replaced_but_nothing_else(void **state)
{
    struct fixture *f = *state;
    struct listener listener;
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int stale = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), file;

    strcpy(address.sun_path, f->path);
    assert_int_equal(bind(stale, (struct sockaddr *)&address, sizeof(address)), 0);
    close(stale);
    assert_int_equal(listener_open(&listener, f->path, SOCK_SEQPACKET, -1), 0);
    listener_close(&listener);

    file = open(f->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    close(file);
    assert_int_equal(listener_open(&listener, f->path, SOCK_SEQPACKET, -1), -EEXIST);
    assert_int_equal(access(f->path, F_OK), 0);
}

static void somebody_without_a_lock_is_not_robbed(void **state)
{
    struct fixture *f = *state;
    struct listener listener;
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int other = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    strcpy(address.sun_path, f->path);
    assert_int_equal(bind(other, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(other, 1), 0);
    assert_int_equal(listener_open(&listener, f->path, SOCK_SEQPACKET, -1), -EADDRINUSE);
    assert_int_equal(access(f->path, F_OK), 0);
    close(other);
}

static void missing_folder_is_an_error_in_words(void **state)
{
    struct fixture *f = *state;
    struct listener listener;
    char path[80];

    snprintf(path, sizeof(path), "%s/none/socket", f->folder);
    assert_int_equal(listener_open(&listener, path, SOCK_SEQPACKET, -1), -ENOENT);
    assert_non_null(strstr(la_last_error(), "/none, does not exist"));
}

static void expect_refusal(const char *path, int status, const char *words)
{
    struct listener listener;

    assert_int_equal(listener_open(&listener, path, SOCK_SEQPACKET, -1), status);
    if (!strstr(la_last_error(), words) || !strstr(la_last_error(), "--socket"))
        fail_msg("%s: \"%s\" does not say \"%s\" and --socket", path, la_last_error(), words);
    assert_int_equal(listener.fd, -1);
    assert_int_equal(listener.lock, -1);
}

static void path_where_no_socket_can_be_is_refused_with_reason_and_remedy(void **state)
{
    struct fixture *f = *state;
    char path[300], lock[320];
    int fd;

    expect_refusal("/proc/socket", -ENOENT, "/proc takes no files");
    expect_refusal(f->folder, -EEXIST, "is no socket");
    snprintf(lock, sizeof(lock), "%s.lock", f->folder);
    assert_int_equal(access(lock, F_OK), -1);

    snprintf(path, sizeof(path), "%s/file", f->folder);
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
    expect_refusal(path, -EEXIST, "is no socket");
    strcat(path, "/socket");
    expect_refusal(path, -ENOTDIR, "/file is no folder");
    path[strlen(path) - strlen("/socket")] = '\0';
    unlink(path);

    snprintf(lock, sizeof(lock), "%s.lock", f->path);
    assert_int_equal(symlink("/dev/null", lock), 0);
    expect_refusal(f->path, -ELOOP, "symbolic link");
    unlink(lock);
    assert_int_equal(mkdir(lock, 0700), 0);
    expect_refusal(f->path, -EISDIR, "is a folder");
    rmdir(lock);

    memset(path, 'x', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    expect_refusal(path, -ENAMETOOLONG, "a socket's may have");
    expect_refusal("", -EINVAL, "is empty");
}

static void add(struct named_fds *fds, const char *name, int fd)
{
    assert_true(fd >= 0);
    assert_int_equal(named_fds_add(fds, name, fd), 0);
}

static void without_a_service_manager_nothing_is_inherited(void **state)
{
    struct named_fds inherited = { 0 };
    struct listener listener, metrics;

    (void)state;
    assert_int_equal(listener_inherit(&listener, &metrics, &inherited), 0);
    assert_int_equal(listener.fd, -1);
    assert_int_equal(metrics.fd, -1);
}

/* As an earlier daemon of the same path has left them with whoever keeps them. */
static void own_sockets_come_back_with_their_locks_and_stay_ours(void **state)
{
    struct fixture *f = *state;
    struct listener first, listener, metrics;
    struct named_fds inherited = { 0 };
    int client;

    assert_int_equal(listener_open(&first, f->path, SOCK_SEQPACKET, -1), 0);
    client = connect_to(f->path);
    add(&inherited, "state", open("/dev/null", O_RDONLY | O_CLOEXEC));
    add(&inherited, "socket", dup(first.lock));
    add(&inherited, "socket", dup(first.fd));
    listener_leave(&first);
    assert_int_equal(access(f->path, F_OK), 0);

    assert_int_equal(listener_inherit(&listener, &metrics, &inherited), 1);
    assert_true(listener_is_ours(&listener));
    assert_string_equal(listener.path, f->path);
    assert_int_equal(inherited.count, 1);
    assert_int_equal(metrics.fd, -1);
    /* Who connected meanwhile waits in it, and nobody else can open one. */
    assert_int_equal(listener_open(&first, f->path, SOCK_SEQPACKET, -1), -EADDRINUSE);
    assert_int_equal(close(listener_accept(&listener)), 0);
    close(client);
    listener_close(&listener);
    assert_int_equal(access(f->path, F_OK), -1);
    named_fds_close(&inherited);
}

static void service_managers_sockets_are_not_ours_and_more_than_two_are_refused(void **state)
{
    struct fixture *f = *state;
    struct listener first, second, listener, metrics;
    struct named_fds inherited = { 0 };
    char path[80];

    snprintf(path, sizeof(path), "%s2", f->path);
    assert_int_equal(listener_open(&first, f->path, SOCK_SEQPACKET, -1), 0);
    assert_int_equal(listener_open(&second, path, SOCK_STREAM, -1), 0);
    add(&inherited, "shmserver.socket", dup(second.fd));
    add(&inherited, "shmserver.socket", dup(first.fd));
    assert_int_equal(listener_inherit(&listener, &metrics, &inherited), 1);
    assert_false(listener_is_ours(&listener));
    listener_close(&listener);
    listener_close(&metrics);
    assert_int_equal(access(f->path, F_OK), 0);

    add(&inherited, "shmserver.socket", dup(first.fd));
    add(&inherited, "shmserver.socket", dup(first.fd));
    assert_int_equal(listener_inherit(&listener, &metrics, &inherited), -EINVAL);
    listener_leave(&listener);
    named_fds_close(&inherited);
    add(&inherited, "metrics alone", dup(second.fd));
    assert_int_equal(listener_inherit(&listener, &metrics, &inherited), -EINVAL);
    listener_leave(&metrics);
    named_fds_close(&inherited);
    listener_close(&first);
    listener_close(&second);
}

#define with_folder(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_folder(connection_is_accepted_and_the_socket_is_private),
        with_folder(group_gets_the_socket),
        with_folder(second_listener_is_refused_and_does_no_harm),
        with_folder(socket_of_the_dead_is_replaced_but_nothing_else),
        with_folder(somebody_without_a_lock_is_not_robbed),
        with_folder(missing_folder_is_an_error_in_words),
        with_folder(path_where_no_socket_can_be_is_refused_with_reason_and_remedy),
        with_folder(without_a_service_manager_nothing_is_inherited),
        with_folder(own_sockets_come_back_with_their_locks_and_stay_ours),
        with_folder(service_managers_sockets_are_not_ours_and_more_than_two_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
