/*
 * alloc_test.c - the malloc family on chains: sizes, alignments, overflow, content over realloc, errno.
 *
 * Bugs of the ancestor that must not come back are named where they are tested.
 */
#include "engine.h"

#include <liballoc/error.h>

#include "base/error.h"
#include "core/region_map.h"
#include "core/thread.h"
#include "core/types.h"

static const size_t sizes[] = { 1, 7, 8, 9, 16, 100, 128, 129, 1024, 1025, 5000, 32768, 32769, 65536, 100000, 500000,
                                2 * MiB - 1, 2 * MiB, 2 * MiB + 1, 3 * MiB, 9 * MiB };

static unsigned char byte_at(size_t i)
{
    return (unsigned char)(i * 31 + (i >> 12) + 1);
}

static void fill(unsigned char *block, size_t size)
{
    for (size_t i = 0; i < size; i++)
        block[i] = byte_at(i);
}

static void assert_filled(const unsigned char *block, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (block[i] != byte_at(i))
            fail_msg("byte %zu of %zu has changed", i, size);
}

/* ---- sizes ---- */

static void blocks_of_every_size_hold_their_bytes(void **state)
{
    unsigned char *blocks[ARRAY_SIZE(sizes)];

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        blocks[i] = la_malloc(sizes[i]);
        assert_non_null(blocks[i]);
        assert_true(la_usable_size(blocks[i]) >= sizes[i]);
        assert_int_equal((uintptr_t)blocks[i] % (sizes[i] > 8 ? LA_BLOCK_ALIGN : 8), 0);
        fill(blocks[i], sizes[i]);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        assert_filled(blocks[i], sizes[i]);
        la_free(blocks[i]);
    }
    assert_heap_is_sound();
}

static void usable_size_may_be_written_whole(void **state)
{
    unsigned char *a[ARRAY_SIZE(sizes)];

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        a[i] = la_malloc(sizes[i]);
        fill(a[i], la_usable_size(a[i]));
    }
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        assert_filled(a[i], la_usable_size(a[i]));
        la_free(a[i]);
    }
    assert_heap_is_sound();
}

static void zero_bytes_are_a_block_of_their_own(void **state)
{
    void *a = la_malloc(0), *b = la_malloc(0);

    (void)state;
    assert_non_null(a);
    assert_non_null(b);
    assert_ptr_not_equal(a, b);
    la_free(a);
    la_free(b);
    a = la_realloc(la_malloc(100), 0);
    assert_non_null(a);
    la_free(a);
    la_free(NULL);
}

static void block_freed_last_is_handed_out_first(void **state)
{
    void *a = la_malloc(500), *b = la_malloc(500);

    (void)state;
    la_free(a);
    la_free(b);
    assert_ptr_equal(la_malloc(500), b);
    assert_ptr_equal(la_malloc(500), a);
    la_free(a);
    la_free(b);
}

/* Regression of the ancestor: calloc() without overflow test returned a block; malloc(64 TB) was a segmentation fault. */
static void sizes_that_overflow_are_refused(void **state)
{
    static const size_t too_large[] = { SIZE_MAX, SIZE_MAX - 7, SIZE_MAX - 4096, SIZE_MAX - 2 * MiB, (size_t)PTRDIFF_MAX + 1,
                                        PTRDIFF_MAX, PTRDIFF_MAX - 65536, (size_t)1 << 62 };
    volatile size_t half = SIZE_MAX / 2 + 2;
    void *block = la_malloc(10);

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(too_large); i++) {
        volatile size_t size = too_large[i];

        errno = 0;
        assert_null(la_malloc(size));
        assert_int_equal(errno, ENOMEM);
        errno = 0;
        assert_null(la_calloc(1, size));
        assert_int_equal(errno, ENOMEM);
        errno = 0;
        assert_null(la_aligned_alloc(4096, size));
        assert_int_equal(errno, ENOMEM);
        errno = 0;
        assert_null(la_realloc(block, size));
        assert_int_equal(errno, ENOMEM);
        assert_true(la_usable_size(block) >= 10);
    }
    errno = 0;
    assert_null(la_calloc(half, 2));
    assert_int_equal(errno, ENOMEM);
    assert_null(la_calloc(half, half));
    assert_null(la_calloc((size_t)1 << 32, (size_t)1 << 32));
    la_free(block);
    assert_heap_is_sound();
}

/* ---- zero ---- */

