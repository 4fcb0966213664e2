/*
 * huge_test.c - blocks of more than 2 MiB: no page fault when their memory is used again, no copy when they grow, no loss
 * when the system refuses.
 *
 * The ancestor charged 4 MB for 2 MB, put every huge block at the same offset of its page, needed more than 60 s to grow a
 * block to 512 MB, and died when mmap() or mremap() failed.
 */
#include "engine.h"

#include <sys/resource.h>

#include "child.h"
#include "core/huge.h"
#include "core/region_map.h"
#include "core/thread.h"
#include "os/os.h"

static unsigned resident_pages(const void *p, size_t size)
{
    size_t page = os_page_size();
    char *from = (char *)align_down((uintptr_t)p, page);
    unsigned n = 0;
    unsigned char resident;

    for (size_t at = 0; at < size; at += page)
        n += mincore(from + at, page, &resident) == 0 && (resident & 1);
    return n;
}

static bool is_mapped(const void *p)
{
    unsigned char resident;

    return mincore((void *)align_down((uintptr_t)p, os_page_size()), 1, &resident) == 0;
}

static void touch(char *block, size_t size)
{
    for (size_t at = 0; at < size; at += 4096)
        block[at] = 1;
}

/* ---- the cache of mappings ---- */

static void cycle(size_t size)
{
    char *blocks[4];

    for (unsigned i = 0; i < 4; i++) {
        blocks[i] = la_malloc(size);
        touch(blocks[i], size);
    }
    for (unsigned i = 0; i < 4; i++)
        la_free(blocks[i]);
}

static long minor_faults(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_minflt;
}

static void second_round_of_allocate_touch_free_takes_no_page_fault(void **state)
{
    (void)state;
    for (size_t size = MiB; size <= 32 * MiB; size *= 2) {
        long before;

        cycle(size);
        cycle(size);
        before = minor_faults();
        for (int round = 0; round < 3; round++)
            cycle(size);
        if (!SANITIZED && !EMULATED)        /* both take faults of their own */
            assert_int_equal(minor_faults() - before, 0);
    }
    la_source_trim(NULL);
}

static void freed_mapping_is_resident_for_the_next_block(void **state)
{
    size_t size = 8 * MiB;
    char *block = la_malloc(size);

    (void)state;
    touch(block, size);
    la_free(block);
    assert_null(region_page(block));
    assert_true(huge_cached_bytes() >= size);
    block = la_malloc(size);
    assert_int_equal(huge_cached_bytes(), 0);
    assert_int_equal(resident_pages(block, size), size / os_page_size());
    la_free(block);
    la_source_trim(NULL);
}

static void long_mapping_is_cut_and_its_rest_is_kept(void **state)
{
    char *block = la_malloc(32 * MiB), *piece;
    size_t cached;

    (void)state;
    touch(block, 32 * MiB);
    la_free(block);
    cached = huge_cached_bytes();
    piece = la_malloc(3 * MiB);
    assert_true(huge_cached_bytes() > 28 * MiB);
    assert_true(huge_cached_bytes() <= cached - 3 * MiB);
    memset(piece, 7, la_usable_size(piece));
    block = la_malloc(28 * MiB);        /* the rest, whole */
    assert_true(huge_cached_bytes() < 2 * MiB);
    memset(block, 8, la_usable_size(block));
    for (size_t i = 0; i < la_usable_size(piece); i += 61)
        assert_int_equal(piece[i], 7);
    la_free(block);
    la_free(piece);
    la_source_trim(NULL);
    assert_heap_is_sound();
}

static void trim_gives_every_cached_mapping_back(void **state)
{
    char *block = la_malloc(5 * MiB);
    size_t cached;

    (void)state;
    touch(block, 5 * MiB);
    la_free(block);
    cached = huge_cached_bytes();
    assert_true(cached >= 5 * MiB);
    assert_true(is_mapped(block));
    assert_int_equal(huge_trim(), cached);
    assert_int_equal(huge_cached_bytes(), 0);
    assert_false(is_mapped(block));
    assert_int_equal(huge_trim(), 0);
}

