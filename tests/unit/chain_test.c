/*
 * chain_test.c - chains over user buffers and sources: made, filled to the last block, reset, ended.
 *
 * The ancestor returned NULL for every allocation in a user buffer above 2 MiB, and refused two buffers in one 2 MiB slot.
 */
#include "engine.h"

#include "core/region_map.h"
#include "core/thread.h"
#include "core/types.h"

enum { MAX_BLOCKS = 200000 };

static void *blocks[MAX_BLOCKS];

static struct la_chain *chain_in(struct fenced *f)
{
    struct la_chain *chain = NULL;

    assert_int_equal(la_chain_create_in(f->buffer, f->size, 0, &chain), 0);
    assert_non_null(chain);
    return chain;
}

static bool lies_in(const struct fenced *f, const void *block, size_t size)
{
    return (unsigned char *)block >= f->buffer && (unsigned char *)block + size <= f->buffer + f->size;
}

/* Blocks of @size until the chain is full, each written whole; returns how many. */
static unsigned fill(struct fenced *f, struct la_chain *chain, size_t size)
{
    unsigned n = 0;

    errno = 0;
    for (void *block; n < MAX_BLOCKS && (block = la_chain_alloc(chain, size)) != NULL; n++) {
        assert_true(lies_in(f, block, size));
        assert_int_equal((uintptr_t)block % (size < 16 ? 8 : 16), 0);
        memset(block, (int)(n % 255) + 1, size);
        blocks[n] = block;
    }
    assert_int_equal(errno, ENOMEM);
    return n;
}

/* Free what fill() made; a block that another overlapped has lost its content. */
static void empty(unsigned n, size_t size)
{
    for (unsigned i = 0; i < n; i++) {
        for (size_t j = 0; j < size; j += size > 4096 ? 1024 : 1)
            assert_int_equal(((unsigned char *)blocks[i])[j], i % 255 + 1);
        assert_int_equal(((unsigned char *)blocks[i])[size - 1], i % 255 + 1);
        la_free(blocks[i]);
    }
}

/* The largest block that the chain can serve now, to a 256th of the buffer. */
static size_t largest_block(const struct fenced *f, struct la_chain *chain)
{
    for (size_t size = f->size; size >= f->size / 256; size -= f->size / 256) {
        void *block = la_chain_alloc(chain, size);

        if (block) {
            la_free(block);
            return size;
        }
    }
    return 0;
}

/* Fill with each size, empty: the largest block of a fresh chain is to be had again, and as many of this size. */
static void assert_serves_fully_again_and_again(struct fenced *f, const size_t *sizes, unsigned count)
{
    struct la_chain *chain = chain_in(f);
    size_t largest = largest_block(f, chain);

    assert_true(largest > f->size / 8);
    la_default_set(chain);
    for (unsigned i = 0; i < count; i++) {
        unsigned n = fill(f, chain, sizes[i]);

        assert_true(n > 0);
        assert_true(fenced_is_intact(f));
        empty(n, sizes[i]);
        assert_int_equal(largest_block(f, chain), largest);
        n = fill(f, chain, sizes[i]);
        empty(n, sizes[i]);
        assert_int_equal(fill(f, chain, sizes[i]), n);
        empty(n, sizes[i]);
        assert_chain_is_sound(chain);
    }
    la_default_set(NULL);
    assert_int_equal(la_chain_destroy(chain), 0);
}

/* ---- user buffers ---- */

static void static_buffer_of_16_kib_is_a_heap_at_any_alignment(void **state)
{
    static const size_t sizes[] = { 1, 8, 24, 100, 256, 700, 1500, 16, 64 };

    (void)state;
    for (size_t offset = 0; offset <= 64; offset++) {
        struct fenced f = fenced_new(LA_CHAIN_MIN_SIZE, offset);

        assert_serves_fully_again_and_again(&f, sizes, ARRAY_SIZE(sizes));
        fenced_free(&f);
    }
}

