/* page_test.c - a page of blocks: every block is in one place (E1), and a list that was written to is found out. */
#include "engine.h"

#include "core/chain.h"
#include "core/page.h"
#include "core/size_class.h"
#include "os/os.h"

enum { PAGE_BYTES = 8 * 65536, MAX_BLOCKS = PAGE_BYTES / 8 };

struct fixture {
    struct la_chain chain;
    struct la_page page;
    char *memory;
    void *blocks[MAX_BLOCKS];
    struct misuse_record misuse;
};

static int setup(void **state)
{
    static struct fixture f;

    chain_init(&f.chain, CHAIN_USER, la_source_default(), NULL);
    f.memory = os_map_aligned(PAGE_BYTES, SLICE_SIZE);
    assert_non_null(f.memory);
    record_misuse(&f.misuse);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    os_unmap(f->memory, PAGE_BYTES);
    return 0;
}

static size_t make_page(struct fixture *f, unsigned c)
{
    size_t bytes = class_page_slices(c) * SLICE_SIZE;

    f->page = (struct la_page){ .slices = (uint16_t)class_page_slices(c) };
    page_init_small(&f->page, &f->chain, c, (uintptr_t)f->memory, bytes);
    return bytes;
}

static void assert_page_is_sound(const struct la_page *page)
{
    assert_null(page_check(page));
}

/* Take up to @wanted at a time until nothing is left, E1 all the way; returns how many blocks came. */
static unsigned take_all(struct fixture *f, unsigned wanted)
{
    unsigned n = 0, before = f->page.used, got;

    while ((got = page_take(&f->page, f->blocks + n, wanted)) > 0) {
        assert_true(got <= wanted);
        n += got;
        assert_int_equal(f->page.used, before + n);
        assert_int_equal(f->page.used + f->page.free_count + (f->page.capacity - f->page.bump), f->page.capacity);
    }
    return n;
}

static int by_address(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t)*(void *const *)a, y = (uintptr_t)*(void *const *)b;

    return x < y ? -1 : x > y;
}

/* All blocks of the page, each once. */
static void assert_is_whole_page(struct fixture *f, unsigned n)
{
    assert_int_equal(n, f->page.capacity);
    qsort(f->blocks, n, sizeof(*f->blocks), by_address);
    for (unsigned i = 0; i < n; i++)
        assert_ptr_equal(f->blocks[i], f->memory + (size_t)i * f->page.block_size);
}

/* An order that jumps about: @step has no factor in common with n. */
static void put_all(struct fixture *f, unsigned n)
{
    unsigned step = 7919 % n ? 7919 : 7907;

    for (unsigned i = 0, at = 0; i < n; i++, at = (at + step) % n)
        assert_true(page_put(&f->page, f->blocks[at]));
    assert_int_equal(f->page.used, 0);
    assert_page_is_sound(&f->page);
}

static void every_block_of_every_class_is_taken_once_and_put_back(void **state)
{
    struct fixture *f = *state;

    for (unsigned c = 0; c < SMALL_CLASSES; c++) {
        size_t bytes = make_page(f, c);
        unsigned n = take_all(f, 1 + c % 13);

        assert_is_whole_page(f, n);
        assert_true((uintptr_t)f->blocks[n - 1] + class_size(c) <= (uintptr_t)f->memory + bytes);
        assert_false(page_has_free(&f->page));
        assert_page_is_sound(&f->page);
        put_all(f, n);
        assert_true(page_has_free(&f->page));
        assert_is_whole_page(f, take_all(f, 100));      /* now from the list, not from the untouched end */
        put_all(f, n);
    }
    assert_int_equal(f->misuse.count, 0);
}

static void start_of_a_block_is_told_from_every_other_address(void **state)
{
    struct fixture *f = *state;

    for (unsigned c = 0; c < SMALL_CLASSES; c++) {
        size_t bytes = make_page(f, c);

        for (size_t offset = 0; offset < bytes; offset += 1 + (offset > 4096 ? 6 : 0))
            assert_int_equal(page_is_block_start(&f->page, f->memory + offset), offset % class_size(c) == 0);
        for (size_t at = 0; at < f->page.capacity; at++) {
            const char *block = f->memory + at * class_size(c);
            assert_true(page_is_block_start(&f->page, block));
            assert_false(page_is_block_start(&f->page, block + 1));
            assert_false(page_is_block_start(&f->page, block - 1));
        }
    }
}

