/*
 * nodes_test.c - on a machine with several NUMA nodes: pages are where they were asked to be, asked of the kernel (move_pages(2)), per policy,
 * per kind of memory and per chain; and what happens when a node is full.
 *
 * Runs in the emulated guest: every node has free memory and huge pages, nobody else uses them, and the last node may be without processors.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <liballoc/liballoc.h>
#include <segments/find.h>
#include <segments/nodes.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define CONFIG(...) &(struct seg_supply_config){ .struct_size = sizeof(struct seg_supply_config), __VA_ARGS__ }

enum { MIB = 1 << 20, HUGE_PAGE = 2 * MIB, EVERYWHERE = -1 };

/* ---- what they share ---- */

static uint64_t all_nodes(void)
{
    return (UINT64_C(1) << seg_node_count()) - 1;
}

static unsigned node_here(void)
{
    unsigned cpu, node;

    assert_int_equal(getcpu(&cpu, &node), 0);
    return node;
}

/* The calling thread runs on @node from now on; false: it has no processor. */
static bool run_on(unsigned node)
{
    for (int cpu = 0; cpu < sysconf(_SC_NPROCESSORS_CONF); cpu++) {
        cpu_set_t set;

        CPU_ZERO(&set);
        CPU_SET(cpu, &set);
        if (sched_setaffinity(0, sizeof(set), &set) == 0 && node_here() == node)
            return true;
    }
    return false;
}

/* All of [p, p + size) is in memory, on @node. */
static void assert_on(const void *p, size_t size, unsigned node)
{
    size_t bytes[LA_NODES_MAX];

    assert_int_equal(seg_pages_on_nodes((struct la_range){ (void *)(uintptr_t)p, size }, bytes), 0);
    for (unsigned i = 0; i < seg_node_count(); i++)
        if (i != node && bytes[i])
            fail_msg("%zu of %zu bytes lie on node %u, not %u", bytes[i], size, i, node);
    assert_true(bytes[node] >= size);
}

static struct seg_supply *make_supply(const struct seg_supply_config *config)
{
    struct seg_supply *supply;

    if (seg_supply_create(config, &supply) < 0)
        fail_msg("%s", la_last_error());
    return supply;
}

static struct seg_node_info node_info_of(struct seg_supply *supply, unsigned node)
{
    struct seg_node_info info = { .struct_size = sizeof(info) };

    if (seg_supply_node_info(supply, node, &info) < 0)
        fail_msg("%s", la_last_error());
    return info;
}

static struct la_chain *make_chain(struct seg_supply *supply, int node)
{
    struct la_chain *chain;

    assert_int_equal(la_chain_create(seg_supply_source(supply), 0, &chain), 0);
    if (node >= 0)
        assert_int_equal(la_chain_pin(chain, node), 0);
    return chain;
}

static void *take(struct la_chain *chain, size_t size)
{
    void *block = la_chain_alloc(chain, size);

    if (!block)
        fail_msg("%zu bytes: %s", size, la_last_error());
    return memset(block, 1, size);
}

static void end(struct seg_supply *supply, struct la_chain *chain)
{
    assert_int_equal(la_chain_destroy(chain), 0);
    if (seg_supply_destroy(supply) < 0)
        fail_msg("%s", la_last_error());
}

/* ---- policies ---- */

static const struct kind {
    const char *list;
    bool huge;
} kinds[] = {
    { "anon", false },      { "thp", false },     { "memfd", false },   { "shm:nodes-test", false },  { "file:/dev/shm/nodes-test", false },
    { "hugetlb:2M", true }, { "memfd:2M", true }, { "file:/dev/hugepages/nodes-test", true },
};