static void buffer_of_16_kib_holds_a_few_kib_of_blocks(void **state)
{
    static char memory[LA_CHAIN_MIN_SIZE];
    struct la_chain *chain;
    size_t bytes = 0;

    (void)state;
    assert_int_equal(la_chain_create_in(memory, sizeof(memory), 0, &chain), 0);
    while (la_chain_alloc(chain, 32))
        bytes += 32;
    print_message("%zu bytes of %zu\n", bytes, sizeof(memory));
    assert_true(bytes >= 4096);
    assert_int_equal(la_chain_destroy(chain), 0);
}

static void buffers_of_odd_sizes_are_used_to_their_end_and_not_beyond(void **state)
{
    static const size_t sizes[] = { 100, 5000, 40000, 200000, 24 };
    static const size_t buffers[] = { 40001, 64 * KiB, 300 * KiB + 77, MiB, 2 * MiB - 1 };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(buffers); i++) {
        struct fenced f = fenced_new(buffers[i], 13 * i);
        unsigned n = buffers[i] < 200 * KiB ? 2 : buffers[i] < MiB ? 3 : 4;

        assert_serves_fully_again_and_again(&f, sizes, n);
        fenced_free(&f);
    }
}

/* Regression of the ancestor: every allocation in a buffer above 2 MiB failed, or looped for ever. */
static void buffers_above_2_mib_serve_small_large_and_huge_blocks(void **state)
{
    static const size_t sizes[] = { 64, 1000, 30000, 100000, MiB };
    static const size_t huge[] = { 3 * MiB, 64 };
    static const size_t buffers[] = { 2 * MiB, 2 * MiB + 1, 2 * MiB + 4097, 3 * MiB + 12345, 9 * MiB };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(buffers); i++) {
        struct fenced f = fenced_new(buffers[i], 100 * i);

        assert_serves_fully_again_and_again(&f, sizes, ARRAY_SIZE(sizes));
        if (buffers[i] > 8 * MiB)
            assert_serves_fully_again_and_again(&f, huge, ARRAY_SIZE(huge));
        fenced_free(&f);
    }
}

static void mixed_sizes_leave_a_buffer_whole(void **state)
{
    struct fenced f = fenced_new(5 * MiB + 99, 3);
    struct la_chain *chain = chain_in(&f);
    struct la_stats stats = { .struct_size = sizeof(stats) };
    uint64_t random = 12345;

    (void)state;
    la_default_set(chain);
    memset(blocks, 0, 1000 * sizeof(*blocks));
    for (unsigned i = 0; i < 20000; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        unsigned at = random >> 33 & 511;
        la_free(blocks[at]);
        blocks[at] = la_chain_alloc(chain, (size_t)1 << (random >> 50 & 15));
        if (blocks[at])
            memset(blocks[at], 1, (size_t)1 << (random >> 50 & 15));
    }
    for (unsigned i = 0; i < 512; i++)
        la_free(blocks[i]);
    assert_int_equal(la_chain_stats(chain, &stats), 0);
    la_default_set(NULL);
    assert_int_equal(stats.blocks, 0);
    assert_int_equal(stats.allocated, 0);
    assert_chain_is_sound(chain);
    assert_int_equal(la_chain_destroy(chain), 0);
    fenced_free(&f);
}

static void wrong_buffers_are_refused_and_the_result_is_untouched(void **state)
{
    static char memory[LA_CHAIN_MIN_SIZE];
    struct la_chain *chain = (struct la_chain *)memory;

    (void)state;
    memset(memory, CANARY, sizeof(memory));
    assert_int_equal(la_chain_create_in(NULL, MiB, 0, &chain), -EINVAL);
    assert_int_equal(la_chain_create_in(memory, LA_CHAIN_MIN_SIZE - 1, 0, &chain), -ENOSPC);
    assert_int_equal(la_chain_create_in(memory, 0, 0, &chain), -ENOSPC);
    assert_int_equal(la_chain_create_in(memory, SIZE_MAX, 0, &chain), -ENOSPC);
    assert_int_equal(la_chain_create_in(memory, sizeof(memory), 4, &chain), -EINVAL);
    assert_ptr_equal(chain, memory);
    for (size_t i = 0; i < sizeof(memory); i++)
        assert_int_equal((unsigned char)memory[i], CANARY);
    assert_non_null(la_last_error());
}

