/* shmserver_heap_test.c - what clients of a daemon get: heaps by name, exchanged blocks, and nothing lost with the dead. */
#include "daemon.h"

#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>

enum { HEAP_SIZE = 64 << 20 };

static void heap_is_made_once_and_found_by_name(void **state)
{
    struct shms_client *client = connect_or_fail();
    struct shms_heap info = { .struct_size = sizeof(info) };
    struct la_heap *heap = NULL;

    (void)state;
    assert_int_equal(shms_heap_create(client, "made", HEAP_SIZE), 0);
    assert_int_equal(shms_heap_create(client, "made", HEAP_SIZE), -EEXIST);
    assert_int_equal(shms_heap_open(client, "made", HEAP_SIZE, SHMS_CREATE_ONLY, &heap), -EEXIST);
    assert_int_equal(shms_heap_open(client, "other", 0, 0, &heap), -ENOENT);
    assert_non_null(strstr(la_last_error(), "other"));
    assert_null(heap);

    heap = open_or_fail(client, "made", 0);
    assert_int_equal(shms_heap_info(client, "made", &info), 0);
    assert_int_equal(info.processes, 1);
    assert_int_equal(info.size, HEAP_SIZE);
    assert_string_equal(info.name, "made");
    assert_int_equal(info.owner, geteuid());
    assert_int_equal(shms_heap_close(client, heap), 0);
    assert_int_equal(shms_heap_info(client, "made", &info), 0);
    assert_int_equal(info.processes, 0);
    shms_disconnect(client);
}

static void bad_names_and_sizes_are_refused_in_words(void **state)
{
    struct shms_client *client = connect_or_fail();
    static const char *const names[] = { "", ".hidden", "-option", "a/b", "a b", "\xc3\xa9",
                                         "x234567890123456789012345678901234567890123456789012345678901234" };
    struct la_heap *heap = NULL;

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        assert_int_equal(shms_heap_open(client, names[i], HEAP_SIZE, 0, &heap), -EINVAL);
        assert_non_null(strstr(la_last_error(), "A-Z"));
    }
    assert_int_equal(shms_heap_open(client, NULL, HEAP_SIZE, 0, &heap), -EINVAL);
    assert_int_equal(shms_heap_open(client, "small", LA_HEAP_MIN_SIZE - 1, 0, &heap), -EINVAL);
    assert_int_equal(shms_heap_open(client, "large", SIZE_MAX, 0, &heap), -EDQUOT);
    assert_int_equal(shms_heap_open(client, "flags", HEAP_SIZE, 1u << 30, &heap), -EINVAL);
    assert_int_equal(shms_heap_open(client, "flags", 0, SHMS_CREATE_ONLY, &heap), -EINVAL);
    assert_int_equal(shms_heap_open(NULL, "none", HEAP_SIZE, 0, &heap), -EINVAL);
    assert_null(heap);
    /* None of it has hurt the connection. */
    assert_int_equal(shms_list(client, NULL, NULL), 0);
    shms_disconnect(client);
}

static void second_attach_in_a_process_is_refused(void **state)
{
    struct shms_client *client = connect_or_fail();
    struct la_heap *heap = open_or_fail(client, "twice", HEAP_SIZE), *again = NULL;

    (void)state;
    assert_int_equal(shms_heap_open(client, "twice", HEAP_SIZE, 0, &again), -EALREADY);
    assert_null(again);
    assert_non_null(la_heap_alloc(heap, 100));
    shms_heap_close(client, heap);
    shms_disconnect(client);
}

/* ---- two processes ---- */

struct note {
    struct note *next;
    char text[48];
};

static void write_a_note(int said, void *arg)
{
    struct shms_client *client = connect_or_fail();
    struct la_heap *heap = open_or_fail(client, "notes", HEAP_SIZE);
    struct note *note;
    la_link *root;

    (void)arg;
    if (la_heap_root(heap, "list", &root) < 0)
        _exit(1);
    note = la_heap_hold(heap, sizeof(*note));
    strcpy(note->text, "from another process");
    if (la_push(heap, root, note, offsetof(struct note, next)) < 0)
        _exit(2);
    child_say(said);
}

