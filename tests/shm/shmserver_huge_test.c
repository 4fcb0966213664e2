/*
 * shmserver_huge_test.c - heaps of huge pages through the daemon: made, shared, limited, kept over a restart, hidden from who does not know them.
 *
 * The pool is made larger for each test and put back; without the right to do that they are skipped.
 */
#include "daemon.h"

#include <sys/mman.h>

#include "../unit/huge_pool.h"
#include "shmserver/protocol/fdpass.h"
#include "shmserver/protocol/wire.h"

enum { SIZE = 64 << 20, PAGE = 2 << 20, PAGES = 12 };

static long pages_before = -1;

static void give_pages(void)
{
    if (!lock_pool() || (pages_before = pool_number("nr_hugepages")) < 0 || !set_pool(KIB_2M, pages_before + PAGES)) {
        print_message("skipped: no %d pages of 2 MiB to be had, or no right to change the pool\n", PAGES);
        skip();
    }
}

static int teardown(void **state)
{
    int r = daemon_teardown(state);

    if (pages_before >= 0)
        set_pool(KIB_2M, pages_before);
    pages_before = -1;
    unlock_pool();
    return r;
}

/* All that are free but @kept, until the descriptor is closed. */
static int take_pages(long kept)
{
    int fd = memfd_create("taken", MFD_CLOEXEC | MFD_HUGETLB | 21u << 26);
    off_t size = (pool_left(KIB_2M) - kept) * PAGE;

    assert_true(fd >= 0 && size > 0 && ftruncate(fd, size) == 0 && fallocate(fd, 0, 0, size) == 0);
    return fd;
}

static struct la_heap *open_huge(struct shms_client *client, const char *name)
{
    struct la_heap *heap = NULL;
    int r = shms_heap_open(client, name, SIZE, LA_HEAP_HUGE_2M, &heap);

    if (r < 0)
        fail_msg("shms_heap_open(%s): %d: %s", name, r, la_last_error());
    return heap;
}

static struct shms_heap info_of(struct shms_client *client, const char *name)
{
    struct shms_heap info = { .struct_size = sizeof(info) };

    assert_int_equal(shms_heap_info(client, name, &info), 0);
    return info;
}

static void find_self(void *user, const struct shms_quota *quota)
{
    if (quota->uid == geteuid())
        *(struct shms_quota *)user = *quota;
}

static struct shms_quota own_quota(struct shms_client *client)
{
    struct shms_quota quota = { 0 };

    assert_true(shms_quotas(client, find_self, &quota) > 0);
    return quota;
}

static int limit_huge(struct shms_client *client, uint64_t bytes)
{
    const struct shms_quota quota = { .struct_size = sizeof(quota), .uid = geteuid(), .max_clients = SHMS_UNCHANGED, .max_heaps = SHMS_UNCHANGED,
                                      .max_bytes = UINT64_MAX, .max_requests = SHMS_UNCHANGED, .max_huge = bytes };

    return shms_quota_set(client, &quota);
}

/* ---- sharing, dying, restarting ---- */

/* Two blocks: one is published, one held when it is killed. */
static void publish_and_hold(int said, void *arg)
{
    struct shms_client *client;
    struct la_heap *heap;
    la_link *link;
    char *block;

    (void)arg;
    if (shms_connect(NULL, &client) < 0 || shms_heap_open(client, "huge", 0, 0, &heap) < 0 || la_heap_root(heap, "text", &link) < 0 ||
        !(block = la_heap_hold(heap, 3 << 20)))
        _exit(1);
    strcpy(block, "written by a child");
    if (la_publish(heap, link, NULL, block) < 0 || !la_heap_hold(heap, 1000))
        _exit(2);
    child_say(said);
    child_stay();
}

static bool one_is_recovered(void *client)
{
    return info_of(client, "huge").recovered_processes == 1;
}

