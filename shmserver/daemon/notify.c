#include "shmserver/daemon/notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/util.h"

int notify_send(const char *state)
{
    return notify_send_fds(state, NULL, 0);
}

/* Return: its length, 0: there is none, or -EINVAL. */
static int find_address(struct sockaddr_un *ret)
{
    const char *path = secure_getenv("NOTIFY_SOCKET");
    size_t length = path ? strlen(path) : 0;

    *ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
    if (length == 0)
        return 0;
    if (length >= sizeof(ret->sun_path) || (path[0] != '/' && path[0] != '@'))
        return -EINVAL;
    memcpy(ret->sun_path, path, length);
    if (path[0] == '@')
        ret->sun_path[0] = '\0';
    return (int)(offsetof(struct sockaddr_un, sun_path) + length);
}

int notify_send_fds(const char *state, const int *fds, size_t count)
{
    union {
        struct cmsghdr aligned;
        char bytes[CMSG_SPACE(NOTIFY_FDS_MAX * sizeof(int))];
    } control = { 0 };
    struct sockaddr_un address;
    struct iovec io = { (char *)(uintptr_t)state, strlen(state) };
    struct msghdr message = { .msg_name = &address, .msg_iov = &io, .msg_iovlen = 1 };
    CLEANUP(close_fd) int fd = -1;
    int length = find_address(&address);

    if (length <= 0 || count > NOTIFY_FDS_MAX)
        return length <= 0 ? length : -EINVAL;
    message.msg_namelen = (socklen_t)length;
    if (count > 0) {
        struct cmsghdr *c;

        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
        c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(c), fds, count * sizeof(int));
    }
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    return sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}
