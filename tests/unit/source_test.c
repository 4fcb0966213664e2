/*
 * source_test.c - where macro blocks come from: sources of one's own that fail, limits, giving back, adoption (R6).
 *
 * The ancestor compared mmap()'s failure with NULL, so that running out of memory was a segmentation fault, and left a lock held.
 */
#include "engine.h"

#include <liballoc/error.h>

#include "core/macroblock.h"
#include "core/page.h"
#include "core/pool.h"
#include "core/region_map.h"
#include "core/size_class.h"
#include "core/source.h"
#include "core/thread.h"
#include "os/nodes.h"
#include "os/os.h"

/* ---- a source of one's own ---- */

enum { MAX_RANGES = 64, SHIFT = 3 * 4096 };

/* Ranges start three pages behind a multiple of 64 KiB, so that nothing is aligned by luck. */
struct own {
    unsigned calls, fail_at;        /* acquire fails from the n-th call on; 0: never */
    bool failing, stingy;           /* fails from now on; gives less than the least */
    struct la_range ranges[MAX_RANGES];
    unsigned nodes[MAX_RANGES];     /* that the range was asked for */
    unsigned full;                  /* bit i: node i gives nothing more */
    unsigned count, released, purges;
    size_t bytes, purged;
    struct la_source *source;
    struct la_chain *chain;
};

static int own_acquire(void *self, size_t min, size_t wanted, struct la_range *ret)
{
    struct own *o = self;
    char *p;

    assert_true(min <= wanted);
    o->calls++;
    if ((o->fail_at && o->calls >= o->fail_at) || o->failing)
        return -ENOMEM;
    if (o->stingy)
        wanted = 4096;
    p = os_map_aligned(wanted + SHIFT, SLICE_SIZE);
    if (!p || o->count == MAX_RANGES)
        return -ENOMEM;
    *ret = (struct la_range){ p + SHIFT, wanted };
    o->ranges[o->count++] = *ret;
    o->bytes += wanted;
    return 0;
}

static void own_release(void *self, struct la_range range)
{
    struct own *o = self;

    for (unsigned i = 0; i < o->count; i++)
        if (o->ranges[i].base == range.base) {
            assert_int_equal(o->ranges[i].size, range.size);
            o->nodes[i] = o->nodes[o->count - 1];
            o->ranges[i] = o->ranges[--o->count];
            o->released++;
            o->bytes -= range.size;
            os_unmap((char *)range.base - SHIFT, range.size + SHIFT);
            return;
        }
    fail_msg("a range that was not acquired, or released twice");
}

static bool own_holds(const struct own *o, const void *block, size_t size)
{
    for (unsigned i = 0; i < o->count; i++)
        if ((uintptr_t)block - (uintptr_t)o->ranges[i].base <= o->ranges[i].size - size)
            return true;
    return false;
}

static int own_purge(void *self, struct la_range range)
{
    struct own *o = self;

    assert_true(own_holds(o, range.base, range.size));
    assert_int_equal((uintptr_t)range.base % os_page_size(), 0);
    assert_int_equal(range.size % os_page_size(), 0);
    o->purges++;
    o->purged += range.size;
    return os_purge(range.base, range.size);
}

static int own_acquire_on(void *self, unsigned node, size_t min, size_t wanted, struct la_range *ret)
{
    struct own *o = self;
    int r = o->full & (1u << node) ? -ENOMEM : own_acquire(self, min, wanted, ret);

    if (r == 0)
        o->nodes[o->count - 1] = node;
    return r;
}

/* -1: in none. */
static int node_of_block(const struct own *o, const void *block)
{
    for (unsigned i = 0; i < o->count; i++)
        if ((uintptr_t)block - (uintptr_t)o->ranges[i].base < o->ranges[i].size)
            return (int)o->nodes[i];
    return -1;
}

