#include "../support/shared.h"

#include <pthread.h>
#include <stdatomic.h>

#include "../support/fill.h"
#include "../support/storm.h"

#include "core/lane.h"
#include "core/pool.h"
#include "core/region_map.h"
#include "core/shared_fast.h"
#include "core/shared_pool.h"

static word_t word_of(struct la_heap *heap, const void *block)
{
    struct block_ref ref;

    assert_true(block_find(heap, block, &ref));
    return atomic_load(ref.word);
}

static unsigned hints_set(struct la_heap *heap)
{
    unsigned n = 0;

    for (uint32_t i = 0; i < atomic_load(&heap->header->rows) && i < heap->macro_count; i++)
        for (unsigned k = 0; k < HINTS_PER_MACRO; k++)
            n += atomic_load(&heap->macros[i].hint[k]);
    return n;
}

static void the_block_freed_last_is_handed_out_next_with_a_new_generation(void **state)
{
    struct shared *s = *state;

    for (int policy = LA_KEEP; policy <= LA_HELD; policy++) {
        struct la_chain *chain = la_heap_chain(s->heap, policy);
        char *a = la_chain_alloc(chain, 100), *b = la_chain_alloc(chain, 100);
        word_t before = word_of(s->heap, a);

        assert_ptr_not_equal(a, b);
        assert_int_equal(before >> 12 & 3, policy == LA_KEEP ? WORD_HEAP : WORD_HELD);
        la_free(a);
        assert_int_equal(word_of(s->heap, a), word_make(word_generation(before) + 1, word_epoch(before), WORD_FREE, 0));
        assert_ptr_equal(la_chain_alloc(chain, 100), a);
        assert_int_equal(word_generation(word_of(s->heap, a)), word_generation(before) + 1);
        la_free(a);
        la_free(b);
    }
}

static void assert_entries_have_their_words(struct la_heap *heap)
{
    struct lane *lane = heap_lane(heap);

    for (unsigned c = 0; c < SMALL_CLASSES; c++)
        for (unsigned i = 1; i <= pool_bin_count(&lane->chain, c); i++) {
            void **entry = &lane->chain.rooms[c].base[i];
            struct block_ref ref;

            assert_true(block_find(heap, *entry, &ref));
            assert_ptr_equal(ref.start, *entry);
            assert_ptr_equal(*word_slot(&lane->chain, c * sizeof(struct la_bin), entry), ref.word);
            assert_int_equal(atomic_load(ref.word) & WORD_STATE_MASK, 0);
            assert_int_equal(word_epoch(atomic_load(ref.word)), ref.epoch);
        }
}

/* Bins and their words must stay side by side when bins grow, overflow and are given back. */
static void every_entry_of_a_bin_has_its_own_state_word(void **state)
{
    struct shared *s = *state;
    void *blocks[5000];

    for (int round = 0; round < 6; round++) {
        for (int i = 0; i < 5000; i++)
            blocks[i] = la_heap_alloc(s->heap, 16 + (size_t)(i % 7) * 100);
        for (int i = 0; i < 5000; i++) {
            la_free(blocks[i * 1009 % 5000]);
            if (i % 61 == 0)
                assert_entries_have_their_words(s->heap);
        }
    }
}

static void the_region_map_leads_to_the_lanes_own_pages_only(void **state)
{
    struct shared *s = *state;
    char *small = la_heap_alloc(s->heap, 200), *long_page = la_heap_alloc(s->heap, 28000), *large = la_heap_alloc(s->heap, 300000);
    void *payload = s->heap->payload;
    struct la_heap *other;
    char name[64];

    assert_int_equal(region_page(small)->kind, PAGE_LANE);
    assert_int_equal(region_page(long_page)->kind, PAGE_LANE);
    assert_ptr_equal(heap_around(small), s->heap);
    assert_ptr_equal(heap_around(large), s->heap);
    assert_int_equal(region_page(large)->kind, PAGE_SHARED);
    la_free(small);
    la_free(long_page);
    la_free(large);

    snprintf(name, sizeof(name), "%s-2", s->name);
    assert_int_equal(la_heap_create(name, (size_t)16 << 20, 0, &other), 0);
    payload = la_heap_alloc(other, 64);
    assert_int_equal(region_page(payload)->kind, PAGE_LANE);
    assert_int_equal(la_heap_detach(other), 0);
    assert_null(region_page(payload));
    assert_int_equal(la_heap_remove(name), 0);
}