static void heap_is_shared_and_outlives_its_users_and_the_daemon(void **state)
{
    struct daemon *d = *state;
    struct shms_client *client;
    struct child child;
    struct la_heap *heap;
    struct shms_heap info;
    la_link *link;

    give_pages();
    daemon_start(d);
    client = connect_or_fail();
    heap = open_huge(client, "huge");
    child = child_start(publish_and_hold, NULL);
    assert_int_equal(child_end(&child, SIGKILL), -SIGKILL);
    assert_true(wait_until(one_is_recovered, client));
    info = info_of(client, "huge");
    assert_int_equal(info.page_size, PAGE);
    assert_int_equal(info.recovered_blocks, 1);
    assert_true(info.size == SIZE && info.committed % PAGE == 0 && info.committed >= 4 * PAGE && info.committed < SIZE);
    assert_int_equal(own_quota(client).huge, SIZE);
    assert_int_equal(limit_huge(client, SIZE + PAGE), 0);

    /* Another program in the daemon's place. */
    assert_int_equal(kill(d->pid, SIGHUP), 0);
    assert_true(daemon_wait(d));
    assert_int_equal(info_of(client, "huge").page_size, PAGE);
    assert_int_equal(own_quota(client).huge, SIZE);
    assert_int_equal(own_quota(client).max_huge, SIZE + PAGE);
    assert_int_equal(la_heap_root(heap, "text", &link), 0);
    assert_string_equal(la_load(heap, link), "written by a child");

    /* Sealed, it can be read. */
    assert_int_equal(shms_heap_close(client, heap), 0);
    assert_int_equal(shms_heap_seal(client, "huge"), 0);
    assert_int_equal(shms_heap_open(client, "huge", 0, LA_HEAP_READ_ONLY, &heap), 0);
    assert_int_equal(la_heap_root(heap, "text", &link), 0);
    assert_string_equal(la_load(heap, link), "written by a child");
    assert_int_equal(shms_heap_close(client, heap), 0);
    assert_int_equal(shms_heap_remove(client, "huge"), 0);
    assert_int_equal(own_quota(client).huge, 0);
    assert_int_equal(pool_left(KIB_2M), pool_number("nr_hugepages"));
    shms_disconnect(client);
}

/* ---- limits ---- */

static void user_has_no_more_than_his_share_of_huge_pages(void **state)
{
    struct daemon *d = *state;
    struct shms_client *client;

    give_pages();
    daemon_start(d);
    client = connect_or_fail();
    assert_true(own_quota(client).max_huge == UINT64_MAX);
    assert_int_equal(limit_huge(client, SIZE), 0);
    assert_int_equal(shms_heap_create_huge(client, "first", SIZE, PAGE), 0);
    assert_int_equal(shms_heap_create_huge(client, "second", SIZE, PAGE), -EDQUOT);
    assert_non_null(strstr(la_last_error(), "67108864 more are above the limit of 67108864"));
    assert_non_null(strstr(la_last_error(), "--max-huge"));
    /* Small pages are another thing. */
    assert_int_equal(shms_heap_create(client, "second", SIZE), 0);
    assert_int_equal(own_quota(client).huge, SIZE);
    assert_int_equal(own_quota(client).bytes, 2 * SIZE);
    assert_int_equal(shms_heap_remove(client, "first"), 0);
    assert_int_equal(shms_heap_create_huge(client, "first", SIZE - 1, PAGE), 0);
    assert_int_equal(shms_heap_remove(client, "first"), 0);
    assert_int_equal(limit_huge(client, SHMS_NO_HUGE), 0);
    assert_int_equal(own_quota(client).max_huge, 0);
    assert_int_equal(shms_heap_create_huge(client, "first", SIZE, PAGE), -EDQUOT);
    /* As it is. */
    assert_int_equal(limit_huge(client, 0), 0);
    assert_int_equal(own_quota(client).max_huge, 0);
    assert_int_equal(limit_huge(client, UINT64_MAX), 0);
    assert_int_equal(shms_heap_create_huge(client, "first", SIZE, PAGE), 0);
    shms_disconnect(client);
}

static void limit_of_the_command_line_may_be_none_at_all(void **state)
{
    struct daemon *d = *state;
    struct shms_client *client;

    assert_true(daemon_try_start(d, "--max-huge", "0"));
    client = connect_or_fail();
    assert_int_equal(own_quota(client).max_huge, 0);
    assert_int_equal(shms_heap_create_huge(client, "first", SIZE, PAGE), -EDQUOT);
    assert_int_equal(shms_heap_create(client, "first", SIZE), 0);
    shms_disconnect(client);
}

/* ---- refusals ---- */

