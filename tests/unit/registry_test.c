/* registry_test.c - names, cursors, and segments that outlive their names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shmserver/daemon/reaper.h"
#include "shmserver/daemon/registry.h"
#include "shmserver/daemon/view.h"

enum { SIZE = 8 << 20, MAX_SEGMENTS = 30 };

static struct quota quota;
static struct registry registry;
static char addresses[32];

static int setup(void **state)
{
    const struct quota_limits limits = { .clients = 1, .heaps = 1000, .bytes = UINT64_MAX };

    (void)state;
    strcpy(addresses, "/tmp/registry-test-XXXXXX");
    close(mkstemp(addresses));
    setenv("LIBALLOC_VSPACE_REGISTRY", addresses, 1);
    quota_init(&quota, &limits);
    registry_init(&registry, &quota, MAX_SEGMENTS);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    assert_true(registry_is_valid(&registry));
    registry_deinit(&registry, false);
    assert_true(list_is_empty(&quota.users));
    return unlink(addresses);
}

static struct segment *make(const char *name)
{
    struct segment *segment = NULL;

    assert_int_equal(registry_create(&registry, name, SIZE, 0, 0, 1000, 100, &segment), 0);
    return segment;
}

static void name_is_taken_until_it_is_removed(void **state)
{
    struct segment *segment = make("name"), *other = NULL;

    (void)state;
    assert_int_equal(registry_create(&registry, "name", SIZE, 0, 0, 1000, 100, &other), -EEXIST);
    assert_null(other);
    assert_ptr_equal(registry_find(&registry, "name"), segment);
    assert_ptr_equal(registry_find_id(&registry, segment->id), segment);
    registry_remove(segment);
    assert_null(registry_find(&registry, "name"));
    assert_true(registry_release(segment));
    assert_int_equal(registry.count, 0);
    make("name");
}

static void same_key_gives_the_same_segment_to_its_owner_only(void **state)
{
    struct segment *first, *again = NULL;

    (void)state;
    assert_int_equal(registry_create(&registry, "key", SIZE, 0, 99, 1000, 100, &first), 0);
    assert_int_equal(registry_create(&registry, "key", SIZE, 0, 99, 1000, 100, &again), 0);
    assert_ptr_equal(first, again);
    assert_int_equal(registry_create(&registry, "key", SIZE, 0, 98, 1000, 100, &again), -EEXIST);
    assert_int_equal(registry_create(&registry, "key", SIZE, 0, 99, 1001, 100, &again), -EEXIST);
    assert_int_equal(registry.count, 1);
}

static void heap_that_changes_hands_counts_for_its_new_owner(void **state)
{
    struct segment *segment = make("given");
    struct acl acl = segment->acl;

    (void)state;
    assert_int_equal(acl.owner, 1000);
    assert_int_equal(acl.group, 100);
    assert_int_equal(acl.mode, 0600);
    acl.owner = 1001;
    acl.mode = 0660;
    assert_int_equal(registry_set_acl(segment, &acl), 0);
    assert_int_equal(segment->acl.mode, 0660);
    /* The books balance: everything of 1000 is given back, everything of 1001 is taken. */
    registry_remove(segment);
    assert_true(registry_release(segment));
    assert_true(list_is_empty(&quota.users));
}

static void limit_holds_and_a_failure_costs_nothing(void **state)
{
    struct segment *segment;
    char name[16];

    (void)state;
    for (int i = 0; i < MAX_SEGMENTS; i++) {
        snprintf(name, sizeof(name), "n%d", i);
        make(name);
    }
    assert_int_equal(registry_create(&registry, "more", SIZE, 0, 0, 1000, 100, &segment), -EDQUOT);
    registry_remove(registry_find(&registry, "n3"));
    assert_true(registry_release(registry_after(&registry, 3)));
    assert_int_equal(registry_create(&registry, "small", 1, 0, 0, 1000, 100, &segment), -EINVAL);
    assert_int_equal(registry_create(&registry, "huge", UINT64_MAX / 2, 0, 0, 1000, 100, &segment), -EINVAL);
    assert_int_equal(registry.count, MAX_SEGMENTS - 1);
    make("more");
}

