#include "../support/shared.h"

#include <errno.h>
#include <pthread.h>

#include "core/root_swap.h"

struct table {
    uint64_t version;   /* of the root when it is there */
    uint64_t copy;      /* the same, written last */
};

static struct table *make_table(struct la_heap *heap, uint64_t version)
{
    struct table *table = la_heap_hold(heap, sizeof(*table));

    if (!table)
        abort();
    *table = (struct table){ version, version };
    return table;
}

static void *read_root(struct la_heap *heap, la_link *root, uint64_t *version)
{
    void *value;

    assert_int_equal(la_root_read(heap, root, &value, version), 0);
    return value;
}

static void a_swap_puts_the_new_object_and_gives_the_old_one_back(void **state)
{
    struct shared *s = *state;
    la_link *root = shared_root(s->heap, "table");
    void *old = root, *first = make_table(s->heap, 1), *second = make_table(s->heap, 2);
    uint64_t version = 99;

    assert_null(read_root(s->heap, root, &version));
    assert_int_equal(version, 0);
    assert_int_equal(la_root_swap(s->heap, root, 0, first, &old), 0);
    assert_null(old);
    assert_int_equal(la_root_swap(s->heap, root, 1, second, &old), 0);
    assert_ptr_equal(old, first);
    assert_int_equal(shared_count(s).blocks[HELD], 1);
    assert_ptr_equal(read_root(s->heap, root, &version), second);
    assert_int_equal(version, 2);
    la_free(old);
    assert_int_equal(la_root_swap(s->heap, root, 2, NULL, &old), 0);
    assert_ptr_equal(old, second);
    assert_null(read_root(s->heap, root, &version));
    assert_int_equal(version, 3);
    la_free(old);
    assert_int_equal(shared_count(s).blocks[HELD] + shared_count(s).blocks[HEAP], 0);
}

static void a_swap_with_an_old_version_changes_nothing(void **state)
{
    struct shared *s = *state;
    la_link *root = shared_root(s->heap, "table");
    void *first = make_table(s->heap, 1), *late = make_table(s->heap, 1), *old = root;
    uint64_t version;

    assert_int_equal(la_root_swap(s->heap, root, 0, first, &old), 0);
    assert_int_equal(la_root_swap(s->heap, root, 0, late, &old), -EAGAIN);
    assert_int_equal(la_root_swap(s->heap, root, 2, late, &old), -EAGAIN);
    assert_ptr_equal(read_root(s->heap, root, &version), first);
    assert_int_equal(version, 1);
    assert_int_equal(shared_count(s).blocks[HELD], 1);
    la_free(late);
}

/* The value comes back, the version does not. */
static void a_value_that_came_back_is_another_version(void **state)
{
    struct shared *s = *state;
    la_link *root = shared_root(s->heap, "table");
    void *a = make_table(s->heap, 1), *b = make_table(s->heap, 2), *c = make_table(s->heap, 2), *old;

    assert_int_equal(la_root_swap(s->heap, root, 0, a, &old), 0);
    assert_int_equal(la_root_swap(s->heap, root, 1, b, &old), 0);
    assert_int_equal(la_root_swap(s->heap, root, 2, a, &old), 0);
    assert_int_equal(la_root_swap(s->heap, root, 1, c, &old), -EAGAIN);
    la_free(b);
    la_free(c);
}

static void nothing_for_nothing_is_not_counted(void **state)
{
    struct shared *s = *state;
    la_link *root = shared_root(s->heap, "table");
    void *old = root;
    uint64_t version;

    assert_int_equal(la_root_swap(s->heap, root, 0, NULL, &old), 0);
    assert_null(old);
    assert_int_equal(la_root_swap(s->heap, root, 1, NULL, &old), -EAGAIN);
    assert_null(read_root(s->heap, root, &version));
    assert_int_equal(version, 0);
}

