/*
 * committed.h - watch the memory behind the heaps of each user.
 *
 * Who is attached commits memory without asking anybody, so a limit cannot be kept like the others, which bind (the size of a heap does): it is looked at by
 * the clock, and going over it is an event. What else happens is policy: nothing; the user's processes that have one of his heaps for writing lose their
 * connections, or their lives; and with both he gets no new heap, and nobody attaches to his for writing, until some are removed.
 */
#ifndef DAEMON_COMMITTED_H
#define DAEMON_COMMITTED_H

#include "shmserver/daemon/registry.h"

struct server;

enum { COMMITTED_LOOK_MS = 250 };
enum committed_policy { COMMITTED_TELL, COMMITTED_KICK, COMMITTED_KILL };

/* Memory behind the heaps of a user, as far as they can be looked into. */
uint64_t committed_by(struct registry *registry, uid_t uid);

/* Look, if it is time to. Return: ms until the next look, -1: nobody has a limit. */
int committed_check(struct server *server, uint64_t now);

#endif
