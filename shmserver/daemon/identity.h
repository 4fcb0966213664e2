/*
 * identity.h - who is at the other end of a socket: what the kernel says, never what a message says.
 */
#ifndef DAEMON_IDENTITY_H
#define DAEMON_IDENTITY_H

#include <sys/types.h>

#include "base/util.h"

struct identity {
    pid_t pid;          /* in the daemon's PID namespace; 0: in none that it sees */
    uid_t uid;
    gid_t gid;
    bool is_certain;    /* the user is one, not all whom our user namespace does not map */
    int pidfd;          /* readable when the process has ended; -1: not known */
    char command[16];   /* for people */
};

/* Return: 0 or a negative errno. Ended by identity_deinit(). */
int identity_read(int socket, struct identity *ret);
/* Of a process that we see under this number; its group is left out. Return: 0, -ESRCH. */
int identity_of(pid_t pid, struct identity *ret);
void identity_deinit(struct identity *id);

/* End the process by SIGKILL; by its pidfd, so that nobody else is hit who has got its number meanwhile. Return: 0, -ESRCH, -EPERM. */
int identity_kill(const struct identity *id);

/* The process had @group, as its primary group or another one, when it connected. Never true of the number that stands for all unmapped groups. */
bool identity_has_group(int socket, const struct identity *id, gid_t group);

/* Who may use a daemon: its own user, root, and the members of one group; of them those whom it can tell apart. */
struct access {
    bool by_group;
    gid_t group;
};

bool access_allows(const struct access *access, int socket, const struct identity *id);

#endif
