#include "../support/shared.h"

#include <errno.h>
#include <pthread.h>

#include "core/lane.h"

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
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
