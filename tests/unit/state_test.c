/* state_test.c - the daemon's books: one record per thing, in a file that outlives the daemon. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shmserver/daemon/state.h"

static unsigned count(const struct state *state, enum state_kind kind)
{
    unsigned n = 0;

    for (const struct state_record *r = NULL; (r = state_next(state, kind, r));)
        n++;
    return n;
}

static void records_are_replaced_by_kind_and_id_and_read_by_the_next_daemon(void **test)
{
    struct state_record heap = { .kind = STATE_HEAP, .id = 7, .owner = 1000, .mode = 0600, .name = "seven" };
    struct state_record limits = { .kind = STATE_LIMITS, .id = 7, .clients = 3 };
    struct state state;
    int fd;

    (void)test;
    assert_int_equal(state_open(&state, -1), 0);
    assert_int_equal(state_put(&state, &heap), 0);
    assert_int_equal(state_put(&state, &limits), 0);
    heap.mode = 0640;
    assert_int_equal(state_put(&state, &heap), 0);
    assert_int_equal(count(&state, STATE_HEAP), 1);
    fd = dup(state.fd);
    state_close(&state);

    assert_int_equal(state_open(&state, fd), 0);
    assert_memory_equal(state_next(&state, STATE_HEAP, NULL), &heap, sizeof(heap));
    assert_memory_equal(state_next(&state, STATE_LIMITS, NULL), &limits, sizeof(limits));
    state_drop(&state, STATE_HEAP, 8);
    assert_int_equal(count(&state, STATE_HEAP), 1);
    state_drop(&state, STATE_HEAP, 7);
    assert_int_equal(count(&state, STATE_HEAP), 0);
    assert_int_equal(count(&state, STATE_LIMITS), 1);
    state_close(&state);
    state_close(&state);
}

static void full_book_is_an_error_and_a_dropped_record_makes_room(void **test)
{
    struct state_record heap = { .kind = STATE_HEAP };
    struct state state;

    (void)test;
    assert_int_equal(state_open(&state, -1), 0);
    for (heap.id = 1; heap.id < STATE_RECORDS; heap.id++)
        assert_int_equal(state_put(&state, &heap), 0);
    assert_int_equal(state_put(&state, &heap), -ENOSPC);
    state_drop(&state, STATE_HEAP, 1000);
    assert_int_equal(state_put(&state, &heap), 0);
    state_close(&state);
}

static void file_of_something_else_is_refused(void **test)
{
    struct state state;
    int fd = memfd_create("other", MFD_CLOEXEC);

    (void)test;
    assert_int_equal(state_open(&state, fd), -EPROTO);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
    fd = memfd_create("other", MFD_CLOEXEC);
    assert_int_equal(ftruncate(fd, STATE_RECORDS * sizeof(struct state_record)), 0);
    assert_int_equal(state_open(&state, fd), -EPROTO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_are_replaced_by_kind_and_id_and_read_by_the_next_daemon),
        cmocka_unit_test(full_book_is_an_error_and_a_dropped_record_makes_room),
        cmocka_unit_test(file_of_something_else_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
