#include "../support/shared.h"

#include <errno.h>

#include "base/error.h"
#include "core/shared_block.h"

struct node {
    struct node *next;
    int value;
};

static void a_held_block_outlives_its_process_once_published(void **state)
{
    struct shared *s = *state;
    la_link *root = shared_root(s->heap, "root");
    void *block = la_heap_hold(s->heap, 100);

    assert_int_equal(shared_count(s).blocks[HELD], 1);
    assert_int_equal(la_publish(s->heap, root, NULL, block), 0);
    assert_ptr_equal(la_load(s->heap, root), block);
    assert_int_equal(shared_count(s).blocks[HELD], 0);
    assert_int_equal(shared_count(s).blocks[HEAP], 1);
}

static void publish_over_another_value_leaves_the_block_held(void **state)
{
    struct shared *s = *state;
    la_link *root = shared_root(s->heap, "root");
    void *first = la_heap_hold(s->heap, 100), *second = la_heap_hold(s->heap, 100);

    assert_int_equal(la_publish(s->heap, root, NULL, first), 0);
    assert_int_equal(la_publish(s->heap, root, NULL, second), -EAGAIN);
    assert_ptr_equal(la_load(s->heap, root), first);
    assert_int_equal(shared_count(s).blocks[HELD], 1);
    la_free(second);
}

static void publish_refuses_what_is_not_held_and_links_outside_the_heap(void **state)
{
    struct shared *s = *state;
    la_link *root = shared_root(s->heap, "root"), outside = NULL;
    void *kept = la_heap_alloc(s->heap, 64), *held = la_heap_hold(s->heap, 64);

    assert_int_equal(la_publish(s->heap, root, NULL, kept), -EINVAL);
    assert_int_equal(la_publish(s->heap, root, NULL, (char *)held + 8), -EINVAL);
    assert_int_equal(la_publish(s->heap, &outside, NULL, held), -EINVAL);
    assert_int_equal(la_publish(s->heap, (la_link *)((char *)root + 1), NULL, held), -EINVAL);
    assert_null(la_load(s->heap, root));
}

static void pushed_objects_are_taken_in_reverse_order(void **state)
{
    struct shared *s = *state;
    la_link *root = shared_root(s->heap, "stack");
    struct node *n;

    for (int i = 0; i < 100; i++) {
        n = la_heap_hold(s->heap, sizeof(*n));
        n->value = i;
        assert_int_equal(la_push(s->heap, root, n, offsetof(struct node, next)), 0);
    }
    for (int i = 99; i >= 0; i--) {
        n = la_take(s->heap, root, offsetof(struct node, next));
        assert_int_equal(n->value, i);
        la_free(n);
    }
    assert_null(la_take(s->heap, root, offsetof(struct node, next)));
    assert_int_equal(shared_count(s).blocks[HEAP], 0);
}

static void a_taken_block_is_held_again(void **state)
{
    struct shared *s = *state;
    la_link *root = shared_root(s->heap, "root");

    assert_int_equal(la_publish(s->heap, root, NULL, la_heap_hold(s->heap, 3 << 20)), 0);
    assert_non_null(la_take(s->heap, root, LA_NO_NEXT));
    assert_int_equal(shared_count(s).blocks[HELD], 1);
    assert_null(la_load(s->heap, root));
}

/* NULL may be either: the code tells, whatever failed before. */
static void taking_from_an_empty_link_is_told_from_a_failure(void **state)
{
    struct shared *s = *state;
    la_link *root = shared_root(s->heap, "root");
    unsigned failures;

    la_fail(-ENOSPC, "an older failure");
    failures = error_count();
    assert_null(la_take(s->heap, root, LA_NO_NEXT));
    assert_int_equal(la_last_error_code(), 0);
    assert_string_equal(la_last_error(), "");
    assert_int_equal(error_count(), failures);
    assert_int_equal(la_publish(s->heap, root, NULL, la_heap_hold(s->heap, 64)), 0);
    assert_null(la_take(s->heap, root, 64));
    assert_int_equal(la_last_error_code(), -EINVAL);
    la_free(la_take(s->heap, root, LA_NO_NEXT));
}