static void fresh_blocks_touch_few_os_pages_at_a_time(void **state)
{
    struct fixture *f = *state;

    make_page(f, class_of(16));
    assert_int_equal(page_take(&f->page, f->blocks, 1000), 4096 / 16);
    /* The last one of the array is handed out first: addresses rise. */
    assert_ptr_equal(f->blocks[4096 / 16 - 1], f->memory);
    make_page(f, class_of(8192));
    assert_int_equal(page_take(&f->page, f->blocks, 1000), 4);
    assert_ptr_equal(f->blocks[3], f->memory);
}

/* Their first words share a cache set or two: they are not looked at. */
static void page_of_few_blocks_does_not_touch_them(void **state)
{
    struct fixture *f = *state;
    void *out[8];

    make_page(f, class_of(16384));
    assert_true(page_has_bits(&f->page));
    assert_int_equal(page_take(&f->page, f->blocks, 3), 3);
    for (unsigned i = 0; i < 3; i++)
        *(uint64_t *)f->blocks[i] = i;
    assert_true(page_put(&f->page, f->blocks[0]));      /* the highest */
    assert_true(page_put(&f->page, f->blocks[2]));
    assert_page_is_sound(&f->page);
    assert_true(page_block_is_free(&f->page, f->blocks[0]));
    assert_false(page_block_is_free(&f->page, f->blocks[1]));
    assert_int_equal(page_take(&f->page, out, 8), 2);
    assert_ptr_equal(out[1], f->blocks[2]);
    assert_ptr_equal(out[0], f->blocks[0]);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(*(uint64_t *)f->blocks[i], i);
    assert_page_is_sound(&f->page);
}

static void second_put_into_a_page_of_few_blocks_is_refused(void **state)
{
    struct fixture *f = *state;

    make_page(f, class_of(16384));
    page_take(&f->page, f->blocks, 2);
    assert_true(page_put(&f->page, f->blocks[1]));
    assert_false(page_put(&f->page, f->blocks[1]));
    assert_reported_once(&f->misuse, f->blocks[1]);
    assert_int_equal(f->page.used, 1);
    assert_page_is_sound(&f->page);
    f->page.free_count++;
    f->page.used--;
    assert_string_equal(page_check(&f->page), "the bits of free blocks are not as many as their count");
    f->page.free_bits |= 1ull << f->page.bump;
    assert_non_null(strstr(page_check(&f->page), "never handed out"));
}

static void block_in_a_bin_carries_the_mark_and_on_the_list_its_complement(void **state)
{
    struct fixture *f = *state;

    make_page(f, class_of(64));
    page_take(&f->page, f->blocks, 2);
    assert_true(page_block_is_marked(&f->page, f->blocks[0]));
    assert_true(page_put(&f->page, f->blocks[0]));
    assert_int_equal(*(uint64_t *)f->blocks[0], ~la_free_mark);
    assert_int_not_equal(la_free_mark, 0);
}

static void block_of_8_bytes_keeps_its_link_in_its_only_word(void **state)
{
    struct fixture *f = *state;
    unsigned n;

    make_page(f, class_of(8));
    n = take_all(f, 50);
    assert_true(page_put(&f->page, f->blocks[5]));
    assert_true(page_put(&f->page, f->blocks[9]));
    assert_ptr_equal(*(void **)f->blocks[9], f->blocks[5]);
    assert_page_is_sound(&f->page);
    assert_int_equal(page_take(&f->page, f->blocks, 10), 2);
    assert_true(page_block_is_marked(&f->page, f->blocks[0]));
    assert_int_equal(f->page.used, n);
}

