#include "shmserver/daemon/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "shmserver/protocol/socket_path.h"

enum { BACKLOG = 128 };

/* ---- the lock ---- */

static void folder_of(const char *path, char folder[sizeof(((struct listener *)0)->path)])
{
    char *slash;

    snprintf(folder, sizeof(((struct listener *)0)->path), "%s", path);
    slash = strrchr(folder, '/');
    if (!slash)
        strcpy(folder, ".");
    else
        slash[slash == folder] = '\0';
}

/* Why no socket can be there, and what helps. @error: of the call that makes the lock, or the socket itself. */
static int fail_on_folder(const char *path, int error)
{
    char folder[sizeof(((struct listener *)0)->path)];
    struct stat st;

    folder_of(path, folder);
    if (error == ENOENT && stat(folder, &st) == 0)
        return la_fail(-ENOENT, "%s takes no files (a file system of the kernel's?): choose another folder with --socket", folder);
    switch (error) {
    case ENOENT:
        return la_fail(-ENOENT, "the folder of the socket, %s, does not exist: make it, or choose another with --socket", folder);
    case ENOTDIR:
        return la_fail(-ENOTDIR, "%s is no folder, so no socket can be in it: choose another with --socket", folder);
    case EACCES:
    case EPERM:
        return la_fail(-error, "the folder of the socket, %s, is not writable for user %u: choose another with --socket or "
                               "$XDG_RUNTIME_DIR", folder, geteuid());
    case EROFS:
        return la_fail(-EROFS, "%s is mounted read-only: choose another folder with --socket or $XDG_RUNTIME_DIR", folder);
    case ENOSPC:
    case EDQUOT:
        return la_fail(-error, "no room for a file in %s: make some, or choose another folder with --socket", folder);
    case ELOOP:
        return la_fail(-ELOOP, "%s.lock is a symbolic link, which is not followed: remove it, or choose another --socket", path);
    case EISDIR:
        return la_fail(-EISDIR, "%s.lock is a folder: remove it, or choose another --socket", path);
    case EOPNOTSUPP:
        return la_fail(-error, "the file system of %s takes no sockets: choose another folder with --socket", folder);
    default:
        return la_fail(-error, "cannot make files in %s (errno %d): choose another folder with --socket", folder, error);
    }
}

/* Of the daemon's socket, also when it is the one beside it that is in use: who starts a daemon knows of no other. */
static int length_of_socket(const char *path)
{
    size_t length = strlen(path), suffix = strlen(SOCKET_PATH_KEEPER);

    return (int)(length > suffix && strcmp(path + length - suffix, SOCKET_PATH_KEEPER) == 0 ? length - suffix : length);
}

static int fail_locked(const struct listener *listener)
{
    char pid[16] = "";
    ssize_t n = pread(listener->lock, pid, sizeof(pid) - 1, 0);

    pid[n > 0 ? n : 0] = '\0';
    pid[strspn(pid, "0123456789")] = '\0';
    return la_fail(-EADDRINUSE, "another shmserver (process %s) is running on %.*s: use that one, end it, or choose another --socket",
                   pid[0] ? pid : "unknown", length_of_socket(listener->path), listener->path);
}

/* false: somebody removed the file between our open() and our lock; a lock on it protects nothing. */
static bool lock_is_current(const struct listener *listener)
{
    struct stat ours, there;

    return fstat(listener->lock, &ours) == 0 && stat(listener->lock_path, &there) == 0 && ours.st_ino == there.st_ino &&
           ours.st_dev == there.st_dev;
}

/* For people only; the lock is what counts. */
static int sign_lock(const struct listener *listener)
{
    char pid[16];
    int length = snprintf(pid, sizeof(pid), "%d\n", getpid());

    if (ftruncate(listener->lock, 0) < 0 || pwrite(listener->lock, pid, (size_t)length, 0) != length)
        return la_fail(-errno, "cannot write %s (errno %d)", listener->lock_path, errno);
    return 0;
}

