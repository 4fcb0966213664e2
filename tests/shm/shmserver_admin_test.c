/* shmserver_admin_test.c - looking after a daemon: quotas per user, readers, sealing, kicking, events, metrics. */
#include "daemon.h"

#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

enum { NOBODY = 65534 };

static void find_nobody(void *user, const struct shms_quota *quota)
{
    if (quota->uid == NOBODY)
        *(struct shms_quota *)user = *quota;
}

static struct shms_quota quota_of_nobody(struct shms_client *client)
{
    struct shms_quota quota = { 0 };

    assert_true(shms_quotas(client, find_nobody, &quota) > 0);
    return quota;
}

static struct shms_quota change(void)
{
    return (struct shms_quota){ .struct_size = sizeof(struct shms_quota), .uid = NOBODY, .max_clients = SHMS_UNCHANGED,
                                .max_heaps = SHMS_UNCHANGED, .max_bytes = UINT64_MAX, .max_requests = SHMS_UNCHANGED };
}

/* Root has started a daemon that nobody may use as well. */
static struct shms_client *start_for_nobody(struct daemon *d)
{
    assert_true(daemon_try_start(d, "--allow-group", "65534"));
    assert_int_equal(chmod(d->folder, 0755), 0);
    return connect_or_fail();
}

static bool tool_says(const char *arguments, const char *expected)
{
    char command[256], text[4096];
    FILE *output;
    size_t n;

    snprintf(command, sizeof(command), "%s %s 2>&1", getenv("SHMS"), arguments);
    output = popen(command, "r");
    assert_non_null(output);
    n = fread(text, 1, sizeof(text) - 1, output);
    text[n] = '\0';
    pclose(output);
    if (!strstr(text, expected))
        print_error("shms %s: no \"%s\" in: %s\n", arguments, expected, text);
    return strstr(text, expected) != NULL;
}

/* ---- limits ---- */

static int heaps_are_limited(const struct daemon *d)
{
    struct shms_client *client = connect_or_fail();
    struct shms_quota quota = change();

    (void)d;
    if (shms_heap_create(client, "first", 64 << 20) != 0 || shms_heap_create(client, "second", 64 << 20) != -EDQUOT ||
        !strstr(la_last_error(), "shms quota"))
        return 1;
    if (shms_quota_set(client, &quota) != -EPERM)
        return 2;
    quota = (struct shms_quota){ 0 };
    /* He sees himself, and nobody else. */
    return shms_quotas(client, find_nobody, &quota) == 1 && quota.heaps == 1 && quota.max_heaps == 1 && quota.bytes == 64 << 20 &&
           quota.committed > 0 && quota.committed < quota.bytes && quota.refused == 1 && quota.clients == 1 ? 0 : 3;
}

static void note_refused(void *user, const struct shms_event *event)
{
    if (event->kind == SHMS_EVENT_REFUSED && event->heap[0])
        *(struct shms_event *)user = *event;
}

static void limits_of_a_user_are_set_at_run_time(void **state)
{
    struct daemon *d = *state;
    struct shms_client *client;
    struct shms_quota quota = change(), after;
    struct shms_event refused = { 0 };

    if (geteuid() != 0)
        skip();
    client = start_for_nobody(d);
    quota.max_heaps = 1;
    assert_int_equal(shms_quota_set(client, &quota), 0);
    assert_int_equal(as_nobody(heaps_are_limited, d), 0);
    after = quota_of_nobody(client);
    assert_true(shms_events(client, 0, note_refused, &refused) > 0);
    assert_int_equal(refused.uid, NOBODY);
    assert_string_equal(refused.heap, "second");
    assert_non_null(strstr(refused.reason, "has 1 heap, which is the limit"));
    assert_int_equal(after.max_heaps, 1);
    assert_true(after.max_bytes == (uint64_t)1 << 40);
    quota.struct_size = 8;
    assert_int_equal(shms_quota_set(client, &quota), -EINVAL);
    shms_disconnect(client);
}

static void ask_for_ever(int said, void *arg)
{
    _Atomic(unsigned) *answers = arg;
    struct shms_client *client;

    if (setgroups(0, NULL) < 0 || setgid(NOBODY) < 0 || setuid(NOBODY) < 0)
        _exit(1);
    prctl(PR_SET_PDEATHSIG, SIGKILL);       /* setuid() has taken it away */
    client = connect_or_fail();
    child_say(said);
    while (shms_list(client, NULL, NULL) >= 0)
        atomic_fetch_add(answers, 1);
    _exit(2);
}

static bool nobody_was_delayed(void *client)
{
    return quota_of_nobody(client).delayed > 20;
}

static bool nobody_is_gone(void *client)
{
    return quota_of_nobody(client).clients == 0;
}

