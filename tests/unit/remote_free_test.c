/*
 * remote_free_test.c - blocks of other threads: gathered into batches, pushed whole, taken whole, never lost.
 *
 * The ancestor leaked 101 MB when 500 dead threads' blocks were freed late: nobody emptied their queues.
 */
#include "engine.h"

#include "core/region_map.h"
#include "core/remote_free.h"
#include "core/source.h"
#include "core/thread.h"

static unsigned queue_length(struct la_chain *chain)
{
    unsigned n = 0;

    for (void *block = atomic_load(&chain->remote); block; block = remote_next(region_page(block), block))
        n++;
    return n;
}

/* ---- a thread that frees blocks of this one ---- */

struct frees {
    void **blocks;
    unsigned count;
    bool flush;
    struct la_chain *owner;
    unsigned queued;        /* on the owner's queue after the last free */
};

static void free_them(void *arg)
{
    struct frees *f = arg;

    la_free(la_malloc(1));      /* a chain of its own, to gather in */
    for (unsigned i = 0; i < f->count; i++)
        la_free(f->blocks[i]);
    if (f->flush)
        remote_flush(la_tls_own);
    f->queued = queue_length(f->owner);
}

static void free_elsewhere(struct frees *f)
{
    f->owner = la_tls_own;
    in_other_thread(free_them, f);
}

static void allocate(void **blocks, unsigned n, size_t size)
{
    for (unsigned i = 0; i < n; i++) {
        blocks[i] = la_malloc(size);
        assert_non_null(blocks[i]);
    }
}

static void few_blocks_wait_in_a_batch_until_it_is_flushed(void **state)
{
    void *blocks[10];
    struct frees f = { blocks, 10, false, NULL, 0 };

    (void)state;
    allocate(blocks, 10, 200);
    free_elsewhere(&f);
    assert_int_equal(f.queued, 0);
    assert_int_equal(queue_length(la_tls_own), 10);     /* the thread's end pushed them */

    allocate(blocks, 10, 200);
    la_source_trim(NULL);
    f.flush = true;
    free_elsewhere(&f);
    assert_int_equal(f.queued, 10);
    la_source_trim(NULL);
    assert_int_equal(queue_length(la_tls_own), 0);
    assert_heap_is_sound();
}

static void free_without_a_chain(void *arg)
{
    struct frees *f = arg;

    for (unsigned i = 0; i < 10; i++)
        la_free(f->blocks[i]);
    assert_null(la_tls_own);
    assert_int_equal(queue_length(f->owner), 10);
    for (unsigned i = 10; i < f->count; i++)
        la_free(f->blocks[i]);
    assert_non_null(la_tls_own);
    f->queued = queue_length(f->owner);
}

/* One that allocates nothing. */
static void thread_that_frees_many_gathers_them(void **state)
{
    void *blocks[100];
    struct frees f = { blocks, 100, .owner = NULL };

    (void)state;
    allocate(blocks, 100, 64);
    f.owner = la_tls_own;
    in_other_thread(free_without_a_chain, &f);
    assert_in_range(f.queued, 10, 70);
    assert_int_equal(queue_length(la_tls_own), 100);
    assert_heap_is_sound();
}

static void full_batch_is_pushed_at_once(void **state)
{
    void *blocks[REMOTE_BATCH_MAX + 3];
    struct frees f = { blocks, ARRAY_SIZE(blocks), false, NULL, 0 };

    (void)state;
    la_source_trim(NULL);
    allocate(blocks, ARRAY_SIZE(blocks), 200);
    la_source_trim(NULL);
    free_elsewhere(&f);
    assert_int_equal(f.queued, REMOTE_BATCH_MAX);
    la_source_trim(NULL);
    assert_heap_is_sound();
}

static void large_block_does_not_wait(void **state)
{
    void *block = la_malloc(200 * KiB);
    struct frees f = { &block, 1, false, NULL, 0 };

    (void)state;
    la_source_trim(NULL);
    free_elsewhere(&f);
    assert_int_equal(f.queued, 1);
    la_source_trim(NULL);
    assert_null(region_page(block));
    assert_heap_is_sound();
}