enum { FEW = 400 };

static int free_table(struct la_heap *heap)
{
    void **table = la_load(heap, shared_root(heap, "table"));

    for (int i = 0; i < FEW; i++)
        if (table[i])
            la_free(table[i]);
    return hints_set(heap) == 0;
}

/* Of any size, at any place in pages of one or several slices. */
static void what_others_free_is_found_by_its_hints(void **state)
{
    static const size_t sizes[] = { 16, 48, 500, 3000, 20000, 28000, 100000, 700000 };
    struct shared *s = *state;
    void **table = la_heap_hold(s->heap, FEW * sizeof(void *));

    assert_int_equal(la_publish(s->heap, shared_root(s->heap, "table"), NULL, table), 0);
    for (unsigned k = 0; k < sizeof(sizes) / sizeof(*sizes); k++) {
        int n = (int)MIN((size_t)FEW, ((size_t)8 << 20) / sizes[k]);
        struct la_fsck before;

        memset(table, 0, FEW * sizeof(void *));
        for (int i = 0; i < n; i++)
            table[i] = la_heap_alloc(s->heap, sizes[k]);
        before = shared_count(s);
        for (int round = 0; round < 8; round++) {
            assert_int_equal(shared_run(s, free_table), 0);
            for (int i = 0; i < n; i++)
                assert_non_null(table[i] = la_heap_alloc(s->heap, sizes[k]));
        }
        assert_int_equal(shared_count(s).blocks[HEAP], before.blocks[HEAP]);
        assert_true(shared_count(s).pages <= before.pages + 2);
        for (int i = 0; i < n; i++)
            la_free(table[i]);
    }
}

/* As in a signal handler that came into the lane's slow path: it must not touch the bins, and nothing may be lost. */
static void frees_from_inside_a_slow_path_leave_the_bins_alone(void **state)
{
    struct slow_path slow;
    struct shared *s = *state;
    struct lane *lane;
    unsigned c = class_of(300), hints = hints_set(s->heap), in_bin;
    char *block = la_heap_alloc(s->heap, 300), *held = la_heap_hold(s->heap, 300), *large = la_heap_alloc(s->heap, 300000);

    lane = heap_lane(s->heap);
    in_bin = pool_bin_count(&lane->chain, c);
    lane_enter(lane, &slow);
    assert_null(la_heap_alloc(s->heap, 300));
    la_free(block);
    la_free(held);
    la_free(large);
    lane_leave(lane, &slow);
    assert_int_equal(pool_bin_count(&lane->chain, c), in_bin);
    assert_int_equal(lane->chain.large_live, 1);
    assert_int_equal(word_of(s->heap, block) & WORD_STATE_MASK, 0);
    assert_int_equal(word_of(s->heap, held) & WORD_STATE_MASK, 0);
    assert_true(hints_set(s->heap) > hints);
    assert_non_null(la_heap_alloc(s->heap, 400000));
    assert_int_equal(lane->chain.large_live, 1);
}

/* A refill that comes to the page again: all its words are FREE, but some of its blocks are in the bin. */
static void a_page_with_blocks_in_the_bin_is_not_given_back(void **state)
{
    struct shared *s = *state;
    void *block = la_heap_alloc(s->heap, 64);
    struct lane *lane = heap_lane(s->heap);
    struct la_page *page = lane_page_of(&lane->chain, block);
    struct la_bin *bin = &lane->chain.bins[class_of(64)];

    la_free(block);
    assert_true(pool_bin_count(&lane->chain, class_of(64)) > 0);
    pool_unlist_page(&lane->chain, page);       /* as if another page served the class */
    page->free_count = UINT32_MAX;
    page->free = page;
    assert_int_equal(lane_pool_ops.take(&lane->chain, page, bin->top + 1, 1), 1);
    assert_int_equal(page->kind, PAGE_LANE);
    pool_list_page(&lane->chain, page);
}

