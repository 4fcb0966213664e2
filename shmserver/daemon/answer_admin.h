/*
 * answer_admin.h - requests that look after the daemon and its users; answer.c has those that heaps are used by.
 */
#ifndef DAEMON_ANSWER_ADMIN_H
#define DAEMON_ANSWER_ADMIN_H

struct call;

int answer_acl(struct call *call);
int answer_seal(struct call *call);
int answer_quota(struct call *call);
int answer_events(struct call *call);
int answer_kick(struct call *call);
int answer_gc(struct call *call);

#endif
