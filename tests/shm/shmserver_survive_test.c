/*
 * shmserver_survive_test.c - the daemon is never the reason that anything stops: stopped, killed, restarted and replaced it delays no attached process
 * and loses no heap, with a service manager (a fake one) and with the keeper.
 *
 * Nothing here is timed: that somebody goes on is shown by counters that grow while no daemon runs.
 */
#include "fake_manager.h"

#include <stdatomic.h>
#include <sys/mman.h>

#include "shmserver/protocol/fdpass.h"

enum { WORKERS = 3, SIZE = 64 << 20 };

/* ---- processes that work in a heap ---- */

struct counters {
    _Atomic(uint64_t) rounds[WORKERS];
};

static struct counters *counters;
static int next_worker;

/* Allocate, publish, take, free, for ever; count the rounds. The connection is left alone: nothing here talks to the daemon. */
static void work(int said, void *arg)
{
    const int number = *(int *)arg;
    struct shms_client *client = connect_or_fail();
    struct la_heap *heap = open_or_fail(client, "busy", SIZE);
    la_link *root;
    char name[16];

    snprintf(name, sizeof(name), "worker-%d", number);
    if (la_heap_root(heap, name, &root) < 0)
        _exit(2);
    for (uint64_t round = 1;; round++) {
        uint64_t *block = la_heap_hold(heap, 64 + round % 1000);

        if (!block)
            _exit(3);
        *block = round;
        if (la_publish(heap, root, NULL, block) < 0)
            _exit(4);
        block = la_take(heap, root, LA_NO_NEXT);
        if (!block || *block != round)
            _exit(5);
        la_free(block);
        if (round == 1)
            child_say(said);
        atomic_store(&counters->rounds[number], round);
    }
}

static struct child workers[WORKERS];