static const struct la_source_ops own_ops = { .struct_size = sizeof(own_ops), .name = "own", .acquire = own_acquire,
                                              .release = own_release, .purge = own_purge };

static int setup(void **state)
{
    static struct own o;

    o = (struct own){ 0 };
    assert_int_equal(la_source_create(&own_ops, &o, &o.source), 0);
    assert_int_equal(la_chain_create(o.source, 0, &o.chain), 0);
    *state = &o;
    return 0;
}

static int teardown(void **state)
{
    struct own *o = *state;
    unsigned acquired = o->count + o->released;

    assert_chain_is_sound(o->chain);
    assert_int_equal(la_chain_destroy(o->chain), 0);
    assert_int_equal(la_source_destroy(o->source), 0);
    assert_int_equal(o->count, 0);
    assert_int_equal(o->released, acquired);
    assert_heap_is_sound();
    return 0;
}

enum { MANY = 4000 };
static unsigned char *blocks[MANY];

/* Until there is no more; each block filled with its number. */
static unsigned take_all(struct own *o, size_t size)
{
    unsigned n = 0;

    errno = 0;
    for (; n < MANY && (blocks[n] = la_chain_alloc(o->chain, size)) != NULL; n++) {
        assert_true(own_holds(o, blocks[n], size));
        memset(blocks[n], (int)(n % 255), size);
    }
    if (n < MANY)
        assert_int_equal(errno, ENOMEM);
    return n;
}

static void give_all(unsigned n, size_t size)
{
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(blocks[i][0], i % 255);
        assert_int_equal(blocks[i][size - 1], i % 255);
        la_free(blocks[i]);
    }
}

static void every_block_lies_in_the_sources_ranges(void **state)
{
    static const size_t sizes[] = { 8, 100, 5000, 32768, 100000, 2 * MiB, 3 * MiB, 9 * MiB };
    struct own *o = *state;

    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        unsigned char *block = la_chain_alloc(o->chain, sizes[i]);

        assert_non_null(block);
        assert_true(own_holds(o, block, sizes[i]));
        memset(block, 1, la_usable_size(block));
        la_free(block);
    }
}

static void source_that_fails_at_the_nth_call_loses_nothing(void **state)
{
    static const size_t sizes[] = { 8000, 32000, 500000, 3 * MiB };
    struct own *o = *state;

    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++)
        for (unsigned nth = 1; nth <= 3; nth++) {
            unsigned n, more;

            /* From an empty source: so that each of the first calls is seen to fail. */
            assert_int_equal(la_chain_destroy(o->chain), 0);
            assert_int_equal(la_source_destroy(o->source), 0);
            assert_int_equal(la_source_create(&own_ops, o, &o->source), 0);
            assert_int_equal(la_chain_create(o->source, 0, &o->chain), 0);
            o->calls = 0;
            o->fail_at = nth;
            assert_int_equal(la_source_limit(o->source, 64 * MiB), 0);

            n = take_all(o, sizes[i]);
            assert_true(o->calls >= nth);
            assert_int_equal(o->count, nth - 1);
            assert_true(nth == 1 ? n == 0 : n > 0);
            give_all(n, sizes[i]);
            assert_chain_is_sound(o->chain);
            o->fail_at = 0;
            more = take_all(o, sizes[i]);       /* the source has recovered */
            assert_true(more > n || more == MANY);
            give_all(more, sizes[i]);
        }
}

