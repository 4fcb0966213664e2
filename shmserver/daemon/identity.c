#include "shmserver/daemon/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"
#include "base/user_ids.h"

#ifndef SO_PEERGROUPS
#define SO_PEERGROUPS 59
#endif
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77     /* Linux 6.5 */
#endif

/*
 * A descriptor of the process that connected. Before Linux 6.5 it is opened by number, and the number may have been reused
 * meanwhile; it then says nothing, which is no harm: a pidfd tells when to look, not what is true.
 */
static int open_pidfd(int socket, pid_t pid)
{
    int fd;
    socklen_t length = sizeof(fd);

    if (getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &fd, &length) < 0) {
        fd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
        if (fd < 0)
            return -1;
    }
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    return fd;
}

static void read_command(struct identity *id)
{
    char path[32];
    CLEANUP(close_fd) int fd = -1;
    ssize_t n;

    snprintf(path, sizeof(path), "/proc/%d/comm", id->pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    n = fd < 0 ? -1 : read(fd, id->command, sizeof(id->command) - 1);
    id->command[n > 0 ? n - (id->command[n - 1] == '\n') : 0] = '\0';
    /* It goes to logs and terminals, and its owner chose it. */
    for (char *c = id->command; *c; c++)
        if (*c < ' ' || *c > '~')
            *c = '?';
}

int identity_read(int socket, struct identity *ret)
{
    struct ucred peer;
    socklen_t length = sizeof(peer);

    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0)
        return la_fail(-errno, "cannot tell who has connected (errno %d)", errno);
    *ret = (struct identity){ .pid = peer.pid, .uid = peer.uid, .gid = peer.gid, .is_certain = user_id_is_certain(peer.uid),
                              .pidfd = open_pidfd(socket, peer.pid) };
    read_command(ret);
    return 0;
}

int identity_of(pid_t pid, struct identity *ret)
{
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    char path[32];
    struct stat st;

    snprintf(path, sizeof(path), "/proc/%d", pid);
    if (pidfd < 0 || stat(path, &st) < 0) {
        close_fd(&pidfd);
        return la_fail(-ESRCH, "there is no process %d here", pid);
    }
    *ret = (struct identity){ .pid = pid, .uid = st.st_uid, .gid = (gid_t)-1, .is_certain = user_id_is_certain(st.st_uid), .pidfd = pidfd };
    read_command(ret);
    return 0;
}

int identity_kill(const struct identity *id)
{
    if (id->pidfd < 0)
        return la_fail(-ESRCH, "process %d is not known well enough to be killed", id->pid);
    if (syscall(SYS_pidfd_send_signal, id->pidfd, SIGKILL, NULL, 0) < 0 && errno != ESRCH)
        return la_fail(-errno, "shmserver, which is user %u, cannot kill process %d of user %u (errno %d)", geteuid(), id->pid, id->uid, errno);
    return 0;
}

void identity_deinit(struct identity *id)
{
    close_fd(&id->pidfd);
}

static bool has_number(int socket, const struct identity *id, gid_t group)
{
    gid_t few[64], *groups = few, *more = NULL;
    socklen_t length = sizeof(few);
    bool found = id->gid == group;

    if (found)
        return true;
    if (getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, groups, &length) < 0) {
        /* ERANGE: length says how much is needed; the kernel's limit is 65,536 groups. */
        if (errno != ERANGE || !(groups = more = malloc(length)) ||
            getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, groups, &length) < 0)
            length = 0;
    }
    for (size_t i = 0; i < length / sizeof(gid_t); i++)
        found |= groups[i] == group;
    free(more);
    return found;
}

bool identity_has_group(int socket, const struct identity *id, gid_t group)
{
    return has_number(socket, id, group) && group_id_is_certain(group);
}

bool access_allows(const struct access *access, int socket, const struct identity *id)
{
    if (!id->is_certain)
        return false;
    if (id->uid == geteuid() || id->uid == 0)
        return true;
    return access->by_group && identity_has_group(socket, id, access->group);
}