static void start_workers(void)
{
    counters = mmap(NULL, sizeof(*counters), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (next_worker = 0; next_worker < WORKERS; next_worker++)
        workers[next_worker] = child_start(work, &next_worker);
}

static void end_workers(void)
{
    for (int i = 0; i < WORKERS; i++)
        if (workers[i].pid)
            assert_int_equal(child_end(&workers[i], SIGKILL), -SIGKILL);
    memset(workers, 0, sizeof(workers));
    munmap(counters, sizeof(*counters));
}

static uint64_t goal[WORKERS];

static bool all_have_worked(void *unused)
{
    bool all = true;

    (void)unused;
    for (int i = 0; i < WORKERS; i++)
        all &= !workers[i].pid || atomic_load(&counters->rounds[i]) >= goal[i];
    return all;
}

/* All go on, whatever the daemon does meanwhile. */
static void assert_all_work(void)
{
    for (int i = 0; i < WORKERS; i++)
        goal[i] = atomic_load(&counters->rounds[i]) + 2000;
    assert_true(wait_until(all_have_worked, NULL));
}

/* ---- what must come through ---- */

enum { GROUP = 4321, QUOTA_UID = 54321 };

/* Heaps with nobody attached, one with a content; one that is removed, but still attached by us; rights and limits. */
static struct la_heap *make_things(struct shms_client *client)
{
    const struct shms_quota quota = { .struct_size = sizeof(quota), .uid = QUOTA_UID, .max_heaps = 3, .max_clients = SHMS_UNCHANGED,
                                      .max_bytes = 1 << 30, .max_requests = SHMS_UNCHANGED };
    struct la_heap *heap = open_or_fail(client, "idle", SIZE), *removed;
    la_link *root;
    char *text;

    assert_int_equal(la_heap_root(heap, "text", &root), 0);
    text = la_heap_hold(heap, 100);
    strcpy(text, "written before");
    assert_int_equal(la_publish(heap, root, NULL, text), 0);
    assert_int_equal(shms_heap_close(client, heap), 0);
    assert_int_equal(shms_heap_set_acl(client, "idle", SHMS_UNCHANGED, geteuid() == 0 ? GROUP : SHMS_UNCHANGED, 0640), 0);

    assert_int_equal(shms_heap_create(client, "sealed", SIZE), 0);
    assert_int_equal(shms_heap_seal(client, "sealed"), 0);
    removed = open_or_fail(client, "removed", SIZE);
    assert_int_equal(shms_heap_remove(client, "removed"), 0);
    if (geteuid() == 0)
        assert_int_equal(shms_quota_set(client, &quota), 0);
    return removed;
}

static void find_quota(void *user, const struct shms_quota *quota)
{
    if (quota->uid == QUOTA_UID)
        *(struct shms_quota *)user = *quota;
}

static void check_things(struct shms_client *client)
{
    struct shms_heap info = { .struct_size = sizeof(info) };
    struct shms_quota quota = { 0 };
    struct la_fsck counts = { .struct_size = sizeof(counts) };
    struct la_heap *heap = NULL;
    la_link *root;

    assert_int_equal(shms_heap_info(client, "idle", &info), 0);
    assert_int_equal(info.mode, 0640);
    assert_int_equal(info.owner, geteuid());
    if (geteuid() == 0)
        assert_int_equal(info.group, GROUP);
    heap = open_or_fail(client, "idle", 0);
    assert_int_equal(la_heap_root(heap, "text", &root), 0);
    assert_string_equal(la_load(heap, root), "written before");
    assert_int_equal(la_heap_fsck(heap, NULL, NULL, &counts), 0);
    assert_int_equal(shms_heap_close(client, heap), 0);

    assert_int_equal(shms_heap_info(client, "sealed", &info), 0);
    assert_int_equal(info.sealed, 1);
    assert_int_equal(shms_heap_info(client, "removed", &info), -ENOENT);
    if (geteuid() == 0) {
        assert_true(shms_quotas(client, find_quota, &quota) >= 0);
        assert_int_equal(quota.max_heaps, 3);
        assert_int_equal(quota.max_bytes, 1 << 30);
    }
}

/* ---- who is attached, as the daemon sees it ---- */

struct attached {
    int alive, dead, of_known_user;
};

static void count_process(void *user, const struct shms_process *process)
{
    struct attached *attached = user;

    attached->alive += process->state == SHMS_ATTACHED;
    attached->dead += process->state == SHMS_DEAD;
    attached->of_known_user += process->state == SHMS_ATTACHED && process->uid == geteuid();
}

static struct attached who_is_in(struct shms_client *client, const char *heap)
{
    struct attached attached = { 0 };

    assert_true(shms_processes(client, heap, count_process, &attached) >= 0);
    return attached;
}

static void count_death(void *user, const struct shms_event *event)
{
    *(int *)user += event->kind == SHMS_EVENT_DIED;
}

static int deaths_told(struct shms_client *client)
{
    int deaths = 0;

    assert_true(shms_events(client, 0, count_death, &deaths) >= 0);
    return deaths;
}

static bool one_is_gone(void *client)
{
    struct attached attached = who_is_in(client, "busy");

    return attached.alive == WORKERS - 1 && attached.dead == 0;
}

/* ---- with a service manager ---- */

static int manager_setup(void **state)
{
    struct manager *m = calloc(1, sizeof(*m));

    assert_non_null(m);
    m->d = daemon_prepare();
    manager_start(m);
    *state = m;
    return 0;
}

static int manager_teardown(void **state)
{
    struct manager *m = *state;
    void *d = m->d;

    daemon_teardown(&d);
    manager_forget(m);
    free(m);
    return 0;
}

static void killed_daemon_delays_nobody_and_the_next_one_has_everything(void **state)
{
    struct manager *m = *state;
    struct shms_client *client = connect_or_fail();
    struct la_heap *removed = make_things(client);

    start_workers();
    for (int round = 0; round < 3; round++) {
        manager_stop(m, SIGKILL);
        /* No daemon, and none will come before all have done their part. */
        assert_all_work();
        assert_non_null(la_heap_alloc(removed, 1000));
        manager_start(m);
        check_things(client);
        assert_int_equal(who_is_in(client, "busy").alive, WORKERS);
        assert_all_work();
        assert_int_equal(deaths_told(client), 0);
    }
    /* We have asked, so the daemon knows us; the workers have no reason to ask anything. */
    assert_int_equal(shms_heap_close(client, removed), 0);
    end_workers();
    shms_disconnect(client);
}

static bool removed_heap_is_gone(void *manager)
{
    struct manager *m = manager;
    int heaps = 0;

    manager_read_all(m);
    for (int i = 0; i < m->count; i++)
        heaps += strncmp(m->store[i].name, "heap-", 5) == 0;
    return heaps == 2;
}

static void removed_heap_goes_with_its_last_process_also_under_another_daemon(void **state)
{
    struct manager *m = *state;
    struct shms_client *client = connect_or_fail();
    struct la_heap *removed = make_things(client);

    manager_stop(m, SIGKILL);
    manager_start(m);
    assert_int_equal(m->count, 3 + 1 + 4);      /* three heaps, state, two sockets with a lock each */
    assert_int_equal(shms_heap_close(client, removed), 0);
    assert_true(wait_until(removed_heap_is_gone, m));
    shms_disconnect(client);
}

static void nobody_is_reaped_for_a_restart_and_the_dead_are_although_nobody_told_of_them(void **state)
{
    struct manager *m = *state;
    struct shms_client *client = connect_or_fail();

    start_workers();
    manager_stop(m, SIGKILL);
    manager_start(m);
    assert_int_equal(who_is_in(client, "busy").alive, WORKERS);
    assert_int_equal(who_is_in(client, "busy").of_known_user, 0);
    /* It has no connection to this daemon. */
    assert_int_equal(child_end(&workers[1], SIGKILL), -SIGKILL);
    workers[1].pid = 0;
    assert_true(wait_until(one_is_gone, client));
    assert_all_work();

    /* One that dies while there is no daemon. */
    manager_stop(m, SIGKILL);
    assert_int_equal(child_end(&workers[2], SIGKILL), -SIGKILL);
    workers[2].pid = 0;
    manager_start(m);
    assert_int_equal(who_is_in(client, "busy").alive, WORKERS - 2);
    assert_int_equal(who_is_in(client, "busy").dead, 0);
    assert_true(daemon_said(m->d, "died; freed"));
    end_workers();
    shms_disconnect(client);
}

static void restart_by_the_manager_keeps_heaps_and_a_stop_lets_them_go(void **state)
{
    struct manager *m = *state;
    struct shms_client *client = connect_or_fail();
    struct la_heap *removed = make_things(client);

    manager_stop(m, SIGTERM);
    assert_int_equal(m->stopping, 1);
    assert_int_equal(manager_has(m, "socket"), 0);      /* its name is gone, so it is of no use */
    assert_int_equal(manager_has(m, "state"), 1);
    manager_start(m);
    check_things(client);

    assert_int_equal(shms_heap_close(client, removed), 0);
    manager_stop(m, SIGTERM);
    manager_forget(m);
    manager_start(m);
    assert_int_equal(shms_list(client, NULL, NULL), 0);
    shms_disconnect(client);
}

/* Sockets by the manager, as with shmserver.socket. */
static void managers_own_sockets_stay_with_it(void **state)
{
    struct manager *m = *state;
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    struct shms_client *client;
    int fd;

    manager_stop(m, SIGTERM);
    manager_forget(m);
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    strcpy(address.sun_path, m->d->socket);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 10), 0);
    manager_add(m, "shmserver.socket", fd);
    manager_start(m);
    client = connect_or_fail();
    shms_heap_close(client, make_things(client));
    for (int i = 0; i < 2; i++) {
        manager_stop(m, i ? SIGKILL : SIGTERM);
        assert_int_equal(manager_has(m, "shmserver.socket"), 1);
        assert_int_equal(access(m->d->socket, F_OK), 0);
        manager_start(m);
        check_things(client);
    }
    shms_disconnect(client);
}

