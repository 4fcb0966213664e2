/*
 * main.c - a service of several processes on one heap of the daemon, of which one is killed every second.
 *
 *   service [OPTION...]
 *   --seconds N     end after that time (10)
 *   --kills N       end when so many were killed (0: never)
 *   --every MS      kill one each MS milliseconds (1000)
 *   --producers N   (3)
 *   --consumers N   (3)
 *   --seed N        who is killed (1)
 *
 * The daemon is the one at the usual socket; `run`, beside this file, starts one. To be watched with `shms top`.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "service.h"

static const size_t HEAP_SIZE = (size_t)64 << 20;
enum { PATIENCE_MS = 30000 };

extern char **environ;

struct options {
    unsigned seconds, kills, every_ms, producers, consumers, seed;
};

/* A place among the workers: first the producers, then the consumers. */
struct post {
    pid_t pid;
    uint32_t worker;            /* number of who has it; none comes twice */
};

static struct post posts[PRODUCERS_MAX + CONSUMERS_MAX];
static uint32_t last_worker;
static char heap_name[64];

_Noreturn void fail(const char *what)
{
    fprintf(stderr, "service, process %d: %s: %s\n", (int)getpid(), what, la_last_error());
    exit(EXIT_FAILURE);
}

static uint64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- the heap ---- */

static void enter(struct place *place, const char *name, size_t size)
{
    if (shms_connect(NULL, &place->client) < 0 || shms_heap_open(place->client, name, size, size ? SHMS_CREATE_ONLY : 0, &place->heap) < 0)
        fail("heap");
}

static void furnish(struct place *place, unsigned producers)
{
    la_link *root;
    struct office *office;

    if (la_heap_root(place->heap, "office", &root) < 0 || la_queue_create(place->heap, "tickets", TICKETS, &place->tickets) < 0)
        fail("roots");
    office = la_heap_hold(place->heap, sizeof(*office));
    if (!office)
        fail("no room for the office");
    memset(office, 0, sizeof(*office));
    office->producers = producers;
    if (la_publish(place->heap, root, NULL, office) < 0)
        fail("publish");
    place->office = office;
}

static void find(struct place *place)
{
    la_link *root;

    if (la_heap_root(place->heap, "office", &root) < 0 || la_queue_open(place->heap, "tickets", &place->tickets) < 0)
        fail("roots");
    place->office = la_load(place->heap, root);
}

/* ---- workers: service HEAP produce|consume NUMBER, where NUMBER is the desk or the worker ---- */

static int be_worker(char **argv)
{
    struct place place;
    uint32_t number = (uint32_t)strtoul(argv[3], NULL, 10);

    prctl(PR_SET_PDEATHSIG, SIGTERM);
    prctl(PR_SET_NAME, argv[2]);        /* for `shms clients` */
    enter(&place, argv[1], 0);
    find(&place);
    return strcmp(argv[2], "produce") == 0 ? produce(&place, number) : consume(&place, number);
}

static void hire(const struct options *options, unsigned post)
{
    const bool is_producer = post < options->producers;
    char number[16];
    char *argv[] = { (char *)"service", heap_name, (char *)(is_producer ? "produce" : "consume"), number, NULL };

    posts[post].worker = ++last_worker;
    snprintf(number, sizeof(number), "%u", is_producer ? post : last_worker);
    if (posix_spawn(&posts[post].pid, "/proc/self/exe", NULL, NULL, argv, environ) != 0)
        fail("spawn");
}

/* ---- the supervisor ---- */

struct shift {
    struct place place;
    struct books books;
    unsigned killed;
    bool tickets_due;           /* some may have gone down with a consumer */
    uint64_t told;              /* books.collected when it was told last */
};

static void kill_one(const struct options *options, struct shift *shift)
{
    unsigned post = (unsigned)rand() % (options->producers + options->consumers);
    int status;

    kill(posts[post].pid, SIGKILL);
    if (waitpid(posts[post].pid, &status, 0) != posts[post].pid || !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
        fprintf(stderr, "service: worker %u has failed by itself\n", posts[post].worker);
        exit(EXIT_FAILURE);
    }
    take_claims_back(&shift->place, posts[post].worker);
    shift->tickets_due = true;
    shift->killed++;
    hire(options, post);
}

static void tell(struct shift *shift, unsigned second)
{
    struct la_heap_info info = { .struct_size = sizeof(info) };
    struct la_queue_info queue = { .struct_size = sizeof(queue) };

    la_heap_info(shift->place.heap, &info);
    la_queue_info(shift->place.heap, shift->place.tickets, &queue);
    printf("%4u s: %9" PRIu64 " orders done, %7" PRIu64 " in this second; %4" PRIu64 " tickets wait; %3u killed; of the dead %" PRIu64
           " blocks freed\n", second, shift->books.collected, shift->books.collected - shift->told, queue.length, shift->killed, info.recovered_blocks);
    fflush(stdout);
    shift->told = shift->books.collected;
}

