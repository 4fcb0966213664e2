#include "shmserver/daemon/quota.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/error.h"

struct quota_user {
    struct la_list node;
    struct quota_usage usage;   /* limits: his own, if own_limits */
    bool own_limits;
    /*
     * When the next request would be due if they came evenly. It moves on by 1/limit with each, and may run ahead of the clock by
     * a second: that is the advance.
     */
    uint64_t due_us;
};

enum { ADVANCE_US = 1000000 };

void quota_init(struct quota *quota, const struct quota_limits *limits)
{
    quota->limits = *limits;
    list_init(&quota->users);
}

static struct quota_user *user_of(struct la_list *node)
{
    return list_entry(node, struct quota_user, node);
}

static void forget(struct quota_user *user)
{
    list_remove(&user->node);
    free(user);
}

void quota_deinit(struct quota *quota)
{
    while (!list_is_empty(&quota->users))
        forget(user_of(quota->users.next));
}

static struct quota_user *find(struct quota *quota, uid_t uid)
{
    list_for_each(node, &quota->users)
        if (user_of(node)->usage.uid == uid)
            return user_of(node);
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
    user->usage.uid = uid;
    list_add(&quota->users, &user->node);
    return user;
}

static const struct quota_limits *limits_of(const struct quota *quota, const struct quota_user *user)
{
    return user && user->own_limits ? &user->usage.limits : &quota->limits;
}

/*
 * Who has nothing is forgotten, unless there is something to remember of him: limits of his own, refusals, or requests in advance. Else who closes
 * his connection and opens another would begin afresh. The number of users is bounded by who may connect.
 */
static void forget_if_empty(struct quota_user *user)
{
    const struct quota_usage *u = &user->usage;

    if (u->clients || u->heaps || user->own_limits || u->refused || user->due_us)
        return;
    assert(u->bytes == 0);
    forget(user);
}

/* ---- connections and heaps ---- */

int quota_take_client(struct quota *quota, uid_t uid)
{
    struct quota_user *user = find_or_make(quota, uid);

    if (!user)
        return -ENOMEM;
    if (user->usage.clients >= limits_of(quota, user)->clients) {
        user->usage.refused++;
        return la_fail(-EUSERS, "user %u has %u connection%s, which is the limit: close some, or see shms quota (shmserver --max-clients)", uid,
                       user->usage.clients, plural(user->usage.clients));
    }
    user->usage.clients++;
    return 0;
}

void quota_give_client(struct quota *quota, uid_t uid)
{
    struct quota_user *user = find(quota, uid);

    assert(user && user->usage.clients > 0);
    user->usage.clients--;
    forget_if_empty(user);
}

/* A limit that was lowered may be below what he has. */
static bool fits(uint64_t has, uint64_t more, uint64_t limit)
{
    return has <= limit && more <= limit - has;
}

static int check_heap(const struct quota_usage *has, const struct quota_limits *may, uint64_t bytes, bool huge)
{
    if (has->heaps >= may->heaps)
        return la_fail(-EDQUOT, "user %u has %u heap%s, which is the limit: remove some, or see shms quota (shmserver --max-heaps)", has->uid,
                       has->heaps, plural(has->heaps));
    if (!fits(has->bytes, bytes, may->bytes))
        return la_fail(-EDQUOT, "user %u has heaps of %lu bytes; %lu more are above the limit of %lu: see shms quota (shmserver --max-bytes)",
                       has->uid, (unsigned long)has->bytes, (unsigned long)bytes, (unsigned long)may->bytes);
    if (huge && !fits(has->huge, bytes, may->huge))
        return la_fail(-EDQUOT, "user %u has %lu bytes of heaps of huge pages; %lu more are above the limit of %lu: see shms quota (shmserver --max-huge)",
                       has->uid, (unsigned long)has->huge, (unsigned long)bytes, (unsigned long)may->huge);
    return 0;
}

static void count_heap(struct quota_usage *has, uint64_t bytes, bool huge)
{
    has->heaps++;
    has->bytes += bytes;
    has->huge += huge ? bytes : 0;
}

int quota_take_heap(struct quota *quota, uid_t uid, uint64_t bytes, bool huge)
{
    struct quota_user *user = find_or_make(quota, uid);
    int r = user ? check_heap(&user->usage, limits_of(quota, user), bytes, huge) : -ENOMEM;

    if (r == 0)
        count_heap(&user->usage, bytes, huge);
    else if (user)
        user->usage.refused++;
    return r;
}

int quota_count_heap(struct quota *quota, uid_t uid, uint64_t bytes, bool huge)
{
    struct quota_user *user = find_or_make(quota, uid);

    if (!user)
        return -ENOMEM;
    count_heap(&user->usage, bytes, huge);
    return 0;
}

void quota_give_heap(struct quota *quota, uid_t uid, uint64_t bytes, bool huge)
{
    struct quota_user *user = find(quota, uid);

    assert(user && user->usage.heaps > 0 && user->usage.bytes >= bytes && (!huge || user->usage.huge >= bytes));
    user->usage.heaps--;
    user->usage.bytes -= bytes;
    user->usage.huge -= huge ? bytes : 0;
    forget_if_empty(user);
}

/* ---- requests ---- */

unsigned quota_take_request(struct quota *quota, uid_t uid, uint64_t now_ms)
{
    struct quota_user *user = find(quota, uid);
    unsigned limit = limits_of(quota, user)->requests;
    uint64_t now = now_ms * 1000, ahead;

    if (!user || limit == 0)
        return 0;
    user->due_us = MAX(user->due_us, now);
    ahead = user->due_us - now;
    if (ahead >= ADVANCE_US) {
        user->usage.delayed++;
        return (unsigned)((ahead - ADVANCE_US) / 1000 + 1);
    }
    user->due_us += 1000000 / limit;
    return 0;
}

/* ---- limits ---- */

struct quota_limits quota_limits_of(struct quota *quota, uid_t uid)
{
    return *limits_of(quota, find(quota, uid));
}

int quota_set_limits(struct quota *quota, uid_t uid, const struct quota_limits *limits)
{
    struct quota_user *user = find_or_make(quota, uid);

    if (!user)
        return -ENOMEM;
    user->usage.limits = *limits;
    user->own_limits = true;
    return 0;
}

/* ---- memory ---- */

bool quota_watches_memory(const struct quota *quota)
{
    bool any = quota->limits.committed != UINT64_MAX;

    list_for_each(node, &quota->users)
        any |= limits_of(quota, user_of(node))->committed != UINT64_MAX;
    return any;
}

bool quota_set_over(struct quota *quota, uid_t uid, bool over)
{
    struct quota_user *user = find(quota, uid);

    if (!user || user->usage.over == over)
        return false;
    user->usage.over = over;
    return true;
}

bool quota_is_over(struct quota *quota, uid_t uid)
{
    const struct quota_user *user = find(quota, uid);

    return user && user->usage.over;
}

bool quota_next(struct quota *quota, uid_t uid, struct quota_usage *ret)
{
    const struct quota_user *next = NULL;

    list_for_each(node, &quota->users)
        if (user_of(node)->usage.uid >= uid && (!next || user_of(node)->usage.uid < next->usage.uid))
            next = user_of(node);
    if (!next)
        return false;
    *ret = next->usage;
    ret->limits = *limits_of(quota, next);
    return true;
}
