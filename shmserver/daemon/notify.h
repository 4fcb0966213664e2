/*
 * notify.h - talk to the service manager: datagrams to $NOTIFY_SOCKET, see sd_notify(3). Our keeper understands the same.
 *
 * Nothing waits: a manager that does not read gets nothing.
 */
#ifndef DAEMON_NOTIFY_H
#define DAEMON_NOTIFY_H

#include <stddef.h>

enum { NOTIFY_FDS_MAX = 4 };

/* @state: lines such as READY=1. Without $NOTIFY_SOCKET nothing happens. Return: 0 or a negative errno (-EAGAIN: its queue is full). */
int notify_send(const char *state);

/* The same with up to NOTIFY_FDS_MAX descriptors, which stay the caller's too. */
int notify_send_fds(const char *state, const int *fds, size_t count);

#endif