static void who_asks_too_much_waits_and_the_others_do_not(void **state)
{
    struct daemon *d = *state;
    struct shms_client *client;
    struct shms_quota quota = change();
    struct child greedy;
    _Atomic(unsigned) *answers = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint64_t begin = test_ms();
    unsigned got;

    if (geteuid() != 0)
        skip();
    client = start_for_nobody(d);
    quota.max_requests = 50;
    assert_int_equal(shms_quota_set(client, &quota), 0);
    greedy = child_start(ask_for_ever, answers);
    assert_true(wait_until(nobody_was_delayed, client));
    /* A second's worth at once, and then no more than the limit, however long this machine took. */
    got = atomic_load(answers);
    assert_true(got <= 52 + 50 * (test_ms() - begin) / 1000);
    /* Not dropped; and its death is seen while nobody reads its socket. */
    assert_int_equal(quota_of_nobody(client).clients, 1);
    assert_int_equal(child_end(&greedy, SIGKILL), -SIGKILL);
    assert_true(wait_until(nobody_is_gone, client));
    munmap(answers, 4096);
    shms_disconnect(client);
}

/* ---- reading ---- */

/* The descriptor of the only heap of this process. */
static int heap_descriptor(void)
{
    for (int fd = 3; fd < 256; fd++) {
        char path[32], target[64];
        ssize_t n;

        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        n = readlink(path, target, sizeof(target) - 1);
        target[n > 0 ? n : 0] = '\0';
        if (strstr(target, "memfd:liballoc:"))
            return fd;
    }
    return -1;
}

static int only_reading_is_possible(const struct daemon *d)
{
    struct shms_client *client = connect_or_fail();
    struct la_heap *heap = NULL;
    la_link *root;
    char path[96], *text;
    int fd;

    snprintf(path, sizeof(path), "%s/unused", d->folder);
    setenv("LIBALLOC_VSPACE_REGISTRY", path, 1);
    if (shms_heap_open(client, "shown", 0, 0, &heap) != -EACCES || shms_heap_open(client, "shown", 1 << 30, LA_HEAP_READ_ONLY, &heap) != -EINVAL ||
        shms_heap_open(client, "hidden", 0, LA_HEAP_READ_ONLY, &heap) != -EACCES)
        return 1;
    if (shms_heap_open(client, "shown", 0, LA_HEAP_READ_ONLY, &heap) != 0 || la_heap_root(heap, "text", &root) != 0)
        return 2;
    text = la_load(heap, root);
    if (!text || strcmp(text, "written by root") != 0 || la_heap_alloc(heap, 10))
        return 3;
    fd = heap_descriptor();
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    /* The ways around it. */
    if (fd < 0 || open(path, O_RDWR | O_CLOEXEC) >= 0 || errno != EACCES || fchmod(fd, 0666) == 0)
        return 4;
    if (mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) != MAP_FAILED || mprotect(text - (uintptr_t)text % 4096, 4096, PROT_READ | PROT_WRITE) == 0)
        return 5;
    return ftruncate(fd, 0) < 0 && fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) < 0 ? 0 : 6;
}

static void reader_of_another_user_cannot_write(void **state)
{
    struct daemon *d = *state;
    struct shms_client *client;
    struct la_heap *heap;
    la_link *root;
    char *text;

    if (geteuid() != 0)
        skip();
    client = start_for_nobody(d);
    heap = open_or_fail(client, "shown", 64 << 20);
    assert_int_equal(shms_heap_create(client, "hidden", 64 << 20), 0);
    assert_int_equal(shms_heap_set_acl(client, "shown", SHMS_UNCHANGED, SHMS_UNCHANGED, 0604), 0);
    text = la_heap_hold(heap, 100);
    strcpy(text, "written by root");
    assert_int_equal(la_heap_root(heap, "text", &root), 0);
    assert_int_equal(la_publish(heap, root, NULL, text), 0);
    assert_int_equal(as_nobody(only_reading_is_possible, d), 0);
    assert_int_equal(la_heap_fsck(heap, NULL, NULL, NULL), 0);
    assert_int_equal(shms_heap_close(client, heap), 0);
    shms_disconnect(client);
}

static void read_without_a_connection(int said, void *arg)
{
    struct shms_client *client = connect_or_fail();
    struct la_heap *heap = NULL;

    (void)arg;
    if (shms_heap_open(client, "read", 0, LA_HEAP_READ_ONLY, &heap) < 0)
        _exit(1);
    child_say(said);
    kill(getpid(), SIGSTOP);
    shms_disconnect(client);
    child_stay();
}

static bool daemon_has_forgotten(void *arg)
{
    const struct daemon *d = arg;
    char command[128];

    snprintf(command, sizeof(command), "ls -l /proc/%d/fd | grep -q liballoc:read", d->pid);
    return WEXITSTATUS(system(command)) == 1;
}