static void take_refuses_a_next_outside_the_block(void **state)
{
    struct shared *s = *state;
    la_link *root = shared_root(s->heap, "root");

    assert_int_equal(la_publish(s->heap, root, NULL, la_heap_hold(s->heap, 64)), 0);
    assert_null(la_take(s->heap, root, 64));
    assert_non_null(la_load(s->heap, root));
}

static struct la_heap *bundle_heap;

static void publish_bundle(struct la_heap *heap)
{
    struct la_bundle *bundle;
    void *root;

    bundle_heap = heap;
    if (la_bundle_begin(heap, &bundle) < 0)
        abort();
    root = la_bundle_alloc(bundle, 50);
    for (int i = 0; i < 150; i++)
        if (!la_bundle_alloc(bundle, 40))
            abort();
    if (la_bundle_publish(bundle, shared_root(heap, "bundle"), NULL, root) < 0)
        abort();
}

static void a_published_bundle_outlives_its_process_whole(void **state)
{
    struct shared *s = *state;

    shared_kill_after(s, publish_bundle);
    assert_int_equal(la_heap_recover(s->heap, NULL, NULL), 1);
    assert_int_equal(shared_count(s).blocks[HEAP], 151);
    assert_int_equal(shared_count(s).blocks[HELD], 0);
}

static void an_aborted_bundle_leaves_nothing(void **state)
{
    struct shared *s = *state;
    struct la_bundle *bundle, *second;

    assert_int_equal(la_bundle_begin(s->heap, &bundle), 0);
    assert_int_equal(la_bundle_begin(s->heap, &second), -EBUSY);
    for (int i = 0; i < 100; i++)
        assert_non_null(la_bundle_alloc(bundle, 1000));
    la_bundle_abort(bundle);
    assert_int_equal(shared_count(s).blocks[HELD], 0);
    assert_int_equal(shared_count(s).blocks[HEAP], 0);
}

static void a_kept_block_needs_no_link(void **state)
{
    struct shared *s = *state;
    void *block = la_heap_hold(s->heap, 64);

    assert_int_equal(la_keep(s->heap, block), 0);
    assert_int_equal(la_keep(s->heap, block), -EINVAL);
    assert_int_equal(shared_count(s).blocks[HEAP], 1);
}

/* A lane that died with its mark on a link stops nobody: the next one finishes the take for it. */
static void a_mark_of_a_dead_taker_is_no_obstacle(void **state)
{
    struct shared *s = *state;
    la_link *root = shared_root(s->heap, "stack");
    struct node *a = la_heap_hold(s->heap, sizeof(*a)), *b = la_heap_hold(s->heap, sizeof(*b));
    struct block_ref ref;
    struct heap_lane *dead = &s->heap->lane_table[4000];

    assert_int_equal(la_push(s->heap, root, a, 0), 0);
    assert_int_equal(la_push(s->heap, root, b, 0), 0);
    assert_true(block_find(s->heap, b, &ref));
    /* The words after step 2 of the head of publish.c. */
    atomic_store(&dead->owner, 1ull << 32 | (LA_HEAP_MAX_PROCESSES - 1));
    atomic_store(&dead->sequence, 5);
    atomic_store(&dead->link, heap_offset(s->heap, root));
    atomic_store(&dead->block, heap_offset(s->heap, b));
    atomic_store(&dead->next_offset, 0);
    atomic_store(&dead->generation, word_generation(atomic_load(ref.word)));
    atomic_store(&dead->op, INTENT_TAKE);
    atomic_store((_Atomic(uintptr_t) *)root, (uintptr_t)1 << 63 | (uintptr_t)4000 << 51 | 5);

    assert_ptr_equal(la_load(s->heap, root), b);
    assert_ptr_equal(la_take(s->heap, root, 0), a);
    assert_null(la_load(s->heap, root));
    assert_int_equal(word_lane(atomic_load(ref.word)), 4000);
    la_free(a);
    la_free(b);
    atomic_store(&dead->op, INTENT_NONE);
    atomic_store(&dead->owner, 0);
}

