/* shmserver_admin_test.c - looking after a daemon: quotas per user. */
#include "daemon.h"

#include <stdatomic.h>
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

static void limits_of_a_user_are_set_at_run_time(void **state)
{
    struct daemon *d = *state;
    struct shms_client *client;
    struct shms_quota quota = change(), after;

    if (geteuid() != 0)
        skip();
    client = start_for_nobody(d);
    quota.max_heaps = 1;
    assert_int_equal(shms_quota_set(client, &quota), 0);
    assert_int_equal(as_nobody(heaps_are_limited, d), 0);
    after = quota_of_nobody(client);
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

#define without_daemon(test) cmocka_unit_test_setup_teardown(test, daemon_setup_stopped, daemon_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        without_daemon(limits_of_a_user_are_set_at_run_time),
        without_daemon(who_asks_too_much_waits_and_the_others_do_not),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