static void see_reader(void *user, const struct shms_process *process)
{
    if (process->state == SHMS_READING && strcmp(process->heap, "read") == 0)
        *(pid_t *)user = process->pid;
}

static bool is_alone(void *client)
{
    return shms_processes(client, NULL, NULL, NULL) == 0;
}

static void removed_heap_keeps_its_address_while_somebody_reads(void **state)
{
    struct daemon *d = *state;
    struct shms_client *client;
    struct child reader;
    pid_t seen = 0;

    daemon_start(d);
    client = connect_or_fail();
    assert_int_equal(shms_heap_create(client, "read", 64 << 20), 0);
    reader = child_start(read_without_a_connection, NULL);
    assert_int_equal(shms_processes(client, NULL, see_reader, &seen), 1);
    assert_int_equal(seen, reader.pid);
    assert_int_equal(waitpid(reader.pid, NULL, WUNTRACED), reader.pid);
    kill(reader.pid, SIGCONT);
    assert_true(wait_until(is_alone, client));
    assert_int_equal(shms_heap_remove(client, "read"), 0);
    assert_false(daemon_has_forgotten(d));
    assert_int_equal(child_end(&reader, SIGKILL), -SIGKILL);
    assert_true(wait_until(daemon_has_forgotten, d));
    shms_disconnect(client);
}

/* ---- sealing ---- */

static void sealed_heap_is_read_by_all_and_written_by_nobody(void **state)
{
    struct daemon *d = *state;
    struct shms_client *client;
    struct shms_heap info = { .struct_size = sizeof(info) };
    struct la_heap *heap;
    la_link *root;
    char *text;
    int kept;

    daemon_start(d);
    client = connect_or_fail();
    heap = open_or_fail(client, "album", 64 << 20);
    assert_int_equal(la_heap_root(heap, "text", &root), 0);
    text = la_heap_hold(heap, 100);
    strcpy(text, "for ever");
    assert_int_equal(la_publish(heap, root, NULL, text), 0);
    assert_non_null(la_heap_hold(heap, 5000));      /* freed with our leaving */
    assert_int_equal(shms_heap_seal(client, "album"), -EBUSY);
    assert_non_null(strstr(la_last_error(), "attached for writing by process"));
    /* The attempt has changed nothing. */
    assert_non_null(la_heap_alloc(heap, 10));
    /* Who keeps the descriptor has no use of it. */
    kept = fcntl(heap_descriptor(), F_DUPFD_CLOEXEC, 0);
    assert_true(kept >= 0);
    assert_int_equal(shms_heap_close(client, heap), 0);

    assert_int_equal(shms_heap_seal(client, "none"), -ENOENT);
    /* A kept descriptor is no mapping, so it does not stand in the way. */
    assert_int_equal(shms_heap_seal(client, "album"), 0);
    assert_int_equal(shms_heap_seal(client, "album"), 0);
    assert_int_equal(write(kept, "x", 1), -1);
    assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, kept, 0), MAP_FAILED);
    assert_int_equal(fallocate(kept, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), -1);
    close(kept);

    assert_int_equal(shms_heap_open(client, "album", 0, 0, &heap), -EROFS);
    assert_non_null(strstr(la_last_error(), "LA_HEAP_READ_ONLY"));
    assert_int_equal(shms_heap_info(client, "album", &info), 0);
    assert_int_equal(info.sealed, 1);
    assert_int_equal(info.processes, 0);
    assert_int_equal(shms_heap_open(client, "album", 0, LA_HEAP_READ_ONLY, &heap), 0);
    assert_int_equal(la_heap_root(heap, "text", &root), 0);
    assert_string_equal(la_load(heap, root), "for ever");
    assert_int_equal(la_heap_fsck(heap, NULL, NULL, NULL), 0);
    assert_int_equal(shms_heap_close(client, heap), 0);
    assert_int_equal(shms_heap_remove(client, "album"), 0);
    assert_int_equal(shms_list(client, NULL, NULL), 0);
    shms_disconnect(client);
}

/* ---- memory ---- */

static void note_committed(void *user, const struct shms_event *event)
{
    struct shms_event *ret = user;

    if (event->kind == SHMS_EVENT_COMMITTED)
        *ret = *event;
}

static bool committed_is_told(void *client)
{
    struct shms_event event = { 0 };

    assert_true(shms_events(client, 0, note_committed, &event) >= 0);
    return event.uid == geteuid() && event.bytes > 8 << 20;
}

