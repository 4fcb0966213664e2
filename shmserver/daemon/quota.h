/*
 * quota.h - what each user may have of the daemon: connections, heaps, bytes of heaps.
 *
 * The size of a heap counts in full, used or not: it is what binds a writer. A refusal is la_fail() with the limit in it.
 */
#ifndef DAEMON_QUOTA_H
#define DAEMON_QUOTA_H

#include <sys/types.h>

#include "base/list.h"

/* Per user. */
struct quota_limits {
    unsigned clients;
    unsigned heaps;
    uint64_t bytes;
};

struct quota {
    struct quota_limits limits;
    struct la_list users;       /* struct quota_user, one per user who has something */
};

void quota_init(struct quota *quota, const struct quota_limits *limits);

/* Return: 0, -EUSERS (limit reached), -ENOMEM. */
int quota_take_client(struct quota *quota, uid_t uid);
void quota_give_client(struct quota *quota, uid_t uid);

/* Return: 0, -EDQUOT (limit reached), -ENOMEM. */
int quota_take_heap(struct quota *quota, uid_t uid, uint64_t bytes);
void quota_give_heap(struct quota *quota, uid_t uid, uint64_t bytes);

#endif
