/*
 * shmserver_userns_test.c - one heap across user namespaces, as of containers without root: clients inside, the daemon inside.
 *
 * Whoever is inside has numbers of his own for users; what counts are the kernel's. The kernel shows ids that a namespace does not map all as
 * 65534, so the users and groups here look alike somewhere, and must not get each other's rights.
 */
#include "daemon.h"

#include <sched.h>

#include <liballoc/heap.h>

enum { HEAP_SIZE = 16 << 20, HELD = 100, HELD_SIZE = 1000 };
/* As the machine sees them; nobody's else. */
enum { USER = 54321, OTHER = 54322, STRANGER = 54323, DAEMON = 54331, GROUP = 54400, NOBODY = 65534 };
enum { NO_NAMESPACES = 77 };

/* ---- users and namespaces ---- */

static bool write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : write(fd, text, strlen(text));

    if (fd >= 0)
        close(fd);
    return n == (ssize_t)strlen(text);
}

/* This process is of user and group @uid, and of @group. */
static void become(uid_t uid, gid_t group)
{
    if (setgroups(1, &group) < 0 || setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0)
        _exit(90);
    /* Both were taken away by that; without the second its own maps are not its to write. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_DUMPABLE, 1);
}

/* A container around this process, where it is root, or has a number that everybody has. */
static void enter_namespace(bool as_root)
{
    uid_t uid = geteuid();
    char map[32];

    snprintf(map, sizeof(map), "0 %u 1", uid);
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWNET) < 0)
        _exit(NO_NAMESPACES);
    if (as_root && (!write_text("/proc/self/setgroups", "deny") || !write_text("/proc/self/uid_map", map) || !write_text("/proc/self/gid_map", map)))
        _exit(91);
    if (geteuid() != (as_root ? 0 : NOBODY))
        _exit(92);
}

static int namespaces_are_there(const struct daemon *d)
{
    (void)d;
    become(USER, GROUP);
    enter_namespace(true);
    return 0;
}

static void skip_without_namespaces(void)
{
    if (geteuid() != 0) {
        print_message("skipped: only root can be several users\n");
        skip();
    }
    if (in_child(namespaces_are_there, NULL) != 0) {
        print_message("skipped: a user may not make user namespaces here (user.max_user_namespaces, a sanitizer's thread)\n");
        skip();
    }
}

/* ---- what clients do ---- */

/* Or the process ends with @status. */
static struct shms_client *connect_or_exit(int status)
{
    struct shms_client *client = NULL;

    if (shms_connect(NULL, &client) < 0) {
        fprintf(stderr, "%s\n", la_last_error());
        _exit(status);
    }
    return client;
}

static struct la_heap *open_or_exit(struct shms_client *client, const char *name, size_t size, unsigned flags, int status)
{
    struct la_heap *heap = NULL;

    if (shms_heap_open(client, name, size, flags, &heap) < 0) {
        fprintf(stderr, "%s: %s\n", name, la_last_error());
        _exit(status);
    }
    return heap;
}

static int attach(struct shms_client *client, const char *name)
{
    struct la_heap *heap = NULL;
    int r = shms_heap_open(client, name, 0, 0, &heap);

    return r < 0 ? r : shms_heap_close(client, heap);
}

/* Makes heap @name, and holds blocks in it. */
static void make_and_hold(struct shms_client *client, const char *name, uint32_t owner)
{
    struct la_heap *heap = open_or_exit(client, name, HEAP_SIZE, SHMS_CREATE_ONLY, 2);
    struct shms_heap info = { .struct_size = sizeof(info) };

    for (int i = 0; i < HELD; i++)
        if (!la_heap_hold(heap, HELD_SIZE))
            _exit(3);
    if (shms_heap_info(client, name, &info) < 0 || info.owner != owner)
        _exit(4);
}

static bool blocks_are_recovered(void *arg)
{
    struct shms_heap info = { .struct_size = sizeof(info) };

    return shms_heap_info(arg, "contained", &info) == 0 && info.recovered_blocks == HELD && info.processes == 0;
}

/* ---- clients inside ---- */

static int setup_outside(void **state)
{
    struct daemon *d = daemon_prepare();
    char group[16];

    *state = d;
    snprintf(group, sizeof(group), "%d", GROUP);
    return chmod(d->folder, 0755) < 0 || !daemon_try_start(d, "--allow-group", group);
}