/* Commit 20 MiB of "large", then wait; with ASK ask the daemon for something after it had us kicked. */
static void commit_and_stay(int said, void *ask)
{
    struct shms_client *client = connect_or_fail();
    struct la_heap *heap = open_or_fail(client, "large", 64 << 20);

    if (!la_heap_alloc(heap, 20 << 20))
        _exit(2);
    child_say(said);
    while (ask && shms_list(client, NULL, NULL) >= 0)
        poll(NULL, 0, 1);
    /* Sent away, but not robbed. */
    if (ask)
        _exit(la_heap_alloc(heap, 1 << 20) && shms_list(client, NULL, NULL) == -ENOTCONN ? 0 : 3);
    child_stay();
}

static void find_me(void *user, const struct shms_quota *quota)
{
    if (quota->uid == geteuid())
        *(struct shms_quota *)user = *quota;
}

static void memory_above_the_limit_is_told(void **state)
{
    struct daemon *d = *state;
    struct shms_quota more = { .struct_size = sizeof(more), .uid = geteuid(), .max_clients = SHMS_UNCHANGED, .max_heaps = SHMS_UNCHANGED,
                               .max_bytes = UINT64_MAX, .max_requests = SHMS_UNCHANGED }, now = { 0 };
    struct shms_client *client;
    struct la_heap *heap;

    assert_true(daemon_try_start(d, "--max-committed=8M", NULL));
    client = connect_or_fail();
    heap = open_or_fail(client, "large", 64 << 20);
    assert_non_null(la_heap_alloc(heap, 20 << 20));
    assert_true(wait_until(committed_is_told, client));
    /* No more than that. */
    assert_int_equal(shms_heap_close(client, heap), 0);
    heap = open_or_fail(client, "large", 0);
    assert_int_equal(shms_quota_set(client, &more), 0);
    assert_true(shms_quotas(client, find_me, &now) > 0);
    assert_true(now.max_committed == 8 << 20);
    more.max_committed = UINT64_MAX;
    assert_int_equal(shms_quota_set(client, &more), 0);
    assert_true(shms_quotas(client, find_me, &now) > 0);
    assert_true(now.max_committed == UINT64_MAX);
    assert_int_equal(shms_heap_close(client, heap), 0);
    shms_disconnect(client);
}

static bool heap_can_be_made(void *client)
{
    return shms_heap_create(client, "next", 8 << 20) == 0;
}

static void memory_above_the_limit_costs_connection_or_life_by_policy(void **state)
{
    struct daemon *d = *state;
    struct shms_client *client;
    struct la_heap *heap;
    struct child child;
    char deed[128];

    for (int kill = 0; kill < 2; kill++) {
        assert_true(daemon_try_start(d, "--max-committed=8M", kill ? "--over-committed=kill" : "--over-committed=kick"));
        client = connect_or_fail();
        child = child_start(commit_and_stay, kill ? NULL : client);
        assert_int_equal(child_end(&child, 0), kill ? -SIGKILL : 0);
        assert_true(committed_is_told(client));
        snprintf(deed, sizeof(deed), "process %d (shmserver_admin, user %u) is %s for that", child.pid, geteuid(), kill ? "killed" : "kicked");
        assert_true(daemon_said(d, deed));
        /* Who had nothing to do with it still talks to the daemon, but gets no more. */
        assert_int_equal(shms_heap_open(client, "large", 0, 0, &heap), -EDQUOT);
        assert_int_equal(shms_heap_create(client, "next", 8 << 20), -EDQUOT);
        assert_int_equal(shms_heap_open(client, "large", 0, LA_HEAP_READ_ONLY, &heap), 0);
        assert_int_equal(shms_heap_close(client, heap), 0);
        assert_int_equal(shms_heap_remove(client, "large"), 0);
        assert_true(wait_until(heap_can_be_made, client));
        shms_disconnect(client);
        assert_int_equal(daemon_stop(d, SIGTERM), 0);
    }
}

/* ---- kicking, collecting, events ---- */

struct seen {
    int count[SHMS_EVENT_KICKED + 1];
    struct shms_event died;
    uint64_t last;
    bool in_order;
};

static void see_event(void *user, const struct shms_event *event)
{
    struct seen *seen = user;

    assert_in_range(event->kind, 1, SHMS_EVENT_KICKED);
    seen->count[event->kind]++;
    seen->in_order = event->serial > seen->last;
    seen->last = event->serial;
    if (event->kind == SHMS_EVENT_DIED)
        seen->died = *event;
}

static void stop_then_ask(int said, void *arg)
{
    struct shms_client *client = connect_or_fail();

    (void)arg;
    child_say(said);
    kill(getpid(), SIGSTOP);
    _exit(shms_list(client, NULL, NULL) == -ENOTCONN ? 0 : 1);
}

