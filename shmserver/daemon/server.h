/*
 * server.h - the daemon as a whole: one thread, one loop.
 *
 *   listener ──► peer ──► answer ──► registry ──► memfile, view
 *   signals      └─ hang-up, pidfd ──► reaper ──► view
 */
#ifndef DAEMON_SERVER_H
#define DAEMON_SERVER_H

#include "shmserver/daemon/identity.h"
#include "shmserver/daemon/listener.h"
#include "shmserver/daemon/loop.h"
#include "shmserver/daemon/quota.h"
#include "shmserver/daemon/registry.h"

struct server_options {
    const char *path;               /* of the socket; NULL: the usual place */
    struct access access;
    struct quota_limits limits;
    unsigned max_peers;
    unsigned max_segments;
};

struct server {
    struct loop loop;
    struct listener listener;
    struct loop_source accepting;   /* the listener's descriptor */
    struct listener metrics;        /* fd -1: none */
    struct loop_source scraping;    /* the same as a source */
    struct loop_source signals;
    int reserve;                    /* a descriptor to give up when there are no others, see server.c */
    struct registry registry;
    struct quota quota;
    struct events events;
    uint64_t requests, drops;       /* answered; peers that broke the protocol */
    struct la_list scrapes;         /* struct scrape.node */
    struct access access;
    struct la_list peers;           /* struct peer.node, by serial */
    unsigned peer_count, max_peers;
    uint64_t next_peer;
    bool stopping;
};

/* Return: 0 or a negative errno, with the reason in la_last_error(). On failure nothing is left behind. */
int server_init(struct server *server, const struct server_options *options);

/* Serve until SIGTERM or SIGINT. Return: 0 or a negative errno. */
int server_run(struct server *server);

/* Remove the socket, end the connections, forget the heaps: those that are attached somewhere live on there. */
void server_deinit(struct server *server);

#endif
