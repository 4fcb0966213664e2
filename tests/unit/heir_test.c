#include "../support/shared.h"

#include <errno.h>
#include <pthread.h>

#include "core/shared_heap.h"

enum { BLOCKS = 5, DEAD = 13 };

static void hold_blocks(struct la_heap *heap)
{
    static const size_t sizes[BLOCKS] = { 16, 100, 5000, 200000, (size_t)3 << 20 };

    for (unsigned i = 0; i < BLOCKS; i++) {
        char *block = la_heap_hold(heap, sizes[i]);
        if (!block)
            abort();
        memset(block, 'a' + (int)i, sizes[i]);
    }
}

static void leave_blocks(struct la_heap *heap)
{
    if (la_heap_set_heir(heap, "heir") < 0)
        abort();
    hold_blocks(heap);
}

static void remember(void *user, const struct la_obituary *obituary)
{
    *(struct la_obituary *)user = *obituary;
}

static void free_inherited(void *user, void *block, size_t size)
{
    unsigned *seen = user;
    const char *bytes = block;

    *seen |= 1u << (bytes[0] - 'a');
    assert_int_equal(bytes[size > 16 ? 15 : 0], bytes[0]);
    la_free(block);
}

static void what_the_dead_held_is_left_to_their_heir(void **state)
{
    struct shared *s = *state;
    struct la_obituary obituary;
    unsigned seen = 0;

    shared_kill_after(s, leave_blocks);
    assert_int_equal(la_heap_inherit(s->heap, "heir", NULL, NULL), 0);
    assert_int_equal(la_heap_recover(s->heap, remember, &obituary), 1);
    assert_int_equal(obituary.blocks, 0);
    assert_int_equal(obituary.left_blocks, BLOCKS);
    assert_string_equal(obituary.heir, "heir");
    assert_int_equal(shared_count(s).blocks[HELD], BLOCKS);
    assert_int_equal(la_heap_inherit(s->heap, "another", free_inherited, &seen), 0);
    assert_int_equal(la_heap_inherit(s->heap, "heir", NULL, NULL), BLOCKS);
    assert_int_equal(la_heap_inherit(s->heap, "heir", free_inherited, &seen), BLOCKS);
    assert_int_equal(seen, (1u << BLOCKS) - 1);
    assert_int_equal(la_heap_inherit(s->heap, "heir", NULL, NULL), 0);
    assert_int_equal(shared_count(s).blocks[HELD], 0);
}

static uint32_t lanes_in_use(struct la_heap *heap)
{
    struct la_heap_info info = { .struct_size = sizeof(info) };

    assert_int_equal(la_heap_info(heap, &info), 0);
    return info.lanes;
}

static void count(void *user, void *block, size_t size)
{
    (void)block;
    (void)size;
    ++*(unsigned *)user;
}

static void inherited_blocks_are_held_and_their_lanes_free(void **state)
{
    struct shared *s = *state;
    uint32_t lanes = lanes_in_use(s->heap);
    unsigned n = 0;

    for (int i = 0; i < DEAD; i++) {
        shared_kill_after(s, leave_blocks);
        assert_int_equal(la_heap_recover(s->heap, NULL, NULL), 1);
    }
    /* More than are looked for in one walk. */
    for (unsigned i = 1000; i < 1100; i++)
        atomic_store(&s->heap->lane_table[i].owner, 1ull << 32 | LANE_LEFT | 0);
    atomic_store(&s->heap->header->lanes, 1100);
    assert_int_equal(lanes_in_use(s->heap), lanes + DEAD + 100);
    assert_int_equal(la_heap_inherit(s->heap, "heir", NULL, NULL), DEAD * BLOCKS);
    assert_int_equal(la_heap_inherit(s->heap, "heir", count, &n), DEAD * BLOCKS);
    assert_int_equal(n, DEAD * BLOCKS);
    assert_int_equal(lanes_in_use(s->heap), lanes + 1);     /* ours */
    assert_int_equal(shared_count(s).blocks[HELD], DEAD * BLOCKS);
}

static void inherit_and_die(struct la_heap *heap)
{
    unsigned n = 0;

    if (la_heap_inherit(heap, "heir", count, &n) != BLOCKS)
        abort();
}

