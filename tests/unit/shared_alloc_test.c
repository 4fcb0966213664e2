#include "../support/shared.h"

#include <pthread.h>
#include <stdatomic.h>

#include "../support/storm.h"

#include "core/lane.h"
#include "core/pool.h"
#include "core/restartable.h"
#include "core/size_class.h"

static void every_size_is_allocated_inside_the_heap_and_freed(void **state)
{
    struct shared *s = *state;

    for (size_t size = 0; size < (size_t)12 << 20; size = size * 2 + 1)
        for (int policy = LA_KEEP; policy <= LA_HELD; policy++) {
            char *block = la_chain_alloc(la_heap_chain(s->heap, policy), size);

            assert_true(heap_contains(s->heap, block));
            assert_true(la_usable_size(block) >= size);
            memset(block, 0xa5, size);
            la_free(block);
            assert_int_equal(la_usable_size(block), 0);
        }
    assert_int_equal(shared_count(s).blocks[HEAP] + shared_count(s).blocks[HELD], 0);
}

static void alignments_up_to_a_macro_block_are_kept(void **state)
{
    struct shared *s = *state;

    for (size_t alignment = 1; alignment <= MACRO_SIZE; alignment *= 2) {
        void *block = la_chain_aligned_alloc(la_heap_chain(s->heap, LA_HELD), alignment, 100);

        assert_non_null(block);
        assert_int_equal((uintptr_t)block % alignment, 0);
        la_free(block);
    }
}

static void a_full_heap_gives_null_and_works_again_afterwards(void **state)
{
    struct shared *s = *state;
    void **list = NULL;
    size_t first = 0, second = 0;

    for (void **b; (b = la_heap_alloc(s->heap, 60000)) != NULL; list = b, first++)
        *b = list;
    assert_true(first > 400);
    assert_int_equal(shared_count(s).blocks[HEAP], first);
    while (list) {
        void *next = *list;
        la_free(list);
        list = next;
    }
    for (void **b; (b = la_heap_alloc(s->heap, 60000)) != NULL; list = b, second++)
        *b = list;
    assert_true(second >= first);
    while (list) {
        void *next = *list;
        la_free(list);
        list = next;
    }
}

/* Memory goes from one size to any other, however it was cut before. */
static void a_heap_full_of_one_size_serves_another_afterwards(void **state)
{
    static const size_t sizes[] = { 16, 1000, 30000, 500000, (size_t)30 << 20, 48 };
    struct shared *s = *state;

    for (unsigned k = 0; k < sizeof(sizes) / sizeof(*sizes); k++) {
        void **list = NULL;
        size_t bytes = 0;

        for (void **b; (b = la_heap_alloc(s->heap, sizes[k])) != NULL; list = b, bytes += sizes[k])
            *b = list;
        assert_true(bytes >= (size_t)30 << 20);
        while (list) {
            void *next = *list;
            la_free(list);
            list = next;
        }
    }
}

/* 16 byte blocks need the most state words: 4 bytes each, in slices of their own. */
static void tiny_blocks_fill_the_heap_but_for_their_state_words(void **state)
{
    struct shared *s = *state;
    size_t n = 0;

    while (la_heap_alloc(s->heap, 16))
        n++;
    assert_true(n * 16 > ((size_t)64 << 20) * 7 / 10);
    assert_int_equal(shared_count(s).blocks[HEAP], n);
}

static void wrong_frees_are_refused_and_named(void **state)
{
    struct shared *s = *state;
    char *block = la_heap_alloc(s->heap, 100), *large = la_heap_alloc(s->heap, 300000), *huge = la_heap_alloc(s->heap, 5 << 20);
    char *const wrong[] = { block + 16, large + 4096, huge + (3 << 20), s->heap->base, s->heap->payload };
    unsigned long before = la_misuse_count();

    la_misuse_set(LA_MISUSE_REPORT, NULL, NULL);
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        la_free(wrong[i]);
        assert_int_equal(la_misuse_count(), before + i + 1);
        assert_non_null(strstr(la_last_error(), s->name));
    }
    la_free(block);
    la_free(large);
    la_free(huge);
    before = la_misuse_count();
    la_free(block);
    assert_non_null(strstr(la_last_error(), "freed already"));
    la_free(large);
    la_free(huge);
    assert_int_equal(la_misuse_count(), before + 3);
    assert_int_equal(shared_count(s).blocks[HEAP], 0);
}

