/*
 * metrics.c - read the daemon's metrics socket, which is beside its other one.
 */
#include <errno.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <shmserver/client.h>

#include "base/error.h"
#include "base/fmt.h"
#include "shmserver/protocol/socket_path.h"

enum { WAIT_SECONDS = 10 };

static int connect_to(const char *path)
{
    const struct timeval limit = { .tv_sec = WAIT_SECONDS };
    CLEANUP(close_fd) int fd = -1;
    struct sockaddr_un address;
    int r = socket_path_address(path, &address);

    if (r < 0)
        return r;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return la_fail(-errno, "cannot make a socket (errno %d)", errno);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return errno == ENOENT || errno == ECONNREFUSED
                   ? la_fail(-ECONNREFUSED, "no metrics at %s: is a shmserver running there?", path)
                   : la_fail(-errno, "cannot connect to %s (errno %d): ask its owner for `shmserver --allow-group`", path, errno);
    return steal_fd(&fd);
}

static int open_metrics(const char *path)
{
    char place[SOCKET_PATH_MAX], metrics[SOCKET_PATH_MAX];
    int fd = -ECONNREFUSED;

    if (path) {
        la_format(metrics, sizeof(metrics), "%s" SOCKET_PATH_METRICS, path);
        return connect_to(metrics);
    }
    for (unsigned i = 0; fd == -ECONNREFUSED && socket_path_nth(i, place, sizeof(place)); i++) {
        la_format(metrics, sizeof(metrics), "%s" SOCKET_PATH_METRICS, place);
        fd = connect_to(metrics);
    }
    return fd;
}

int shms_metrics(const char *path, void (*each)(void *user, const char *text, size_t size), void *user)
{
    CLEANUP(close_fd) int fd = open_metrics(path);
    bool any = false;
    char text[4096];
    ssize_t n;

    if (fd < 0)
        return fd;
    while ((n = recv(fd, text, sizeof(text), 0)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return la_fail(-errno, "shmserver's metrics broke off (errno %d): is it stopped?", errno);
        any = true;
        each(user, text, (size_t)n);
    }
    return any ? 0 : la_fail(-EACCES, "shmserver gives its metrics to its own user, root, and the group of --allow-group only");
}
