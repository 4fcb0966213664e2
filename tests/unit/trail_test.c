#include "../support/shared.h"

#include <errno.h>
#include <pthread.h>

#include "core/lane.h"
#include "core/shared_block.h"
#include "core/trail.h"

enum { SLOTS = 64 };

static struct lane *lane(struct shared *s)
{
    return heap_lane(s->heap);
}

static bool is_lost(struct shared *s)
{
    return trail_is_lost(s->heap, s->heap->process);
}

static struct block_ref find(struct la_heap *heap, const void *block)
{
    struct block_ref ref;

    if (!block_find(heap, block, &ref))
        abort();
    return ref;
}

/* ---- what the lane allocated itself ---- */

static unsigned count_marks(struct la_heap *heap)
{
    unsigned n = 0;

    for (uint32_t i = 0; i < heap_rows(heap); i++)
        n += (unsigned)__builtin_popcount(trail_marks(heap, i));
    return n;
}

static void a_slice_is_marked_while_something_in_it_is_held(void **state)
{
    struct shared *s = *state;
    static const size_t sizes[] = { 16, 100, 5000, 30000, 200000 };

    la_free(la_heap_alloc(s->heap, 64));
    assert_int_equal(count_marks(s->heap), 0);
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct block_ref ref = find(s->heap, la_heap_hold(s->heap, sizes[i]));

        assert_true(trail_leads_to(s->heap, lane(s)->number, &ref));
        assert_true(count_marks(s->heap) >= i + 1);
    }
}

/* Marks follow what is held, not what was: with a hundred pages full of what was published the dead are found as fast as with one. */
static void marks_are_wiped_off_as_the_lane_goes_on(void **state)
{
    struct shared *s = *state;
    void *held = la_heap_hold(s->heap, 100);
    struct block_ref ref = find(s->heap, held);

    for (unsigned i = 0; i < 200000; i++)
        assert_int_equal(la_keep(s->heap, la_heap_hold(s->heap, 100)), 0);
    assert_true(trail_leads_to(s->heap, lane(s)->number, &ref));
    assert_in_range(count_marks(s->heap), 1, 12);
    assert_false(is_lost(s));
}

static void hold(struct la_heap *heap, unsigned n)
{
    while (n-- > 0)
        if (!la_heap_hold(heap, 100))
            abort();
}

static void hold_after_a_wipe(struct la_heap *heap)
{
    hold(heap, 1);
    for (unsigned i = 0; i < 100000; i++)
        if (la_keep(heap, la_heap_hold(heap, 100)) < 0)
            abort();
    hold(heap, 1000);
}

static void what_is_held_after_a_wipe_is_found(void **state)
{
    struct shared *s = *state;

    shared_kill_after(s, hold_after_a_wipe);
    assert_int_equal(shared_count(s).blocks[HELD], 1001);
    assert_int_equal(la_heap_recover(s->heap, NULL, NULL), 1);
    assert_int_equal(shared_count(s).blocks[HELD], 0);
    assert_int_equal(shared_count(s).blocks[HEAP], 100000);
}

/* A signal handler may have wiped the mark off while the bundle's blocks were HEAP. */
static void a_bundle_that_is_refused_marks_its_blocks_again(void **state)
{
    struct shared *s = *state;
    la_link *root = shared_root(s->heap, "root");
    struct la_bundle *bundle;
    struct block_ref ref;
    void *block;

    assert_int_equal(la_bundle_begin(s->heap, &bundle), 0);
    assert_non_null(block = la_bundle_alloc(bundle, 100));
    ref = find(s->heap, la_bundle_alloc(bundle, 5000));
    atomic_store(&s->heap->marks[(ref.start - s->heap->payload) / (ptrdiff_t)SLICE_SIZE], MARK_NONE);
    assert_false(trail_leads_to(s->heap, lane(s)->number, &ref));
    assert_int_equal(la_bundle_publish(bundle, root, block, block), -EAGAIN);
    assert_true(trail_leads_to(s->heap, lane(s)->number, &ref));
    la_bundle_abort(bundle);
}

/* ---- what it took from others ---- */

static la_link *slots(struct la_heap *heap)
{
    la_link *root = shared_root(heap, "slots");

    return la_load(heap, root);
}

static void publish_slots(struct shared *s)
{
    la_link *table = la_heap_hold(s->heap, SLOTS * sizeof(*table));

    memset((void *)table, 0, SLOTS * sizeof(*table));
    assert_int_equal(la_publish(s->heap, shared_root(s->heap, "slots"), NULL, (void *)table), 0);
    for (unsigned i = 0; i < SLOTS; i++)
        assert_int_equal(la_publish(s->heap, &table[i], NULL, la_heap_hold(s->heap, 100)), 0);
}

static void take(struct la_heap *heap, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (!la_take(heap, &slots(heap)[i], LA_NO_NEXT))
            abort();
}

static void take_few(struct la_heap *heap)
{
    take(heap, TRAIL_ENTRIES);
    if (trail_is_lost(heap, heap->process))
        abort();
}

static void take_many(struct la_heap *heap)
{
    take(heap, SLOTS);
    if (!trail_is_lost(heap, heap->process))
        abort();
}

static void check_taken(struct shared *s, void (*taker)(struct la_heap *), unsigned n)
{
    publish_slots(s);
    shared_kill_after(s, taker);
    assert_int_equal(shared_count(s).blocks[HELD], n);
    assert_int_equal(la_heap_recover(s->heap, NULL, NULL), 1);
    assert_int_equal(shared_count(s).blocks[HELD], 0);
    assert_int_equal(shared_count(s).blocks[HEAP], 1 + SLOTS - n);
}