static int free_every_third(struct la_heap *heap)
{
    void ***table = la_load(heap, shared_root(heap, "table"));

    for (int i = 0; i < 3000; i += 3)
        la_free(table[i]);
    return 0;
}

/* The owner finds what others freed by the hints, before it takes new memory. */
static void blocks_freed_by_another_process_are_used_again(void **state)
{
    struct shared *s = *state;
    void **table = la_heap_hold(s->heap, 3000 * sizeof(void *));
    struct la_fsck before, after;

    for (int i = 0; i < 3000; i++)
        table[i] = la_heap_alloc(s->heap, 200);
    assert_int_equal(la_publish(s->heap, shared_root(s->heap, "table"), NULL, table), 0);
    before = shared_count(s);
    for (int round = 0; round < 5; round++) {
        assert_int_equal(shared_run(s, free_every_third), 0);
        for (int i = 0; i < 3000; i += 3)
            table[i] = la_heap_alloc(s->heap, 200);
    }
    after = shared_count(s);
    assert_int_equal(after.blocks[HEAP], before.blocks[HEAP]);
    assert_true(after.pages <= before.pages + 8);
}

static void quarantine_stops_growth_not_reading(void **state)
{
    struct shared *s = *state;
    char *block = la_heap_alloc(s->heap, 64);

    heap_quarantine(s->heap, "a test says so");
    assert_null(la_heap_alloc(s->heap, (size_t)8 << 20));
    assert_non_null(strstr(la_last_error(), "quarantined"));
    strcpy(block, "still readable");
    atomic_store(&s->heap->header->quarantined, 0);
}

static void owner_of_knows_shared_blocks(void **state)
{
    struct shared *s = *state;
    char *block = la_heap_alloc(s->heap, 1000);
    struct la_owner owner = { .struct_size = sizeof(owner) };

    assert_int_equal(la_owner_of(block + 500, &owner), 0);
    assert_true(owner.shared && owner.live);
    assert_ptr_equal(owner.block, block);
    assert_string_equal(owner.chain_name, s->name);
    la_free(block);
    assert_int_equal(la_owner_of(block, &owner), 0);
    assert_false(owner.live);
}

/* ---- another heap ---- */

static struct la_heap *create_other(const struct shared *s, char name[64])
{
    struct la_heap *heap;

    snprintf(name, 64, "%s-other", s->name);
    assert_int_equal(la_heap_create(name, (size_t)16 << 20, 0, &heap), 0);
    return heap;
}

static void remove_other(struct la_heap *heap, const char *name)
{
    assert_int_equal(la_heap_fsck(heap, shared_print, NULL, NULL), 0);
    assert_int_equal(la_heap_detach(heap) | la_heap_remove(name), 0);
}

static void walk_nothing(void *user, void *block, size_t size, bool held)
{
    (void)user, (void)block, (void)size, (void)held;
}

/* ---- signals ---- */

enum { STORMS = 5, SIGNALS = 20000 };

static atomic_uint handled, bad;
static struct la_heap *storm_heap;
static uint64_t *handlers[8];

static uint64_t *take(uint64_t name)
{
    uint64_t *block = la_heap_alloc(storm_heap, 64);

    if (block && block[0] != 0)
        atomic_fetch_add(&bad, 1);
    if (block)
        block[0] = name;
    return block;
}

static void give(uint64_t *block, uint64_t name)
{
    if (block && block[0] != name)
        atomic_fetch_add(&bad, 1);
    if (block)
        block[0] = 0;
    la_free(block);
}

static void handle(int signal)
{
    uint64_t **kept = &handlers[atomic_fetch_add(&handled, 1) % 8];

    (void)signal;
    give(*kept, 2);
    *kept = take(2);
    give(take(2), 2);
}

/* Until SIGNALS of them have come. */
static void work_in_a_storm(void)
{
    uint64_t *mine[8] = { 0 };

    atomic_store(&handled, 0);
    assert_true(storm_begin(handle));
    for (unsigned i = 0; atomic_load(&handled) < SIGNALS; i++) {
        give(mine[i % 8], 1);
        mine[i % 8] = take(1);
        give(take(1), 1);
    }
    storm_end();
    for (unsigned i = 0; i < 8; i++) {
        give(mine[i], 1);
        give(handlers[i], 2);
        handlers[i] = NULL;
    }
}

