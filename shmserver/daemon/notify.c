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
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    const char *path = secure_getenv("NOTIFY_SOCKET");
    CLEANUP(close_fd) int fd = -1;
    size_t length = path ? strlen(path) : 0;

    if (length == 0)
        return 0;
    if (length >= sizeof(address.sun_path) || (path[0] != '/' && path[0] != '@'))
        return -EINVAL;
    memcpy(address.sun_path, path, length);
    if (path[0] == '@')
        address.sun_path[0] = '\0';
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address,
               (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)) < 0)
        return -errno;
    return 0;
}
