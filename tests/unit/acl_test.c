/* acl_test.c - owner, group, others, and those who may do everything. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <liballoc/error.h>

#include "shmserver/daemon/acl.h"

enum { OWNER = 54321, STRANGER = 54322, GROUP = 54323 };

static int ends[2];
static struct identity id;      /* a peer, whose user the test chooses; its groups are this process's */

static int setup(void **state)
{
    (void)state;
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0 || identity_read(ends[0], &id) < 0;
}

static int teardown(void **state)
{
    (void)state;
    identity_deinit(&id);
    close(ends[0]);
    close(ends[1]);
    return 0;
}

static bool allows(unsigned mode, uid_t uid, gid_t group, enum acl_right right)
{
    struct acl acl = { .owner = OWNER, .group = group, .mode = mode };

    id.uid = uid;
    return acl_allows(&acl, ends[0], &id, right);
}

static void new_heap_is_its_owners_alone(void **state)
{
    (void)state;
    assert_true(allows(ACL_MODE_NEW, OWNER, GROUP, ACL_WRITE));
    assert_false(allows(ACL_MODE_NEW, STRANGER, GROUP, ACL_READ));
    assert_false(allows(ACL_MODE_NEW, STRANGER, id.gid, ACL_READ));
}

static void first_of_owner_group_and_others_decides(void **state)
{
    (void)state;
    assert_true(allows(0640, STRANGER, id.gid, ACL_READ));
    assert_false(allows(0640, STRANGER, id.gid, ACL_WRITE));
    assert_false(allows(0640, STRANGER, GROUP, ACL_READ));
    assert_true(allows(0604, STRANGER, GROUP, ACL_READ));
    assert_false(allows(0604, STRANGER, id.gid, ACL_READ));
    assert_true(allows(0666, STRANGER, GROUP, ACL_WRITE));
    assert_false(allows(0066, OWNER, id.gid, ACL_READ));
    /* Writing without reading is nothing: who is attached sees everything. */
    assert_false(allows(0602, STRANGER, GROUP, ACL_WRITE));
}

static void root_and_the_daemons_user_may_do_everything(void **state)
{
    struct acl acl = { .owner = OWNER, .group = GROUP, .mode = 0 };

    (void)state;
    assert_true(allows(0, 0, GROUP, ACL_WRITE));
    assert_true(allows(0, geteuid(), GROUP, ACL_WRITE));
    assert_true(acl_is_owner(&acl, &id));
    id.uid = STRANGER;
    assert_false(acl_is_owner(&acl, &id));
}

static int change(uid_t uid, uid_t owner, gid_t group, unsigned mode)
{
    const struct acl from = { .owner = OWNER, .group = GROUP, .mode = ACL_MODE_NEW }, to = { owner, group, mode };

    id.uid = uid;
    return acl_check_change(&from, &to, ends[0], &id, "name");
}

static void owner_opens_it_to_groups_of_his(void **state)
{
    (void)state;
    assert_int_equal(change(OWNER, OWNER, GROUP, 0666), 0);
    assert_int_equal(change(OWNER, OWNER, id.gid, 0660), 0);
    assert_int_equal(change(OWNER, OWNER, 54324, 0660), -EPERM);
    assert_non_null(strstr(la_last_error(), "member"));
    assert_int_equal(change(OWNER, STRANGER, GROUP, 0600), -EPERM);
    assert_int_equal(change(OWNER, OWNER, GROUP, 0700), -EINVAL);
    assert_int_equal(change(OWNER, OWNER, GROUP, 01600), -EINVAL);
    assert_int_equal(change(STRANGER, OWNER, GROUP, 0666), -EPERM);
    assert_int_equal(change(0, STRANGER, 54324, 0666), 0);
    assert_int_equal(change(0, OWNER, GROUP, 0777), -EINVAL);
}

#define with_peer(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_peer(new_heap_is_its_owners_alone),
        with_peer(first_of_owner_group_and_others_decides),
        with_peer(root_and_the_daemons_user_may_do_everything),
        with_peer(owner_opens_it_to_groups_of_his),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
