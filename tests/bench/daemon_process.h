/*
 * daemon_process.h - a shmserver of its own for a benchmark, in a folder of its own, and what is done with many times of one thing.
 */
#ifndef TESTS_BENCH_DAEMON_PROCESS_H
#define TESTS_BENCH_DAEMON_PROCESS_H

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <liballoc/error.h>
#include <shmserver/client.h>

#include "bench.h"

struct daemon_process {
    pid_t pid;
    char folder[32], socket[48];
};

static inline void daemon_check(int result, const char *what)
{
    if (result < 0) {
        fprintf(stderr, "%s: %s\n", what, result == -1 ? strerror(errno) : la_last_error());
        exit(2);
    }
}

static inline uint64_t daemon_clock(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* How long one measurement takes. */
static inline uint64_t daemon_wanted_ns(void)
{
    const char *milliseconds = getenv("LIBALLOC_BENCH_MS");

    return (uint64_t)(1e6 * (milliseconds ? atof(milliseconds) : 1000));
}

/* A thousand connections, in each of the processes. */
static inline void daemon_raise_descriptors(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* @options: up to DAEMON_OPTIONS, NULL at the end. Returns once it answers. */
enum { DAEMON_OPTIONS = 4 };

static inline void daemon_begin(struct daemon_process *d, const char *program, const char *const options[DAEMON_OPTIONS + 1])
{
    const char *argv[DAEMON_OPTIONS + 4] = { program, "--no-keeper", "--quiet" };
    const struct timespec pause = { .tv_nsec = 1000000 };
    struct shms_client *client;
    char registry[48];

    for (int i = 0; i < DAEMON_OPTIONS && options[i]; i++)
        argv[3 + i] = options[i];
    daemon_raise_descriptors();
    strcpy(d->folder, "/tmp/bench-daemon-XXXXXX");
    if (!mkdtemp(d->folder))
        daemon_check(-1, d->folder);
    chmod(d->folder, 0755);
    snprintf(d->socket, sizeof(d->socket), "%s/socket", d->folder);
    snprintf(registry, sizeof(registry), "%s/addresses", d->folder);
    setenv("SHMSERVER_SOCKET", d->socket, 1);
    setenv("LIBALLOC_VSPACE_REGISTRY", registry, 1);
    d->pid = fork();
    daemon_check(d->pid, "fork");
    if (d->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        unsetenv("NOTIFY_SOCKET");
        if (!freopen("/dev/null", "w", stderr))
            _exit(126);
        execv(program, (char **)argv);
        _exit(127);
    }
    while (shms_connect(d->socket, &client) < 0) {
        if (waitpid(d->pid, NULL, WNOHANG) == d->pid) {
            fprintf(stderr, "%s does not start\n", program);
            exit(2);
        }
        nanosleep(&pause, NULL);
    }
    shms_disconnect(client);
}

static inline void daemon_finish(struct daemon_process *d)
{
    char command[64];

    kill(d->pid, SIGTERM);
    waitpid(d->pid, NULL, 0);
    snprintf(command, sizeof(command), "rm -rf %s", d->folder);
    daemon_check(system(command), command);
}

static inline struct shms_client *daemon_connect(void)
{
    struct shms_client *client;

    daemon_check(shms_connect(NULL, &client), "connect");
    return client;
}

static inline struct la_heap *daemon_open(struct shms_client *client, const char *name, size_t size)
{
    struct la_heap *heap;

    daemon_check(shms_heap_open(client, name, size, 0, &heap), name);
    return heap;
}

/* ---- many times of one thing ---- */

enum { TIMES_MAX = 1 << 20 };

struct times {
    size_t count;
    bool sorted;
    uint32_t ns[TIMES_MAX];
};

static inline void times_add(struct times *t, uint64_t ns)
{
    if (t->count < TIMES_MAX)
        t->ns[t->count++] = ns < UINT32_MAX ? (uint32_t)ns : UINT32_MAX;
    t->sorted = false;
}

static inline int times_compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static inline double times_at(struct times *t, double part)
{
    if (!t->count)
        return 0;
    if (!t->sorted)
        qsort(t->ns, t->count, sizeof(t->ns[0]), times_compare);
    t->sorted = true;
    return t->ns[(size_t)((double)(t->count - 1) * part)];
}

#endif
