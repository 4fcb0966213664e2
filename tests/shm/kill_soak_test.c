/*
 * Random SIGKILL among processes that work on one heap.
 *
 * Four unrelated processes (fork and exec) push, take, replace and bundle objects on shared stacks, swap a root and pass objects through a queue,
 * while one after the other is killed at a random moment and replaced. Survivors recover the dead as they go, without a pause. From time to time
 * everybody is killed, and the heap must balance: no block held or in doubt, and exactly the blocks that the roots reach are allocated. Nothing is
 * ever reset, so what a kill leaves behind would add up: LIBALLOC_SOAK_ROUNDS=100000 for as many kills, LIBALLOC_SOAK_PAUSE: microseconds between two, at most.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <liballoc/liballoc.h>

#include "../support/kill.h"
#include "../support/random.h"

enum { WORKERS = 4, STACKS = 8, AUDIT_EVERY = 100, CAPACITY = 50 };

struct object {
    struct object *next;
    struct object *part;    /* of a bundle: another block of the same object */
    uint64_t size, check;
};

static char heap_name[64];
static la_link *stacks[STACKS], *table;     /* table: an object whose next is the root's version */
static struct la_queue *queue;

static void find_roots(struct la_heap *heap)
{
    for (int i = 0; i < STACKS; i++) {
        char name[16];

        snprintf(name, sizeof(name), "stack%d", i);
        if (la_heap_root(heap, name, &stacks[i]) < 0)
            abort();
    }
    if (la_heap_root(heap, "table", &table) < 0 || la_queue_open(heap, "queue", &queue) < 0)
        abort();
}

static size_t random_size(uint64_t *state)
{
    uint64_t r = next_random(state) % 1000;

    return r < 900 ? sizeof(struct object) + r : r < 990 ? 4096 * (1 + r % 8) : r < 998 ? 100000 : (size_t)3 << 20;
}

static struct object *fill(struct object *o, size_t size)
{
    if (!o)
        return NULL;
    *o = (struct object){ .size = size, .check = ~size };
    if (size > sizeof(*o))
        ((char *)o)[size - 1] = 1;
    return o;
}

static void verify(const struct object *o)
{
    if (o->check != ~o->size || (o->part && o->part->check != ~o->part->size))
        abort();
}

static void push_one(struct la_heap *heap, uint64_t *state)
{
    size_t size = random_size(state);
    struct object *o = fill(la_heap_hold(heap, size), size);

    if (o && la_push(heap, stacks[next_random(state) % STACKS], o, offsetof(struct object, next)) < 0)
        abort();
}

static void push_bundle(struct la_heap *heap, uint64_t *state)
{
    la_link *stack = stacks[next_random(state) % STACKS];
    struct la_bundle *bundle;
    struct object *o;

    if (la_bundle_begin(heap, &bundle) < 0)
        return;
    o = fill(la_bundle_alloc(bundle, sizeof(*o)), sizeof(*o));
    if (o)
        o->part = fill(la_bundle_alloc(bundle, 200), 200);
    if (!o || !o->part) {
        la_bundle_abort(bundle);
        return;
    }
    do
        o->next = la_load(heap, stack);
    while (la_bundle_publish(bundle, stack, o->next, o) == -EAGAIN);
}

/* The part must never be lost: it is freed first, by the one that took the object. */
static void free_object(struct object *o)
{
    verify(o);
    if (o->part) {
        struct object *part = o->part;
        o->part = NULL;
        la_free(part);
    }
    la_free(o);
}

static struct object *read_table(struct la_heap *heap, uint64_t *version)
{
    void *value;

    if (la_root_read(heap, table, &value, version) < 0)
        abort();
    return value;
}

static void swap_table(struct la_heap *heap, uint64_t *state)
{
    size_t size = random_size(state);
    struct object *o = fill(la_heap_hold(heap, size), size);
    uint64_t version;
    void *old;

    if (!o)
        return;
    read_table(heap, &version);
    o->next = (struct object *)(version + 1);
    if (la_root_swap(heap, table, version, o, &old) < 0) {
        la_free(o);
        return;
    }
    if (old && (uint64_t)((struct object *)old)->next != version)
        abort();
    if (old)
        free_object(old);
}

static void push_in_queue(struct la_heap *heap, uint64_t *state)
{
    size_t size = random_size(state);
    struct object *o = fill(la_heap_hold(heap, size), size);

    if (o && la_queue_push(heap, queue, o, LA_TRY) < 0)
        la_free(o);
}

static void pop_from_queue(struct la_heap *heap)
{
    void *block;

    if (la_queue_pop(heap, queue, LA_TRY, &block) == 0)
        free_object(block);
}

static void work(struct la_heap *heap, uint64_t seed)
{
    void *held[32] = { 0 };

    for (uint64_t state = seed;;) {
        uint64_t r = next_random(&state);
        struct object *o;

        switch (r % 11) {
        case 0:
        case 1:
            push_one(heap, &state);
            break;
        case 2:
            push_bundle(heap, &state);
            break;
        case 3:
        case 4:
        case 5:
            o = la_take(heap, stacks[r / 8 % STACKS], offsetof(struct object, next));
            if (o && o->part)
                free_object(o);     /* a kill in between loses the part's owner, not the part: see audit() */
            else if (o && r / 64 % 2)
                free_object(o);
            else if (o)
                la_push(heap, stacks[r / 128 % STACKS], o, offsetof(struct object, next));
            break;
        case 6:
            la_free(held[r / 8 % 32]);
            held[r / 8 % 32] = la_heap_hold(heap, random_size(&state));
            break;
        case 7:
            swap_table(heap, &state);
            break;
        case 8:
            push_in_queue(heap, &state);
            break;
        case 9:
            pop_from_queue(heap);
            break;
        default:
            if (r / 8 % 16 == 0)
                la_heap_recover(heap, NULL, NULL);
        }
    }
}