static void heap_that_finds_no_page_is_refused_and_leaves_nothing(void **state)
{
    struct daemon *d = *state;
    struct shms_client *client;
    struct la_heap *heap;
    int taken;

    give_pages();
    daemon_start(d);
    client = connect_or_fail();
    taken = take_pages(0);
    assert_int_equal(shms_heap_open(client, "huge", SIZE, LA_HEAP_HUGE_2M, &heap), -ENOSPC);
    assert_non_null(strstr(la_last_error(), "1 page of 2 MiB needed, 0 of "));
    assert_non_null(strstr(la_last_error(), "sysctl vm.nr_hugepages="));
    assert_int_equal(own_quota(client).huge, 0);
    assert_int_equal(shms_heap_open(client, "huge", 0, 0, &heap), -ENOENT);
    close(taken);
    heap = open_huge(client, "huge");
    /* It grows by itself, and the daemon has no part in it: NULL here, too. */
    taken = take_pages(0);
    while (la_heap_alloc(heap, 1 << 20))
        ;
    assert_non_null(strstr(la_last_error(), "page of 2 MiB needed, 0 of "));
    close(taken);
    assert_non_null(la_heap_alloc(heap, 1 << 20));
    assert_int_equal(shms_heap_close(client, heap), 0);
    shms_disconnect(client);
}

static void pages_that_no_machine_has_are_refused(void **state)
{
    struct shms_client *client;

    daemon_start(*state);
    client = connect_or_fail();
    assert_int_equal(shms_heap_create_huge(client, "odd", SIZE, PAGE + 1), -EINVAL);
    assert_int_equal(shms_heap_create_huge(client, "odd", SIZE, 1), -EINVAL);
    assert_int_equal(shms_heap_create_huge(client, "odd", SIZE, (size_t)1 << 62), -EINVAL);
    assert_non_null(strstr(la_last_error(), "use 2 MiB or 1 GiB"));
    assert_int_equal(shms_heap_create_huge(client, "odd", SIZE, 128 << 20), -EINVAL);
    assert_non_null(strstr(la_last_error(), "/sys/kernel/mm/hugepages"));
    shms_disconnect(client);
}

/* ---- a hostile writer ---- */

/* Its own descriptor, whose mapping it does not touch any more. */
static void punch_a_hole(int said, void *arg)
{
    struct la_heap_info info = { .struct_size = sizeof(info) };
    struct shms_client *client;
    struct la_heap *heap;
    int fd;

    (void)arg;
    if (shms_connect(NULL, &client) < 0 || shms_heap_open(client, "huge", 0, 0, &heap) < 0 || la_heap_info(heap, &info) < 0 ||
        (fd = la_heap_descriptor(info.id)) < 0 || fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE) < 0)
        _exit(1);
    child_say(said);
    child_stay();
}

static void hole_in_a_heap_and_an_empty_pool_do_not_end_the_daemon(void **state)
{
    struct shms_heap info = { .struct_size = sizeof(info) };
    struct daemon *d = *state;
    struct shms_client *client;
    struct child child;
    int taken;

    give_pages();
    daemon_start(d);
    client = connect_or_fail();
    assert_int_equal(shms_heap_create_huge(client, "huge", SIZE, PAGE), 0);
    assert_int_equal(shms_heap_create_huge(client, "other", SIZE, PAGE), 0);
    child = child_start(punch_a_hole, NULL);
    taken = take_pages(0);
    /* This look meets the hole, the next one is not made. */
    shms_heap_info(client, "huge", &info);
    assert_int_equal(shms_heap_info(client, "huge", &info), -EIO);
    assert_non_null(strstr(la_last_error(), "hole"));
    assert_true(daemon_said(d, "punched a hole"));
    assert_int_equal(info_of(client, "other").page_size, PAGE);
    assert_int_equal(child_end(&child, SIGKILL), -SIGKILL);
    assert_int_equal(info_of(client, "other").page_size, PAGE);
    assert_int_equal(shms_heap_create(client, "small", SIZE), 0);
    assert_int_equal(kill(d->pid, 0), 0);
    close(taken);
    shms_disconnect(client);
}

/* ---- older versions ---- */

static int raw_connect(const struct daemon *d, unsigned version)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    struct fdpass_set set;
    struct wire_message m;

    strcpy(address.sun_path, d->socket);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    wire_begin(&m, WIRE_HELLO, 0, 0);
    wire_put_u64(&m, TLV_VERSION_MIN, 0, 1);
    wire_put_u64(&m, TLV_VERSION_MAX, 0, version);
    assert_int_equal(fdpass_send(fd, &m, -1), 0);
    assert_int_equal(fdpass_receive(fd, &m, &set), 1);
    assert_int_equal(m.header.status, 0);
    return fd;
}

