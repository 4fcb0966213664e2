/*
 * Threads that end, processes that fork, signals that interrupt: the life around malloc. Hangs are the failure to expect here,
 * so an alarm ends the program.
 * "MPC" marks what the MPC allocator (S. Valat, 2012 to 2024) got wrong when it was measured as a preload library.
 */
#include "support.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "../support/storm.h"

enum { HANG_SECONDS = 240 };

static int before_each(void **state)
{
    (void)state;
    alarm(HANG_SECONDS);
    return 0;
}

static void *in_thread(void *(*run)(void *), void *arg)
{
    pthread_t thread;
    void *result;

    assert_int_equal(pthread_create(&thread, NULL, run, arg), 0);
    assert_int_equal(pthread_join(thread, &result), 0);
    return result;
}

/* xorshift: sizes must not come from a generator with a lock. */
static unsigned next_random(unsigned *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 17;
    *seed ^= *seed << 5;
    return *seed;
}

/* ---- threads that end ---- */

static void *allocate_a_little(void *arg)
{
    size_t size = 16 + (uintptr_t)arg % 3000;
    char *block = malloc(size), *kept = malloc(size);

    fill(block, size, 1);
    free(block);
    return kept;
}

/* MPC crashed between 1,200 and 1,250. */
static void four_thousand_short_threads_cost_nothing(void **state)
{
    size_t before = 0;

    (void)state;
    for (uintptr_t i = 0; i < 4000; i++) {
        if (i == 500)
            before = resident_bytes();
        free(in_thread(allocate_a_little, (void *)i));
    }
    assert_true(resident_bytes() < before + 4 * MiB);
}

enum { LATE_BLOCKS = 200 };

static void *allocate_200_kb(void *arg)
{
    void **blocks = arg;

    for (unsigned i = 0; i < LATE_BLOCKS; i++) {
        blocks[i] = malloc(1000);
        fill(blocks[i], 1000, i);
    }
    return NULL;
}

/* MPC: 500 threads whose blocks were freed after their end cost 101 MB: all of it. */
static void blocks_freed_after_their_thread_ended_are_used_again(void **state)
{
    void *blocks[LATE_BLOCKS];
    size_t before = 0;

    (void)state;
    for (unsigned round = 0; round < 500; round++) {
        if (round == 50)
            before = resident_bytes();
        in_thread(allocate_200_kb, blocks);
        for (unsigned i = 0; i < LATE_BLOCKS; i++) {
            assert_true(is_filled(blocks[i], 1000, i));
            free(blocks[i]);
        }
    }
    assert_true(resident_bytes() < before + 10 * MiB);
}

/* The same with all threads' blocks alive at once, and with every size. */
static void blocks_outlive_their_threads(void **state)
{
    enum { THREADS = 100 };
    static void *blocks[THREADS][LATE_BLOCKS];

    (void)state;
    for (unsigned t = 0; t < THREADS; t++)
        in_thread(allocate_200_kb, blocks[t]);
    for (unsigned i = 0; i < LATE_BLOCKS; i++)
        for (unsigned t = 0; t < THREADS; t++) {
            assert_true(is_filled(blocks[t][i], 1000, i));
            blocks[t][i] = realloc(blocks[t][i], 500 + 10 * i);
            assert_true(is_filled(blocks[t][i], 500, i));
            free(blocks[t][i]);
        }
}

static pthread_key_t key;

static void allocate_at_the_end(void *arg)
{
    unsigned round = (unsigned)(uintptr_t)arg;

    free(opaque(malloc(round * 1000)));
    free(opaque(malloc(3 * MiB)));
    if (round > 1)
        pthread_setspecific(key, (void *)(uintptr_t)(round - 1));
}

static void *set_key(void *arg)
{
    pthread_setspecific(key, (void *)(uintptr_t)3);
    return malloc((uintptr_t)arg);
}

