/*
 * fdpass.h - send and receive one message with its descriptors (SCM_RIGHTS).
 *
 * SOCK_SEQPACKET keeps the boundaries, so a descriptor always comes with the message it was sent with. Whatever is
 * wrong with a message, the descriptors that came along are closed: a peer cannot fill our table.
 */
#ifndef PROTOCOL_FDPASS_H
#define PROTOCOL_FDPASS_H

#include "shmserver/protocol/wire.h"

enum { FDPASS_MAX = 4 };

/* Descriptors that came with a message; -1 where there is none. */
struct fdpass_set {
    int fd[FDPASS_MAX];
    size_t count;
};

void fdpass_close(struct fdpass_set *set);

/*
 * Send @m, with @fd unless that is negative; m->header.n_fds is set here. @fd stays open.
 * Return: 0; -EAGAIN (the peer does not read, on a non-blocking socket, or the time-out of the socket ran out);
 * -EPIPE (nobody reads); another errno. Never raises SIGPIPE.
 */
int fdpass_send(int socket, struct wire_message *m, int fd);

/*
 * Receive one message.
 * Return: 1; 0 (the peer has closed); -EAGAIN (nothing there, or time-out); -EBADMSG (truncated, malformed: the reason
 * is in la_last_error()); another errno. With every result but 1, @set is empty.
 */
int fdpass_receive(int socket, struct wire_message *m, struct fdpass_set *set);

#endif
