/* pool_test.c - between bins and pages: refill, growth, giving back; large blocks; what a page's end or a full buffer brings. */
#include "engine.h"

#include "core/chain.h"
#include "core/macroblock.h"
#include "core/page.h"
#include "core/pool.h"
#include "core/region_map.h"
#include "core/size_class.h"
#include "core/thread.h"

struct fixture {
    struct la_chain *chain;
    struct misuse_record misuse;
};

static int setup(void **state)
{
    static struct fixture f;

    assert_int_equal(la_chain_create(NULL, 0, &f.chain), 0);
    la_default_set(f.chain);        /* frees go the short way */
    record_misuse(&f.misuse);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    la_default_set(NULL);
    assert_chain_is_sound(f->chain);
    assert_int_equal(f->misuse.count, 0);
    assert_int_equal(la_chain_destroy(f->chain), 0);
    assert_heap_is_sound();
    return 0;
}

enum { MANY = 5000 };
static void *blocks[MANY];

static void take(struct fixture *f, unsigned n, size_t size)
{
    for (unsigned i = 0; i < n; i++) {
        blocks[i] = la_chain_alloc(f->chain, size);
        assert_non_null(blocks[i]);
    }
}

static void give(unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        la_free(blocks[i]);
}

/* ---- bins ---- */

static void closed_bin_is_empty_and_full(void **state)
{
    struct la_bin bins[BIN_CLASSES];

    (void)state;
    pool_bins_close(bins);
    for (unsigned c = 0; c < BIN_CLASSES; c++) {
        assert_ptr_equal(bins[c].top, bins[c].last);
        assert_int_not_equal(*(uint64_t *)*bins[c].top, la_free_mark);
    }
}

static void opened_bins_are_empty_and_apart(void **state)
{
    struct fixture *f = *state;

    for (unsigned c = 0; c < BIN_CLASSES; c++) {
        assert_int_equal(pool_bin_count(f->chain, c), 0);
        assert_ptr_equal(*f->chain->bins[c].top, &la_no_block);
        assert_true(f->chain->bins[c].last > f->chain->bins[c].top);
        if (c > 0)
            assert_true(f->chain->rooms[c].base > f->chain->bins[c - 1].last);
    }
}

static void first_block_brings_more_into_the_bin(void **state)
{
    struct fixture *f = *state;
    unsigned c = class_of(100);
    void *block = la_chain_alloc(f->chain, 100);

    assert_true(pool_bin_count(f->chain, c) > 0);
    assert_false(pool_bin_holds(f->chain, c, block));
    la_free(block);
    assert_true(pool_bin_holds(f->chain, c, block));
}

static void fresh_blocks_come_in_rising_order(void **state)
{
    struct fixture *f = *state;

    take(f, 8, 64);
    for (unsigned i = 1; i < 8; i++)
        assert_ptr_equal(blocks[i], (char *)blocks[i - 1] + 64);
    give(8);
}

static void bin_that_is_refilled_and_flushed_in_turn_grows(void **state)
{
    struct fixture *f = *state;
    unsigned c = class_of(64), capacity = f->chain->rooms[c].capacity;

    for (int round = 0; round < 6; round++) {
        take(f, 1000, 64);
        give(1000);
    }
    assert_true(f->chain->rooms[c].capacity >= 8 * capacity);
    assert_chain_is_sound(f->chain);
    take(f, 1000, 64);
    for (unsigned i = 0; i < 1000; i++)
        for (unsigned j = 0; j < i; j++)
            assert_ptr_not_equal(blocks[i], blocks[j]);
    give(1000);
}

static void bin_holds_at_most_4_mib_worth_of_blocks(void **state)
{
    struct fixture *f = *state;
    unsigned c = class_of(32768);

    for (int round = 0; round < 10; round++) {
        take(f, 300, 32768);
        give(300);
    }
    assert_true(pool_bin_count(f->chain, c) * class_size(c) <= 4 * MiB);
}

