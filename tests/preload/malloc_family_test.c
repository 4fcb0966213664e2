/*
 * The contract of every function of the malloc family, called as a program calls it: under preload, by its libc name.
 * "MPC" marks what the MPC allocator (S. Valat, 2012 to 2024) got wrong when it was measured as a preload library.
 */
#include "support.h"

#include <errno.h>
#include <sys/resource.h>

/* ---- alignment, size, overlap ---- */

static size_t natural_alignment(size_t size)
{
    return size > 8 ? 16 : 8;
}

static void every_size_is_aligned_and_its_own(void **state)
{
    enum { EXACT = 5000, POWERS = 26, COUNT = EXACT + 3 * POWERS };
    static void *blocks[COUNT];
    static size_t sizes[COUNT];
    unsigned n = 0;

    (void)state;
    for (size_t size = 0; size < EXACT; size++)
        sizes[n++] = size;
    for (unsigned shift = 0; shift < POWERS; shift++)
        for (size_t around = 0; around < 3; around++)
            sizes[n++] = ((size_t)1 << shift) + around - 1;
    for (unsigned i = 0; i < n; i++) {
        blocks[i] = malloc(sizes[i]);
        assert_non_null(blocks[i]);
        assert_true(is_aligned(blocks[i], natural_alignment(sizes[i])));
        assert_true(malloc_usable_size(blocks[i]) >= sizes[i]);
        /* All that is called usable is. MPC: no malloc_usable_size, glibc's crashed on its blocks. */
        fill(blocks[i], malloc_usable_size(blocks[i]), i);
    }
    for (unsigned i = 0; i < n; i++) {
        assert_true(is_filled(blocks[i], malloc_usable_size(blocks[i]), i));
        free(blocks[i]);
    }
}

static void *by_posix_memalign(size_t alignment, size_t size)
{
    void *block = NULL;

    assert_int_equal(posix_memalign(&block, alignment, size), 0);
    return block;
}

static void aligned_blocks_are_aligned_and_their_own(void **state)
{
    void *(*const makers[])(size_t, size_t) = { by_posix_memalign, aligned_alloc, memalign };
    const size_t sizes[] = { 0, 1, 8, 100, 4096, 5000, 70000, 3 * MiB };
    enum { SHIFTS = 20 };       /* 8 B to 4 MiB */
    void *blocks[3 * SHIFTS * 8];
    unsigned n = 0;

    (void)state;
    for (unsigned shift = 3; shift < 3 + SHIFTS; shift++)
        for (unsigned maker = 0; maker < 3; maker++)
            for (unsigned s = 0; s < 8; s++) {
                size_t alignment = (size_t)1 << shift;
                void *block = makers[maker](alignment, sizes[s]);

                assert_non_null(block);
                assert_true(is_aligned(block, alignment));
                assert_true(malloc_usable_size(block) >= sizes[s]);
                fill(block, malloc_usable_size(block), n);
                blocks[n++] = block;
            }
    for (unsigned i = 0; i < n; i++) {
        assert_true(is_filled(blocks[i], malloc_usable_size(blocks[i]), i));
        free(blocks[i]);
    }
}

/* MPC accepted 3 and 24. */
static void posix_memalign_refuses_other_alignments(void **state)
{
    const size_t wrong[] = { 0, 1, 2, 3, 4, 7, 12, 24, 4095, SIZE_MAX };

    (void)state;
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        void *block = (void *)0x1234;

        errno = 77;
        assert_int_equal(posix_memalign(&block, wrong[i], 100), EINVAL);
        assert_ptr_equal(block, (void *)0x1234);
        assert_int_equal(errno, 77);
    }
}

static void posix_memalign_reports_exhaustion_by_its_result(void **state)
{
    void *block = (void *)0x1234;

    (void)state;
    errno = 77;
    assert_int_equal(posix_memalign(&block, 64, opaque_size(SIZE_MAX - 100)), ENOMEM);
    assert_int_equal(posix_memalign(&block, (size_t)1 << 62, 100), ENOMEM);
    assert_ptr_equal(block, (void *)0x1234);
    assert_int_equal(errno, 77);
}

static void aligned_alloc_refuses_what_is_no_power_of_two(void **state)
{
    const size_t wrong[] = { 0, 3, 24, 4097 };

    (void)state;
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        errno = 0;
        assert_null(opaque(aligned_alloc(opaque_size(wrong[i]), 100)));
        assert_int_equal(errno, EINVAL);
    }
}