/* Destructors of thread-specific data run in no order: ours may be first, and malloc is called again. */
static void destructors_of_a_thread_may_allocate(void **state)
{
    size_t before = 0;

    (void)state;
    assert_int_equal(pthread_key_create(&key, allocate_at_the_end), 0);
    for (unsigned i = 0; i < 300; i++) {
        if (i == 50)
            before = resident_bytes();
        free(in_thread(set_key, (void *)(uintptr_t)100));
    }
    assert_true(resident_bytes() < before + 8 * MiB);
    pthread_key_delete(key);
}

/* ---- from thread to thread ---- */

enum { RING = 1024, PASSED = 400000 };

struct ring {
    void *blocks[RING];
    sem_t filled, empty;
};

static void *produce(void *arg)
{
    struct ring *ring = arg;
    unsigned seed = 1;

    for (unsigned i = 0; i < PASSED; i++) {
        size_t size = 1 + next_random(&seed) % 500;
        unsigned char *block = malloc(size);

        fill(block, size, i);
        sem_wait(&ring->empty);
        ring->blocks[i % RING] = block;
        sem_post(&ring->filled);
    }
    return NULL;
}

static void blocks_freed_by_a_consumer_return_to_the_producer(void **state)
{
    static struct ring ring;
    pthread_t producer;
    size_t before = resident_bytes();
    unsigned seed = 1;

    (void)state;
    sem_init(&ring.filled, 0, 0);
    sem_init(&ring.empty, 0, RING);
    pthread_create(&producer, NULL, produce, &ring);
    for (unsigned i = 0; i < PASSED; i++) {
        void *block;

        sem_wait(&ring.filled);
        block = ring.blocks[i % RING];
        sem_post(&ring.empty);
        assert_true(is_filled(block, 1 + next_random(&seed) % 500, i));
        free(block);
    }
    pthread_join(producer, NULL);
    /* 100 MB went through; at most RING blocks were alive. */
    assert_true(resident_bytes() < before + 20 * MiB);
}

/* ---- churn, to be disturbed ---- */

enum { SLOTS = 300 };

struct churn {
    unsigned seed;
    struct { unsigned char *block; size_t size; } slots[SLOTS];
};

static size_t churn_size(unsigned *seed)
{
    unsigned kind = next_random(seed) % 100, size = next_random(seed);

    return 1 + (kind < 90 ? size % 2000 : kind < 98 ? size % 100000 : size % (3 * MiB));
}

static void churn_step(struct churn *c)
{
    unsigned i = next_random(&c->seed) % SLOTS;
    size_t size = churn_size(&c->seed);
    size_t checked = c->slots[i].size < 100 ? c->slots[i].size : 100;

    if (!is_filled(c->slots[i].block, c->slots[i].block ? checked : 0, i))
        abort();
    if (next_random(&c->seed) % 3 == 0) {
        c->slots[i].block = realloc(c->slots[i].block, size);
    } else {
        free(c->slots[i].block);
        c->slots[i].block = malloc(size);
    }
    if (!c->slots[i].block)
        abort();
    c->slots[i].size = size;
    fill(c->slots[i].block, size < 100 ? size : 100, i);
}

static void churn_end(struct churn *c)
{
    for (unsigned i = 0; i < SLOTS; i++)
        free(c->slots[i].block);
}

static atomic_bool stop;

static void *churn_until_stopped(void *arg)
{
    struct churn *c = calloc(1, sizeof(*c));

    c->seed = (unsigned)(uintptr_t)arg + 1;
    while (!atomic_load(&stop))
        churn_step(c);
    churn_end(c);
    free(c);
    return NULL;
}

static void start_churn(pthread_t *threads, unsigned count)
{
    atomic_store(&stop, false);
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, churn_until_stopped, (void *)(uintptr_t)i), 0);
}