static void free_block_is_told_from_a_live_one(void **state)
{
    struct fixture *f = *state;

    make_page(f, class_of(48));
    page_take(&f->page, f->blocks, 4);
    page_put(&f->page, f->blocks[2]);
    page_put(&f->page, f->blocks[0]);
    assert_true(page_block_is_free(&f->page, f->blocks[0]));
    assert_true(page_block_is_free(&f->page, f->blocks[2]));
    assert_false(page_block_is_free(&f->page, f->blocks[1]));
    assert_true(page_block_is_free(&f->page, f->memory + 48 * 1000));    /* never handed out */
}

static void block_written_to_after_free_is_refused_by_its_page(void **state)
{
    struct fixture *f = *state;

    make_page(f, class_of(128));
    page_take(&f->page, f->blocks, 3);
    memset(f->blocks[1], 0, 8);
    assert_false(page_put(&f->page, f->blocks[1]));
    assert_reported_once(&f->misuse, f->blocks[1]);
    assert_int_equal(f->page.used, 3);
    assert_page_is_sound(&f->page);
}

static void corrupt_free_list_is_reported_once_and_dropped(void **state)
{
    struct fixture *f = *state;
    void *out[8];

    make_page(f, class_of(256));
    page_take(&f->page, f->blocks, 6);
    for (unsigned i = 0; i < 4; i++)
        page_put(&f->page, f->blocks[i]);
    memset(f->blocks[2], 'x', 256);     /* second of the list: 3, 2, 1, 0 */

    assert_int_equal(page_take(&f->page, out, 8), 1);
    assert_ptr_equal(out[0], f->blocks[3]);
    assert_reported_once(&f->misuse, f->blocks[2]);
    /* The three that could not be reached stay out for ever; the rest of the page serves on. */
    assert_int_equal(f->page.used, 6);
    assert_page_is_sound(&f->page);
    assert_int_equal(take_all(f, 5), f->page.capacity - 6);
    assert_int_equal(f->misuse.count, 1);
}

static void check_names_what_is_wrong(void **state)
{
    struct fixture *f = *state;
    void *link;

    make_page(f, class_of(64));
    page_take(&f->page, f->blocks, 8);
    for (unsigned i = 0; i < 4; i++)
        page_put(&f->page, f->blocks[i]);

    f->page.used++;
    assert_non_null(strstr(page_check(&f->page), "E1"));
    f->page.used--;
    link = *page_link(&f->page, f->blocks[3]);
    *page_link(&f->page, f->blocks[3]) = (char *)link + 1;
    assert_non_null(strstr(page_check(&f->page), "link"));
    *page_link(&f->page, f->blocks[3]) = f->memory + PAGE_BYTES;
    assert_non_null(strstr(page_check(&f->page), "link"));
    *page_link(&f->page, f->blocks[3]) = link;
    *page_link(&f->page, f->blocks[0]) = f->blocks[3];      /* a ring */
    assert_non_null(strstr(page_check(&f->page), "longer"));
    *page_link(&f->page, f->blocks[0]) = NULL;
    assert_page_is_sound(&f->page);
}

static void page_of_hidden_bins_is_not_for_the_fast_path(void **state)
{
    struct fixture *f = *state;
    struct la_bin hidden[SMALL_CLASSES];

    make_page(f, 3);
    assert_ptr_equal(atomic_load(&f->page.fast_chain), &f->chain);
    f->chain.bins = hidden;
    make_page(f, 3);
    assert_null(atomic_load(&f->page.fast_chain));
    assert_ptr_equal(atomic_load(&f->page.chain), &f->chain);
}

#define page_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        page_test(every_block_of_every_class_is_taken_once_and_put_back),
        page_test(start_of_a_block_is_told_from_every_other_address),
        page_test(fresh_blocks_touch_few_os_pages_at_a_time),
        page_test(page_of_few_blocks_does_not_touch_them),
        page_test(second_put_into_a_page_of_few_blocks_is_refused),
        page_test(block_in_a_bin_carries_the_mark_and_on_the_list_its_complement),
        page_test(block_of_8_bytes_keeps_its_link_in_its_only_word),
        page_test(free_block_is_told_from_a_live_one),
        page_test(block_written_to_after_free_is_refused_by_its_page),
        page_test(corrupt_free_list_is_reported_once_and_dropped),
        page_test(check_names_what_is_wrong),
        page_test(page_of_hidden_bins_is_not_for_the_fast_path),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