static void swap_refuses_what_it_cannot_take_or_put(void **state)
{
    struct shared *s = *state;
    la_link *root = shared_root(s->heap, "table"), *number = shared_root(s->heap, "number");
    void *kept = la_heap_alloc(s->heap, 64), *held = make_table(s->heap, 1), *old, *value;
    uint64_t version;

    assert_int_equal(la_root_swap(s->heap, root, 0, kept, &old), -EINVAL);
    assert_int_equal(la_root_swap(s->heap, (la_link *)kept, 0, held, &old), -EINVAL);
    assert_int_equal(la_root_swap(s->heap, root + 1, 0, held, &old), -EINVAL);
    assert_int_equal(la_root_read(s->heap, (la_link *)kept, &value, &version), -EINVAL);
    atomic_store(number, (void *)(uintptr_t)12345);
    assert_int_equal(la_root_swap(s->heap, number, 0, held, &old), -EINVAL);
    atomic_store(number, held);
    assert_int_equal(la_root_swap(s->heap, number, 0, NULL, &old), -EINVAL);    /* held by us, not the heap's */
    atomic_store(number, NULL);
    assert_int_equal(shared_count(s).blocks[HELD], 1);
    la_free(kept);
    la_free(held);
}

static void a_bundle_is_swapped_in_whole(void **state)
{
    struct shared *s = *state;
    la_link *root = shared_root(s->heap, "table");
    struct la_bundle *bundle;
    void *block, *old;

    assert_int_equal(la_bundle_begin(s->heap, &bundle), 0);
    block = la_bundle_alloc(bundle, 50);
    for (int i = 0; i < 70; i++)
        assert_non_null(la_bundle_alloc(bundle, 60));
    assert_int_equal(la_bundle_swap(bundle, root, 1, block, &old), -EAGAIN);
    assert_int_equal(shared_count(s).blocks[HEAP], 0);
    assert_int_equal(la_bundle_swap(bundle, root, 0, NULL, &old), -EINVAL);
    assert_int_equal(la_bundle_swap(bundle, root, 0, block, &old), 0);
    assert_int_equal(shared_count(s).blocks[HELD], 0);
    assert_int_equal(shared_count(s).blocks[HEAP], 71);
}

static void swap_and_die(struct la_heap *heap)
{
    void *old;

    if (la_root_swap(heap, shared_root(heap, "table"), 1, make_table(heap, 2), &old) < 0)
        abort();
}

static void what_a_killed_process_swapped_out_is_free_and_what_it_swapped_in_is_there(void **state)
{
    struct shared *s = *state;
    la_link *root = shared_root(s->heap, "table");
    struct table *table;
    uint64_t version;
    void *old;

    assert_int_equal(la_root_swap(s->heap, root, 0, make_table(s->heap, 1), &old), 0);
    shared_kill_after(s, swap_and_die);
    assert_int_equal(la_heap_recover(s->heap, NULL, NULL), 1);
    table = read_root(s->heap, root, &version);
    assert_int_equal(version, 2);
    assert_int_equal(table->version, 2);
    assert_int_equal(shared_count(s).blocks[HEAP], 1);
    assert_int_equal(shared_count(s).blocks[HELD], 0);
}

/* The words as lane 4000 left them that died with its mark on the root: see the head of root_swap.c. */
static struct heap_lane *mark_by_the_dead(struct shared *s, la_link *root, void *old, void *block, uint64_t version)
{
    struct heap_lane *dead = &s->heap->lane_table[4000];
    struct block_ref ref;
    word_t w;

