/*
 * fake_manager.h - a fake service manager for tests: it starts the daemon as systemd would, and keeps what the daemon tells it to keep.
 *
 * Written from sd_notify(3), sd_listen_fds(3) and systemd.service(5), not from our own code: it has nothing in common with the keeper. Its
 * NOTIFY_SOCKET is the one of daemon.h. Like the real one it obeys a message of a process that is dead by now.
 */
#ifndef TESTS_SHM_FAKE_MANAGER_H
#define TESTS_SHM_FAKE_MANAGER_H

#include "daemon.h"

enum { MANAGER_MAX = 64 };

struct manager {
    struct daemon *d;
    struct {
        char name[64];
        int fd;
    } store[MANAGER_MAX];
    int count;
    int ready, reloading, stopping;     /* messages seen */
};

static inline int manager_has(const struct manager *m, const char *name)
{
    int n = 0;

    for (int i = 0; i < m->count; i++)
        n += strcmp(m->store[i].name, name) == 0;
    return n;
}

static inline void manager_add(struct manager *m, const char *name, int fd)
{
    struct stat ours, other;

    assert_int_equal(fstat(fd, &other), 0);
    for (int i = 0; i < m->count; i++)
        if (fstat(m->store[i].fd, &ours) == 0 && ours.st_dev == other.st_dev && ours.st_ino == other.st_ino) {
            close(fd);          /* the same again is kept once */
            return;
        }
    assert_true(m->count < MANAGER_MAX);
    snprintf(m->store[m->count].name, sizeof(m->store[0].name), "%s", name);
    m->store[m->count++].fd = fd;
}

static inline void manager_remove(struct manager *m, const char *name)
{
    for (int i = m->count; i-- > 0;)
        if (strcmp(m->store[i].name, name) == 0) {
            close(m->store[i].fd);
            m->store[i] = m->store[--m->count];
        }
}

static inline void manager_obey(struct manager *m, const char *text, const int *fds, size_t count)
{
    const char *name = strstr(text, "FDNAME=");
    char which[64] = "stored";

    if (name)
        snprintf(which, sizeof(which), "%.*s", (int)strcspn(name + 7, "\n"), name + 7);
    if (strstr(text, "FDSTORE=1"))
        for (size_t i = 0; i < count; i++)
            manager_add(m, which, fds[i]);
    else if (strstr(text, "FDSTOREREMOVE=1"))
        manager_remove(m, which);
    m->ready += strstr(text, "READY=1") != NULL;
    m->reloading += strstr(text, "RELOADING=1") != NULL;
    m->stopping += strstr(text, "STOPPING=1") != NULL;
}

/* false: there is no message */
static inline bool manager_read(struct manager *m)
{
    union {
        struct cmsghdr aligned;
        char bytes[CMSG_SPACE(16 * sizeof(int))];
    } control;
    char text[512];
    struct iovec io = { text, sizeof(text) - 1 };
    struct msghdr message = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes) };
    ssize_t n = recvmsg(m->d->notify, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    int fds[16];
    size_t count = 0;

    if (n < 0)
        return false;
    text[n] = '\0';
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
        count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(fds, CMSG_DATA(c), count * sizeof(int));
    }
    manager_obey(m, text, fds, count);
    return true;
}

static inline void manager_read_all(struct manager *m)
{
    while (manager_read(m))
        ;
}

/* In the child that becomes the daemon. Descriptors go to 3, 4, ...; theirs may be among these. */
static inline void manager_pass(const struct manager *m)
{
    char names[4096] = "", number[16];
    int high[MANAGER_MAX];

    for (int i = 0; i < m->count; i++)
        high[i] = fcntl(m->store[i].fd, F_DUPFD_CLOEXEC, 3 + MANAGER_MAX);
    for (int i = 0; i < m->count; i++) {
        dup2(high[i], 3 + i);
        snprintf(names + strlen(names), sizeof(names) - strlen(names), "%s%s", i ? ":" : "", m->store[i].name);
    }
    if (m->count == 0)
        return;
    snprintf(number, sizeof(number), "%d", m->count);
    setenv("LISTEN_FDS", number, 1);
    setenv("LISTEN_FDNAMES", names, 1);
    snprintf(number, sizeof(number), "%d", getpid());
    setenv("LISTEN_PID", number, 1);
}

/* @before: called in the child before it becomes the daemon; may be NULL. Does not wait. */
static inline void manager_launch(struct manager *m, void (*before)(void))
{
    char *argv[] = { daemon_program(), (char *)"--verbose", NULL };

    m->ready = 0;
    fflush(stdout);
    m->d->pid = fork();
    assert_true(m->d->pid >= 0);
    if (m->d->pid)
        return;
    if (before)
        before();
    manager_pass(m);
    daemon_exec(m->d, argv);
}

/* Returns when clients can connect. */
static inline void manager_start(struct manager *m)
{
    struct pollfd ready = { .fd = m->d->notify, .events = POLLIN };

    manager_launch(m, NULL);
    while (!m->ready) {
        if (poll(&ready, 1, SAFETY_MS) != 1)
            fail_msg("the daemon does not become ready");
        manager_read(m);
    }
}

/* The daemon is gone; what it has said before counts. */
static inline void manager_stop(struct manager *m, int signal)
{
    daemon_stop(m->d, signal);
    manager_read_all(m);
}

/* Also what real ones do when a service is stopped for good. */
static inline void manager_forget(struct manager *m)
{
    while (m->count > 0)
        close(m->store[--m->count].fd);
}

#endif
