#include "../support/shared.h"

#include "core/shared_block.h"

static char last_finding[200];

static void keep_finding(void *user, const char *line)
{
    (void)user;
    snprintf(last_finding, sizeof(last_finding), "%s", line);
}

/* Damage one word, see it named by its invariant, repair it. */
#define assert_found(s, word, value, invariant)                                      \
    do {                                                                             \
        __auto_type saved_ = atomic_load(word);                                      \
        atomic_store(word, value);                                                   \
        last_finding[0] = '\0';                                                      \
        assert_true(la_heap_fsck((s)->heap, keep_finding, NULL, NULL) > 0);          \
        assert_non_null(strstr(last_finding, invariant));                            \
        atomic_store(word, saved_);                                                  \
        assert_int_equal(la_heap_fsck((s)->heap, shared_print, NULL, NULL), 0);      \
    } while (0)

static void each_kind_of_damage_is_named(void **state)
{
    struct shared *s = *state;
    void *small = la_heap_alloc(s->heap, 100), *large = la_heap_alloc(s->heap, 300000);
    struct block_ref small_ref, large_ref;
    struct heap_slice *slice;

    assert_true(block_find(s->heap, small, &small_ref) && block_find(s->heap, large, &large_ref));
    slice = &s->heap->slices[(size_t)small_ref.macro * SLICES_PER_MACRO + small_ref.slice];
    assert_found(s, small_ref.word, word_make(0, small_ref.epoch, WORD_HELD, 77), "F5");
    assert_found(s, &s->heap->macros[small_ref.macro].owner, 0xff0000ull, "F2");
    assert_found(s, &s->heap->macros[small_ref.macro].owner, owner_make(OWNER_LANE, 77), "F2");
    assert_found(s, &slice->page, slice_make(SLICE_SMALL, 200, 1, 0, 0), "F3");
    assert_found(s, &slice->page, slice_make(SLICE_LARGE, 0, 33, 0, 0), "F3");
    assert_found(s, &slice->page, slice_make(SLICE_SMALL, 5, 1, 0, 20 * GRANULES_PER_SLICE), "F4");
    assert_found(s, &s->heap->lane_table[9].op, 17u, "F6");
    assert_found(s, &s->heap->header->rows, UINT32_MAX, "F1");
    (void)shared_root(s->heap, "root");
    assert_found(s, &s->heap->roots[0].value, (uintptr_t)s->heap->payload + 8 * MACRO_SIZE, "F7");
}

static void count_block(void *user, void *block, size_t size, bool held)
{
    size_t *sum = user;

    assert_non_null(block);
    *sum += size;
    if (held)
        *sum += 1;
}

static void walk_visits_every_live_block_once(void **state)
{
    struct shared *s = *state;
    size_t expected = 0, sum = 0;
    static const size_t sizes[] = { 1, 100, 5000, 70000, (size_t)3 << 20 };

    for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        void *kept = la_heap_alloc(s->heap, sizes[i]), *held = la_heap_hold(s->heap, sizes[i]);

        expected += la_usable_size(kept) + la_usable_size(held) + 1;
    }
    assert_int_equal(la_heap_walk(s->heap, count_block, &sum), 2 * sizeof(sizes) / sizeof(*sizes));
    assert_int_equal(sum, expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        shared_test(each_kind_of_damage_is_named),
        shared_test(walk_visits_every_live_block_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
