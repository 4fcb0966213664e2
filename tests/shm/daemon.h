/*
 * daemon.h - a shmserver of our own for a test: started, waited for by its READY=1, and gone with the test.
 *
 * SHMSERVER in the environment names the program. Everything lies in a folder of the test: socket, lock, address registry.
 */
#ifndef TESTS_SHM_DAEMON_H
#define TESTS_SHM_DAEMON_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <liballoc/error.h>
#include <shmserver/client.h>

enum { SAFETY_MS = 20000 };     /* no test waits that long unless it fails */

struct daemon {
    char folder[64];
    char socket[96];
    char log[96];
    pid_t pid;                  /* 0: not running */
    rlim_t descriptors;         /* limit for it; 0: as it is */
    int notify;
};

static inline void daemon_path(struct daemon *d, char *ret, size_t size, const char *name)
{
    snprintf(ret, size, "%s/%s", d->folder, name);
}

/* An empty folder; no daemon yet. */
static inline struct daemon *daemon_prepare(void)
{
    struct daemon *d = calloc(1, sizeof(*d));
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    char registry[96];

    assert_non_null(d);
    strcpy(d->folder, "/tmp/shmserver-test-XXXXXX");
    assert_non_null(mkdtemp(d->folder));
    daemon_path(d, d->socket, sizeof(d->socket), "socket");
    daemon_path(d, d->log, sizeof(d->log), "log");
    daemon_path(d, registry, sizeof(registry), "addresses");
    setenv("LIBALLOC_VSPACE_REGISTRY", registry, 1);
    setenv("SHMSERVER_SOCKET", d->socket, 1);

    d->notify = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    daemon_path(d, address.sun_path, sizeof(address.sun_path), "notify");
    assert_int_equal(bind(d->notify, (struct sockaddr *)&address, sizeof(address)), 0);
    return d;
}