static void cache_stays_bounded_however_many_blocks_are_freed(void **state)
{
    void *blocks[200];

    (void)state;
    for (unsigned i = 0; i < 200; i++)
        blocks[i] = la_malloc(16 * MiB + i * 64 * KiB);
    for (unsigned i = 0; i < 200; i++)
        la_free(blocks[i]);
    assert_true(huge_cached_bytes() <= 320 * MiB);
    assert_heap_is_sound();
    la_source_trim(NULL);
}

static void calloc_clears_a_mapping_from_the_cache(void **state)
{
    size_t size = 6 * MiB;
    char *block = la_malloc(size);

    (void)state;
    memset(block, 0xff, la_usable_size(block));
    la_free(block);
    block = la_calloc(size / 8, 8);
    for (size_t i = 0; i < size; i++)
        assert_int_equal(block[i], 0);
    la_free(block);
    la_source_trim(NULL);
}

/* Its pages must stay untouched, or a program that reserves much with calloc() pays for all of it. */
static void calloc_does_not_touch_a_fresh_mapping(void **state)
{
    char *block = la_calloc(64, MiB);

    (void)state;
    assert_true(resident_pages(block, 64 * MiB) < 16);
    la_free(block);
    la_source_trim(NULL);
}

/* ---- placement ---- */

/* The lines that its last user wrote are in the processor's caches. */
static void block_from_the_cache_starts_where_the_last_one_did(void **state)
{
    void *aligned;

    (void)state;
    la_source_trim(NULL);
    for (unsigned i = 0; i < 8; i++) {
        void *block = la_malloc(5 * MiB), *again;

        la_free(block);
        again = la_malloc(5 * MiB);
        assert_ptr_equal(again, block);
        la_free(again);
        aligned = la_aligned_alloc(4096, 5 * MiB);
        assert_int_equal((uintptr_t)aligned % 4096, 0);
        la_free(aligned);
        la_source_trim(NULL);
    }
}

/* Regression of the ancestor: every huge block lay at offset 48 of its page, so large arrays fought for the same cache sets. */
static void blocks_start_at_varying_offsets_of_their_page(void **state)
{
    bool seen[64] = { false };
    unsigned colours = 0;
    char *blocks[16];

    (void)state;
    for (unsigned i = 0; i < 16; i++) {
        blocks[i] = la_malloc(4 * MiB);
        assert_int_equal((uintptr_t)blocks[i] % 64, 0);
        colours += !seen[(uintptr_t)blocks[i] % 4096 / 64];
        seen[(uintptr_t)blocks[i] % 4096 / 64] = true;
    }
    assert_true(colours >= 12);
    for (unsigned i = 0; i < 16; i++)
        la_free(blocks[i]);
    la_source_trim(NULL);
}

/* Regression of the ancestor: 2 MB cost 4 MB of address space, 10 MB cost 12. */
static void block_costs_little_more_than_its_size(void **state)
{
    struct la_stats before = { .struct_size = sizeof(before) }, after = before;

    (void)state;
    la_chain_stats(NULL, &before);
    for (size_t size = 2 * MiB + 1; size < 100 * MiB; size = size * 3 / 2) {
        void *block = la_malloc(size);

        la_chain_stats(NULL, &after);
        assert_true(after.mapped - before.mapped <= size + 16 * KiB);
        la_free(block);
        la_source_trim(NULL);
        la_chain_stats(NULL, &before);
    }
}

static void any_alignment_is_served(void **state)
{
    (void)state;
    for (size_t alignment = 128; alignment <= GiB; alignment *= 4) {
        char *block = la_aligned_alloc(alignment, 3 * MiB + 1);

        assert_non_null(block);
        assert_int_equal((uintptr_t)block % alignment, 0);
        block[0] = block[3 * MiB] = 1;
        la_free(block);
    }
    la_source_trim(NULL);
    assert_heap_is_sound();
}