static void block_of_one_client_is_taken_and_freed_by_another(void **state)
{
    struct shms_client *client = connect_or_fail();
    struct child writer = child_start(write_a_note, NULL);
    struct la_heap *heap = open_or_fail(client, "notes", 0);
    struct note *note;
    la_link *root;

    (void)state;
    assert_int_equal(child_end(&writer, 0), 0);
    assert_int_equal(la_heap_root(heap, "list", &root), 0);
    note = la_take(heap, root, offsetof(struct note, next));
    assert_non_null(note);
    assert_string_equal(note->text, "from another process");
    la_free(note);
    assert_null(la_load(heap, root));
    assert_int_equal(la_heap_fsck(heap, NULL, NULL, NULL), 0);
    shms_heap_close(client, heap);
    shms_disconnect(client);
}

/* ---- death ---- */

enum { HELD = 100, HELD_SIZE = 1000 };

static struct la_heap *hold_blocks(struct shms_client *client)
{
    struct la_heap *heap = open_or_fail(client, "doomed", HEAP_SIZE);

    for (int i = 0; i < HELD; i++)
        if (!la_heap_hold(heap, HELD_SIZE))
            _exit(1);
    return heap;
}

static void hold_and_stay(int said, void *arg)
{
    (void)arg;
    hold_blocks(connect_or_fail());
    child_say(said);
    child_stay();
}

static bool one_is_recovered(void *arg)
{
    struct shms_heap info = { .struct_size = sizeof(info) };

    return shms_heap_info(arg, "doomed", &info) == 0 && info.recovered_processes == 1 && info.processes == 0;
}

static void assert_all_is_recovered(struct shms_client *client)
{
    struct shms_heap info = { .struct_size = sizeof(info) };

    assert_true(wait_until(one_is_recovered, client));
    assert_int_equal(shms_heap_info(client, "doomed", &info), 0);
    assert_int_equal(info.recovered_blocks, HELD);
    assert_true(info.recovered_bytes >= HELD * HELD_SIZE);
}

static void blocks_that_a_killed_client_held_are_freed_by_the_daemon(void **state)
{
    struct daemon *d = *state;
    struct shms_client *client = connect_or_fail();
    struct child victim = child_start(hold_and_stay, NULL);

    assert_int_equal(child_end(&victim, SIGKILL), -SIGKILL);
    assert_all_is_recovered(client);
    assert_true(daemon_said(d, "died; freed 100 blocks"));
    shms_disconnect(client);
}

static void hold_and_disconnect(int said, void *arg)
{
    struct shms_client *client = connect_or_fail();

    (void)arg;
    hold_blocks(client);
    shms_disconnect(client);
    child_say(said);
    child_stay();
}

static void client_that_has_disconnected_is_still_looked_after(void **state)
{
    struct shms_client *client = connect_or_fail();
    struct child victim = child_start(hold_and_disconnect, NULL);
    struct shms_heap info = { .struct_size = sizeof(info) };

    (void)state;
    /* A hang-up is no death: it is attached, and nothing was taken from it. */
    assert_int_equal(shms_heap_info(client, "doomed", &info), 0);
    assert_int_equal(info.processes, 1);
    assert_int_equal(info.recovered_blocks, 0);
    assert_int_equal(child_end(&victim, SIGKILL), -SIGKILL);
    assert_all_is_recovered(client);
    shms_disconnect(client);
}

/* Descriptors of this process that are connections (@files false) or files of heaps. Return: how many; @last: one of them. */
static int count_own_descriptors(bool files, int *last)
{
    int n = 0;

    for (int fd = 3; fd < 256; fd++) {
        char path[32], target[64];
        int type = 0;
        socklen_t length = sizeof(type);
        ssize_t got;

        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        got = readlink(path, target, sizeof(target) - 1);
        if (got < 0)
            continue;
        target[got] = '\0';
        if (files ? strstr(target, "memfd:liballoc:") == NULL
                  : getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) < 0 || type != SOCK_SEQPACKET)
            continue;
        *last = fd;
        n++;
    }
    return n;
}

static void what_a_client_holds_is_private_and_ends_at_exec(void **state)
{
    struct shms_client *client = connect_or_fail();
    struct la_heap *heap = open_or_fail(client, "private", HEAP_SIZE);
    struct stat st;
    int fd = -1;

    (void)state;
    assert_int_equal(count_own_descriptors(true, &fd), 1);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(count_own_descriptors(false, &fd), 1);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    shms_heap_close(client, heap);
    shms_disconnect(client);
}