/* Take what is done, or wait a little. Return: number of orders. */
static unsigned long look_after(struct shift *shift)
{
    unsigned long n;

    if (shift->tickets_due)
        shift->tickets_due = !write_tickets_again(&shift->place);
    n = collect(&shift->place, &shift->books);
    if (n == 0)
        nanosleep(&(struct timespec){ .tv_nsec = 500000 }, NULL);
    return n;
}

static void work(const struct options *options, struct shift *shift)
{
    uint64_t begin = now_ms(), next_kill = begin + options->every_ms, end = begin + (uint64_t)options->seconds * 1000;
    unsigned second = 0;

    while (now_ms() < end && (!options->kills || shift->killed < options->kills)) {
        look_after(shift);
        if (now_ms() >= next_kill) {
            kill_one(options, shift);
            next_kill += options->every_ms;
        }
        if ((now_ms() - begin) / 1000 > second)
            tell(shift, ++second);
    }
}

static void dismiss(unsigned from, unsigned to)
{
    int status;

    for (unsigned i = from; i < to; i++)
        if (waitpid(posts[i].pid, &status, 0) != posts[i].pid || status != 0) {
            fprintf(stderr, "service: worker %u ended with status %#x\n", posts[i].worker, (unsigned)status);
            exit(EXIT_FAILURE);
        }
}

/* An order that nobody works on any more is lost. */
static void finish_orders(struct shift *shift)
{
    uint64_t patience = now_ms() + PATIENCE_MS;

    while (!all_collected(&shift->place, &shift->books))
        if (look_after(shift) > 0)
            patience = now_ms() + PATIENCE_MS;
        else if (now_ms() > patience) {
            fprintf(stderr, "service: %" PRIu64 " orders were done, nobody does the rest\n", shift->books.collected);
            exit(EXIT_FAILURE);
        }
}

/* Producers first; what they have issued is worked off; then the consumers. */
static void close_down(const struct options *options, struct shift *shift)
{
    atomic_store(&shift->place.office->closing, true);
    dismiss(0, options->producers);
    finish_orders(shift);
    la_queue_close(shift->place.heap, shift->place.tickets);
    dismiss(options->producers, options->producers + options->consumers);
    /* Tickets that nobody needed. */
    for (void *ticket; la_queue_pop(shift->place.heap, shift->place.tickets, LA_TRY, &ticket) == 0;)
        la_free(ticket);
    /* The daemon recovers the dead by itself, and is asked not to wait with the last of them. */
    if (shms_gc(shift->place.client, NULL, NULL) < 0)
        fail("gc");
}

static int serve(const struct options *options)
{
    static struct shift shift;
    long blocks;
    bool good;

    snprintf(heap_name, sizeof(heap_name), "service-%d", (int)getpid());
    enter(&shift.place, heap_name, HEAP_SIZE);
    furnish(&shift.place, options->producers);
    books_begin(&shift.books);
    blocks = la_heap_walk(shift.place.heap, NULL, NULL);
    srand(options->seed);
    for (unsigned i = 0; i < options->producers + options->consumers; i++)
        hire(options, i);
    work(options, &shift);
    close_down(options, &shift);
    good = audit(&shift.place, &shift.books, blocks);
    printf("%s: %u killed, nothing %s\n", good ? "ok" : "FAILED", shift.killed, good ? "lost, nothing twice" : "is as it should be");
    shms_heap_remove(shift.place.client, heap_name);
    shms_heap_close(shift.place.client, shift.place.heap);
    shms_disconnect(shift.place.client);
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}

static unsigned number(const char *text, unsigned min, unsigned max)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);

    if (end == text || *end || value < min || value > max) {
        fprintf(stderr, "service: \"%s\" is no number from %u to %u\n", text, min, max);
        exit(2);
    }
    return (unsigned)value;
}

int main(int argc, char **argv)
{
    struct options options = { .seconds = 10, .every_ms = 1000, .producers = 3, .consumers = 3, .seed = 1 };
    static const struct option long_options[] = {
        { "seconds", required_argument, NULL, 's' }, { "kills", required_argument, NULL, 'k' }, { "every", required_argument, NULL, 'e' },
        { "producers", required_argument, NULL, 'p' }, { "consumers", required_argument, NULL, 'c' }, { "seed", required_argument, NULL, 'r' }, { 0 },
    };

    if (argc == 4 && strncmp(argv[1], "--", 2) != 0)
        return be_worker(argv);
    for (int c; (c = getopt_long(argc, argv, "", long_options, NULL)) != -1;)
        if (c == 's')
            options.seconds = number(optarg, 1, 1u << 20);
        else if (c == 'k')
            options.kills = number(optarg, 0, 1u << 20);
        else if (c == 'e')
            options.every_ms = number(optarg, 1, 1u << 20);
        else if (c == 'p')
            options.producers = number(optarg, 1, PRODUCERS_MAX);
        else if (c == 'c')
            options.consumers = number(optarg, 1, CONSUMERS_MAX);
        else if (c == 'r')
            options.seed = number(optarg, 0, UINT32_MAX);
        else
            return 2;
    return serve(&options);
}
