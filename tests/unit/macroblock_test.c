/* macroblock_test.c - runs of slices against a reference that looks bit by bit; E3 and E4 all the way. */
#include "engine.h"

#include "core/chain.h"
#include "core/macroblock.h"
#include "core/region_map.h"
#include "core/segment.h"
#include "os/os.h"

/* ---- bits ---- */

static bool run_is_set(uint32_t bits, unsigned at, unsigned n)
{
    if (at + n > 32)
        return false;
    for (unsigned i = at; i < at + n; i++)
        if (!(bits >> i & 1))
            return false;
    return true;
}

static unsigned longest_run_by_hand(uint32_t bits)
{
    unsigned best = 0, now = 0;

    for (unsigned i = 0; i < 32; i++) {
        now = bits >> i & 1 ? now + 1 : 0;
        best = MAX(best, now);
    }
    return best;
}

static int find_run_by_hand(uint32_t bits, unsigned n, unsigned step)
{
    for (unsigned at = 0; at < 32; at += step)
        if (run_is_set(bits, at, n))
            return (int)at;
    return -1;
}

static void assert_runs_agree(uint32_t bits)
{
    if (bits_longest_run(bits) != longest_run_by_hand(bits))
        fail_msg("longest run of %#x: %u, not %u", bits, bits_longest_run(bits), longest_run_by_hand(bits));
    for (unsigned n = 1; n <= 32; n++)
        for (unsigned step = 1; step <= 32; step *= 2)
            if (bits_find_run(bits, n, step) != find_run_by_hand(bits, n, step))
                fail_msg("%u ones at a multiple of %u in %#x: %d, not %d", n, step, bits, bits_find_run(bits, n, step),
                         find_run_by_hand(bits, n, step));
}

static void search_agrees_with_a_search_bit_by_bit(void **state)
{
    uint64_t random = 88172645463325252;

    (void)state;
    assert_runs_agree(0);
    assert_runs_agree(UINT32_MAX);
    for (unsigned at = 0; at < 32; at++)        /* one run of each length at each place, and its holes */
        for (unsigned n = 1; at + n <= 32; n++) {
            assert_runs_agree(bits_run(at, n));
            assert_runs_agree(~bits_run(at, n));
        }
    for (unsigned i = 0; i < 3000; i++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        assert_runs_agree((uint32_t)random);
        assert_runs_agree((uint32_t)random | (uint32_t)(random >> 32));    /* denser, so longer runs */
    }
}

/* ---- slices ---- */

enum { SEGMENT_BYTES = 8 << 20 };

struct fixture {
    char *memory;
    struct la_segment *segment;
    struct la_chain chain;
};

static int setup(void **state)
{
    static struct fixture f;

    f.memory = os_map_aligned(SEGMENT_BYTES, SLICE_SIZE);
    f.segment = segment_init(f.memory, SEGMENT_BYTES, true, 0, NULL);
    assert_non_null(f.segment);
    chain_init(&f.chain, CHAIN_USER, la_source_default(), NULL);
    for (uint32_t i = 0; i < f.segment->macro_count; i++)
        macro_join(&f.chain, &f.segment->macros[i]);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    region_clear(f->segment->first, f->segment->slice_count);
    os_unmap(f->memory, SEGMENT_BYTES);
    return 0;
}

/* E4, and the doubly linked lists. */
static void assert_lists_are_sound(const struct fixture *f)
{
    unsigned listed = 0, with_room = 0;

    for (unsigned run = 0; run <= SLICES_PER_MACRO; run++) {
        assert_int_equal(f->chain.run_mask >> run & 1, f->chain.by_run[run] != NULL);
        for (const struct la_macro *m = f->chain.by_run[run], *prev = NULL; m; prev = m, m = m->next, listed++) {
            assert_ptr_equal(m->prev, prev);
            assert_int_equal(m->run, run);
            assert_int_equal(longest_run_by_hand(m->free_slices), run);
        }
    }
    for (const struct la_macro *m = f->chain.macros; m; m = m->chain_next)
        with_room += m->free_slices != 0;
    assert_int_equal(listed, with_room);
}

static uint32_t slices_of(const struct la_page *page)
{
    return bits_run((unsigned)(page - macro_page(page->macro, 0)), page->slices);
}

/* Take pages of @n slices until there is no room; returns how many. */
static unsigned take_all(struct fixture *f, unsigned n, struct la_page **out)
{
    unsigned count = 0;
    struct la_page *page;

    while ((page = slices_take(&f->chain, n, 1)) != NULL) {
        assert_int_equal(page->slices, n);
        assert_int_equal(page->macro->free_slices & slices_of(page), 0);
        assert_lists_are_sound(f);
        page->kind = PAGE_LARGE;
        out[count++] = page;
    }
    return count;
}