static void hold_and_stay(int said, void *arg)
{
    struct la_heap *heap = open_or_fail(connect_or_fail(), arg, 64 << 20);

    for (int i = 0; i < 10; i++)
        if (!la_heap_hold(heap, 1000))
            _exit(1);
    child_say(said);
    child_stay();
}

static void stay_without_a_connection(int said, void *arg)
{
    struct shms_client *client = connect_or_fail();

    open_or_fail(client, arg, 64 << 20);
    shms_disconnect(client);
    child_say(said);
    child_stay();
}

static void attached_process_without_a_connection_can_be_killed(void **state)
{
    struct daemon *d = *state;
    struct shms_client *client;
    struct child victim;

    daemon_start(d);
    client = connect_or_fail();
    victim = child_start(stay_without_a_connection, "lonely");
    assert_int_equal(shms_kick(client, victim.pid, false), -ESRCH);
    assert_non_null(strstr(la_last_error(), "--kill ends it"));
    assert_int_equal(shms_kick(client, 1, true), -ESRCH);
    /* It has the heap mapped, too, but is none of those. */
    assert_int_equal(shms_kick(client, d->pid, true), -ESRCH);
    assert_int_equal(shms_kick(client, victim.pid, true), 0);
    assert_int_equal(child_end(&victim, 0), -SIGKILL);
    shms_disconnect(client);
}

static void stay_elsewhere(int said, void *arg)
{
    (void)arg;
    child_say(said);
    child_stay();
}

static void take_the_number_of(int said, void *arg)
{
    struct la_heap *heap = open_or_fail(connect_or_fail(), "forged", 64 << 20);
    const int32_t mine = getpid(), other = *(const pid_t *)arg;
    struct la_heap_info info = { .struct_size = sizeof(info) };
    char *bytes;

    if (la_heap_info(heap, &info) < 0)
        _exit(1);
    bytes = (char *)(uintptr_t)info.address;
    /* Its place in the table is in the first pages, whose format is nobody's business here. */
    for (size_t at = 0; at < 1 << 20; at += sizeof(mine))
        if (memcmp(bytes + at, &mine, sizeof(mine)) == 0)
            memcpy(bytes + at, &other, sizeof(other));
    child_say(said);
    child_stay();
}

static void number_in_a_forged_table_harms_nobody(void **state)
{
    struct daemon *d = *state;
    struct shms_client *client;
    struct child forger, innocent;
    char number[32];

    daemon_start(d);
    client = connect_or_fail();
    innocent = child_start(stay_elsewhere, NULL);
    forger = child_start(take_the_number_of, &innocent.pid);
    snprintf(number, sizeof(number), "\"pid\": %d,", innocent.pid);
    assert_true(tool_says("clients forged --json", number));
    assert_int_equal(shms_kick(client, innocent.pid, true), -EPERM);
    assert_non_null(strstr(la_last_error(), "cannot see whether it is the one"));
    assert_int_equal(kill(innocent.pid, 0), 0);
    assert_int_equal(child_end(&innocent, SIGTERM), -SIGTERM);
    assert_int_equal(child_end(&forger, SIGKILL), -SIGKILL);
    shms_disconnect(client);
}

static void kicked_process_loses_its_connection_or_its_life(void **state)
{
    struct daemon *d = *state;
    struct shms_client *client;
    struct child victim;

    daemon_start(d);
    client = connect_or_fail();
    assert_int_equal(shms_kick(client, 1, false), -ESRCH);
    assert_int_equal(shms_kick(client, 0, false), -EINVAL);
    assert_int_equal(shms_kick(client, getpid(), true), -EINVAL);

    victim = child_start(stop_then_ask, NULL);
    assert_int_equal(waitpid(victim.pid, NULL, WUNTRACED), victim.pid);
    assert_int_equal(shms_kick(client, victim.pid, false), 0);
    assert_int_equal(child_end(&victim, SIGCONT), 0);

    victim = child_start(hold_and_stay, "kicked");
    assert_int_equal(shms_kick(client, victim.pid, true), 0);
    assert_int_equal(child_end(&victim, 0), -SIGKILL);
    assert_int_equal(shms_list(client, NULL, NULL), 1);
    shms_disconnect(client);
}

static int others_are_out_of_reach(const struct daemon *d)
{
    struct shms_client *client = connect_or_fail();
    struct seen seen = { .in_order = true };

    (void)d;
    if (shms_kick(client, getppid(), true) != -EPERM || shms_gc(client, NULL, NULL) != -EPERM)
        return 1;
    /* Of what happens he is told his own part only: two refusals. */
    return shms_events(client, 0, see_event, &seen) == 2 && seen.count[SHMS_EVENT_REFUSED] == 2 ? 0 : 2;
}