/* Alive until the pipe's other end is closed; says first whether it has anything of its parent's. */
static void fork_and_die_first(int said, void *arg)
{
    struct shms_client *client = connect_or_fail();
    struct la_heap *heap = hold_blocks(client);
    const int *until = arg;
    char c;
    int fd;

    close(until[1]);
    if (fork() == 0) {
        if (count_own_descriptors(true, &fd) != 0 || count_own_descriptors(false, &fd) != 0 ||
            shms_heap_open(client, "doomed", 0, 0, &heap) != -ECHILD || shms_heap_remove(client, "doomed") != -ECHILD)
            _exit(1);
        child_say(said);
        _exit(read(until[0], &c, 1) == 0 ? 0 : 1);
    }
    close(said);
    child_stay();
}

static void child_of_a_fork_does_not_keep_its_parent_alive(void **state)
{
    struct shms_client *client = connect_or_fail();
    struct child victim;
    int until[2];

    (void)state;
    assert_int_equal(pipe2(until, O_CLOEXEC), 0);
    victim = child_start(fork_and_die_first, until);
    assert_int_equal(child_end(&victim, SIGKILL), -SIGKILL);
    assert_all_is_recovered(client);
    close(until[0]);
    close(until[1]);
    shms_disconnect(client);
}

/* The connection, under a second number, which the library does not know and so does not close in a child. */
static int duplicate_connection(void)
{
    for (int fd = 3; fd < 64; fd++) {
        int type = 0;
        socklen_t length = sizeof(type);

        if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) == 0 && type == SOCK_SEQPACKET)
            return dup(fd);
    }
    return -1;
}

static void hold_with_an_orphan_on_the_socket(int said, void *arg)
{
    const int *until = arg;
    char c;

    hold_blocks(connect_or_fail());
    if (duplicate_connection() < 0)
        _exit(1);
    close(until[1]);
    if (fork() == 0) {
        child_say(said);
        _exit(read(until[0], &c, 1) == 0 ? 0 : 1);
    }
    child_stay();
}

static void death_is_seen_although_an_orphan_keeps_the_socket_open(void **state)
{
    struct shms_client *client = connect_or_fail();
    struct child victim;
    int until[2];

    (void)state;
    assert_int_equal(pipe2(until, O_CLOEXEC), 0);
    victim = child_start(hold_with_an_orphan_on_the_socket, until);
    assert_int_equal(child_end(&victim, SIGKILL), -SIGKILL);
    assert_all_is_recovered(client);
    close(until[0]);
    close(until[1]);
    shms_disconnect(client);
}

/* ---- removal ---- */

static void attach_and_allocate_after_a_byte(int said, void *arg)
{
    struct shms_client *client = connect_or_fail();
    struct la_heap *heap = open_or_fail(client, "going", HEAP_SIZE);
    const int *go = arg;
    char c;

    child_say(said);
    if (read(go[0], &c, 1) != 1 || !la_heap_alloc(heap, 1 << 20))
        _exit(1);
}

static bool daemon_has_no_file_named(void *arg)
{
    struct daemon *d = arg;
    char command[128];

    snprintf(command, sizeof(command), "ls -l /proc/%d/fd | grep -q liballoc:going", d->pid);
    return WEXITSTATUS(system(command)) == 1;
}

static void removed_heap_lives_until_its_last_process_has_left(void **state)
{
    struct daemon *d = *state;
    struct shms_client *client = connect_or_fail();
    struct shms_heap old = { .struct_size = sizeof(old) }, new = { .struct_size = sizeof(new) };
    struct child user;
    int go[2];

    assert_int_equal(pipe2(go, O_CLOEXEC), 0);
    user = child_start(attach_and_allocate_after_a_byte, go);
    assert_int_equal(shms_heap_info(client, "going", &old), 0);
    assert_int_equal(shms_heap_remove(client, "going"), 0);
    assert_int_equal(shms_heap_remove(client, "going"), -ENOENT);
    assert_int_equal(shms_list(client, NULL, NULL), 0);
    assert_false(daemon_has_no_file_named(d));

    /* The name is free, the address is not. */
    assert_int_equal(shms_heap_create(client, "going", HEAP_SIZE), 0);
    assert_int_equal(shms_heap_info(client, "going", &new), 0);
    assert_int_not_equal(new.id, old.id);
    assert_true(new.address >= old.address + old.size || new.address + new.size <= old.address);
    assert_int_equal(shms_heap_remove(client, "going"), 0);

    assert_int_equal(write(go[1], "!", 1), 1);
    assert_int_equal(child_end(&user, 0), 0);
    assert_true(wait_until(daemon_has_no_file_named, d));
    close(go[0]);
    close(go[1]);
    shms_disconnect(client);
}

