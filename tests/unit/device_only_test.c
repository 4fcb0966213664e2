/*
 * device_only_test.c - chains over memory that the processor must not touch (R3): here every byte of it traps, and the whole engine runs over it.
 */
#include "engine.h"

#include <liballoc/group.h>

#include "core/macroblock.h"
#include "core/region_map.h"
#include "core/page.h"
#include "core/repair.h"
#include "core/size_class.h"

enum { BLOCKS = 20000, RANGES = 64 };

struct fixture {
    struct la_range ranges[RANGES];
    unsigned count, out;
    struct la_source *source;
    struct la_chain *chain;
    void *blocks[BLOCKS];
    struct misuse_record misuse;
};

/* Not aligned to anything but pages, as a driver might give it. */
static int acquire(void *self, size_t min, size_t wanted, struct la_range *ret)
{
    struct fixture *f = self;
    char *base;

    (void)min;
    if (f->count == RANGES)
        return -ENOMEM;
    base = mmap(NULL, wanted + 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        return -ENOMEM;
    *ret = f->ranges[f->count++] = (struct la_range){ base + 4096, wanted };
    f->out++;
    return 0;
}

static void release(void *self, struct la_range range)
{
    struct fixture *f = self;

    f->out--;
    munmap((char *)range.base - 4096, range.size + 4096);
}

static struct la_source_ops ops(void)
{
    return (struct la_source_ops){ .struct_size = sizeof(ops()), .name = "trap", .acquire = acquire, .release = release,
                                   .flags = LA_SOURCE_DEVICE_ONLY };
}

static int setup_with(void **state, unsigned flags)
{
    static struct fixture f;
    struct la_source_ops table = ops();

    memset(&f, 0, sizeof(f));
    record_misuse(&f.misuse);
    assert_int_equal(la_source_create(&table, &f, &f.source), 0);
    assert_int_equal(la_chain_create(f.source, flags, &f.chain), 0);
    *state = &f;
    return 0;
}

static int setup(void **state)
{
    return setup_with(state, 0);
}

static int setup_mt(void **state)
{
    return setup_with(state, LA_CHAIN_MT);
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    assert_chain_is_sound(f->chain);
    assert_int_equal(la_chain_destroy(f->chain), 0);
    assert_int_equal(la_source_destroy(f->source), 0);
    assert_int_equal(f->out, 0);
    return 0;
}

static bool is_ours(const struct fixture *f, const void *block)
{
    for (unsigned i = 0; i < f->count; i++)
        if ((const char *)block - (char *)f->ranges[i].base < (ptrdiff_t)f->ranges[i].size && (const char *)block >= (char *)f->ranges[i].base)
            return true;
    return false;
}

static size_t size_of(unsigned i)
{
    static const size_t sizes[] = { 1, 8, 16, 24, 48, 100, 256, 1000, 1024, 3000, 4096, 20000, 32768 };

    return sizes[i % ARRAY_SIZE(sizes)];
}

static int by_address(const void *a, const void *b)
{
    const char *x = *(char *const *)a, *y = *(char *const *)b;

    return x < y ? -1 : x > y;
}

static void assert_apart(void **blocks, unsigned count)
{
    qsort(blocks, count, sizeof(*blocks), by_address);
    for (unsigned i = 1; i < count; i++)
        assert_true((char *)blocks[i - 1] + la_usable_size(blocks[i - 1]) <= (char *)blocks[i]);
}

static void blocks_of_all_sizes_are_apart_and_used_again(void **state)
{
    struct fixture *f = *state;
    unsigned segments = 0;

    for (int round = 0; round < 3; round++) {
        for (unsigned i = 0; i < BLOCKS; i++) {
            f->blocks[i] = la_chain_alloc(f->chain, size_of(i));
            assert_non_null(f->blocks[i]);
            assert_true(is_ours(f, f->blocks[i]));
            assert_true(la_usable_size(f->blocks[i]) >= size_of(i));
        }
        assert_chain_is_sound(f->chain);
        assert_apart(f->blocks, BLOCKS);
        if (round == 0)
            segments = f->count;
        for (unsigned i = 0; i < BLOCKS; i++)
            la_free(f->blocks[(size_t)i * 7919 % BLOCKS]);
        assert_chain_is_sound(f->chain);
    }
    assert_int_equal(f->count, segments);
    assert_int_equal(f->misuse.count, 0);
}

/* Pages of address space that the process has. */
static unsigned long pages_mapped(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    unsigned long pages = 0;

    assert_non_null(file);
    assert_int_equal(fscanf(file, "%lu", &pages), 1);
    fclose(file);
    return pages;
}

/* More blocks of one size than a bin holds, so that pages come and go. */
static void shadows_go_with_their_pages(void **state)
{
    struct fixture *f = *state;
    unsigned long before = 0;

    for (int round = 0; round < 60; round++) {
        if (round == 10)
            before = pages_mapped();
        for (unsigned i = 0; i < BLOCKS; i++)
            assert_non_null(f->blocks[i] = la_chain_alloc(f->chain, 16));
        for (unsigned i = 0; i < BLOCKS; i++)
            la_free(f->blocks[i]);
    }
    /* A page or two of each round, with shadows of 64 KiB. */
    assert_true(SANITIZED || pages_mapped() < before + 256);
}

static void large_huge_and_aligned_blocks_need_no_touch_either(void **state)
{
    struct fixture *f = *state;
    static const size_t sizes[] = { 40000, 65536, 300000, (size_t)2 << 20, (size_t)5 << 20, (size_t)20 << 20 };

    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        char *block = la_chain_alloc(f->chain, sizes[i]), *other = la_chain_aligned_alloc(f->chain, 65536, sizes[i]);

        assert_true(block && other && is_ours(f, block) && is_ours(f, block + sizes[i] - 1) && is_ours(f, other));
        assert_int_equal((uintptr_t)other % 65536, 0);
        la_free(block);
        free_in_other_thread(other);
        la_free(block);
        assert_reported_once(&f->misuse, block);
        record_misuse(&f->misuse);
    }
    for (size_t alignment = 16; alignment <= 4096; alignment *= 2) {
        void *block = la_chain_aligned_alloc(f->chain, alignment, 24);

        assert_true(block && (uintptr_t)block % alignment == 0);
        la_free(block);
    }
}

