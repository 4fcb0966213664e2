/* lock_test.c - one word that excludes, wakes whom it put to sleep, and can be reset in a forked child. */
#include "engine.h"

#include <signal.h>
#include <sys/resource.h>

#include "base/lock.h"
#include "child.h"

enum { THREADS = 4, ROUNDS = 20000 };

static struct la_lock lock = LOCK_INIT(RANK_META);
static unsigned counter;        /* under lock */

static void *add(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < ROUNDS; i++) {
        lock_take(&lock);
        counter++;
        lock_give(&lock);
    }
    return NULL;
}

static void threads_exclude_each_other(void **state)
{
    pthread_t threads[THREADS];

    (void)state;
    counter = 0;
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, add, NULL), 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(counter, THREADS * ROUNDS);
    assert_int_equal(atomic_load(&lock.word), 0);
}

static void *take_and_give(void *arg)
{
    bool *had_it = arg;

    lock_take(&lock);
    *had_it = true;
    lock_give(&lock);
    return NULL;
}

static void sleeper_is_woken_and_errno_is_kept(void **state)
{
    bool had_it = false;
    pthread_t thread;

    (void)state;
    lock_take(&lock);
    assert_int_equal(pthread_create(&thread, NULL, take_and_give, &had_it), 0);
    /* The sleeper announces itself in the word before it sleeps. */
    while (!(atomic_load(&lock.word) & 1))
        sched_yield();
    assert_false(had_it);
    errno = ENOSPC;
    lock_give(&lock);
    assert_int_equal(errno, ENOSPC);
    pthread_join(thread, NULL);
    assert_true(had_it);
}

static void reset_lock_can_be_taken_again(void **state)
{
    (void)state;
    lock_take(&lock);
    lock_reset(&lock);
    lock_child();
    lock_take(&lock);
    lock_give(&lock);
    assert_int_equal(atomic_load(&lock.word), 0);
}

/* ---- locks of chains ---- */

static struct la_lock chain_lock = LOCK_INIT(RANK_CHAIN);

static void *try_patiently(void *arg)
{
    bool *had_it = arg;

    assert_false(lock_is_mine(&chain_lock));
    *had_it = lock_take_patiently(&chain_lock);
    if (*had_it)
        lock_give(&chain_lock);
    return NULL;
}

static void lock_that_is_never_given_back_is_given_up(void **state)
{
    bool had_it = true;
    pthread_t thread;

    (void)state;
    assert_true(lock_take_patiently(&chain_lock));
    assert_true(lock_is_mine(&chain_lock));
    assert_int_equal(pthread_create(&thread, NULL, try_patiently, &had_it), 0);
    pthread_join(thread, NULL);
    assert_false(had_it);
    lock_give(&chain_lock);
    assert_false(lock_is_mine(&chain_lock));
    assert_int_equal(pthread_create(&thread, NULL, try_patiently, &had_it), 0);
    pthread_join(thread, NULL);
    assert_true(had_it);
}

/* ---- signals ---- */

/* TSan keeps a signal back and runs its handler later, whatever is blocked by then. */
#if !SANITIZED

static volatile sig_atomic_t arrived;

static void count(int number)
{
    (void)number;
    arrived++;
}

static bool is_blocked(int number)
{
    sigset_t now;

    pthread_sigmask(SIG_SETMASK, NULL, &now);
    return sigismember(&now, number);
}

static void signals_wait_for_the_last_lock(void **state)
{
    void (*faults)(int) = signal(SIGSEGV, count);   /* CMocka's */
    sigset_t others;

    (void)state;
    signal(SIGUSR1, count);
    sigemptyset(&others);
    sigaddset(&others, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &others, NULL);
    lock_take(&lock);
    signals_hold();
    raise(SIGUSR1);
    raise(SIGSEGV);
    assert_int_equal(arrived, 1);       /* the fault */
    signals_release();
    assert_int_equal(arrived, 1);
    lock_give(&lock);
    assert_int_equal(arrived, 2);
    assert_true(is_blocked(SIGUSR2));   /* as the program had it */
    assert_false(is_blocked(SIGUSR1));
    pthread_sigmask(SIG_UNBLOCK, &others, NULL);
    signal(SIGSEGV, faults);
    signal(SIGUSR1, SIG_DFL);
}

#endif

#ifndef NDEBUG
static void take_in_falling_rank(void *arg)
{
    struct la_lock low = LOCK_INIT(RANK_HEAP), high = LOCK_INIT(RANK_META);

    (void)arg;
    setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
    CHECK(freopen("/dev/null", "w", stderr) != NULL);
    lock_take(&high);
    lock_take(&low);
}

static void take_in_rising_rank(void *arg)
{
    struct la_lock low = LOCK_INIT(RANK_HEAP), high = LOCK_INIT(RANK_META);

    (void)arg;
    lock_take(&low);
    lock_take(&high);
    lock_give(&low);
    lock_give(&high);
    lock_take(&low);
    lock_give(&low);
}

static void take_peers(void *arg)
{
    struct la_lock peers[3] = { LOCK_INIT(RANK_CHAIN), LOCK_INIT(RANK_CHAIN), LOCK_INIT(RANK_CHAIN) };
    struct la_lock high = LOCK_INIT(RANK_META);

    (void)arg;
    for (unsigned i = 0; i < 3; i++)
        lock_take_peer(&peers[i]);
    lock_take(&high);
    lock_give(&high);
    lock_give(&peers[1]);
    lock_reset(&peers[0]);
    lock_give(&peers[2]);
    lock_take(&peers[0]);
    lock_give(&peers[0]);
}

static void take_peer_below(void *arg)
{
    struct la_lock low = LOCK_INIT(RANK_CHAIN), high = LOCK_INIT(RANK_META);

    (void)arg;
    setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
    CHECK(freopen("/dev/null", "w", stderr) != NULL);
    lock_take(&high);
    lock_take_peer(&low);
}

/* What fork needs: the locks of all chains at once. */
static void peers_of_one_rank_may_be_held_together(void **state)
{
    (void)state;
    assert_int_equal(run_in_child(take_peers, NULL), 0);
    assert_int_equal(run_in_child(take_peer_below, NULL), 128 + SIGABRT);
}

static void debug_build_refuses_locks_in_falling_rank(void **state)
{
    (void)state;
    assert_int_equal(run_in_child(take_in_rising_rank, NULL), 0);
    assert_int_equal(run_in_child(take_in_falling_rank, NULL), 128 + SIGABRT);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_exclude_each_other),
        cmocka_unit_test(sleeper_is_woken_and_errno_is_kept),
        cmocka_unit_test(reset_lock_can_be_taken_again),
        cmocka_unit_test(lock_that_is_never_given_back_is_given_up),
#if !SANITIZED
        cmocka_unit_test(signals_wait_for_the_last_lock),
#endif
#ifndef NDEBUG
        cmocka_unit_test(debug_build_refuses_locks_in_falling_rank),
        cmocka_unit_test(peers_of_one_rank_may_be_held_together),
#endif
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
