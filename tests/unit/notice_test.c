#include "../support/shared.h"

#include <errno.h>
#include <sys/prctl.h>

#include "core/notice.h"

static void hold_three_and_die(struct la_heap *heap)
{
    for (int i = 0; i < 3; i++)
        if (!la_heap_hold(heap, 100))
            abort();
}

static void obituaries_are_read_one_after_the_other(void **state)
{
    struct shared *s = *state;
    struct la_obituary obituary = { .slot = 999 };
    uint64_t number = 0;
    char name[16];

    assert_int_equal(la_heap_obituary(s->heap, &number, &obituary), -ENOENT);
    assert_int_equal(obituary.slot, 999);
    shared_kill_after(s, hold_three_and_die);
    assert_int_equal(la_heap_obituary(s->heap, &number, &obituary), -ENOENT);
    assert_int_equal(la_heap_recover(s->heap, NULL, NULL), 1);
    assert_int_equal(la_heap_obituary(s->heap, &number, &obituary), 0);
    assert_int_equal(obituary.blocks, 3);
    assert_int_equal(obituary.lanes, 1);
    assert_int_equal(obituary.operation, 0);
    assert_int_equal(prctl(PR_GET_NAME, name), 0);
    assert_string_equal(obituary.command, name);
    assert_string_equal(obituary.heir, "");
    assert_int_equal(la_heap_obituary(s->heap, &number, &obituary), -ENOENT);
    shared_kill_after(s, hold_three_and_die);
    shared_kill_after(s, hold_three_and_die);   /* recovers the other one: it comes in its slot */
    assert_int_equal(la_heap_recover(s->heap, NULL, NULL), 1);
    for (int i = 0; i < 2; i++)
        assert_int_equal(la_heap_obituary(s->heap, &number, &obituary), 0);
    assert_int_equal(la_heap_obituary(s->heap, &number, &obituary), -ENOENT);
}

static int read_obituary(struct la_heap *heap)
{
    struct la_obituary obituary;
    uint64_t number = 0;

    return la_heap_obituary(heap, &number, &obituary) == 0 && obituary.blocks == 3 ? 0 : 1;
}

static void readers_subscribe_too(void **state)
{
    struct shared *s = *state;

    shared_kill_after(s, hold_three_and_die);
    la_heap_recover(s->heap, NULL, NULL);
    assert_int_equal(shared_run_with(s, LA_HEAP_READ_ONLY, read_obituary), 0);
}

static void a_slow_reader_is_told_that_some_are_lost(void **state)
{
    struct shared *s = *state;
    struct la_obituary obituary = { .slot = 7 };
    uint64_t number = 0;

    for (uint32_t i = 1; i <= HEAP_NOTICES + 10; i++) {
        obituary.blocks = i;
        notice_post_obituary(s->heap, i, &obituary);
    }
    assert_int_equal(la_heap_obituary(s->heap, &number, &obituary), -EOVERFLOW);
    assert_int_equal(number, 10);
    for (uint32_t i = 11; i <= HEAP_NOTICES + 10; i++) {
        assert_int_equal(la_heap_obituary(s->heap, &number, &obituary), 0);
        assert_int_equal(obituary.blocks, i);
    }
    assert_int_equal(la_heap_obituary(s->heap, &number, &obituary), -ENOENT);
}

/* As a recoverer does that begins again where another one died. */
static void a_death_is_told_once(void **state)
{
    struct shared *s = *state;
    struct la_obituary obituary = { .slot = 7, .blocks = 3 };
    uint64_t number = 0, word;

    notice_post_obituary(s->heap, 1, &obituary);
    word = atomic_load(&s->heap->notices[0].word);
    obituary.blocks = 0;
    notice_post_obituary(s->heap, 1, &obituary);
    assert_int_equal(atomic_load(&s->heap->header->notices), 1);
    assert_int_equal(la_heap_obituary(s->heap, &number, &obituary), 0);
    assert_int_equal(obituary.blocks, 3);
    /* Claimed, and not written: by the first who died. */
    atomic_store(&s->heap->notices[0].word, word & ~(uint64_t)1);
    atomic_store(&s->heap->header->notices, 0);
    number = 0;
    assert_int_equal(la_heap_obituary(s->heap, &number, &obituary), -ENOENT);
    obituary.blocks = 5;
    for (uint32_t i = 1; i <= 2; i++) {
        notice_post_obituary(s->heap, i, &obituary);
        assert_int_equal(la_heap_obituary(s->heap, &number, &obituary), 0);
        assert_int_equal(obituary.blocks, 5);
    }
}