/* Refused before a byte of the block is written. */
static void a_block_of_a_small_buffer_is_no_buffer(void **state)
{
    struct fenced f = fenced_new(512 * KiB, 8);
    struct la_chain *chain = chain_in(&f), *nested = NULL;
    unsigned char *block = la_chain_alloc(chain, 64 * KiB);

    (void)state;
    assert_non_null(block);
    memset(block, 'a', 64 * KiB);
    assert_int_equal(la_chain_create_in(block, 64 * KiB, 0, &nested), -EEXIST);
    assert_non_null(strstr(la_last_error(), "2 MiB"));
    assert_null(nested);
    for (unsigned i = 0; i < 64 * KiB; i++)
        assert_int_equal(block[i], 'a');
    assert_int_equal(la_chain_destroy(chain), 0);
    assert_true(fenced_is_intact(&f));
    fenced_free(&f);
}

static void assert_second_chain_is_refused(size_t size, size_t shift, size_t length)
{
    struct fenced f = fenced_new(size, 8);
    struct la_chain *chain = chain_in(&f), *second = NULL;
    char *block = la_chain_alloc(chain, 1000), *after;

    assert_non_null(block);
    memset(block, 'a', 1000);
    assert_int_equal(la_chain_create_in(f.buffer + shift, length, 0, &second), -EEXIST);
    assert_null(second);
    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(block[i], 'a');
    after = la_chain_alloc(chain, 1000);
    assert_non_null(after);
    assert_true(after + 1000 <= block || block + 1000 <= after);
    la_free(after);
    la_free(block);
    assert_chain_is_sound(chain);
    assert_heap_is_sound();
    assert_int_equal(la_chain_destroy(chain), 0);
    /* The memory is nobody's now. */
    chain = chain_in(&f);
    assert_int_equal(la_chain_destroy(chain), 0);
    fenced_free(&f);
}

static void buffer_given_twice_is_refused_and_the_first_chain_works_on(void **state)
{
    (void)state;
    assert_second_chain_is_refused(LA_CHAIN_MIN_SIZE, 0, LA_CHAIN_MIN_SIZE);
    assert_second_chain_is_refused(256 * KiB, 0, 256 * KiB);
    assert_second_chain_is_refused(256 * KiB, 200 * KiB, 56 * KiB);     /* its end */
    assert_second_chain_is_refused(3 * MiB, 0, 3 * MiB);
    assert_second_chain_is_refused(8 * MiB, 0, 32 * KiB);               /* a small one over the descriptors of a large one */
    assert_second_chain_is_refused(8 * MiB, 5 * MiB, 3 * MiB);
}

static void several_buffers_live_in_one_window_of_64_kib(void **state)
{
    struct fenced f = fenced_new(4 * 16 * KiB, 0);
    struct la_chain *chains[4];
    void *block[4];

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(la_chain_create_in(f.buffer + i * 16 * KiB, 16 * KiB, 0, &chains[i]), 0);
        block[i] = la_chain_alloc(chains[i], 50);
        assert_non_null(block[i]);
    }
    for (unsigned i = 0; i < 4; i++) {
        struct la_owner owner = { .struct_size = sizeof(owner) };
        assert_int_equal(la_owner_of((char *)block[i] + 10, &owner), 0);
        assert_ptr_equal(owner.chain, chains[i]);
        assert_ptr_equal(owner.block, block[i]);
    }
    for (unsigned i = 0; i < 4; i++) {
        la_free(block[i]);
        assert_int_equal(la_chain_destroy(chains[i]), 0);
    }
    assert_ptr_equal(region_entry(f.buffer), &la_region.none);
    fenced_free(&f);
}

