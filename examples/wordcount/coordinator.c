/*
 * coordinator.c - makes the heap and the job, starts the workers, kills one of them, and returns to the others what it
 * had claimed. It does none of the work, and copies nothing.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "heap_access.h"
#include "job.h"
#include "roles.h"

extern char **environ;

enum { WORKERS_MAX = 64, TICK_MS = 100, RECOVERY_MS = 10000 };
#define MS ((uint64_t)1000000)      /* in nanoseconds */

struct coordinator {
    const struct options *options;
    struct la_heap *heap;
    struct job *job;
    pid_t pid[WORKERS_MAX + 1];     /* by number of the worker, from 1; 0: has ended */
    uint32_t started;               /* numbers given out */
    uint32_t victim;                /* number of the worker to kill; 0: none */
    uint64_t die_at;                /* its step */
    uint64_t kill_after;            /* nanoseconds from the start; 0: not from outside */
};

static uint64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 * MS + (uint64_t)t.tv_nsec;
}

/* ---- the list of files ---- */

struct list {
    char *paths;                    /* strings, each with its NUL */
    size_t size;
    uint32_t files;
    uint64_t bytes;                 /* of text */
};

static int read_list(struct list *ret)
{
    size_t capacity = 0;
    ssize_t n;

    *ret = (struct list){ 0 };
    do {
        if (capacity - ret->size < 65536) {
            capacity = 2 * capacity + 65536;
            ret->paths = la_realloc(ret->paths, capacity);
            if (!ret->paths)
                return -ENOMEM;
        }
        n = read(STDIN_FILENO, ret->paths + ret->size, capacity - ret->size);
        if (n < 0)
            return -errno;
        ret->size += (size_t)n;
    } while (n > 0);
    if (ret->size == 0 || ret->paths[ret->size - 1] != '\0')
        return -ENODATA;
    for (const char *path = ret->paths; path < ret->paths + ret->size; path += strlen(path) + 1) {
        struct stat status;

        if (stat(path, &status) < 0)
            return -errno;
        ret->bytes += (uint64_t)status.st_size;
        ret->files++;
    }
    return 0;
}

/* Address space, not memory: the table needs less than the text, bundles under way less than the longest file. */
static size_t heap_size(const struct options *options, const struct list *list)
{
    if (options->heap_mib)
        return options->heap_mib << 20;
    return ((size_t)256 << 20) + list->bytes;
}

/* ---- the plan for the victim ---- */

/* splitmix64 */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

/*
 * Who dies, and when: somewhere in the first half of what is dealt to a worker, as far as its size tells. Text has
 * about 2 to 6 bytes to a step and 20 to 60 to a step with an open bundle, and a core works on 10 to 100 MB in a
 * second. A victim that is through before dies then.
 */
static void plan_kill(struct coordinator *c)
{
    uint64_t random = c->options->seed, dealt = c->job->bytes / 2 / c->options->workers;

    if (c->options->kill == KILL_NONE)
        return;
    c->victim = 1 + (uint32_t)(next_random(&random) % c->options->workers);
    if (c->options->kill == KILL_TIME)
        c->kill_after = 1 + next_random(&random) % (dealt / 50 * 1000 + MS);
    else
        c->die_at = 1 + next_random(&random) % (dealt / (c->options->kill == KILL_BUNDLE ? 80 : 10) + 10);
}

/* ---- workers ---- */

/* A process of its own that inherits nothing but the name of the heap. */
static int start_worker(struct coordinator *c)
{
    uint32_t number = c->started + 1;
    char number_text[16], die_at[32];
    const char *argv[16] = { "wordcount", "worker", "--heap", c->options->heap, "--number", number_text };
    int n = 6, r;

    if (number > WORKERS_MAX)
        return -EAGAIN;
    snprintf(number_text, sizeof(number_text), "%" PRIu32, number);
    if (c->options->socket) {
        argv[n++] = "--socket";
        argv[n++] = c->options->socket;
    }
    if (number == c->victim && c->die_at) {
        snprintf(die_at, sizeof(die_at), "%" PRIu64, c->die_at);
        argv[n++] = c->options->kill == KILL_BUNDLE ? "--die-in-bundle" : "--die-at";
        argv[n++] = die_at;
    }
    r = posix_spawn(&c->pid[number], "/proc/self/exe", NULL, NULL, (char **)argv, environ);
    if (r != 0)
        return -r;
    c->started++;
    return 0;
}