/* Four macro blocks without a free slice, of processes that are no more. */
static void fill_macro_blocks(struct la_heap *heap)
{
    for (int i = 0; i < 4 * 15; i++)
        if (!la_heap_alloc(heap, 2 * 65536 - 4096))
            _exit(97);
    for (int i = 0; i < 4; i++)
        if (!la_heap_alloc(heap, 65536 - 4096))
            _exit(97);
}

static void what_is_adopted_and_full_does_not_make_an_allocation_fail(void **state)
{
    struct shared *s = *state;
    static const size_t sizes[] = { 64, 20000, 100000 };

    for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        shared_kill_after(s, fill_macro_blocks);
        assert_int_equal(la_heap_recover(s->heap, NULL, NULL), 1);
        for (int n = 0; n < 10; n++)
            assert_non_null(la_heap_alloc(s->heap, sizes[i]));
    }
}

/* A page of the class is adopted, but all its blocks are in use. */
static void fill_page(struct la_heap *heap)
{
    for (int i = 0; i < 65536 / 1024; i++)
        if (!la_heap_alloc(heap, 1024))
            _exit(97);
}

static void an_adopted_page_without_a_free_block_does_not_make_an_allocation_fail(void **state)
{
    struct shared *s = *state;

    shared_kill_after(s, fill_page);
    assert_int_equal(la_heap_recover(s->heap, NULL, NULL), 1);
    assert_non_null(la_heap_alloc(s->heap, 1024));
}

/* ---- fast paths that were interrupted ---- */

/* As a pop that was interrupted behind the move of the top leaves them. */
static void leave_out(struct lane *lane, unsigned c, unsigned n)
{
    assert_true(pool_bin_count(&lane->chain, c) >= n);
    lane->chain.bins[c].top -= n;
    la_tls_restarts++;
}

static void blocks_left_out_of_their_bin_are_found_when_the_heap_is_full(void **state)
{
    struct shared *s = *state;
    struct lane *lane = heap_lane(s->heap);
    void **list = NULL;
    unsigned n = fill(s->heap, 3000, &list);

    for (int round = 0; round < 3; round++) {
        free_all(list);
        list = NULL;
        /* The size that is asked for again, and one that has to make room for it. */
        la_free(la_heap_alloc(s->heap, 200));
        la_free(la_heap_alloc(s->heap, 3000));
        leave_out(lane, class_of(3000), 1);
        leave_out(lane, class_of(200), 2);
        assert_int_equal(fill(s->heap, 3000, &list), n);
    }
}

struct heir_of_macro {
    struct la_heap *heap;
    struct la_macro *macro;
    bool has_it;
    atomic_bool go, went;       /* relaxed: under TSan nothing orders what the two threads do */
};

static void *take_the_macro_block(void *arg)
{
    struct heir_of_macro *heir = arg;
    void *block;

    while (!atomic_load_explicit(&heir->go, memory_order_relaxed))
        sched_yield();
    block = la_heap_alloc(heir->heap, 100);
    heir->has_it = heir->macro->chain == &heap_lane(heir->heap)->chain;
    la_free(block);
    atomic_store_explicit(&heir->went, true, memory_order_relaxed);
    return NULL;
}

/* The sweep over hints goes on behind the macro block that it looked at last, which may be another thread's by now (a race that TSan reports). */
static void the_sweep_leaves_macro_blocks_of_others_alone(void **state)
{
    struct shared *s = *state;
    struct lane *lane = heap_lane(s->heap);
    struct heir_of_macro heir = { .heap = s->heap };
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, take_the_macro_block, &heir), 0);
    la_free(la_heap_alloc(s->heap, 100));
    la_free(la_heap_alloc(s->heap, 200));       /* a slow call: it sweeps */
    heir.macro = lane->chain.macros;
    assert_int_equal(lane->sweep_at, heir.macro->index);
    lane_trim(&lane->chain);
    assert_null(lane->chain.macros);
    atomic_store_explicit(&heir.go, true, memory_order_relaxed);
    while (!atomic_load_explicit(&heir.went, memory_order_relaxed))
        sched_yield();
    la_free(la_heap_alloc(s->heap, 100));
    la_free(la_heap_alloc(s->heap, 200));
    assert_int_equal(lane->sweep_at, lane->chain.macros->index);
    pthread_join(thread, NULL);
    assert_true(heir.has_it);
}

