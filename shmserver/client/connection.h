/*
 * connection.h - a client's socket: connect, say hello, one request and its reply at a time; again, when the daemon comes back.
 */
#ifndef CLIENT_CONNECTION_H
#define CLIENT_CONNECTION_H

#include <shmserver/client.h>

#include "shmserver/protocol/wire.h"

/*
 * Send @m, a request, and receive the reply into it. @fd: set to the descriptor that came with it, -1 if none did; NULL: none may come.
 *
 * Return: 0; the status of a refusal, with the daemon's sentence; -ENOTCONN, -ETIMEDOUT, -EPROTO (the connection is of no use
 * any more); -ECHILD (it is the parent's).
 */
int connection_ask(struct shms_client *client, struct wire_message *m, int *fd);

/* The same; @again: set to whether the request may have reached two daemons, the first of which died before it answered. */
int connection_ask_again(struct shms_client *client, struct wire_message *m, int *fd, bool *again);

/*
 * Heaps that this process has through this connection: a daemon that comes after this one is told. One that was detached behind our back is
 * forgotten when it is found out.
 */
void connection_hold(struct shms_client *client, uint64_t id);
void connection_drop(struct shms_client *client, uint64_t id);

#endif