static void second_free_is_found_at_once(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < 100; i++)
        f->blocks[i] = la_chain_alloc(f->chain, 64);
    la_free(f->blocks[10]);
    la_free(f->blocks[11]);
    la_free(f->blocks[10]);
    assert_reported_once(&f->misuse, f->blocks[10]);
    record_misuse(&f->misuse);
    la_free((char *)f->blocks[12] + 8);
    assert_reported_once(&f->misuse, (char *)f->blocks[12] + 8);
    record_misuse(&f->misuse);
    free_in_other_thread(f->blocks[13]);
    la_free(f->blocks[13]);             /* in the queue by now */
    assert_reported_once(&f->misuse, f->blocks[13]);
    record_misuse(&f->misuse);
    assert_ptr_not_equal(la_chain_alloc(f->chain, 64), f->blocks[12]);
}

static void free_all(void *arg)
{
    struct fixture *f = arg;

    for (unsigned i = 0; i < BLOCKS; i++)
        la_free(f->blocks[i]);
}

static void blocks_freed_by_other_threads_come_back(void **state)
{
    struct fixture *f = *state;
    struct la_stats stats = { .struct_size = sizeof(stats) };
    unsigned segments = 0;

    for (int round = 0; round < 3; round++) {
        for (unsigned i = 0; i < BLOCKS; i++)
            assert_non_null(f->blocks[i] = la_chain_alloc(f->chain, size_of(i)));
        if (round == 0)
            segments = f->count;
        in_other_thread(free_all, f);
    }
    assert_true(f->count <= segments + 1);
    assert_non_null(la_chain_alloc(f->chain, 40000));       /* takes the queue in */
    assert_int_equal(la_chain_stats(f->chain, &stats), 0);
    assert_int_equal(stats.blocks, 1);
    assert_int_equal(f->misuse.count, 0);
}

static void *churn(void *arg)
{
    struct fixture *f = arg;
    void *mine[200] = { 0 };
    unsigned seed = (unsigned)(uintptr_t)&mine;

    for (unsigned i = 0; i < 20000; i++) {
        unsigned at = (seed = seed * 1103515245 + 12345) >> 8;

        la_free(mine[at % 200]);
        mine[at % 200] = la_chain_alloc(f->chain, size_of(at / 256));
        assert_non_null(mine[at % 200]);
    }
    for (unsigned i = 0; i < 200; i++)
        la_free(mine[i]);
    return NULL;
}

static void threads_share_a_chain(void **state)
{
    struct fixture *f = *state;
    pthread_t threads[4];

    for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, churn, f), 0);
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(f->misuse.count, 0);
}

static void addresses_are_looked_up_without_a_touch(void **state)
{
    struct fixture *f = *state;
    struct la_owner o = { .struct_size = sizeof(o) };
    char *block = la_chain_alloc(f->chain, 100), *huge = la_chain_alloc(f->chain, (size_t)8 << 20);

    la_chain_name(f->chain, "frames");
    assert_int_equal(la_owner_of(block + 50, &o), 0);
    assert_true(o.live && o.block == block && o.chain == f->chain);
    assert_string_equal(o.chain_name, "frames");
    la_free(block);
    assert_int_equal(la_owner_of(block, &o), 0);
    assert_false(o.live);
    assert_int_equal(la_owner_of(huge + ((size_t)5 << 20), &o), 0);
    assert_true(o.live && o.block == huge);
    la_free(huge);
}