static void bin_left_alone_is_given_back_bit_by_bit(void **state)
{
    struct fixture *f = *state;
    unsigned c = class_of(200), full;

    take(f, 300, 200);
    give(300);
    full = pool_bin_count(f->chain, c);
    assert_true(full > 8);
    for (unsigned i = 0; i < 60000 && pool_bin_count(f->chain, c) > 1; i++) {
        void *block = la_chain_alloc(f->chain, 3 * MiB);     /* each a slow path */
        la_free(block);
    }
    assert_true(pool_bin_count(f->chain, c) <= 1);
}

static void flush_gives_every_page_and_macro_block_back(void **state)
{
    struct fixture *f = *state;
    struct la_stats stats = { .struct_size = sizeof(stats) };

    for (size_t size = 8; size <= 32768; size *= 2) {
        take(f, 500, size);
        give(500);
    }
    pool_flush_all(f->chain);
    for (unsigned c = 0; c < SMALL_CLASSES; c++) {
        assert_int_equal(pool_bin_count(f->chain, c), 0);
        assert_null(f->chain->avail[c]);
    }
    assert_null(f->chain->macros);
    la_chain_stats(f->chain, &stats);
    assert_int_equal(stats.mapped + stats.cached + stats.blocks, 0);
}

/* E2 and the order in which pages are used up, emptied and filled again. */
static void pages_come_and_go_with_their_blocks(void **state)
{
    struct fixture *f = *state;
    unsigned c = class_of(1024);

    take(f, MANY, 1024);
    assert_chain_is_sound(f->chain);
    for (unsigned i = 0; i < MANY; i += 2)
        la_free(blocks[i]);
    assert_chain_is_sound(f->chain);
    pool_flush_all(f->chain);
    assert_chain_is_sound(f->chain);
    for (unsigned i = 0; i < MANY; i += 2)
        blocks[i] = la_chain_alloc(f->chain, 1024);     /* the holes first */
    for (struct la_macro *m = f->chain->macros; m; m = m->chain_next)
        assert_true(m->chain_next == NULL || m->free_slices != m->all_slices);
    give(MANY);
    pool_flush_all(f->chain);
    assert_null(f->chain->avail[c]);
}

static void memory_that_is_freed_is_used_again_for_other_sizes(void **state)
{
    struct fixture *f = *state;
    struct la_stats stats = { .struct_size = sizeof(stats) };

    for (size_t size = 32; size <= 8192; size += 160) {
        take(f, 2 * MiB / 8192, size);
        give(2 * MiB / 8192);
        la_chain_stats(f->chain, &stats);
        assert_true(stats.mapped <= 12 * MiB);
    }
}

/* ---- spare macro blocks ---- */

static void cycle_in_a_thread(void *arg)
{
    unsigned *most = arg;

    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 1000; i++)
            blocks[i] = la_malloc(32768);       /* 16 macro blocks */
        assert_true(la_tls_own->macro_count >= 16 && la_tls_own->macro_count <= 16 + 4);
        give(1000);
        *most = MAX(*most, la_tls_own->macro_count);
        assert_chain_is_sound(la_tls_own);
    }
    pool_trim_own();
    assert_null(la_tls_own->macros);
}

/* The bin's blocks are in some, a few more are free. */
static void thread_keeps_a_few_free_macro_blocks_until_it_trims(void **state)
{
    unsigned most = 0;

    (void)state;
    in_other_thread(cycle_in_a_thread, &most);
    assert_true(most > 1 && most <= 128 * 32768 / MACRO_SIZE + 4 + 1);
    la_source_trim(NULL);
}

/* ---- large blocks ---- */

static void large_blocks_spread_over_the_cache_sets(void **state)
{
    struct fixture *f = *state;
    bool seen[64] = { false };
    unsigned colours = 0;

    for (unsigned i = 0; i < 16; i++) {
        uintptr_t block = (uintptr_t)(blocks[i] = la_chain_alloc(f->chain, 150000));
        assert_int_equal(block % 64, 0);
        colours += !seen[block % 4096 / 64];
        seen[block % 4096 / 64] = true;
    }
    assert_true(colours >= 12);
    give(16);
}

