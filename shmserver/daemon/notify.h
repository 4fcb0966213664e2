/* notify.h - tell the service manager how we are: datagrams to $NOTIFY_SOCKET, see sd_notify(3). */
#ifndef DAEMON_NOTIFY_H
#define DAEMON_NOTIFY_H

/* @state: lines such as READY=1. Without $NOTIFY_SOCKET nothing happens. Return: 0 or a negative errno. */
int notify_send(const char *state);

#endif
