/* loop_test.c - sources are served in turn, and may end themselves and each other in the middle of one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <unistd.h>

#include "shmserver/daemon/loop.h"

struct counter {
    struct loop_source source;
    int write_end;
    int served;
    struct counter *victim;     /* removed, closed and freed when served */
    struct counter **self;      /* set to NULL when it ends */
};

static struct loop loop;

static struct counter *counter_end(struct counter *c)
{
    loop_remove(&loop, &c->source);
    close(c->source.fd);
    close(c->write_end);
    if (c->self)
        *c->self = NULL;
    free(c);
    return NULL;
}

static void serve(struct loop_source *source, uint32_t events)
{
    struct counter *c = container_of(source, struct counter, source);
    char byte;

    assert_true(events & EPOLLIN);
    assert_int_equal(read(source->fd, &byte, 1), 1);
    c->served++;
    if (c->victim)
        c->victim = counter_end(c->victim);
}

static struct counter *counter_begin(int bytes)
{
    struct counter *c = calloc(1, sizeof(*c));
    int ends[2];

    assert_non_null(c);
    assert_int_equal(pipe(ends), 0);
    *c = (struct counter){ .source = { ends[0], serve }, .write_end = ends[1] };
    for (int i = 0; i < bytes; i++)
        assert_int_equal(write(ends[1], "x", 1), 1);
    assert_int_equal(loop_add(&loop, &c->source), 0);
    return c;
}

static int setup(void **state)
{
    (void)state;
    return loop_init(&loop);
}

static int teardown(void **state)
{
    (void)state;
    loop_deinit(&loop);
    return 0;
}

static void busy_source_is_served_once_per_turn(void **state)
{
    struct counter *busy = counter_begin(5), *modest = counter_begin(1);

    (void)state;
    assert_int_equal(loop_turn(&loop, -1), 0);
    assert_int_equal(busy->served, 1);
    assert_int_equal(modest->served, 1);
    assert_int_equal(loop_turn(&loop, -1), 0);
    assert_int_equal(busy->served, 2);
    assert_int_equal(modest->served, 1);
    counter_end(busy);
    counter_end(modest);
}

static void source_that_another_one_ends_is_not_served(void **state)
{
    struct counter *a = counter_begin(1), *b = counter_begin(1), *last;

    (void)state;
    a->victim = b;
    b->victim = a;
    a->self = &a;
    b->self = &b;
    /* Both are ready in the same turn; whichever comes first ends the other, whose memory is gone. */
    assert_int_equal(loop_turn(&loop, -1), 0);
    assert_true(!a != !b);
    last = a ? a : b;
    assert_int_equal(last->served, 1);
    counter_end(last);
}

static void turn_ends_when_its_time_is_over(void **state)
{
    uint64_t before = now_ms();

    (void)state;
    assert_int_equal(loop_turn(&loop, 5), 0);
    assert_true(now_ms() - before >= 4);
}

/* It spins, then sleeps; neither makes it miss an event or its time. */
static void turn_that_expects_an_event_serves_it_or_ends_in_time(void **state)
{
    struct counter *c;
    uint64_t before;

    (void)state;
    loop_expect(&loop);
    assert_true(spin_on(&loop.spin));
    loop.spin.until = 0;
    assert_false(spin_on(&loop.spin));
    loop_expect(&loop);
    before = now_ms();
    assert_int_equal(loop_turn(&loop, 5), 0);
    assert_true(now_ms() - before >= 4);
    loop.spin.until = UINT64_MAX;
    c = counter_begin(1);
    assert_int_equal(loop_turn(&loop, -1), 0);
    assert_int_equal(c->served, 1);
    counter_end(c);
}

static void removed_source_is_silent_and_removing_none_is_fine(void **state)
{
    struct counter *c = counter_begin(1);
    struct loop_source none = { .fd = -1 };

    (void)state;
    loop_remove(&loop, &none);
    loop_remove(&loop, &c->source);
    assert_int_equal(loop_turn(&loop, 0), 0);
    assert_int_equal(c->served, 0);
    counter_end(c);
}

#define with_loop(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_loop(busy_source_is_served_once_per_turn),
        with_loop(source_that_another_one_ends_is_not_served),
        with_loop(turn_ends_when_its_time_is_over),
        with_loop(turn_that_expects_an_event_serves_it_or_ends_in_time),
        with_loop(removed_source_is_silent_and_removing_none_is_fine),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