/* The same of a publisher: the block is there for readers at once, and for takers. */
static void a_mark_of_a_dead_publisher_is_no_obstacle(void **state)
{
    struct shared *s = *state;
    la_link *root = shared_root(s->heap, "root");
    void *block = la_heap_hold(s->heap, 64);
    struct heap_lane *dead = &s->heap->lane_table[4000];
    struct block_ref ref;

    assert_true(block_find(s->heap, block, &ref));
    atomic_store(ref.word, word_make(word_generation(atomic_load(ref.word)), ref.epoch, WORD_IN_DOUBT, 4000));
    atomic_store(&dead->owner, 1ull << 32 | (LA_HEAP_MAX_PROCESSES - 1));
    atomic_store(&dead->sequence, 5);
    atomic_store(&dead->link, heap_offset(s->heap, root));
    atomic_store(&dead->block, heap_offset(s->heap, block));
    atomic_store(&dead->generation, word_generation(atomic_load(ref.word)));
    atomic_store(&dead->op, INTENT_PUBLISH);
    atomic_store((_Atomic(uintptr_t) *)root, (uintptr_t)1 << 63 | (uintptr_t)4000 << 51 | 5);

    assert_ptr_equal(la_load(s->heap, root), block);
    assert_ptr_equal(la_take(s->heap, root, LA_NO_NEXT), block);
    assert_null(la_load(s->heap, root));
    la_free(block);
    atomic_store(&dead->op, INTENT_NONE);
    atomic_store(&dead->owner, 0);
}

/* Nobody may loop for ever over a link that was overwritten. */
static void a_mark_that_no_lane_has_left_is_reported(void **state)
{
    struct shared *s = *state;
    la_link *root = shared_root(s->heap, "root");
    void *block = la_heap_hold(s->heap, 64);

    atomic_store((_Atomic(uintptr_t) *)root, (uintptr_t)1 << 63 | (uintptr_t)77 << 51 | 5);
    assert_null(la_take(s->heap, root, LA_NO_NEXT));
    assert_int_equal(la_last_error_code(), -EUCLEAN);
    assert_int_equal(la_publish(s->heap, root, NULL, block), -EUCLEAN);
    atomic_store(root, NULL);
    la_free(block);
}

/* A failed publish leaves the bundle as it was: its blocks die with the process, or go out with the next try. */
static void a_bundle_that_was_not_published_is_held_again(void **state)
{
    struct shared *s = *state;
    la_link *root = shared_root(s->heap, "root");
    struct la_bundle *bundle;
    void *block;

    assert_int_equal(la_bundle_begin(s->heap, &bundle), 0);
    block = la_bundle_alloc(bundle, 50);
    assert_non_null(la_bundle_alloc(bundle, 60));
    assert_int_equal(la_bundle_publish(bundle, root, block, block), -EAGAIN);
    assert_int_equal(shared_count(s).blocks[HELD], 3);
    assert_int_equal(shared_count(s).blocks[HEAP], 0);
    assert_int_equal(la_bundle_publish(bundle, root, NULL, block), 0);
    assert_int_equal(shared_count(s).blocks[HELD], 0);
    assert_int_equal(shared_count(s).blocks[HEAP], 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        shared_test(a_held_block_outlives_its_process_once_published),
        shared_test(publish_over_another_value_leaves_the_block_held),
        shared_test(publish_refuses_what_is_not_held_and_links_outside_the_heap),
        shared_test(pushed_objects_are_taken_in_reverse_order),
        shared_test(a_taken_block_is_held_again),
        shared_test(taking_from_an_empty_link_is_told_from_a_failure),
        shared_test(take_refuses_a_next_outside_the_block),
        shared_test(a_published_bundle_outlives_its_process_whole),
        shared_test(an_aborted_bundle_leaves_nothing),
        shared_test(a_kept_block_needs_no_link),
        shared_test(a_mark_of_a_dead_taker_is_no_obstacle),
        shared_test(a_mark_of_a_dead_publisher_is_no_obstacle),
        shared_test(a_mark_that_no_lane_has_left_is_reported),
        shared_test(a_bundle_that_was_not_published_is_held_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