static void cursor_goes_on_where_it_was_whatever_came_and_went(void **state)
{
    struct segment *b;

    (void)state;
    make("a");
    b = make("b");
    make("c");
    assert_string_equal(registry_after(&registry, 0)->name, "a");
    registry_remove(b);
    assert_true(registry_release(b));
    assert_string_equal(registry_after(&registry, 1)->name, "c");
    make("d");
    assert_string_equal(registry_after(&registry, 3)->name, "d");
    assert_null(registry_after(&registry, 4));
}

static void segment_lives_while_a_peer_holds_it(void **state)
{
    struct segment *segment = make("held");
    struct la_list holdings;
    int peer;

    (void)state;
    list_init(&holdings);
    assert_int_equal(segment_hold(segment, &peer, &holdings, true), 0);
    assert_true(segment_find_holding(segment, &peer)->read_only);
    assert_int_equal(segment_hold(segment, &peer, &holdings, false), 0);
    assert_false(segment_find_holding(segment, &peer)->read_only);
    assert_int_equal(segment_hold(segment, &peer, &holdings, true), 0);
    assert_false(segment_find_holding(segment, &peer)->read_only);
    registry_remove(segment);
    assert_false(registry_release(segment));
    holding_drop(segment_find_holding(segment, &peer));
    assert_true(list_is_empty(&holdings));
    assert_null(segment_find_holding(segment, &peer));
    assert_true(registry_release(segment));
}

static void more_segments_than_views_can_all_be_looked_into(void **state)
{
    (void)state;
    for (int i = 0; i < 2 * VIEW_MAX + 3; i++) {
        char name[16];

        snprintf(name, sizeof(name), "v%d", i);
        make(name);
    }
    for (int round = 0; round < 2; round++)
        for (struct segment *s = registry_after(&registry, 0); s; s = registry_after(&registry, s->serial)) {
            struct shms_heap heap;

            assert_int_equal(view_describe(s, &heap), 0);
            assert_string_equal(heap.name, s->name);
            assert_int_equal(heap.processes, 0);
        }
}

static void peer_that_left_nothing_settles_at_once(void **state)
{
    struct segment *segment = make("settled");

    (void)state;
    reaper_peer_went(segment, 1000);
    assert_int_equal(segment->unsettled, 0);
    assert_int_equal(segment->look_at, 0);
    assert_int_equal(reaper_run(&registry, 1000), -1);
}

/* ---- another daemon ---- */

static void become_the_next_daemon(struct state *state, struct named_fds *files)
{
    int fd = dup(state->fd);

    assert_int_equal(registry_copy_files(&registry, files), 0);
    registry_deinit(&registry, true);
    assert_true(list_is_empty(&quota.users));
    state_close(state);
    assert_int_equal(state_open(state, fd), 0);
    registry_init(&registry, &quota, 1);        /* also where less is allowed now */
    registry.state = state;
}

static void next_daemon_has_the_same_heaps(void **unused)
{
    const struct acl acl = { .owner = 1001, .group = 7, .mode = 0640 };
    struct named_fds files = { 0 };
    struct la_heap *heap;
    struct segment *segment, *again;
    struct state state;
    uintptr_t address;
    uint64_t id;

    (void)unused;
    assert_int_equal(state_open(&state, -1), 0);
    registry.state = &state;
    make("a");
    assert_int_equal(registry_create(&registry, "b", SIZE, 0, 99, 1000, 100, &segment), 0);
    assert_int_equal(registry_set_acl(segment, &acl), 0);
    id = segment->id;
    address = segment->file.address;
    make("gone");
    registry_remove(registry_find(&registry, "gone"));
    registry_remove(registry_find(&registry, "a"));
    assert_true(registry_release(registry_find_id(&registry, registry_after(&registry, 0)->id)));
    make("a");

    become_the_next_daemon(&state, &files);
    assert_int_equal(registry_restore(&registry, &files), 2);
    assert_int_equal(files.count, 0);
    assert_null(registry_find(&registry, "gone"));      /* nobody used it */
    segment = registry_find(&registry, "b");
    assert_non_null(segment);
    assert_true(segment->id == id && segment->file.address == address);
    assert_memory_equal(&segment->acl, &acl, sizeof(acl));
    assert_int_equal(view_open(segment, &heap), 0);
    assert_true(segment->serial < registry_find(&registry, "a")->serial);
    assert_int_equal(quota_count_heap(&quota, 1001, 0, false), 0);
    quota_give_heap(&quota, 1001, 0, false);
    registry.max = MAX_SEGMENTS;
    assert_int_equal(registry_create(&registry, "b", SIZE, 0, 99, 1001, 100, &again), 0);
    assert_ptr_equal(again, segment);
    make("next");
    assert_true(registry_is_valid(&registry));
    named_fds_close(&files);
    registry_deinit(&registry, false);
    state_close(&state);
}