static void failing_source_leaves_what_is_allocated_usable(void **state)
{
    struct own *o = *state;
    unsigned char *block = la_chain_alloc(o->chain, 100000), *huge = la_chain_alloc(o->chain, 5 * MiB);

    memset(block, 1, 100000);
    memset(huge, 2, 5 * MiB);
    o->failing = true;
    errno = 0;
    assert_null(la_chain_realloc(o->chain, huge, 500 * MiB));
    assert_int_equal(errno, ENOMEM);
    assert_null(la_chain_realloc(o->chain, block, 500 * MiB));
    assert_null(la_chain_aligned_alloc(o->chain, 4096, 500 * MiB));
    assert_null(la_chain_calloc(o->chain, 500, MiB));
    for (size_t i = 0; i < 100000; i++)
        assert_int_equal(block[i], 1);
    for (size_t i = 0; i < 5 * MiB; i += 101)
        assert_int_equal(huge[i], 2);
    o->failing = false;
    huge = la_chain_realloc(o->chain, huge, 50 * MiB);
    assert_non_null(huge);
    for (size_t i = 0; i < 5 * MiB; i += 101)
        assert_int_equal(huge[i], 2);
    la_free(huge);
    la_free(block);
}

static void range_that_is_too_small_goes_back_at_once(void **state)
{
    struct own *o = *state;

    o->stingy = true;
    assert_null(la_chain_alloc(o->chain, 100));
    assert_null(la_chain_alloc(o->chain, 5 * MiB));
    assert_int_equal(o->count, 0);
    assert_true(o->released > 0);
}

/* ---- huge blocks are runs of macro blocks here ---- */

static void huge_blocks_share_ranges_with_small_ones_and_are_used_again(void **state)
{
    struct own *o = *state;
    size_t bytes = 0;

    for (int round = 0; round < 5; round++) {
        unsigned char *a = la_chain_alloc(o->chain, 3 * MiB), *b = la_chain_alloc(o->chain, 5 * MiB);
        unsigned char *small = la_chain_alloc(o->chain, 100);

        memset(a, 1, la_usable_size(a));
        memset(b, 2, la_usable_size(b));
        memset(small, 3, 100);
        for (size_t i = 0; i < la_usable_size(a); i += 41)
            assert_int_equal(a[i], 1);
        if (round == 0)
            bytes = o->bytes;
        assert_int_equal(o->bytes, bytes);
        assert_chain_is_sound(o->chain);
        la_free(a);
        la_free(small);
        la_free(b);
        assert_null(region_page(a));
    }
}

static void huge_blocks_are_aligned_to_any_power_of_two(void **state)
{
    struct own *o = *state;

    for (size_t alignment = 64; alignment <= 64 * MiB; alignment *= 4) {
        unsigned char *block = la_chain_aligned_alloc(o->chain, alignment, 3 * MiB);

        assert_non_null(block);
        assert_int_equal((uintptr_t)block % alignment, 0);
        assert_true(own_holds(o, block, la_usable_size(block)));
        block[0] = block[3 * MiB - 1] = 1;
        la_free(block);
    }
}

static void freed_run_serves_small_blocks(void **state)
{
    struct own *o = *state;
    void *huge = la_chain_alloc(o->chain, 9 * MiB);
    size_t bytes = o->bytes;
    unsigned n = 0;

    la_free(huge);
    o->failing = true;
    while (n < MANY && (blocks[n] = la_chain_alloc(o->chain, 30000)) != NULL)
        n++;
    assert_true(n * 30000ul > 8 * MiB);
    assert_int_equal(o->bytes, bytes);
    for (unsigned i = 0; i < n; i++)
        la_free(blocks[i]);
    assert_non_null(la_chain_alloc(o->chain, 9 * MiB));     /* and they a huge one again */
}

/* ---- limit, trim ---- */

static void limit_is_never_passed(void **state)
{
    struct own *o = *state;

    assert_int_equal(la_source_limit(o->source, 12 * MiB), 0);
    take_all(o, 100000);
    assert_true(o->bytes > 4 * MiB);
    assert_true(o->bytes <= 12 * MiB);
    assert_non_null(strstr(la_last_error(), "limit"));
    assert_null(la_chain_alloc(o->chain, 8 * MiB));

    assert_int_equal(la_source_limit(o->source, o->bytes - 1), -EINVAL);
    assert_null(la_chain_alloc(o->chain, 3 * MiB));
    assert_int_equal(la_source_limit(o->source, 40 * MiB), 0);
    assert_non_null(la_chain_alloc(o->chain, 8 * MiB));
    assert_int_equal(la_source_limit(o->source, 0), 0);
    assert_non_null(la_chain_alloc(o->chain, 80 * MiB));
}