static void detaching_from_a_heap_that_was_removed_meanwhile_works(void **state)
{
    struct daemon *d = *state;
    struct shms_client *client = connect_or_fail();
    struct la_heap *heap = open_or_fail(client, "going", HEAP_SIZE);
    char *block = la_heap_hold(heap, 1000);

    assert_non_null(block);
    assert_int_equal(shms_heap_remove(client, "going"), 0);
    memset(block, 1, 1000);
    la_free(block);
    assert_non_null(la_heap_alloc(heap, 1 << 20));
    assert_int_equal(shms_heap_close(client, heap), 0);
    assert_true(wait_until(daemon_has_no_file_named, d));
    /* The connection is as good as before. */
    heap = open_or_fail(client, "going", HEAP_SIZE);
    assert_int_equal(shms_heap_close(client, heap), 0);
    shms_disconnect(client);
}

static void client_whose_attach_failed_does_not_count_as_attached(void **state)
{
    struct daemon *d = *state;
    struct shms_client *client = connect_or_fail(), *other = connect_or_fail();
    struct shms_heap info = { .struct_size = sizeof(info) };
    struct la_heap *heap = NULL;

    assert_int_equal(shms_heap_create(client, "going", HEAP_SIZE), 0);
    assert_int_equal(shms_heap_info(client, "going", &info), 0);
    /* The daemon answers, but the address is taken here. */
    heap = open_or_fail(client, "arena", LA_HEAP_MIN_SIZE);     /* reserves it */
    assert_ptr_equal(mmap((void *)(uintptr_t)info.address, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
                     (void *)(uintptr_t)info.address);
    assert_int_equal(shms_heap_close(client, heap), 0);
    assert_int_equal(shms_heap_open(client, "going", 0, 0, &heap), -EEXIST);
    assert_non_null(strstr(la_last_error(), "taken"));

    assert_int_equal(shms_heap_remove(other, "going"), 0);
    assert_true(wait_until(daemon_has_no_file_named, d));
    assert_int_equal(shms_list(client, NULL, NULL), 1);
    /* The reservation is whole again for the tests that follow. */
    mmap((void *)(uintptr_t)info.address, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    shms_disconnect(client);
    shms_disconnect(other);
}

static void hold_and_attach_again(int said, void *arg)
{
    struct shms_client *client = connect_or_fail();
    struct la_heap *heap = hold_blocks(client);

    (void)arg;
    if (shms_heap_open(client, "doomed", 0, 0, &heap) != -EALREADY)
        _exit(1);
    child_say(said);
    child_stay();
}

static void client_whose_second_attach_was_refused_still_counts(void **state)
{
    struct shms_client *client = connect_or_fail();
    struct child victim = child_start(hold_and_attach_again, NULL);

    (void)state;
    assert_int_equal(child_end(&victim, SIGKILL), -SIGKILL);
    assert_all_is_recovered(client);
    shms_disconnect(client);
}

static void file_of_a_heap_cannot_shrink_or_grow(void **state)
{
    struct daemon *d = *state;
    struct shms_client *client = connect_or_fail();
    struct la_heap *heap = open_or_fail(client, "sealed", HEAP_SIZE);
    char command[160], path[64];
    FILE *found;
    int fd, seals;

    snprintf(command, sizeof(command), "ls -l /proc/%d/fd | sed -n 's/.* \\([0-9]*\\) -> .*liballoc:sealed.*/\\1/p' | head -1", d->pid);
    found = popen(command, "r");
    assert_non_null(found);
    assert_int_equal(fscanf(found, "%d", &fd), 1);
    pclose(found);
    snprintf(path, sizeof(path), "/proc/%d/fd/%d", d->pid, fd);
    fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    seals = fcntl(fd, F_GET_SEALS);
    assert_int_equal(seals & (F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_WRITE), F_SEAL_GROW | F_SEAL_SHRINK);
    assert_int_equal(ftruncate(fd, 0), -1);
    assert_int_equal(ftruncate(fd, 2 * (off_t)HEAP_SIZE), -1);
    close(fd);
    shms_heap_close(client, heap);
    shms_disconnect(client);
}

/* ---- containers ---- */

/* The calling process, alone in new namespaces, sees only itself and a /dev/shm of its own. */
static bool furnish_container(void)
{
    return mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 && mount("proc", "/proc", "proc", 0, NULL) == 0 &&
           mount("tmpfs", "/dev/shm", "tmpfs", 0, "size=4m") == 0 && getpid() == 1;
}

static bool containers_are_possible(void)
{
    int status = -1;
    pid_t pid = fork();

    if (pid == 0) {
        if (unshare(CLONE_NEWPID | CLONE_NEWNS) < 0)
            _exit(1);
        pid = fork();
        if (pid == 0)
            _exit(furnish_container() ? 0 : 1);
        _exit(waitpid(pid, &status, 0) == pid && status == 0 ? 0 : 1);
    }
    return waitpid(pid, &status, 0) == pid && status == 0;
}

/* Process 1 of a container. @arg: pipe whose end it waits for. */
static void live_in_a_container(int said, void *arg)
{
    struct shms_client *client;
    struct la_heap *heap;
    struct note *note;
    const int *until = arg;
    la_link *root;
    char c;

    if (unshare(CLONE_NEWPID | CLONE_NEWNS) < 0)
        _exit(6);
    if (fork() != 0) {
        close(said);
        child_stay();
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (!furnish_container())
        _exit(1);
    client = connect_or_fail();
    heap = open_or_fail(client, "shared", HEAP_SIZE);
    if (la_heap_root(heap, "list", &root) < 0)
        _exit(2);
    /* One is linked, the others are held until the end. */
    note = la_heap_hold(heap, sizeof(*note));
    strcpy(note->text, "from a container");
    if (la_push(heap, root, note, offsetof(struct note, next)) < 0)
        _exit(3);
    for (int i = 0; i < HELD; i++)
        if (!la_heap_hold(heap, HELD_SIZE))
            _exit(4);
    child_say(said);
    close(until[1]);
    if (read(until[0], &c, 1) != 0)
        _exit(5);
}

static bool one_container_is_recovered(void *arg)
{
    struct shms_heap info = { .struct_size = sizeof(info) };

    return shms_heap_info(arg, "shared", &info) == 0 && info.recovered_processes == 1;
}

static void two_containers_share_a_heap_and_one_dies(void **state)
{
    struct shms_client *client = connect_or_fail();
    struct shms_heap info = { .struct_size = sizeof(info) };
    struct child first, second;
    struct la_heap *heap;
    struct note *note;
    la_link *root;
    int until[2], notes = 0;

    (void)state;
    if (!containers_are_possible()) {
        print_message("skipped: no right to make namespaces and mount in them\n");
        shms_disconnect(client);
        skip();
    }
    assert_int_equal(pipe2(until, O_CLOEXEC), 0);
    first = child_start(live_in_a_container, until);
    second = child_start(live_in_a_container, until);
    heap = open_or_fail(client, "shared", 0);
    assert_int_equal(shms_heap_info(client, "shared", &info), 0);
    assert_int_equal(info.processes, 3);
    /* Both are process 1 where they live. The death of one is not that of the other. */
    assert_int_equal(child_end(&first, SIGKILL), -SIGKILL);
    assert_true(wait_until(one_container_is_recovered, client));
    assert_int_equal(shms_heap_info(client, "shared", &info), 0);
    assert_int_equal(info.processes, 2);
    assert_int_equal(info.recovered_blocks, HELD);
    assert_int_equal(la_heap_root(heap, "list", &root), 0);
    while ((note = la_take(heap, root, offsetof(struct note, next)))) {
        assert_string_equal(note->text, "from a container");
        la_free(note);
        notes++;
    }
    assert_int_equal(notes, 2);
    assert_int_equal(la_heap_fsck(heap, NULL, NULL, NULL), 0);
    child_end(&second, SIGKILL);
    close(until[0]);
    close(until[1]);
    shms_heap_close(client, heap);
    shms_disconnect(client);
}

/* ---- lists, fork ---- */

struct seen {
    int count;
    char last[LA_HEAP_NAME_MAX + 1];
    bool in_order;
};

static void see_heap(void *user, const struct shms_heap *heap)
{
    struct seen *seen = user;

    if (seen->count++ > 0 && strcmp(seen->last, heap->name) >= 0)
        seen->in_order = false;
    strcpy(seen->last, heap->name);
}

static void list_of_more_heaps_than_a_message_holds_is_complete_and_in_order(void **state)
{
    struct shms_client *client = connect_or_fail();
    struct seen seen = { .in_order = true };
    enum { MANY = 60 };         /* 25 fit into a message; and more than the daemon is attached to at a time */

    (void)state;
    for (int i = 0; i < MANY; i++) {
        char name[16];

        snprintf(name, sizeof(name), "heap%03d", i);
        assert_int_equal(shms_heap_create(client, name, LA_HEAP_MIN_SIZE), 0);
    }
    assert_int_equal(shms_list(client, see_heap, &seen), MANY);
    assert_int_equal(seen.count, MANY);
    assert_true(seen.in_order);
    shms_disconnect(client);
}

static void see_process(void *user, const struct shms_process *process)
{
    struct shms_process *ret = user;

    if (process->state != SHMS_CONNECTED)
        *ret = *process;
}

static void just_connect(int said, void *arg)
{
    (void)arg;
    connect_or_fail();
    child_say(said);
    child_stay();
}

static void processes_are_listed_with_what_the_kernel_says_of_them(void **state)
{
    struct shms_client *client = connect_or_fail();
    struct child holder = child_start(hold_and_stay, NULL), idler = child_start(just_connect, NULL);
    struct shms_process process = { 0 };

    (void)state;
    assert_int_equal(shms_processes(client, NULL, see_process, &process), 2);
    assert_int_equal(shms_processes(client, "doomed", see_process, &process), 1);
    assert_int_equal(process.pid, holder.pid);
    assert_int_equal(process.uid, geteuid());
    assert_int_equal(process.state, SHMS_ATTACHED);
    assert_int_equal(process.lanes, 1);
    assert_string_equal(process.heap, "doomed");
    assert_int_equal(shms_processes(client, "none", see_process, &process), -ENOENT);
    child_end(&holder, SIGKILL);
    child_end(&idler, SIGKILL);
    shms_disconnect(client);
}

static void child_of_a_fork_has_no_connection_but_may_make_one(void **state)
{
    struct shms_client *client = connect_or_fail(), *own = NULL;
    struct la_heap *heap = open_or_fail(client, "family", HEAP_SIZE);
    int status;
    pid_t pid;

    (void)state;
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        bool ok = shms_list(client, NULL, NULL) == -ECHILD && shms_connect(NULL, &own) == 0 && shms_list(own, NULL, NULL) == 1 &&
                  shms_heap_open(own, "family", 0, 0, &heap) == 0 && la_heap_alloc(heap, 64);

        shms_disconnect(client);
        _exit(ok ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(shms_list(client, NULL, NULL), 1);
    shms_heap_close(client, heap);
    shms_disconnect(client);
}

#define with_daemon(test) cmocka_unit_test_setup_teardown(test, daemon_setup, daemon_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_daemon(heap_is_made_once_and_found_by_name),
        with_daemon(bad_names_and_sizes_are_refused_in_words),
        with_daemon(second_attach_in_a_process_is_refused),
        with_daemon(block_of_one_client_is_taken_and_freed_by_another),
        with_daemon(blocks_that_a_killed_client_held_are_freed_by_the_daemon),
        with_daemon(client_that_has_disconnected_is_still_looked_after),
        with_daemon(death_is_seen_although_an_orphan_keeps_the_socket_open),
        with_daemon(what_a_client_holds_is_private_and_ends_at_exec),
        with_daemon(child_of_a_fork_does_not_keep_its_parent_alive),
        with_daemon(removed_heap_lives_until_its_last_process_has_left),
        with_daemon(detaching_from_a_heap_that_was_removed_meanwhile_works),
        with_daemon(client_whose_attach_failed_does_not_count_as_attached),
        with_daemon(client_whose_second_attach_was_refused_still_counts),
        with_daemon(file_of_a_heap_cannot_shrink_or_grow),
        with_daemon(two_containers_share_a_heap_and_one_dies),
        with_daemon(list_of_more_heaps_than_a_message_holds_is_complete_and_in_order),
        with_daemon(processes_are_listed_with_what_the_kernel_says_of_them),
        with_daemon(child_of_a_fork_has_no_connection_but_may_make_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