static void memalign_rounds_the_alignment_up(void **state)
{
    void *block = memalign(opaque_size(3000), 100);

    (void)state;
    assert_non_null(block);
    assert_true(is_aligned(block, 4096));
    free(block);
    block = memalign(opaque_size(0), 100);
    assert_non_null(block);
    free(block);
    errno = 0;
    assert_null(opaque(memalign(opaque_size(SIZE_MAX / 2 + 2), 100)));
    assert_int_equal(errno, EINVAL);
}

static void valloc_and_pvalloc_give_whole_pages(void **state)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t sizes[] = { 0, 1, 4095, 4096, 4097, 3 * MiB + 1 };

    (void)state;
    for (unsigned i = 0; i < 6; i++) {
        void *block = valloc(sizes[i]), *rounded = pvalloc(sizes[i]);

        assert_true(block && is_aligned(block, page));
        assert_true(rounded && is_aligned(rounded, page));
        assert_true(malloc_usable_size(rounded) >= (sizes[i] + page - 1) / page * page);
        fill(rounded, malloc_usable_size(rounded), i);
        free(block);
        free(rounded);
    }
}

static void a_size_of_zero_gives_blocks_of_their_own(void **state)
{
    void *first = opaque(malloc(0)), *second = opaque(malloc(0)), *third = opaque(calloc(0, 5)), *fourth = opaque(calloc(5, 0));

    (void)state;
    assert_true(first && second && third && fourth);
    assert_ptr_not_equal(first, second);
    assert_ptr_not_equal(third, fourth);
    free(first);
    free(second);
    free(third);
    free(fourth);
}

/* ---- too much ---- */

/* MPC: calloc returned a block, malloc(64 TiB) crashed. */
static void sizes_that_overflow_give_null(void **state)
{
    const size_t half = SIZE_MAX / 2 + 1;

    (void)state;
#define assert_enomem(call) do { errno = 0; assert_null(opaque(call)); assert_int_equal(errno, ENOMEM); } while (0)
    assert_enomem(malloc(opaque_size(SIZE_MAX)));
    assert_enomem(malloc(opaque_size(SIZE_MAX - 4096)));
    assert_enomem(malloc(opaque_size(half)));
    assert_enomem(malloc(opaque_size(half - 1)));
    assert_enomem(calloc(opaque_size(half), 2));
    assert_enomem(calloc(opaque_size((size_t)1 << 33), (size_t)1 << 33));
    assert_enomem(calloc(opaque_size(SIZE_MAX), opaque_size(SIZE_MAX)));
    assert_enomem(realloc(NULL, opaque_size(SIZE_MAX - 1)));
    assert_enomem(reallocarray(NULL, opaque_size(half), 2));
    assert_enomem(reallocarray(NULL, opaque_size(SIZE_MAX / 16), 17));
    assert_enomem(aligned_alloc(4096, opaque_size(SIZE_MAX - 4094)));
    assert_enomem(memalign(64 * KiB, opaque_size(SIZE_MAX - 64 * KiB)));
    assert_enomem(valloc(opaque_size(SIZE_MAX)));
    assert_enomem(pvalloc(opaque_size(SIZE_MAX)));
    assert_enomem(pvalloc(opaque_size(SIZE_MAX - 4094)));
}

static void more_than_the_machine_has_gives_null(void **state)
{
    FILE *file = fopen("/proc/sys/vm/overcommit_memory", "r");
    int policy = file ? fgetc(file) : '0';

    (void)state;
    if (file)
        fclose(file);
    assert_enomem(malloc(opaque_size(256 * TiB)));      /* more than the address space */
    assert_enomem(calloc(opaque_size(256 * KiB), GiB));
    if (policy == '1')
        return;     /* the machine's owner wants every request granted that has an address */
    assert_enomem(malloc(opaque_size(64 * TiB)));
    assert_enomem(calloc(opaque_size(64 * KiB), GiB));
    assert_enomem(aligned_alloc(64, opaque_size(64 * TiB)));
}

static void failed_realloc_leaves_the_block(void **state)
{
    const size_t sizes[] = { 1, 100, 5000, 100000, 5 * MiB };

    (void)state;
    for (unsigned i = 0; i < 5; i++) {
        char *block = malloc(sizes[i]);

        fill(block, sizes[i], i);
        assert_enomem(realloc(opaque(block), opaque_size(SIZE_MAX - 5)));
        assert_enomem(realloc(opaque(block), opaque_size(256 * TiB)));
        assert_enomem(reallocarray(opaque(block), opaque_size(SIZE_MAX / 2), 3));
        assert_true(is_filled(block, sizes[i], i));
        free(block);
    }
}

