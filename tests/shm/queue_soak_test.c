/*
 * Random SIGKILL and SIGSTOP among the producers, movers and consumers of two queues.
 *
 * Two processes push numbered objects into one queue, two move them to a second, two take them out. One after the other is killed at a random
 * moment and replaced, or stopped for a while: the others must get on meanwhile, without anybody's help. All keep a ledger in memory of their
 * own, outside the heap. From time to time everybody is killed and the queues are drained: no object may have come out twice, or be missing but
 * for those that a dead process had taken, and the heap must balance to the block.
 *
 * $LIBALLOC_SOAK_ROUNDS and $LIBALLOC_SOAK_SEED: how long, and which.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <liballoc/liballoc.h>

#include "../support/kill.h"
#include "../support/random.h"

enum { ROLES = 3, WORKERS = 2 * ROLES, PRODUCERS = 2, CAPACITY = 7, AUDIT_EVERY = 50, MAX_NUMBERS = 1 << 23 };
enum { PUSHED = 1, CAME_OUT = 2 };

struct object {
    struct object *part;        /* of a bundle */
    uint32_t producer, number;
    uint64_t size, check;
};

/* Outside the heap, as its content is what is tested. */
struct ledger {
    _Atomic(uint64_t) out;                          /* objects that came out */
    _Atomic(uint32_t) next[PRODUCERS];
    _Atomic(uint8_t) fate[PRODUCERS][MAX_NUMBERS];
};

static char heap_name[64];
static struct ledger *ledger;
static struct la_queue *queues[2];

static size_t random_size(uint64_t *state)
{
    uint64_t r = next_random(state) % 1000;

    return r < 970 ? sizeof(struct object) + r : r < 997 ? 4096 * (1 + r % 8) : 100000;
}

static void give_up(const char *what)
{
    fprintf(stderr, "cannot %s: %s\n", what, la_last_error());
    abort();
}

static struct object *fill(struct object *o, size_t size, unsigned producer, uint32_t number)
{
    if (!o)
        give_up("allocate");
    *o = (struct object){ .producer = producer, .number = number, .size = size, .check = ~size };
    return o;
}

static void push_one(struct la_heap *heap, unsigned producer, uint32_t number, uint64_t *state)
{
    size_t size = random_size(state);

    if (la_queue_push(heap, queues[0], fill(la_heap_hold(heap, size), size, producer, number), LA_FOREVER) != 0)
        give_up("push");
}

static void push_bundle(struct la_heap *heap, unsigned producer, uint32_t number)
{
    struct la_bundle *bundle;
    struct object *o;

    if (la_bundle_begin(heap, &bundle) < 0)
        give_up("bundle");
    o = fill(la_bundle_alloc(bundle, sizeof(*o)), sizeof(*o), producer, number);
    o->part = fill(la_bundle_alloc(bundle, 200), 200, producer, number);
    if (la_queue_push_bundle(queues[0], bundle, o, LA_FOREVER) != 0)
        give_up("push");
}

static void produce(struct la_heap *heap, unsigned producer, bool bundles, uint64_t *state)
{
    uint32_t number = atomic_fetch_add(&ledger->next[producer], 1);

    if (number >= MAX_NUMBERS) {
        fprintf(stderr, "the ledger is full\n");
        abort();
    }
    if (bundles && next_random(state) % 2)
        push_bundle(heap, producer, number);
    else
        push_one(heap, producer, number, state);
    atomic_fetch_or(&ledger->fate[producer][number], PUSHED);
}

/* @last: what this process took before, by producer. */
static struct object *pop(struct la_heap *heap, struct la_queue *queue, int64_t timeout, int64_t last[PRODUCERS])
{
    struct object *o;
    void *block;
    int r = la_queue_pop(heap, queue, timeout, &block);

    if (r == -EAGAIN)
        return NULL;
    o = block;
    if (r != 0 || o->check != ~o->size || o->producer >= PRODUCERS || (o->part && o->part->number != o->number)) {
        fprintf(stderr, "pop: %d, %s\n", r, r ? la_last_error() : "no object of ours");
        abort();
    }
    /* Movers change the order of a producer's objects in the second queue, as there are two. */
    if (queue == queues[0] && o->number <= last[o->producer]) {
        fprintf(stderr, "producer %u: %u after %ld\n", o->producer, o->number, (long)last[o->producer]);
        abort();
    }
    last[o->producer] = o->number;
    return o;
}