static void assert_nests(size_t outer_size, size_t inner_size)
{
    struct la_chain *outer = NULL, *inner;
    unsigned char *memory;
    void *block;

    assert_int_equal(la_chain_create(NULL, 0, &outer), 0);
    memory = la_chain_alloc(outer, outer_size);
    memset(memory, CANARY, outer_size);
    assert_int_equal(la_chain_create_in(memory + 100, inner_size, 0, &inner), 0);
    block = la_chain_alloc(inner, 700);
    assert_non_null(block);
    assert_int_equal(la_usable_size(memory) >= outer_size, true);
    la_free(block);
    assert_chain_is_sound(inner);
    assert_chain_is_sound(outer);
    assert_int_equal(la_chain_destroy(inner), 0);
    for (size_t i = 0; i < 100; i++)
        assert_int_equal(memory[i], CANARY);
    for (size_t i = 100 + inner_size; i < outer_size; i++)
        assert_int_equal(memory[i], CANARY);
    la_free(memory);
    assert_chain_is_sound(outer);
    assert_int_equal(la_chain_destroy(outer), 0);
}

static void buffer_may_be_a_block_of_another_chain(void **state)
{
    (void)state;
    assert_nests(17 * KiB, 16 * KiB);       /* inside a small block */
    assert_nests(200 * KiB, 100 * KiB);     /* a large one */
    assert_nests(5 * MiB, 100 * KiB);       /* a huge one */
    assert_nests(5 * MiB, 4 * MiB);         /* with 64 KiB slices of its own */
}

static void buffer_inside_a_block_of_a_large_buffer_is_allowed(void **state)
{
    struct fenced f = fenced_new(16 * MiB, 0);
    struct la_chain *outer = chain_in(&f), *inner;
    char *memory = la_chain_alloc(outer, 6 * MiB);

    (void)state;
    assert_int_equal(la_chain_create_in(memory, 4 * MiB, 0, &inner), 0);
    assert_non_null(la_chain_alloc(inner, 100000));
    assert_int_equal(la_chain_destroy(inner), 0);
    la_free(memory);
    assert_int_equal(la_chain_destroy(outer), 0);
    fenced_free(&f);
}

static void destroyed_buffer_leaves_nothing_in_the_region_map(void **state)
{
    static const size_t sizes[] = { 20 * KiB, MiB, 3 * MiB, 10 * MiB };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        struct fenced f = fenced_new(sizes[i], 5);
        struct la_chain *chain = chain_in(&f);

        fill(&f, chain, 500);
        assert_int_equal(la_chain_destroy(chain), 0);
        for (size_t at = 0; at < sizes[i]; at += 4 * KiB)
            assert_null(region_page(f.buffer + at));
        fenced_free(&f);
    }
}

/* ---- reset ---- */

static void reset_frees_everything_at_once(void **state)
{
    static const size_t buffers[] = { 16 * KiB, 500 * KiB, 3 * MiB + 1000, 12 * MiB };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(buffers); i++) {
        struct fenced f = fenced_new(buffers[i], 0);
        struct la_chain *chain = chain_in(&f);
        struct la_stats stats = { .struct_size = sizeof(stats) };
        unsigned n = fill(&f, chain, 200);

        for (int round = 0; round < 3; round++) {
            assert_int_equal(la_chain_reset(chain), 0);
            assert_int_equal(la_chain_stats(chain, &stats), 0);
            assert_int_equal(stats.blocks, 0);
            assert_int_equal(fill(&f, chain, 200), n);
            assert_chain_is_sound(chain);
        }
        assert_int_equal(la_chain_destroy(chain), 0);
        fenced_free(&f);
    }
}

static void reset_of_a_chain_over_the_source_gives_its_macro_blocks_back(void **state)
{
    struct la_chain *chain = NULL;
    struct la_stats stats = { .struct_size = sizeof(stats) };

    (void)state;
    assert_int_equal(la_chain_create(NULL, 0, &chain), 0);
    for (int round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 3000; i++)
            assert_non_null(la_chain_alloc(chain, i * 7 % 40000 + 1));
        assert_non_null(la_chain_alloc(chain, 10 * MiB));
        assert_chain_is_sound(chain);
        assert_int_equal(la_chain_reset(chain), 0);
        assert_int_equal(la_chain_stats(chain, &stats), 0);
        assert_int_equal(stats.blocks + stats.macro_blocks + stats.huge_blocks + stats.mapped, 0);
        assert_heap_is_sound();
    }
    assert_int_equal(la_chain_destroy(chain), 0);
}