static void bound_pages_lie_on_their_node(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        for (unsigned node = 0; node < seg_node_count(); node++) {
            struct seg_supply *supply = make_supply(CONFIG(.list = kinds[i].list, .required = SEG_PLACED,
                                                           .numa = { SEG_NUMA_BIND, UINT64_C(1) << node }));
            struct seg_location l = { .struct_size = sizeof(l) };
            struct la_range range;

            run_on(0);
            if (seg_supply_acquire(supply, 8 * MIB, 8 * MIB, &range) < 0)
                fail_msg("%s", la_last_error());
            memset(range.base, 1, range.size);
            assert_on(range.base, range.size, node);
            assert_int_equal(seg_find((char *)range.base + 5 * MIB, &l), 0);
            assert_int_equal(l.node, node);
            assert_int_equal(l.capabilities & SEG_HUGE ? 1 : 0, kinds[i].huge);
            assert_int_equal(seg_supply_release(supply, range), 0);
            assert_int_equal(seg_supply_destroy(supply), 0);
        }
}

static void preferred_pages_lie_on_their_node_while_it_has_some(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        for (unsigned node = 0; node < seg_node_count(); node++) {
            struct seg_supply *supply = make_supply(CONFIG(.list = kinds[i].list, .numa = { SEG_NUMA_PREFER, UINT64_C(1) << node }));
            struct seg_location l = { .struct_size = sizeof(l) };
            struct la_range range;

            run_on(0);
            assert_int_equal(seg_supply_acquire(supply, 8 * MIB, 8 * MIB, &range), 0);
            memset(range.base, 1, range.size);
            assert_on(range.base, range.size, node);
            assert_int_equal(seg_find(range.base, &l), 0);
            assert_int_equal(l.node, -1);       /* it need not have been so */
            assert_int_equal(seg_supply_release(supply, range), 0);
            assert_int_equal(seg_supply_destroy(supply), 0);
        }
}

static void interleaved_pages_lie_on_all_nodes_alike(void **state)
{
    size_t size = (size_t)seg_node_count() * 2 * HUGE_PAGE, bytes[LA_NODES_MAX];

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        struct seg_supply *supply = make_supply(CONFIG(.list = kinds[i].list, .numa = { SEG_NUMA_INTERLEAVE, all_nodes() }));
        struct la_range range;

        assert_int_equal(seg_supply_acquire(supply, size, size, &range), 0);
        memset(range.base, 1, range.size);
        assert_int_equal(seg_pages_on_nodes(range, bytes), 0);
        for (unsigned node = 0; node < seg_node_count(); node++)
            if (bytes[node] != 2 * HUGE_PAGE)
                fail_msg("%s: %zu of %zu bytes lie on node %u", kinds[i].list, bytes[node], size, node);
        assert_int_equal(seg_supply_release(supply, range), 0);
        assert_int_equal(seg_supply_destroy(supply), 0);
    }
}

static void local_pages_lie_where_they_are_touched_first(void **state)
{
    static const char *const lists[] = { "anon", "thp" };       /* files are committed whole by who acquires them */

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
        for (unsigned node = 0; node < seg_node_count(); node++) {
            struct seg_supply *supply = make_supply(CONFIG(.list = lists[i], .numa = { SEG_NUMA_LOCAL, 0 }));
            struct la_range range;

            run_on(0);
            assert_int_equal(seg_supply_acquire(supply, 4 * MIB, 4 * MIB, &range), 0);
            if (run_on(node)) {
                memset(range.base, 1, range.size);
                assert_on(range.base, range.size, node);
            }
            assert_int_equal(seg_supply_release(supply, range), 0);
            assert_int_equal(seg_supply_destroy(supply), 0);
        }
}

/* ---- chains ---- */

static const size_t sizes[] = { 16, 3000, 60000, 500000, 3 * MIB };