static int take_lock(struct listener *listener)
{
    for (;;) {
        listener->lock = open(listener->lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (listener->lock < 0)
            return fail_on_folder(listener->path, errno);
        if (flock(listener->lock, LOCK_EX | LOCK_NB) < 0)
            return errno == EWOULDBLOCK ? fail_locked(listener)
                                        : la_fail(-errno, "cannot lock %s (errno %d)", listener->lock_path, errno);
        if (lock_is_current(listener))
            break;
        close_fd(&listener->lock);
    }
    return sign_lock(listener);
}

/* ---- the socket ---- */

static bool somebody_listens(const struct sockaddr_un *address, int type)
{
    CLEANUP(close_fd) int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    /* EAGAIN: its queue is full. */
    return fd >= 0 && (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 || errno == EAGAIN);
}

/* What a dead daemon left. We hold its lock; a listener without a lock is a service manager's. */
static int remove_stale(const struct listener *listener, const struct sockaddr_un *address, int type)
{
    struct stat st;

    if (lstat(listener->path, &st) < 0)
        return errno == ENOENT ? 0 : fail_on_folder(listener->path, errno);
    if (!S_ISSOCK(st.st_mode))
        return la_fail(-EEXIST, "%s exists and is no socket: it is left alone, choose another with --socket", listener->path);
    if (somebody_listens(address, type))
        return la_fail(-EADDRINUSE, "somebody listens on %s already (a service manager?): choose another with --socket", listener->path);
    if (unlink(listener->path) < 0)
        return la_fail(-errno, "cannot remove the socket %s that a dead shmserver left (errno %d)", listener->path, errno);
    return 0;
}

static int open_to_group(const struct listener *listener, long group)
{
    if (group < 0)
        return 0;
    if (chown(listener->path, (uid_t)-1, (gid_t)group) < 0 || chmod(listener->path, 0660) < 0)
        return la_fail(-errno, "cannot give the socket %s to group %ld (errno %d): be a member of it", listener->path, group, errno);
    return 0;
}

static int bind_and_listen(struct listener *listener, const struct sockaddr_un *address, int type, long group)
{
    mode_t mask;
    int r;

    listener->fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener->fd < 0)
        return la_fail(-errno, "cannot make a socket (errno %d)", errno);
    /* Nobody else's from its first instant on. */
    mask = umask(0177);
    r = bind(listener->fd, (const struct sockaddr *)address, sizeof(*address)) < 0 ? -errno : 0;
    umask(mask);
    if (r < 0)
        return fail_on_folder(listener->path, -r);
    r = open_to_group(listener, group);
    if (r == 0 && type != SOCK_DGRAM && listen(listener->fd, BACKLOG) < 0)
        r = la_fail(-errno, "cannot listen on %s (errno %d)", listener->path, errno);
    if (r < 0)
        unlink(listener->path);
    return r;
}

int listener_open(struct listener *listener, const char *path, int type, long group)
{
    struct sockaddr_un address;
    int r = socket_path_address(path, &address);

    *listener = (struct listener){ .fd = -1, .lock = -1 };
    if (r < 0)
        return r;
    snprintf(listener->path, sizeof(listener->path), "%s", address.sun_path);
    snprintf(listener->lock_path, sizeof(listener->lock_path), "%s.lock", listener->path);
    /* The system's place; others are made by whoever chose them. */
    if (strncmp(path, SOCKET_PATH_SYSTEM_DIR "/", sizeof(SOCKET_PATH_SYSTEM_DIR)) == 0)
        mkdir(SOCKET_PATH_SYSTEM_DIR, 0755);
    r = take_lock(listener);
    if (r < 0) {
        close_fd(&listener->lock);
        return r;
    }
    r = remove_stale(listener, &address, type);
    if (r == 0)
        r = bind_and_listen(listener, &address, type, group);
    if (r < 0) {
        close_fd(&listener->fd);
        unlink(listener->lock_path);
        close_fd(&listener->lock);
    }
    return r;
}

void listener_leave(struct listener *listener)
{
    close_fd(&listener->fd);
    close_fd(&listener->lock);
}

void listener_close(struct listener *listener)
{
    if (listener->lock >= 0) {
        unlink(listener->path);
        unlink(listener->lock_path);
    }
    listener_leave(listener);
}

int listener_accept(const struct listener *listener)
{
    int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    return fd < 0 ? -errno : fd;
}

/* ---- taking over ---- */

static int type_of(int fd)
{
    int type = 0, domain = 0, listening = 0;
    socklen_t length = sizeof(int);

    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) < 0 || getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) < 0)
        return -1;
    return domain == AF_UNIX && listening ? type : -1;
}

static bool is_socket(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
}

static void adopt(struct listener *listener, int fd)
{
    struct sockaddr_un address = { 0 };
    socklen_t length = sizeof(address) - 1;

    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    getsockname(fd, (struct sockaddr *)&address, &length);
    snprintf(listener->path, sizeof(listener->path), "%s", address.sun_path);
    snprintf(listener->lock_path, sizeof(listener->lock_path), "%s.lock", listener->path);
    listener->fd = fd;
}

/* The lock goes by the socket's name. */
static void adopt_lock(struct listener *listener, const char *name, struct named_fds *inherited)
{
    for (size_t i = 0; i < inherited->count; i++)
        if (strcmp(inherited->list[i].name, name) == 0 && !is_socket(inherited->list[i].fd)) {
            listener->lock = named_fds_take_at(inherited, i);
            sign_lock(listener);
            return;
        }
}

static void find_socket(struct listener *listener, int type, struct named_fds *inherited)
{
    for (size_t i = 0; i < inherited->count; i++)
        if (type_of(inherited->list[i].fd) == type) {
            char name[NAMED_FD_NAME_MAX + 1];

            strcpy(name, inherited->list[i].name);
            adopt(listener, named_fds_take_at(inherited, i));
            adopt_lock(listener, name, inherited);
            return;
        }
}

int listener_inherit(struct listener *listener, struct listener *metrics, struct named_fds *inherited)
{
    size_t sockets = 0;

    *listener = *metrics = (struct listener){ .fd = -1, .lock = -1 };
    find_socket(listener, SOCK_SEQPACKET, inherited);
    find_socket(metrics, SOCK_STREAM, inherited);
    for (size_t i = 0; i < inherited->count; i++)
        sockets += is_socket(inherited->list[i].fd);
    if (sockets || (listener->fd < 0 && metrics->fd >= 0))
        return la_fail(-EINVAL, "the service manager handed over %zu sockets that we do not need: we take one listening Unix socket of type "
                                "SOCK_SEQPACKET, and one of type SOCK_STREAM for metrics", sockets);
    return listener->fd >= 0;
}
