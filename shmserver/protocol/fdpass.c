#include "shmserver/protocol/fdpass.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/error.h"

void fdpass_close(struct fdpass_set *set)
{
    for (size_t i = 0; i < set->count; i++)
        close_fd(&set->fd[i]);
    set->count = 0;
}

int fdpass_send(int socket, struct wire_message *m, int fd)
{
    union {
        struct cmsghdr aligned;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = { 0 };
    struct iovec io = { m->bytes, m->header.length };
    struct msghdr message = { .msg_iov = &io, .msg_iovlen = 1 };
    ssize_t n;

    m->header.n_fds = fd >= 0;
    if (fd >= 0) {
        struct cmsghdr *c;

        message.msg_control = control.bytes;
        message.msg_controllen = sizeof(control.bytes);
        c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &fd, sizeof(int));
    }
    do {
        n = sendmsg(socket, &message, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

/* Descriptors of all SCM_RIGHTS; what goes over our number is closed at once. */
static void collect(struct msghdr *message, struct fdpass_set *set)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < n; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
            if (set->count < FDPASS_MAX)
                set->fd[set->count++] = fd;
            else
                close_fd(&fd);
        }
    }
}

static int judge(const struct wire_message *m, const struct msghdr *message, size_t received, const struct fdpass_set *set)
{
    if (message->msg_flags & MSG_TRUNC)
        return la_fail(-EBADMSG, "a message is longer than %d bytes", WIRE_MAX);
    if (message->msg_flags & MSG_CTRUNC)
        return la_fail(-EBADMSG, "a message brought more descriptors than %d, or than this process may open", FDPASS_MAX);
    return wire_check(m, received, set->count);
}

int fdpass_receive(int socket, struct wire_message *m, struct fdpass_set *set)
{
    union {
        struct cmsghdr aligned;
        char bytes[CMSG_SPACE(FDPASS_MAX * sizeof(int))];
    } control;
    struct iovec io = { m->bytes, sizeof(m->bytes) };
    struct msghdr message = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = control.bytes,
                              .msg_controllen = sizeof(control.bytes) };
    ssize_t n;
    int r;

    *set = (struct fdpass_set){ .fd = { -1, -1, -1, -1 } };
    do {
        n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    collect(&message, set);
    /* An empty message looks like the end of the stream; nobody of ours sends one, so it ends the connection. */
    r = n == 0 ? 0 : judge(m, &message, (size_t)n, set);
    if (r < 0 || n == 0) {
        fdpass_close(set);
        return r;
    }
    return 1;
}