static void who_looks_after_it_must_have_the_right(void **state)
{
    struct daemon *d = *state;
    struct shms_client *client;

    if (geteuid() != 0)
        skip();
    client = start_for_nobody(d);
    assert_int_equal(shms_heap_create(client, "roots", 64 << 20), 0);
    assert_int_equal(as_nobody(others_are_out_of_reach, d), 0);
    shms_disconnect(client);
}

static void obituary_says_who_died_and_what_it_held(void **state)
{
    struct daemon *d = *state;
    struct shms_client *client;
    struct shms_heap info = { .struct_size = sizeof(info) };
    struct seen seen = { .in_order = true };
    struct child victim;
    uint64_t recovered = 99, freed = 99;

    daemon_start(d);
    client = connect_or_fail();
    victim = child_start(hold_and_stay, "mourned");
    assert_int_equal(child_end(&victim, SIGKILL), -SIGKILL);
    /* It is gone with its mapping: whoever looks now finds it, if the daemon has not by itself. */
    assert_int_equal(shms_gc(client, &recovered, &freed), 0);
    assert_true(recovered <= 1);
    assert_int_equal(freed, 0);
    assert_int_equal(shms_heap_info(client, "mourned", &info), 0);
    assert_int_equal(info.recovered_processes, 1);
    assert_int_equal(shms_heap_remove(client, "mourned"), 0);

    assert_int_equal(shms_events(client, 0, see_event, &seen), 4);
    assert_true(seen.in_order);
    assert_int_equal(seen.count[SHMS_EVENT_CREATED], 1);
    assert_int_equal(seen.count[SHMS_EVENT_ATTACHED], 1);
    assert_int_equal(seen.count[SHMS_EVENT_REMOVED], 1);
    assert_int_equal(seen.died.pid, victim.pid);
    assert_int_equal(seen.died.blocks, 10);
    assert_true(seen.died.bytes >= 10000);
    assert_string_equal(seen.died.heap, "mourned");
    assert_int_equal(shms_events(client, seen.last, see_event, &seen), 0);
    assert_int_equal(shms_events(client, seen.last - 1, see_event, &seen), 1);
    shms_disconnect(client);
}

static bool death_is_told(void *arg)
{
    struct seen seen = { .in_order = true };

    return shms_events(arg, 0, see_event, &seen) >= 0 && seen.count[SHMS_EVENT_DIED] == 1;
}

/* The heap's notice is told, not the daemon's own deed; once, and not again by the next daemon. */
static void obituary_tells_also_of_whom_a_peer_recovered(void **state)
{
    struct daemon *d = *state;
    struct shms_client *client;
    struct seen seen = { .in_order = true };
    struct la_heap *heap;
    struct child victim;

    daemon_start(d);
    client = connect_or_fail();
    victim = child_start(hold_and_stay, "mourned");
    assert_int_equal(shms_heap_open(client, "mourned", 0, 0, &heap), 0);
    assert_int_equal(kill(d->pid, SIGSTOP), 0);
    assert_int_equal(child_end(&victim, SIGKILL), -SIGKILL);
    assert_int_equal(la_heap_recover(heap, NULL, NULL), 1);
    assert_int_equal(kill(d->pid, SIGCONT), 0);
    assert_true(wait_until(death_is_told, client));
    assert_true(shms_events(client, 0, see_event, &seen) > 0);
    assert_int_equal(seen.died.pid, victim.pid);
    assert_int_equal(seen.died.blocks, 10);
    assert_int_equal(shms_heap_close(client, heap), 0);
    shms_disconnect(client);
}

/* Publishes one block as operation 17, holds another, and leaves it to "son". */
static void publish_and_stay(int said, void *arg)
{
    struct la_heap *heap = open_or_fail(connect_or_fail(), arg, 64 << 20);
    la_link *root;

    if (la_heap_set_heir(heap, "son") < 0 || la_heap_root(heap, "root", &root) < 0 || la_heap_operation(heap, 17) < 0 ||
        la_publish(heap, root, NULL, la_heap_hold(heap, 100)) < 0 || !la_heap_hold(heap, 1000))
        _exit(1);
    child_say(said);
    child_stay();
}