static void address_inside_a_block_finds_it(void **state)
{
    char *a = la_malloc(5 * MiB), *b = la_malloc(3 * MiB);

    (void)state;
    assert_ptr_equal((void *)huge_around(a + 4 * MiB)->start, a);
    assert_ptr_equal((void *)huge_around(b)->start, b);
    assert_ptr_equal((void *)huge_around(b + la_usable_size(b) - 1)->start, b);
    assert_null(huge_around(&a));
    la_free(a);
    assert_null(huge_around(a + 4 * MiB));
    la_free(b);
    la_source_trim(NULL);
}

/* ---- growing and shrinking ---- */

/* Regression of the ancestor: growth copied, so this took more than a minute. */
static void growth_from_1_to_512_mib_moves_pages_and_copies_nothing(void **state)
{
    unsigned char *block = la_malloc(MiB);
    long before;

    (void)state;
    memset(block, 1, 16);
    before = minor_faults();
    for (size_t size = 2 * MiB; size <= 512 * MiB; size += 2 * MiB) {
        block = la_realloc(block, size);
        assert_non_null(block);
        block[size - 1] = (unsigned char)(size >> 21);
    }
    /* One page is written per step; a copy would touch thousands more. */
    if (!SANITIZED && !EMULATED)
        assert_true(minor_faults() - before < 4 * 256 + 1000);
    assert_int_equal(block[0], 1);
    for (size_t size = 2 * MiB; size <= 512 * MiB; size += 2 * MiB)
        assert_int_equal(block[size - 1], (unsigned char)(size >> 21));
    assert_ptr_equal(region_page(block), huge_around(block + 511 * MiB));
    la_free(block);
    la_source_trim(NULL);
    assert_heap_is_sound();
}

static void block_that_shrinks_gives_its_end_back(void **state)
{
    unsigned char *block = la_malloc(64 * MiB), *same;
    struct la_stats stats = { .struct_size = sizeof(stats) };

    (void)state;
    memset(block, 9, 64 * MiB);
    same = la_realloc(block, 5 * MiB);
    assert_ptr_equal(same, block);
    for (size_t i = 0; i < 5 * MiB; i++)
        assert_int_equal(block[i], 9);
    assert_false(is_mapped(block + 20 * MiB));
    assert_true(la_usable_size(block) < 8 * MiB);
    la_chain_stats(NULL, &stats);
    assert_true(stats.mapped < 40 * MiB);
    block = la_realloc(block, 1000);
    for (size_t i = 0; i < 1000; i++)
        assert_int_equal(block[i], 9);
    la_free(block);
    la_source_trim(NULL);
    assert_heap_is_sound();
}

