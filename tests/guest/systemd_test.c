/*
 * systemd_test.c - the daemon and its units under a real systemd, process 1 of a machine of its own (run-in-guest --systemd, install_units).
 *
 * Clients are of user nobody, in the group that the units let in. What is slow here is the machine: nothing is judged by the clock.
 */
#include "tests/shm/daemon.h"

#include <liballoc/heap.h>
#include <pwd.h>
#include <sys/statvfs.h>

enum { HEAP_SIZE = 16 << 20, HELD = 100, HELD_SIZE = 1000, NOBODY = 65534, ATTEMPTS = 12 };

#define SERVICE "shmserver.service"
#define SOCKETS "shmserver.socket shmserver-metrics.socket"

/* ---- the service manager ---- */

static int run(const char *command)
{
    int status = system(command);

    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void run_or_fail(const char *command)
{
    int status = run(command);

    if (status != 0)
        fail_msg("%s: exit status %d", command, status);
}

/* The first line of what @command says. */
static const char *first_line(const char *command)
{
    static char line[256];
    FILE *said = popen(command, "r");

    assert_non_null(said);
    if (!fgets(line, sizeof(line), said))
        line[0] = '\0';
    pclose(said);
    line[strcspn(line, "\n")] = '\0';
    return line;
}

static const char *property(const char *name)
{
    char command[128];

    snprintf(command, sizeof(command), "systemctl show -P %s " SERVICE, name);
    return first_line(command);
}

static pid_t main_pid(void)
{
    return (pid_t)strtol(property("MainPID"), NULL, 10);
}

static bool it_runs_again(void *arg)
{
    const pid_t *before = arg;
    pid_t now = main_pid();

    return now != 0 && now != *before && strcmp(property("ActiveState"), "active") == 0;
}

static bool store_has(void *arg)
{
    return strtol(property("NFileDescriptorStore"), NULL, 10) == *(long *)arg;
}

/* The manager reads what it is told when it comes to it. */
static void assert_store_has(long count)
{
    if (!wait_until(store_has, &count))
        fail_msg("the store has %s descriptors, not %ld", property("NFileDescriptorStore"), count);
}

/* Sockets only; no daemon, no heap. */
static int sockets_setup(void **state)
{
    (void)state;
    unsetenv("SHMSERVER_SOCKET");
    unsetenv("XDG_RUNTIME_DIR");
    run_or_fail("systemctl start " SOCKETS);
    assert_string_equal(property("ActiveState"), "inactive");
    return 0;
}

static int sockets_teardown(void **state)
{
    (void)state;
    run_or_fail("systemctl -q stop " SOCKETS " " SERVICE);
    return 0;
}

/* ---- clients ---- */

static pid_t test_process;

/* In a child no assert_*(): cmocka would jump back into the runner, and the child would go on with the other tests. */
static void give_up(const char *what, int r)
{
    if (getpid() == test_process)
        fail_msg("%s: %d: %s", what, r, la_last_error());
    fprintf(stderr, "%s: %d: %s\n", what, r, la_last_error());
    _exit(80);
}

/* Connecting is what starts the daemon, and a client gives up before the slowest machine has done it. */
static struct shms_client *connect_patiently(void)
{
    struct shms_client *client = NULL;
    int r = -1;

    for (int i = 0; i < ATTEMPTS && r < 0; i++)
        r = shms_connect(NULL, &client);
    if (r < 0)
        give_up("shms_connect", r);
    return client;
}

static struct la_heap *open_patiently(struct shms_client *client, const char *name, size_t size)
{
    struct la_heap *heap = NULL;
    int r = -1;

    for (int i = 0; i < ATTEMPTS && r < 0; i++)
        r = shms_heap_open(client, name, size, 0, &heap);
    if (r < 0)
        give_up(name, r);
    return heap;
}

static int info_patiently(struct shms_client *client, const char *name, struct shms_heap *ret)
{
    int r = -1;

    *ret = (struct shms_heap){ .struct_size = sizeof(*ret) };
    for (int i = 0; i < ATTEMPTS && r < 0 && r != -ENOENT; i++)
        r = shms_heap_info(client, name, ret);
    return r;
}

static void become_user(bool member)
{
    const struct passwd *user = getpwnam("shmserver");
    gid_t group = user ? user->pw_gid : 0;

    if (!user || setgroups(member, &group) < 0 || setgid(NOBODY) < 0 || setuid(NOBODY) < 0)
        _exit(90);
}

/* Leaves a heap of @arg's name that nobody is attached to, with a text in it. */
static void leave_a_heap(int said, void *arg)
{
    struct la_heap *heap;
    la_link *root;
    char *text;

    become_user(true);
    heap = open_patiently(connect_patiently(), arg, HEAP_SIZE);
    text = la_heap_hold(heap, 64);
    if (!text || la_heap_root(heap, "text", &root) < 0)
        _exit(1);
    strcpy(text, "left behind");
    if (la_publish(heap, root, NULL, text) < 0)
        _exit(2);
    child_say(said);
}

static void make_heap(const char *name)
{
    struct child maker = child_start(leave_a_heap, (void *)(uintptr_t)name);

    assert_int_equal(child_end(&maker, 0), 0);
}

static void assert_heap_is_whole(const char *name)
{
    struct shms_client *client = connect_patiently();
    struct la_heap *heap = open_patiently(client, name, 0);
    la_link *root;

    assert_int_equal(la_heap_root(heap, "text", &root), 0);
    assert_string_equal((char *)la_load(heap, root), "left behind");
    assert_int_equal(la_heap_fsck(heap, NULL, NULL, NULL), 0);
    assert_int_equal(shms_heap_close(client, heap), 0);
    shms_disconnect(client);
}

/* A client with a block in heap "work", which does not ask for anything until it gets a byte; then all must be as it was. */
struct worker {
    struct child child;
    int go[2];
};

static void work_and_wait(int said, void *arg)
{
    struct worker *worker = arg;
    struct shms_client *client;
    struct shms_heap info;
    struct la_heap *heap;
    char *block, c;

    become_user(true);
    client = connect_patiently();
    heap = open_patiently(client, "work", HEAP_SIZE);
    block = la_heap_hold(heap, HELD_SIZE);
    if (!block)
        _exit(1);
    memset(block, 'w', HELD_SIZE);
    child_say(said);
    if (read(worker->go[0], &c, 1) != 1)
        _exit(2);
    for (int i = 0; i < HELD_SIZE; i++)
        if (block[i] != 'w')
            _exit(3);
    /* Its first request to the next daemon, on the connection to the last one. */
    if (info_patiently(client, "work", &info) < 0 || info.processes != 1 || info.recovered_blocks != 0)
        _exit(4);
    la_free(block);
    if (!la_heap_alloc(heap, 1 << 20) || shms_heap_close(client, heap) < 0)
        _exit(5);
}

static void worker_start(struct worker *worker)
{
    assert_int_equal(pipe2(worker->go, O_CLOEXEC), 0);
    worker->child = child_start(work_and_wait, worker);
}

static void assert_worker_goes_on(struct worker *worker)
{
    assert_int_equal(write(worker->go[1], "!", 1), 1);
    assert_int_equal(child_end(&worker->child, 0), 0);
    close(worker->go[0]);
    close(worker->go[1]);
}

static void hold_and_stay(int said, void *arg)
{
    struct la_heap *heap;

    (void)arg;
    become_user(true);
    heap = open_patiently(connect_patiently(), "doomed", HEAP_SIZE);
    for (int i = 0; i < HELD; i++)
        if (!la_heap_hold(heap, HELD_SIZE))
            _exit(1);
    child_say(said);
    child_stay();
}

/* Of processes there may be two: the daemon, too, was attached when it was killed. */
static bool blocks_are_recovered(void *arg)
{
    struct shms_heap info;

    return info_patiently(arg, "doomed", &info) == 0 && info.recovered_blocks == HELD;
}

/* ---- starting ---- */

static void stranger_is_refused(int said, void *arg)
{
    struct shms_client *client = NULL;

    (void)arg;
    become_user(false);
    if (shms_connect(NULL, &client) != -EACCES)
        _exit(1);
    child_say(said);
}

static void first_connection_starts_the_daemon_for_members_of_its_group(void **state)
{
    struct child stranger = child_start(stranger_is_refused, NULL);
    struct shms_client *client;
    struct shms_heap info;

    (void)state;
    assert_int_equal(child_end(&stranger, 0), 0);
    assert_string_equal(property("ActiveState"), "inactive");
    make_heap("first");
    assert_string_equal(property("ActiveState"), "active");
    /* It has said READY=1, and this with it. */
    assert_string_equal(property("StatusText"), "Waiting for clients");
    client = connect_patiently();
    assert_int_equal(info_patiently(client, "first", &info), 0);
    assert_int_equal(info.owner, NOBODY);
    assert_int_equal(info.processes, 0);
    shms_disconnect(client);
    assert_heap_is_whole("first");
    /* The books and the heap. */
    assert_store_has(2);
}

static long status_field(pid_t pid, const char *name, int base)
{
    char command[128];

    snprintf(command, sizeof(command), "sed -n 's/^%s:[[:space:]]*//p' /proc/%d/status", name, pid);
    return strtol(first_line(command), NULL, base);
}

static bool is_writable_for_it(pid_t pid, const char *path)
{
    char at[64];
    struct statvfs fs;

    snprintf(at, sizeof(at), "/proc/%d/root%s", pid, path);
    assert_int_equal(statvfs(at, &fs), 0);
    return !(fs.f_flag & ST_RDONLY);
}

static bool has_network_of_its_own(pid_t pid)
{
    struct stat its, ours;
    char at[64];

    snprintf(at, sizeof(at), "/proc/%d/ns/net", pid);
    assert_int_equal(stat(at, &its), 0);
    assert_int_equal(stat("/proc/self/ns/net", &ours), 0);
    return its.st_ino != ours.st_ino;
}

static void daemon_runs_as_its_user_without_rights(void **state)
{
    const struct passwd *user = getpwnam("shmserver");
    pid_t pid;

    (void)state;
    assert_non_null(user);
    run_or_fail("systemctl start " SERVICE);
    pid = main_pid();
    assert_int_equal(status_field(pid, "Uid", 10), user->pw_uid);
    assert_int_equal(status_field(pid, "Gid", 10), user->pw_gid);
    assert_int_equal(status_field(pid, "CapEff", 16), 0);
    assert_int_equal(status_field(pid, "CapBnd", 16), 0);
    assert_int_equal(status_field(pid, "NoNewPrivs", 10), 1);
    assert_int_equal(status_field(pid, "Seccomp", 10), 2);
    assert_false(is_writable_for_it(pid, "/usr"));
    assert_false(is_writable_for_it(pid, "/var"));
    assert_true(is_writable_for_it(pid, "/dev/shm"));
    assert_true(has_network_of_its_own(pid));
    make_heap("confined");
    assert_heap_is_whole("confined");
}

/* ---- ending, and what is there afterwards ---- */

static void restart_keeps_heaps_and_clients_go_on(void **state)
{
    struct worker worker;
    pid_t before;

    (void)state;
    worker_start(&worker);
    make_heap("kept");
    before = main_pid();
    assert_store_has(3);
    run_or_fail("systemctl restart " SERVICE);
    assert_true(it_runs_again(&before));
    assert_heap_is_whole("kept");
    assert_worker_goes_on(&worker);
    assert_store_has(3);
}

static void reload_keeps_the_process_number_too(void **state)
{
    struct worker worker;
    pid_t before;

    (void)state;
    worker_start(&worker);
    make_heap("kept");
    before = main_pid();
    run_or_fail("systemctl reload " SERVICE);
    assert_heap_is_whole("kept");
    assert_worker_goes_on(&worker);
    assert_int_equal(main_pid(), before);
    assert_string_equal(property("ActiveState"), "active");
    assert_string_equal(property("NRestarts"), "0");
}

static void killed_daemon_comes_back_and_frees_what_died_meanwhile(void **state)
{
    struct worker worker;
    struct child victim;
    struct shms_client *client;
    pid_t before;

    (void)state;
    worker_start(&worker);
    victim = child_start(hold_and_stay, NULL);
    make_heap("kept");
    client = connect_patiently();
    before = main_pid();
    kill(before, SIGKILL);
    assert_int_equal(child_end(&victim, SIGKILL), -SIGKILL);
    assert_true(wait_until(it_runs_again, &before));
    assert_string_equal(property("NRestarts"), "1");
    /* However often it dies it is not given up; to try that takes a faster machine than this. */
    assert_string_equal(property("StartLimitIntervalUSec"), "0");
    assert_true(wait_until(blocks_are_recovered, client));
    assert_heap_is_whole("kept");
    assert_worker_goes_on(&worker);
    shms_disconnect(client);
}

static void stop_lets_go_of_heaps_that_nobody_is_attached_to(void **state)
{
    struct shms_client *client;
    struct shms_heap info;
    struct worker worker;

    (void)state;
    worker_start(&worker);
    make_heap("kept");
    run_or_fail("systemctl -q stop " SERVICE);
    assert_string_equal(property("ActiveState"), "inactive");
    assert_string_equal(property("Result"), "success");
    assert_string_equal(property("NFileDescriptorStore"), "0");
    /* The sockets stay, and start the next one; who is attached brings his heap back. */
    client = connect_patiently();
    assert_int_equal(info_patiently(client, "kept", &info), -ENOENT);
    assert_worker_goes_on(&worker);
    assert_int_equal(info_patiently(client, "work", &info), 0);
    assert_string_equal(property("ActiveState"), "active");
    shms_disconnect(client);
}

static void removed_heap_leaves_the_managers_store(void **state)
{
    struct shms_client *client;

    (void)state;
    make_heap("going");
    assert_store_has(2);
    client = connect_patiently();
    assert_int_equal(shms_heap_remove(client, "going"), 0);
    assert_store_has(1);
    shms_disconnect(client);
}

/* ---- everything else, under the filter of system calls ---- */

static void just_connect(int said, void *arg)
{
    (void)arg;
    become_user(true);
    connect_patiently();
    child_say(said);
    child_stay();
}

static void expect(int status, const char *words)
{
    char command[160];
    int got;

    snprintf(command, sizeof(command), "shms %s > /run/said 2>&1", words);
    got = run(command);
    if (got != status)
        fail_msg("shms %s: exit status %d, not %d: %s", words, got, status, first_line("cat /run/said"));
}

static void every_request_is_served_in_confinement(void **state)
{
    static const char *const words[] = { "ls", "info tool", "clients tool", "roots tool", "fsck tool", "gc", "obituary tool",
                                         "quota nobody heaps=10 committed=1G", "quota nobody", "seal tool", "info tool", "fsck tool", "metrics",
                                         "rm tool" };
    struct child idler;
    char kick[64];
    pid_t before;

    (void)state;
    expect(0, "create tool 16M");
    before = main_pid();
    expect(0, "acl tool 0660 nobody:shmserver");
    for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        expect(0, words[i]);
    idler = child_start(just_connect, NULL);
    snprintf(kick, sizeof(kick), "kick %d", idler.pid);
    expect(0, kick);
    assert_int_equal(child_end(&idler, SIGKILL), -SIGKILL);
    /* Ending another user's process takes a right that the unit does not give. */
    idler = child_start(just_connect, NULL);
    snprintf(kick, sizeof(kick), "kick --kill %d", idler.pid);
    expect(1, kick);
    assert_int_equal(waitpid(idler.pid, NULL, WNOHANG), 0);
    assert_int_equal(child_end(&idler, SIGKILL), -SIGKILL);
    assert_int_equal(main_pid(), before);
}

static void write_drop_in(void)
{
    run_or_fail("mkdir -p /run/systemd/system/" SERVICE ".d");
    run_or_fail("printf '[Service]\\nAmbientCapabilities=CAP_KILL\\nCapabilityBoundingSet=CAP_KILL\\n' > /run/systemd/system/" SERVICE ".d/kill.conf");
    run_or_fail("systemctl daemon-reload");
}

static void daemon_with_the_right_to_kill_ends_other_users_processes(void **state)
{
    struct child idler;
    char kick[64];

    (void)state;
    write_drop_in();
    idler = child_start(just_connect, NULL);
    snprintf(kick, sizeof(kick), "kick --kill %d", idler.pid);
    expect(0, kick);
    assert_int_equal(child_end(&idler, 0), -SIGKILL);
    run_or_fail("rm -r /run/systemd/system/" SERVICE ".d && systemctl daemon-reload");
}

/* ---- a user's own daemon, under a manager of his own ---- */

#define USERS_RUNTIME "/run/heapuser"

/* install_units has made the user, and a service that is his manager. */
static void as_user(const char *command)
{
    char line[256];
    int status;

    snprintf(line, sizeof(line), "setpriv --reuid heapuser --regid heapuser --clear-groups env XDG_RUNTIME_DIR=" USERS_RUNTIME " %s > /run/said 2>&1",
             command);
    status = run(line);
    if (status != 0)
        fail_msg("%s: exit status %d: %s", command, status, first_line("cat /run/said"));
}

static void users_own_daemon_needs_no_rights_and_keeps_his_heaps(void **state)
{
    (void)state;
    run_or_fail("systemctl start heapuser-manager.service");
    as_user("systemctl --user start shmserver.socket");
    as_user("shms create mine 16M");
    as_user("systemctl --user restart shmserver.service");
    as_user("shms info mine");
    as_user("systemctl --user kill --signal=KILL --kill-whom=main shmserver.service");
    as_user("shms info mine");
    as_user("shms metrics");
    as_user("systemctl --user is-active shmserver.service");
    as_user("shms rm mine");
    run_or_fail("systemctl stop heapuser-manager.service");
}

static void journal_has_no_complaint(void **state)
{
    (void)state;
    run_or_fail("journalctl --sync");
    run_or_fail("journalctl -q --no-pager -o cat -u 'shmserver*' -u heapuser-manager.service > /run/all");
    /* There is no D-Bus in the guest, which the user's manager says of itself. */
    run_or_fail("grep -v 'system bus' /run/all > /run/journal");
    /* Something is there to be looked at. */
    run_or_fail("grep -q 'listening on /run/shmserver/shmserver.sock' /run/journal");
    run_or_fail("grep -q 'listening on " USERS_RUNTIME "/shmserver.sock' /run/journal");
    /* Killed by the filter, refused by a file system or a missing right, a line of a unit that was not understood. */
    if (run("grep -nE 'status=31/SYS|dumped|errno|Unknown|Failed to|ignoring|left out|will not be able' /run/journal") == 0)
        fail_msg("the journal has complaints");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(first_connection_starts_the_daemon_for_members_of_its_group, sockets_setup, sockets_teardown),
        cmocka_unit_test_setup_teardown(daemon_runs_as_its_user_without_rights, sockets_setup, sockets_teardown),
        cmocka_unit_test_setup_teardown(restart_keeps_heaps_and_clients_go_on, sockets_setup, sockets_teardown),
        cmocka_unit_test_setup_teardown(reload_keeps_the_process_number_too, sockets_setup, sockets_teardown),
        cmocka_unit_test_setup_teardown(killed_daemon_comes_back_and_frees_what_died_meanwhile, sockets_setup, sockets_teardown),
        cmocka_unit_test_setup_teardown(stop_lets_go_of_heaps_that_nobody_is_attached_to, sockets_setup, sockets_teardown),
        cmocka_unit_test_setup_teardown(removed_heap_leaves_the_managers_store, sockets_setup, sockets_teardown),
        cmocka_unit_test_setup_teardown(every_request_is_served_in_confinement, sockets_setup, sockets_teardown),
        cmocka_unit_test_setup_teardown(daemon_with_the_right_to_kill_ends_other_users_processes, sockets_setup, sockets_teardown),
        cmocka_unit_test(users_own_daemon_needs_no_rights_and_keeps_his_heaps),
        cmocka_unit_test(journal_has_no_complaint),
    };
    int failed;

    test_process = getpid();
    failed = cmocka_run_group_tests(tests, NULL, NULL);

    if (failed)
        run("journalctl -q --no-pager -o short-monotonic -u 'shmserver*' -u heapuser-manager.service | tail -150");
    return failed;
}