static void owner_gets_its_blocks_back_at_its_next_slow_path(void **state)
{
    uint64_t before = la_tls_own ? la_tls_own->remote_frees : 0;
    void *blocks[100], *again[100];
    struct frees f = { blocks, 100, false, NULL, 0 };
    unsigned same = 0;

    (void)state;
    allocate(blocks, 100, 24000);
    free_elsewhere(&f);
    allocate(again, 100, 24000);
    for (unsigned i = 0; i < 100; i++)
        for (unsigned j = 0; j < 100; j++)
            same += blocks[i] == again[j];
    assert_true(same > 50);
    assert_int_equal(la_tls_own->remote_frees - before, 100);
    for (unsigned i = 0; i < 100; i++)
        la_free(again[i]);
    assert_heap_is_sound();
}

static void blocks_of_8_bytes_survive_the_queue(void **state)
{
    void *blocks[300];
    struct frees f = { blocks, 300, false, NULL, 0 };
    struct misuse_record misuse;

    (void)state;
    record_misuse(&misuse);
    for (int round = 0; round < 3; round++) {
        allocate(blocks, 300, 8);
        free_elsewhere(&f);
    }
    la_source_trim(NULL);
    assert_int_equal(misuse.count, 0);
    assert_heap_is_sound();
}

/* A buffer that is full must see its blocks again at once, not when some thread's batch is full. */
static void block_of_a_user_buffer_is_pushed_at_once(void **state)
{
    static char memory[16384];
    struct la_chain *chain;
    void *block, *last = NULL;

    (void)state;
    assert_int_equal(la_chain_create_in(memory, sizeof(memory), 0, &chain), 0);
    while ((block = la_chain_alloc(chain, 64)) != NULL)
        last = block;
    free_in_other_thread(last);
    assert_int_equal(queue_length(chain), 1);
    assert_ptr_equal(la_chain_alloc(chain, 64), last);
    assert_null(la_chain_alloc(chain, 64));
    assert_chain_is_sound(chain);
    assert_int_equal(la_chain_destroy(chain), 0);
}

static void queue_is_taken_whole_youngest_first(void **state)
{
    struct la_chain *chain;
    void *blocks[3], *taken;
    struct la_page *page;

    (void)state;
    assert_int_equal(la_chain_create(NULL, 0, &chain), 0);
    for (unsigned i = 0; i < 3; i++)
        blocks[i] = la_chain_alloc(chain, 100);
    assert_null(remote_take_all(chain));
    page = region_page(blocks[0]);
    for (unsigned i = 0; i < 3; i++)
        remote_free_now(page, blocks[i]);
    taken = remote_take_all(chain);
    assert_null(remote_take_all(chain));
    for (unsigned i = 3; i-- > 0; taken = remote_next(page, taken))
        assert_ptr_equal(taken, blocks[i]);
    assert_null(taken);
    assert_int_equal(la_chain_destroy(chain), 0);
}

/* ---- many threads at once ---- */

enum { PUSHERS = 3, BLOCKS_EACH = 3000 };

static void many_threads_push_and_nothing_is_lost(void **state)
{
    static void *blocks[PUSHERS][BLOCKS_EACH];
    struct frees jobs[PUSHERS];
    struct thread_body_ bodies[PUSHERS];
    struct la_stats before = { .struct_size = sizeof(before) }, after = before;
    pthread_t threads[PUSHERS];

    (void)state;
    la_source_trim(NULL);
    la_chain_stats(NULL, &before);
    for (unsigned i = 0; i < PUSHERS; i++)
        allocate(blocks[i], BLOCKS_EACH, 16 + 40 * i);
    for (unsigned i = 0; i < PUSHERS; i++) {
        jobs[i] = (struct frees){ blocks[i], BLOCKS_EACH, true, &la_chain_none, 0 };
        bodies[i] = (struct thread_body_){ free_them, &jobs[i] };
        assert_int_equal(pthread_create(&threads[i], NULL, run_body_, &bodies[i]), 0);
    }
    for (unsigned i = 0; i < 20000; i++)        /* the owner takes the queue in while they push */
        la_free(la_malloc(i % 400 + 600));
    for (unsigned i = 0; i < PUSHERS; i++)
        pthread_join(threads[i], NULL);
    la_source_trim(NULL);
    la_chain_stats(NULL, &after);
    assert_int_equal(after.blocks, before.blocks);
    assert_int_equal(after.remote_frees - before.remote_frees, PUSHERS * BLOCKS_EACH);
    assert_heap_is_sound();
}