static void reset_gives_all_back_shadows_too(void **state)
{
    struct fixture *f = *state;
    struct la_stats stats = { .struct_size = sizeof(stats) };
    unsigned long before = 0;

    for (int round = 0; round < 40; round++) {
        if (round == 10)
            before = pages_mapped();
        for (unsigned i = 0; i < BLOCKS; i++)
            assert_non_null(la_chain_alloc(f->chain, size_of(i)));
        assert_int_equal(la_chain_reset(f->chain), 0);
    }
    assert_int_equal(la_chain_stats(f->chain, &stats), 0);
    assert_int_equal(stats.blocks + stats.macro_blocks, 0);
    assert_true(f->count < 8);
    /* 30 rounds have made shadows of 10 MiB. */
    assert_true(SANITIZED || pages_mapped() < before + 512);
}

/* A handler jumped out of a slow path: lists are made again, from shadows. */
static void chain_in_pieces_is_repaired_from_its_shadows(void **state)
{
    struct fixture *f = *state;
    struct la_page *page;

    for (unsigned i = 0; i < 1000; i++)
        assert_non_null(f->blocks[i] = la_chain_alloc(f->chain, i % 2 ? 8 : 200));
    for (unsigned i = 0; i < 1000; i += 3)
        la_free(f->blocks[i]);
    page = region_page(f->blocks[1]);
    page->free = NULL;
    page->free_count = 12345;
    chain_repair(f->chain);
    assert_chain_is_sound(f->chain);
    /* One that was about to be made has no shadow yet. */
    page = region_page(la_chain_alloc(f->chain, 12000));
    page_shadow_drop(page);
    chain_repair(f->chain);
    assert_int_equal(page->kind, PAGE_NONE);
    for (unsigned i = 0; i < 1000; i += 3)
        assert_non_null(f->blocks[i] = la_chain_alloc(f->chain, i % 2 ? 8 : 200));
    assert_apart(f->blocks, 1000);
}

static void what_would_touch_a_block_is_refused(void **state)
{
    struct fixture *f = *state;
    struct la_source_ops table = ops();
    struct la_group *group;
    struct la_chain *chain;
    char *block = la_chain_alloc(f->chain, 100), *large = la_chain_alloc(f->chain, 70000), *heap = la_malloc(10);

    assert_null(la_default_set(f->chain));
    assert_null(la_default_get());
    assert_non_null(strstr(la_last_error(), "cannot be a default"));
    assert_int_equal(la_last_error_code(), -EINVAL);
    errno = 0;
    assert_null(la_chain_calloc(f->chain, 1, 100));
    assert_int_equal(errno, ENOTSUP);
    assert_null(la_chain_realloc(f->chain, block, 5000));
    assert_int_equal(errno, ENOTSUP);
    assert_null(la_realloc(block, 5000));           /* out of it */
    assert_null(la_chain_realloc(f->chain, heap, 5000));    /* into it */
    assert_ptr_equal(la_chain_realloc(f->chain, block, 90), block);
    assert_ptr_equal(la_chain_realloc(f->chain, large, 120000), large);     /* where it lies */
    assert_int_equal(la_chain_create(f->source, LA_CHAIN_STATS, &chain), -EINVAL);
    assert_int_equal(la_source_default_set(&table, f), -EINVAL);
    table.flags = 1u << 9;
    assert_int_equal(la_source_create(&table, f, &f->source), -EINVAL);
    assert_int_equal(la_group_create(NULL, f->source, &group), 0);
    assert_non_null(la_group_alloc(group, 100));
    assert_int_equal(la_group_on_free(group, free, NULL), -ENOTSUP);
    la_group_destroy(group);
    la_free(block);
    la_free(large);
    la_free(heap);
    assert_int_equal(f->misuse.count, 0);
}

static void exhaustion_is_null(void **state)
{
    struct fixture *f = *state;
    unsigned n = 0;

    f->count = RANGES - 1;
    while (n < BLOCKS && (f->blocks[n] = la_chain_alloc(f->chain, 32768)) != NULL)
        n++;
    assert_in_range(n, 30, BLOCKS - 1);
    assert_int_equal(errno, ENOMEM);
    for (unsigned i = 0; i < n; i++)
        la_free(f->blocks[i]);
    assert_non_null(la_chain_alloc(f->chain, 32768));
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(blocks_of_all_sizes_are_apart_and_used_again),
        TEST(shadows_go_with_their_pages),
        TEST(large_huge_and_aligned_blocks_need_no_touch_either),
        TEST(second_free_is_found_at_once),
        TEST(blocks_freed_by_other_threads_come_back),
        cmocka_unit_test_setup_teardown(threads_share_a_chain, setup_mt, teardown),
        TEST(addresses_are_looked_up_without_a_touch),
        TEST(reset_gives_all_back_shadows_too),
        TEST(chain_in_pieces_is_repaired_from_its_shadows),
        TEST(what_would_touch_a_block_is_refused),
        TEST(exhaustion_is_null),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
