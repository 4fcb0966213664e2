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
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "checkers.h"
#include "ground.h"
#include "image.h"
#include "trace.h"

enum { MAX_CHANGES = 1 << 18, MAX_REPORTS = 5 };

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
    if (course->scenario->flags & NUMBERED && verdict->happened != (verdict->live != course->first_live))
        report(course, "instruction", images->step, images->at,
               verdict->happened ? "it has not happened, but is said to" : "it has happened, but is not said to");
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
        ground_set_path(stage, fd);
        all.checks++;
        if (!checkers_check(stage, course->scenario, flags ? flags : CHECK_CAPACITY))
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

static void run_victim(struct course *course, struct trace *trace, enum trace_mode mode)
{
    const struct scenario *scenario = course->scenario;
    struct actor actor = { .stage = stage };
    pid_t pid = ground_fork();

    if (pid == 0) {
        if (!(scenario->flags & ATTACHES))
            stage_attach(&actor, scenario->flags & KEEPS_DEAD ? LA_HEAP_NO_RECOVER : 0);
        if (scenario->prepare)
            scenario->prepare(&actor);
        if (scenario->flags & NUMBERED && la_heap_operation(actor.heap, STAGE_OPERATION) < 0)
            stage_fail("operation");
        begin_trace(trace, mode, actor.heap != NULL);
        scenario->act(&actor);
        trace_end();
        ground_die();
    }
    end_victim(pid, course, trace);
    stage_track_made(&actor);
}

static void run_recoverer(struct course *course, struct trace *trace, enum trace_mode mode)
{
    struct actor actor = { .stage = stage };
    int locks[MAX_PEERS];
    pid_t pid = ground_fork();

    if (pid == 0) {
        if (stage->peers_alive)
            stage_play_peers(stage, locks);
        stage_attach(&actor, LA_HEAP_NO_RECOVER);
        begin_trace(trace, mode, true);
        la_heap_recover(actor.heap, NULL, NULL);
        trace_end();
        ground_die();
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
    ground_set_path(stage, fd);
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
    if (course->scenario->flags & (UNFORMATTED | STORES_ONLY))
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

/* ---- paths ---- */

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
    int fd = ground_make_heap(stage, scenario);
    struct trace *trace = trace_create(stage->heap_size, MAX_CHANGES);

    if (!trace)
        stage_fail("no memory for a trace");
    ground_start_peers(stage, scenario, peers);
    run_victim(course, trace, mode);
    ground_end_peers(stage, peers, stage->peers);
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

/* How many images the operation has when it is traced in the other mode; 0: not asked for. */
static uint32_t count_otherwise(struct course *course, enum trace_mode mode)
{
    struct trace *other;
    uint32_t n;

    if (course->scenario->flags & (NEEDS_STEPS | STORES_ONLY) || !(full || course->scenario->flags & COMPARED))
        return 0;
    other = trace_operation(course, mode == TRACE_STEPS ? TRACE_STORES : TRACE_STEPS);
    n = count_images(other);
    trace_destroy(other);
    return n;
}

/* Stops at every instruction and stops at stores must find the same. (Images hold process ids: only their number can be compared.) */
static void compare_modes(struct course *course, const struct trace *trace, uint32_t expected)
{
    uint32_t found = count_images(trace);
    char text[100];

    snprintf(text, sizeof(text), "%u images, but %u when traced in the other mode", found, expected);
    if (expected && found != expected)
        report(course, "instruction", 0, 0, text);
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
    pid_t pid = ground_fork();
    int status;

    if (pid == 0) {
        stage_attach(&actor, 0);
        if (scenario->prepare)
            scenario->prepare(&actor);
        stage_die_when(&actor, count_down, &store);
        scenario->act(&actor);
        stage->finished = true;
        ground_die();
    }
    if (waitpid(pid, &status, 0) != pid || !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        stage_fail("%s: the victim ended with status %#x", scenario->name, status);
}

static void recover_by_another(void)
{
    struct actor actor = { .stage = stage };
    pid_t pid = ground_fork();

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
        int fd = ground_make_heap(stage, scenario), status;

        ground_start_peers(stage, scenario, peers);
        run_short_victim(scenario, store);
        recover_by_another();
        all.checks++;
        status = ground_resume_peer(peers[0]);
        if (!WIFEXITED(status))
            report(course, "after store", store, 0, "the peer that lives crashes");
        else if (WEXITSTATUS(status) != 0)
            report(course, "after store", store, 0, stage->verdict.text);
        ground_end_peers(stage, peers + 1, stage->peers - 1);
        close(fd);
    }
}

static enum trace_mode choose_mode(const struct scenario *scenario)
{
    if (scenario->flags & NEEDS_STEPS)
        return TRACE_STEPS;
    return (full || steps) && !(scenario->flags & STORES_ONLY) ? TRACE_STEPS : TRACE_STORES;
}

static void run_scenario(const struct scenario *scenario)
{
    enum trace_mode mode = choose_mode(scenario);
    struct course course = { .scenario = scenario };
    double begin = seconds();
    struct trace *trace;
    uint32_t otherwise;

    otherwise = count_otherwise(&course, mode);
    trace = trace_operation(&course, mode);
    compare_modes(&course, trace, otherwise);
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
    checkers_start(stage);
    for (unsigned i = 0; i < scenario_count; i++)
        if (is_wanted(&scenarios[i], argc - 1, argv + 1))
            run_scenario(&scenarios[i]);
    checkers_stop();
    print_totals(begin);
    return all.bad != 0 || all.paths == 0;
}
