/* events_test.c - the last events, in order, and none twice. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "shmserver/daemon/events.h"

static struct events events;

static int setup(void **state)
{
    (void)state;
    memset(&events, 0, sizeof(events));
    return 0;
}

static void add(int pid)
{
    events_add(&events, &(struct shms_event){ .kind = SHMS_EVENT_DIED, .pid = pid, .bytes = 7 }, "heap", 1000);
}

static void event_is_found_after_the_one_before(void **state)
{
    const struct event *e;

    (void)state;
    assert_null(events_after(&events, 0));
    add(1);
    add(2);
    e = events_after(&events, 0);
    assert_int_equal(e->public.pid, 1);
    assert_int_equal(e->public.serial, 1);
    assert_int_equal(e->public.struct_size, sizeof(e->public));
    assert_int_equal(e->public.bytes, 7);
    assert_true(e->public.time > 0);
    assert_int_equal(e->owner, 1000);
    assert_string_equal(e->public.heap, "heap");
    e = events_after(&events, 1);
    assert_int_equal(e->public.pid, 2);
    assert_null(events_after(&events, 2));
    assert_null(events_after(&events, 99));
    assert_null(events_after(&events, UINT64_MAX));
}

static void who_followed_an_earlier_daemon_goes_on(void **state)
{
    (void)state;
    events_init(&events, 1000);
    assert_null(events_after(&events, 0));
    assert_null(events_after(&events, 17));
    add(1);
    assert_int_equal(events_after(&events, 0)->public.serial, 1001);
    assert_int_equal(events_after(&events, 17)->public.pid, 1);
    assert_null(events_after(&events, 1001));
    for (int i = 2; i <= EVENTS_MAX + 1; i++)
        add(i);
    assert_int_equal(events_after(&events, 17)->public.pid, 2);
}

static void oldest_events_give_way(void **state)
{
    uint64_t serial = 0;
    int count = 0;

    (void)state;
    for (int i = 1; i <= EVENTS_MAX + 10; i++)
        add(i);
    for (const struct event *e; (e = events_after(&events, serial)); serial = e->public.serial, count++)
        assert_int_equal(e->public.pid, e->public.serial);
    assert_int_equal(count, EVENTS_MAX);
    assert_int_equal(events_after(&events, 0)->public.serial, 11);
    assert_int_equal(serial, EVENTS_MAX + 10);
}

static void deed_names_who_did_it(void **state)
{
    struct identity id = { .pid = 12, .uid = 34, .command = "someone" };
    const struct event *e;

    (void)state;
    events_add_deed(&events, SHMS_EVENT_KICKED, &id, NULL, 0);
    e = events_after(&events, 0);
    assert_int_equal(e->public.kind, SHMS_EVENT_KICKED);
    assert_int_equal(e->public.pid, 12);
    assert_int_equal(e->public.uid, 34);
    assert_string_equal(e->public.command, "someone");
    assert_string_equal(e->public.heap, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(event_is_found_after_the_one_before, setup),
        cmocka_unit_test_setup(who_followed_an_earlier_daemon_goes_on, setup),
        cmocka_unit_test_setup(oldest_events_give_way, setup),
        cmocka_unit_test_setup(deed_names_who_did_it, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