static void file_and_record_without_each_other_are_forgotten(void **unused)
{
    struct named_fds files = { 0 };
    struct state state;
    char name[64];

    (void)unused;
    assert_int_equal(state_open(&state, -1), 0);
    registry.state = &state;
    make("no-file");
    snprintf(name, sizeof(name), "heap-%016lx", (unsigned long)make("no-record")->id);
    state_drop(&state, STATE_HEAP, registry_find(&registry, "no-record")->id);
    make("damaged");
    become_the_next_daemon(&state, &files);
    assert_int_equal(files.count, 3);
    close(files.list[0].fd);
    named_fds_take_at(&files, 0);
    /* What the store gives back is believed only as far as it can be checked. */
    assert_int_equal(dup2(0, files.list[1].fd), files.list[1].fd);
    assert_int_equal(registry_restore(&registry, &files), 0);
    assert_int_equal(files.count, 0);
    assert_null(state_next(&state, STATE_HEAP, NULL));
    named_fds_close(&files);
    state_close(&state);
}

/* What the books say of one heap is put in place of its record. */
static int restore_with(const struct state_record *wrong)
{
    struct named_fds files = { 0 };
    struct state state;
    int n;

    assert_int_equal(state_open(&state, -1), 0);
    registry.state = &state;
    make("a");
    make("b");
    become_the_next_daemon(&state, &files);
    if (wrong) {
        struct state_record record = *state_next(&state, STATE_HEAP, NULL);

        memcpy(record.name, wrong->name, sizeof(record.name));
        record.serial = wrong->serial;
        assert_int_equal(state_put(&state, &record), 0);
    }
    registry.max = MAX_SEGMENTS;
    n = registry_restore(&registry, &files);
    assert_true(registry_is_valid(&registry));
    assert_int_equal(files.count, 0);
    named_fds_close(&files);
    registry_deinit(&registry, false);
    state_close(&state);
    registry_init(&registry, &quota, MAX_SEGMENTS);
    return n;
}

static void records_that_no_daemon_writes_are_left_out(void **unused)
{
    struct state_record wrong = { .serial = 1, .name = "b" };

    (void)unused;
    assert_int_equal(restore_with(NULL), 2);
    assert_int_equal(restore_with(&wrong), 1);          /* two of one name */
    memset(wrong.name, 'n', sizeof(wrong.name));        /* no end */
    assert_int_equal(restore_with(&wrong), 1);
    strcpy(wrong.name, "a");
    wrong.serial = UINT64_MAX;                          /* none could follow */
    assert_int_equal(restore_with(&wrong), 1);
}

#define with_registry(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_registry(name_is_taken_until_it_is_removed),
        with_registry(same_key_gives_the_same_segment_to_its_owner_only),
        with_registry(heap_that_changes_hands_counts_for_its_new_owner),
        with_registry(limit_holds_and_a_failure_costs_nothing),
        with_registry(cursor_goes_on_where_it_was_whatever_came_and_went),
        with_registry(segment_lives_while_a_peer_holds_it),
        with_registry(more_segments_than_views_can_all_be_looked_into),
        with_registry(peer_that_left_nothing_settles_at_once),
        with_registry(next_daemon_has_the_same_heaps),
        with_registry(file_and_record_without_each_other_are_forgotten),
        with_registry(records_that_no_daemon_writes_are_left_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