static void trim_purges_what_is_free_and_nothing_else(void **state)
{
    struct own *o = *state;
    unsigned char *kept;
    size_t given;

    for (unsigned i = 0; i < 100; i++)
        blocks[i] = memset(la_chain_alloc(o->chain, 100000), 1, 100000);
    kept = memset(la_chain_alloc(o->chain, 100000), 7, 100000);
    assert_int_equal(la_source_trim(o->source), 0);
    assert_int_equal(o->purges, 0);
    for (unsigned i = 0; i < 100; i++)
        la_free(blocks[i]);
    la_free(la_chain_alloc(o->chain, 100000));      /* takes the queue in */
    assert_true(o->source->dirty_bytes > 0);
    given = la_source_trim(o->source);
    assert_true(given >= 4 * MiB);
    assert_true(o->purged > given - 100 * os_page_size() && o->purged <= given);
    assert_int_equal(o->source->dirty_bytes, 0);
    assert_int_equal(la_source_trim(o->source), 0);
    for (unsigned i = 0; i < 100000; i++)
        assert_int_equal(kept[i], 7);
    take_all(o, 100000);        /* what was purged is used again */
}

static void source_without_purge_keeps_what_it_has(void **state)
{
    struct la_source_ops ops = own_ops;
    struct own o = { 0 };
    struct la_chain *chain;

    (void)state;
    ops.struct_size = offsetof(struct la_source_ops, purge);    /* an older header */
    ops.purge = (int (*)(void *, struct la_range))opaque(&o);   /* behind the end of that struct: must not be called */
    assert_int_equal(la_source_create(&ops, &o, &o.source), 0);
    assert_int_equal(la_chain_create(o.source, 0, &chain), 0);
    memset(la_chain_alloc(chain, 5 * MiB), 1, 5 * MiB);
    assert_int_equal(la_chain_reset(chain), 0);
    assert_int_equal(la_source_trim(o.source), 0);
    assert_int_equal(la_chain_destroy(chain), 0);
    assert_int_equal(la_source_destroy(o.source), 0);
    assert_int_equal(o.count, 0);
}

/* ---- life ---- */

static void source_in_use_cannot_be_destroyed(void **state)
{
    struct own *o = *state;
    struct la_chain *second = NULL;

    assert_int_equal(la_chain_create(o->source, LA_CHAIN_MT, &second), 0);
    assert_int_equal(la_source_destroy(o->source), -EBUSY);
    assert_non_null(strstr(la_last_error(), "2 chains"));
    assert_non_null(la_chain_alloc(second, 100));
    assert_int_equal(la_chain_destroy(second), 0);
    assert_int_equal(la_source_destroy(o->source), -EBUSY);
    assert_non_null(la_chain_alloc(o->chain, 100));
}

static void wrong_sources_are_refused(void **state)
{
    struct la_source_ops ops = own_ops;
    struct la_source *source = (struct la_source *)&ops;
    static char memory[20000];
    struct la_chain *chain, *second = NULL;

    (void)state;
    assert_int_equal(la_source_create(NULL, NULL, &source), -EINVAL);
    ops.acquire = NULL;
    assert_int_equal(la_source_create(&ops, NULL, &source), -EINVAL);
    ops = own_ops;
    ops.struct_size = 0;
    assert_int_equal(la_source_create(&ops, NULL, &source), -EINVAL);
    ops.struct_size = 100000;
    assert_int_equal(la_source_create(&ops, NULL, &source), -EINVAL);
    assert_ptr_equal(source, &ops);
    assert_int_equal(la_source_destroy(NULL), 0);
    assert_int_equal(la_source_destroy(la_source_default()), -EINVAL);

    assert_int_equal(la_chain_create_in(memory, sizeof(memory), 0, &chain), 0);
    assert_int_equal(la_chain_create(chain->source, 0, &second), -EINVAL);
    assert_int_equal(la_source_destroy(chain->source), -EINVAL);
    assert_int_equal(la_chain_destroy(chain), 0);
}