static unsigned running_workers(const struct coordinator *c)
{
    unsigned n = 0;

    for (uint32_t i = 1; i <= c->started; i++)
        n += c->pid[i] != 0;
    return n;
}

static void kill_workers(struct coordinator *c)
{
    for (uint32_t i = 1; i <= c->started; i++) {
        if (c->pid[i] == 0)
            continue;
        kill(c->pid[i], SIGKILL);
        waitpid(c->pid[i], NULL, 0);
        c->pid[i] = 0;
    }
}

static void read_info(struct coordinator *c, struct la_heap_info *ret)
{
    ret->struct_size = sizeof(*ret);
    la_heap_info(c->heap, ret);
}

static bool is_attached(struct coordinator *c, pid_t pid)
{
    struct la_heap_process process[LA_HEAP_MAX_PROCESSES];
    int n = la_heap_processes(c->heap, process, LA_HEAP_MAX_PROCESSES);

    for (int i = 0; i < n; i++)
        if (process[i].pid == pid)
            return true;
    return false;
}

/*
 * Free what the dead process @pid has held. The daemon, if there is one, may do it before us, or be about to. @pid is a
 * zombie as yet, so nobody else has its number.
 */
static int recover(struct coordinator *c, pid_t pid)
{
    uint64_t deadline = now() + RECOVERY_MS * MS;

    do {
        int r = la_heap_recover(c->heap, NULL, NULL);

        if (r < 0)
            return r;
        if (!is_attached(c, pid))
            return 0;
        usleep(1000);
    } while (now() < deadline);
    return -ETIMEDOUT;
}

/* Of a terminal: where the progress stands. */
static const char *line_start(void)
{
    return isatty(STDOUT_FILENO) ? "\r\033[K" : "";
}

/* What a dead worker held is freed, what it had claimed goes to others. */
static int bury(struct coordinator *c, uint32_t number)
{
    struct la_heap_info before, after;
    unsigned returned;
    int r;

    read_info(c, &before);
    r = recover(c, c->pid[number]);
    if (r < 0)
        return r;
    read_info(c, &after);
    returned = job_return_claims(c->job, number);
    printf("%sworker %" PRIu32 " was killed: %" PRIu64 " blocks (%" PRIu64 " bytes) reclaimed, "
           "%u files for the others\n", line_start(), number, after.recovered_blocks - before.recovered_blocks,
           after.recovered_bytes - before.recovered_bytes, returned);
    fflush(stdout);

    r = job_lock(c->heap, c->job);
    if (r < 0)
        return r;
    c->job->killed++;
    c->job->returned += returned;
    return job_announce(c->heap, c->job);
}

/* A worker has ended: by itself or killed, anything else is a failure. */
static int worker_ended(struct coordinator *c, uint32_t number, const siginfo_t *how)
{
    if (how->si_code == CLD_EXITED && how->si_status == 0)
        return 0;
    if (how->si_code == CLD_KILLED && how->si_status == SIGKILL)
        return bury(c, number);
    fprintf(stderr, "wordcount: worker %" PRIu32 " failed (%s %d)\n", number,
            how->si_code == CLD_EXITED ? "exit status" : "signal", how->si_status);
    return -ECANCELED;
}

static int reap_workers(struct coordinator *c)
{
    int r = 0;

    for (uint32_t i = 1; r == 0 && i <= c->started; i++) {
        siginfo_t how = { 0 };

        if (c->pid[i] == 0 || waitid(P_PID, (id_t)c->pid[i], &how, WEXITED | WNOHANG | WNOWAIT) < 0 || how.si_pid == 0)
            continue;
        r = worker_ended(c, i, &how);
        waitpid(c->pid[i], NULL, 0);
        c->pid[i] = 0;
    }
    return r;
}

static bool any_has_ended(const struct coordinator *c)
{
    for (uint32_t i = 1; i <= c->started; i++) {
        siginfo_t how = { 0 };

        if (waitid(P_PID, (id_t)c->pid[i], &how, WEXITED | WNOHANG | WNOWAIT) < 0 || how.si_pid != 0)
            return true;
    }
    return false;
}