static void blocks_of_pinned_chains_lie_on_their_node(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        for (int mode = SEG_NUMA_BIND; mode <= SEG_NUMA_PREFER; mode++) {
            struct seg_supply *supply = make_supply(CONFIG(.list = kinds[i].list, .per_node = true, .numa = { mode, 0 }));
            struct la_chain *chains[8];

            run_on(0);
            for (unsigned node = 0; node < seg_node_count(); node++)
                chains[node] = make_chain(supply, (int)node);
            for (unsigned n = 0; n < 40; n++) {
                size_t size = sizes[n / 2 % (kinds[i].huge ? 4 : ARRAY_SIZE(sizes))];

                assert_on(take(chains[n % seg_node_count()], size), size, n % seg_node_count());
            }
            for (unsigned node = 0; node < seg_node_count(); node++) {
                struct seg_node_info info = node_info_of(supply, node);

                assert_true(info.segments >= 1 && info.bytes >= 2 * MIB);
                assert_int_equal(info.bound, mode == SEG_NUMA_BIND ? info.bytes : 0);
                assert_int_equal(la_chain_destroy(chains[node]), 0);
            }
            assert_int_equal(seg_supply_destroy(supply), 0);
        }
}

/* A thread that is moved draws from its new node, also when its chain was made on the old one. */
static void chain_draws_from_the_node_its_thread_runs_on(void **state)
{
    struct seg_supply *supply = make_supply(CONFIG(.list = "anon", .per_node = true));
    struct la_chain *chain = make_chain(supply, EVERYWHERE);

    (void)state;
    for (int round = 0; round < 2; round++)
        for (unsigned node = 0; node < seg_node_count(); node++)
            if (run_on(node))
                for (int i = 0; i < 6; i++)
                    assert_on(take(chain, 3 * MIB), 3 * MIB, node);     /* a macro block of its own each */
    end(supply, chain);
}

static void freed_memory_is_used_again_on_its_node(void **state)
{
    struct seg_supply *supply = make_supply(CONFIG(.list = "anon", .per_node = true));
    unsigned last = seg_node_count() - 1;
    struct la_chain *first = make_chain(supply, 0), *second = make_chain(supply, (int)last);
    size_t bytes;

    (void)state;
    for (int i = 0; i < 30; i++)
        take(first, MIB);
    for (int i = 0; i < 10; i++)
        take(second, MIB);
    bytes = node_info_of(supply, last).bytes;
    assert_int_equal(la_chain_reset(first), 0);
    assert_int_equal(la_chain_reset(second), 0);
    for (int i = 0; i < 10; i++)
        assert_on(take(second, MIB), MIB, last);        /* not the 30 MiB that node 0 has free */
    assert_int_equal(node_info_of(supply, last).bytes, bytes);
    assert_int_equal(la_chain_destroy(first), 0);
    end(supply, second);
}

/* ---- a node is full ---- */

struct filling {
    struct la_range ranges[64];
    unsigned count;
    size_t bytes;
};

/* Extents bound to @node until it has no more; the last error says so. */
static int fill_node(struct seg_supply *supply, unsigned node, struct filling *f)
{
    int r = 0;

    *f = (struct filling){ 0 };
    while (f->count < ARRAY_SIZE(f->ranges) && (r = seg_supply_acquire_on(supply, node, 16 * MIB, 16 * MIB, &f->ranges[f->count])) == 0)
        f->bytes += f->ranges[f->count++].size;
    return r;
}

static void empty_node(struct seg_supply *supply, struct filling *f)
{
    while (f->count > 0)
        assert_int_equal(seg_supply_release(supply, f->ranges[--f->count]), 0);
}

static void assert_said(const char *word)
{
    if (!strstr(la_last_error(), word))
        fail_msg("\"%s\" does not say \"%s\"", la_last_error(), word);
}

