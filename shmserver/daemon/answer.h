/*
 * answer.h - what each request does.
 *
 * Every request is idempotent: asked twice, it leaves the same state, and a CREATE that repeats its key gives the same answer. A refusal
 * is an answer like others, with a status and a sentence. Only what no client of ours can send ends the connection.
 */
#ifndef DAEMON_ANSWER_H
#define DAEMON_ANSWER_H

#include "shmserver/protocol/wire.h"

struct peer;

/*
 * Turn the request in @m into its answer. @fd: set to a descriptor to send along, then to be closed.
 * Return: 0; -EPROTO (the peer is to be dropped, the reason is in la_last_error()).
 */
int answer_request(struct peer *peer, struct wire_message *m, int *fd);

/* Tell somebody who has just connected that he is not let in; the reason is taken from la_last_error(). */
void answer_refuse(int socket, int status);

#endif