/* ---- content ---- */

/* Dirty memory of every way back (bin, page, macro block, mapping) must come out clean. */
static void calloc_clears_what_was_used_before(void **state)
{
    const size_t sizes[] = { 1, 8, 24, 500, 1024, 4096, 30000, 40000, 200 * KiB, MiB, 3 * MiB, 20 * MiB };

    (void)state;
    for (unsigned round = 0; round < 3; round++)
        for (unsigned i = 0; i < 12; i++) {
            size_t size = sizes[i];
            unsigned count = size < MiB ? 20 : 3;
            unsigned char *blocks[20];

            for (unsigned k = 0; k < count; k++) {
                blocks[k] = malloc(size);
                memset(blocks[k], 0xa5, malloc_usable_size(blocks[k]));
            }
            for (unsigned k = 0; k < count; k++)
                free(blocks[k]);
            for (unsigned k = 0; k < count; k++) {
                blocks[k] = calloc(1, size);
                assert_true(blocks[k][0] == 0 && memcmp(blocks[k], blocks[k] + 1, size - 1) == 0);
            }
            for (unsigned k = 0; k < count; k++)
                free(blocks[k]);
        }
}

static void numbered(uint32_t *words, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++)
        words[i] = (uint32_t)(i * 2654435761u);
}

static bool are_numbered(const uint32_t *words, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (words[i] != (uint32_t)(i * 2654435761u))
            return false;
    return true;
}

static void realloc_keeps_the_content(void **state)
{
    const size_t sizes[] = { 8, 16, 100, 60, 1000, 4000, 33000, 32000, 70000, 300000, 2100000, 2000000, 5000000, 40000000, 39000000,
                             3000000, 2000000, 100000, 40, 9000000, 8, 2097152, 4194304 };
    uint32_t *words = NULL;
    size_t held = 0;

    (void)state;
    for (unsigned round = 0; round < 2; round++)
        for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            size_t count = sizes[i] / 4;

            words = realloc(words, sizes[i]);
            assert_non_null(words);
            assert_true(malloc_usable_size(words) >= sizes[i]);
            assert_true(are_numbered(words, held < count ? held : count));
            if (count > held)
                numbered(words, held, count);
            held = count;
        }
    free(words);
}

/* MPC: realloc() in place forgot the alignment's padding and ran over the next block, 14 times in 20. */
static void realloc_after_memalign_spares_the_neighbours(void **state)
{
    enum { TRIES = 200 };
    char *aligned[TRIES], *neighbours[TRIES];

    (void)state;
    for (unsigned i = 0; i < TRIES; i++) {
        aligned[i] = memalign(4096, 100);
        neighbours[i] = malloc(100 + i * 40);
        fill(aligned[i], 100, i);
        fill(neighbours[i], malloc_usable_size(neighbours[i]), i + 1);
    }
    for (unsigned i = 0; i < TRIES; i++) {
        char *moved = realloc(aligned[i], 3000 + i);

        assert_non_null(moved);
        aligned[i] = moved;
        assert_true(is_filled(aligned[i], 100, i));
        fill(aligned[i], malloc_usable_size(aligned[i]), i + 2);
    }
    for (unsigned i = 0; i < TRIES; i++) {
        assert_true(is_filled(neighbours[i], malloc_usable_size(neighbours[i]), i + 1));
        assert_true(is_filled(aligned[i], malloc_usable_size(aligned[i]), i + 2));
        free(neighbours[i]);
        free(aligned[i]);
    }
}

static long page_faults(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_minflt;
}

/* MPC: more than a minute, each step a copy. One page is touched per step, so copies would show as page faults. */
static void a_large_block_grows_without_copies(void **state)
{
    const size_t step = 2 * MiB, end = 512 * MiB;
    long before = page_faults();
    char *block = NULL;

    (void)state;
    for (size_t size = step; size <= end; size += step) {
        block = realloc(block, size);
        assert_non_null(block);
        block[size - 1] = (char)(size / step);
    }
    assert_true(page_faults() - before < 20 * (long)(end / step));
    for (size_t size = step; size <= end; size += step)
        assert_int_equal(block[size - 1], (char)(size / step));
    free(block);
}