static void block_that_moves_leaves_nothing_in_the_region_map(void **state)
{
    char *block = la_malloc(3 * MiB), *moved;
    /* In the way of growth in place. */
    char *wall = mmap((void *)align_up((uintptr_t)block + la_usable_size(block), os_page_size()), os_page_size(), PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    (void)state;
    memset(block, 5, 3 * MiB);
    moved = la_realloc(block, 300 * MiB);
    assert_non_null(moved);
    for (size_t i = 0; i < 3 * MiB; i += 11)
        assert_int_equal(moved[i], 5);
    if (moved != block)
        assert_null(region_page(block));
    assert_non_null(region_page(moved));
    assert_int_equal((uintptr_t)moved % 64, 0);
    la_free(moved);
    munmap(wall, os_page_size());
    la_source_trim(NULL);
}

/* ---- refused ---- */

/* Regressions of the ancestor: malloc(64 TB) was a segmentation fault; a growth that failed lost the old block or aborted. */
static void what_the_system_cannot_give_is_null_and_loses_nothing(void **state)
{
    volatile size_t too_much = (size_t)1 << 47;     /* all of the address space that user programs have */
    unsigned char *block = la_malloc(3 * MiB);

    (void)state;
    memset(block, 3, 3 * MiB);
    errno = 0;
    assert_null(la_malloc(too_much));
    assert_int_equal(errno, ENOMEM);
    assert_null(la_realloc(block, too_much));
    assert_null(la_aligned_alloc(MiB, too_much));
    assert_true(la_usable_size(block) >= 3 * MiB);
    for (size_t i = 0; i < 3 * MiB; i++)
        assert_int_equal(block[i], 3);
    la_free(block);
    la_source_trim(NULL);
    assert_heap_is_sound();
}

static size_t address_space_in_use(void)
{
    unsigned long pages;
    FILE *statm = fopen("/proc/self/statm", "r");

    if (!statm || fscanf(statm, "%lu", &pages) != 1)
        _exit(2);
    fclose(statm);
    return pages * os_page_size();
}

static void live_under_a_limit(void *arg)
{
    struct rlimit limit;
    unsigned char *block, *kept;
    void *small[1000];

    (void)arg;
    la_free(la_malloc(1));
    limit.rlim_cur = limit.rlim_max = address_space_in_use() + 256 * MiB;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);

    CHECK(la_malloc((size_t)64 << 40) == NULL && errno == ENOMEM);
    kept = la_malloc(100 * MiB);
    CHECK(kept != NULL);
    memset(kept, 4, 100 * MiB);
    CHECK(la_malloc(200 * MiB) == NULL);
    CHECK(la_realloc(kept, 300 * MiB) == NULL && errno == ENOMEM);
    CHECK(la_usable_size(kept) >= 100 * MiB && kept[0] == 4 && kept[100 * MiB - 1] == 4);
    /* What the cache keeps must not stand in the way. */
    la_free(kept);
    block = la_malloc(180 * MiB);
    CHECK(block != NULL);
    la_free(block);
    for (unsigned i = 0; i < 1000; i++)
        CHECK((small[i] = la_malloc(1000)) != NULL);
    for (unsigned i = 0; i < 1000; i++)
        la_free(small[i]);
    CHECK(la_heap_check(NULL, NULL) == 0);
}

static void limit_on_the_address_space_is_lived_with(void **state)
{
    (void)state;
    if (SANITIZED || EMULATED)
        skip();
    assert_int_equal(run_in_child(live_under_a_limit, NULL), 0);
}

/* ---- owners ---- */

static void live_within_the_source_limit(void *arg)
{
    size_t taken = 0;
    char *a, *b;

    (void)arg;
    CHECK(la_source_limit(NULL, 400 * MiB) == 0);
    a = la_malloc(100 * MiB);
    b = la_malloc(100 * MiB);
    CHECK(a && b);
    CHECK(la_malloc(300 * MiB) == NULL && strstr(la_last_error(), "limit"));
    CHECK(la_realloc(a, 320 * MiB) == NULL && strstr(la_last_error(), "limit"));
    CHECK(la_usable_size(a) >= 100 * MiB);
    CHECK(la_source_limit(NULL, 150 * MiB) == -EINVAL);
    /* What is cached gives way. */
    la_free(b);
    b = la_malloc(220 * MiB);
    CHECK(b != NULL);
    la_free(b);
    a = la_realloc(a, 250 * MiB);
    CHECK(a != NULL);
    la_free(a);
    while (la_malloc(1 * MiB))
        taken += 1 * MiB;
    CHECK(taken > 200 * MiB && taken <= 400 * MiB);
    CHECK(la_source_limit(NULL, 0) == 0);
    CHECK(la_malloc(500 * MiB) != NULL);
}

static void source_limit_counts_huge_blocks(void **state)
{
    (void)state;
    assert_int_equal(run_in_child(live_within_the_source_limit, NULL), 0);
}

static void block_may_be_freed_by_any_thread(void **state)
{
    struct la_stats stats = { .struct_size = sizeof(stats) };
    void *block = la_malloc(5 * MiB);

    (void)state;
    la_chain_stats(NULL, &stats);
    assert_int_equal(stats.huge_blocks, 1);
    free_in_other_thread(block);
    la_chain_stats(NULL, &stats);
    assert_int_equal(stats.huge_blocks, 0);
    la_source_trim(NULL);
}

static void leave_a_block(void *arg)
{
    *(char **)arg = memset(la_malloc(5 * MiB), 6, 5 * MiB);
}