static void full_node_is_an_error_for_who_is_bound(void **state)
{
    static const char *const lists[] = { "anon", "memfd", "shm:nodes-test" };
    unsigned last = seg_node_count() - 1;
    struct filling f;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
        struct seg_supply *supply = make_supply(CONFIG(.list = lists[i], .per_node = true, .numa = { SEG_NUMA_BIND, 0 }));
        struct la_chain *pinned = make_chain(supply, (int)last), *other = make_chain(supply, 0);

        assert_int_equal(fill_node(supply, last, &f), -ENOSPC);
        assert_said("NUMA nodes");
        assert_true(f.bytes >= 100 * (size_t)MIB);
        memset(f.ranges[f.count - 1].base, 1, 16 * MIB);
        assert_on(f.ranges[f.count - 1].base, 16 * MIB, last);
        /* What is left serves small growth, then it is an error here too; and nobody was killed. */
        while (la_chain_alloc(pinned, MIB))
            ;
        assert_said("NUMA nodes");
        assert_on(take(other, 20 * MIB), 20 * MIB, 0);
        empty_node(supply, &f);
        assert_on(take(pinned, 5 * MIB), 5 * MIB, last);
        assert_int_equal(la_chain_destroy(pinned), 0);
        end(supply, other);
    }
}

static void full_node_is_left_by_who_only_prefers_it(void **state)
{
    struct seg_supply *bound = make_supply(CONFIG(.list = "anon", .per_node = true, .numa = { SEG_NUMA_BIND, 0 }));
    struct seg_supply *supply = make_supply(CONFIG(.list = "memfd", .per_node = true));
    struct seg_supply *spread = make_supply(CONFIG(.list = "memfd", .numa = { SEG_NUMA_INTERLEAVE, all_nodes() }));
    unsigned last = seg_node_count() - 1;
    struct la_chain *pinned = make_chain(supply, (int)last);
    size_t bytes[LA_NODES_MAX];
    struct filling f;
    struct la_range range;
    void *block;

    (void)state;
    assert_int_equal(fill_node(bound, last, &f), -ENOSPC);
    block = take(pinned, 60 * MIB);
    assert_int_equal(seg_pages_on_nodes((struct la_range){ block, 60 * MIB }, bytes), 0);
    assert_true(bytes[last] < 50 * MIB);
    assert_int_equal(seg_supply_acquire(spread, 40 * MIB, 40 * MIB, &range), 0);
    memset(range.base, 1, range.size);
    assert_int_equal(seg_supply_release(spread, range), 0);
    assert_int_equal(seg_supply_destroy(spread), 0);
    empty_node(bound, &f);
    assert_int_equal(seg_supply_destroy(bound), 0);
    end(supply, pinned);
}

/* ---- huge pages: each node has a pool of its own ---- */

enum { POOL = 16 };

static size_t huge_free(struct seg_supply *supply, unsigned node)
{
    return node_info_of(supply, node).huge_available / HUGE_PAGE;
}

static void pool_of_a_node_is_an_error_or_the_next_kind_for_who_is_bound(void **state)
{
    struct seg_supply *bound = make_supply(CONFIG(.list = "hugetlb:2M", .per_node = true, .numa = { SEG_NUMA_BIND, 0 }));
    struct seg_supply *listed = make_supply(CONFIG(.list = "hugetlb:2M,anon", .per_node = true, .numa = { SEG_NUMA_BIND, 0 }));
    unsigned last = seg_node_count() - 1;
    struct seg_location l = { .struct_size = sizeof(l) };
    struct la_range range, rest;

    (void)state;
    for (unsigned node = 0; node < seg_node_count(); node++)
        assert_int_equal(huge_free(bound, node), POOL);
    assert_int_equal(seg_supply_acquire_on(bound, last, POOL * HUGE_PAGE, POOL * HUGE_PAGE, &range), 0);
    assert_on(range.base, range.size, last);
    assert_int_equal(huge_free(bound, last), 0);
    assert_int_equal(huge_free(bound, 0), POOL);
    assert_int_equal(seg_supply_acquire_on(bound, last, 1, 1, &rest), -ENOTSUP);
    assert_said("0 of 16 free on NUMA nodes");
    assert_int_equal(seg_supply_acquire_on(listed, last, MIB, MIB, &rest), 0);
    assert_on(rest.base, rest.size, last);
    assert_int_equal(seg_find(rest.base, &l), 0);
    assert_false(l.capabilities & SEG_HUGE);
    assert_int_equal(seg_supply_release(listed, rest), 0);
    assert_int_equal(seg_supply_acquire_on(bound, 0, HUGE_PAGE, HUGE_PAGE, &rest), 0);
    assert_int_equal(seg_supply_release(bound, rest) | seg_supply_release(bound, range), 0);
    assert_int_equal(seg_supply_destroy(bound) | seg_supply_destroy(listed), 0);
}