static void use_chain(void *arg)
{
    struct own *o = arg;
    struct la_chain *chain = NULL;
    void *mine[50] = { NULL };

    if (la_chain_create(o->source, 0, &chain) < 0)
        abort();
    la_default_set(chain);
    for (unsigned i = 0; i < 3000; i++) {
        la_free(mine[i % 50]);
        mine[i % 50] = la_malloc(i * 97 % 150000);
        if (i % 500 == 499) {
            for (unsigned j = 0; j < 50; j++)
                la_free(mine[j]);
            memset(mine, 0, sizeof(mine));
        }
    }
    la_default_set(NULL);
    if (la_chain_check(chain, NULL, NULL) != 0 || la_chain_destroy(chain) < 0)
        abort();
}

static void chains_of_several_threads_share_a_source(void **state)
{
    struct own *o = *state;
    struct thread_body_ body = { use_chain, o };
    pthread_t threads[3];

    for (unsigned i = 0; i < ARRAY_SIZE(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, run_body_, &body), 0);
    for (unsigned i = 0; i < ARRAY_SIZE(threads); i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(o->source->users, 1);
}

struct slow_growth {
    struct own *other;          /* grown by another thread while we are asked for memory; NULL: no more */
};

static void allocate_from_other(void *arg)
{
    struct own *o = arg;

    if (!la_chain_alloc(o->chain, 100))
        abort();
}

/* As long as a driver takes, and longer: it returns only when the other source has grown. */
static int acquire_after_other(void *self, size_t min, size_t wanted, struct la_range *ret)
{
    struct slow_growth *g = self;
    struct thread_body_ body = { allocate_from_other, g->other };
    pthread_t thread;

    (void)min;
    if (pthread_create(&thread, NULL, run_body_, &body) != 0)
        return -EAGAIN;
    pthread_join(thread, NULL);
    ret->base = os_map(wanted);
    ret->size = wanted;
    return ret->base ? 0 : -ENOMEM;
}

static void release_mapping(void *self, struct la_range range)
{
    (void)self;
    os_unmap(range.base, range.size);
}

static void growth_of_one_source_does_not_wait_for_another(void **state)
{
    struct own *o = *state;
    struct la_source_ops ops = { .struct_size = sizeof(ops), .acquire = acquire_after_other, .release = release_mapping };
    struct slow_growth growth = { .other = o };
    struct la_source *source;
    struct la_chain *chain;

    assert_int_equal(la_source_create(&ops, &growth, &source), 0);
    assert_int_equal(la_chain_create(source, 0, &chain), 0);
    assert_int_equal(o->count, 0);
    assert_non_null(la_chain_alloc(chain, 100));
    assert_int_equal(o->count, 1);
    assert_int_equal(la_chain_destroy(chain), 0);
    assert_int_equal(la_source_destroy(source), 0);
}

/* ---- adoption ---- */

struct orphans {
    size_t size;
    unsigned count;
    void **blocks;
};

static void allocate_and_end(void *arg)
{
    struct orphans *o = arg;

    for (unsigned i = 0; i < o->count; i++)
        o->blocks[i] = la_malloc(o->size);
}

static unsigned abandoned(void)
{
    unsigned n = 0;

    for (struct la_macro *m = la_default_source.nodes[0].abandoned; m; m = m->next)
        n++;
    return n;
}

static void pages_of_an_ended_thread_are_adopted_by_who_needs_them(void **state)
{
    void *theirs[3];
    struct orphans o = { 20000, 3, theirs };
    struct la_page *page;
    size_t mapped;

    (void)state;
    la_source_trim(NULL);
    in_other_thread(allocate_and_end, &o);
    page = region_page(theirs[0]);
    assert_int_equal(abandoned(), 1);
    assert_ptr_equal(atomic_load(&page->chain), la_default_source.orphan);
    assert_null(atomic_load(&page->fast_chain));
    mapped = la_default_source.mapped;

    blocks[0] = la_malloc(20000);
    assert_int_equal(abandoned(), 0);
    assert_ptr_equal(atomic_load(&page->chain), la_tls_own);
    assert_ptr_equal(region_page(blocks[0]), page);
    assert_int_equal(la_default_source.mapped, mapped);
    for (unsigned i = 0; i < 3; i++) {
        assert_ptr_not_equal(theirs[i], blocks[0]);
        la_free(theirs[i]);
    }
    la_free(blocks[0]);
    la_source_trim(NULL);
    assert_heap_is_sound();
}

static void large_blocks_of_an_ended_thread_are_counted_by_who_adopts_them(void **state)
{
    void *theirs[4];
    struct orphans o = { 150000, 4, theirs };
    struct la_stats before = { .struct_size = sizeof(before) }, after = before;
    void *mine;

    (void)state;
    la_source_trim(NULL);
    la_process_stats(&before);
    in_other_thread(allocate_and_end, &o);
    la_process_stats(&after);
    assert_int_equal(after.blocks, before.blocks + 4);
    assert_true(after.allocated >= before.allocated + 4 * 150000);
    mine = la_malloc(150000);       /* adopts the macro block for its free slices */
    assert_int_equal(abandoned(), 0);
    la_chain_stats(NULL, &after);
    assert_int_equal(after.blocks, 5);
    la_free(mine);
    /* As good as its own: the fast path takes them. */
    for (unsigned i = 0; i < 4; i++)
        assert_ptr_equal(atomic_load(&region_page(theirs[i])->fast_chain), la_tls_own);
    for (unsigned i = 0; i < 4; i++)
        la_free(theirs[i]);
    assert_int_equal(pool_bin_count(la_tls_own, class_of_run(3)), 5);
    la_chain_stats(NULL, &after);
    assert_int_equal(after.blocks, 0);
    assert_int_equal(after.allocated, 0);
    la_process_stats(&after);
    assert_int_equal(after.blocks, before.blocks);
    la_source_trim(NULL);
    assert_heap_is_sound();
}

static void abandoned_macro_block_whose_blocks_are_all_freed_is_free(void **state)
{
    static void *theirs[1000];
    static const size_t sizes[] = { 8, 1000, 100000 };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        struct orphans o = { sizes[i], sizes[i] > 50000 ? 20 : 1000, theirs };
        struct la_stats before = { .struct_size = sizeof(before) }, after = before;

        la_source_trim(NULL);
        la_process_stats(&before);
        in_other_thread(allocate_and_end, &o);
        assert_true(abandoned() > 0);
        for (unsigned j = 0; j < o.count; j++)
            la_free(theirs[j]);
        la_source_trim(NULL);
        assert_int_equal(abandoned(), 0);
        la_process_stats(&after);
        assert_int_equal(after.blocks, before.blocks);
        assert_int_equal(after.mapped, before.mapped);
        assert_heap_is_sound();
    }
}