/* Its reader comes when the entry was claimed for the next one, which is not counted yet. */
static void a_notice_that_is_lost_while_it_is_read_is_told_as_lost(void **state)
{
    struct shared *s = *state;
    struct la_obituary obituary = { .slot = 7 };
    uint64_t number = 0;

    for (uint32_t i = 1; i <= HEAP_NOTICES; i++) {
        obituary.blocks = i;
        notice_post_obituary(s->heap, i, &obituary);
    }
    atomic_store(&s->heap->notices[0].word, 1ull << 46 | 7ull << 33 | 1000ull << 1);
    assert_int_equal(la_heap_obituary(s->heap, &number, &obituary), -EOVERFLOW);
    assert_int_equal(number, 1);
    assert_int_equal(la_heap_obituary(s->heap, &number, &obituary), 0);
    assert_int_equal(obituary.blocks, 2);
}

/* A recoverer that is stopped between two stores. */
static void a_notice_that_nobody_ends_is_passed_over(void **state)
{
    struct shared *s = *state;
    struct la_obituary obituary = { .slot = 7 };
    uint64_t number = 0;
    unsigned read = 0;

    notice_post_obituary(s->heap, 1, &obituary);
    atomic_fetch_and(&s->heap->notices[0].word, ~(uint64_t)1);
    for (uint32_t i = 2; i <= 3 * HEAP_NOTICES; i++) {
        notice_post_obituary(s->heap, i, &obituary);
        while (la_heap_obituary(s->heap, &number, &obituary) == 0)
            read++;
    }
    assert_int_equal(atomic_load(&s->heap->notices[0].word) & 1, 0);
    assert_int_equal(read, 3 * HEAP_NOTICES - 1);
}

/* Whatever is in the table: no endless loop. */
static void a_table_that_was_overwritten_takes_no_notice(void **state)
{
    struct shared *s = *state;
    struct la_obituary obituary = { .slot = 7 };
    uint64_t number = 0;

    for (unsigned i = 0; i < HEAP_NOTICES; i++)
        atomic_store(&s->heap->notices[i].word, ~(uint64_t)1);
    notice_post_obituary(s->heap, 1, &obituary);
    la_heap_obituary(s->heap, &number, &obituary);
    assert_int_equal(la_heap_outcome(s->heap, 5), -ENOENT);
}

/* ---- outcomes ---- */

static void push_numbered(struct la_heap *heap)
{
    if (la_heap_operation(heap, 41) < 0 || la_push(heap, shared_root(heap, "stack"), la_heap_hold(heap, 64), 0) < 0 || la_heap_operation(heap, 42) < 0)
        abort();
}

static void expect_outcomes_of_the_dead(struct shared *s)
{
    assert_int_equal(la_heap_outcome(s->heap, 41), 1);
    assert_int_equal(la_heap_outcome(s->heap, 42), 0);
    assert_int_equal(la_heap_outcome(s->heap, 43), -ENOENT);
    assert_non_null(strstr(la_last_error(), "operation 43"));
}

static void the_outcome_of_the_last_operation_of_the_dead_is_known(void **state)
{
    struct shared *s = *state;
    struct la_obituary obituary;
    uint64_t number = 0;

    shared_kill_after(s, push_numbered);
    assert_int_equal(la_heap_outcome(s->heap, 41), 1);
    assert_int_equal(la_heap_outcome(s->heap, 42), -EINPROGRESS);
    la_heap_recover(s->heap, NULL, NULL);
    expect_outcomes_of_the_dead(s);
    /* Its lane is somebody else's now, who gives numbers, too. */
    assert_int_equal(la_heap_operation(s->heap, 1), 0);
    assert_int_equal(la_push(s->heap, shared_root(s->heap, "stack"), la_heap_hold(s->heap, 64), 0), 0);
    expect_outcomes_of_the_dead(s);
    assert_int_equal(la_heap_obituary(s->heap, &number, &obituary), 0);
    assert_int_equal(obituary.operation, 42);
    assert_false(obituary.happened);
}

/* It was killed before it could store that it has not begun anything. */
static void whoever_is_lent_the_lane_of_the_dead_does_not_have_their_operation(void **state)
{
    struct shared *s = *state;
    struct la_obituary obituary;
    uint64_t number = 0, owner;
    unsigned lane = 1;

    shared_kill_after(s, push_numbered);
    while ((uint32_t)(owner = atomic_load(&s->heap->lane_table[lane].owner)) == s->heap->process + 1u)
        lane++;
    assert_int_equal(la_heap_recover(s->heap, NULL, NULL), 1);
    assert_int_equal(la_heap_obituary(s->heap, &number, &obituary), 0);
    assert_int_equal(obituary.operation, 42);
    atomic_store(&s->heap->processes[50].state, 1ull << 32 | PROCESS_ATTACHED);
    atomic_store(&s->heap->lane_table[lane].owner, ((owner >> 32) + 1) << 32 | 51);
    assert_int_equal(la_heap_outcome(s->heap, 42), 0);
    assert_int_equal(la_heap_recover(s->heap, NULL, NULL), 1);
    assert_int_equal(la_heap_obituary(s->heap, &number, &obituary), 0);
    assert_int_equal(obituary.slot, 50);
    assert_int_equal(obituary.operation, 0);
    expect_outcomes_of_the_dead(s);
}

