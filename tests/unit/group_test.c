/* group_test.c - objects of one lifetime: freed at once, children with them, callbacks in reverse order. */
#include "engine.h"

#include <liballoc/error.h>

#include "core/region_map.h"
#include "core/types.h"

/* ---- callbacks write down who was called ---- */

static char calls[64];

static void note(void *arg)
{
    size_t n = strlen(calls);

    calls[n] = *(const char *)arg;      /* reads the object: it must still be there */
    calls[n + 1] = '\0';
}

static void on_free(struct la_group *group, char name)
{
    char *object = la_group_alloc(group, 1);

    *object = name;
    assert_int_equal(la_group_on_free(group, note, object), 0);
}

static struct la_group *new_group(struct la_group *parent)
{
    struct la_group *group = NULL;

    assert_int_equal(la_group_create(parent, NULL, &group), 0);
    assert_non_null(group);
    return group;
}

static int setup(void **state)
{
    (void)state;
    calls[0] = '\0';
    return 0;
}

static uint64_t live_blocks(struct la_group *group)
{
    struct la_stats s = { .struct_size = sizeof(s) };

    assert_int_equal(la_chain_stats(la_group_chain(group), &s), 0);
    return s.blocks;
}

static void objects_of_every_size_are_freed_at_once(void **state)
{
    struct la_group *group = new_group(NULL);

    (void)state;
    for (int round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 5000; i++) {
            size_t size = i % 100 == 99 ? 100000 : i % 700;
            char *object = la_group_alloc(group, size);
            assert_non_null(object);
            memset(object, 1, size);
        }
        assert_non_null(la_group_alloc(group, 5 * MiB));
        assert_int_equal(live_blocks(group), 5001);
        assert_chain_is_sound(la_group_chain(group));
        la_group_free_all(group);
        assert_int_equal(live_blocks(group), 0);
    }
    assert_null(la_group_destroy(group));
    assert_heap_is_sound();
}

static void object_may_be_freed_or_grown_alone(void **state)
{
    struct la_group *group = new_group(NULL);
    char *a = la_group_alloc(group, 100), *b = la_group_alloc(group, 100);

    (void)state;
    memset(b, 'b', 100);
    la_free(a);
    b = la_chain_realloc(la_group_chain(group), b, 10000);
    assert_int_equal(b[99], 'b');
    free_in_other_thread(la_group_alloc(group, 50));
    la_group_destroy(group);
    assert_heap_is_sound();
}

static void callbacks_run_last_registered_first(void **state)
{
    struct la_group *group = new_group(NULL);

    (void)state;
    on_free(group, 'a');
    on_free(group, 'b');
    on_free(group, 'c');
    la_group_free_all(group);
    assert_string_equal(calls, "cba");
    la_group_free_all(group);
    assert_string_equal(calls, "cba");      /* each once */
    on_free(group, 'd');
    la_group_destroy(group);
    assert_string_equal(calls, "cbad");
}

static void children_go_before_their_parent_youngest_first(void **state)
{
    struct la_group *parent = new_group(NULL), *first, *second, *grandchild;

    (void)state;
    on_free(parent, 'p');
    first = new_group(parent);
    on_free(first, 'f');
    second = new_group(parent);
    on_free(second, 's');
    grandchild = new_group(first);
    on_free(grandchild, 'g');
    on_free(parent, 'q');
    la_group_free_all(parent);
    assert_string_equal(calls, "sgfqp");
    la_group_destroy(parent);
    assert_string_equal(calls, "sgfqp");
    assert_heap_is_sound();
}

static void child_may_go_alone_first_last_or_between(void **state)
{
    struct la_group *parent = new_group(NULL), *children[4];

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        children[i] = new_group(parent);
        on_free(children[i], (char)('0' + i));
    }
    la_group_destroy(children[1]);
    la_group_destroy(children[3]);
    assert_string_equal(calls, "13");
    la_group_destroy(parent);
    assert_string_equal(calls, "1320");
}

/* A callback that frees, allocates or registers: what destructors of real objects do. */
static struct la_group *busy;

static void use_the_group(void *arg)
{
    note(arg);
    la_free(la_group_alloc(busy, 1000));
    if (strlen(calls) < 3)
        on_free(busy, 'n');
}

static void callback_may_use_its_group(void **state)
{
    char *object;

    (void)state;
    busy = new_group(NULL);
    object = la_group_alloc(busy, 1);
    *object = 'o';
    assert_int_equal(la_group_on_free(busy, use_the_group, object), 0);
    la_group_destroy(busy);
    assert_string_equal(calls, "on");
    assert_heap_is_sound();
}