static void end(struct object *o)
{
    if (atomic_fetch_or(&ledger->fate[o->producer][o->number], CAME_OUT) & CAME_OUT) {
        fprintf(stderr, "producer %u: %u came out twice\n", o->producer, o->number);
        abort();
    }
    atomic_fetch_add(&ledger->out, 1);
    la_free(o->part);
    la_free(o);
}

static void work(struct la_heap *heap, unsigned worker, bool bundles, uint64_t seed)
{
    int64_t last[PRODUCERS] = { -1, -1 };

    for (uint64_t state = seed;; ) {
        if (next_random(&state) % 64 == 0)
            la_heap_recover(heap, NULL, NULL);
        if (worker / 2 == 0)
            produce(heap, worker, bundles, &state);
        else if (worker / 2 == 1) {
            struct object *o = pop(heap, queues[0], LA_FOREVER, last);

            if (la_queue_push(heap, queues[1], o, LA_FOREVER) != 0)
                give_up("move");
        } else
            end(pop(heap, queues[1], LA_FOREVER, last));
    }
}

static void map_ledger(int fd)
{
    ledger = mmap(NULL, sizeof(*ledger), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (ledger == MAP_FAILED)
        abort();
}

static void open_queues(struct la_heap *heap)
{
    if (la_queue_open(heap, "first", &queues[0]) < 0 || la_queue_open(heap, "second", &queues[1]) < 0)
        abort();
}

/* HEAP LEDGER-FD WORKER BUNDLES SEED */
static int worker_main(char **argv)
{
    struct la_heap *heap;

    map_ledger(atoi(argv[2]));
    if (la_heap_attach(argv[1], 0, &heap) < 0) {
        fprintf(stderr, "worker: %s\n", la_last_error());
        return 1;
    }
    open_queues(heap);
    work(heap, (unsigned)atoi(argv[3]), argv[4][0] == '1', strtoull(argv[5], NULL, 10));
    return 0;
}

static pid_t start_worker(unsigned worker, int fd, bool bundles, uint64_t seed)
{
    pid_t parent = getpid(), pid;
    char words[4][24];

    snprintf(words[0], sizeof(words[0]), "%d", fd);
    snprintf(words[1], sizeof(words[1]), "%u", worker);
    snprintf(words[2], sizeof(words[2]), "%d", bundles);
    snprintf(words[3], sizeof(words[3]), "%llu", (unsigned long long)seed | 1);
    pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);   /* a test that fails leaves nobody behind */
        if (getppid() != parent)
            _exit(1);
        execl("/proc/self/exe", "worker", heap_name, words[0], words[1], words[2], words[3], (char *)NULL);
        _exit(127);
    }
    assert_true(pid > 0);
    return pid;
}

/* It has not ended by itself, or aborted. */
static void assert_alive(pid_t pid)
{
    int status = 0;

    if (waitpid(pid, &status, WNOHANG) != 0)
        fail_msg("a worker ended with status %#x", status);
}

/* What was in the queues comes out, and more: all three roles get on. */
static void wait_for_progress(const pid_t *workers)
{
    uint64_t goal = atomic_load(&ledger->out) + 4 * CAPACITY;

    while (atomic_load(&ledger->out) < goal) {
        struct timespec pause = { .tv_nsec = 100000 };

        for (unsigned i = 0; i < WORKERS; i++)
            assert_alive(workers[i]);
        nanosleep(&pause, NULL);
    }
}

static void print_finding(void *user, const char *line)
{
    (void)user;
    print_error("%s\n", line);
}