/* ---- NUMA nodes ---- */

enum { NODES = 3 };

static void make_source_of_nodes(struct own *o, unsigned nodes, bool strict)
{
    struct la_source_ops ops = own_ops;

    ops.acquire_on = own_acquire_on;
    ops.nodes = nodes;
    ops.strict = strict;
    assert_int_equal(la_source_create(&ops, o, &o->source), 0);
}

static struct la_chain *make_pinned(struct own *o, int node)
{
    struct la_chain *chain;

    assert_int_equal(la_chain_create(o->source, 0, &chain), 0);
    assert_int_equal(la_chain_pin(chain, node), 0);
    return chain;
}

static void pinned_chains_draw_from_their_node(void **state)
{
    static const size_t sizes[] = { 16, 4000, 300000, 3 * MiB, 7 * MiB };
    struct la_chain *chains[NODES];
    struct own o = { 0 };
    size_t bytes;

    (void)state;
    make_source_of_nodes(&o, NODES, false);
    for (int i = 0; i < NODES; i++)
        chains[i] = make_pinned(&o, i);
    for (int round = 0; round < 3; round++) {
        for (unsigned n = 0; n < 200; n++) {
            size_t size = sizes[n % ARRAY_SIZE(sizes)];
            void *block = la_chain_alloc(chains[n % NODES], size);

            assert_non_null(block);
            assert_int_equal(node_of_block(&o, block), n % NODES);
            assert_int_equal(node_of_block(&o, (char *)block + size - 1), n % NODES);
        }
        /* What is free is used again by the node that it belongs to. */
        bytes = round ? bytes : o.bytes;
        assert_int_equal(o.bytes, bytes);
        for (int i = 0; i < NODES; i++) {
            assert_chain_is_sound(chains[i]);
            assert_int_equal(la_chain_reset(chains[i]), 0);
        }
    }
    for (int i = 0; i < NODES; i++)
        assert_int_equal(la_chain_destroy(chains[i]), 0);
    assert_int_equal(la_source_destroy(o.source), 0);
    assert_int_equal(o.count, 0);
}

