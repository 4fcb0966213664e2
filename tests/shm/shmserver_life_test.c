/* shmserver_life_test.c - starting and ending: one daemon per socket, stale sockets, clean ends, errors that say what to do. */
#include "daemon.h"

#include <linux/capability.h>

#include "shmserver/protocol/fdpass.h"
#include "shmserver/protocol/record.h"

static const char nobody_there[] = "start one with `shmserver`, or use la_heap_open()";

static bool exists(const char *path)
{
    return access(path, F_OK) == 0;
}

static void without_a_daemon_the_client_says_how_to_get_one(void **state)
{
    struct daemon *d = *state;
    struct shms_client *client = NULL;

    assert_int_equal(shms_connect(NULL, &client), -ECONNREFUSED);
    assert_non_null(strstr(la_last_error(), d->socket));
    assert_non_null(strstr(la_last_error(), nobody_there));
    assert_int_equal(shms_connect("/nowhere/at/all", &client), -ECONNREFUSED);
    assert_int_equal(shms_connect("", &client), -EINVAL);
    assert_null(client);
}

static void path_too_long_for_a_socket_is_refused_by_both(void **state)
{
    struct daemon *d = *state;
    struct shms_client *client = NULL;
    char path[200] = "/tmp/";

    memset(path + 5, 'x', sizeof(path) - 6);
    assert_int_equal(shms_connect(path, &client), -ENAMETOOLONG);
    assert_false(daemon_try_start(d, "--socket", path));
    assert_true(daemon_said(d, "a socket's may have"));
}

static void sigterm_removes_the_socket_and_leaves_attached_clients_alone(void **state)
{
    struct daemon *d = *state;
    struct shms_client *client = connect_or_fail();
    struct la_heap *heap = open_or_fail(client, "lasting", 64 << 20);
    char *block = la_heap_alloc(heap, 100), lock[128];

    strcpy(block, "written before");
    assert_int_equal(daemon_stop(d, SIGTERM), 0);
    snprintf(lock, sizeof(lock), "%s.lock", d->socket);
    assert_false(exists(d->socket));
    assert_false(exists(lock));

    assert_string_equal(block, "written before");
    for (int i = 0; i < 1000; i++)
        assert_non_null(la_heap_alloc(heap, 1 << 14));
    assert_int_equal(la_heap_recover(heap, NULL, NULL), 0);
    assert_int_equal(shms_list(client, NULL, NULL), -ENOTCONN);
    assert_int_equal(shms_list(client, NULL, NULL), -ENOTCONN);
    assert_int_equal(shms_heap_close(client, heap), 0);
    shms_disconnect(client);
}

static void sigint_ends_it_as_cleanly(void **state)
{
    struct daemon *d = *state;

    assert_int_equal(daemon_stop(d, SIGINT), 0);
    assert_false(exists(d->socket));
}

static void socket_that_a_killed_daemon_left_is_replaced(void **state)
{
    struct daemon *d = *state;
    struct shms_client *client = NULL;

    assert_int_equal(WTERMSIG(daemon_stop(d, SIGKILL)), SIGKILL);
    assert_true(exists(d->socket));
    assert_int_equal(shms_connect(NULL, &client), -ECONNREFUSED);
    assert_non_null(strstr(la_last_error(), nobody_there));
    daemon_start(d);
    shms_disconnect(connect_or_fail());
}

static void second_daemon_is_refused_and_the_first_goes_on(void **state)
{
    struct daemon *d = *state;
    pid_t first = d->pid;
    char number[64];

    assert_false(daemon_try_start(d, NULL, NULL));
    snprintf(number, sizeof(number), "another shmserver (process %d) is running on", first);
    assert_true(daemon_said(d, number));
    d->pid = first;
    shms_disconnect(connect_or_fail());
}

static void second_daemon_with_a_keeper_names_the_socket_of_the_first(void **state)
{
    struct daemon *d = *state;
    char where[128];
    pid_t first;

    assert_true(daemon_try_start(d, "--keeper", NULL));
    first = d->pid;
    assert_false(daemon_try_start(d, "--keeper", NULL));
    d->pid = first;
    snprintf(where, sizeof(where), "is running on %s: ", d->socket);
    assert_true(daemon_said(d, where));
}