/* The last macro block of a buffer is short: clearing 32 slices of it would reach into whoever lies behind. */
static void reset_does_not_touch_the_chain_behind_the_buffer(void **state)
{
    struct fenced f = fenced_new(9 * MiB, 0);
    struct la_chain *first, *behind;
    void *block;

    (void)state;
    assert_int_equal(la_chain_create_in(f.buffer, 3 * MiB, 0, &first), 0);
    assert_int_equal(la_chain_create_in(f.buffer + 3 * MiB, 6 * MiB, 0, &behind), 0);
    block = la_chain_alloc(behind, 100);
    while (la_chain_alloc(first, 60000))
        ;
    assert_int_equal(la_chain_reset(first), 0);
    assert_true(la_usable_size(block) >= 100);
    assert_chain_is_sound(behind);
    assert_int_equal(la_chain_destroy(first), 0);
    assert_int_equal(la_chain_destroy(behind), 0);
    fenced_free(&f);
}

/* ---- thread-safe chains ---- */

static void allocate_and_free(void *arg)
{
    struct la_chain *chain = arg;
    void *mine[64] = { NULL };

    for (unsigned i = 0; i < 5000; i++) {
        unsigned at = i * 37 % 64;

        la_free(mine[at]);
        mine[at] = la_chain_alloc(chain, i * 13 % 3000 + 1);
        if (mine[at])
            memset(mine[at], 1, i * 13 % 3000 + 1);
    }
    for (unsigned i = 0; i < 64; i++)
        la_free(mine[i]);
}

