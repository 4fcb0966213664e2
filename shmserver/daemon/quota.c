#include "shmserver/daemon/quota.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/error.h"

struct quota_user {
    struct la_list node;
    uid_t uid;
    unsigned clients, heaps;
    uint64_t bytes;             /* at most limits.bytes */
};

void quota_init(struct quota *quota, const struct quota_limits *limits)
{
    quota->limits = *limits;
    list_init(&quota->users);
}

static struct quota_user *find(struct quota *quota, uid_t uid)
{
    list_for_each(node, &quota->users) {
        struct quota_user *user = list_entry(node, struct quota_user, node);

        if (user->uid == uid)
            return user;
    }
    return NULL;
}

static struct quota_user *find_or_make(struct quota *quota, uid_t uid)
{
    struct quota_user *user = find(quota, uid);

    if (user)
        return user;
    user = calloc(1, sizeof(*user));
    if (!user) {
        la_fail(-ENOMEM, "shmserver is out of memory");
        return NULL;
    }
    user->uid = uid;
    list_add(&quota->users, &user->node);
    return user;
}

static void forget_if_empty(struct quota_user *user)
{
    if (user->clients || user->heaps)
        return;
    assert(user->bytes == 0);
    list_remove(&user->node);
    free(user);
}

int quota_take_client(struct quota *quota, uid_t uid)
{
    struct quota_user *user = find_or_make(quota, uid);
    int r = 0;

    if (!user)
        return -ENOMEM;
    if (user->clients < quota->limits.clients)
        user->clients++;
    else
        r = la_fail(-EUSERS, "user %u has %u connections, which is the limit: close some, or see shmserver --max-clients", uid,
                    user->clients);
    forget_if_empty(user);
    return r;
}

void quota_give_client(struct quota *quota, uid_t uid)
{
    struct quota_user *user = find(quota, uid);

    assert(user && user->clients > 0);
    user->clients--;
    forget_if_empty(user);
}

int quota_take_heap(struct quota *quota, uid_t uid, uint64_t bytes)
{
    struct quota_user *user = find_or_make(quota, uid);
    int r = 0;

    if (!user)
        return -ENOMEM;
    if (user->heaps >= quota->limits.heaps)
        r = la_fail(-EDQUOT, "user %u has %u heaps, which is the limit: remove some, or see shmserver --max-heaps", uid, user->heaps);
    else if (bytes > quota->limits.bytes - user->bytes)
        r = la_fail(-EDQUOT, "user %u has heaps of %lu bytes; %lu more are above the limit of %lu: see shmserver --max-bytes", uid,
                    (unsigned long)user->bytes, (unsigned long)bytes, (unsigned long)quota->limits.bytes);
    if (r == 0) {
        user->heaps++;
        user->bytes += bytes;
    }
    forget_if_empty(user);
    return r;
}

void quota_give_heap(struct quota *quota, uid_t uid, uint64_t bytes)
{
    struct quota_user *user = find(quota, uid);

    assert(user && user->heaps > 0 && user->bytes >= bytes);
    user->heaps--;
    user->bytes -= bytes;
    forget_if_empty(user);
}