/* Until all of them are at the start, see wait_for_start() in worker.c. */
static int wait_for_workers(struct coordinator *c)
{
    const struct timespec tick = { .tv_nsec = TICK_MS * (long)MS };
    int r = job_lock(c->heap, c->job);

    while (r == 0 && c->job->ready < c->options->workers)
        r = any_has_ended(c) ? -ECANCELED : job_wait(c->heap, c->job, &tick);
    if (r < 0)
        return r;
    c->job->started = true;
    return job_announce(c->heap, c->job);
}

/* ---- progress ---- */

/* One line that changes on a terminal, else a line for each quarter. */
static void show_progress(const struct coordinator *c)
{
    static uint32_t quarters;
    struct la_heap_info info = { .struct_size = sizeof(info) };
    uint32_t done = job_count_files(c->job, DONE), files = c->job->files;
    bool terminal = isatty(STDOUT_FILENO);

    if (!terminal && (uint64_t)done * 4 < (uint64_t)files * (quarters + 1))
        return;
    quarters = (uint32_t)((uint64_t)done * 4 / files);
    la_heap_info(c->heap, &info);
    printf("%s%" PRIu32 " of %" PRIu32 " files, %u workers, heap %.1f MiB%s", line_start(), done, files,
           running_workers(c), (double)info.committed / (1 << 20), terminal && done < files ? "" : "\n");
    fflush(stdout);
}

/* ---- the whole ---- */

/* Sleep until a child ends, or it is time for something. */
static void wait_for_event(uint64_t until)
{
    uint64_t time = now(), wait = until > time && until - time < TICK_MS * MS ? until - time : TICK_MS * MS;
    struct timespec timeout = { .tv_nsec = (long)wait };
    sigset_t child;

    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigtimedwait(&child, NULL, &timeout);
}

static int supervise(struct coordinator *c, uint64_t start)
{
    uint64_t kill_at = c->kill_after ? start + c->kill_after : UINT64_MAX;

    while (job_count_files(c->job, DONE) < c->job->files || running_workers(c) > 0) {
        int r = reap_workers(c);

        if (r == 0 && running_workers(c) == 0 && job_count_files(c->job, DONE) < c->job->files)
            r = start_worker(c);
        if (r < 0)
            return r;
        if (now() >= kill_at) {
            kill_at = UINT64_MAX;
            if (c->pid[c->victim])
                kill(c->pid[c->victim], SIGKILL);
        }
        show_progress(c);
        if (running_workers(c) > 0)
            wait_for_event(kill_at);
    }
    return 0;
}

static int run_job(struct coordinator *c)
{
    uint64_t start;
    int r = 0;

    plan_kill(c);
    for (unsigned i = 0; r == 0 && i < c->options->workers; i++)
        r = start_worker(c);
    if (r == 0)
        r = wait_for_workers(c);
    start = now();
    if (r == 0)
        r = supervise(c, start);
    c->job->nanoseconds = now() - start;
    kill_workers(c);
    return r;
}

static void record_result(struct coordinator *c)
{
    struct la_heap_info info;

    read_info(c, &info);
    c->job->reclaimed_blocks = info.recovered_blocks;
    c->job->reclaimed_bytes = info.recovered_bytes;
    if (c->victim && c->job->killed == 0)
        printf("worker %" PRIu32 " was through before it could be killed\n", c->victim);
}

int run_coordinator(const struct options *options)
{
    struct coordinator c = { .options = options };
    struct list list;
    sigset_t child;
    int r = read_list(&list);

    if (r < 0)
        return complain("the list of files on standard input", r);
    /* Blocked, so that wait_for_event() gets it; the workers do not mind. */
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);

    r = heap_open(options, heap_size(options, &list), &c.heap);
    if (r < 0)
        return complain("creating the heap", r);
    r = job_create(c.heap, list.paths, list.size, list.files, list.bytes, options->workers, &c.job);
    la_free(list.paths);
    if (r < 0)
        return complain("creating the job", r);
    r = run_job(&c);
    if (r < 0)
        return complain("the job", r);
    record_result(&c);
    heap_close(c.heap);
    return EXIT_SUCCESS;
}