/* Signals at any instruction of the fast paths: no block is handed out twice, none is lost. In heaps that are new, whose bins still grow. */
static void handlers_and_the_fast_paths_share_no_block(void **state)
{
    struct shared *s = *state;
    char name[64];

    if (!RESTARTABLE)
        skip();
    for (int i = 0; i < STORMS; i++) {
        storm_heap = create_other(s, name);
        work_in_a_storm();
        assert_int_equal(atomic_load(&bad), 0);
        assert_int_equal(la_heap_walk(storm_heap, walk_nothing, NULL), 0);
        remove_other(storm_heap, name);
    }
}

/* ---- lanes of several heaps ---- */

/* Each free finds the bin of its own lane and class, whichever heap the thread used last and wherever it freed last. */
static void a_thread_frees_into_the_lane_of_the_blocks_heap(void **state)
{
    static const size_t sizes[] = { 16, 100, 100, 3000 };
    struct shared *s = *state;
    char name[64];
    struct la_heap *heaps[] = { s->heap, create_other(s, name) };

    for (unsigned i = 0; i < 4 * ARRAY_SIZE(sizes); i++) {
        size_t size = sizes[i % ARRAY_SIZE(sizes)];
        unsigned c = class_of(size), mine = i / 3 % 2;
        char *kept = la_heap_alloc(heaps[!mine], size), *block = la_heap_alloc(heaps[mine], size);
        struct la_chain *lane = &heap_lane(heaps[mine])->chain, *other = &heap_lane(heaps[!mine])->chain;
        unsigned before = pool_bin_count(lane, c), beside = pool_bin_count(other, c);

        if (i % 2)
            la_free(la_heap_alloc(heaps[!mine], 200));
        la_free(block);
        assert_int_equal(pool_bin_count(lane, c), before + 1);
        assert_int_equal(pool_bin_count(other, c), beside);
        assert_ptr_equal(la_heap_alloc(heaps[mine], size), block);
        la_free(kept);
        la_free(block);
    }
    remove_other(heaps[1], name);
}

struct stale {
    struct la_heap *heap;
    struct lane *lane;
    void *block;
    pthread_barrier_t barrier;
};

static void *free_with_a_lane_that_is_gone(void *arg)
{
    struct stale *stale = arg;

    la_free(la_heap_alloc(stale->heap, 100));
    stale->lane = heap_lane(stale->heap);
    pthread_barrier_wait(&stale->barrier);
    pthread_barrier_wait(&stale->barrier);      /* the heap is detached, the block another's */
    la_free(stale->block);
    return NULL;
}

/* Another heap's lane is made where this thread's was, which it used last: that is not its lane. */
static void a_lane_of_a_detached_heap_is_nobodys(void **state)
{
    struct shared *s = *state;
    struct stale stale = { 0 };
    unsigned c = class_of(100), before;
    struct lane *lane;
    pthread_t thread;
    char name[64];

    stale.heap = create_other(s, name);
    assert_int_equal(pthread_barrier_init(&stale.barrier, NULL, 2), 0);
    assert_int_equal(pthread_create(&thread, NULL, free_with_a_lane_that_is_gone, &stale), 0);
    pthread_barrier_wait(&stale.barrier);
    assert_int_equal(la_heap_detach(stale.heap) | la_heap_remove(name), 0);
    lane = heap_lane(s->heap);
    assert_ptr_equal(lane, stale.lane);         /* or this test tests nothing */
    stale.block = la_heap_alloc(s->heap, 100);
    before = pool_bin_count(&lane->chain, c);
    pthread_barrier_wait(&stale.barrier);
    pthread_join(thread, NULL);
    assert_int_equal(pool_bin_count(&lane->chain, c), before);
    assert_int_equal(shared_count(s).blocks[HEAP], 0);
    pthread_barrier_destroy(&stale.barrier);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        shared_test(every_size_is_allocated_inside_the_heap_and_freed),
        shared_test(alignments_up_to_a_macro_block_are_kept),
        shared_test(a_full_heap_gives_null_and_works_again_afterwards),
        shared_test(a_heap_full_of_one_size_serves_another_afterwards),
        shared_test(tiny_blocks_fill_the_heap_but_for_their_state_words),
        shared_test(wrong_frees_are_refused_and_named),
        shared_test(blocks_freed_by_another_process_are_used_again),
        shared_test(quarantine_stops_growth_not_reading),
        shared_test(owner_of_knows_shared_blocks),
        shared_test(handlers_and_the_fast_paths_share_no_block),
        shared_test(a_thread_frees_into_the_lane_of_the_blocks_heap),
        shared_test(a_lane_of_a_detached_heap_is_nobodys),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
