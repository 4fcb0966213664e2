#include "../support/shared.h"

#include "core/shared_block.h"

static void hold_blocks_of_every_kind(struct la_heap *heap)
{
    static const size_t sizes[] = { 16, 100, 5000, 200000, (size_t)3 << 20 };

    for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        char *block = la_heap_hold(heap, sizes[i]);
        if (!block)
            abort();
        memset(block, 1, sizes[i]);
    }
}

static void remember(void *user, const struct la_obituary *obituary)
{
    *(struct la_obituary *)user = *obituary;
}

static void what_a_killed_process_held_is_free_again(void **state)
{
    struct shared *s = *state;
    struct la_obituary obituary = { 0 };

    shared_kill_after(s, hold_blocks_of_every_kind);
    assert_int_equal(shared_count(s).blocks[HELD], 5);
    assert_int_equal(la_heap_recover(s->heap, remember, &obituary), 1);
    assert_int_equal(obituary.blocks, 5);
    assert_int_equal(obituary.lanes, 1);
    assert_true(obituary.bytes >= ((size_t)3 << 20) + 205116);
    assert_int_equal(shared_count(s).blocks[HELD], 0);
    assert_int_equal(la_heap_recover(s->heap, NULL, NULL), 0);
}

static void keep_one(struct la_heap *heap)
{
    strcpy(la_heap_alloc(heap, 64), "kept");
}

static void kept_blocks_of_a_killed_process_stay(void **state)
{
    struct shared *s = *state;

    shared_kill_after(s, keep_one);
    la_heap_recover(s->heap, NULL, NULL);
    assert_int_equal(shared_count(s).blocks[HEAP], 1);
}

/* Memory of the dead is used again before the heap grows: many deaths fit into a heap that two could fill. */
static void use_half(struct la_heap *heap)
{
    for (int i = 0; i < 12; i++)
        if (!la_heap_hold(heap, (size_t)1 << 20))
            abort();
    for (int i = 0; i < 40000; i++)
        if (!la_heap_hold(heap, 200))
            abort();
}

static void many_deaths_do_not_use_the_heap_up(void **state)
{
    struct shared *s = *state;

    for (int i = 0; i < 20; i++) {
        shared_kill_after(s, use_half);
        assert_int_equal(la_heap_recover(s->heap, NULL, NULL), 1);
        assert_int_equal(shared_count(s).blocks[HELD], 0);
    }
}

static void the_next_to_attach_recovers_too(void **state)
{
    struct shared *s = *state;
    struct la_heap_info info = { .struct_size = sizeof(info) };

    shared_kill_after(s, hold_blocks_of_every_kind);
    shared_kill_after(s, keep_one);     /* attaches in the same slot */
    assert_int_equal(la_heap_info(s->heap, &info), 0);
    assert_int_equal(info.recovered_processes, 1);
    assert_int_equal(info.recovered_blocks, 5);
    la_heap_recover(s->heap, NULL, NULL);
}

/* Deaths between the steps of publishing, by hand: see the head of publish.c. */
static void recover_as_dead(struct shared *s, unsigned number, struct la_obituary *obituary)
{
    struct heap_process *process = &s->heap->processes[200];

    atomic_store(&process->state, 1ull << 32 | PROCESS_ATTACHED);
    atomic_store(&s->heap->lane_table[number].owner, 1ull << 32 | 201);
    atomic_store(&s->heap->header->lanes, number + 1);
    assert_int_equal(la_heap_recover(s->heap, remember, obituary), 1);
}

static void in_doubt(struct shared *s, unsigned number, la_link *link, void *block, struct block_ref *ref)
{
    struct heap_lane *lane = &s->heap->lane_table[number];
    word_t w;

    assert_true(block_find(s->heap, block, ref));
    w = atomic_load(ref->word);
    atomic_store(ref->word, word_make(word_generation(w), ref->epoch, WORD_IN_DOUBT, number));
    atomic_store(&lane->link, heap_offset(s->heap, link));
    atomic_store(&lane->block, heap_offset(s->heap, block));
    atomic_store(&lane->record, 0);
    atomic_store(&lane->generation, word_generation(w));
    atomic_store(&s->heap->trail[number].block[0], heap_offset(s->heap, block));
    atomic_store(&lane->has_row, 1);
    atomic_store(&lane->op, INTENT_PUBLISH);
}

static void mark(struct shared *s, unsigned number, la_link *link)
{
    uint64_t sequence = atomic_load(&s->heap->lane_table[number].sequence);

    atomic_store((_Atomic(uintptr_t) *)link, (uintptr_t)1 << 63 | (uintptr_t)number << 51 | sequence);
}

static void a_death_before_the_link_undoes_the_publish(void **state)
{
    struct shared *s = *state;
    la_link *root = shared_root(s->heap, "root");
    struct la_obituary obituary;
    struct block_ref ref;

    in_doubt(s, 3000, root, la_heap_hold(s->heap, 64), &ref);
    recover_as_dead(s, 3000, &obituary);
    assert_int_equal(obituary.undone, 1);
    assert_int_equal(word_state(atomic_load(ref.word), ref.epoch), WORD_FREE);
}

static void a_death_after_the_link_finishes_the_publish(void **state)
{
    struct shared *s = *state;
    la_link *root = shared_root(s->heap, "root");
    void *block = la_heap_hold(s->heap, 64);
    struct la_obituary obituary;
    struct block_ref ref;

    in_doubt(s, 3000, root, block, &ref);
    mark(s, 3000, root);
    recover_as_dead(s, 3000, &obituary);
    assert_int_equal(obituary.published, 1);
    assert_int_equal(word_state(atomic_load(ref.word), ref.epoch), WORD_HEAP);
    assert_ptr_equal(atomic_load(root), block);
}

/* L1 pushes a and dies after the compare-and-swap; L2 pushes b on top; a must not be freed, since b leads to it. */
static void pushing_over_a_dead_publisher_settles_its_block(void **state)
{
    struct shared *s = *state;
    la_link *root = shared_root(s->heap, "stack");
    void *a = la_heap_hold(s->heap, 64), *b = la_heap_hold(s->heap, 64);
    struct la_obituary obituary;
    struct block_ref ref;

    in_doubt(s, 3000, root, a, &ref);
    mark(s, 3000, root);
    assert_int_equal(la_push(s->heap, root, b, 0), 0);
    recover_as_dead(s, 3000, &obituary);
    assert_int_equal(obituary.published, 1);
    assert_int_equal(word_state(atomic_load(ref.word), ref.epoch), WORD_HEAP);
    assert_int_equal(obituary.blocks, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        shared_test(what_a_killed_process_held_is_free_again),
        shared_test(kept_blocks_of_a_killed_process_stay),
        shared_test(many_deaths_do_not_use_the_heap_up),
        shared_test(the_next_to_attach_recovers_too),
        shared_test(a_death_before_the_link_undoes_the_publish),
        shared_test(a_death_after_the_link_finishes_the_publish),
        shared_test(pushing_over_a_dead_publisher_settles_its_block),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
