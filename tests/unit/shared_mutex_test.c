#include "../support/shared.h"

#include <errno.h>
#include <pthread.h>

struct guarded {
    struct la_mutex mutex;
    struct la_cond cond;
    int a, b;
    int turn;
};

static struct guarded *new_guarded(struct shared *s)
{
    struct guarded *g = la_heap_hold(s->heap, sizeof(*g));

    memset(g, 0, sizeof(*g));
    assert_int_equal(la_publish(s->heap, shared_root(s->heap, "guarded"), NULL, g), 0);
    return g;
}

static struct guarded *find_guarded(struct la_heap *heap)
{
    return la_load(heap, shared_root(heap, "guarded"));
}

static void lock_is_exclusive_and_knows_its_holder(void **state)
{
    struct shared *s = *state;
    struct guarded *g = new_guarded(s);

    assert_int_equal(la_mutex_unlock(s->heap, &g->mutex), -EPERM);
    assert_int_equal(la_mutex_lock(s->heap, &g->mutex), 0);
    assert_int_equal(la_mutex_lock(s->heap, &g->mutex), -EDEADLK);
    assert_int_equal(la_mutex_unlock(s->heap, &g->mutex), 0);
    assert_int_equal(la_mutex_trylock(s->heap, &g->mutex), 0);
    assert_int_equal(la_mutex_unlock(s->heap, &g->mutex), 0);
}

static void a_mutex_outside_the_heap_is_refused(void **state)
{
    struct shared *s = *state;
    struct la_mutex outside = { 0 };

    assert_int_equal(la_mutex_lock(s->heap, &outside), -EINVAL);
}

static void lock_and_die(struct la_heap *heap)
{
    struct guarded *g = find_guarded(heap);

    if (la_mutex_lock(heap, &g->mutex) < 0)
        abort();
    g->a = 1;
}

static void the_next_after_a_dead_holder_is_told(void **state)
{
    struct shared *s = *state;
    struct guarded *g = new_guarded(s);

    shared_kill_after(s, lock_and_die);
    assert_int_equal(la_mutex_trylock(s->heap, &g->mutex), -EOWNERDEAD);
    assert_int_equal(la_mutex_unlock(s->heap, &g->mutex), 0);
    assert_int_equal(la_mutex_lock(s->heap, &g->mutex), 0);
    assert_int_equal(la_mutex_unlock(s->heap, &g->mutex), 0);
}

/* Its lane may have been given to somebody else meanwhile: the incarnation in the word is the old one. */
static void a_dead_holder_is_known_even_when_its_lane_lives_again(void **state)
{
    struct shared *s = *state;
    struct guarded *g = new_guarded(s);

    shared_kill_after(s, lock_and_die);
    la_heap_recover(s->heap, NULL, NULL);
    assert_int_equal(la_mutex_lock(s->heap, &g->mutex), -EOWNERDEAD);
    assert_int_equal(la_mutex_unlock(s->heap, &g->mutex), 0);
}

struct job {
    struct la_heap *heap;
    struct guarded *g;
};

static void *count_up(void *arg)
{
    struct job *job = arg;

    for (int i = 0; i < 20000; i++) {
        if (la_mutex_lock(job->heap, &job->g->mutex) < 0)
            abort();
        job->g->a++;
        job->g->b++;
        la_mutex_unlock(job->heap, &job->g->mutex);
    }
    return NULL;
}

static void threads_exclude_each_other(void **state)
{
    struct shared *s = *state;
    struct job job = { s->heap, new_guarded(s) };
    pthread_t threads[4];

    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count_up, &job), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(job.g->a, 80000);
    assert_int_equal(job.g->b, 80000);
}

static void *answer_turns(void *arg)
{
    struct job *job = arg;

    if (la_mutex_lock(job->heap, &job->g->mutex) < 0)
        abort();
    for (int i = 0; i < 100; i++) {
        while (job->g->turn != 1)
            la_cond_wait(job->heap, &job->g->cond, &job->g->mutex, NULL);
        job->g->turn = 0;
        la_cond_broadcast(job->heap, &job->g->cond);
    }
    la_mutex_unlock(job->heap, &job->g->mutex);
    return NULL;
}

static void waiting_threads_are_woken_in_turn(void **state)
{
    struct shared *s = *state;
    struct job job = { s->heap, new_guarded(s) };
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, answer_turns, &job), 0);
    assert_int_equal(la_mutex_lock(s->heap, &job.g->mutex), 0);
    for (int i = 0; i < 100; i++) {
        job.g->turn = 1;
        la_cond_signal(s->heap, &job.g->cond);
        while (job.g->turn != 0)
            assert_int_equal(la_cond_wait(s->heap, &job.g->cond, &job.g->mutex, NULL), 0);
    }
    assert_int_equal(la_mutex_unlock(s->heap, &job.g->mutex), 0);
    pthread_join(thread, NULL);
}

static void a_wait_ends_with_its_time(void **state)
{
    struct shared *s = *state;
    struct guarded *g = new_guarded(s);
    struct timespec soon = { .tv_nsec = 1000 };

    assert_int_equal(la_mutex_lock(s->heap, &g->mutex), 0);
    assert_int_equal(la_cond_wait(s->heap, &g->cond, &g->mutex, &soon), -ETIMEDOUT);
    assert_non_null(strstr(la_last_error(), "within 0 s, 1000 ns"));
    assert_int_equal(la_mutex_unlock(s->heap, &g->mutex), 0);
}

static void a_time_that_is_none_is_refused_and_the_mutex_kept(void **state)
{
    static const struct timespec wrong[] = { { .tv_sec = -1 }, { .tv_nsec = -5 }, { .tv_nsec = 1000000000 } };
    struct shared *s = *state;
    struct guarded *g = new_guarded(s);

    assert_int_equal(la_mutex_lock(s->heap, &g->mutex), 0);
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
        assert_int_equal(la_cond_wait(s->heap, &g->cond, &g->mutex, &wrong[i]), -EINVAL);
    assert_non_null(strstr(la_last_error(), "1000000000 ns"));
    assert_int_equal(la_mutex_unlock(s->heap, &g->mutex), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        shared_test(lock_is_exclusive_and_knows_its_holder),
        shared_test(a_mutex_outside_the_heap_is_refused),
        shared_test(the_next_after_a_dead_holder_is_told),
        shared_test(a_dead_holder_is_known_even_when_its_lane_lives_again),
        shared_test(threads_exclude_each_other),
        shared_test(waiting_threads_are_woken_in_turn),
        shared_test(a_wait_ends_with_its_time),
        shared_test(a_time_that_is_none_is_refused_and_the_mutex_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
