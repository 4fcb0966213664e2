/*
 * main.c - crash images of every operation of a shared heap.
 *
 *   crash_images [--full] [--steps] [--first] [--list] [SCENARIO-PREFIX...]
 *
 * For each scenario: a heap is made and prepared; the victim performs one operation, and the heap's file is logged after every instruction
 * of it. Each distinct state of the file is an image: what would be there, had the process been killed at that instruction.
 * Each image is given to a fresh process, which recovers it twice and checks it (check.c). Then recovery itself is the
 * operation: it is traced on an image, and the images of that are checked by the same model (the death of the recoverer).
 *
 *   default   stops at stores (trace.c); recovery traced for scenarios that ask for it
 *   --full    every instruction, and both ways compared; recovery traced on every image, at its stores, and on one image of those that ask
 *             for it at every instruction. $LA_CRASH_IMAGES=full is the same
 *   --steps   every instruction, recovery as by default
 *   --first   end at the first finding
 *   --list    print the names of the scenarios
 *
 * Beyond single images: what is live changes at most once from "before" to "after" in the course of an operation, and the
 * heap can take as much at any moment as before or after it.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <liballoc/vspace.h>

#include "check.h"
#include "image.h"
#include "trace.h"

enum { MAX_CHANGES = 1 << 18, CHECK_SECONDS = 60, VICTIM_SECONDS = 600, MAX_REPORTS = 5 };

extern char __executable_start;     /* of the linker */

struct totals {
    unsigned paths;
    uint64_t instructions;      /* stopped at */
    uint64_t images;            /* distinct, of operations and of recoveries */
    uint64_t recoveries;        /* traced */
    uint64_t checks;
    uint64_t bad;
};

static struct stage *stage;
static struct totals all;
static bool full, steps, first, list;
static int checkers = -1;       /* socket to the process that forks checkers */
static pid_t checkers_pid;
static int resume_pipe[2];      /* a byte in it lets a peer go on */

/* ---- checkers ---- */

struct order {
    uint32_t scenario, flags;
};

static void serve_orders(int fd)
{
    struct order order;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (read(fd, &order, sizeof(order)) == sizeof(order)) {
        pid_t pid = fork();
        int status = -1;

        if (pid == 0) {
            alarm(CHECK_SECONDS);
            check_image(stage, &scenarios[order.scenario], order.flags);
        }
        if (pid < 0 || waitpid(pid, &status, 0) != pid || write(fd, &status, sizeof(status)) != sizeof(status))
            _exit(1);
    }
    _exit(0);
}

/* Forked before this process has much memory: its forks are cheap. */
static void start_checkers(void)
{
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0 || (checkers_pid = fork()) < 0)
        abort();
    if (checkers_pid == 0) {
        close(ends[0]);
        serve_orders(ends[1]);
    }
    close(ends[1]);
    checkers = ends[0];
}

static void stop_checkers(void)
{
    close(checkers);
    waitpid(checkers_pid, NULL, 0);
}

static void set_path(int fd)
{
    snprintf(stage->path, sizeof(stage->path), "/proc/%d/fd/%d", getpid(), fd);
}

/* Return: the verdict is good. */
static bool check_file(const struct scenario *scenario, int fd, unsigned flags)
{
    struct order order = { (uint32_t)(scenario - scenarios), flags };
    int status;

    set_path(fd);
    all.checks++;
    if (write(checkers, &order, sizeof(order)) != sizeof(order) || read(checkers, &status, sizeof(status)) != sizeof(status))
        stage_fail("the checkers are gone");
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return true;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 3)
        stage_fail("a checker could not do its work");
    if (WIFSIGNALED(status))
        snprintf(stage->verdict.text, sizeof(stage->verdict.text), WTERMSIG(status) == SIGALRM ? "the checker hangs" : "the checker dies of signal %d",
                 WTERMSIG(status));
    return false;
}

/* ---- one scenario ---- */

struct course {
    const struct scenario *scenario;
    struct image_set seen;
    uint64_t steps, bad;
    unsigned reports;
    /* Over the images of the operation: */
    bool begun;
    uint64_t first_live, live, changed;
    uint64_t first_capacity, least_capacity, capacity;
};

