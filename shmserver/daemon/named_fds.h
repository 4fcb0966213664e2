/*
 * named_fds.h - open descriptors with names, and how one process hands them to the next.
 *
 * The protocol is the service manager's, sd_listen_fds_with_names(3): from descriptor 3 on, with $LISTEN_FDS, $LISTEN_FDNAMES and
 * $LISTEN_PID. The same for all who start a daemon: systemd, our keeper, and the daemon that puts a newer program in its own place. Names
 * need not be unique: a socket and its lock go by one name.
 */
#ifndef DAEMON_NAMED_FDS_H
#define DAEMON_NAMED_FDS_H

#include "base/util.h"

enum { NAMED_FD_NAME_MAX = 63 };

struct named_fd {
    int fd;
    char name[NAMED_FD_NAME_MAX + 1];
};

/* All zero: none. */
struct named_fds {
    struct named_fd *list;
    size_t count;
};

/*
 * What this process was started with; close-on-exec from now on. The variables are removed, so that nobody takes them for his.
 * Return: 0, -ENOMEM.
 */
int named_fds_inherit(struct named_fds *ret);

/* This process was started with descriptors. A child of it was not: it must not fork before it has inherited them. */
bool named_fds_are_there(void);

/* Takes @fd, also on failure. Return: 0, -ENOMEM, -EINVAL (the name is too long, or has a colon). */
int named_fds_add(struct named_fds *fds, const char *name, int fd);

/* The @at-th descriptor, which is the caller's from now on; the others move up. */
int named_fds_take_at(struct named_fds *fds, size_t at);

/* The first descriptor of that name, which is the caller's from now on; -1: there is none. */
int named_fds_take(struct named_fds *fds, const char *name);

/* Close all descriptors of that name. */
void named_fds_drop(struct named_fds *fds, const char *name);

/*
 * Make ready for the exec that follows at once: descriptors from 3 on are overwritten. Only between fork and exec, or where there is no
 * way back. Return: 0 or a negative errno; then nothing is overwritten.
 */
int named_fds_pass(const struct named_fds *fds);

void named_fds_close(struct named_fds *fds);

#endif