static void large_block_of_every_length_takes_the_slices_it_needs(void **state)
{
    struct fixture *f = *state;

    for (unsigned n = 1; n <= SLICES_PER_MACRO; n++) {
        size_t size = n * SLICE_SIZE - (n == 1 ? 0 : 1);
        char *block = la_chain_alloc(f->chain, size);
        struct la_page *page = region_page(block);

        assert_int_equal(page->slices, n);
        assert_int_equal(page->kind, PAGE_LARGE);
        assert_ptr_equal(region_page(block + size - 1), page);
        assert_true(la_usable_size(block) >= size);
        assert_chain_is_sound(f->chain);
        la_free(block);
        assert_true(pool_bin_holds(f->chain, class_of_run(n), block));
        pool_flush_all(f->chain);
        assert_null(region_page(block));
    }
}

static void block_just_above_a_macro_block_is_huge(void **state)
{
    struct fixture *f = *state;
    void *block = la_chain_alloc(f->chain, MACRO_SIZE + 1);

    assert_int_equal(region_page(block)->kind, PAGE_HUGE);
    la_free(block);
    la_source_trim(NULL);
}

static void large_block_is_resized_within_its_macro_block(void **state)
{
    struct fixture *f = *state;
    char *block = la_chain_alloc(f->chain, 100000);
    struct la_page *page = region_page(block);
    uint64_t live = f->chain->large_live, bytes = f->chain->large_bytes;
    size_t before = page->large_size;

    assert_true(pool_resize_large(f->chain, page, 500000));
    assert_true(page->large_size >= 500000);
    assert_int_equal(f->chain->large_bytes - bytes, page->large_size - before);
    assert_int_equal(f->chain->large_live, live);
    assert_ptr_equal(region_page(block + 499999), page);
    memset(block, 1, page->large_size);
    assert_false(pool_resize_large(f->chain, page, MACRO_SIZE + 1));
    assert_false(pool_resize_large(f->chain, page, SIZE_MAX - 100));
    assert_true(pool_resize_large(f->chain, page, 100000));
    assert_int_equal(page->large_size, before);
    assert_chain_is_sound(f->chain);
    la_free(block);
}

static void aligned_blocks_come_from_small_classes_while_one_fits(void **state)
{
    struct fixture *f = *state;

    for (size_t alignment = 32; alignment <= 32768; alignment *= 2) {
        void *block = la_chain_aligned_alloc(f->chain, alignment, alignment / 2 + 1);

        assert_int_equal(region_page(block)->kind, PAGE_SMALL);
        assert_int_equal((uintptr_t)block % alignment, 0);
        la_free(block);
    }
}

/* ---- large blocks in bins ---- */

static struct la_stats stats_of(struct la_chain *chain)
{
    struct la_stats s = { .struct_size = sizeof(s) };

    assert_int_equal(la_chain_stats(chain, &s), 0);
    return s;
}

static void freed_large_block_is_the_next_one_without_a_slow_path(void **state)
{
    struct fixture *f = *state;

    for (size_t size = SMALL_MAX + 1; size <= MACRO_SIZE; size += 77777) {
        void *block = la_malloc(size);
        uint32_t slow_calls = f->chain->slow_calls;

        memset(block, 1, size);
        la_free(block);
        assert_ptr_equal(la_malloc(size), block);
        la_free(block);
        assert_ptr_equal(la_calloc(1, size), block);
        for (size_t i = 0; i < size; i += 997)
            assert_int_equal(((char *)block)[i], 0);
        la_free(block);
        assert_int_equal(f->chain->slow_calls, slow_calls);
    }
}

/* What had a colour starts further to the front for a longer block of the same class, or for an aligned one. */
static void large_block_in_a_bin_makes_room_for_every_size_of_its_class(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < 16; i++) {
        char *first = la_malloc(SLICE_SIZE + 1), *second;
        struct la_page *page = region_page(first);

        memset(first, 1, la_usable_size(first));
        /* Left there by some earlier block. */
        *(uint64_t *)align_down((uintptr_t)first, SLICE_SIZE) = la_free_mark;
        la_free(first);
        second = i % 2 ? la_malloc(2 * SLICE_SIZE) : la_aligned_alloc(4096, SLICE_SIZE + 1);
        assert_ptr_equal(region_page(second), page);
        assert_false(page_block_is_marked(page, second));
        assert_int_equal((uintptr_t)second % (i % 2 ? 64 : 4096), 0);
        assert_true(la_usable_size(second) >= (i % 2 ? 2 : 1) * SLICE_SIZE);
        memset(second, 2, la_usable_size(second));
        assert_chain_is_sound(f->chain);
        la_free(second);
        pool_flush_all(f->chain);
    }
}