static void obituary_says_what_has_happened_and_what_is_left_to_whom(void **state)
{
    struct daemon *d = *state;
    struct shms_client *client;
    struct seen seen = { .in_order = true };
    struct child victim;

    daemon_start(d);
    client = connect_or_fail();
    victim = child_start(publish_and_stay, "left");
    assert_int_equal(child_end(&victim, SIGKILL), -SIGKILL);
    assert_int_equal(shms_gc(client, NULL, NULL), 0);
    assert_true(shms_events(client, 0, see_event, &seen) > 0);
    assert_int_equal(seen.died.pid, victim.pid);
    assert_int_equal(seen.died.operation, 17);
    assert_int_equal(seen.died.happened, 1);
    assert_int_equal(seen.died.blocks, 0);
    assert_int_equal(seen.died.left_blocks, 1);
    assert_true(seen.died.left_bytes >= 1000);
    assert_string_equal(seen.died.heir, "son");
    assert_true(daemon_said(d, "freed 0 blocks of 0 bytes that it held, left 1 (1024 bytes) to son, "));
    assert_true(tool_says("obituary left", "OPERATION"));
    assert_true(tool_says("obituary left --json", "\"operation\": 17,"));
    assert_true(tool_says("obituary left --json", "\"happened\": true,"));
    assert_true(tool_says("obituary left --json", "\"left_bytes\": 1024"));
    shms_disconnect(client);
}

static void long_history_is_told_whole(void **state)
{
    struct daemon *d = *state;
    struct shms_client *client;
    struct seen seen = { .in_order = true };

    daemon_start(d);
    client = connect_or_fail();
    /* More than a message holds. */
    for (int i = 0; i < 100; i++)
        assert_int_equal(shms_heap_create(client, "many", LA_HEAP_MIN_SIZE) + shms_heap_remove(client, "many"), 0);
    assert_int_equal(shms_events(client, 0, see_event, &seen), 200);
    assert_true(seen.in_order);
    assert_int_equal(seen.count[SHMS_EVENT_REMOVED], 100);
    shms_disconnect(client);
}

/* ---- metrics ---- */

struct text {
    size_t size;
    char bytes[1 << 20];
};

static void collect(void *user, const char *text, size_t size)
{
    struct text *all = user;

    assert_true(all->size + size < sizeof(all->bytes));
    memcpy(all->bytes + all->size, text, size);
    all->size += size;
    all->bytes[all->size] = '\0';
}

static bool is_whole(const struct text *text)
{
    static const char end[] = "\n# EOF\n";

    return text->size > sizeof(end) && strcmp(text->bytes + text->size - strlen(end), end) == 0 &&
           strncmp(text->bytes, "# TYPE shmserver info\n", 22) == 0;
}

static int metrics_connect(const struct daemon *d)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%s.metrics", d->socket);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static void metrics_tell_heaps_and_users(void **state)
{
    struct daemon *d = *state;
    struct shms_client *client;
    struct la_heap *heap;
    struct text *text = calloc(1, sizeof(*text));
    char line[128];

    daemon_start(d);
    client = connect_or_fail();
    heap = open_or_fail(client, "measured", 64 << 20);
    assert_int_equal(shms_heap_open(client, "measured", 0, SHMS_CREATE_ONLY, &heap), -EINVAL);
    assert_int_equal(shms_metrics(NULL, collect, text), 0);
    assert_true(is_whole(text));
    snprintf(line, sizeof(line), "\nshmserver_heap_size_bytes{heap=\"measured\",owner=\"%u\"} %u\n", geteuid(), 64u << 20);
    assert_non_null(strstr(text->bytes, line));
    snprintf(line, sizeof(line), "\nshmserver_heap_processes{heap=\"measured\",owner=\"%u\"} 1\n", geteuid());
    assert_non_null(strstr(text->bytes, line));
    snprintf(line, sizeof(line), "\nshmserver_user_heap_bytes{uid=\"%u\"} %u\n", geteuid(), 64u << 20);
    assert_non_null(strstr(text->bytes, line));
    assert_non_null(strstr(text->bytes, "\nshmserver_connections 1\n"));
    assert_int_equal(shms_metrics("/nowhere/at/all", collect, text), -ECONNREFUSED);
    free(text);
    shms_heap_close(client, heap);
    shms_disconnect(client);
}

/* Of very many heaps: under a sanitizer on a busy machine that may take longer than the library waits. */
static int metrics_in_the_end(struct text *text)
{
    int r = -EAGAIN;

    for (int i = 0; r == -EAGAIN && i < 10; i++) {
        text->size = 0;
        r = shms_metrics(NULL, collect, text);
    }
    return r;
}

static void slow_reader_of_metrics_is_in_nobodys_way(void **state)
{
    struct daemon *d = *state;
    struct text *text = calloc(1, sizeof(*text));
    struct shms_client *client;
    char part[1000];
    ssize_t n;
    int slow, waiting;

    assert_true(daemon_try_start(d, "--max-heaps", "256"));
    client = connect_or_fail();
    for (int i = 0; i < 256; i++) {
        char name[LA_HEAP_NAME_MAX + 1];

        snprintf(name, sizeof(name), "%060d", i);
        assert_int_equal(shms_heap_create(client, name, LA_HEAP_MIN_SIZE), 0);
    }
    slow = metrics_connect(d);
    /* What it says is not read. */
    assert_int_equal(send(slow, "GET / HTTP/1.1\r\n\r\n", 18, MSG_NOSIGNAL), 18);
    assert_int_equal(metrics_in_the_end(text), 0);
    assert_true(is_whole(text));
    /* More than a socket takes at once. */
    assert_int_equal(ioctl(slow, FIONREAD, &waiting), 0);
    assert_true(waiting > 0 && (size_t)waiting < text->size);
    assert_int_equal(shms_list(client, NULL, NULL), 256);
    text->size = 0;
    while ((n = recv(slow, part, sizeof(part), 0)) > 0)
        collect(text, part, (size_t)n);
    assert_true(is_whole(text));
    close(slow);
    free(text);
    shms_disconnect(client);
}

