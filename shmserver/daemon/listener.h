/*
 * listener.h - the socket where clients connect.
 *
 * One daemon per socket: it holds a lock on PATH.lock as long as it lives, so a socket whose lock is free is a dead daemon's
 * and is replaced. With socket activation the service manager owns the socket, and there is nothing to lock or remove.
 */
#ifndef DAEMON_LISTENER_H
#define DAEMON_LISTENER_H

#include <sys/un.h>

#include "base/util.h"
#include "shmserver/daemon/named_fds.h"

struct listener {
    int fd;
    int lock;           /* -1: the socket is not ours */
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
    char lock_path[sizeof(((struct sockaddr_un *)0)->sun_path) + sizeof(".lock")];
};

/*
 * @type: SOCK_SEQPACKET or SOCK_STREAM
 * @group: who may connect beside the user itself; -1: nobody
 * Return: 0, -EADDRINUSE (another daemon), -EEXIST (@path is no socket), -ENOENT, -EACCES, ...; the reason is in la_last_error().
 */
int listener_open(struct listener *listener, const char *path, int type, long group);

/*
 * Take over what this process was started with: one listening socket of type SOCK_SEQPACKET, and for @metrics one of type SOCK_STREAM if there
 * is one. With a lock of the same name beside it the socket is ours, from an earlier daemon; without, it is the service manager's.
 * Return: 1; 0 (there are none); a negative errno. What is no socket or lock stays in @inherited.
 */
int listener_inherit(struct listener *listener, struct listener *metrics, struct named_fds *inherited);

/* A socket of ours, not a service manager's. */
static inline bool listener_is_ours(const struct listener *listener)
{
    return listener->fd >= 0 && listener->lock >= 0;
}

/* End it here only: somebody else has the descriptors, and goes on. */
void listener_leave(struct listener *listener);

/* Ends it, and removes the socket if it is ours. */
void listener_close(struct listener *listener);

/* Accept one connection, non-blocking. Return: a descriptor, or a negative errno. */
int listener_accept(const struct listener *listener);

#endif
