/*
 * server.h - the daemon as a whole: one thread, one loop.
 *
 *   listener ──► peer ──► answer ──► registry ──► memfile, view
 *   signals      └─ hang-up, pidfd ──► reaper ──► view
 */
#ifndef DAEMON_SERVER_H
#define DAEMON_SERVER_H

#include "shmserver/daemon/committed.h"
#include "shmserver/daemon/identity.h"
#include "shmserver/daemon/listener.h"
#include "shmserver/daemon/loop.h"
#include "shmserver/daemon/named_fds.h"
#include "shmserver/daemon/quota.h"
#include "shmserver/daemon/registry.h"
#include "shmserver/daemon/state.h"
#include "shmserver/daemon/store.h"

struct server_options {
    const char *path;               /* of the socket; NULL: the usual place */
    struct access access;
    struct quota_limits limits;
    enum committed_policy over_committed;
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
    struct state state;             /* what outlives this process, with the files of the heaps */
    struct store store;             /* who keeps all that */
    struct events events;
    enum committed_policy over_committed;
    uint64_t committed_at;          /* now_ms() of the next look at it */
    uint64_t requests, drops;       /* answered; peers that broke the protocol */
    struct la_list scrapes;         /* struct scrape.node */
    struct access access;
    struct la_list peers;           /* struct peer.node, by serial */
    unsigned peer_count, max_peers;
    uint64_t next_peer;
    bool sockets_inherited;         /* not opened by this process */
    bool stopping, restarting;
};

/*
 * @inherited: what an earlier daemon has left, and sockets of the service manager; emptied. Return: 0 or a negative errno, with the reason in
 * la_last_error(). On failure what was inherited is as it was, for who has it too; nothing else is left behind.
 */
int server_init(struct server *server, const struct server_options *options, struct named_fds *inherited);

enum server_end { SERVER_STOP, SERVER_RESTART };

/* Serve until SIGTERM or SIGINT (SERVER_STOP) or SIGHUP (SERVER_RESTART). Return: one of these or a negative errno. */
int server_run(struct server *server);

/* Copies of all that another daemon needs to go on. Return: 0 or a negative errno. */
int server_copy(struct server *server, struct named_fds *ret);

/*
 * End the connections and forget the heaps: those that are attached somewhere live on there. What happens to the rest:
 * LOSE_ALL: the socket is removed, nobody else has the heaps. KEEP_HEAPS: the same, but the store has the heaps. KEEP_ALL: another daemon
 * goes on with socket and heaps.
 */
enum server_keeps { LOSE_ALL, KEEP_HEAPS, KEEP_ALL };
void server_deinit(struct server *server, enum server_keeps keeps);

#endif