static void calloc_clears_what_was_used_before(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++)
        for (int round = 0; round < 2; round++) {
            unsigned char *block = la_calloc(1, sizes[i]);

            assert_non_null(block);
            for (size_t j = 0; j < sizes[i]; j++)
                assert_int_equal(block[j], 0);
            memset(block, 0xff, la_usable_size(block));
            la_free(block);
        }
    assert_heap_is_sound();
}

/* ---- alignment ---- */

static void every_power_of_two_is_an_alignment(void **state)
{
    static const size_t some[] = { 0, 1, 24, 100, 5000, 32768, 100000, MiB, 3 * MiB };

    (void)state;
    for (size_t alignment = 1; alignment <= 256 * MiB; alignment *= 2)
        for (unsigned i = 0; i < ARRAY_SIZE(some); i++) {
            unsigned char *a = la_aligned_alloc(alignment, some[i]), *b = la_aligned_alloc(alignment, some[i]);

            assert_non_null(a);
            assert_non_null(b);
            assert_int_equal((uintptr_t)a % alignment, 0);
            assert_int_equal((uintptr_t)b % alignment, 0);
            assert_true(la_usable_size(a) >= some[i]);
            memset(a, 1, some[i]);
            memset(b, 2, some[i]);
            for (size_t j = 0; j < some[i]; j += 97)
                assert_int_equal(a[j], 1);
            la_free(a);
            la_free(b);
        }
    assert_heap_is_sound();
}

static void user_buffer_aligns_up_to_its_own_size(void **state)
{
    static const size_t buffers[] = { 64 * KiB, MiB, 9 * MiB };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(buffers); i++) {
        struct fenced f = fenced_new(buffers[i], 24);
        struct la_chain *chain;

        assert_int_equal(la_chain_create_in(f.buffer, f.size, 0, &chain), 0);
        for (size_t alignment = 1; alignment <= buffers[i] / 4; alignment *= 2) {
            unsigned char *block = la_chain_aligned_alloc(chain, alignment, 300);

            assert_non_null(block);
            assert_int_equal((uintptr_t)block % alignment, 0);
            assert_true(block >= f.buffer && block + 300 <= f.buffer + f.size);
            memset(block, 1, la_usable_size(block));
            la_free(block);
        }
        assert_null(la_chain_aligned_alloc(chain, (size_t)1 << 40, 1));
        assert_chain_is_sound(chain);
        assert_int_equal(la_chain_destroy(chain), 0);
        fenced_free(&f);
    }
}

/* Regression of the ancestor: 3 and 24 were accepted. */
static void alignment_that_is_no_power_of_two_is_refused(void **state)
{
    static const size_t wrong[] = { 0, 3, 24, 4095, SIZE_MAX };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
        volatile size_t alignment = wrong[i];

        errno = 0;
        assert_null(la_aligned_alloc(alignment, 100));
        assert_int_equal(errno, EINVAL);
    }
    errno = 0;
    assert_null(la_aligned_alloc((size_t)1 << 63, 100));
    assert_int_equal(errno, ENOMEM);
    assert_null(la_aligned_alloc((size_t)1 << 47, 100));
}

/* ---- realloc ---- */

static void realloc_keeps_the_content_from_any_size_to_any(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++)
        for (unsigned j = 0; j < ARRAY_SIZE(sizes); j++) {
            unsigned char *block = la_malloc(sizes[i]), *after;

            fill(block, sizes[i]);
            after = la_realloc(block, sizes[j]);
            assert_non_null(after);
            assert_true(la_usable_size(after) >= sizes[j]);
            assert_filled(after, MIN(sizes[i], sizes[j]));
            fill(after, sizes[j]);
            la_free(after);
        }
    assert_heap_is_sound();
}

/* Regression of the ancestor: realloc in place forgot the padding, and memalign(4096, 100) grown to 3000 overlapped its neighbour. */
static void grown_aligned_block_never_overlaps_its_neighbour(void **state)
{
    static const struct {
        size_t alignment, size, grown;
    } cases[] = { { 4096, 100, 3000 }, { 4096, 100, 4096 }, { 64, 100, 3000 }, { 65536, 100, 60000 }, { 32768, 40000, 70000 },
                  { MiB, 100, 500000 }, { 4 * MiB, 3 * MiB, 4 * MiB } };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++)
        for (int round = 0; round < 5; round++) {
            unsigned char *before = la_aligned_alloc(cases[i].alignment, cases[i].size);
            unsigned char *block = la_aligned_alloc(cases[i].alignment, cases[i].size);
            unsigned char *behind = la_aligned_alloc(cases[i].alignment, cases[i].size);

            memset(before, 'b', cases[i].size);
            memset(block, 'x', cases[i].size);
            memset(behind, 'e', cases[i].size);
            block = la_realloc(block, cases[i].grown);
            memset(block, 'X', cases[i].grown);
            for (size_t j = 0; j < cases[i].size; j++) {
                assert_int_equal(before[j], 'b');
                assert_int_equal(behind[j], 'e');
            }
            la_free(before);
            la_free(block);
            la_free(behind);
        }
    assert_heap_is_sound();
}