static void report(struct course *course, const char *what, uint64_t step, uintptr_t at, const char *text)
{
    course->bad++;
    if (course->reports++ >= MAX_REPORTS)
        return;
    printf("# bad: %s, %s %lu", course->scenario->name, what, step);
    if (at)
        printf(" (addr2line %#lx)", at - (uintptr_t)&__executable_start);
    printf(": %s\n", text);
    if (first)
        exit(1);
}

static unsigned check_variants(const struct scenario *scenario, uint32_t image)
{
    unsigned variants = 1u << 0;

    if (scenario->survive)
        variants |= 1u << CHECK_SURVIVOR;
    if (full || image % 4 == 0)
        variants |= 1u << CHECK_AT_ATTACH;
    if (stage->peers_alive && (full || image % 4 == 1))
        variants |= 1u << CHECK_PEERS_DIE;
    return variants;
}

static void follow_course(struct course *course, const struct images *images)
{
    const struct verdict *verdict = &stage->verdict;
    uint64_t flipped = course->live ^ verdict->live;

    if (!course->begun) {
        course->begun = true;
        course->first_live = course->live = verdict->live;
        course->first_capacity = course->least_capacity = course->capacity = verdict->capacity;
        return;
    }
    if (flipped & course->changed && !(course->scenario->flags & UNEVEN))
        report(course, "instruction", images->step, images->at, "what was done is undone by dying later");
    course->changed |= flipped;
    course->live = verdict->live;
    course->capacity = verdict->capacity;
    if (verdict->capacity < course->least_capacity)
        course->least_capacity = verdict->capacity;
}

static void check_current(struct course *course, const struct images *images, const char *what, uint32_t number, bool operation)
{
    int fd = images_file(images);
    unsigned variants = check_variants(course->scenario, number);

    for (unsigned flags = 0; variants >> flags; flags++) {
        if (!(variants >> flags & 1))
            continue;
        if (flags) {
            close(fd);
            fd = images_file(images);
        }
        if (!check_file(course->scenario, fd, flags ? flags : CHECK_CAPACITY))
            report(course, what, images->step, images->at, stage->verdict.text);
        else if (!flags && operation)
            follow_course(course, images);
    }
    close(fd);
}

/* ---- victims ---- */

static void end_victim(pid_t pid, struct course *course, const struct trace *trace)
{
    int status;

    if (waitpid(pid, &status, 0) != pid)
        abort();
    if (trace->fault_at) {
        char text[100];

        snprintf(text, sizeof(text), "the victim crashes, it reads or writes %#lx", trace->fault_address);
        report(course, "instruction", trace->steps, trace->fault_at, text);
    } else if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
        stage_fail("%s: the victim ended with status %#x", course->scenario->name, status);
    }
    if (trace->overflow)
        stage_fail("%s: more than %u changes", course->scenario->name, trace->max_changes);
    course->steps += trace->steps;
}

static void begin_trace(struct trace *trace, enum trace_mode mode, bool mapped)
{
    int fd = open(stage->path, O_RDWR | O_CLOEXEC);

    if (fd < 0)
        stage_fail("cannot open %s", stage->path);
    trace_begin(trace, mode, fd, stage->address, mapped);
}

static pid_t start(void)
{
    pid_t pid = fork();

    if (pid < 0)
        abort();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(VICTIM_SECONDS);
    }
    return pid;
}

static void die(void)
{
    kill(getpid(), SIGKILL);
    _exit(3);
}

static void run_victim(struct course *course, struct trace *trace, enum trace_mode mode)
{
    const struct scenario *scenario = course->scenario;
    struct actor actor = { .stage = stage };
    pid_t pid = start();

    if (pid == 0) {
        if (!(scenario->flags & ATTACHES))
            stage_attach(&actor, scenario->flags & KEEPS_DEAD ? LA_HEAP_NO_RECOVER : 0);
        if (scenario->prepare)
            scenario->prepare(&actor);
        begin_trace(trace, mode, actor.heap != NULL);
        scenario->act(&actor);
        trace_end();
        die();
    }
    end_victim(pid, course, trace);
    stage_track_made(&actor);
}

static void run_recoverer(struct course *course, struct trace *trace, enum trace_mode mode)
{
    struct actor actor = { .stage = stage };
    int locks[MAX_PEERS];
    pid_t pid = start();

    if (pid == 0) {
        if (stage->peers_alive)
            stage_play_peers(stage, locks);
        stage_attach(&actor, LA_HEAP_NO_RECOVER);
        begin_trace(trace, mode, true);
        la_heap_recover(actor.heap, NULL, NULL);
        trace_end();
        die();
    }
    end_victim(pid, course, trace);
}

