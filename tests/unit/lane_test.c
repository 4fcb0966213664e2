#include "../support/shared.h"

#include <errno.h>
#include <pthread.h>

#include "core/lane.h"

struct group {
    struct la_heap *heap;
    pthread_barrier_t barrier;
    _Atomic(bool) got;
};

static void a_thread_without_a_lane_is_told(void **state)
{
    struct shared *s = *state;
    struct heap_lane *lanes = s->heap->lane_table;

    for (unsigned i = 1; i < HEAP_LANES; i++)
        atomic_store(&lanes[i].owner, 1ull << 32 | 200);
    assert_null(la_heap_hold(s->heap, 64));
    assert_int_equal(la_last_error_code(), -EUSERS);
    assert_non_null(strstr(la_last_error(), "4095 lanes"));
    assert_int_equal(la_heap_operation(s->heap, 1), -EUSERS);
    for (unsigned i = 1; i < HEAP_LANES; i++)
        atomic_store(&lanes[i].owner, 0);
    assert_non_null(la_heap_hold(s->heap, 64));
}

static void *hold_until_all_do(void *arg)
{
    struct group *g = arg;
    void *block = la_heap_hold(g->heap, 16);

    g->got |= block != NULL;
    pthread_barrier_wait(&g->barrier);
    la_free(block);
    return NULL;
}

static int allocate_sixteen_bytes(struct la_heap *heap)
{
    return la_heap_hold(heap, 16) ? 0 : 1;
}

/* Nobody else gets what an ended thread does not use any more, unless it gives it back: its lane waits for the next thread of the process. */
static void threads_give_their_memory_back(void **state)
{
    enum { THREADS = 31 };      /* as many as there are macro blocks */
    struct shared *s = *state;
    struct la_heap_info info = { .struct_size = sizeof(info) };
    struct group g = { .heap = s->heap };
    pthread_t threads[THREADS];

    assert_int_equal(s->heap->macro_count, THREADS);
    assert_int_equal(pthread_barrier_init(&g.barrier, NULL, THREADS), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, hold_until_all_do, &g), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_true(g.got);
    assert_int_equal(la_heap_info(s->heap, &info), 0);
    assert_int_equal(info.macro_blocks_used, 0);
    assert_int_equal(shared_run(s, allocate_sixteen_bytes), 0);
    pthread_barrier_destroy(&g.barrier);
}

static void *use_a_lane(void *arg)
{
    struct la_heap *heap = arg;

    for (int i = 0; i < 100; i++)
        la_free(la_heap_hold(heap, (size_t)i * 10));
    return NULL;
}

static void threads_give_their_lanes_back(void **state)
{
    struct shared *s = *state;
    struct la_heap_info info = { .struct_size = sizeof(info) };

    for (int i = 0; i < 50; i++) {
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, use_a_lane, s->heap), 0);
        pthread_join(thread, NULL);
    }
    assert_int_equal(la_heap_info(s->heap, &info), 0);
    assert_true(info.lanes <= 2);
    assert_int_equal(info.processes, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        shared_test(a_thread_without_a_lane_is_told),
        shared_test(threads_give_their_lanes_back),
        shared_test(threads_give_their_memory_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