static void the_same_holds_in_a_small_buffer(void **state)
{
    static char memory[200 * KiB];
    struct la_chain *chain;
    unsigned char *before, *block, *behind;

    (void)state;
    assert_int_equal(la_chain_create_in(memory, sizeof(memory), 0, &chain), 0);
    before = memset(la_chain_aligned_alloc(chain, 4096, 100), 'b', 100);
    block = memset(la_chain_aligned_alloc(chain, 4096, 100), 'x', 100);
    behind = memset(la_chain_aligned_alloc(chain, 4096, 100), 'e', 100);
    block = la_chain_realloc(chain, block, 3000);
    assert_non_null(block);
    memset(block, 'X', 3000);
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(before[i], 'b');
        assert_int_equal(behind[i], 'e');
    }
    assert_chain_is_sound(chain);
    assert_int_equal(la_chain_destroy(chain), 0);
}

static void large_block_grows_in_place_when_there_is_room(void **state)
{
    struct la_chain *chain = NULL;
    unsigned char *block, *wall;

    (void)state;
    assert_int_equal(la_chain_create(NULL, 0, &chain), 0);
    la_default_set(chain);
    block = la_malloc(100000);
    fill(block, 100000);
    assert_ptr_equal(la_realloc(block, 1000000), block);
    assert_filled(block, 100000);
    assert_true(la_usable_size(block) >= 1000000);
    fill(block, 1000000);
    assert_ptr_equal(la_realloc(block, 100000), block);
    assert_true(la_usable_size(block) < 1000000);       /* the slices behind it are free again */
    assert_filled(block, 100000);

    do
        wall = la_malloc(100000);
    while (wall < block || wall > block + 200000);
    memset(wall, 'w', 100000);
    block = la_realloc(block, 1000000);
    assert_non_null(block);
    assert_filled(block, 100000);
    fill(block, 1000000);
    for (unsigned i = 0; i < 100000; i++)
        assert_int_equal(wall[i], 'w');
    assert_chain_is_sound(chain);
    la_default_set(NULL);
    assert_int_equal(la_chain_destroy(chain), 0);
}

static void block_that_shrinks_a_little_stays(void **state)
{
    void *block = la_malloc(1000);

    (void)state;
    assert_ptr_equal(la_realloc(block, 600), block);
    assert_ptr_equal(la_realloc(block, 1000), block);
    la_free(block);
}

static void block_that_grows_bit_by_bit_moves_seldom(void **state)
{
    enum { STEP = 64, LIMIT = 64 << 10 };
    unsigned char *block = NULL;
    unsigned moves = 0;

    (void)state;
    for (size_t size = STEP; size <= LIMIT; size += STEP) {
        unsigned char *grown = la_realloc(block, size);

        moves += grown != block;
        block = grown;
        block[size - 1] = (unsigned char)(size / STEP);
        assert_true(la_usable_size(block) >= size);
        if (size <= SMALL_MAX / 2)
            assert_true(la_usable_size(block) <= size + size / 2 + STEP);
    }
    assert_true(moves <= 30);       /* with the next class each time it would be 64 */
    for (size_t size = STEP; size <= LIMIT; size += STEP)
        assert_int_equal(block[size - 1], (unsigned char)(size / STEP));
    la_free(block);
}

/* Where there is no room for a quarter more than it had. */
static void growing_block_takes_what_it_needs_of_a_full_buffer(void **state)
{
    static char memory[256 * KiB];
    struct la_chain *chain;
    void *block, *grown, *rest[1000];
    unsigned n = 0;

    (void)state;
    assert_int_equal(la_chain_create_in(memory, sizeof(memory), 0, &chain), 0);
    block = la_chain_alloc(chain, 1000);
    grown = la_chain_alloc(chain, 1100);
    while (n < ARRAY_SIZE(rest) && (rest[n] = la_chain_alloc(chain, 1000)) != NULL)
        n++;
    assert_true(n > 10 && n < ARRAY_SIZE(rest));
    while (n < ARRAY_SIZE(rest) && (rest[n] = la_chain_alloc(chain, 1100)) != NULL)
        n++;
    la_free(grown);
    assert_null(la_chain_alloc(chain, 1250));
    assert_ptr_equal(la_chain_realloc(chain, block, 1100), grown);
    assert_chain_is_sound(chain);
    assert_int_equal(la_chain_destroy(chain), 0);
}

