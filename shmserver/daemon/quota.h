/*
 * quota.h - what each user may have of the daemon: connections, heaps, bytes of heaps and those in huge pages, requests per second.
 *
 * The size of a heap counts in full, used or not: it is what binds a writer. That of a heap of huge pages counts twice: as bytes, and against the
 * limit for these. A refusal is la_fail() with the limit in it. Requests are not
 * refused but delayed: a client cannot do anything about a refusal but ask again.
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
    uint64_t huge;              /* bytes of heaps of huge pages, which the machine has few of; UINT64_MAX: as bytes */
    unsigned requests;          /* per second, with a second's worth in advance; 0: any number */
    uint64_t committed;         /* memory behind his heaps, from which on it is told (committed.h); UINT64_MAX: never */
};

struct quota {
    struct quota_limits limits; /* of those who have none of their own */
    struct la_list users;       /* struct quota_user, one per user who has something or is remembered for a reason */
};

void quota_init(struct quota *quota, const struct quota_limits *limits);
void quota_deinit(struct quota *quota);

/* Return: 0, -EUSERS (limit reached), -ENOMEM. */
int quota_take_client(struct quota *quota, uid_t uid);
void quota_give_client(struct quota *quota, uid_t uid);

/* @huge: of huge pages. Return: 0, -EDQUOT (limit reached), -ENOMEM. */
int quota_take_heap(struct quota *quota, uid_t uid, uint64_t bytes, bool huge);
/* The same for a heap that is there already: it counts, whatever the limit. Return: 0, -ENOMEM. */
int quota_count_heap(struct quota *quota, uid_t uid, uint64_t bytes, bool huge);
void quota_give_heap(struct quota *quota, uid_t uid, uint64_t bytes, bool huge);

/*
 * One more request of a user who has a connection, at @now_ms. Return: 0, it is counted; or the milliseconds after which to ask again.
 */
unsigned quota_take_request(struct quota *quota, uid_t uid, uint64_t now_ms);

struct quota_limits quota_limits_of(struct quota *quota, uid_t uid);
/* Return: 0, -ENOMEM. Nothing is taken away from who has more. */
int quota_set_limits(struct quota *quota, uid_t uid, const struct quota_limits *limits);

struct quota_usage {
    uid_t uid;
    struct quota_limits limits;
    unsigned clients, heaps;
    uint64_t bytes, huge, refused, delayed;
    bool over;                  /* he has more memory than limits.committed */
};

/* Does any user have a limit of committed memory? */
bool quota_watches_memory(const struct quota *quota);

/* He has, or has not, more memory than he may. true: that is new. */
bool quota_set_over(struct quota *quota, uid_t uid, bool over);
bool quota_is_over(struct quota *quota, uid_t uid);

/* The user with the lowest id from @uid on. false: there is none. */
bool quota_next(struct quota *quota, uid_t uid, struct quota_usage *ret);

#endif