/* Of a node that gives nothing more. */
static void full_node_is_an_error_or_takes_what_others_have_free(void **state)
{
    static const size_t sizes[] = { 100, 100000, 5 * MiB };

    (void)state;
    for (int strict = 0; strict < 2; strict++) {
        struct own o = { .full = 1u << 1 };
        struct la_chain *first, *second;

        make_source_of_nodes(&o, NODES, strict);
        first = make_pinned(&o, 0);
        second = make_pinned(&o, 1);
        assert_null(la_chain_alloc(second, 100));
        assert_non_null(la_chain_alloc(first, 20 * MiB));
        assert_null(la_chain_alloc(second, 30 * MiB));      /* nobody has so much free, and nobody grows for it */
        assert_int_equal(la_chain_reset(first), 0);
        for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
            void *block = la_chain_alloc(second, sizes[i]);

            if (strict)
                assert_null(block);
            else
                assert_int_equal(node_of_block(&o, block), 0);
        }
        o.full = 0;
        assert_int_equal(node_of_block(&o, la_chain_alloc(second, 100 * MiB)), 1);
        assert_int_equal(la_chain_destroy(first) | la_chain_destroy(second), 0);
        assert_int_equal(la_source_destroy(o.source), 0);
    }
}

static void chain_follows_its_thread(void **state)
{
    struct own o = { 0 };
    struct la_chain *chain;

    (void)state;
    make_source_of_nodes(&o, 0, false);         /* those of the machine */
    chain = make_pinned(&o, 0);
    assert_int_equal(la_chain_pin(chain, -1), 0);
    assert_true(node_of_block(&o, la_chain_alloc(chain, 100)) < (int)os_node_count());
    if (os_node_count() == 1) {
        assert_ptr_equal(o.source->nodes, &o.source->all_nodes);        /* nothing more than a source without nodes */
        assert_int_equal(node_of_block(&o, la_chain_alloc(chain, 100)), 0);
    }
    assert_int_equal(la_chain_destroy(chain), 0);
    assert_int_equal(la_source_destroy(o.source), 0);
}