static void realloc_of_null_allocates(void **state)
{
    void *block = la_realloc(NULL, 100);

    (void)state;
    assert_true(la_usable_size(block) >= 100);
    la_free(block);
}

/* Regression of the ancestor: it freed the old block when the new one failed. */
static void realloc_that_fails_keeps_the_old_block(void **state)
{
    static char memory[20 * KiB];
    struct la_chain *chain;
    unsigned char *block;

    (void)state;
    assert_int_equal(la_chain_create_in(memory, sizeof(memory), 0, &chain), 0);
    block = la_chain_alloc(chain, 200);
    fill(block, 200);
    errno = 0;
    assert_null(la_chain_realloc(chain, block, 15 * KiB));
    assert_int_equal(errno, ENOMEM);
    assert_filled(block, 200);
    la_free(block);
    assert_int_equal(la_chain_destroy(chain), 0);
}

static void block_that_moves_lands_in_the_chain_asked_for(void **state)
{
    struct la_chain *chain = NULL;
    struct la_owner owner = { .struct_size = sizeof(owner) };
    unsigned char *block = la_malloc(1000);

    (void)state;
    assert_int_equal(la_chain_create(NULL, 0, &chain), 0);
    fill(block, 1000);
    block = la_chain_realloc(chain, block, 5000);
    assert_int_equal(la_owner_of(block, &owner), 0);
    assert_ptr_equal(owner.chain, chain);
    assert_filled(block, 1000);
    la_free(block);
    assert_int_equal(la_chain_destroy(chain), 0);
}

static unsigned char *handed;

static void grow_handed(void *arg)
{
    (void)arg;
    handed = la_realloc(handed, 300000);
}

static void threads_grow_a_block_of_another_threads_chain(void **state)
{
    (void)state;
    handed = la_malloc(100000);
    fill(handed, 100000);
    in_other_thread(grow_handed, NULL);
    assert_filled(handed, 100000);
    la_free(handed);
    la_source_trim(NULL);
    assert_heap_is_sound();
}

/* ---- errno, other pointers ---- */

static void success_and_free_keep_errno(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        void *block;

        errno = EXDEV;
        block = la_malloc(sizes[i]);
        assert_int_equal(errno, EXDEV);
        block = la_realloc(block, sizes[i] * 3);
        assert_int_equal(errno, EXDEV);
        la_free(block);
        assert_int_equal(errno, EXDEV);
        block = la_aligned_alloc(128, sizes[i]);
        la_free(block);
        assert_int_equal(errno, EXDEV);
    }
    la_source_trim(NULL);
}

static void usable_size_of_what_is_no_block_is_zero(void **state)
{
    char *small = la_malloc(100), *large = la_malloc(100000);
    int on_stack;

    (void)state;
    assert_int_equal(la_usable_size(NULL), 0);
    assert_int_equal(la_usable_size(&on_stack), 0);
    assert_int_equal(la_usable_size(small + 8), 0);
    assert_int_equal(la_usable_size(large + 16), 0);
    assert_int_equal(la_usable_size(large + 80000), 0);
    la_free(small);
    la_free(large);
    assert_int_equal(la_usable_size(large), 0);
}

/* ---- in a signal handler that interrupted an allocation ---- */

static void block_asked_for_inside_an_allocation_belongs_to_nobody(void **state)
{
    struct slow_path slow;
    struct la_stats before = { .struct_size = sizeof(before) }, after = before;
    unsigned char *small, *large;

    (void)state;
    la_source_trim(NULL);
    la_chain_stats(NULL, &before);
    slow_begin(&slow);      /* as if a slow path of this thread were under way */
    small = la_malloc(3333);
    large = la_malloc(5 * MiB);
    slow_end(&slow);
    assert_non_null(small);
    assert_non_null(large);
    assert_true(la_usable_size(small) >= 3333);
    fill(small, 3333);
    fill(large, 5 * MiB);
    la_chain_stats(NULL, &after);
    assert_int_equal(after.blocks, before.blocks);
    assert_filled(small, 3333);
    small = la_realloc(small, 50000);
    assert_filled(small, 3333);
    la_free(small);
    la_free(large);
    assert_null(region_page(large));
    assert_heap_is_sound();
}