static void block_of_an_ended_thread_stays_and_is_counted(void **state)
{
    struct la_stats before = { .struct_size = sizeof(before) }, after = before;
    char *block;

    (void)state;
    la_process_stats(&before);
    in_other_thread(leave_a_block, &block);
    assert_int_equal(block[5 * MiB - 1], 6);
    la_process_stats(&after);
    assert_int_equal(after.huge_blocks, before.huge_blocks + 1);
    assert_true(after.mapped >= before.mapped + 5 * MiB);
    block = la_realloc(block, 50 * MiB);
    assert_int_equal(block[5 * MiB - 1], 6);
    la_free(block);
    la_process_stats(&after);
    assert_int_equal(after.huge_blocks, before.huge_blocks);
    la_source_trim(NULL);
}

static void chain_that_ends_takes_its_blocks_with_it(void **state)
{
    struct la_chain *chain = NULL;
    char *mine = la_malloc(3 * MiB), *theirs;

    (void)state;
    assert_int_equal(la_chain_create(NULL, 0, &chain), 0);
    theirs = la_chain_alloc(chain, 3 * MiB);
    assert_int_equal(la_chain_destroy(chain), 0);
    assert_null(region_page(theirs));
    assert_null(huge_around(theirs));
    assert_non_null(region_page(mine));
    la_free(mine);
    la_source_trim(NULL);
}

static void detached_block_goes_back_to_the_system(void **state)
{
    char *block = huge_alloc_detached(100);

    (void)state;
    assert_non_null(block);
    assert_int_equal((uintptr_t)block % 64, 0);
    memset(block, 1, la_usable_size(block));
    la_free(block);
    assert_null(region_page(block));
    assert_false(is_mapped(block));
    assert_null(huge_alloc_detached(SIZE_MAX - 10));
}

static void allocate_and_free(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < 300; i++) {
        char *block = la_malloc(2 * MiB + 1 + i % 7 * MiB);

        block[0] = 1;
        block = la_realloc(block, 4 * MiB + i % 5 * MiB);
        block[4 * MiB - 1] = 1;
        la_free(block);
    }
}

static void threads_allocate_and_free_at_once(void **state)
{
    struct thread_body_ body = { allocate_and_free, NULL };
    pthread_t threads[3];

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, run_body_, &body), 0);
    for (unsigned i = 0; i < ARRAY_SIZE(threads); i++)
        pthread_join(threads[i], NULL);
    assert_heap_is_sound();
    la_source_trim(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(second_round_of_allocate_touch_free_takes_no_page_fault),
        cmocka_unit_test(freed_mapping_is_resident_for_the_next_block),
        cmocka_unit_test(long_mapping_is_cut_and_its_rest_is_kept),
        cmocka_unit_test(trim_gives_every_cached_mapping_back),
        cmocka_unit_test(cache_stays_bounded_however_many_blocks_are_freed),
        cmocka_unit_test(calloc_clears_a_mapping_from_the_cache),
        cmocka_unit_test(calloc_does_not_touch_a_fresh_mapping),
        cmocka_unit_test(block_from_the_cache_starts_where_the_last_one_did),
        cmocka_unit_test(blocks_start_at_varying_offsets_of_their_page),
        cmocka_unit_test(block_costs_little_more_than_its_size),
        cmocka_unit_test(any_alignment_is_served),
        cmocka_unit_test(address_inside_a_block_finds_it),
        cmocka_unit_test(growth_from_1_to_512_mib_moves_pages_and_copies_nothing),
        cmocka_unit_test(block_that_shrinks_gives_its_end_back),
        cmocka_unit_test(block_that_moves_leaves_nothing_in_the_region_map),
        cmocka_unit_test(what_the_system_cannot_give_is_null_and_loses_nothing),
        cmocka_unit_test(limit_on_the_address_space_is_lived_with),
        cmocka_unit_test(source_limit_counts_huge_blocks),
        cmocka_unit_test(block_may_be_freed_by_any_thread),
        cmocka_unit_test(block_of_an_ended_thread_stays_and_is_counted),
        cmocka_unit_test(chain_that_ends_takes_its_blocks_with_it),
        cmocka_unit_test(detached_block_goes_back_to_the_system),
        cmocka_unit_test(threads_allocate_and_free_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