static void hold_as_root_of_a_namespace(int said, void *arg)
{
    struct shms_quota quota = { .struct_size = sizeof(quota), .uid = USER, .max_heaps = 1000 };
    struct shms_client *client;

    (void)arg;
    become(USER, GROUP);
    enter_namespace(true);
    client = connect_or_exit(1);
    make_and_hold(client, "contained", USER);
    /* It is root for itself only. */
    if (attach(client, "roots") != -EACCES || shms_heap_remove(client, "roots") == 0 || shms_quota_set(client, &quota) != -EPERM)
        _exit(5);
    child_say(said);
    child_stay();
}

static void client_in_a_namespace_has_the_rights_of_its_kernel_user_and_is_recovered(void **state)
{
    struct shms_heap info = { .struct_size = sizeof(info) };
    struct shms_client *client;
    struct child inside;

    (void)state;
    skip_without_namespaces();
    client = connect_or_fail();
    assert_int_equal(shms_heap_create(client, "roots", HEAP_SIZE), 0);
    inside = child_start(hold_as_root_of_a_namespace, NULL);
    assert_int_equal(shms_heap_info(client, "contained", &info), 0);
    assert_int_equal(info.owner, USER);
    assert_int_equal(info.processes, 1);
    assert_int_equal(info.recovered_blocks, 0);
    assert_int_equal(child_end(&inside, SIGKILL), -SIGKILL);
    assert_true(wait_until(blocks_are_recovered, client));
    shms_disconnect(client);
}

static int make_contained(const struct daemon *d)
{
    (void)d;
    become(USER, GROUP);
    make_and_hold(connect_or_exit(1), "contained", USER);
    return 0;
}

static int attach_without_a_number(const struct daemon *d)
{
    (void)d;
    become(USER, GROUP);
    enter_namespace(false);
    return attach(connect_or_exit(1), "contained");
}

static int other_without_a_number_is_kept_out(const struct daemon *d)
{
    (void)d;
    become(OTHER, GROUP);
    enter_namespace(false);
    return attach(connect_or_exit(1), "contained") == -EACCES ? 0 : 5;
}

static int real_nobody_is_kept_out(const struct daemon *d)
{
    (void)d;
    become(NOBODY, GROUP);
    return attach(connect_or_exit(1), "contained") == -EACCES ? 0 : 5;
}

static void clients_that_look_alike_inside_are_told_apart_outside(void **state)
{
    skip_without_namespaces();
    assert_int_equal(in_child(make_contained, *state), 0);
    assert_int_equal(in_child(attach_without_a_number, *state), 0);
    assert_int_equal(in_child(other_without_a_number_is_kept_out, *state), 0);
    assert_int_equal(in_child(real_nobody_is_kept_out, *state), 0);
}

struct note {
    struct note *next;
    char text[48];
};

static la_link *list_of(struct la_heap *heap)
{
    la_link *root;

    if (la_heap_root(heap, "list", &root) < 0)
        _exit(6);
    return root;
}

static void give_from_a_container(int said, void *arg)
{
    struct shms_client *client;
    struct la_heap *heap;
    struct note *note;

    (void)arg;
    become(USER, GROUP);
    enter_namespace(true);
    client = connect_or_exit(1);
    heap = open_or_exit(client, "contained", HEAP_SIZE, 0, 5);
    /* Numbers in requests are the daemon's; this group has none in here. */
    if (shms_heap_set_acl(client, "contained", SHMS_UNCHANGED, GROUP, 0660) < 0)
        _exit(2);
    note = la_heap_hold(heap, sizeof(*note));
    strcpy(note->text, "from a container");
    if (la_push(heap, list_of(heap), note, offsetof(struct note, next)) < 0)
        _exit(3);
    child_say(said);
    child_stay();
}

static void take_in_a_container_and_more(int said, void *arg)
{
    struct la_heap *heap;
    struct note *note;

    (void)arg;
    become(OTHER, GROUP);
    enter_namespace(true);
    heap = open_or_exit(connect_or_exit(1), "contained", 0, 0, 5);
    note = la_take(heap, list_of(heap), offsetof(struct note, next));
    if (!note || strcmp(note->text, "from a container") != 0)
        _exit(2);
    for (int i = 1; i < HELD; i++)
        if (!la_heap_hold(heap, HELD_SIZE))
            _exit(3);
    child_say(said);
    child_stay();
}

