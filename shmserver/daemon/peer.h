/*
 * peer.h - a connected client.
 *
 * It speaks when it wants and gets its answer at once; whoever breaks the protocol, does not read its answers, or does not say hello
 * in time is dropped. A peer goes when its socket hangs up or its process ends, whichever is seen first.
 */
#ifndef DAEMON_PEER_H
#define DAEMON_PEER_H

#include "base/list.h"
#include "shmserver/daemon/identity.h"
#include "shmserver/daemon/loop.h"

struct server;

enum { PEER_HELLO_MS = 2000 };

struct peer {
    struct la_list node;            /* server.peers */
    struct server *server;
    struct loop_source socket;
    struct loop_source process;     /* its pidfd; fd -1: none */
    struct identity id;
    uint64_t serial;
    uint16_t version;               /* of the protocol; 0: has not said hello */
    uint64_t hello_by;              /* now_ms() at which it must have */
    uint64_t paused_until;          /* now_ms(): its user has asked too much, nobody reads its socket; 0: it is read */
    struct la_list holdings;        /* struct holding.in_peer */
};

/* Takes @fd, also on failure. Return: 0 or a negative errno, with the reason in la_last_error(). */
int peer_create(struct server *server, int fd);

/* End the connection; what its process held is looked at. */
void peer_destroy(struct peer *peer);

/* The same, but it is told why (la_last_error()), so that its library does not connect again. */
void peer_send_away(struct peer *peer, int status);

/* Drop those that have not said hello in time, go on with those that had to wait. Return: ms until the next one is due, -1: none. */
int peer_check_times(struct server *server, uint64_t now);

#endif