static void realloc_without_block_or_size(void **state)
{
    char *block = opaque(realloc(NULL, 100));

    (void)state;
    assert_non_null(block);
    fill(block, 100, 1);
    errno = 77;
    assert_null(opaque(realloc(block, opaque_size(0))));    /* glibc: freed, and no error */
    assert_int_equal(errno, 77);
    block = opaque(realloc(NULL, opaque_size(0)));          /* malloc(0) */
    assert_non_null(block);
    free(block);
    block = opaque(reallocarray(NULL, 10, 10));
    assert_non_null(block);
    block = opaque(reallocarray(block, 1000, 10));
    assert_non_null(block);
    free(block);
}

/* ---- errno, odds and ends ---- */

static void success_and_free_keep_errno(void **state)
{
    const size_t sizes[] = { 1, 100, 5000, 100000, 5 * MiB, 300 * MiB };

    (void)state;
    for (unsigned round = 0; round < 2; round++)
        for (unsigned i = 0; i < 6; i++) {
            void *block, *aligned;

            errno = 77;
            block = opaque(malloc(sizes[i]));
            aligned = opaque(aligned_alloc(256, sizes[i]));
            assert_true(block && aligned);
            block = opaque(realloc(block, sizes[i] * 2));
            free(block);
            free(aligned);
            free(opaque(calloc(3, sizes[i])));
            free(NULL);
            assert_int_equal(errno, 77);
        }
    malloc_trim(0);
    assert_int_equal(errno, 77);
}

static void usable_size_of_nothing_is_zero(void **state)
{
    (void)state;
    assert_int_equal(malloc_usable_size(NULL), 0);
}

static void cfree_is_free(void **state)
{
    /* No longer in libc's headers, nor in what the linker sees of it. */
    void (*cfree)(void *) = (void (*)(void *))dlsym(RTLD_DEFAULT, "cfree");
    void *first = opaque(malloc(1000)), *second;

    (void)state;
    assert_non_null(cfree);
    cfree(first);
    second = opaque(malloc(1000));
    assert_ptr_equal(first, second);        /* the youngest free block of the class comes first */
    cfree(second);
    cfree(NULL);
}

/* MPC: glibc's aligned_alloc was called and its blocks leaked, 21 MB here. */
static void aligned_blocks_come_back(void **state)
{
    size_t before;

    (void)state;
    for (unsigned i = 0; i < 100; i++)
        free(opaque(aligned_alloc(64, 1024)));
    before = resident_bytes();
    for (unsigned i = 0; i < 20000; i++) {
        char *block = aligned_alloc(64, 1024);

        block[0] = block[1023] = 1;
        free(block);
    }
    assert_true(resident_bytes() < before + MiB);
}

static void blocks_that_libc_makes_are_ours(void **state)
{
    char *line = NULL, *text = strdup("text"), *formatted = NULL;
    size_t room = 0;
    FILE *file = fopen("/proc/self/status", "r");

    (void)state;
    assert_true(malloc_usable_size(text) >= 5);
    assert_true(asprintf(&formatted, "%0200d", 7) == 200 && malloc_usable_size(formatted) >= 201);
    assert_true(getline(&line, &room, file) > 0 && malloc_usable_size(line) >= room);
    fclose(file);
    free(text);
    free(formatted);
    free(line);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_size_is_aligned_and_its_own),
        cmocka_unit_test(aligned_blocks_are_aligned_and_their_own),
        cmocka_unit_test(posix_memalign_refuses_other_alignments),
        cmocka_unit_test(posix_memalign_reports_exhaustion_by_its_result),
        cmocka_unit_test(aligned_alloc_refuses_what_is_no_power_of_two),
        cmocka_unit_test(memalign_rounds_the_alignment_up),
        cmocka_unit_test(valloc_and_pvalloc_give_whole_pages),
        cmocka_unit_test(a_size_of_zero_gives_blocks_of_their_own),
        cmocka_unit_test(sizes_that_overflow_give_null),
        cmocka_unit_test(more_than_the_machine_has_gives_null),
        cmocka_unit_test(failed_realloc_leaves_the_block),
        cmocka_unit_test(calloc_clears_what_was_used_before),
        cmocka_unit_test(realloc_keeps_the_content),
        cmocka_unit_test(realloc_after_memalign_spares_the_neighbours),
        cmocka_unit_test(a_large_block_grows_without_copies),
        cmocka_unit_test(realloc_without_block_or_size),
        cmocka_unit_test(success_and_free_keep_errno),
        cmocka_unit_test(usable_size_of_nothing_is_zero),
        cmocka_unit_test(cfree_is_free),
        cmocka_unit_test(aligned_blocks_come_back),
        cmocka_unit_test(blocks_that_libc_makes_are_ours),
    };

    return cmocka_run_group_tests(tests, require_preload, NULL);
}