static void block_freed_inside_an_allocation_waits_in_the_queue(void **state)
{
    struct slow_path slow;
    void *blocks[40];

    (void)state;
    for (unsigned i = 0; i < 40; i++)
        blocks[i] = la_malloc(12345);
    slow_begin(&slow);
    for (unsigned i = 0; i < 40; i++)
        la_free(blocks[i]);
    slow_end(&slow);
    assert_non_null(atomic_load(&la_tls_own->remote));
    la_source_trim(NULL);
    assert_null(atomic_load(&la_tls_own->remote));
    assert_heap_is_sound();
}

/* Whoever asks for them has a bug, which the sentence may lead to. */
static void sizes_that_no_memory_can_serve_leave_a_sentence(void **state)
{
    void *(*volatile calloc_)(size_t, size_t) = la_calloc;      /* the compiler knows better, and warns */
    void *(*volatile malloc_)(size_t) = la_malloc;
    void *(*volatile aligned)(size_t, size_t) = la_aligned_alloc;
    void *(*volatile chain_calloc)(struct la_chain *, size_t, size_t) = la_chain_calloc;
    struct la_chain *chain;

    (void)state;
    la_fail(-EIO, "an older failure");
    assert_null(calloc_(SIZE_MAX, 16));
    assert_int_equal(la_last_error_code(), -ENOMEM);
    assert_non_null(strstr(la_last_error(), "18446744073709551615 objects of 16 bytes"));
    la_fail(-EIO, "an older failure");
    assert_null(malloc_(SIZE_MAX));
    assert_int_equal(la_last_error_code(), -ENOMEM);
    assert_non_null(strstr(la_last_error(), "18446744073709551615 bytes"));
    la_fail(-EIO, "an older failure");
    assert_null(aligned(64, (size_t)-65));
    assert_int_equal(la_last_error_code(), -ENOMEM);
    la_fail(-EIO, "an older failure");
    assert_int_equal(la_chain_create(NULL, 0, &chain), 0);
    assert_null(chain_calloc(chain, SIZE_MAX, 16));
    assert_int_equal(la_last_error_code(), -ENOMEM);
    assert_int_equal(la_chain_destroy(chain), 0);
    la_fail(-EIO, "an older failure");
    assert_null(malloc_(SIZE_MAX / 4));
    assert_int_equal(la_last_error_code(), -ENOMEM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_of_every_size_hold_their_bytes),
        cmocka_unit_test(sizes_that_no_memory_can_serve_leave_a_sentence),
        cmocka_unit_test(usable_size_may_be_written_whole),
        cmocka_unit_test(zero_bytes_are_a_block_of_their_own),
        cmocka_unit_test(block_freed_last_is_handed_out_first),
        cmocka_unit_test(sizes_that_overflow_are_refused),
        cmocka_unit_test(calloc_clears_what_was_used_before),
        cmocka_unit_test(every_power_of_two_is_an_alignment),
        cmocka_unit_test(user_buffer_aligns_up_to_its_own_size),
        cmocka_unit_test(alignment_that_is_no_power_of_two_is_refused),
        cmocka_unit_test(realloc_keeps_the_content_from_any_size_to_any),
        cmocka_unit_test(grown_aligned_block_never_overlaps_its_neighbour),
        cmocka_unit_test(the_same_holds_in_a_small_buffer),
        cmocka_unit_test(large_block_grows_in_place_when_there_is_room),
        cmocka_unit_test(block_that_shrinks_a_little_stays),
        cmocka_unit_test(block_that_grows_bit_by_bit_moves_seldom),
        cmocka_unit_test(growing_block_takes_what_it_needs_of_a_full_buffer),
        cmocka_unit_test(realloc_of_null_allocates),
        cmocka_unit_test(realloc_that_fails_keeps_the_old_block),
        cmocka_unit_test(block_that_moves_lands_in_the_chain_asked_for),
        cmocka_unit_test(threads_grow_a_block_of_another_threads_chain),
        cmocka_unit_test(success_and_free_keep_errno),
        cmocka_unit_test(usable_size_of_what_is_no_block_is_zero),
        cmocka_unit_test(block_asked_for_inside_an_allocation_belongs_to_nobody),
        cmocka_unit_test(block_freed_inside_an_allocation_waits_in_the_queue),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
