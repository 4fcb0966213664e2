/*
 * shmserver_syscalls_test.c - kill the daemon at its system calls: before each of them, and after each of them.
 *
 *     shmserver_syscalls_test [STRIDE [FIRST]]      ($SHMSERVER: the daemon) every STRIDE-th of them (default 5, or $SHMSERVER_SYSCALLS_STRIDE), 1: all
 *
 * A scenario of requests runs again and again. Each time the daemon is stepped from system call to system call (ptrace) and killed at the next one; a
 * fake service manager starts another, and the scenario goes on. What must be true every time:
 *
 *   - the client sees nothing of it: each of its requests is done, once. (What a library that repeats a request cannot hide would be an error here.)
 *   - all heaps are there, with contents, owner and mode; what was removed is gone, from the store too; limits are as they were set
 *   - fsck finds nothing
 *
 * Three scenarios: a first daemon; one that takes over from another, with a process attached; and the same where the other is not killed but puts a new
 * program in its own place (SIGHUP).
 */
#include "fake_manager.h"

#include <sys/ptrace.h>

enum { SIZE = 8 << 20, DEFAULT_STRIDE = 5, LIMITED_UID = 54321 };

/* ---- the client, in a process of its own: exits with the number of the line that went wrong ---- */

#define MUST(condition) must(condition, #condition, __LINE__)

static void must(bool condition, const char *what, int line)
{
    if (condition)
        return;
    fprintf(stderr, "line %d: %s: %s\n", line, what, la_last_error());
    _exit(1);
}

static void write_text(struct la_heap *heap)
{
    la_link *root;
    char *text = la_heap_hold(heap, 100);

    MUST(la_heap_root(heap, "text", &root) == 0 && text);
    strcpy(text, "written before");
    MUST(la_publish(heap, root, NULL, text) == 0);
}

static void make_heaps(struct shms_client *client)
{
    const struct shms_quota quota = { .struct_size = sizeof(quota), .uid = LIMITED_UID, .max_heaps = 3, .max_clients = SHMS_UNCHANGED,
                                      .max_bytes = UINT64_MAX, .max_requests = SHMS_UNCHANGED };
    struct la_heap *heap;

    /* -EEXIST would say that it was done twice. */
    MUST(shms_heap_open(client, "text", SIZE, SHMS_CREATE_ONLY, &heap) == 0);
    write_text(heap);
    MUST(shms_heap_create(client, "gone", SIZE) == 0);
    MUST(shms_heap_set_acl(client, "text", SHMS_UNCHANGED, SHMS_UNCHANGED, 0640) == 0);
    MUST(geteuid() != 0 || shms_quota_set(client, &quota) == 0);
    MUST(shms_heap_remove(client, "gone") == 0);
    MUST(shms_heap_close(client, heap) == 0);
    MUST(shms_heap_create(client, "sealed", SIZE) == 0);
    MUST(shms_heap_seal(client, "sealed") == 0);
}

/* Everything by requests to the daemon that is killed. */
static void work_with_first_daemon(int said, int go)
{
    struct shms_client *client;

    child_say(said);
    MUST(read(go, &(char){ 0 }, 1) == 1);
    MUST(shms_connect(NULL, &client) == 0);
    make_heaps(client);
    MUST(shms_list(client, NULL, NULL) == 2);
    shms_disconnect(client);
}

/* Two heaps are attached, one of them removed, when the daemon is killed that takes over. */
static void work_with_next_daemon(int said, int go)
{
    struct shms_client *client;
    struct la_heap *heap, *removed;

    MUST(shms_connect(NULL, &client) == 0);
    make_heaps(client);
    MUST(shms_heap_open(client, "text", 0, 0, &heap) == 0);
    MUST(shms_heap_open(client, "removed", SIZE, 0, &removed) == 0);
    MUST(shms_heap_remove(client, "removed") == 0);
    child_say(said);
    MUST(read(go, &(char){ 0 }, 1) == 1);

    MUST(shms_list(client, NULL, NULL) == 2);
    MUST(la_heap_alloc(removed, 100) != NULL && la_heap_alloc(heap, 100) != NULL);
    MUST(shms_heap_close(client, removed) == 0);
    MUST(shms_heap_close(client, heap) == 0);
    shms_disconnect(client);
}

/* ---- one run ---- */

enum { FIRST, NEXT, ITSELF };     /* where the daemon has its heaps from */

static const struct scenario {
    const char *name;
    void (*work)(int said, int go);
} scenarios[] = {
    [FIRST] = { "first daemon", work_with_first_daemon },
    [NEXT] = { "next daemon", work_with_next_daemon },
    [ITSELF] = { "daemon that starts anew", work_with_next_daemon },
};

struct run {
    struct manager *m;
    long kill_at;       /* stop at a system call; each has two */
    long stops;
    bool killed;
    pid_t client;
    int said, go;
};