static void file_that_is_no_socket_is_left_alone(void **state)
{
    struct daemon *d = *state;
    int fd = open(d->socket, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    struct shms_client *client = NULL;

    assert_true(fd >= 0);
    close(fd);
    assert_false(daemon_try_start(d, NULL, NULL));
    assert_true(daemon_said(d, "is no socket"));
    assert_true(exists(d->socket));
    assert_int_equal(shms_connect(NULL, &client), -ECONNREFUSED);
}

static void missing_folder_is_named(void **state)
{
    struct daemon *d = *state;
    char path[128];

    snprintf(path, sizeof(path), "%s/none/socket", d->folder);
    assert_false(daemon_try_start(d, "--socket", path));
    assert_true(daemon_said(d, "/none, does not exist"));
}

static int connect_is_refused_with_the_owner_named(const struct daemon *d)
{
    struct shms_client *client = NULL;

    (void)d;
    return shms_connect(NULL, &client) == -EACCES && strstr(la_last_error(), "no rights on the socket") &&
           strstr(la_last_error(), "owner 0") ? 0 : 1;
}

static int connect_is_refused_by_the_daemon(const struct daemon *d)
{
    struct shms_client *client = NULL;

    (void)d;
    return shms_connect(NULL, &client) == -EACCES && strstr(la_last_error(), "user 65534 may not use this shmserver") ? 0 : 1;
}

static int attaching_works(const struct daemon *d)
{
    struct shms_client *client = connect_or_fail();
    struct la_heap *heap = NULL;
    char registry[96];

    snprintf(registry, sizeof(registry), "%s/unused", d->folder);
    setenv("LIBALLOC_VSPACE_REGISTRY", registry, 1);
    /* Its own heap it may remove, that of root it may not. */
    return shms_heap_open(client, "grouped", 64 << 20, 0, &heap) == 0 && la_heap_alloc(heap, 100) &&
           shms_heap_remove(client, "grouped") == 0 && shms_heap_remove(client, "roots") == -EPERM ? 0 : 1;
}

static void other_users_are_kept_out_by_the_socket_and_by_the_daemon(void **state)
{
    struct daemon *d = *state;

    if (geteuid() != 0)
        skip();
    assert_int_equal(chmod(d->folder, 0755), 0);
    assert_int_equal(as_nobody(connect_is_refused_with_the_owner_named, d), 0);
    /* Also if somebody widens the rights of the socket. */
    assert_int_equal(chmod(d->socket, 0666), 0);
    assert_int_equal(as_nobody(connect_is_refused_by_the_daemon, d), 0);
}

static void group_that_is_allowed_gets_in(void **state)
{
    struct daemon *d = *state;
    struct shms_client *client;

    if (geteuid() != 0)
        skip();
    assert_true(daemon_try_start(d, "--allow-group", "65534"));
    assert_int_equal(chmod(d->folder, 0755), 0);
    client = connect_or_fail();
    assert_int_equal(shms_heap_create(client, "roots", 64 << 20), 0);
    assert_int_equal(as_nobody(attaching_works, d), 0);
    shms_disconnect(client);
}

/* By a root without the right to override permissions: another user might be unable to run a program built in root's folders. */
/* ---- who may use a heap ---- */

/* Of "roots", a heap of root's. */
static int nothing_is_allowed(const struct daemon *d)
{
    struct shms_client *client = connect_or_fail();
    struct shms_heap info = { .struct_size = sizeof(info) };
    struct la_heap *heap = NULL;

    (void)d;
    if (shms_heap_open(client, "roots", 0, 0, &heap) != -EACCES || !strstr(la_last_error(), "shms acl"))
        return 1;
    if (shms_heap_info(client, "roots", &info) != -EACCES || shms_processes(client, "roots", NULL, NULL) != -EACCES)
        return 2;
    if (shms_list(client, NULL, NULL) != 0 || shms_heap_create(client, "roots", 64 << 20) != -EEXIST)
        return 3;
    return shms_heap_set_acl(client, "roots", SHMS_UNCHANGED, SHMS_UNCHANGED, 0666) == -EPERM ? 0 : 4;
}

static int looking_is_allowed(const struct daemon *d)
{
    struct shms_client *client = connect_or_fail();
    struct shms_heap info = { .struct_size = sizeof(info) };
    struct la_heap *heap = NULL;

    (void)d;
    return shms_heap_info(client, "roots", &info) == 0 && info.mode == 0640 && info.group == 65534 && shms_list(client, NULL, NULL) == 1 &&
           shms_heap_open(client, "roots", 0, 0, &heap) == -EACCES ? 0 : 1;
}

static int attaching_is_allowed(const struct daemon *d)
{
    struct shms_client *client = connect_or_fail();
    struct la_heap *heap = NULL;
    char registry[96];

    snprintf(registry, sizeof(registry), "%s/unused", d->folder);
    setenv("LIBALLOC_VSPACE_REGISTRY", registry, 1);
    return shms_heap_open(client, "roots", 0, 0, &heap) == 0 && la_heap_alloc(heap, 100) && shms_heap_remove(client, "roots") == -EPERM ? 0 : 1;
}

static void heap_is_its_owners_until_he_opens_it(void **state)
{
    struct daemon *d = *state;
    struct shms_client *client;

    if (geteuid() != 0)
        skip();
    assert_true(daemon_try_start(d, "--allow-group", "65534"));
    assert_int_equal(chmod(d->folder, 0755), 0);
    client = connect_or_fail();
    assert_int_equal(shms_heap_create(client, "roots", 64 << 20), 0);
    assert_int_equal(as_nobody(nothing_is_allowed, d), 0);
    assert_int_equal(shms_heap_set_acl(client, "roots", SHMS_UNCHANGED, 65534, 0640), 0);
    assert_int_equal(as_nobody(looking_is_allowed, d), 0);
    assert_int_equal(shms_heap_set_acl(client, "roots", SHMS_UNCHANGED, SHMS_UNCHANGED, 0660), 0);
    assert_int_equal(as_nobody(attaching_is_allowed, d), 0);
    assert_int_equal(shms_heap_set_acl(client, "roots", SHMS_UNCHANGED, SHMS_UNCHANGED, 0600), 0);
    assert_int_equal(as_nobody(nothing_is_allowed, d), 0);
    assert_int_equal(shms_heap_set_acl(client, "none", SHMS_UNCHANGED, SHMS_UNCHANGED, 0600), -ENOENT);
    assert_int_equal(shms_heap_set_acl(client, "roots", SHMS_UNCHANGED, SHMS_UNCHANGED, 0755), -EINVAL);
    shms_disconnect(client);
}

static int start_is_refused(const struct daemon *d)
{
    struct daemon mine = *d;

    if (prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE) < 0)
        return 98;
    return daemon_try_start(&mine, NULL, NULL) ? 1 : 0;
}