static void group_over_a_buffer_stays_inside_it(void **state)
{
    struct fenced f = fenced_new(64 * KiB, 9);
    struct la_group *parent = new_group(NULL), *group = NULL;
    unsigned first = 0, again = 0;

    (void)state;
    assert_int_equal(la_group_create_in(parent, f.buffer, f.size, &group), 0);
    while (la_group_alloc(group, 100))
        first++;
    assert_true(first > 200);
    la_group_free_all(group);
    while (la_group_alloc(group, 100))
        again++;
    assert_int_equal(again, first);
    la_group_destroy(parent);
    assert_null(region_page(f.buffer + 32 * KiB));
    fenced_free(&f);
}

/* As the header says: the buffer serves its one chain. */
static void child_of_a_group_over_a_buffer_lies_outside_of_it(void **state)
{
    static char memory[64 * KiB], own[32 * KiB];
    struct la_group *parent, *outside, *inside;
    char *block;

    (void)state;
    assert_int_equal(la_group_create_in(NULL, memory, sizeof(memory), &parent), 0);
    assert_int_equal(la_group_create(parent, NULL, &outside), 0);
    block = la_group_alloc(outside, 100);
    assert_true(block && (block < memory || block >= memory + sizeof(memory)));
    assert_int_equal(la_group_create_in(parent, own, sizeof(own), &inside), 0);
    block = la_group_alloc(inside, 100);
    assert_in_range(block, own, own + sizeof(own));
    la_group_destroy(parent);
    assert_heap_is_sound();
}

static void full_group_refuses_a_callback(void **state)
{
    static char memory[LA_CHAIN_MIN_SIZE];
    struct la_group *group = NULL;

    (void)state;
    assert_int_equal(la_group_create_in(NULL, memory, sizeof(memory), &group), 0);
    for (size_t size = 512; size >= 8; size /= 2)
        while (la_group_alloc(group, size))
            ;
    assert_int_equal(la_group_on_free(group, note, "x"), -ENOMEM);
    la_group_destroy(group);
    assert_string_equal(calls, "");
}

static void wrong_buffer_leaves_no_group(void **state)
{
    static char memory[100];
    struct la_group *group = (struct la_group *)memory;

    (void)state;
    assert_int_equal(la_group_create_in(NULL, memory, sizeof(memory), &group), -ENOSPC);
    assert_int_equal(la_group_create_in(NULL, NULL, 100000, &group), -EINVAL);
    assert_ptr_equal(group, memory);
    assert_null(la_group_destroy(NULL));
    assert_heap_is_sound();
}

static void group_as_default_collects_what_unmodified_code_allocates(void **state)
{
    struct la_group *group = new_group(NULL);

    (void)state;
    LA_WITH_CHAIN(la_group_chain(group)) {
        for (unsigned i = 0; i < 100; i++)
            assert_non_null(la_malloc(i * 10));
        la_group_destroy(group);        /* refused: it is this thread's default */
        assert_int_equal(la_last_error_code(), -EBUSY);
    }
    assert_int_equal(live_blocks(group), 100);
    la_group_destroy(group);
    assert_heap_is_sound();
}

static void many_groups_come_and_go_without_growth(void **state)
{
    size_t mapped = 0;

    (void)state;
    for (unsigned i = 0; i < 2000; i++) {
        struct la_group *parent = new_group(NULL), *child = new_group(parent);

        for (unsigned j = 0; j < 30; j++)
            assert_non_null(la_group_alloc(j & 1 ? child : parent, j * 50));
        la_group_destroy(parent);
        if (i == 10)
            mapped = la_source_default()->mapped;
    }
    assert_int_equal(la_source_default()->mapped, mapped);
    assert_heap_is_sound();
}

#define group_test(f) cmocka_unit_test_setup(f, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        group_test(objects_of_every_size_are_freed_at_once),
        group_test(object_may_be_freed_or_grown_alone),
        group_test(callbacks_run_last_registered_first),
        group_test(children_go_before_their_parent_youngest_first),
        group_test(child_may_go_alone_first_last_or_between),
        group_test(callback_may_use_its_group),
        group_test(group_over_a_buffer_stays_inside_it),
        group_test(child_of_a_group_over_a_buffer_lies_outside_of_it),
        group_test(full_group_refuses_a_callback),
        group_test(wrong_buffer_leaves_no_group),
        group_test(group_as_default_collects_what_unmodified_code_allocates),
        group_test(many_groups_come_and_go_without_growth),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