static bool taker_is_recovered(void *arg)
{
    struct shms_heap info = { .struct_size = sizeof(info) };

    return shms_heap_info(arg, "contained", &info) == 0 && info.recovered_blocks == HELD && info.processes == 1;
}

static void two_containers_of_two_users_share_a_heap_and_one_dies(void **state)
{
    struct shms_client *client;
    struct child giver, taker;
    struct la_heap *heap;

    (void)state;
    skip_without_namespaces();
    giver = child_start(give_from_a_container, NULL);
    taker = child_start(take_in_a_container_and_more, NULL);
    client = connect_or_fail();
    assert_int_equal(child_end(&taker, SIGKILL), -SIGKILL);
    assert_true(wait_until(taker_is_recovered, client));
    assert_int_equal(child_end(&giver, SIGKILL), -SIGKILL);
    assert_true(wait_until(blocks_are_recovered, client));
    heap = open_or_fail(client, "contained", 0);
    assert_null(la_load(heap, list_of(heap)));
    assert_int_equal(la_heap_fsck(heap, NULL, NULL, NULL), 0);
    assert_int_equal(shms_heap_close(client, heap), 0);
    shms_disconnect(client);
}

/* ---- the daemon inside ---- */

/* Its numbers, and those of the machine. */
enum { INNER_ROOT = 0, INNER_USER = 1, INNER_OTHER = 2, INNER_GROUP = 1 };

static void write_maps(pid_t pid)
{
    char path[32], map[96];

    snprintf(path, sizeof(path), "/proc/%d/uid_map", pid);
    snprintf(map, sizeof(map), "%d %d 1\n%d %d 1\n%d %d 1\n", INNER_ROOT, DAEMON, INNER_USER, USER, INNER_OTHER, OTHER);
    assert_true(write_text(path, map));
    snprintf(path, sizeof(path), "/proc/%d/gid_map", pid);
    snprintf(map, sizeof(map), "%d %d 1\n%d %d 1\n", INNER_ROOT, DAEMON, INNER_GROUP, GROUP);
    assert_true(write_text(path, map));
}

/* The program by descriptor: it may lie in a folder that only root may enter. */
static void exec_daemon_inside(const struct daemon *d, int said, int go)
{
    char program[32], group[16], c;
    char *argv[] = { program, (char *)"--verbose", (char *)"--allow-group", group, NULL };

    snprintf(program, sizeof(program), "/proc/self/fd/%d", open(getenv("SHMSERVER"), O_PATH));
    snprintf(group, sizeof(group), "%d", INNER_GROUP);
    become(DAEMON, GROUP);
    if (unshare(CLONE_NEWUSER) < 0)
        _exit(NO_NAMESPACES);
    child_say(said);
    if (read(go, &c, 1) != 1)
        _exit(1);
    daemon_exec(d, argv);
}

/* Return: as daemon_try_start(). */
static bool start_inside(struct daemon *d, bool mapped)
{
    int said[2], go[2];
    char c, notify[96];

    daemon_path(d, notify, sizeof(notify), "notify");
    assert_int_equal(chown(d->folder, DAEMON, DAEMON), 0);
    assert_int_equal(chmod(d->folder, 0755), 0);
    assert_int_equal(chmod(notify, 0777), 0);
    assert_int_equal(pipe2(said, O_CLOEXEC), 0);
    assert_int_equal(pipe2(go, O_CLOEXEC), 0);
    fflush(stdout);
    d->pid = fork();
    assert_true(d->pid >= 0);
    if (d->pid == 0)
        exec_daemon_inside(d, said[1], go[0]);
    assert_int_equal(read(said[0], &c, 1), 1);
    if (mapped)
        write_maps(d->pid);
    assert_int_equal(write(go[1], "!", 1), 1);
    for (int i = 0; i < 2; i++) {
        close(said[i]);
        close(go[i]);
    }
    return daemon_wait(d);
}

static void hold_outside(int said, void *arg)
{
    (void)arg;
    become(USER, GROUP);
    make_and_hold(connect_or_exit(1), "contained", INNER_USER);
    child_say(said);
    child_stay();
}

static int look_as_its_own_user(const struct daemon *d)
{
    struct shms_client *client;
    struct shms_heap info = { .struct_size = sizeof(info) };

    (void)d;
    become(DAEMON, GROUP);
    client = connect_or_exit(1);
    return shms_heap_info(client, "contained", &info) < 0 || info.owner != INNER_USER ? 2 : !wait_until(blocks_are_recovered, client);
}

