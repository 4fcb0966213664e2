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
 * Turn the request in @m into its answer. @received: descriptor that came with it, -1: none; the caller's. @fd: set to one
 * to send along, then to be closed.
 * Return: 0; -EPROTO (the peer is to be dropped, the reason is in la_last_error()).
 */
int answer_request(struct peer *peer, struct wire_message *m, int received, int *fd);

/*
 * Tell a peer that it is sent away; else its library would connect again at once. The reason is taken from la_last_error(). Older ones are told by
 * the end of the connection.
 */
void answer_end(const struct peer *peer, int status);

/* Tell somebody who has just connected that he is not let in; the reason is taken from la_last_error(). */
void answer_refuse(int socket, int status);

#endif
