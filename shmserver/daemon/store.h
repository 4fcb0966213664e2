/*
 * store.h - keep descriptors with whoever starts the daemon again: the service manager's store, sd_pid_notify_with_fds(3), or our keeper.
 *
 * What cannot be sent now (the manager does not read) waits here, in order, and is sent later: nobody waits for a manager. Without one
 * everything is done by doing nothing.
 */
#ifndef DAEMON_STORE_H
#define DAEMON_STORE_H

#include "base/list.h"

struct store {
    bool on;                    /* there is somebody who keeps */
    struct la_list waiting;     /* struct order, oldest first */
};

enum { STORE_RETRY_MS = 20 };

/* @on: as far as we know, somebody keeps ($NOTIFY_SOCKET). */
void store_init(struct store *store);
void store_deinit(struct store *store);

/* Keep @count descriptors, at most NOTIFY_FDS_MAX, under @name, together. They stay the caller's. Return: 0, -ENOMEM, -EMFILE. */
int store_put(struct store *store, const char *name, const int *fds, size_t count);

/* Keep nothing under that name any more. */
void store_drop(struct store *store, const char *name);

/* Send what waits. Return: ms after which to call this again, -1: nothing waits. */
int store_flush(struct store *store);

#endif
