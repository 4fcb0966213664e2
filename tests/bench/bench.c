/*
 * bench.c - the workers of one measurement and the clock over them.
 *
 *   worker 0 (leads)                       worker 1 (follows)
 *   begin                                  begin
 *   operations = n   --- barrier --->      work(n), stamp
 *   work(n), stamp   <-- barrier ----
 *   ... repeated ...
 *   operations = 0   --- barrier --->      leaves the loop
 *                    <-- barrier ----
 *   end                                    end
 *
 * All of that goes through one struct control in shared memory, so that threads and processes are driven by the same
 * code. The barrier sleeps on a futex after a short spin: who waits leaves its processor to the one who works.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

enum {
    REPETITIONS = 5,
    /* Several workers are all undisturbed only now and then: many short repetitions find such a moment. */
    SHORT_REPETITIONS = 25,
    SPIN_TURNS = 2000,
    CONTROL_FD = 100,                   /* of the shared control block in a process that follows */
};

/* A case that takes longer than this gets no further repetition. */
static const double CASE_LIMIT_NS = 1e9;

struct control {
    _Atomic uint32_t arrived;
    _Atomic uint32_t turn;              /* of the barrier; waited on */
    unsigned long operations;           /* of the next repetition; 0: no more */
    pid_t first_pid;
    struct {
        _Alignas(64) uint64_t begin;
        uint64_t end;
    } stamp[BENCH_MAX_WORKERS];
    struct bench_ring ring;
};

static struct control thread_control;
static struct control *control = &thread_control;
static const char follower_variable[] = "LIBALLOC_BENCH_FOLLOWER";
static bool is_follower;
static pid_t follower;

