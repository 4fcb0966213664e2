/*
 * socket_path.h - where the daemon's socket is, for daemon and client alike.
 *
 * $SHMSERVER_SOCKET is the only place if it is set. Else $XDG_RUNTIME_DIR/shmserver.sock, the user's own daemon, goes
 * before /run/shmserver/shmserver.sock, the system's. Never an abstract socket: those have no permissions.
 */
#ifndef PROTOCOL_SOCKET_PATH_H
#define PROTOCOL_SOCKET_PATH_H

#include <sys/un.h>

#include "base/util.h"

#define SOCKET_PATH_SYSTEM_DIR "/run/shmserver"

/* The metrics socket is beside the other one. */
#define SOCKET_PATH_METRICS ".metrics"
/* Appended to it: where the daemon talks to its keeper. */
#define SOCKET_PATH_KEEPER ".keeper"

/* The @index-th place to look, 0 first; false: there are no more. @size at least SOCKET_PATH_MAX. */
enum { SOCKET_PATH_MAX = 4096 };
bool socket_path_nth(unsigned index, char *ret, size_t size);

/* Return: 0, -EINVAL (empty), -ENAMETOOLONG. */
int socket_path_address(const char *path, struct sockaddr_un *ret);

#endif