static int metrics_are_refused(const struct daemon *d)
{
    static struct text text;

    (void)d;
    return shms_metrics(NULL, collect, &text) == -EACCES && text.size == 0 ? 0 : 1;
}

static void metrics_are_not_for_everybody(void **state)
{
    struct daemon *d = *state;
    char path[128];

    if (geteuid() != 0)
        skip();
    daemon_start(d);
    assert_int_equal(chmod(d->folder, 0755), 0);
    assert_int_equal(as_nobody(metrics_are_refused, d), 0);
    /* Also if somebody widens the rights of the socket. */
    snprintf(path, sizeof(path), "%s.metrics", d->socket);
    assert_int_equal(chmod(path, 0666), 0);
    assert_int_equal(as_nobody(metrics_are_refused, d), 0);
}

/* ---- the tool, on a heap with something in it ---- */

static void tool_names_roots_and_the_block_around_an_address(void **state)
{
    struct daemon *d = *state;
    struct shms_client *client;
    char arguments[64], expected[64];
    struct la_heap *heap;
    la_link *root;
    char *kept, *held;

    daemon_start(d);
    client = connect_or_fail();
    heap = open_or_fail(client, "inside", 64 << 20);
    kept = la_heap_hold(heap, 100);
    held = la_heap_hold(heap, 100);
    assert_int_equal(la_heap_root(heap, "first", &root), 0);
    assert_int_equal(la_publish(heap, root, NULL, kept), 0);
    snprintf(expected, sizeof(expected), "0x%lx", (unsigned long)kept);
    assert_true(tool_says("roots inside", expected));
    assert_true(tool_says("--json roots inside", "\"name\": \"first\""));
    snprintf(arguments, sizeof(arguments), "who %p", (void *)(kept + 9));
    assert_true(tool_says(arguments, expected));
    assert_true(tool_says(arguments, "kept by the heap"));
    snprintf(arguments, sizeof(arguments), "--json who %lu", (unsigned long)(uintptr_t)held);
    assert_true(tool_says(arguments, "held by a process"));
    snprintf(expected, sizeof(expected), "\"pid\": %d", getpid());
    assert_true(tool_says(arguments, expected));
    la_free(held);
    assert_true(tool_says(arguments, "\"free\""));
    assert_true(tool_says(arguments, "\"block\": null"));
    assert_true(tool_says(arguments, "\"size\": null"));
    assert_true(tool_says("doctor", "shows 1 heap\n"));
    assert_true(tool_says("who 0x1000", "in no heap"));
    assert_true(tool_says("who nowhere", "no address"));
    shms_heap_close(client, heap);
    shms_disconnect(client);
}

#define without_daemon(test) cmocka_unit_test_setup_teardown(test, daemon_setup_stopped, daemon_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        without_daemon(limits_of_a_user_are_set_at_run_time),
        without_daemon(reader_of_another_user_cannot_write),
        without_daemon(removed_heap_keeps_its_address_while_somebody_reads),
        without_daemon(sealed_heap_is_read_by_all_and_written_by_nobody),
        without_daemon(memory_above_the_limit_is_told),
        without_daemon(memory_above_the_limit_costs_connection_or_life_by_policy),
        without_daemon(attached_process_without_a_connection_can_be_killed),
        without_daemon(number_in_a_forged_table_harms_nobody),
        without_daemon(kicked_process_loses_its_connection_or_its_life),
        without_daemon(who_looks_after_it_must_have_the_right),
        without_daemon(obituary_says_who_died_and_what_it_held),
        without_daemon(obituary_tells_also_of_whom_a_peer_recovered),
        without_daemon(obituary_says_what_has_happened_and_what_is_left_to_whom),
        without_daemon(long_history_is_told_whole),
        without_daemon(metrics_tell_heaps_and_users),
        without_daemon(slow_reader_of_metrics_is_in_nobodys_way),
        without_daemon(metrics_are_not_for_everybody),
        without_daemon(tool_names_roots_and_the_block_around_an_address),
        without_daemon(who_asks_too_much_waits_and_the_others_do_not),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