static int fill_with_sixteen_mib(struct la_heap *heap)
{
    for (int i = 0; i < 16 << 10; i++)
        if (!la_heap_hold(heap, 1000))
            return 1;
    return 0;
}

/* It may never allocate again. Its own thread frees, then another process needs what it had. */
static void who_frees_most_of_what_it_has_leaves_it_to_others(void **state)
{
    struct shared *s = *state;
    void **list = NULL;

    assert_true(fill(s->heap, 1000, &list) > 50 << 10);
    free_all(list);
    assert_int_equal(shared_run(s, fill_with_sixteen_mib), 0);
}

static int free_all_of_root(struct la_heap *heap)
{
    void *block;

    while ((block = la_take(heap, shared_root(heap, "list"), 0)))
        la_free(block);
    return la_heap_hold(heap, 16) ? 1 : 0;      /* the other's memory, until it notices */
}

/* The other process frees, while the owner of the pages is at work with blocks of another size only, for which it needs no memory. */
static void who_still_works_gives_the_starved_what_others_freed(void **state)
{
    enum { WORKING_SET = 2000 };
    struct shared *s = *state;
    static void *work[WORKING_SET];
    void **block;

    for (int i = 0; i < WORKING_SET; i++)
        work[i] = la_heap_alloc(s->heap, 3000);
    while ((block = la_heap_hold(s->heap, 1000)))
        assert_int_equal(la_push(s->heap, shared_root(s->heap, "list"), block, 0), 0);
    assert_int_equal(shared_run(s, free_all_of_root), 0);
    for (int round = 0; round < 100; round++) {
        for (int i = 0; i < WORKING_SET; i++)
            la_free(work[i]);
        for (int i = 0; i < WORKING_SET; i++)
            assert_non_null(work[i] = la_heap_alloc(s->heap, 3000));
    }
    assert_int_equal(shared_run(s, fill_with_sixteen_mib), 0);
}

enum { SIGNALS = 20000 };
static atomic_uint handled;

static void handle(int signal)
{
    (void)signal;
    atomic_fetch_add(&handled, 1);
}

static void interruptions_cost_a_full_heap_no_block(void **state)
{
    struct shared *s = *state;
    void **list = NULL, *kept[64] = { 0 };
    unsigned n;

    if (!RESTARTABLE)
        skip();
    n = fill(s->heap, 3000, &list);
    free_all(list);
    list = NULL;
    assert_true(storm_begin(handle));
    for (unsigned i = 0; atomic_load(&handled) < SIGNALS; i++) {
        la_free(kept[i % 64]);
        kept[i % 64] = la_heap_alloc(s->heap, 3000);
    }
    storm_end();
    for (unsigned i = 0; i < 64; i++)
        la_free(kept[i]);
    assert_int_equal(fill(s->heap, 3000, &list), n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        shared_test(the_block_freed_last_is_handed_out_next_with_a_new_generation),
        shared_test(every_entry_of_a_bin_has_its_own_state_word),
        shared_test(the_region_map_leads_to_the_lanes_own_pages_only),
        shared_test(what_others_free_is_found_by_its_hints),
        shared_test(frees_from_inside_a_slow_path_leave_the_bins_alone),
        shared_test(a_page_with_blocks_in_the_bin_is_not_given_back),
        shared_test(what_is_adopted_and_full_does_not_make_an_allocation_fail),
        shared_test(an_adopted_page_without_a_free_block_does_not_make_an_allocation_fail),
        shared_test(blocks_left_out_of_their_bin_are_found_when_the_heap_is_full),
        shared_test(the_sweep_leaves_macro_blocks_of_others_alone),
        shared_test(who_frees_most_of_what_it_has_leaves_it_to_others),
        shared_test(who_still_works_gives_the_starved_what_others_freed),
        shared_test(interruptions_cost_a_full_heap_no_block),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