/* Nobody is attached but us; of @kills processes that were killed since the last audit each may have had one object in its hands. */
static void audit(struct la_heap *heap, unsigned kills, bool bundles)
{
    struct la_fsck counts = { .struct_size = sizeof(counts) };
    int64_t none[PRODUCERS] = { -1, -1 };
    unsigned missing = 0;
    struct object *o;

    assert_true(la_heap_recover(heap, NULL, NULL) >= 0);
    for (int i = 0; i < 2; i++)
        while ((o = pop(heap, queues[i], LA_TRY, none)) != NULL)
            end(o);
    for (unsigned p = 0; p < PRODUCERS; p++) {
        uint32_t n = atomic_load(&ledger->next[p]);

        for (uint32_t i = 0; i < n; i++)
            missing += atomic_load(&ledger->fate[p][i]) == PUSHED;
        memset((void *)ledger->fate[p], 0, n);
        atomic_store(&ledger->next[p], 0);
    }
    assert_true(missing <= kills);
    assert_int_equal(la_heap_fsck(heap, print_finding, NULL, &counts), 0);
    assert_int_equal(counts.blocks[1], 0);
    assert_int_equal(counts.blocks[2], 0);
    /* The two queues. Of a bundle whose root had been popped the part outlives a kill: the one leak that the policy states. */
    assert_in_range(counts.blocks[3], 2, 2 + (bundles ? kills : 0));
    if (bundles) {
        assert_int_equal(la_heap_reset(heap), 0);
        for (int i = 0; i < 2; i++)
            assert_int_equal(la_queue_create(heap, i ? "second" : "first", CAPACITY, &queues[i]), 0);
    }
}

static uint64_t number_from(const char *variable, uint64_t otherwise)
{
    const char *text = getenv(variable);

    return text ? strtoull(text, NULL, 10) : otherwise;
}

static void nothing_is_lost_or_doubled_and_nobody_is_in_the_way(void **state)
{
    uint64_t rounds = number_from("LIBALLOC_SOAK_ROUNDS", 1500), random;
    unsigned kills = 0;
    struct timespec now;
    struct la_heap *heap;
    pid_t workers[WORKERS];
    bool bundles = false;
    int fd = memfd_create("ledger", 0);

    (void)state;
    clock_gettime(CLOCK_REALTIME, &now);
    random = number_from("LIBALLOC_SOAK_SEED", (uint64_t)now.tv_nsec) | 1;
    print_message("LIBALLOC_SOAK_SEED=%llu\n", (unsigned long long)random);
    assert_int_equal(ftruncate(fd, sizeof(*ledger)), 0);
    map_ledger(fd);
    snprintf(heap_name, sizeof(heap_name), "queue-soak-%d", getpid());
    assert_int_equal(la_heap_create(heap_name, (size_t)128 << 20, 0, &heap), 0);
    assert_int_equal(la_queue_create(heap, "first", CAPACITY, &queues[0]), 0);
    assert_int_equal(la_queue_create(heap, "second", CAPACITY, &queues[1]), 0);
    for (unsigned i = 0; i < WORKERS; i++)
        workers[i] = start_worker(i, fd, bundles, next_random(&random));
    for (uint64_t round = 1; round <= rounds; round++) {
        unsigned victim = next_random(&random) % WORKERS;
        struct timespec pause = { .tv_nsec = 1 + (long)(next_random(&random) % 3000000) };

        nanosleep(&pause, NULL);    /* the random moment */
        if (next_random(&random) % 4 == 0) {
            kill(workers[victim], SIGSTOP);
            wait_for_progress(workers);
            kill(workers[victim], SIGCONT);
        } else {
            kill_worker(workers[victim]);
            kills++;
            workers[victim] = start_worker(victim, fd, bundles, next_random(&random));
            wait_for_progress(workers);
        }
        if (round % AUDIT_EVERY && round != rounds)
            continue;
        for (unsigned i = 0; i < WORKERS; i++)
            kill_worker(workers[i]);
        audit(heap, kills + WORKERS, bundles);
        bundles = !bundles;
        kills = 0;
        for (unsigned i = 0; i < WORKERS; i++)
            workers[i] = start_worker(i, fd, bundles, next_random(&random));
    }
    for (unsigned i = 0; i < WORKERS; i++)
        kill_worker(workers[i]);
    la_heap_recover(heap, NULL, NULL);
    print_message("%llu objects came out\n", (unsigned long long)atomic_load(&ledger->out));
    assert_int_equal(la_heap_detach(heap), 0);
    assert_int_equal(la_heap_remove(heap_name), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_lost_or_doubled_and_nobody_is_in_the_way),
    };

    if (argc == 6)
        return worker_main(argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