static inline void daemon_exec(const struct daemon *d, char *const argv[])
{
    struct rlimit limit = { d->descriptors, d->descriptors };
    char notify[96];
    int log = open(d->log, O_WRONLY | O_CREAT | O_APPEND, 0600);

    /* However the test ends, no daemon outlives it. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    snprintf(notify, sizeof(notify), "%s/notify", d->folder);
    setenv("NOTIFY_SOCKET", notify, 1);
    if (d->descriptors)
        setrlimit(RLIMIT_NOFILE, &limit);
    dup2(log, STDERR_FILENO);
    execv(argv[0], argv);
    _exit(127);
}

/* Wait until clients can connect (true) or it has ended. */
static inline bool daemon_wait(struct daemon *d)
{
    struct pollfd ready = { .fd = d->notify, .events = POLLIN };
    char text[128];

    for (;;) {
        ssize_t n = poll(&ready, 1, 10) > 0 ? recv(d->notify, text, sizeof(text) - 1, 0) : 0;

        text[n > 0 ? n : 0] = '\0';
        if (strstr(text, "READY=1"))
            return true;
        if (waitpid(d->pid, NULL, WNOHANG) == d->pid) {
            d->pid = 0;
            return false;
        }
    }
}

static inline char *daemon_program(void)
{
    char *program = getenv("SHMSERVER");

    if (!program)
        fail_msg("SHMSERVER is to be the path of the daemon: run this by meson test");
    return program;
}

/* Start it with up to two options. Returns once clients can connect, or it has ended: then false. */
static inline bool daemon_try_start(struct daemon *d, const char *option, const char *value)
{
    char *argv[] = { daemon_program(), (char *)"--verbose", (char *)option, (char *)value, NULL };

    fflush(stdout);
    d->pid = fork();
    assert_true(d->pid >= 0);
    if (d->pid == 0)
        daemon_exec(d, argv);
    return daemon_wait(d);
}

static inline void daemon_start(struct daemon *d)
{
    assert_true(daemon_try_start(d, NULL, NULL));
}

/* Returns the exit status as waitpid() gives it. */
static inline int daemon_stop(struct daemon *d, int signal)
{
    int status = -1;

    if (d->pid > 0) {
        kill(d->pid, signal);
        assert_int_equal(waitpid(d->pid, &status, 0), d->pid);
    }
    d->pid = 0;
    return status;
}

/* Something it wrote on standard error. */
static inline bool daemon_said(const struct daemon *d, const char *text)
{
    static char content[1 << 16];
    int fd = open(d->log, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, content, sizeof(content) - 1);

    if (fd >= 0)
        close(fd);
    content[n > 0 ? n : 0] = '\0';
    return strstr(content, text) != NULL;
}

static inline int daemon_setup(void **state)
{
    struct daemon *d = daemon_prepare();

    daemon_start(d);
    *state = d;
    return 0;
}

static inline int daemon_setup_stopped(void **state)
{
    *state = daemon_prepare();
    return 0;
}

static inline int daemon_teardown(void **state)
{
    struct daemon *d = *state;
    char command[96];

    daemon_stop(d, SIGTERM);
    close(d->notify);
    snprintf(command, sizeof(command), "rm -rf %s", d->folder);
    assert_int_equal(system(command), 0);
    free(d);
    return 0;
}

static inline struct shms_client *connect_or_fail(void)
{
    struct shms_client *client = NULL;
    int r = shms_connect(NULL, &client);

    if (r < 0)
        fail_msg("shms_connect: %d: %s", r, la_last_error());
    return client;
}

static inline struct la_heap *open_or_fail(struct shms_client *client, const char *name, size_t size)
{
    struct la_heap *heap = NULL;
    int r = shms_heap_open(client, name, size, 0, &heap);

    if (r < 0)
        fail_msg("shms_heap_open(%s): %d: %s", name, r, la_last_error());
    return heap;
}

static inline uint64_t test_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Ask until @condition(@arg) holds; the pause only spares the processor. */
static inline bool wait_until(bool (*condition)(void *arg), void *arg)
{
    for (uint64_t end = test_ms() + SAFETY_MS; test_ms() < end; poll(NULL, 0, 1))
        if (condition(arg))
            return true;
    return false;
}

/* A child process that says one byte when it is ready, and stays until it is killed. */
struct child {
    pid_t pid;
    int said;
};

static inline void child_say(int fd)
{
    if (write(fd, "!", 1) != 1)
        _exit(3);
}

static inline void child_stay(void)
{
    for (;;)
        pause();
}

/* @body runs in the child with the descriptor for child_say(); waits for that byte. */
static inline struct child child_start(void (*body)(int said, void *arg), void *arg)
{
    struct child child;
    int ends[2];
    char c;

    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    fflush(stdout);
    child.pid = fork();
    assert_true(child.pid >= 0);
    if (child.pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(ends[0]);
        body(ends[1], arg);
        _exit(0);
    }
    close(ends[1]);
    child.said = ends[0];
    if (read(child.said, &c, 1) != 1)
        fail_msg("the child process failed before it was ready");
    return child;
}

/* Wait for the end of a child; its exit status, or minus the signal that ended it. */
static inline int child_end(struct child *child, int signal)
{
    int status;

    if (signal)
        kill(child->pid, signal);
    assert_int_equal(waitpid(child->pid, &status, 0), child->pid);
    close(child->said);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* Return: the exit status of a child that runs @body. */
static inline int in_child(int (*body)(const struct daemon *d), const struct daemon *d)
{
    int status;
    pid_t pid;

    fflush(stdout);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(body(d));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int (*nobody_does)(const struct daemon *d);

static inline int become_nobody(const struct daemon *d)
{
    return setgroups(0, NULL) < 0 || setgid(65534) < 0 || setuid(65534) < 0 ? 99 : nobody_does(d);
}

/* The same, no longer root. */
static inline int as_nobody(int (*body)(const struct daemon *d), const struct daemon *d)
{
    nobody_does = body;
    return in_child(become_nobody, d);
}

#endif