static void every_slice_can_be_taken_and_given_back(void **state)
{
    struct fixture *f = *state;
    struct la_page *pages[128];

    for (unsigned n = 1; n <= SLICES_PER_MACRO; n++) {
        unsigned expected = 0, count;

        for (const struct la_macro *m = f->chain.macros; m; m = m->chain_next)
            expected += (unsigned)__builtin_popcount(m->all_slices) / n;
        count = take_all(f, n, pages);
        assert_int_equal(count, expected);
        for (unsigned half = 0; half < 2; half++)       /* every other one first, so that holes have to grow together */
            for (unsigned i = half; i < count; i += 2) {
                slices_give(&f->chain, pages[i]);
                assert_lists_are_sound(f);
            }
        for (const struct la_macro *m = f->chain.macros; m; m = m->chain_next)
            assert_int_equal(m->free_slices, m->all_slices);
    }
}

static void shortest_run_that_is_long_enough_is_cut_first(void **state)
{
    struct fixture *f = *state;
    struct la_page *pages[128], *page;
    unsigned count = take_all(f, 1, pages);

    assert_true(count >= 40);
    for (unsigned i = 4; i < 10; i++)       /* a run of 6 */
        slices_give(&f->chain, macro_page(pages[0]->macro, i));
    for (unsigned i = 20; i < 23; i++)      /* and one of 3, in another macro block */
        slices_give(&f->chain, macro_page(pages[32]->macro, i));
    assert_ptr_not_equal(pages[0]->macro, pages[32]->macro);

    page = slices_take(&f->chain, 2, 1);
    assert_ptr_equal(page, macro_page(pages[32]->macro, 20));
    page = slices_take(&f->chain, 4, 1);
    assert_ptr_equal(page, macro_page(pages[0]->macro, 4));
    assert_null(slices_take(&f->chain, 3, 1));
    assert_lists_are_sound(f);
}

static void run_starts_at_a_multiple_of_the_step(void **state)
{
    struct fixture *f = *state;

    for (unsigned step = 1; step <= 16; step *= 2) {
        struct la_page *odd = slices_take(&f->chain, 1, 1), *page = slices_take(&f->chain, 3, step);

        assert_non_null(page);
        assert_int_equal((unsigned)(page - macro_page(page->macro, 0)) % step, 0);
        slices_give(&f->chain, page);
        slices_give(&f->chain, odd);
    }
}

static void page_grows_into_free_slices_only(void **state)
{
    struct fixture *f = *state;
    struct la_page *a = slices_take(&f->chain, 4, 1), *b = slices_take(&f->chain, 2, 1);

    a->kind = b->kind = PAGE_LARGE;
    assert_ptr_equal(b, a + 4);
    assert_false(slices_resize(&f->chain, a, 5));
    assert_int_equal(a->slices, 4);
    assert_true(slices_resize(&f->chain, b, 8));
    assert_int_equal(b->slices, 8);
    assert_int_equal(b->macro->free_slices & slices_of(b), 0);
    assert_ptr_equal(region_page((void *)slice_address(f->segment, b + 7)), b);
    assert_lists_are_sound(f);

    assert_true(slices_resize(&f->chain, b, 1));
    assert_int_equal(b->slices, 1);
    assert_null(region_page((void *)slice_address(f->segment, b + 7)));
    assert_true(b->macro->free_slices >> (b + 1 - macro_page(b->macro, 0)) & 1);
    assert_lists_are_sound(f);
}

/* A shift by 32 or more would be undefined: UBSan watches this test. */
static void page_at_the_end_of_its_macro_block_does_not_grow(void **state)
{
    struct fixture *f = *state;
    struct la_page *pages[128];
    unsigned count = take_all(f, SLICES_PER_MACRO / 2, pages);

    assert_true(count >= 2);
    for (unsigned i = 0; i < count; i++) {
        unsigned at = (unsigned)(pages[i] - macro_page(pages[i]->macro, 0));
        if (at != SLICES_PER_MACRO / 2)
            continue;
        assert_false(slices_resize(&f->chain, pages[i], SLICES_PER_MACRO / 2 + 1));
        assert_false(slices_resize(&f->chain, pages[i], SLICES_PER_MACRO));
        assert_int_equal(pages[i]->slices, SLICES_PER_MACRO / 2);
    }
    assert_lists_are_sound(f);
}

static void macro_block_leaves_its_chain_without_a_trace(void **state)
{
    struct fixture *f = *state;
    unsigned count = f->chain.macro_count;

    assert_true(count >= 3);
    macro_leave(&f->chain, f->chain.macros->chain_next);    /* one in the middle */
    assert_lists_are_sound(f);
    while (f->chain.macros)
        macro_leave(&f->chain, f->chain.macros);
    assert_int_equal(f->chain.macro_count, 0);
    assert_int_equal(f->chain.run_mask, 0);
    assert_null(slices_take(&f->chain, 1, 1));
}

#define slices_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(search_agrees_with_a_search_bit_by_bit),
        slices_test(every_slice_can_be_taken_and_given_back),
        slices_test(shortest_run_that_is_long_enough_is_cut_first),
        slices_test(run_starts_at_a_multiple_of_the_step),
        slices_test(page_grows_into_free_slices_only),
        slices_test(page_at_the_end_of_its_macro_block_does_not_grow),
        slices_test(macro_block_leaves_its_chain_without_a_trace),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