static void large_block_of_slices_that_held_a_free_one_is_not_taken_for_free(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < 3; i++) {
        uint64_t *block = la_malloc(2 * SLICE_SIZE);

        assert_int_not_equal(*block, la_free_mark);
        assert_true(la_usable_size(block) >= 2 * SLICE_SIZE);
        la_free(block);
        pool_flush_all(f->chain);
    }
}

static void bin_of_large_blocks_is_bounded_in_bytes(void **state)
{
    struct fixture *f = *state;

    for (size_t size = SLICE_SIZE; size <= MACRO_SIZE; size += SLICE_SIZE) {
        unsigned n = (unsigned)(20 * MiB / size), c = class_of_run(size / SLICE_SIZE);

        for (int round = 0; round < 6; round++) {
            take(f, n, size);
            give(n);
            assert_true(pool_bin_count(f->chain, c) > 0);
            assert_true(pool_bin_count(f->chain, c) * class_size(c) <= 4 * MiB);
        }
        assert_chain_is_sound(f->chain);
    }
}

static void large_blocks_in_bins_do_not_make_a_chain_grow(void **state)
{
    struct fixture *f = *state;
    void *block;

    take(f, 8, 256 * KiB);
    give(8);
    assert_true(pool_bin_count(f->chain, class_of_run(4)) > 0);
    block = la_malloc(MACRO_SIZE);
    assert_int_equal(stats_of(f->chain).macro_blocks, 1);
    la_free(block);
    take(f, 2000, 1024);    /* pages of small blocks */
    assert_int_equal(stats_of(f->chain).macro_blocks, 1);
    give(2000);
}

static void large_blocks_in_bins_are_counted_as_cached(void **state)
{
    struct fixture *f = *state;
    struct la_stats s;

    take(f, 10, 200000);
    s = stats_of(f->chain);
    assert_int_equal(s.blocks, 10);
    assert_int_equal(s.allocated, 10 * 4 * SLICE_SIZE);
    give(4);
    assert_int_equal(stats_of(f->chain).blocks, 6);
    assert_int_equal(stats_of(f->chain).allocated, 6 * 4 * SLICE_SIZE);
    assert_int_equal(stats_of(f->chain).cached - s.cached, 4 * 4 * SLICE_SIZE);
    for (unsigned i = 4; i < 10; i++)
        la_free(blocks[i]);
    s = stats_of(f->chain);
    assert_int_equal(s.blocks + s.allocated, 0);
    assert_true(s.cached <= s.mapped);
}

static void trim_and_reset_give_large_blocks_in_bins_back(void **state)
{
    struct fixture *f = *state;

    for (int reset = 0; reset < 2; reset++) {
        take(f, 10, 100000);
        give(10);
        assert_true(pool_bin_count(f->chain, class_of_run(2)) > 0);
        if (reset)
            assert_int_equal(la_chain_reset(f->chain), 0);
        else
            pool_flush_all(f->chain);
        assert_int_equal(pool_bin_count(f->chain, class_of_run(2)), 0);
        assert_null(f->chain->macros);
        assert_null(region_page(blocks[0]));
        assert_int_equal(stats_of(f->chain).mapped, 0);
    }
}

static void bin_of_large_blocks_left_alone_is_given_back(void **state)
{
    struct fixture *f = *state;
    unsigned c = class_of_run(2);

    take(f, 10, 100000);
    give(10);
    for (unsigned i = 0; i < 60000 && pool_bin_count(f->chain, c) > 0; i++)
        la_free(la_chain_alloc(f->chain, 3 * MiB));     /* each a slow path */
    assert_int_equal(pool_bin_count(f->chain, c), 0);
}

static void large_block_freed_by_another_thread_returns_into_its_bin(void **state)
{
    struct fixture *f = *state;
    void *block = la_malloc(100000);

    free_in_other_thread(block);
    assert_int_equal(pool_bin_count(f->chain, class_of_run(2)), 0);
    assert_ptr_equal(la_malloc(100000), block);     /* the bin is empty: a slow path */
    la_free(block);
    assert_true(pool_bin_holds(f->chain, class_of_run(2), block));
    free_in_other_thread(la_malloc(100000));        /* it can be claimed again */
    pool_drain(f->chain);
    assert_int_equal(pool_bin_count(f->chain, class_of_run(2)), 1);
}