static void stopped_daemon_delays_nobody(void **state)
{
    struct manager *m = *state;
    struct shms_client *client = connect_or_fail();
    int status;

    start_workers();
    kill(m->d->pid, SIGSTOP);
    assert_int_equal(waitpid(m->d->pid, &status, WUNTRACED), m->d->pid);
    assert_all_work();
    /* Nor does a death while it is stopped. */
    assert_int_equal(child_end(&workers[0], SIGKILL), -SIGKILL);
    workers[0].pid = 0;
    assert_all_work();
    kill(m->d->pid, SIGCONT);
    assert_true(wait_until(one_is_gone, client));
    end_workers();
    shms_disconnect(client);
}

static bool manager_that_slept_has_all(void *manager)
{
    struct manager *m = manager;

    manager_read_all(m);
    return m->count == 5 + 40;
}

/* Its queue is short; the daemon waits for nobody. */
static void manager_that_does_not_read_gets_everything_later(void **state)
{
    struct manager *m = *state;
    struct shms_client *client = connect_or_fail();
    char name[16];

    for (int i = 0; i < 40; i++) {
        snprintf(name, sizeof(name), "many-%d", i);
        assert_int_equal(shms_heap_create(client, name, 8 << 20), 0);
    }
    assert_true(wait_until(manager_that_slept_has_all, m));
    manager_stop(m, SIGKILL);
    manager_start(m);
    assert_int_equal(shms_list(client, NULL, NULL), 40);
    shms_disconnect(client);
}