    assert_true(block_find(s->heap, block, &ref));
    w = atomic_load(ref.word);
    atomic_store(ref.word, word_make(word_generation(w), ref.epoch, WORD_IN_DOUBT, 4000));
    atomic_store(&dead->owner, 1ull << 32 | (LA_HEAP_MAX_PROCESSES - 1));
    atomic_store(&dead->other, heap_offset(s->heap, block));
    atomic_store(&dead->other_generation, word_generation(w));
    atomic_store(&dead->version, version);
    atomic_store(&dead->sequence, 5);
    atomic_store(&dead->link, heap_offset(s->heap, root));
    atomic_store(&dead->record, 0);
    if (old) {
        assert_true(block_find(s->heap, old, &ref));
        atomic_store(&dead->block, heap_offset(s->heap, old));
        atomic_store(&dead->generation, word_generation(atomic_load(ref.word)));
    } else {
        atomic_store(&dead->block, 0);
    }
    atomic_store(&dead->op, INTENT_SWAP);
    atomic_store((_Atomic(uintptr_t) *)root, MARK | (uintptr_t)4000 << MARK_LANE_SHIFT | 5);
    return dead;
}

static void bury(struct heap_lane *dead)
{
    atomic_store(&dead->op, INTENT_NONE);
    atomic_store(&dead->owner, 0);
}

static void a_mark_of_a_dead_swapper_is_no_obstacle(void **state)
{
    struct shared *s = *state;
    la_link *root = shared_root(s->heap, "table");
    void *a = make_table(s->heap, 1), *b = make_table(s->heap, 2), *c = make_table(s->heap, 2), *d = make_table(s->heap, 3), *old;
    struct heap_lane *dead;
    struct block_ref ref;
    uint64_t version;

    assert_int_equal(la_root_swap(s->heap, root, 0, a, &old), 0);
    dead = mark_by_the_dead(s, root, a, b, 1);
    assert_ptr_equal(la_load(s->heap, root), a);
    assert_ptr_equal(read_root(s->heap, root, &version), a);
    assert_int_equal(version, 1);
    /* Whoever comes next finishes it, and is too late with the same version. */
    assert_int_equal(la_root_swap(s->heap, root, 1, c, &old), -EAGAIN);
    assert_ptr_equal(read_root(s->heap, root, &version), b);
    assert_int_equal(version, 2);
    assert_true(block_find(s->heap, a, &ref));
    assert_int_equal(word_lane(atomic_load(ref.word)), 4000);
    assert_int_equal(la_root_swap(s->heap, root, 2, d, &old), 0);
    assert_ptr_equal(old, b);
    la_free(a);
    la_free(b);
    la_free(c);
    bury(dead);
}

static void a_dead_swapper_with_an_old_version_is_refused(void **state)
{
    struct shared *s = *state;
    la_link *root = shared_root(s->heap, "table");
    void *a = make_table(s->heap, 1), *b = make_table(s->heap, 1), *c = make_table(s->heap, 2), *old;
    struct heap_lane *dead;
    struct block_ref ref;
    uint64_t version;

    assert_int_equal(la_root_swap(s->heap, root, 0, a, &old), 0);
    dead = mark_by_the_dead(s, root, a, b, 0);
    assert_ptr_equal(read_root(s->heap, root, &version), a);
    assert_int_equal(version, 1);
    assert_int_equal(la_root_swap(s->heap, root, 1, c, &old), 0);
    assert_ptr_equal(old, a);
    assert_true(block_find(s->heap, b, &ref));
    assert_int_equal(word_state(atomic_load(ref.word), ref.epoch), WORD_IN_DOUBT);
    la_free(a);
    atomic_store(ref.word, word_make(word_generation(atomic_load(ref.word)), ref.epoch, WORD_HEAP, 0));
    la_free(b);
    bury(dead);
}

/* Without an old block the new one's word tells what happened, when the version does not. */
static void a_first_swap_of_the_dead_is_finished_or_refused_once(void **state)
{
    struct shared *s = *state;
    la_link *root = shared_root(s->heap, "table");
    void *b = make_table(s->heap, 1), *old;
    struct heap_lane *dead;
    struct block_ref ref;
    uint64_t version;

    dead = mark_by_the_dead(s, root, NULL, b, 0);
    assert_null(la_load(s->heap, root));
    assert_null(read_root(s->heap, root, &version));
    assert_int_equal(version, 0);
    /* Steps 5 and 6 were done: still not to be seen. */
    assert_true(block_find(s->heap, b, &ref));
    atomic_store(ref.word, word_make(word_generation(atomic_load(ref.word)), ref.epoch, WORD_HEAP, 0));
    atomic_store(&s->heap->roots[0].version, 1);
    assert_null(read_root(s->heap, root, &version));
    assert_int_equal(version, 0);
    assert_int_equal(la_root_swap(s->heap, root, 1, NULL, &old), 0);
    assert_ptr_equal(old, b);
    la_free(b);
    bury(dead);
}

