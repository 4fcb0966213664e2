/* size_class_test.c - every size finds the smallest class that holds it, by the table as by computing. */
#include "engine.h"

#include "core/size_class.h"

static void every_size_has_the_smallest_class_that_holds_it(void **state)
{
    (void)state;
    for (size_t size = 1; size <= SMALL_MAX; size++) {
        unsigned c = class_of(size);

        assert_in_range(c, 0, SMALL_CLASSES - 1);
        assert_true(class_size(c) >= size);
        if (c > 0)
            assert_true(class_size(c - 1) < size);
    }
    assert_int_equal(class_of(0), 0);
}

static void classes_rise_from_8_bytes_to_32_kib(void **state)
{
    (void)state;
    assert_int_equal(class_size(0), 8);
    assert_int_equal(class_size(SMALL_CLASSES - 1), SMALL_MAX);
    for (unsigned c = 1; c < SMALL_CLASSES; c++) {
        assert_true(class_size(c) > class_size(c - 1));
        assert_int_equal(class_size(c) % LA_BLOCK_ALIGN, 0);
    }
}

static void rounding_wastes_at_most_an_eighth(void **state)
{
    (void)state;
    for (size_t size = 1; size <= SMALL_MAX; size++) {
        size_t waste = class_size(class_of(size)) - size;

        /* Below 128 bytes the ABI's alignment decides. */
        assert_true(size <= 128 ? waste < 16 : waste * 8 <= size);
    }
}

static void table_and_computation_agree(void **state)
{
    (void)state;
    for (size_t size = 0; size <= TABLE_MAX; size++)
        assert_int_equal(la_bin_offset[size], class_of(size) * sizeof(struct la_bin));
    for (size_t size = 129; size <= SMALL_MAX; size++)
        assert_int_equal(class_of(size), class_of_large(size));
}

static void page_of_a_class_holds_several_blocks_and_wastes_little(void **state)
{
    (void)state;
    for (unsigned c = 0; c < SMALL_CLASSES; c++) {
        size_t bytes = class_page_slices(c) * SLICE_SIZE;

        assert_in_range(class_page_slices(c), 1, 8);
        assert_true(bytes / class_size(c) >= 4);
        assert_true(bytes % class_size(c) <= bytes / 16);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_size_has_the_smallest_class_that_holds_it),
        cmocka_unit_test(classes_rise_from_8_bytes_to_32_kib),
        cmocka_unit_test(rounding_wastes_at_most_an_eighth),
        cmocka_unit_test(table_and_computation_agree),
        cmocka_unit_test(page_of_a_class_holds_several_blocks_and_wastes_little),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