static void trace_recovery(struct course *course, const struct images *images, enum trace_mode mode)
{
    struct trace *trace = trace_create(stage->heap_size, MAX_CHANGES);
    struct images during;
    int fd = images_file(images);

    if (!trace)
        stage_fail("no memory for a trace");
    set_path(fd);
    run_recoverer(course, trace, mode);
    close(fd);
    all.recoveries++;
    images_open(&during, trace);
    for (uint32_t number = 2; images_next(&during); number++)
        if (image_set_add(&course->seen, during.hash))
            check_current(course, &during, "recovery of an image, instruction", number, false);
    images_close(&during);
    trace_destroy(trace);
}

/* Which recoveries are traced, and how. */
static void consider_recovery(struct course *course, const struct images *images, uint32_t number)
{
    if (course->scenario->flags & UNFORMATTED)
        return;
    if (full || course->scenario->flags & RECOVER_TRACED)
        trace_recovery(course, images, full && number == 8 && course->scenario->flags & RECOVER_TRACED ? TRACE_STEPS : TRACE_STORES);
}

static void check_images(struct course *course, const struct trace *trace)
{
    struct images images;
    uint32_t number = 0;

    images_open(&images, trace);
    while (images_next(&images))
        if (image_set_add(&course->seen, images.hash)) {
            check_current(course, &images, "instruction", number, true);
            consider_recovery(course, &images, number++);
        }
    images_close(&images);
    if (number < 2)
        report(course, "instruction", 0, 0, "the operation changes nothing: it is not tested");
    if (course->bad == 0 && !(course->scenario->flags & SAME_AFTER) && course->first_live == course->live)
        report(course, "instruction", 0, 0, "after the operation the same blocks are live as before: it is not tested");
    if (!(course->scenario->flags & UNEVEN) && course->least_capacity < course->first_capacity && course->least_capacity < course->capacity) {
        char text[200];

        snprintf(text, sizeof(text), "room for %lu blocks before and %lu after, but %lu in between: something leaks", course->first_capacity,
                 course->capacity, course->least_capacity);
        report(course, "instruction", 0, 0, text);
    }
}

/* ---- the ground ---- */

static void be_peer(const struct scenario *scenario, unsigned i)
{
    struct la_heap_process everybody[2 * MAX_PEERS];
    struct actor actor = { .stage = stage };
    const char *wrong;
    char go;
    int n;

    stage_attach(&actor, LA_HEAP_NO_RECOVER);
    n = la_heap_processes(actor.heap, everybody, 2 * MAX_PEERS);
    for (int j = 0; j < n; j++)
        if (everybody[j].self)
            stage->peer_slot[i] = everybody[j].slot;
    scenario->peers[i](&actor);
    atomic_store(&stage->arrived, i + 1);
    if (scenario->peers_die)
        die();
    /* Until resume_peer(), or for ever. */
    while (read(resume_pipe[0], &go, 1) != 1)
        ;
    wrong = scenario->resume(&actor);
    if (wrong)
        snprintf(stage->verdict.text, sizeof(stage->verdict.text), "%s", wrong);
    _exit(wrong != NULL);
}