/* ---- with the keeper ---- */

static int keeper_setup(void **state)
{
    struct daemon *d = daemon_prepare();

    /* Whose keeper is killed becomes our child. */
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    assert_true(daemon_try_start(d, "--keeper", NULL));
    *state = d;
    return 0;
}

/* The number in PATH@suffix, of a lock's holder; 0: there is none */
static pid_t holder_of(const struct daemon *d, const char *suffix)
{
    char path[128], text[16] = "";
    int fd;

    snprintf(path, sizeof(path), "%s%s", d->socket, suffix);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        if (read(fd, text, sizeof(text) - 1) < 0)
            text[0] = '\0';
        close(fd);
    }
    return (pid_t)strtol(text, NULL, 10);
}

static int keeper_teardown(void **state)
{
    struct daemon *d = *state;
    pid_t keeper = holder_of(d, ".keeper.lock");

    if (d->pid == 0 && keeper > 0) {
        kill(keeper, SIGTERM);
        waitpid(keeper, NULL, 0);
    }
    return daemon_teardown(state);
}

static void keeper_starts_a_daemon_again_whatever_it_died_of(void **state)
{
    struct daemon *d = *state;
    struct shms_client *client = connect_or_fail();
    struct la_heap *removed = make_things(client);

    start_workers();
    for (int round = 0; round < 3; round++) {
        static const int signals[] = { SIGKILL, SIGSEGV, SIGABRT };
        pid_t daemon = holder_of(d, ".lock");

        assert_true(daemon > 0 && daemon != d->pid);
        kill(daemon, signals[round]);
        /* The next one sees this request, or the one after. */
        check_things(client);
        assert_all_work();
        assert_int_equal(who_is_in(client, "busy").alive, WORKERS);
    }
    assert_true(daemon_said(d, "was ended by signal 9: another one starts in"));
    assert_int_equal(shms_heap_close(client, removed), 0);
    end_workers();
    shms_disconnect(client);
}

static void new_connections_wait_while_there_is_no_daemon(void **state)
{
    struct daemon *d = *state;
    pid_t daemon = holder_of(d, ".lock");

    for (int round = 0; round < 3; round++) {
        kill(daemon, SIGKILL);
        shms_disconnect(connect_or_fail());
    }
}

static void sigterm_to_keeper_or_daemon_ends_both_cleanly(void **state)
{
    struct daemon *d = *state;
    pid_t daemon;

    assert_int_equal(daemon_stop(d, SIGTERM), 0);
    assert_int_equal(access(d->socket, F_OK), -1);
    assert_int_equal(holder_of(d, ".keeper.lock"), 0);

    assert_true(daemon_try_start(d, "--keeper", NULL));
    daemon = holder_of(d, ".lock");
    kill(daemon, SIGTERM);
    assert_int_equal(daemon_stop(d, 0), 0);
    assert_int_equal(access(d->socket, F_OK), -1);
    assert_int_equal(kill(daemon, 0), -1);
}

static void stopped_daemon_is_ended_too(void **state)
{
    struct daemon *d = *state;
    pid_t daemon = holder_of(d, ".lock");

    kill(daemon, SIGSTOP);
    assert_int_equal(daemon_stop(d, SIGTERM), 0);
    assert_int_equal(kill(daemon, 0), -1);
}

static void daemon_whose_keeper_is_killed_becomes_one_and_can_be_ended(void **state)
{
    struct daemon *d = *state;
    struct shms_client *client = connect_or_fail();
    struct la_heap *removed = make_things(client);
    pid_t first = holder_of(d, ".lock"), keeper, second;
    int status;

    start_workers();
    assert_int_equal(WTERMSIG(daemon_stop(d, SIGKILL)), SIGKILL);
    assert_all_work();
    /* It leaves this connection in any case, before or after the request. */
    check_things(client);
    while ((keeper = holder_of(d, ".keeper.lock")) != first)
        check_things(client);
    while ((second = holder_of(d, ".lock")) == first)
        check_things(client);

    /* It is as good as the one before. */
    kill(second, SIGKILL);
    check_things(client);
    assert_int_equal(who_is_in(client, "busy").alive, WORKERS);
    assert_int_equal(shms_heap_close(client, removed), 0);
    end_workers();
    shms_disconnect(client);
    kill(keeper, SIGTERM);
    assert_int_equal(waitpid(keeper, &status, 0), keeper);
    assert_int_equal(status, 0);
    assert_int_equal(access(d->socket, F_OK), -1);
}