static void inherit_as_heir_and_die(struct la_heap *heap)
{
    if (la_heap_set_heir(heap, "heir") < 0)
        abort();
    inherit_and_die(heap);
}

static void what_an_heir_holds_goes_its_own_way_at_its_death(void **state)
{
    struct shared *s = *state;

    shared_kill_after(s, leave_blocks);
    la_heap_recover(s->heap, NULL, NULL);
    shared_kill_after(s, inherit_as_heir_and_die);
    la_heap_recover(s->heap, NULL, NULL);
    assert_int_equal(la_heap_inherit(s->heap, "heir", NULL, NULL), BLOCKS);
    shared_kill_after(s, inherit_and_die);
    la_heap_recover(s->heap, NULL, NULL);
    assert_int_equal(la_heap_inherit(s->heap, "heir", NULL, NULL), 0);
    assert_int_equal(shared_count(s).blocks[HELD], 0);
}

static void change_ones_mind(struct la_heap *heap)
{
    leave_blocks(heap);
    if (la_heap_set_heir(heap, NULL) < 0)
        abort();
}

static void an_heir_can_be_taken_back_and_is_not_that_of_the_next_process(void **state)
{
    struct shared *s = *state;

    shared_kill_after(s, change_ones_mind);
    la_heap_recover(s->heap, NULL, NULL);
    assert_int_equal(shared_count(s).blocks[HELD], 0);
    shared_kill_after(s, leave_blocks);
    shared_kill_after(s, hold_blocks);      /* in the same slot */
    la_heap_recover(s->heap, NULL, NULL);
    assert_int_equal(shared_count(s).blocks[HELD], BLOCKS);
    assert_int_equal(la_heap_reset(s->heap), 0);
    assert_int_equal(la_heap_inherit(s->heap, "heir", NULL, NULL), 0);
    assert_int_equal(lanes_in_use(s->heap), 1);
}

static int leave_in_peace(struct la_heap *heap)
{
    leave_blocks(heap);
    return la_heap_detach(heap) < 0;
}

static void detaching_leaves_to_the_heir_as_dying_does(void **state)
{
    struct shared *s = *state;

    assert_int_equal(shared_run(s, leave_in_peace), 0);
    assert_int_equal(la_heap_inherit(s->heap, "heir", NULL, NULL), BLOCKS);
}

static void leave_a_bundle(struct la_heap *heap)
{
    struct la_bundle *bundle;

    if (la_heap_set_heir(heap, "heir") < 0 || la_bundle_begin(heap, &bundle) < 0)
        abort();
    for (int i = 0; i < 100; i++)
        if (!la_bundle_alloc(bundle, 40))
            abort();
}

static void blocks_of_a_bundle_are_left_and_its_records_free(void **state)
{
    struct shared *s = *state;

    shared_kill_after(s, leave_a_bundle);
    la_heap_recover(s->heap, NULL, NULL);
    assert_int_equal(la_heap_inherit(s->heap, "heir", NULL, NULL), 100);
    assert_int_equal(shared_count(s).blocks[HELD], 100);
}

static void *inherit_in_thread(void *heap)
{
    static __thread unsigned n;

    return (void *)la_heap_inherit(heap, "heir", count, &n);
}

static void heirs_of_one_name_share(void **state)
{
    struct shared *s = *state;
    pthread_t threads[2];
    long sum = 0;

    for (int i = 0; i < 3; i++) {
        shared_kill_after(s, leave_blocks);
        la_heap_recover(s->heap, NULL, NULL);
    }
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, inherit_in_thread, s->heap), 0);
    for (int i = 0; i < 2; i++) {
        void *got;

        pthread_join(threads[i], &got);
        sum += (long)got;
    }
    assert_int_equal(sum, 3 * BLOCKS);
    assert_int_equal(shared_count(s).blocks[HELD], 3 * BLOCKS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        shared_test(what_the_dead_held_is_left_to_their_heir),
        shared_test(inherited_blocks_are_held_and_their_lanes_free),
        shared_test(what_an_heir_holds_goes_its_own_way_at_its_death),
        shared_test(an_heir_can_be_taken_back_and_is_not_that_of_the_next_process),
        shared_test(detaching_leaves_to_the_heir_as_dying_does),
        shared_test(blocks_of_a_bundle_are_left_and_its_records_free),
        shared_test(heirs_of_one_name_share),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