/* ---- the owner has ended ---- */

struct legacy {
    size_t size;
    unsigned count;
    void *blocks[400];
    struct la_chain *chain;
};

static void allocate_and_end(void *arg)
{
    struct legacy *l = arg;

    for (unsigned i = 0; i < l->count; i++)
        l->blocks[i] = memset(la_malloc(l->size), (int)i, l->size);
    l->chain = la_tls_own;
}

static void blocks_of_an_ended_thread_stay_valid_and_can_be_freed(void **state)
{
    struct legacy l = { .size = 300, .count = 400 };

    (void)state;
    in_other_thread(allocate_and_end, &l);
    for (unsigned i = 0; i < l.count; i++) {
        for (size_t j = 0; j < l.size; j++)
            assert_int_equal(((unsigned char *)l.blocks[i])[j], i & 255);
        la_free(l.blocks[i]);
    }
    la_source_trim(NULL);
    assert_heap_is_sound();
}

/* Regression of the ancestor: 500 dead threads x 200 KiB, freed after their end, cost 101 MB. */
static void late_frees_of_many_dead_threads_cost_nothing(void **state)
{
    struct la_stats stats = { .struct_size = sizeof(stats) };
    size_t mapped_first = 0;

    (void)state;
    for (unsigned round = 0; round < 500; round++) {
        struct legacy l = { .size = 50 * KiB, .count = 4 };

        in_other_thread(allocate_and_end, &l);
        for (unsigned i = 0; i < l.count; i++)
            la_free(l.blocks[i]);
        if (round == 20)
            mapped_first = la_source_default()->mapped;
    }
    la_source_trim(NULL);
    assert_int_equal(la_source_default()->mapped, mapped_first);
    assert_int_equal(la_process_stats(&stats), 0);
    assert_true(stats.mapped < 32 * MiB);
    assert_heap_is_sound();
}

/* The freeing thread read the page before its owner ended, so its push goes to a queue that nobody owns. */
static void push_onto_a_dead_chain_is_found_by_the_source(void **state)
{
    struct legacy l = { .size = 300, .count = 2 };
    struct la_page *page;

    (void)state;
    in_other_thread(allocate_and_end, &l);
    page = region_page(l.blocks[0]);
    assert_int_equal(atomic_load(&l.chain->dead), 1);
    /* As remote_free_now() would have it with the chain it had read. */
    atomic_store(&page->chain, l.chain);
    remote_free_now(page, l.blocks[0]);
    atomic_store(&page->chain, la_default_source.orphan);
    assert_int_equal(atomic_load(&la_default_source.dead_hint), 1);
    assert_int_equal(page->used, 2);
    la_source_trim(NULL);
    assert_int_equal(queue_length(l.chain), 0);
    assert_int_equal(page->used, 1);
    la_free(l.blocks[1]);
    la_source_trim(NULL);
    assert_heap_is_sound();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(few_blocks_wait_in_a_batch_until_it_is_flushed),
        cmocka_unit_test(thread_that_frees_many_gathers_them),
        cmocka_unit_test(full_batch_is_pushed_at_once),
        cmocka_unit_test(large_block_does_not_wait),
        cmocka_unit_test(owner_gets_its_blocks_back_at_its_next_slow_path),
        cmocka_unit_test(blocks_of_8_bytes_survive_the_queue),
        cmocka_unit_test(block_of_a_user_buffer_is_pushed_at_once),
        cmocka_unit_test(queue_is_taken_whole_youngest_first),
        cmocka_unit_test(many_threads_push_and_nothing_is_lost),
        cmocka_unit_test(blocks_of_an_ended_thread_stay_valid_and_can_be_freed),
        cmocka_unit_test(late_frees_of_many_dead_threads_cost_nothing),
        cmocka_unit_test(push_onto_a_dead_chain_is_found_by_the_source),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
