/* segment_init_test.c - core/segment.c: descriptors and slices of any range lie inside it, at every size and alignment (R3, R7). */
#include "engine.h"

#include "core/macroblock.h"
#include "core/segment.h"

static void assert_lies_inside(const struct la_segment *s, const void *p, size_t size)
{
    assert_true((uintptr_t)p >= s->base);
    assert_true((uintptr_t)p + size <= s->base + s->size);
}

/* Header, descriptors, caller's extra bytes, slices: in this order, apart, inside. */
static void assert_layout_is_sound(const struct la_segment *s, const void *extra, size_t extra_size)
{
    uintptr_t pages_end = (uintptr_t)(s->pages + s->slice_count);

    assert_lies_inside(s, s, sizeof(*s));
    assert_lies_inside(s, extra, extra_size);
    assert_true((uintptr_t)extra >= (uintptr_t)(s + 1));
    assert_true((uintptr_t)s->macros >= (uintptr_t)extra + extra_size);
    assert_true((uintptr_t)s->pages >= (uintptr_t)(s->macros + s->macro_count));
    assert_true(s->first >= pages_end);
    assert_lies_inside(s, (void *)s->first, s->usable);
    assert_int_equal(s->usable, (size_t)s->slice_count << s->slice_shift);
    assert_int_equal((uintptr_t)s->pages % 64, 0);
    assert_int_equal((uintptr_t)extra % 16, 0);
}

/* Macro blocks cover the slices exactly; only the last may be short. */
static void assert_macros_cover_the_slices(const struct la_segment *s)
{
    uint32_t slices = 0;

    for (uint32_t i = 0; i < s->macro_count; i++) {
        const struct la_macro *m = &s->macros[i];
        unsigned n = (unsigned)__builtin_popcount(m->all_slices);

        assert_int_equal(m->all_slices, bits_run(0, n));
        assert_int_equal(m->free_slices, m->all_slices);
        assert_true(n == SLICES_PER_MACRO || i == s->macro_count - 1);
        assert_true(n > 0);
        assert_int_equal(macro_address(m), s->first + ((uintptr_t)slices << s->slice_shift));
        assert_ptr_equal(m->segment, s);
        slices += n;
    }
    assert_int_equal(slices, s->slice_count);
}

static void any_size_at_any_offset_is_laid_out_inside_its_range(void **state)
{
    static const size_t sizes[] = { 16 * KiB, 16 * KiB + 1, 40000, 64 * KiB, 100 * KiB + 7, 512 * KiB, MiB,
                                    2 * MiB - 1, 2 * MiB, 2 * MiB + 1, 3 * MiB + 12345, 8 * MiB, 32 * MiB, 33 * MiB + 4321 };
    static const size_t offsets[] = { 0, 1, 8, 17, 63, 64, 4095, 32 * KiB + 5 };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++)
        for (unsigned j = 0; j < ARRAY_SIZE(offsets); j++) {
            struct fenced f = fenced_new(sizes[i], offsets[j]);
            void *extra = NULL;
            struct la_segment *s = segment_init(f.buffer, f.size, false, 1000, &extra);

            assert_non_null(s);
            assert_int_equal(s->base, f.buffer);
            assert_int_equal(s->size, f.size);
            assert_layout_is_sound(s, extra, 1000);
            assert_macros_cover_the_slices(s);
            fenced_free(&f);
        }
}

static void slices_follow_the_size(void **state)
{
    static const struct {
        size_t size, slice;
    } expected[] = { { 16 * KiB, 512 }, { 16 * KiB + 1, KiB }, { MiB, 32 * KiB }, { 2 * MiB - 1, 64 * KiB },
                     { 2 * MiB, 64 * KiB }, { 100 * MiB, 64 * KiB } };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(expected); i++) {
        struct fenced f = fenced_new(expected[i].size, 0);
        struct la_segment *s = segment_init(f.buffer, f.size, false, 0, NULL);

        assert_int_equal((size_t)1 << s->slice_shift, expected[i].slice);
        assert_int_equal(s->macro_count == 1, expected[i].size < 2 * MiB + 64 * KiB);
        fenced_free(&f);
    }
}

static void slices_of_64_kib_are_aligned_to_it_and_large_segments_to_2_mib(void **state)
{
    static const size_t sizes[] = { 2 * MiB, 5 * MiB, 32 * MiB, 64 * MiB };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        struct fenced f = fenced_new(sizes[i], 4097);
        struct la_segment *s = segment_init(f.buffer, f.size, false, 0, NULL);

        assert_int_equal(s->first % (sizes[i] >= 32 * MiB ? MACRO_SIZE : SLICE_SIZE), 0);
        fenced_free(&f);
    }
}

static void range_too_small_or_around_the_end_of_memory_is_refused(void **state)
{
    static _Alignas(64) char memory[4096];

    (void)state;
    assert_null(segment_init(memory, 200, false, 0, NULL));
    assert_null(segment_init(memory, sizeof(memory), false, sizeof(memory), NULL));
    assert_null(segment_init((void *)(UINTPTR_MAX - 64 * KiB), 128 * KiB, false, 0, NULL));
}

static void dirty_memory_gives_clean_descriptors(void **state)
{
    struct fenced f = fenced_new(MiB, 100);
    struct la_segment *s;

    (void)state;
    memset(f.buffer, 0xff, f.size);
    s = segment_init(f.buffer, f.size, false, 0, NULL);
    for (uint32_t i = 0; i < s->slice_count; i++) {
        assert_int_equal(s->pages[i].kind, PAGE_NONE);
        assert_null(atomic_load(&s->pages[i].fast_chain));
    }
    assert_macros_cover_the_slices(s);
    fenced_free(&f);
}

static void overhead_is_enough_wherever_the_range_starts(void **state)
{
    static const size_t payloads[] = { MACRO_SIZE, 3 * MACRO_SIZE + 1, 30 * MACRO_SIZE, 100 * MACRO_SIZE };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(payloads); i++)
        for (size_t offset = 0; offset < 3; offset++) {
            struct fenced f = fenced_new(payloads[i] + segment_overhead(payloads[i], false), offset * 24001);
            struct la_segment *s = segment_init(f.buffer, f.size, false, 0, NULL);

            assert_true(s->usable >= payloads[i]);
            fenced_free(&f);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_size_at_any_offset_is_laid_out_inside_its_range),
        cmocka_unit_test(slices_follow_the_size),
        cmocka_unit_test(slices_of_64_kib_are_aligned_to_it_and_large_segments_to_2_mib),
        cmocka_unit_test(range_too_small_or_around_the_end_of_memory_is_refused),
        cmocka_unit_test(dirty_memory_gives_clean_descriptors),
        cmocka_unit_test(overhead_is_enough_wherever_the_range_starts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