static void stop_churn(pthread_t *threads, unsigned count)
{
    atomic_store(&stop, true);
    for (unsigned i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
}

/* ---- fork ---- */

static void *use_the_heap(void *arg)
{
    struct churn *c = calloc(1, sizeof(*c));

    (void)arg;
    c->seed = 99;
    for (unsigned i = 0; i < 3000; i++)
        churn_step(c);
    churn_end(c);
    free(c);
    return NULL;
}

static int status_of(pid_t child)
{
    int status;

    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

/* Whatever the other threads were doing when the memory was copied, the child's heap works, with new threads too. */
static void child_of_a_threaded_process_has_a_working_heap(void **state)
{
    pthread_t threads[4];
    char *inherited = malloc(1000), *large = malloc(5 * MiB);

    (void)state;
    fill(inherited, 1000, 5);
    fill(large, 5 * MiB, 6);
    start_churn(threads, 4);
    for (unsigned round = 0; round < 60; round++) {
        pid_t child = fork();

        assert_true(child >= 0);
        if (child == 0) {
            alarm(HANG_SECONDS);
            use_the_heap(NULL);
            in_thread(use_the_heap, NULL);
            if (!is_filled(inherited, 1000, 5) || !is_filled(large, 5 * MiB, 6))
                _exit(1);
            free(inherited);
            free(large);
            _exit(0);
        }
        assert_int_equal(status_of(child), 0);
    }
    stop_churn(threads, 4);
    free(inherited);
    free(large);
}

static void *fork_and_allocate(void *arg)
{
    pid_t child = fork();

    if (child == 0) {
        alarm(HANG_SECONDS);
        use_the_heap(arg);
        exit(0);        /* with the exit handlers: they free what libc holds */
    }
    return (void *)(intptr_t)status_of(child);
}

/* The one thread of the child need not be the first of its parent. */
static void child_of_a_second_thread_has_a_working_heap(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal((intptr_t)in_thread(fork_and_allocate, NULL), 0);
}

static void grandchildren_allocate_too(void **state)
{
    pid_t child = fork();

    (void)state;
    if (child == 0) {
        pid_t grandchild = fork();

        alarm(HANG_SECONDS);
        use_the_heap(NULL);
        _exit(grandchild == 0 || status_of(grandchild) == 0 ? 0 : 1);
    }
    assert_int_equal(status_of(child), 0);
}

/* ---- signals ---- */

static atomic_uint handled, refused;

static void allocate_in_handler(int signal)
{
    int saved = errno;
    unsigned n = atomic_fetch_add(&handled, 1);
    size_t size = n % 50 == 0 ? 100000 : 16 + n % 700;
    char *block = malloc(size), *other = calloc(1, size);

    (void)signal;
    if (block && other) {
        fill(block, size, n);
        other = realloc(other, size * 2);
        if (!is_filled(block, size, n))
            abort();
    } else {
        atomic_fetch_add(&refused, 1);
    }
    free(block);
    free(other);
    errno = saved;
}

static void handle(int signal, void (*handler)(int), int flags)
{
    struct sigaction action = { .sa_handler = handler, .sa_flags = flags };

    sigemptyset(&action.sa_mask);
    sigaction(signal, &action, NULL);
}

static void timer_every(unsigned microseconds)
{
    struct itimerval timer = { .it_interval.tv_usec = microseconds, .it_value.tv_usec = microseconds };

    setitimer(ITIMER_REAL, &timer, NULL);
}

/* POSIX does not allow it, programs do it. Here it works; elsewhere it hangs on the lock that the thread itself holds. */
static void a_signal_handler_may_allocate(void **state)
{
    struct churn *c = calloc(1, sizeof(*c));

    (void)state;
    c->seed = 7;
    atomic_store(&handled, 0);
    assert_true(storm_begin(allocate_in_handler));
    while (atomic_load(&handled) < 3000)
        churn_step(c);
    storm_end();
    churn_end(c);
    free(c);
    assert_int_equal(atomic_load(&refused), 0);
}

enum { STORM_SIGNALS = 20000, STORM_LIVE = 64 };

static atomic_uint storm_handled, storm_bad;
static char *storm_live[STORM_LIVE];

/* Of the sizes that the interrupted calls are for, so that both are after the same blocks; some stay for a while. */
static void storm_handler(int signal)
{
    int saved = errno;
    unsigned n = atomic_fetch_add(&storm_handled, 1);
    size_t size = 32u << n % 3;
    char *kept = storm_live[n % STORM_LIVE], *block = malloc(size);

    (void)signal;
    if (kept && !is_filled(kept, 32, n - STORM_LIVE))
        atomic_fetch_add(&storm_bad, 1);
    if (n % 5 == 0)
        free(malloc(size));
    free(kept);
    if (block)
        fill(block, size, n);
    storm_live[n % STORM_LIVE] = block;
    errno = saved;
}

/* Signals, as fast as they go, into the shortest of all paths: blocks must neither be handed out twice nor change. */
static void handlers_and_the_fast_path_never_share_a_block(void **state)
{
    char *mine[16] = { 0 };

    (void)state;
    assert_true(storm_begin(storm_handler));
    for (unsigned i = 0; atomic_load(&storm_handled) < STORM_SIGNALS; i++) {
        char **slot = &mine[i % 16];

        if (*slot && !is_filled(*slot, 32, i - 16))
            atomic_fetch_add(&storm_bad, 1);
        free(*slot);
        *slot = malloc(32u << i % 3);
        fill(*slot, 32, i);
        free(malloc(64));
    }
    storm_end();
    for (unsigned i = 0; i < STORM_LIVE; i++)
        free(storm_live[i]);
    for (unsigned i = 0; i < 16; i++)
        free(mine[i]);
    assert_int_equal(atomic_load(&storm_bad), 0);
}

static sigjmp_buf away;

static void jump_away(int signal)
{
    (void)signal;
    siglongjmp(away, 1);
}

/* Static, because a jump may undo what is in registers. */
static volatile unsigned jumps;
static void *volatile jumped_block;
static unsigned jump_seed;

static void jump_out_of_allocations(void)
{
    handle(SIGALRM, jump_away, 0);
    if (sigsetjmp(away, 1))
        jumps++;
    else
        timer_every(100);
    while (jumps < 20) {
        jumped_block = malloc(churn_size(&jump_seed));
        free(jumped_block);
    }
    timer_every(0);
}

/*
 * Out of the middle of an allocation: the thread may lose that block, but goes on. Many young processes, because the first
 * jump out of a slow path is the one that finds its thread as usual.
 */
static void a_thread_that_jumps_out_of_malloc_can_allocate(void **state)
{
    (void)state;
    for (unsigned i = 1; i <= 100; i++) {
        pid_t child = fork();
        pthread_t other;

        if (child == 0) {
            jump_seed = i;
            jump_out_of_allocations();
            handle(SIGALRM, SIG_DFL, 0);
            alarm(HANG_SECONDS);
            use_the_heap(NULL);
            /* No lock was left taken either. */
            if (pthread_create(&other, NULL, use_the_heap, NULL) || pthread_join(other, NULL))
                _exit(1);
            _exit(0);
        }
        assert_int_equal(status_of(child), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(four_thousand_short_threads_cost_nothing, before_each),
        cmocka_unit_test_setup(blocks_freed_after_their_thread_ended_are_used_again, before_each),
        cmocka_unit_test_setup(blocks_outlive_their_threads, before_each),
        cmocka_unit_test_setup(destructors_of_a_thread_may_allocate, before_each),
        cmocka_unit_test_setup(blocks_freed_by_a_consumer_return_to_the_producer, before_each),
        cmocka_unit_test_setup(child_of_a_threaded_process_has_a_working_heap, before_each),
        cmocka_unit_test_setup(child_of_a_second_thread_has_a_working_heap, before_each),
        cmocka_unit_test_setup(grandchildren_allocate_too, before_each),
        cmocka_unit_test_setup(a_signal_handler_may_allocate, before_each),
        cmocka_unit_test_setup(handlers_and_the_fast_path_never_share_a_block, before_each),
        cmocka_unit_test_setup(a_thread_that_jumps_out_of_malloc_can_allocate, before_each),
    };

    return cmocka_run_group_tests(tests, require_preload, NULL);
}