static void what_was_taken_is_found_by_the_row(void **state)
{
    check_taken(*state, take_few, TRAIL_ENTRIES);
}

static void more_than_the_row_has_room_for_is_found_by_a_look_at_everything(void **state)
{
    check_taken(*state, take_many, SLOTS);
}

static int take_one_by_one(struct la_heap *heap)
{
    for (unsigned i = 0; i < 100 * TRAIL_ENTRIES; i++) {
        void *block = la_take(heap, &slots(heap)[i % SLOTS], LA_NO_NEXT);

        if (!block || la_publish(heap, &slots(heap)[i % SLOTS], NULL, block) < 0)
            return 1;
    }
    return trail_is_lost(heap, heap->process);
}

static void entries_of_what_went_on_are_used_again(void **state)
{
    struct shared *s = *state;

    publish_slots(s);
    assert_int_equal(shared_run(s, take_one_by_one), 0);
}

/* Where the trail does not lead nobody looks: a word that names the dead, and that they did not write down. */
static void recovery_looks_nowhere_else(void **state)
{
    struct shared *s = *state;
    struct block_ref ref = find(s->heap, la_heap_alloc(s->heap, 64));
    struct la_heap *heap = s->heap;
    word_t w = atomic_load(ref.word);

    atomic_store(&heap->processes[200].state, 1ull << 32 | PROCESS_ATTACHED);
    atomic_store(&heap->lane_table[100].owner, 1ull << 32 | 201);
    atomic_store(&heap->header->lanes, 101);
    atomic_store(ref.word, word_make(word_generation(w), ref.epoch, WORD_HELD, 100));
    assert_false(trail_leads_to(heap, 100, &ref));
    assert_int_equal(la_heap_recover(heap, NULL, NULL), 1);
    assert_int_equal(word_lane(atomic_load(ref.word)), 100);
    /* The checker sees it. */
    assert_int_equal(la_heap_fsck(heap, NULL, NULL, NULL), 1);
    atomic_store(ref.word, w);
}

/* ---- frees ---- */

static bool is_hinted(struct la_heap *heap, const struct block_ref *ref)
{
    return atomic_load(&heap->macros[ref->macro].hinted) != 0;
}

static void a_free_that_death_kept_from_its_owner_is_told(void **state)
{
    struct shared *s = *state;
    struct la_heap *heap = s->heap;
    struct block_ref ref = find(heap, la_heap_alloc(heap, 64));
    word_t w = atomic_load(ref.word);

    atomic_store(&heap->processes[200].state, 1ull << 32 | PROCESS_ATTACHED);
    atomic_store(&heap->lane_table[100].owner, 1ull << 32 | 201);
    atomic_store(&heap->lane_table[100].freeing, heap_offset(heap, ref.start));
    atomic_store(&heap->lane_table[100].has_row, 1);
    atomic_store(&heap->header->lanes, 101);
    assert_true(block_release(&ref, w));
    assert_false(is_hinted(heap, &ref));
    assert_int_equal(la_heap_recover(heap, NULL, NULL), 1);
    assert_true(is_hinted(heap, &ref));
}

static void *free_it(void *block)
{
    la_free(block);
    return NULL;
}

static void a_thread_that_only_frees_loses_the_trail(void **state)
{
    struct shared *s = *state;
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, free_it, la_heap_alloc(s->heap, 64)), 0);
    pthread_join(thread, NULL);
    assert_true(is_lost(s));
}

static int free_slots(struct la_heap *heap)
{
    hold(heap, 1);
    for (unsigned i = 0; i < SLOTS; i++)
        la_free(la_load(heap, &slots(heap)[i]));
    return trail_is_lost(heap, heap->process) || atomic_load(&heap->lane_table[heap->lanes->number].freeing);
}

static void a_thread_with_a_lane_does_not(void **state)
{
    struct shared *s = *state;

    publish_slots(s);
    assert_int_equal(shared_run(s, free_slots), 0);
}

static void a_free_in_a_signal_handler_within_a_free_loses_it(void **state)
{
    struct shared *s = *state;
    const struct lane *mine = lane(s);
    void *block = la_heap_alloc(s->heap, 64);

    assert_true(trail_free_begin(s->heap, mine, block));
    assert_false(is_lost(s));
    assert_false(trail_free_begin(s->heap, mine, block));
    assert_true(is_lost(s));
    trail_free_end(mine, false);
    assert_int_not_equal(atomic_load(&s->heap->lane_table[mine->number].freeing), 0);
    trail_free_end(mine, true);
    assert_int_equal(atomic_load(&s->heap->lane_table[mine->number].freeing), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        shared_test(a_slice_is_marked_while_something_in_it_is_held),
        shared_test(marks_are_wiped_off_as_the_lane_goes_on),
        shared_test(what_is_held_after_a_wipe_is_found),
        shared_test(a_bundle_that_is_refused_marks_its_blocks_again),
        shared_test(what_was_taken_is_found_by_the_row),
        shared_test(more_than_the_row_has_room_for_is_found_by_a_look_at_everything),
        shared_test(entries_of_what_went_on_are_used_again),
        shared_test(recovery_looks_nowhere_else),
        shared_test(a_free_that_death_kept_from_its_owner_is_told),
        shared_test(a_thread_that_only_frees_loses_the_trail),
        shared_test(a_thread_with_a_lane_does_not),
        shared_test(a_free_in_a_signal_handler_within_a_free_loses_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