static void assert_threads_share(struct la_chain *chain)
{
    struct thread_body_ body = { allocate_and_free, chain };
    struct la_stats stats = { .struct_size = sizeof(stats) };
    pthread_t threads[3];

    for (unsigned i = 0; i < ARRAY_SIZE(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, run_body_, &body), 0);
    for (unsigned i = 0; i < ARRAY_SIZE(threads); i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(la_chain_stats(chain, &stats), 0);
    assert_int_equal(stats.blocks, 0);
    assert_chain_is_sound(chain);
    assert_int_equal(la_chain_destroy(chain), 0);
}

static void threads_share_a_thread_safe_chain(void **state)
{
    static char small[100 * KiB];
    struct fenced f = fenced_new(4 * MiB, 0);
    struct la_chain *chain;

    (void)state;
    assert_int_equal(la_chain_create(NULL, LA_CHAIN_MT, &chain), 0);
    assert_threads_share(chain);
    assert_int_equal(la_chain_create_in(small, sizeof(small), LA_CHAIN_MT, &chain), 0);
    assert_threads_share(chain);
    assert_int_equal(la_chain_create_in(f.buffer, f.size, LA_CHAIN_MT, &chain), 0);
    assert_threads_share(chain);
    fenced_free(&f);
}

static void fast_path_never_serves_a_thread_safe_chain(void **state)
{
    struct la_chain *chain = NULL;
    void *block;

    (void)state;
    assert_int_equal(la_chain_create(NULL, LA_CHAIN_MT, &chain), 0);
    block = la_chain_alloc(chain, 100);
    la_free(block);
    for (unsigned c = 0; c < SMALL_CLASSES; c++) {
        assert_ptr_equal(*chain->fast[c].top, &la_no_block);
        assert_ptr_equal(chain->fast[c].top, chain->fast[c].last);
    }
    assert_null(atomic_load(&region_page(block)->fast_chain));
    assert_int_equal(la_chain_destroy(chain), 0);
}

/* ---- life ---- */

static void blocks_of_a_destroyed_chain_are_foreign(void **state)
{
    struct la_chain *chain = NULL;
    void *small, *large, *huge;

    (void)state;
    assert_int_equal(la_chain_create(NULL, 0, &chain), 0);
    small = la_chain_alloc(chain, 10);
    large = la_chain_alloc(chain, 100000);
    huge = la_chain_alloc(chain, 5 * MiB);
    assert_int_equal(la_chain_destroy(chain), 0);
    assert_int_equal(la_usable_size(small) + la_usable_size(large) + la_usable_size(huge), 0);
    assert_heap_is_sound();
}

static void many_chains_come_and_go_without_growth(void **state)
{
    size_t mapped = 0;

    (void)state;
    for (unsigned i = 0; i < 2000; i++) {
        struct la_chain *chain = NULL;

        assert_int_equal(la_chain_create(NULL, i & 1 ? LA_CHAIN_MT : 0, &chain), 0);
        for (unsigned j = 0; j < 50; j++)
            assert_non_null(la_chain_alloc(chain, j * 100 + 1));
        assert_int_equal(la_chain_destroy(chain), 0);
        if (i == 10)
            mapped = la_source_default()->mapped;
    }
    assert_int_equal(la_source_default()->mapped, mapped);
    assert_heap_is_sound();
}

static void threads_own_chain_can_be_neither_reset_nor_destroyed(void **state)
{
    (void)state;
    la_free(la_malloc(1));
    assert_int_equal(la_chain_reset(la_tls_own), -EINVAL);
    assert_int_equal(la_chain_destroy(la_tls_own), -EINVAL);
    assert_int_equal(la_chain_destroy(NULL), 0);
}

static void name_is_cut_to_31_bytes(void **state)
{
    struct la_chain *chain = NULL;

    (void)state;
    assert_int_equal(la_chain_create(NULL, 0, &chain), 0);
    la_chain_name(chain, "a name that is far longer than anybody needs it");
    assert_int_equal(strlen(chain->name), 31);
    la_chain_name(chain, "short");
    assert_string_equal(chain->name, "short");
    la_chain_name(chain, NULL);
    assert_string_equal(chain->name, "");
    assert_int_equal(la_chain_destroy(chain), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(static_buffer_of_16_kib_is_a_heap_at_any_alignment),
        cmocka_unit_test(buffer_of_16_kib_holds_a_few_kib_of_blocks),
        cmocka_unit_test(buffers_of_odd_sizes_are_used_to_their_end_and_not_beyond),
        cmocka_unit_test(buffers_above_2_mib_serve_small_large_and_huge_blocks),
        cmocka_unit_test(mixed_sizes_leave_a_buffer_whole),
        cmocka_unit_test(wrong_buffers_are_refused_and_the_result_is_untouched),
        cmocka_unit_test(buffer_given_twice_is_refused_and_the_first_chain_works_on),
        cmocka_unit_test(a_block_of_a_small_buffer_is_no_buffer),
        cmocka_unit_test(several_buffers_live_in_one_window_of_64_kib),
        cmocka_unit_test(buffer_may_be_a_block_of_another_chain),
        cmocka_unit_test(buffer_inside_a_block_of_a_large_buffer_is_allowed),
        cmocka_unit_test(destroyed_buffer_leaves_nothing_in_the_region_map),
        cmocka_unit_test(reset_frees_everything_at_once),
        cmocka_unit_test(reset_of_a_chain_over_the_source_gives_its_macro_blocks_back),
        cmocka_unit_test(reset_does_not_touch_the_chain_behind_the_buffer),
        cmocka_unit_test(threads_share_a_thread_safe_chain),
        cmocka_unit_test(fast_path_never_serves_a_thread_safe_chain),
        cmocka_unit_test(blocks_of_a_destroyed_chain_are_foreign),
        cmocka_unit_test(many_chains_come_and_go_without_growth),
        cmocka_unit_test(threads_own_chain_can_be_neither_reset_nor_destroyed),
        cmocka_unit_test(name_is_cut_to_31_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