static void keeper_does_not_repeat_a_start_that_never_worked(void **state)
{
    struct daemon *d = *state;
    pid_t first = d->pid;

    assert_false(daemon_try_start(d, "--keeper", NULL));
    assert_true(daemon_said(d, "another shmserver (process"));
    d->pid = 0;
    assert_false(daemon_try_start(d, "--no-keeper", NULL));
    d->pid = first;
    shms_disconnect(connect_or_fail());
}

/* ---- another program in the daemon's place ---- */

static void copy_program(const struct daemon *d, const char *name, char *ret, size_t size)
{
    char command[512];

    daemon_path((struct daemon *)(uintptr_t)d, ret, size, name);
    snprintf(command, sizeof(command), "cp %s %s", getenv("SHMSERVER"), ret);
    assert_int_equal(system(command), 0);
}

struct place {
    pid_t pid;
    ino_t inode;
};

static bool program_is(void *arg)
{
    const struct place *place = arg;
    char path[32];
    struct stat st;

    snprintf(path, sizeof(path), "/proc/%d/exe", place->pid);
    return stat(path, &st) == 0 && st.st_ino == place->inode;
}

static void sighup_puts_the_new_program_in_place_with_all_heaps(void **state)
{
    struct daemon *d = *state;
    char old[96], new[96], *before = strdup(getenv("SHMSERVER"));
    struct shms_client *client;
    struct la_heap *removed;
    struct stat st;

    copy_program(d, "shmserver", old, sizeof(old));
    copy_program(d, "shmserver.new", new, sizeof(new));
    setenv("SHMSERVER", old, 1);
    assert_true(daemon_try_start(d, "--no-keeper", NULL));
    setenv("SHMSERVER", before, 1);
    free(before);
    client = connect_or_fail();
    removed = make_things(client);
    start_workers();

    assert_int_equal(stat(new, &st), 0);
    assert_int_equal(rename(new, old), 0);
    kill(d->pid, SIGHUP);
    assert_true(wait_until(program_is, &(struct place){ d->pid, st.st_ino }));
    check_things(client);
    assert_all_work();
    assert_int_equal(who_is_in(client, "busy").alive, WORKERS);

    /* Without a program to start it stays what it is. */
    assert_int_equal(unlink(old), 0);
    kill(d->pid, SIGHUP);
    check_things(client);
    assert_true(wait_until(program_is, &(struct place){ d->pid, st.st_ino }));
    assert_int_equal(shms_heap_close(client, removed), 0);
    end_workers();
    shms_disconnect(client);
    assert_int_equal(daemon_stop(d, SIGTERM), 0);
}

/* ---- a daemon that knows nothing ---- */

static void attached_process_brings_its_heap_back_to_a_daemon_that_lost_it(void **state)
{
    struct daemon *d = *state;
    struct shms_client *client, *other;
    struct shms_heap before = { .struct_size = sizeof(before) }, after = { .struct_size = sizeof(after) };
    struct la_heap *heap;

    assert_true(daemon_try_start(d, "--no-keeper", NULL));
    client = connect_or_fail();
    heap = open_or_fail(client, "mine", SIZE);
    assert_int_equal(shms_heap_set_acl(client, "mine", SHMS_UNCHANGED, SHMS_UNCHANGED, 0666), 0);
    assert_int_equal(shms_heap_info(client, "mine", &before), 0);
    daemon_stop(d, SIGKILL);
    assert_true(daemon_try_start(d, "--no-keeper", NULL));

    other = connect_or_fail();
    assert_int_equal(shms_list(other, NULL, NULL), 0);
    assert_int_equal(shms_list(client, NULL, NULL), 1);
    assert_int_equal(shms_heap_info(other, "mine", &after), 0);
    assert_true(after.id == before.id && after.address == before.address && after.owner == before.owner && after.size == before.size);
    assert_int_equal(after.mode, 0600);         /* what nobody can prove is not believed */
    assert_int_equal(who_is_in(other, "mine").of_known_user, 1);
    assert_int_equal(shms_heap_close(client, heap), 0);
    shms_disconnect(other);
    shms_disconnect(client);
    assert_int_equal(daemon_stop(d, SIGTERM), 0);
}

