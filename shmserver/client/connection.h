/*
 * connection.h - a client's socket: connect, say hello, one request and its reply at a time.
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

#endif