static void folder_without_rights_is_named(void **state)
{
    struct daemon *d = *state;
    int fd;

    if (geteuid() != 0)
        skip();
    fd = open(d->log, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    assert_true(fd >= 0);
    assert_int_equal(fchmod(fd, 0666), 0);
    close(fd);
    assert_int_equal(chmod(d->folder, 0555), 0);
    assert_int_equal(in_child(start_is_refused, d), 0);
    assert_int_equal(chmod(d->folder, 0700), 0);
    assert_true(daemon_said(d, "is not writable for user 0"));
}

/* What a daemon of an older version says to a hello; then it answers with nothing, and would drop us for anything newer. */
static void act_as_version(unsigned version, int listening)
{
    int fd = accept(listening, NULL, NULL);
    struct fdpass_set set;
    struct wire_message m;

    while (fdpass_receive(fd, &m, &set) == 1) {
        unsigned type = m.header.type;

        if (record_since(&m) > version)
            _exit(1);
        wire_begin(&m, (enum wire_type)type, WIRE_REPLY, m.header.sequence);
        m.header.version = (uint16_t)version;
        if (type == WIRE_HELLO)
            wire_put_u64(&m, TLV_VERSION, 0, version);
        if (fdpass_send(fd, &m, -1) < 0)
            _exit(2);
    }
    _exit(0);
}

/* A connection to one. */
static struct shms_client *connect_to_version(const struct daemon *d, unsigned version, pid_t *pid)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int listening = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    struct shms_client *client;

    strcpy(address.sun_path, d->socket);
    unlink(d->socket);
    assert_int_equal(bind(listening, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(listening, 1), 0);
    fflush(stdout);
    *pid = fork();
    if (*pid == 0)
        act_as_version(version, listening);
    close(listening);
    client = connect_or_fail();
    return client;
}

static void daemon_of_an_older_protocol_is_not_asked_what_it_does_not_know(void **state)
{
    struct shms_quota quota = { .struct_size = sizeof(quota), .max_huge = 1 << 30 };
    struct shms_client *client;
    struct la_heap *heap;
    int status;
    pid_t pid;

    client = connect_to_version(*state, 1, &pid);
    assert_int_equal(shms_heap_set_acl(client, "any", SHMS_UNCHANGED, SHMS_UNCHANGED, 0640), -EOPNOTSUPP);
    assert_non_null(strstr(la_last_error(), "version 1"));
    assert_int_equal(shms_list(client, NULL, NULL), 0);
    shms_disconnect(client);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);

    client = connect_to_version(*state, 3, &pid);
    assert_int_equal(shms_heap_create_huge(client, "any", 64 << 20, 2 << 20), -EOPNOTSUPP);
    assert_non_null(strstr(la_last_error(), "version 3"));
    assert_int_equal(shms_heap_open(client, "any", 64 << 20, LA_HEAP_HUGE_2M, &heap), -EOPNOTSUPP);
    assert_int_equal(shms_quota_set(client, &quota), -EOPNOTSUPP);
    assert_int_equal(shms_heap_create(client, "any", 64 << 20), 0);
    quota.max_huge = 0;
    assert_int_equal(shms_quota_set(client, &quota), 0);
    shms_disconnect(client);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void wrong_options_are_refused(void **state)
{
    struct daemon *d = *state;

    assert_false(daemon_try_start(d, "--max-heaps", "none"));
    assert_false(daemon_try_start(d, "--max-bytes", "12Q"));
    assert_false(daemon_try_start(d, "--allow-group", "no-such-group"));
    assert_false(daemon_try_start(d, "--max-huge=1X", "--over-committed=sigh"));
    assert_false(daemon_try_start(d, "--over-committed=sigh", NULL));
    assert_true(daemon_said(d, "--max-heaps: \"none\" is no number"));
    assert_true(daemon_said(d, "--max-bytes: \"12Q\" is no size"));
    assert_true(daemon_said(d, "--max-huge: \"1X\" is no size"));
    assert_true(daemon_said(d, "--allow-group: there is no group"));
    assert_true(daemon_said(d, "--over-committed: \"sigh\" is none of"));
}

static void range_of_addresses_that_is_none_is_refused_at_the_start(void **state)
{
    struct daemon *d = *state;

    setenv("LIBALLOC_VSPACE", "foo", 1);
    assert_false(daemon_try_start(d, NULL, NULL));
    assert_false(daemon_try_start(d, "--keeper", NULL));
    unsetenv("LIBALLOC_VSPACE");
    assert_true(daemon_said(d, "error: LIBALLOC_VSPACE=foo: say wide or narrow"));
    assert_int_not_equal(access(d->socket, F_OK), 0);
}

static void limits_on_heaps_hold(void **state)
{
    struct daemon *d = *state;
    struct shms_client *client;

    assert_true(daemon_try_start(d, "--max-bytes", "100M"));
    client = connect_or_fail();
    assert_int_equal(shms_heap_create(client, "first", 64 << 20), 0);
    assert_int_equal(shms_heap_create(client, "second", 64 << 20), -EDQUOT);
    assert_non_null(strstr(la_last_error(), "--max-bytes"));
    assert_int_equal(shms_heap_create(client, "second", 32 << 20), 0);
    assert_int_equal(shms_heap_remove(client, "first"), 0);
    assert_int_equal(shms_heap_create(client, "third", 64 << 20), 0);
    shms_disconnect(client);
}

/* ---- socket activation ---- */

/* @metrics: -1: none */
static void exec_with_the_socket(const struct daemon *d, int listening, int metrics)
{
    const char *program = getenv("SHMSERVER");
    char *argv[] = { (char *)program, NULL };
    char pid[16];

    snprintf(pid, sizeof(pid), "%d", getpid());
    setenv("LISTEN_PID", pid, 1);
    setenv("LISTEN_FDS", metrics < 0 ? "1" : "2", 1);
    /* The order is the manager's. */
    listening = fcntl(listening, F_DUPFD, 16);
    dup2(metrics < 0 ? listening : fcntl(metrics, F_DUPFD, 16), 3);
    if (metrics >= 0)
        dup2(listening, 4);
    daemon_exec(d, argv);
}

static void socket_of_a_service_manager_is_used_and_kept(void **state)
{
    struct daemon *d = *state;
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int listening = socket(AF_UNIX, SOCK_SEQPACKET, 0);     /* inherited */

    strcpy(address.sun_path, d->socket);
    assert_int_equal(bind(listening, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(listening, 8), 0);
    fflush(stdout);
    d->pid = fork();
    assert_true(d->pid >= 0);
    if (d->pid == 0)
        exec_with_the_socket(d, listening, -1);
    assert_true(daemon_wait(d));
    shms_disconnect(connect_or_fail());

    /* A daemon by hand on the same path would take the clients away. */
    {
        pid_t activated = d->pid;

        assert_false(daemon_try_start(d, NULL, NULL));
        assert_true(daemon_said(d, "somebody listens on"));
        d->pid = activated;
    }
    assert_int_equal(daemon_stop(d, SIGTERM), 0);
    assert_true(exists(d->socket));
    close(listening);
}

static int listen_on(const char *path, int type)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, type, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 8), 0);
    return fd;
}