static void second_free_of_a_large_block_is_reported_at_once(void **state)
{
    struct fixture *f = *state;

    take(f, 5, 100000);
    give(5);
    for (unsigned i = 0; i < 5; i++) {
        la_free(opaque(blocks[i]));
        assert_reported_once(&f->misuse, blocks[i]);
        assert_non_null(strstr(f->misuse.text, "freed already"));
        assert_int_equal(la_usable_size(opaque(blocks[i])), 0);
        f->misuse.count = 0;
    }
    assert_int_equal(pool_bin_count(f->chain, class_of_run(2)), 5);
}

static void second_free_of_a_large_block_by_another_thread_is_reported(void **state)
{
    struct fixture *f = *state;
    void *block = la_malloc(100000);

    la_free(block);
    free_in_other_thread(opaque(block));
    pool_drain(f->chain);
    assert_reported_once(&f->misuse, block);
    f->misuse.count = 0;
    assert_int_equal(pool_bin_count(f->chain, class_of_run(2)), 1);
    assert_ptr_equal(la_malloc(100000), block);
    free_in_other_thread(block);
    la_free(opaque(block));                         /* it waits in the queue */
    assert_reported_once(&f->misuse, block);
    f->misuse.count = 0;
}

static void large_block_that_was_written_to_after_free_is_reported_and_skipped(void **state)
{
    struct fixture *f = *state;

    take(f, 3, 100000);
    give(3);
    *(uint64_t *)opaque(blocks[2]) = 1;
    assert_ptr_equal(la_malloc(100000), blocks[1]);
    assert_reported_once(&f->misuse, blocks[2]);
    f->misuse.count = 0;
    *(uint64_t *)opaque(blocks[0]) = 1;
    pool_flush_all(f->chain);
    assert_reported_once(&f->misuse, blocks[0]);
    f->misuse.count = 0;
    la_free(blocks[1]);
}

/* Whoever copies memory that it never wrote may copy a mark. */
static void mark_in_a_large_block_does_not_make_it_free(void **state)
{
    struct fixture *f = *state;
    uint64_t *block = la_malloc(100000);

    *block = la_free_mark;
    assert_true(la_usable_size(block) >= 100000);
    la_free(block);
    assert_true(pool_bin_holds(f->chain, class_of_run(2), block));
    assert_ptr_equal(la_malloc(100000), block);
    la_free(block);
}

/* ---- memory runs short ---- */

static void large_blocks_in_bins_make_room_in_a_full_buffer(void **state)
{
    struct fenced f = fenced_new(4 * MiB, 0);
    struct la_chain *chain;
    unsigned n = 0;

    (void)state;
    assert_int_equal(la_chain_create_in(f.buffer, f.size, 0, &chain), 0);
    la_default_set(chain);
    while ((blocks[n] = la_malloc(100000)) != NULL)
        n++;
    assert_true(n > 8);
    give(n);
    assert_non_null(la_malloc(MiB));
    assert_non_null(la_malloc(1000));
    assert_chain_is_sound(chain);
    la_default_set(NULL);
    assert_int_equal(la_chain_destroy(chain), 0);
    fenced_free(&f);
}

static void free_blocks_in_bins_make_room_for_another_size_in_a_full_buffer(void **state)
{
    struct fenced f = fenced_new(2 * MiB, 0);
    struct la_chain *chain;
    unsigned n = 0;

    (void)state;
    assert_int_equal(la_chain_create_in(f.buffer, f.size, 0, &chain), 0);
    la_default_set(chain);
    /* One page for each class, until there is none: each is kept by what lies in its bin. */
    for (unsigned c = 0; c < SMALL_CLASSES && (blocks[n] = la_malloc(class_size(c))) != NULL; c++)
        n++;
    assert_true(n > 10 && n < SMALL_CLASSES);
    assert_null(la_malloc(MiB));
    for (unsigned i = 0; i < n; i++)
        la_free(blocks[i]);
    assert_non_null(la_malloc(MiB));
    assert_chain_is_sound(chain);
    la_default_set(NULL);
    assert_int_equal(la_chain_destroy(chain), 0);
    fenced_free(&f);
}