static void client_outside_is_served_and_recovered_by_a_daemon_inside(void **state)
{
    struct daemon *d = *state;
    struct child outside;

    skip_without_namespaces();
    assert_true(start_inside(d, true));
    outside = child_start(hold_outside, NULL);
    assert_int_equal(child_end(&outside, SIGKILL), -SIGKILL);
    assert_int_equal(in_child(look_as_its_own_user, d), 0);
}

static bool is_refused_as_unmapped(void)
{
    struct shms_client *client = NULL;

    return shms_connect(NULL, &client) == -EACCES && strstr(la_last_error(), "does not map") != NULL;
}

static int stranger_is_refused(const struct daemon *d)
{
    (void)d;
    become(STRANGER, GROUP);
    return !is_refused_as_unmapped();
}

static int nobody_is_refused(const struct daemon *d)
{
    (void)d;
    become(NOBODY, GROUP);
    return !is_refused_as_unmapped();
}

static void users_that_the_daemon_cannot_tell_apart_are_refused(void **state)
{
    struct daemon *d = *state;

    skip_without_namespaces();
    assert_true(start_inside(d, true));
    /* The group lets them in, its socket too. */
    assert_int_equal(in_child(stranger_is_refused, d), 0);
    assert_int_equal(in_child(nobody_is_refused, d), 0);
    /* The machine's root comes past every permission of a file, but who is it in there? */
    assert_true(is_refused_as_unmapped());
}

/* As the daemon's user, who may do all. */
static int open_to_group(gid_t group)
{
    become(DAEMON, GROUP);
    return shms_heap_set_acl(connect_or_exit(1), "contained", SHMS_UNCHANGED, group, 0660) < 0 ? 2 : 0;
}

static int open_to_the_unmapped_group(const struct daemon *d)
{
    (void)d;
    return open_to_group(NOBODY);
}

static int open_to_the_inner_group(const struct daemon *d)
{
    (void)d;
    return open_to_group(INNER_GROUP);
}

/* Its first group is OTHER, which has no number inside. */
static int other_is_kept_out(const struct daemon *d)
{
    (void)d;
    become(OTHER, GROUP);
    return attach(connect_or_exit(1), "contained") == -EACCES ? 0 : 5;
}

static int other_gets_in(const struct daemon *d)
{
    (void)d;
    become(OTHER, GROUP);
    return attach(connect_or_exit(1), "contained") == 0 ? 0 : 5;
}

static void group_that_may_be_any_lets_nobody_in(void **state)
{
    struct daemon *d = *state;
    struct child owner;

    skip_without_namespaces();
    assert_true(start_inside(d, true));
    owner = child_start(hold_outside, NULL);
    assert_int_equal(in_child(open_to_the_unmapped_group, d), 0);
    assert_int_equal(in_child(other_is_kept_out, d), 0);
    assert_int_equal(in_child(open_to_the_inner_group, d), 0);
    assert_int_equal(in_child(other_gets_in, d), 0);
    assert_int_equal(child_end(&owner, SIGKILL), -SIGKILL);
}

static void daemon_that_is_not_mapped_itself_does_not_start(void **state)
{
    struct daemon *d = *state;

    skip_without_namespaces();
    assert_false(start_inside(d, false));
    assert_true(daemon_said(d, "run it as a user that is mapped"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(client_in_a_namespace_has_the_rights_of_its_kernel_user_and_is_recovered, setup_outside, daemon_teardown),
        cmocka_unit_test_setup_teardown(clients_that_look_alike_inside_are_told_apart_outside, setup_outside, daemon_teardown),
        cmocka_unit_test_setup_teardown(two_containers_of_two_users_share_a_heap_and_one_dies, setup_outside, daemon_teardown),
        cmocka_unit_test_setup_teardown(client_outside_is_served_and_recovered_by_a_daemon_inside, daemon_setup_stopped, daemon_teardown),
        cmocka_unit_test_setup_teardown(users_that_the_daemon_cannot_tell_apart_are_refused, daemon_setup_stopped, daemon_teardown),
        cmocka_unit_test_setup_teardown(group_that_may_be_any_lets_nobody_in, daemon_setup_stopped, daemon_teardown),
        cmocka_unit_test_setup_teardown(daemon_that_is_not_mapped_itself_does_not_start, daemon_setup_stopped, daemon_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