static void pool_of_another_node_serves_who_only_prefers_one(void **state)
{
    struct seg_supply *supply = make_supply(CONFIG(.list = "hugetlb:2M", .per_node = true));
    unsigned last = seg_node_count() - 1;
    size_t bytes[LA_NODES_MAX];
    struct la_range range, rest;

    (void)state;
    assert_int_equal(seg_supply_acquire_on(supply, last, POOL * HUGE_PAGE, POOL * HUGE_PAGE, &range), 0);
    assert_on(range.base, range.size, last);
    assert_int_equal(seg_supply_acquire_on(supply, last, HUGE_PAGE, HUGE_PAGE, &rest), 0);
    assert_int_equal(seg_pages_on_nodes(rest, bytes), 0);
    assert_int_equal(bytes[last], 0);
    assert_int_equal(seg_supply_release(supply, rest) | seg_supply_release(supply, range), 0);
    assert_int_equal(seg_supply_destroy(supply), 0);
}

/* The kernel reserves in the whole pool; that the node's part is used up shows when pages are made. */
static void pages_taken_between_open_and_acquire_are_an_error(void **state)
{
    (void)state;
    for (enum seg_kind kind = SEG_ANON; kind <= SEG_MEMFD; kind++) {
        struct seg_supply *taker = make_supply(CONFIG(.list = "hugetlb:2M", .per_node = true, .numa = { SEG_NUMA_BIND, 0 }));
        struct seg_request request = { .struct_size = sizeof(request), .kind = kind, .required = SEG_HUGE | SEG_PLACED,
                                       .min_size = 8 * HUGE_PAGE, .numa = { SEG_NUMA_BIND, 2 } };
        struct seg_segment *segment;
        struct la_range range, part;

        assert_int_equal(seg_open(&request, &segment), 0);
        assert_int_equal(seg_supply_acquire_on(taker, 1, (POOL - 4) * HUGE_PAGE, (POOL - 4) * HUGE_PAGE, &range), 0);
        assert_int_equal(seg_acquire(segment, 8 * HUGE_PAGE, 8 * HUGE_PAGE, &part), -ENOSPC);
        assert_int_equal(huge_free(taker, 1), 4);           /* nothing is left behind */
        assert_int_equal(seg_acquire(segment, 4 * HUGE_PAGE, 4 * HUGE_PAGE, &part), 0);
        assert_on(part.base, part.size, 1);
        memset(part.base, 1, part.size);
        assert_int_equal(seg_release(segment, part), 0);
        assert_int_equal(seg_close(segment), 0);
        assert_int_equal(seg_supply_release(taker, range), 0);
        assert_int_equal(seg_supply_destroy(taker), 0);
    }
}

/* ---- malloc ---- */

enum { BLOCKS = 24, BIG = 8 * MIB };

/* On the node, if it has a processor: blocks of slices and a huge one, every page written; then all are free. */
static void *use_and_free(void *node)
{
    void *blocks[BLOCKS], *big;

    if (!run_on((unsigned)(uintptr_t)node))
        return NULL;
    big = memset(la_malloc(BIG), 1, BIG);
    assert_on(big, BIG, (unsigned)(uintptr_t)node);
    for (int i = 0; i < BLOCKS; i++) {
        blocks[i] = memset(la_malloc(3 * MIB / 2), 1, 3 * MIB / 2);
        assert_on(blocks[i], 3 * MIB / 2, (unsigned)(uintptr_t)node);
    }
    for (int i = 0; i < BLOCKS; i++)
        la_free(blocks[i]);
    la_free(big);
    return NULL;
}