static void nearly_full_buffer_still_serves_shorter_pages(void **state)
{
    struct fenced f = fenced_new(3 * MiB, 0);
    struct la_chain *chain;
    size_t slices = 0;

    (void)state;
    assert_int_equal(la_chain_create_in(f.buffer, f.size, 0, &chain), 0);
    while (la_chain_alloc(chain, 60000))
        slices++;
    assert_true(slices > 30);
    assert_int_equal(la_chain_reset(chain), 0);
    while (slices-- > 1)
        assert_non_null(la_chain_alloc(chain, 60000));
    /* One slice is left; a page of this class wants several. */
    assert_true(class_page_slices(class_of(20000)) > 1);
    assert_non_null(la_chain_alloc(chain, 20000));
    assert_chain_is_sound(chain);
    assert_int_equal(la_chain_destroy(chain), 0);
    fenced_free(&f);
}

/* ---- written to after free ---- */

static void entry_whose_mark_is_gone_is_reported_and_skipped(void **state)
{
    struct fixture *f = *state;
    void *a = opaque(la_chain_alloc(f->chain, 100)), *b = opaque(la_chain_alloc(f->chain, 100));

    la_free(b);
    la_free(a);
    memset(opaque(a), 0, 100);
    assert_ptr_equal(la_chain_alloc(f->chain, 100), b);
    assert_reported_once(&f->misuse, a);
    f->misuse.count = 0;
    la_free(b);
}

#define pool_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(closed_bin_is_empty_and_full),
        pool_test(opened_bins_are_empty_and_apart),
        pool_test(first_block_brings_more_into_the_bin),
        pool_test(fresh_blocks_come_in_rising_order),
        pool_test(bin_that_is_refilled_and_flushed_in_turn_grows),
        pool_test(bin_holds_at_most_4_mib_worth_of_blocks),
        pool_test(bin_left_alone_is_given_back_bit_by_bit),
        pool_test(flush_gives_every_page_and_macro_block_back),
        pool_test(pages_come_and_go_with_their_blocks),
        pool_test(memory_that_is_freed_is_used_again_for_other_sizes),
        cmocka_unit_test(thread_keeps_a_few_free_macro_blocks_until_it_trims),
        pool_test(large_blocks_spread_over_the_cache_sets),
        pool_test(large_block_of_every_length_takes_the_slices_it_needs),
        pool_test(block_just_above_a_macro_block_is_huge),
        pool_test(large_block_is_resized_within_its_macro_block),
        pool_test(aligned_blocks_come_from_small_classes_while_one_fits),
        pool_test(freed_large_block_is_the_next_one_without_a_slow_path),
        pool_test(large_block_in_a_bin_makes_room_for_every_size_of_its_class),
        pool_test(large_block_of_slices_that_held_a_free_one_is_not_taken_for_free),
        pool_test(bin_of_large_blocks_is_bounded_in_bytes),
        pool_test(large_blocks_in_bins_do_not_make_a_chain_grow),
        pool_test(large_blocks_in_bins_are_counted_as_cached),
        pool_test(trim_and_reset_give_large_blocks_in_bins_back),
        pool_test(bin_of_large_blocks_left_alone_is_given_back),
        pool_test(large_block_freed_by_another_thread_returns_into_its_bin),
        pool_test(second_free_of_a_large_block_is_reported_at_once),
        pool_test(second_free_of_a_large_block_by_another_thread_is_reported),
        pool_test(large_block_that_was_written_to_after_free_is_reported_and_skipped),
        pool_test(mark_in_a_large_block_does_not_make_it_free),
        cmocka_unit_test(large_blocks_in_bins_make_room_in_a_full_buffer),
        cmocka_unit_test(free_blocks_in_bins_make_room_for_another_size_in_a_full_buffer),
        cmocka_unit_test(nearly_full_buffer_still_serves_shorter_pages),
        pool_test(entry_whose_mark_is_gone_is_reported_and_skipped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