static void start_client(struct run *run, const struct scenario *scenario)
{
    int said[2], go[2];

    assert_int_equal(pipe2(said, O_CLOEXEC), 0);
    assert_int_equal(pipe2(go, O_CLOEXEC), 0);
    fflush(stdout);
    run->client = fork();
    assert_true(run->client >= 0);
    if (run->client == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(said[0]);
        close(go[1]);
        scenario->work(said[1], go[0]);
        _exit(0);
    }
    close(said[1]);
    close(go[0]);
    run->said = said[0];
    run->go = go[1];
}

static void wait_for_client(struct run *run)
{
    char c;

    if (read(run->said, &c, 1) != 1)
        fail_msg("the client failed before the daemon was killed");
}

static void let_client_go(struct run *run)
{
    assert_int_equal(write(run->go, "!", 1), 1);
}

static void trace_me(void)
{
    ptrace(PTRACE_TRACEME, 0, NULL, NULL);
}

static void launch_traced(struct run *run)
{
    int status;

    manager_launch(run->m, trace_me);
    assert_int_equal(waitpid(run->m->d->pid, &status, __WALL), run->m->d->pid);
    assert_true(WIFSTOPPED(status));        /* by its exec */
    ptrace(PTRACE_SETOPTIONS, run->m->d->pid, NULL, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
    ptrace(PTRACE_SYSCALL, run->m->d->pid, NULL, 0);
}

/* One that runs, and is told to start anew. */
static void trace_and_hang_up(const struct run *run)
{
    const pid_t pid = run->m->d->pid;
    int status;

    assert_int_equal(ptrace(PTRACE_SEIZE, pid, NULL, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL), 0);
    assert_int_equal(ptrace(PTRACE_INTERRUPT, pid, NULL, NULL), 0);
    assert_int_equal(waitpid(pid, &status, __WALL), pid);
    kill(pid, SIGHUP);
    ptrace(PTRACE_SYSCALL, pid, NULL, 0);
}

static void kill_and_start_another(struct run *run)
{
    run->killed = true;
    manager_stop(run->m, SIGKILL);
    manager_start(run->m);
}

/* @status: of the traced daemon, which stands still */
static void step(struct run *run, int status)
{
    /* A stop of the tracer's own making, as the first one of a daemon that was running, is no signal. */
    int signal = status >> 16 ? 0 : WSTOPSIG(status);

    if (signal == (SIGTRAP | 0x80) && ++run->stops == run->kill_at)
        kill_and_start_another(run);
    else
        ptrace(PTRACE_SYSCALL, run->m->d->pid, NULL, signal == (SIGTRAP | 0x80) ? 0 : signal);
}

/* Until the client has ended. It goes when *@client_goes is not 0; NULL: it does already. Return: its status. */
static int run_daemon_and_client(struct run *run, const int *client_goes)
{
    for (;;) {
        int status;
        pid_t pid = waitpid(-1, &status, __WALL);

        if (pid == run->client)
            return status;
        assert_int_equal(pid, run->m->d->pid);
        if (!WIFSTOPPED(status))
            fail_msg("the daemon has ended by itself, with status %#x", status);
        step(run, status);
        manager_read_all(run->m);
        if (client_goes && (*client_goes || run->killed)) {
            client_goes = NULL;
            let_client_go(run);
        }
    }
}

/* ---- afterwards ---- */

static int heaps_in_store(struct manager *m)
{
    int n = 0;

    manager_read_all(m);
    for (int i = 0; i < m->count; i++)
        n += strncmp(m->store[i].name, "heap-", 5) == 0;
    return n;
}

static bool only_two_heaps_are_stored(void *manager)
{
    return heaps_in_store(manager) == 2;
}

static void find_limits(void *user, const struct shms_quota *quota)
{
    if (quota->uid == LIMITED_UID)
        *(uint32_t *)user = quota->max_heaps;
}

static void check_heaps(struct run *run)
{
    struct la_fsck counts = { .struct_size = sizeof(counts) };
    struct shms_heap info = { .struct_size = sizeof(info) };
    struct shms_client *client = connect_or_fail();
    struct la_heap *heap = open_or_fail(client, "text", 0);
    uint32_t limit = 0;
    la_link *root;

    assert_int_equal(shms_list(client, NULL, NULL), 2);
    assert_int_equal(la_heap_root(heap, "text", &root), 0);
    assert_string_equal(la_load(heap, root), "written before");
    assert_int_equal(la_heap_fsck(heap, NULL, NULL, &counts), 0);
    assert_int_equal(shms_heap_close(client, heap), 0);
    assert_int_equal(shms_heap_info(client, "text", &info), 0);
    assert_true(info.mode == 0640 && info.owner == geteuid() && !info.quarantined);
    assert_int_equal(shms_heap_info(client, "sealed", &info), 0);
    assert_int_equal(info.sealed, 1);
    if (geteuid() == 0) {
        assert_true(shms_quotas(client, find_limits, &limit) > 0);
        assert_int_equal(limit, 3);
    }
    shms_disconnect(client);
    assert_true(wait_until(only_two_heaps_are_stored, run->m));
    assert_int_equal(run->m->count, 2 + 1 + 4);     /* and the books, and two sockets with their locks */
}

static void end_daemon(struct run *run)
{
    if (!run->killed)
        ptrace(PTRACE_DETACH, run->m->d->pid, NULL, NULL);
    manager_stop(run->m, SIGTERM);
    manager_forget(run->m);
}

static void forget_files(const struct daemon *d)
{
    char path[96];

    unlink(d->log);
    daemon_path((struct daemon *)(uintptr_t)d, path, sizeof(path), "addresses");
    unlink(path);
}

/* false: there was no such stop, so that the daemon lived */
static bool run_once(struct manager *m, const struct scenario *scenario, long kill_at, long *stops)
{
    const bool first_one = scenario == &scenarios[FIRST], itself = scenario == &scenarios[ITSELF];
    struct run run = { .m = m, .kill_at = kill_at };
    int status;

    forget_files(m->d);
    m->reloading = 0;
    if (!first_one)
        manager_start(m);
    start_client(&run, scenario);
    wait_for_client(&run);
    if (itself) {
        trace_and_hang_up(&run);
    } else {
        if (!first_one)
            manager_stop(m, SIGKILL);
        launch_traced(&run);
    }
    /* Requests to a daemon that has been killed already wait in its socket. */
    if (!first_one && !itself)
        let_client_go(&run);
    status = run_daemon_and_client(&run, first_one ? &m->ready : itself ? &m->reloading : NULL);
    close(run.said);
    close(run.go);
    if (status != 0)
        fail_msg("the client failed (status %#x)", status);
    if (!run.killed) {
        /* It goes on without us. */
        kill(m->d->pid, SIGSTOP);
        while (waitpid(m->d->pid, &status, __WALL) == m->d->pid && !(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP))
            ptrace(PTRACE_SYSCALL, m->d->pid, NULL, 0);
        ptrace(PTRACE_DETACH, m->d->pid, NULL, NULL);
        run.killed = true;
        check_heaps(&run);
        end_daemon(&run);
        *stops = run.stops;
        return false;
    }
    check_heaps(&run);
    end_daemon(&run);
    return true;
}

/* ---- all ---- */

static struct manager manager;
static long stride = DEFAULT_STRIDE, first = 1;
static const struct scenario *current;
static long current_kill;

static void show_where(void)
{
    char command[160];

    fprintf(stderr, "scenario \"%s\", killed at stop %ld: repeat with arguments 1 %ld\n", current->name, current_kill, current_kill);
    snprintf(command, sizeof(command), "tail -n 30 %s >&2", manager.d->log);
    if (system(command) != 0)
        fprintf(stderr, "there is no log\n");
}

static int setup(void **state)
{
    (void)state;
    manager.d = daemon_prepare();
    return 0;
}

static int teardown(void **state)
{
    void *d = manager.d;

    (void)state;
    return daemon_teardown(&d);
}

static bool done;

static void run_all(const struct scenario *scenario)
{
    long stops = 0, runs = 0;

    current = scenario;
    done = false;
    for (current_kill = first; run_once(&manager, scenario, current_kill, &stops); current_kill += stride)
        runs++;
    done = true;
    printf("%s: killed at %ld of %ld stops at system calls\n", scenario->name, runs, stops);
    assert_true(runs > 0);
}

static void first_daemon_may_be_killed_at_any_system_call(void **state)
{
    (void)state;
    run_all(&scenarios[FIRST]);
}

static void daemon_that_takes_over_may_be_killed_at_any_system_call(void **state)
{
    (void)state;
    run_all(&scenarios[NEXT]);
}

static void daemon_that_starts_anew_may_be_killed_at_any_system_call(void **state)
{
    (void)state;
    run_all(&scenarios[ITSELF]);
}

static int show_if_failed(void **state)
{
    (void)state;
    if (!done)
        show_where();
    return 0;
}

static long atol_or_1(const char *text)
{
    long n = strtol(text, NULL, 10);

    return n > 1 ? n : 1;
}

int main(int argc, char **argv)
{
    const char *wanted = argc > 1 ? argv[1] : getenv("SHMSERVER_SYSCALLS_STRIDE");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(first_daemon_may_be_killed_at_any_system_call, show_if_failed),
        cmocka_unit_test_teardown(daemon_that_takes_over_may_be_killed_at_any_system_call, show_if_failed),
        cmocka_unit_test_teardown(daemon_that_starts_anew_may_be_killed_at_any_system_call, show_if_failed),
    };

    if (wanted)
        stride = atol_or_1(wanted);
    if (argc > 2)
        first = atol_or_1(argv[2]);
    return cmocka_run_group_tests(tests, setup, teardown);
}