static void wrong_pins_are_refused(void **state)
{
    static char memory[20000];
    struct own o = { 0 }, *plain = *state;
    struct la_chain *chain, *in_buffer;
    struct la_source_ops ops = own_ops;

    assert_int_equal(la_chain_pin(plain->chain, 0), -ENOTSUP);
    make_source_of_nodes(&o, NODES, false);
    chain = make_pinned(&o, 2);
    assert_int_equal(la_chain_pin(chain, NODES), -EINVAL);
    assert_non_null(strstr(la_last_error(), "nodes 0 to 2"));
    assert_int_equal(la_chain_pin(chain, -2), -EINVAL);
    assert_int_equal(node_of_block(&o, la_chain_alloc(chain, 100)), 2);
    assert_int_equal(la_chain_pin(chain, 1), -EBUSY);
    assert_int_equal(la_chain_reset(chain), 0);
    assert_int_equal(la_chain_pin(chain, 1), 0);
    assert_int_equal(node_of_block(&o, la_chain_alloc(chain, 5 * MiB)), 1);
    assert_int_equal(la_chain_pin(chain, 0), -EBUSY);
    assert_int_equal(la_chain_destroy(chain), 0);
    assert_int_equal(la_source_destroy(o.source), 0);

    assert_int_equal(la_chain_create_in(memory, sizeof(memory), 0, &in_buffer), 0);
    assert_int_equal(la_chain_pin(in_buffer, 0), -ENOTSUP);
    assert_int_equal(la_chain_destroy(in_buffer), 0);
    ops.nodes = LA_NODES_MAX + 1;
    assert_int_equal(la_source_create(&ops, &o, &o.source), -EINVAL);
}

/* ---- the default source ---- */

static void default_source_purges_and_serves_again(void **state)
{
    struct la_source *source = la_source_default();
    size_t mapped;

    (void)state;
    for (unsigned i = 0; i < 200; i++)
        blocks[i] = memset(la_malloc(100000), 1, 100000);
    mapped = source->mapped;
    for (unsigned i = 0; i < 200; i++)
        la_free(blocks[i]);
    assert_true(la_source_trim(source) >= 10 * MiB);
    assert_int_equal(source->dirty_bytes, 0);
    for (unsigned i = 0; i < 200; i++)
        blocks[i] = memset(la_malloc(100000), 1, 100000);
    assert_int_equal(source->mapped, mapped);
    for (unsigned i = 0; i < 200; i++)
        la_free(blocks[i]);
    la_source_trim(NULL);
    assert_heap_is_sound();
}

#define own_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        own_test(every_block_lies_in_the_sources_ranges),
        own_test(source_that_fails_at_the_nth_call_loses_nothing),
        own_test(failing_source_leaves_what_is_allocated_usable),
        own_test(range_that_is_too_small_goes_back_at_once),
        own_test(huge_blocks_share_ranges_with_small_ones_and_are_used_again),
        own_test(huge_blocks_are_aligned_to_any_power_of_two),
        own_test(freed_run_serves_small_blocks),
        own_test(limit_is_never_passed),
        own_test(trim_purges_what_is_free_and_nothing_else),
        cmocka_unit_test(source_without_purge_keeps_what_it_has),
        own_test(source_in_use_cannot_be_destroyed),
        cmocka_unit_test(wrong_sources_are_refused),
        own_test(chains_of_several_threads_share_a_source),
        own_test(growth_of_one_source_does_not_wait_for_another),
        cmocka_unit_test(pages_of_an_ended_thread_are_adopted_by_who_needs_them),
        cmocka_unit_test(large_blocks_of_an_ended_thread_are_counted_by_who_adopts_them),
        cmocka_unit_test(abandoned_macro_block_whose_blocks_are_all_freed_is_free),
        cmocka_unit_test(pinned_chains_draw_from_their_node),
        cmocka_unit_test(full_node_is_an_error_or_takes_what_others_have_free),
        cmocka_unit_test(chain_follows_its_thread),
        own_test(wrong_pins_are_refused),
        cmocka_unit_test(default_source_purges_and_serves_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
