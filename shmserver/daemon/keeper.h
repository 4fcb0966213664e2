/*
 * keeper.h - the process that starts the daemon, keeps its descriptors, and starts it again when it dies.
 *
 * What a service manager does for a service, for a daemon that was started by hand; and in the same words: the daemon is given NOTIFY_SOCKET
 * and LISTEN_FDS and does not know the difference. So the keeper knows nothing of heaps, and is as small as it can be: what has no code
 * has no reason to die.
 *
 * SIGTERM and SIGINT end the daemon, and the keeper with it; a second one ends it by SIGKILL. SIGHUP goes to the daemon. When the keeper is
 * killed the daemon gets SIGHUP, and becomes a keeper itself (main.c).
 */
#ifndef DAEMON_KEEPER_H
#define DAEMON_KEEPER_H

/* Of the daemon: --KEPT_BY=PID of its keeper. */
#define KEPT_BY "kept-by"

struct keeper_options {
    const char *program;        /* file of the daemon */
    char **argv;                /* its options, without KEPT_BY */
    const char *path;           /* of the clients' socket, beside which the keeper's own lies; NULL: the usual place */
    int report;                 /* where to write one byte, the exit status, when it is known how the start went; -1: nowhere */
};

/* Return: the exit status, when the daemon has ended by itself or could not be started at all; or a negative errno. */
int keeper_run(const struct keeper_options *options);

#endif