static void die(const char *what)
{
    fprintf(stderr, "bench: %s: %s\n", what, strerror(errno));
    exit(2);
}

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t bench_cpu_clock(void)
{
    return clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

/* The last allowed processor for worker 0, the one before for worker 1: interrupts like the first. */
void bench_pin(unsigned worker)
{
    cpu_set_t allowed, one;
    int cpu;
    unsigned skip;

    if (sched_getaffinity(0, sizeof(allowed), &allowed) < 0 || CPU_COUNT(&allowed) < 1)
        return;
    skip = worker % (unsigned)CPU_COUNT(&allowed);
    for (cpu = CPU_SETSIZE - 1; cpu >= 0; cpu--) {
        if (CPU_ISSET(cpu, &allowed) && skip-- == 0)
            break;
    }
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    sched_setaffinity(0, sizeof(one), &one);
}

void bench_relax(unsigned *turns)
{
    if (++*turns % 64 == 0)
        sched_yield();
    else
        __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static void barrier(unsigned workers)
{
    uint32_t turn = atomic_load(&control->turn);

    if (workers == 1)
        return;
    if (atomic_fetch_add(&control->arrived, 1) + 1 == workers) {
        atomic_store(&control->arrived, 0);
        atomic_fetch_add(&control->turn, 1);
        syscall(SYS_futex, &control->turn, FUTEX_WAKE, BENCH_MAX_WORKERS, NULL, NULL, 0);
        return;
    }
    for (int i = 0; i < SPIN_TURNS && atomic_load(&control->turn) == turn; i++)
        __atomic_signal_fence(__ATOMIC_SEQ_CST);
    while (atomic_load(&control->turn) == turn)
        syscall(SYS_futex, &control->turn, FUTEX_WAIT, turn, NULL, NULL, 0);
}

void bench_meet(void)
{
    barrier(BENCH_MAX_WORKERS);
}

/* One repetition, as every worker sees it. */
static void repeat(const struct bench_case *c, struct bench_worker *w)
{
    clockid_t clock = c->workers == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC;

    control->stamp[w->index].begin = clock_ns(clock);
    c->work(w, control->operations);
    control->stamp[w->index].end = clock_ns(clock);
    barrier(c->workers);
}

static double lead_repetition(const struct bench_case *c, struct bench_worker *w, unsigned long operations)
{
    uint64_t begin = UINT64_MAX, end = 0;

    control->operations = operations;
    barrier(c->workers);
    repeat(c, w);
    for (unsigned i = 0; i < c->workers; i++) {
        if (control->stamp[i].begin < begin)
            begin = control->stamp[i].begin;
        if (control->stamp[i].end > end)
            end = control->stamp[i].end;
    }
    return (double)(end - begin);
}

static void follow(const struct bench_case *c, struct bench_worker *w)
{
    for (;;) {
        barrier(c->workers);
        if (control->operations == 0)
            break;
        repeat(c, w);
    }
    barrier(c->workers);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* How long all repetitions of a case take together. */
static double wanted_ns(void)
{
    const char *milliseconds = getenv("LIBALLOC_BENCH_MS");

    return 1e6 * (milliseconds ? atof(milliseconds) : 50);
}

/* Double the work until it can be timed, then repeat it at the wanted length. */
static double lead(const struct bench_case *c, struct bench_worker *w)
{
    unsigned long unit = c->unit ? c->unit : 1, count = 1;
    int repetitions = c->workers == 1 ? REPETITIONS : SHORT_REPETITIONS, n = 0;
    double wanted = wanted_ns() / repetitions, each[SHORT_REPETITIONS], spent, elapsed;

    for (spent = 0;; count *= 2) {
        elapsed = lead_repetition(c, w, count * unit);
        spent += elapsed;
        if (elapsed >= wanted / 4)
            break;
    }
    if (elapsed < wanted)
        count = (unsigned long)((double)count * wanted / elapsed) + 1;
    else
        each[n++] = elapsed;
    while (n == 0 || (n < repetitions && spent < CASE_LIMIT_NS)) {
        each[n] = lead_repetition(c, w, count * unit);
        spent += each[n++];
    }
    control->operations = 0;
    barrier(c->workers);
    /* The other has read that: the next case may write its own number. */
    barrier(c->workers);

    qsort(each, (size_t)n, sizeof(each[0]), by_value);
    return each[c->workers == 1 ? n / 2 : 0] / (double)(count * unit) / (c->shared_operations ? 1 : c->workers);
}

struct run {
    const struct bench_case *c;
    unsigned index;
    double result;
};

static void *run_worker(void *arg)
{
    struct run *r = arg;
    struct bench_worker w = { .index = r->index, .count = r->c->workers, .random = 88172645463325252u + r->index };

    bench_pin(w.index);
    if (r->c->begin)
        r->c->begin(&w);
    if (w.index == 0)
        r->result = lead(r->c, &w);
    else
        follow(r->c, &w);
    if (r->c->end)
        r->c->end(&w);
    return NULL;
}

static double measure_in_threads(const struct bench_case *c)
{
    struct run run[BENCH_MAX_WORKERS];
    pthread_t thread[BENCH_MAX_WORKERS];

    for (unsigned i = 0; i < c->workers; i++) {
        run[i] = (struct run){ .c = c, .index = i };
        if (pthread_create(&thread[i], NULL, run_worker, &run[i]) != 0)
            die("pthread_create");
    }
    for (unsigned i = 0; i < c->workers; i++)
        pthread_join(thread[i], NULL);
    return run[0].result;
}

double bench_measure(const struct bench_case *c)
{
    struct run run = { .c = c, .index = is_follower };

    if (c->workers > 1 && control == &thread_control)
        return measure_in_threads(c);
    if (is_follower && c->workers == 1)
        return 0;
    /* One worker stays on the main thread: a program without threads is what is asked for. */
    run_worker(&run);
    return run.result;
}

void bench_print(double value, const char *name, ...)
{
    va_list arguments;

    if (is_follower)
        return;
    va_start(arguments, name);
    vprintf(name, arguments);
    va_end(arguments);
    printf("\t%.6g\n", value);
}

struct bench_ring *bench_ring(void)
{
    return &control->ring;
}

bool bench_is_first(void)
{
    return !is_follower;
}

pid_t bench_first_pid(void)
{
    return control->first_pid;
}

static void map_control(void)
{
    control = mmap(NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED, CONTROL_FD, 0);
    if (control == MAP_FAILED)
        die("mmap of the control block");
}

/* Nobody waits at a barrier for a process that has crashed. */
static void follower_ended(int number, siginfo_t *info, void *context)
{
    static const char text[] = "bench: the second process failed\n";

    (void)number, (void)context;
    if (info->si_code == CLD_EXITED && info->si_status == 0)
        return;
    _exit(write(STDERR_FILENO, text, sizeof(text) - 1) > 0 ? 2 : 3);
}

static void watch_follower(void)
{
    struct sigaction action = { .sa_sigaction = follower_ended, .sa_flags = SA_SIGINFO | SA_NOCLDSTOP | SA_RESTART };

    if (sigaction(SIGCHLD, &action, NULL) < 0)
        die("sigaction");
}

void bench_start_processes(char **argv)
{
    is_follower = getenv(follower_variable) != NULL;
    if (!is_follower) {
        int made = memfd_create("bench", 0);

        if (made < 0 || ftruncate(made, sizeof(*control)) < 0 || dup2(made, CONTROL_FD) < 0)
            die("memfd_create");
        close(made);
    }
    map_control();
    if (is_follower)
        return;
    control->first_pid = getpid();
    watch_follower();
    follower = fork();
    if (follower < 0)
        die("fork");
    if (follower == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        setenv(follower_variable, "1", 1);
        execv("/proc/self/exe", argv);
        die("exec");
    }
}

void bench_finish_processes(void)
{
    if (!is_follower && waitpid(follower, NULL, 0) < 0)
        die("waitpid");
}

unsigned long bench_argument(int argc, char **argv, int index, unsigned long fallback)
{
    return index < argc ? strtoul(argv[index], NULL, 0) : fallback;
}

void bench_log_uniform_sizes(uint32_t sizes[BENCH_SIZES], uint32_t min, uint32_t max)
{
    uint64_t state = 2463534242u;

    for (int i = 0; i < BENCH_SIZES; i++) {
        double position = (double)(bench_random(&state) >> 11) / 9007199254740992.0;    /* [0, 1): 53 bits */

        sizes[i] = (uint32_t)(min * pow((double)max / min, position) + 0.5);
    }
}