static int worker_main(const char *name, const char *seed)
{
    struct la_heap *heap;

    prctl(PR_SET_PDEATHSIG, SIGKILL);   /* a test that fails leaves nobody behind */
    if (la_heap_attach(name, 0, &heap) < 0) {
        fprintf(stderr, "worker: %s\n", la_last_error());
        return 1;
    }
    find_roots(heap);
    work(heap, strtoull(seed, NULL, 10));
    return 0;
}

static pid_t start_worker(uint64_t seed)
{
    char text[32];
    pid_t pid;

    snprintf(text, sizeof(text), "%llu", (unsigned long long)seed);
    pid = fork();
    if (pid == 0) {
        execl("/proc/self/exe", "worker", heap_name, text, (char *)NULL);
        _exit(127);
    }
    assert_true(pid > 0);
    return pid;
}

static void print_finding(void *user, const char *line)
{
    (void)user;
    print_error("%s\n", line);
}

static void verify_queued(void *user, void *block)
{
    (void)user;
    verify(block);
}

/*
 * Nobody is attached but us. Every allocated block must be reachable, but for parts whose object was taken by a process that died before
 * it freed both: those are HEAP without a link, the one leak that the policy states; they cannot be more than there were kills.
 */
static void audit(struct la_heap *heap, unsigned kills)
{
    struct la_fsck counts = { .struct_size = sizeof(counts) };
    uint64_t reachable = 1, version;    /* the queue */
    struct object *last;

    assert_true(la_heap_recover(heap, NULL, NULL) >= 0);
    assert_int_equal(la_heap_fsck(heap, print_finding, NULL, &counts), 0);
    for (int i = 0; i < STACKS; i++)
        for (struct object *o = la_load(heap, stacks[i]); o; o = o->next) {
            verify(o);
            reachable += o->part ? 2 : 1;
        }
    reachable += (uint64_t)la_queue_walk(heap, queue, verify_queued, NULL);
    last = read_table(heap, &version);
    if (last) {
        verify(last);
        assert_int_equal((uint64_t)last->next, version);
        reachable++;
    }
    assert_int_equal(counts.blocks[1], 0);
    assert_int_equal(counts.blocks[2], 0);
    if (counts.blocks[3] < reachable || counts.blocks[3] - reachable > kills)
        print_error("%lu blocks outlive their processes, %lu are reachable, %u kills\n", counts.blocks[3], reachable, kills);
    assert_true(counts.blocks[3] >= reachable);
    assert_true(counts.blocks[3] - reachable <= kills);
}

static unsigned number_from(const char *variable, unsigned otherwise)
{
    const char *text = getenv(variable);

    return text && atoi(text) > 0 ? (unsigned)atoi(text) : otherwise;
}

static void survivors_and_heap_stay_sound_while_processes_are_killed(void **state)
{
    unsigned rounds = number_from("LIBALLOC_SOAK_ROUNDS", 1000), longest = number_from("LIBALLOC_SOAK_PAUSE", 8000);
    uint64_t random = 88172645463325252u;
    struct la_heap *heap;
    pid_t workers[WORKERS];

    (void)state;
    snprintf(heap_name, sizeof(heap_name), "soak-%d", getpid());
    assert_int_equal(la_heap_create(heap_name, (size_t)256 << 20, 0, &heap), 0);
    assert_int_equal(la_queue_create(heap, "queue", CAPACITY, &queue), 0);
    find_roots(heap);
    for (unsigned i = 0; i < WORKERS; i++)
        workers[i] = start_worker(next_random(&random) | 1);
    for (unsigned round = 1; round <= rounds; round++) {
        unsigned victim = next_random(&random) % WORKERS;
        struct timespec pause = { .tv_nsec = 1 + (long)(next_random(&random) % (1000ul * longest)) };

        nanosleep(&pause, NULL);    /* the random moment */
        kill_worker(workers[victim]);
        if (round % 10000 == 0)
            print_message("%u kills, all well so far\n", round);
        if (round % AUDIT_EVERY == 0 || round == rounds) {
            for (unsigned i = 0; i < WORKERS; i++)
                if (i != victim)
                    kill_worker(workers[i]);
            audit(heap, round + WORKERS * (round / AUDIT_EVERY + 1));
            for (unsigned i = 0; i < WORKERS; i++)
                workers[i] = start_worker(next_random(&random) | 1);
            continue;
        }
        workers[victim] = start_worker(next_random(&random) | 1);
    }
    for (unsigned i = 0; i < WORKERS; i++)
        kill_worker(workers[i]);
    la_heap_recover(heap, NULL, NULL);
    assert_int_equal(la_heap_detach(heap), 0);
    assert_int_equal(la_heap_remove(heap_name), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(survivors_and_heap_stay_sound_while_processes_are_killed),
    };

    if (argc == 3)
        return worker_main(argv[1], argv[2]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