/* A request about a heap. Return: as fdpass_receive(), with the answer in @m. */
static int ask(int fd, unsigned version, enum wire_type type, const char *name, uint64_t page_size, struct wire_message *m)
{
    struct fdpass_set set;
    int r;

    wire_begin(m, type, 0, 1);
    m->header.version = (uint16_t)version;
    if (name)
        wire_put_text(m, TLV_NAME, name);
    wire_put_u64(m, TLV_SIZE, 0, SIZE);
    if (page_size)
        wire_put_u64(m, TLV_PAGE_SIZE, TLV_CRITICAL, page_size);
    assert_int_equal(fdpass_send(fd, m, -1), 0);
    r = fdpass_receive(fd, m, &set);
    if (r == 1)
        fdpass_close(&set);
    return r;
}

static unsigned count(const struct wire_message *m, enum wire_tlv_type type)
{
    struct wire_tlv tlv;
    unsigned n = 0;

    for (size_t cursor = 0; wire_next(m, &cursor, &tlv);)
        n += tlv.type == type;
    return n;
}

static void client_of_an_older_protocol_does_not_see_it(void **state)
{
    struct daemon *d = *state;
    struct shms_client *client;
    struct wire_message m;
    struct la_heap *heap;
    int fd;

    give_pages();
    daemon_start(d);
    client = connect_or_fail();
    heap = open_huge(client, "huge");
    assert_int_equal(shms_heap_create(client, "small", SIZE), 0);
    for (unsigned version = 1; version <= WIRE_VERSION_MAX; version++) {
        const bool knows = version >= WIRE_HUGE_SINCE;

        fd = raw_connect(d, version);
        assert_int_equal(ask(fd, version, WIRE_LIST, NULL, 0, &m), 1);
        assert_int_equal(count(&m, TLV_HEAP), knows ? 2 : 1);
        assert_int_equal(ask(fd, version, WIRE_PROCESSES, NULL, 0, &m), 1);
        assert_int_equal(count(&m, TLV_PROCESS), knows ? 1 : 0);
        for (unsigned i = 0; i < 3; i++) {
            const enum wire_type types[] = { WIRE_INFO, WIRE_ATTACH, WIRE_PROCESSES };

            assert_int_equal(ask(fd, version, types[i], "huge", 0, &m), 1);
            assert_int_equal(m.header.status, knows ? 0 : -EOPNOTSUPP);
            assert_int_equal(ask(fd, version, types[i], "small", 0, &m), 1);
            assert_int_equal(m.header.status, 0);
        }
        /* A field of a later version than the agreed one breaks the protocol. */
        assert_int_equal(ask(fd, version, WIRE_CREATE, knows ? "more" : "less", PAGE, &m), knows ? 1 : 0);
        close(fd);
    }
    assert_int_equal(shms_heap_close(client, heap), 0);
    shms_disconnect(client);
}

/* ---- for monitors ---- */

static void add_text(void *user, const char *text, size_t size)
{
    strncat(user, text, size);
}

static void metrics_tell_of_huge_pages(void **state)
{
    static char text[1 << 16];
    struct shms_client *client;

    give_pages();
    daemon_start(*state);
    client = connect_or_fail();
    assert_int_equal(shms_heap_create_huge(client, "huge", SIZE, PAGE), 0);
    assert_int_equal(shms_metrics(NULL, add_text, text), 0);
    assert_non_null(strstr(text, "shmserver_heap_page_size_bytes{heap=\"huge\",owner=\"0\"} 2097152\n"));
    assert_non_null(strstr(text, "shmserver_user_huge_bytes{uid=\"0\"} 67108864\n"));
    shms_disconnect(client);
}

#define with_pages(test) cmocka_unit_test_setup_teardown(test, daemon_setup_stopped, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_pages(heap_is_shared_and_outlives_its_users_and_the_daemon),
        with_pages(user_has_no_more_than_his_share_of_huge_pages),
        with_pages(limit_of_the_command_line_may_be_none_at_all),
        with_pages(heap_that_finds_no_page_is_refused_and_leaves_nothing),
        with_pages(hole_in_a_heap_and_an_empty_pool_do_not_end_the_daemon),
        with_pages(pages_that_no_machine_has_are_refused),
        with_pages(client_of_an_older_protocol_does_not_see_it),
        with_pages(metrics_tell_of_huge_pages),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