static void wait_for_peer(const struct scenario *scenario, pid_t pid, unsigned i)
{
    int status = 0;

    while (scenario->peers_die || atomic_load(&stage->arrived) <= i) {
        if (waitpid(pid, &status, scenario->peers_die ? 0 : WNOHANG) != pid) {
            sched_yield();
            continue;
        }
        if (!scenario->peers_die || !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
            stage_fail("%s: peer %u ended with status %#x", scenario->name, i, status);
        return;
    }
}

/* One after the other, each until it has done its part. */
static void start_peers(const struct scenario *scenario, pid_t pids[MAX_PEERS])
{
    for (unsigned i = 0; i < MAX_PEERS && scenario->peers[i]; i++) {
        pids[i] = start();
        if (pids[i] == 0)
            be_peer(scenario, i);
        stage->peers = i + 1;
        wait_for_peer(scenario, pids[i], i);
    }
    stage->peers_alive = stage->peers && !scenario->peers_die;
}

static void end_peers(const pid_t *pids, unsigned count)
{
    for (unsigned i = 0; stage->peers_alive && i < count; i++) {
        kill(pids[i], SIGKILL);
        waitpid(pids[i], NULL, 0);
    }
}

static int make_heap(const struct scenario *scenario)
{
    uintptr_t base;
    size_t size;
    int fd = memfd_create("crash-heap", MFD_CLOEXEC);

    memset(stage, 0, offsetof(struct stage, tracked));
    stage->heap_size = scenario->heap_size ? scenario->heap_size : LA_HEAP_MIN_SIZE;
    /* No claim: the processes of this test map nothing else, and every process on its own. */
    if (fd < 0 || la_vspace_arena(&base, &size) < 0)
        stage_fail("no heap");
    stage->address = (base + size / 2) & ~(uintptr_t)(LA_VSPACE_GRANULE - 1);
    if (scenario->flags & UNFORMATTED ? ftruncate(fd, (off_t)stage->heap_size) < 0
                                      : la_heap_format(fd, stage->heap_size, stage->address, "crash") < 0)
        stage_fail("no heap");
    set_path(fd);
    return fd;
}

static double seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Prepares the ground and traces the operation on it. */
static struct trace *trace_operation(struct course *course, enum trace_mode mode)
{
    const struct scenario *scenario = course->scenario;
    pid_t peers[MAX_PEERS];
    int fd = make_heap(scenario);
    struct trace *trace = trace_create(stage->heap_size, MAX_CHANGES);

    if (!trace)
        stage_fail("no memory for a trace");
    start_peers(scenario, peers);
    run_victim(course, trace, mode);
    end_peers(peers, stage->peers);
    close(fd);
    return trace;
}

static uint32_t count_images(const struct trace *trace)
{
    struct image_set seen = { 0 };
    struct images images;
    uint32_t n;

    images_open(&images, trace);
    while (images_next(&images))
        image_set_add(&seen, images.hash);
    images_close(&images);
    n = seen.used;
    image_set_free(&seen);
    return n;
}

/* Stops at every instruction and stops at stores must find the same. (Images hold process ids: only their number can be compared.) */
static void compare_modes(struct course *course, const struct trace *trace, enum trace_mode mode)
{
    struct trace *other = trace_operation(course, mode == TRACE_STEPS ? TRACE_STORES : TRACE_STEPS);
    uint32_t expected = count_images(trace), found = count_images(other);
    char text[100];

    snprintf(text, sizeof(text), "%u images, but %u when traced in the other mode", expected, found);
    if (expected != found)
        report(course, "instruction", 0, 0, text);
    trace_destroy(other);
}

/* ---- owners that live ---- */

static bool count_down(void *left)
{
    return --*(uint64_t *)left == 0;
}

/* A victim that dies after its @store-th store into the heap, or after the operation. */
static void run_short_victim(const struct scenario *scenario, uint64_t store)
{
    struct actor actor = { .stage = stage };
    pid_t pid = start();
    int status;

    if (pid == 0) {
        stage_attach(&actor, 0);
        if (scenario->prepare)
            scenario->prepare(&actor);
        stage_die_when(&actor, count_down, &store);
        scenario->act(&actor);
        stage->finished = true;
        die();
    }
    if (waitpid(pid, &status, 0) != pid || !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        stage_fail("%s: the victim ended with status %#x", scenario->name, status);
}

static void recover_by_another(void)
{
    struct actor actor = { .stage = stage };
    pid_t pid = start();

    if (pid == 0) {
        stage_attach(&actor, LA_HEAP_NO_RECOVER);
        if (la_heap_recover(actor.heap, NULL, NULL) != 1)
            stage_fail("nobody to recover");
        la_heap_detach(actor.heap);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
}

/* An image cannot say what a process that lives remembers: so here the victim really dies, after each store in turn. */
static void resume_peer(struct course *course)
{
    const struct scenario *scenario = course->scenario;

    for (uint64_t store = 1; store == 1 || !stage->finished; store++) {
        pid_t peers[MAX_PEERS];
        int fd = make_heap(scenario), status;

        start_peers(scenario, peers);
        run_short_victim(scenario, store);
        recover_by_another();
        all.checks++;
        if (write(resume_pipe[1], "", 1) != 1 || waitpid(peers[0], &status, 0) != peers[0])
            abort();
        if (!WIFEXITED(status))
            report(course, "after store", store, 0, "the peer that lives crashes");
        else if (WEXITSTATUS(status) != 0)
            report(course, "after store", store, 0, stage->verdict.text);
        end_peers(peers + 1, stage->peers - 1);
        close(fd);
    }
}

static void run_scenario(const struct scenario *scenario)
{
    enum trace_mode mode = full || steps || scenario->flags & NEEDS_STEPS ? TRACE_STEPS : TRACE_STORES;
    struct course course = { .scenario = scenario };
    double begin = seconds();
    struct trace *trace;

    if (!(scenario->flags & NEEDS_STEPS) && (full || scenario->flags & COMPARED)) {
        struct trace *first_trace = trace_operation(&course, mode);

        compare_modes(&course, first_trace, mode);
        trace_destroy(first_trace);
    }
    trace = trace_operation(&course, mode);
    check_images(&course, trace);
    trace_destroy(trace);
    if (scenario->resume)
        resume_peer(&course);
    all.paths++;
    all.instructions += course.steps;
    all.images += course.seen.used;
    all.bad += course.bad;
    printf("%s %u - %s: %lu %s, %u images, %lu bad (%.2f s)\n", course.bad ? "not ok" : "ok", all.paths, scenario->name, course.steps,
           mode == TRACE_STEPS ? "instructions" : "stores", course.seen.used, course.bad, seconds() - begin);
    image_set_free(&course.seen);
}

static void print_totals(double begin)
{
    struct rusage self, children;

    getrusage(RUSAGE_SELF, &self);
    getrusage(RUSAGE_CHILDREN, &children);
    printf("1..%u\n# %u paths, %lu instructions stopped at, %lu recoveries traced, %lu distinct images, %lu checks, %lu bad\n", all.paths,
           all.paths, all.instructions, all.recoveries, all.images, all.checks, all.bad);
    printf("# %.0f s, %ld s of CPU\n", seconds() - begin,
           self.ru_utime.tv_sec + self.ru_stime.tv_sec + children.ru_utime.tv_sec + children.ru_stime.tv_sec);
}

/* ---- options ---- */

static bool is_wanted(const struct scenario *scenario, int count, char **prefixes)
{
    for (int i = 0; i < count; i++)
        if (strncmp(scenario->name, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    return count == 0 && (full || !(scenario->flags & LONG));
}

/* memset() by vector stores: by "rep stosb" each byte would be an instruction's worth of stepping. Read by the loader, so start again. */
static void without_rep(char **argv)
{
    if (getenv("GLIBC_TUNABLES"))
        return;
    setenv("GLIBC_TUNABLES", "glibc.cpu.x86_rep_stosb_threshold=1000000000:glibc.cpu.x86_rep_movsb_threshold=1000000000", 1);
    execv("/proc/self/exe", argv);
}

static bool read_option(const char *word)
{
    bool *options[] = { &full, &steps, &first, &list };
    static const char *const words[] = { "--full", "--steps", "--first", "--list" };

    for (unsigned i = 0; i < sizeof(options) / sizeof(*options); i++)
        if (strcmp(word, words[i]) == 0)
            return *options[i] = true;
    return false;
}

static void print_list(void)
{
    for (unsigned i = 0; i < scenario_count; i++)
        puts(scenarios[i].name);
}

int main(int argc, char **argv)
{
    const char *wish = getenv("LA_CRASH_IMAGES");
    double begin = seconds();

    without_rep(argv);
    setvbuf(stdout, NULL, _IOLBF, 0);
    full = wish && strcmp(wish, "full") == 0;
    for (; argc > 1 && argv[1][0] == '-'; argc--, argv++)
        if (!read_option(argv[1])) {
            fprintf(stderr, "usage: crash_images [--full] [--steps] [--first] [--list] [SCENARIO-PREFIX...]\n");
            return 2;
        }
    if (list) {
        print_list();
        return 0;
    }
    stage = mmap(NULL, sizeof(*stage), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (stage == MAP_FAILED)
        return 1;
    start_checkers();
    if (pipe(resume_pipe) < 0)
        return 1;
    for (unsigned i = 0; i < scenario_count; i++)
        if (is_wanted(&scenarios[i], argc - 1, argv + 1))
            run_scenario(&scenarios[i]);
    stop_checkers();
    print_totals(begin);
    return all.bad != 0 || all.paths == 0;
}