/* ---- who wants to be more than he is ---- */

static int raw_connect(void)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    struct fdpass_set set;
    struct wire_message m;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    strcpy(address.sun_path, getenv("SHMSERVER_SOCKET"));
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    wire_begin(&m, WIRE_HELLO, 0, 0);
    wire_put_u64(&m, TLV_VERSION_MIN, 0, WIRE_VERSION_MIN);
    wire_put_u64(&m, TLV_VERSION_MAX, 0, WIRE_VERSION_MAX);
    assert_int_equal(fdpass_send(fd, &m, -1), 0);
    assert_int_equal(fdpass_receive(fd, &m, &set), 1);
    return fd;
}

/* The status of the answer; 1: the connection is ended */
static int raw_resume(int socket, uint64_t id, int fd)
{
    struct fdpass_set set;
    struct wire_message m;

    wire_begin(&m, WIRE_RESUME, 0, 1);
    wire_put_u64(&m, TLV_ID, TLV_CRITICAL, id);
    assert_int_equal(fdpass_send(socket, &m, fd), 0);
    return fdpass_receive(socket, &m, &set) == 1 ? m.header.status : 1;
}

static void resume_is_believed_for_the_right_descriptor_only(void **state)
{
    struct shms_client *client = connect_or_fail();
    struct shms_heap one = { .struct_size = sizeof(one) }, two = { .struct_size = sizeof(two) };
    struct la_heap *heap = open_or_fail(client, "one", SIZE);
    int socket = raw_connect(), fd, forged = memfd_create("liballoc:three:0:0:410000000000", MFD_CLOEXEC);

    (void)state;
    assert_int_equal(shms_heap_create(client, "two", SIZE), 0);
    assert_int_equal(shms_heap_info(client, "one", &one), 0);
    assert_int_equal(shms_heap_info(client, "two", &two), 0);
    fd = la_heap_descriptor(one.id);
    assert_true(fd >= 0);
    assert_int_equal(raw_resume(socket, two.id, fd), -EPERM);
    assert_int_equal(raw_resume(socket, one.id, forged), -EPERM);
    assert_int_equal(raw_resume(socket, 12345, forged), -EPERM);
    assert_int_equal(raw_resume(socket, 12345, 0), -EPERM);
    assert_int_equal(raw_resume(socket, 12345, fd), -EEXIST);   /* its name is taken: by itself */
    assert_int_equal(raw_resume(socket, one.id, fd), 0);
    assert_int_equal(raw_resume(socket, one.id, fd), 0);
    assert_int_equal(raw_resume(socket, one.id, -1), 1);
    close(socket);
    close(fd);
    close(forged);
    assert_int_equal(shms_list(client, NULL, NULL), 2);
    assert_int_equal(shms_heap_close(client, heap), 0);
    shms_disconnect(client);
}

#define managed(test) cmocka_unit_test_setup_teardown(test, manager_setup, manager_teardown)
#define with_keeper(test) cmocka_unit_test_setup_teardown(test, keeper_setup, keeper_teardown)
#define without_daemon(test) cmocka_unit_test_setup_teardown(test, daemon_setup_stopped, daemon_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        managed(killed_daemon_delays_nobody_and_the_next_one_has_everything),
        managed(removed_heap_goes_with_its_last_process_also_under_another_daemon),
        managed(nobody_is_reaped_for_a_restart_and_the_dead_are_although_nobody_told_of_them),
        managed(restart_by_the_manager_keeps_heaps_and_a_stop_lets_them_go),
        managed(managers_own_sockets_stay_with_it),
        managed(stopped_daemon_delays_nobody),
        managed(manager_that_does_not_read_gets_everything_later),
        with_keeper(keeper_starts_a_daemon_again_whatever_it_died_of),
        with_keeper(new_connections_wait_while_there_is_no_daemon),
        with_keeper(sigterm_to_keeper_or_daemon_ends_both_cleanly),
        with_keeper(stopped_daemon_is_ended_too),
        with_keeper(daemon_whose_keeper_is_killed_becomes_one_and_can_be_ended),
        with_keeper(keeper_does_not_repeat_a_start_that_never_worked),
        without_daemon(sighup_puts_the_new_program_in_place_with_all_heaps),
        without_daemon(attached_process_brings_its_heap_back_to_a_daemon_that_lost_it),
        cmocka_unit_test_setup_teardown(resume_is_believed_for_the_right_descriptor_only, daemon_setup, daemon_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