/* What a thread leaves is kept for others of its node, also when nobody has said anything about nodes. */
static void what_malloc_keeps_goes_to_threads_of_the_same_node(void **state)
{
    (void)state;
    for (int round = 0; round < 2; round++)
        for (uintptr_t node = 0; node < seg_node_count(); node++) {
            pthread_t thread;

            assert_int_equal(pthread_create(&thread, NULL, use_and_free, (void *)node), 0);
            assert_int_equal(pthread_join(thread, NULL), 0);
        }
    assert_int_equal(la_heap_check(NULL, NULL), 0);
}

struct worker {
    unsigned node;
    void *kept[64];             /* live after its end */
};

/* The thread is put on its node after it has allocated, as most programs do it. */
static void *work(void *arg)
{
    struct worker *w = arg;

    memset(la_malloc(100), 1, 100);
    if (!run_on(w->node))
        return arg;
    for (int i = 0; i < 64; i++) {
        w->kept[i] = memset(la_malloc(3 * MIB / 2), 1, 3 * MIB / 2);
        if (i % 2)
            assert_on(w->kept[i], 3 * MIB / 2, w->node);
    }
    for (int i = 0; i < 64; i += 2)
        la_free(w->kept[i]);
    return arg;
}

static void use_malloc(void)
{
    struct seg_supply *supply = make_supply(CONFIG(.list = "anon", .per_node = true));

    assert_int_equal(seg_supply_make_default(supply), 0);
    assert_ptr_equal(seg_supply_default(), supply);
    for (int round = 0; round < 2; round++)         /* the second adopts what the first has left, each on its node */
        for (unsigned node = 0; node < seg_node_count(); node++) {
            struct worker w = { .node = node };
            pthread_t thread;

            assert_int_equal(pthread_create(&thread, NULL, work, &w), 0);
            assert_int_equal(pthread_join(thread, NULL), 0);
            if (w.kept[1])
                assert_true(node_info_of(NULL, node).bytes >= 48 * MIB);
        }
    assert_int_equal(la_heap_check(NULL, NULL), 0);
}

/* In a child: the default source is replaced for good. */
static void every_threads_malloc_draws_from_its_node(void **state)
{
    int status;
    pid_t child = fork();

    (void)state;
    if (child == 0) {
        use_malloc();
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static int start_on_any_node(void **state)
{
    cpu_set_t all;

    (void)state;
    memset(&all, 0xff, sizeof(all));
    return sched_setaffinity(0, sizeof(all), &all);
}

#define TEST(f) cmocka_unit_test_setup(f, start_on_any_node)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bound_pages_lie_on_their_node),
        TEST(preferred_pages_lie_on_their_node_while_it_has_some),
        TEST(interleaved_pages_lie_on_all_nodes_alike),
        TEST(local_pages_lie_where_they_are_touched_first),
        TEST(blocks_of_pinned_chains_lie_on_their_node),
        TEST(chain_draws_from_the_node_its_thread_runs_on),
        TEST(freed_memory_is_used_again_on_its_node),
        TEST(full_node_is_an_error_for_who_is_bound),
        TEST(full_node_is_left_by_who_only_prefers_it),
        TEST(pool_of_a_node_is_an_error_or_the_next_kind_for_who_is_bound),
        TEST(pool_of_another_node_serves_who_only_prefers_one),
        TEST(pages_taken_between_open_and_acquire_are_an_error),
        TEST(what_malloc_keeps_goes_to_threads_of_the_same_node),
        TEST(every_threads_malloc_draws_from_its_node),
    };

    if (seg_node_count() < 2) {
        print_message("one NUMA node: this test needs several (tests/guest)\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