/* Its recoverer has told, and not freed the lane yet. */
static void an_outcome_that_was_told_is_not_taken_back(void **state)
{
    struct shared *s = *state;

    assert_int_equal(la_heap_operation(s->heap, 5), 0);
    assert_int_equal(la_heap_outcome(s->heap, 5), -EINPROGRESS);
    notice_post_outcome(s->heap, 1, 1, 5, 0);
    assert_int_equal(la_heap_outcome(s->heap, 5), 0);
}

static void outcomes_of_the_living_are_told(void **state)
{
    struct shared *s = *state;
    la_link *root = shared_root(s->heap, "root");
    void *block = la_heap_hold(s->heap, 64);

    assert_int_equal(la_heap_outcome(s->heap, 0), -EINVAL);
    assert_int_equal(la_heap_operation(s->heap, 5), 0);
    assert_int_equal(la_publish(s->heap, root, block, block), -EAGAIN);
    assert_int_equal(la_heap_outcome(s->heap, 5), -EINPROGRESS);
    assert_int_equal(la_publish(s->heap, root, NULL, block), 0);
    assert_int_equal(la_heap_outcome(s->heap, 5), 1);
    /* What has no number does not make it forgotten. */
    assert_int_equal(la_heap_operation(s->heap, 0), 0);
    assert_ptr_equal(la_take(s->heap, root, LA_NO_NEXT), block);
    assert_int_equal(la_heap_outcome(s->heap, 5), 1);
    assert_int_equal(la_heap_operation(s->heap, 6), 0);
    la_free(block);
    assert_null(la_take(s->heap, root, LA_NO_NEXT));
    assert_int_equal(la_heap_outcome(s->heap, 6), -EINPROGRESS);
}

static void every_kind_of_operation_has_an_outcome(void **state)
{
    struct shared *s = *state;
    la_link *root = shared_root(s->heap, "root");
    struct la_queue *queue;
    void *block, *old;

    assert_int_equal(la_queue_create(s->heap, "queue", 4, &queue), 0);
    assert_int_equal(la_heap_operation(s->heap, 1), 0);
    assert_int_equal(la_queue_push(s->heap, queue, la_heap_hold(s->heap, 64), LA_TRY), 0);
    assert_int_equal(la_heap_outcome(s->heap, 1), 1);
    assert_int_equal(la_heap_operation(s->heap, 2), 0);
    assert_int_equal(la_queue_pop(s->heap, queue, LA_TRY, &block), 0);
    assert_int_equal(la_heap_outcome(s->heap, 2), 1);
    assert_int_equal(la_heap_operation(s->heap, 3), 0);
    assert_int_equal(la_root_swap(s->heap, root, 0, block, &old), 0);
    assert_int_equal(la_heap_outcome(s->heap, 3), 1);
    assert_int_equal(la_heap_operation(s->heap, 4), 0);
    assert_ptr_equal(la_take(s->heap, root, LA_NO_NEXT), block);
    assert_int_equal(la_heap_outcome(s->heap, 4), 1);
    assert_int_equal(la_heap_operation(s->heap, 5), 0);
    assert_int_equal(la_queue_pop(s->heap, queue, LA_TRY, &block), -EAGAIN);
    assert_int_equal(la_heap_outcome(s->heap, 5), -EINPROGRESS);
    la_free(block);
    assert_int_equal(la_queue_destroy(s->heap, queue), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        shared_test(obituaries_are_read_one_after_the_other),
        shared_test(readers_subscribe_too),
        shared_test(a_slow_reader_is_told_that_some_are_lost),
        shared_test(a_death_is_told_once),
        shared_test(a_notice_that_is_lost_while_it_is_read_is_told_as_lost),
        shared_test(a_notice_that_nobody_ends_is_passed_over),
        shared_test(a_table_that_was_overwritten_takes_no_notice),
        shared_test(the_outcome_of_the_last_operation_of_the_dead_is_known),
        shared_test(whoever_is_lent_the_lane_of_the_dead_does_not_have_their_operation),
        shared_test(an_outcome_that_was_told_is_not_taken_back),
        shared_test(outcomes_of_the_living_are_told),
        shared_test(every_kind_of_operation_has_an_outcome),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
