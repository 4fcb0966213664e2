/* repair_test.c - a chain whose slow path was left in the middle: lists and counts are made again, no block is lost or given twice. */
#include "engine.h"

#include "core/chain.h"
#include "core/macroblock.h"
#include "core/page.h"
#include "core/pool.h"
#include "core/region_map.h"
#include "core/remote_free.h"
#include "core/repair.h"
#include "core/thread.h"

enum { BLOCKS = 3000 };

struct fixture {
    struct la_chain *chain;
    void *blocks[BLOCKS];
    void *large[2];
};

static int setup(void **state)
{
    static struct fixture f;

    assert_int_equal(la_chain_create(NULL, 0, &f.chain), 0);
    for (unsigned i = 0; i < BLOCKS; i++)
        f.blocks[i] = la_chain_alloc(f.chain, i % 4 == 3 ? 8 : 100 + i % 4 * 1000);
    f.large[0] = la_chain_alloc(f.chain, 200 * KiB);
    f.large[1] = la_chain_alloc(f.chain, 300 * KiB);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    return la_chain_destroy(f->chain);
}

static uint64_t live_blocks(struct la_chain *chain)
{
    struct la_stats stats = { .struct_size = sizeof(stats) };

    assert_int_equal(la_chain_stats(chain, &stats), 0);
    return stats.blocks;
}

static void repair(struct la_chain *chain)
{
    signals_hold();
    chain_repair(chain);
    signals_release();
    assert_chain_is_sound(chain);
}

static void drain(struct la_chain *chain)
{
    struct slow_path slow;

    slow_begin(&slow);
    pool_drain(chain);
    slow_end(&slow);
}

static void sound_chain_stays_as_it_is(void **state)
{
    struct fixture *f = *state;
    uint64_t before = live_blocks(f->chain);

    repair(f->chain);
    assert_int_equal(live_blocks(f->chain), before);
}

static void lists_and_counts_are_made_again(void **state)
{
    struct fixture *f = *state;
    struct la_page *page;
    uint64_t before;

    for (unsigned i = 0; i < BLOCKS; i += 2)
        la_free(f->blocks[i]);
    before = live_blocks(f->chain);
    page = region_page(f->blocks[1]);
    page->used += 7;
    page->free_count = 3;
    page->free = NULL;
    page->next = page;
    f->chain->run_mask = 0;
    f->chain->macros->free_slices = 0;
    f->chain->by_run[5] = f->chain->macros;
    f->chain->large_live = 77;
    memset(f->chain->avail, 0x11, sizeof(f->chain->avail));
    /* What was in bins is in none, and what was about to get there neither. */
    pool_bins_empty(f->chain);
    repair(f->chain);
    assert_int_equal(live_blocks(f->chain), before);
    assert_int_equal(f->chain->large_live, 2);
    for (unsigned i = 1; i < BLOCKS; i += 2)
        la_free(f->blocks[i]);
    assert_chain_is_sound(f->chain);
}

/* All free blocks of 8 bytes hang on one list, whose links stand where the marks would. */
static void list_of_eight_byte_blocks_is_kept(void **state)
{
    struct fixture *f = *state;
    struct slow_path slow;
    struct la_page *page = region_page(f->blocks[3]);
    uint32_t used;

    for (unsigned i = 3; i < BLOCKS; i += 8)
        la_free(f->blocks[i]);
    slow_begin(&slow);
    pool_flush_all(f->chain);
    slow_end(&slow);
    used = page->used;
    assert_true(page->free_count >= BLOCKS / 8);
    repair(f->chain);
    assert_int_equal(page->used, used);
    /* Into the bin. */
    la_default_set(f->chain);
    for (unsigned i = 7; i < BLOCKS; i += 8)
        la_free(f->blocks[i]);
    la_default_set(NULL);
    repair(f->chain);
    assert_int_equal(page->used, 0);
}

/* Its other thread has them, or they are on their way. */
static void blocks_of_remote_batches_stay_in_use(void **state)
{
    struct fixture *f = *state;
    struct la_page *page = region_page(f->blocks[0]);
    uint32_t used = page->used;

    *(uint64_t *)f->blocks[0] = la_queue_mark();
    repair(f->chain);
    assert_int_equal(page->used, used);
}

/* The end of the page that was never handed out is not taken for blocks in use, and not handed out twice. */
static void untouched_blocks_stay_untouched(void **state)
{
    struct fixture *f = *state;
    struct la_page *page = region_page(f->blocks[0]);
    uint32_t bump = page->bump;

    /* Interrupted between marking them and moving the bump. */
    if (bump < page->capacity)
        *(uint64_t *)(page->start + (size_t)bump * page->block_size) = la_free_mark;
    repair(f->chain);
    assert_int_equal(page->bump, bump);
}

static void large_block_that_was_being_freed_is_free(void **state)
{
    struct fixture *f = *state;

    region_page(f->large[0])->used = 0;
    region_page(f->large[0])->free_count = 1;   /* as far as pool_free() had come */
    repair(f->chain);
    assert_null(region_page(f->large[0]));
    assert_int_equal(f->chain->large_live, 1);
}

static void large_block_in_a_bin_is_free(void **state)
{
    struct fixture *f = *state;

    la_default_set(f->chain);
    la_free(f->large[0]);
    la_default_set(NULL);
    repair(f->chain);
    assert_null(region_page(f->large[0]));
    assert_int_equal(f->chain->large_live, 1);
}

static void large_block_in_the_queue_stays_there(void **state)
{
    struct fixture *f = *state;
    struct la_page *page = region_page(f->large[0]);

    page->used = 0;     /* claimed by the freeing thread */
    remote_free_now(page, f->large[0]);
    repair(f->chain);
    assert_ptr_equal(region_page(f->large[0]), page);
    drain(f->chain);
    assert_true(pool_bin_holds(f->chain, page->size_class, f->large[0]));
    assert_chain_is_sound(f->chain);
}

static void region_map_is_completed(void **state)
{
    struct fixture *f = *state;
    struct la_page *page = region_page(f->large[1]);

    region_clear(slice_address(page->macro->segment, page) + SLICE_SIZE, page->slices - 1u);
    repair(f->chain);
    assert_ptr_equal(region_page((char *)f->large[1] + 2 * SLICE_SIZE), page);
}

static void queue_that_was_being_taken_is_taken_once(void **state)
{
    struct fixture *f = *state;

    for (int taken = 0; taken < 2; taken++) {
        uint64_t before = live_blocks(f->chain);

        for (unsigned i = 0; i < 10; i++)
            remote_free_now(region_page(f->blocks[10 * (unsigned)taken + i]), f->blocks[10 * (unsigned)taken + i]);
        f->chain->draining = atomic_load(&f->chain->remote);
        if (taken)
            atomic_store(&f->chain->remote, NULL);
        repair(f->chain);
        drain(f->chain);
        assert_null(f->chain->draining);
        assert_null(atomic_load(&f->chain->remote));
        assert_int_equal(live_blocks(f->chain), before - 10);
        assert_chain_is_sound(f->chain);
    }
}

#define repair_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        repair_test(sound_chain_stays_as_it_is),
        repair_test(lists_and_counts_are_made_again),
        repair_test(list_of_eight_byte_blocks_is_kept),
        repair_test(blocks_of_remote_batches_stay_in_use),
        repair_test(untouched_blocks_stay_untouched),
        repair_test(large_block_that_was_being_freed_is_free),
        repair_test(large_block_in_a_bin_is_free),
        repair_test(large_block_in_the_queue_stays_there),
        repair_test(region_map_is_completed),
        repair_test(queue_that_was_being_taken_is_taken_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