static void the_version_moves_on_when_the_heap_is_reset(void **state)
{
    struct shared *s = *state;
    la_link *root = shared_root(s->heap, "table");
    uint64_t version;
    void *old;

    assert_int_equal(la_root_swap(s->heap, root, 0, make_table(s->heap, 1), &old), 0);
    assert_int_equal(la_heap_reset(s->heap), 0);
    assert_null(read_root(s->heap, root, &version));
    assert_int_equal(version, 2);
}

static int read_only(struct la_heap *heap)
{
    struct table *table;
    la_link *root;
    uint64_t version;
    void *old;

    if (la_heap_root(heap, "table", &root) < 0 || la_root_read(heap, root, (void **)&table, &version) < 0)
        return 1;
    if (table->version != 1 || version != 1)
        return 2;
    return la_root_swap(heap, root, 1, NULL, &old) == -EROFS ? 0 : 3;
}

static void readers_read_and_do_not_swap(void **state)
{
    struct shared *s = *state;
    void *old;

    assert_int_equal(la_root_swap(s->heap, shared_root(s->heap, "table"), 0, make_table(s->heap, 1), &old), 0);
    assert_int_equal(shared_run_with(s, LA_HEAP_READ_ONLY, read_only), 0);
}

enum { THREADS = 4, SWAPS = 2000 };

static void *swap_often(void *argument)
{
    struct la_heap *heap = argument;
    la_link *root = shared_root(heap, "table");
    struct table *next = NULL;

    for (int done = 0; done < SWAPS;) {
        uint64_t version;
        void *old, *value;

        if (la_root_read(heap, root, &value, &version) < 0)
            abort();
        if (!next)
            next = make_table(heap, 0);
        *next = (struct table){ version + 1, version + 1 };
        if (la_root_swap(heap, root, version, next, &old) != 0)
            continue;
        /* It is ours alone: nobody else has it. */
        if (old && (((struct table *)old)->version != version || ((struct table *)old)->copy != version))
            abort();
        next = old;
        done++;
    }
    la_free(next);
    return NULL;
}

static void every_swap_of_many_threads_counts_once(void **state)
{
    struct shared *s = *state;
    la_link *root = shared_root(s->heap, "table");
    pthread_t threads[THREADS];
    uint64_t version;

    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, swap_often, s->heap), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(((struct table *)read_root(s->heap, root, &version))->version, THREADS * SWAPS);
    assert_int_equal(version, THREADS * SWAPS);
    assert_int_equal(shared_count(s).blocks[HEAP], 1);
    assert_int_equal(shared_count(s).blocks[HELD], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        shared_test(a_swap_puts_the_new_object_and_gives_the_old_one_back),
        shared_test(a_swap_with_an_old_version_changes_nothing),
        shared_test(a_value_that_came_back_is_another_version),
        shared_test(nothing_for_nothing_is_not_counted),
        shared_test(swap_refuses_what_it_cannot_take_or_put),
        shared_test(a_bundle_is_swapped_in_whole),
        shared_test(what_a_killed_process_swapped_out_is_free_and_what_it_swapped_in_is_there),
        shared_test(a_mark_of_a_dead_swapper_is_no_obstacle),
        shared_test(a_dead_swapper_with_an_old_version_is_refused),
        shared_test(a_first_swap_of_the_dead_is_finished_or_refused_once),
        shared_test(the_version_moves_on_when_the_heap_is_reset),
        shared_test(readers_read_and_do_not_swap),
        shared_test(every_swap_of_many_threads_counts_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