static void count_text(void *user, const char *text, size_t size)
{
    (void)text;
    *(size_t *)user += size;
}

static void service_manager_may_hand_over_the_metrics_socket_too(void **state)
{
    struct daemon *d = *state;
    char path[128];
    int listening = listen_on(d->socket, SOCK_SEQPACKET), metrics;
    size_t size = 0;

    snprintf(path, sizeof(path), "%s.metrics", d->socket);
    metrics = listen_on(path, SOCK_STREAM);
    fflush(stdout);
    d->pid = fork();
    assert_true(d->pid >= 0);
    if (d->pid == 0)
        exec_with_the_socket(d, listening, metrics);
    assert_true(daemon_wait(d));
    shms_disconnect(connect_or_fail());
    assert_int_equal(shms_metrics(NULL, count_text, &size), 0);
    assert_true(size > 100);
    assert_int_equal(daemon_stop(d, SIGTERM), 0);
    assert_true(exists(d->socket) && exists(path));
    close(listening);
    close(metrics);
}

#define with_daemon(test) cmocka_unit_test_setup_teardown(test, daemon_setup, daemon_teardown)
#define without_daemon(test) cmocka_unit_test_setup_teardown(test, daemon_setup_stopped, daemon_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        without_daemon(without_a_daemon_the_client_says_how_to_get_one),
        without_daemon(path_too_long_for_a_socket_is_refused_by_both),
        with_daemon(sigterm_removes_the_socket_and_leaves_attached_clients_alone),
        with_daemon(sigint_ends_it_as_cleanly),
        with_daemon(socket_that_a_killed_daemon_left_is_replaced),
        with_daemon(second_daemon_is_refused_and_the_first_goes_on),
        without_daemon(second_daemon_with_a_keeper_names_the_socket_of_the_first),
        without_daemon(file_that_is_no_socket_is_left_alone),
        without_daemon(missing_folder_is_named),
        with_daemon(other_users_are_kept_out_by_the_socket_and_by_the_daemon),
        without_daemon(group_that_is_allowed_gets_in),
        without_daemon(folder_without_rights_is_named),
        without_daemon(heap_is_its_owners_until_he_opens_it),
        without_daemon(daemon_of_an_older_protocol_is_not_asked_what_it_does_not_know),
        without_daemon(wrong_options_are_refused),
        without_daemon(range_of_addresses_that_is_none_is_refused_at_the_start),
        without_daemon(limits_on_heaps_hold),
        without_daemon(socket_of_a_service_manager_is_used_and_kept),
        without_daemon(service_manager_may_hand_over_the_metrics_socket_too),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
