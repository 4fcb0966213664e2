/*
 * region_map_test.c - address to page: direct entries, windows that small buffers share, addresses that are nobody's.
 *
 * The ancestor's map made a region of 4 MiB on every lookup of a foreign address, read out of bounds above 256 TB, and
 * aborted when two owners shared a slot.
 */
#include "engine.h"

#include "core/chain.h"
#include "core/macroblock.h"
#include "core/region_map.h"
#include "core/segment.h"
#include "os/os.h"

/* ---- direct entries ---- */

static void entered_page_is_found_at_every_byte_until_cleared(void **state)
{
    char *memory = os_map_aligned(4 * SLICE_SIZE, SLICE_SIZE);
    struct la_page page = { .kind = PAGE_LARGE, .slices = 2 };

    (void)state;
    assert_true(region_set((uintptr_t)memory + SLICE_SIZE, 2, &page));
    assert_null(region_page(memory + SLICE_SIZE - 1));
    assert_ptr_equal(region_page(memory + SLICE_SIZE), &page);
    assert_ptr_equal(region_page(memory + 2 * SLICE_SIZE + 12345), &page);
    assert_ptr_equal(region_page(memory + 3 * SLICE_SIZE - 1), &page);
    assert_null(region_page(memory + 3 * SLICE_SIZE));
    region_clear((uintptr_t)memory + SLICE_SIZE, 2);
    for (size_t at = 0; at < 4 * SLICE_SIZE; at += SLICE_SIZE)
        assert_null(region_page(memory + at));
    os_unmap(memory, 4 * SLICE_SIZE);
}

static void entries_on_both_sides_of_a_leaf_are_found(void **state)
{
    uintptr_t border = (uintptr_t)0x3a5 << REGION_LEAF_SHIFT;    /* nothing is mapped there: the map does not care */
    struct la_page page = { .kind = PAGE_LARGE, .slices = 2 };

    (void)state;
    assert_true(region_set(border - SLICE_SIZE, 2, &page));
    assert_ptr_equal(region_page((void *)(border - 1)), &page);
    assert_ptr_equal(region_page((void *)border), &page);
    region_clear(border - SLICE_SIZE, 2);
    assert_null(region_page((void *)(border - 1)));
    assert_null(region_page((void *)border));
}

static void last_window_of_the_map_can_be_entered(void **state)
{
    uintptr_t last = ((uintptr_t)1 << REGION_ADDRESS_BITS) - SLICE_SIZE;
    struct la_page page = { .kind = PAGE_LARGE, .slices = 1 };

    (void)state;
    assert_true(region_set(last, 1, &page));
    assert_ptr_equal(region_page((void *)(last + SLICE_SIZE - 1)), &page);
    assert_null(region_page((void *)(last + SLICE_SIZE)));
    region_clear(last, 1);
    /* What does not fit leaves nothing behind. */
    assert_false(region_set(last, 2, &page));
    assert_null(region_page((void *)last));
}

static void foreign_addresses_belong_to_nobody(void **state)
{
    void *block = la_malloc(100);
    uintptr_t bits = (uintptr_t)block;
    int on_stack;

    (void)state;
    assert_null(region_page(NULL));
    assert_null(region_page((void *)1));
    assert_null(region_page(&on_stack));
    assert_null(region_page((void *)(uintptr_t)foreign_addresses_belong_to_nobody));
    assert_null(region_page((void *)0x00007fffffffffff));
    assert_null(region_page((void *)0x0000800000000000));       /* not canonical */
    assert_null(region_page((void *)0xffff800000000000));       /* kernel */
    assert_null(region_page((void *)0xffffffff81000000));
    assert_null(region_page((void *)UINTPTR_MAX));
    assert_non_null(region_page(block));
    for (unsigned bit = REGION_ADDRESS_BITS; bit < 64; bit++)   /* a live block's address, with a tag */
        assert_null(region_page((void *)(bits | (uintptr_t)1 << bit)));
    la_free(block);
}

/* The ancestor grew by 4 MiB for each TB that was asked about. */
static void looking_up_foreign_addresses_makes_nothing(void **state)
{
    unsigned leaves = 0, after = 0;

    (void)state;
    for (unsigned i = 0; i < REGION_ROOTS; i++)
        leaves += atomic_load(&la_region.root[i]) != 0;
    for (uintptr_t address = 0; address >> REGION_ADDRESS_BITS == 0; address += (uintptr_t)1 << 33)
        assert_true(region_entry((void *)address) == &la_region.none || region_page((void *)address) != NULL);
    for (unsigned i = 0; i < REGION_ROOTS; i++)
        after += atomic_load(&la_region.root[i]) != 0;
    assert_int_equal(after, leaves);
}

/* ---- windows ---- */

struct small_buffer {
    struct la_segment *segment;
    struct la_page *page;       /* of its second slice on, two slices long */
    char *at;                   /* where that page starts */
};

/* A segment at @base with one page of two slices, entered as a window. */
static struct small_buffer small_buffer(void *base, size_t size)
{
    struct la_segment *s = segment_init(base, size, false, 0, NULL);

    assert_non_null(s);
    s->pages[1].kind = PAGE_LARGE;
    s->pages[1].slices = 2;
    return (struct small_buffer){ s, &s->pages[1], (char *)slice_address(s, &s->pages[1]) };
}

static void assert_found(const struct small_buffer *b)
{
    size_t slice = (size_t)1 << b->segment->slice_shift;

    assert_null(region_page((void *)b->segment->base));     /* the header is no block's */
    assert_null(region_page(b->at - 1));
    assert_ptr_equal(region_page(b->at), b->page);
    assert_ptr_equal(region_page(b->at + 2 * slice - 1), b->page);
    assert_null(region_page(b->at + 2 * slice));
}

static void four_buffers_share_one_window(void **state)
{
    char *memory = os_map_aligned(SLICE_SIZE, SLICE_SIZE);
    struct small_buffer b[4];

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        b[i] = small_buffer(memory + i * 16 * KiB, 16 * KiB);
        assert_int_equal(region_window_add(b[i].segment), 0);
    }
    for (unsigned i = 0; i < 4; i++)
        assert_found(&b[i]);
    region_window_remove(b[1].segment);
    assert_null(region_page(b[1].at));
    assert_found(&b[0]);
    assert_found(&b[2]);
    assert_found(&b[3]);
    for (unsigned i = 0; i < 4; i++)
        region_window_remove(b[i].segment);
    assert_ptr_equal(region_entry(memory), &la_region.none);
    os_unmap(memory, SLICE_SIZE);
}

static void buffer_over_several_windows_is_found_in_each(void **state)
{
    char *memory = os_map_aligned(4 * SLICE_SIZE, SLICE_SIZE);
    struct small_buffer a = small_buffer(memory + 40 * KiB + 8, 100 * KiB);
    struct small_buffer b = small_buffer(memory + 140 * KiB + 8, 50 * KiB + 3);     /* shares the third window */

    (void)state;
    assert_int_equal(region_window_add(a.segment), 0);
    assert_int_equal(region_window_add(b.segment), 0);
    assert_found(&a);
    assert_found(&b);
    region_window_remove(a.segment);
    assert_null(region_page(a.at));
    assert_found(&b);
    region_window_remove(b.segment);
    for (size_t at = 0; at < 4 * SLICE_SIZE; at += SLICE_SIZE)
        assert_ptr_equal(region_entry(memory + at), &la_region.none);
    os_unmap(memory, 4 * SLICE_SIZE);
}

static void overlapping_buffer_is_refused_and_leaves_no_trace(void **state)
{
    char *memory = os_map_aligned(4 * SLICE_SIZE, SLICE_SIZE);
    struct small_buffer a = small_buffer(memory + 128 * KiB, 16 * KiB);
    char other[sizeof(struct la_segment)];
    struct la_segment *overlapping = (struct la_segment *)other;

    (void)state;
    assert_int_equal(region_window_add(a.segment), 0);
    /* Touches two windows that are free before it meets the first buffer. */
    *overlapping = (struct la_segment){ .base = (uintptr_t)memory, .size = 128 * KiB + 1 };
    assert_int_equal(region_window_add(overlapping), -EEXIST);
    assert_ptr_equal(region_entry(memory), &la_region.none);
    assert_ptr_equal(region_entry(memory + SLICE_SIZE), &la_region.none);
    assert_found(&a);
    /* Side by side is no overlap. */
    overlapping->size = 128 * KiB;
    assert_int_equal(region_window_add(overlapping), 0);
    region_window_remove(overlapping);
    assert_found(&a);
    region_window_remove(a.segment);
    os_unmap(memory, 4 * SLICE_SIZE);
}

static void buffer_inside_a_page_hides_it_only_where_it_lies(void **state)
{
    char *memory = os_map_aligned(4 * SLICE_SIZE, SLICE_SIZE);
    struct la_page under = { .kind = PAGE_LARGE, .slices = 4 };
    struct small_buffer b;

    (void)state;
    assert_true(region_set((uintptr_t)memory, 4, &under));
    b = small_buffer(memory + 50 * KiB, 40 * KiB);      /* from the first window into the second */
    assert_int_equal(region_window_add(b.segment), 0);
    assert_found(&b);
    assert_ptr_equal(region_page(memory), &under);
    assert_ptr_equal(region_page(memory + 50 * KiB - 1), &under);
    assert_ptr_equal(region_page(memory + 90 * KiB), &under);
    assert_ptr_equal(region_page(memory + 3 * SLICE_SIZE), &under);
    region_window_remove(b.segment);
    for (size_t at = 0; at < 4 * SLICE_SIZE; at += SLICE_SIZE)
        assert_ptr_equal(region_entry(memory + at), &under);
    region_clear((uintptr_t)memory, 4);
    os_unmap(memory, 4 * SLICE_SIZE);
}

static void page_under_a_buffer_may_come_and_go(void **state)
{
    char *memory = os_map_aligned(SLICE_SIZE, SLICE_SIZE);
    struct small_buffer b = small_buffer(memory + 16 * KiB, 16 * KiB);
    struct la_page under = { .kind = PAGE_LARGE, .slices = 1 };

    (void)state;
    assert_int_equal(region_window_add(b.segment), 0);
    assert_true(region_set((uintptr_t)memory, 1, &under));
    assert_ptr_equal(region_page(memory), &under);
    assert_found(&b);
    region_clear((uintptr_t)memory, 1);
    assert_null(region_page(memory));
    assert_found(&b);
    assert_true(region_set((uintptr_t)memory, 1, &under));
    region_window_remove(b.segment);
    assert_ptr_equal(region_entry(memory), &under);
    region_clear((uintptr_t)memory, 1);
    os_unmap(memory, SLICE_SIZE);
}

static void window_never_serves_the_fast_path(void **state)
{
    char *memory = os_map_aligned(SLICE_SIZE, SLICE_SIZE);
    struct small_buffer b = small_buffer(memory, 16 * KiB);

    (void)state;
    assert_int_equal(region_window_add(b.segment), 0);
    assert_int_equal(region_entry(b.at)->kind, PAGE_WINDOW);
    assert_null(atomic_load(&region_entry(b.at)->fast_chain));
    assert_null(atomic_load(&la_region.none.fast_chain));
    region_window_remove(b.segment);
    os_unmap(memory, SLICE_SIZE);
}

/* ---- readers and writers ---- */

struct watch {
    const struct small_buffer *buffer;
    atomic_bool stop;
    unsigned lost;
};

static void *look_up(void *arg)
{
    struct watch *w = arg;

    while (!atomic_load(&w->stop))
        w->lost += region_page(w->buffer->at) != w->buffer->page;
    return NULL;
}

static void reader_never_misses_a_live_block_while_its_window_changes(void **state)
{
    char *memory = os_map_aligned(SLICE_SIZE, SLICE_SIZE);
    struct small_buffer a = small_buffer(memory, 16 * KiB), b = small_buffer(memory + 16 * KiB, 16 * KiB);
    struct watch watch = { .buffer = &a };
    pthread_t thread;

    (void)state;
    assert_int_equal(region_window_add(a.segment), 0);
    assert_int_equal(pthread_create(&thread, NULL, look_up, &watch), 0);
    for (unsigned i = 0; i < 5000; i++) {
        assert_int_equal(region_window_add(b.segment), 0);
        region_window_remove(b.segment);
    }
    atomic_store(&watch.stop, true);
    pthread_join(thread, NULL);
    assert_int_equal(watch.lost, 0);
    region_window_remove(a.segment);
    os_unmap(memory, SLICE_SIZE);
}

/* A late reader may still see a neighbour that was removed; its memory is its user's again, who may have unmapped it. */
static void descriptors_of_a_neighbour_are_not_read(void **state)
{
    char *memory = os_map_aligned(SLICE_SIZE, SLICE_SIZE);
    struct small_buffer a = small_buffer(memory, 16 * KiB), b = small_buffer(memory + 16 * KiB, 16 * KiB);

    (void)state;
    assert_int_equal(region_window_add(a.segment), 0);
    assert_int_equal(region_window_add(b.segment), 0);
    assert_int_equal(mprotect(memory + 16 * KiB, 16 * KiB, PROT_NONE), 0);
    assert_found(&a);
    assert_int_equal(mprotect(memory + 16 * KiB, 16 * KiB, PROT_READ | PROT_WRITE), 0);
    assert_found(&b);
    region_window_remove(b.segment);
    region_window_remove(a.segment);
    os_unmap(memory, SLICE_SIZE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entered_page_is_found_at_every_byte_until_cleared),
        cmocka_unit_test(entries_on_both_sides_of_a_leaf_are_found),
        cmocka_unit_test(last_window_of_the_map_can_be_entered),
        cmocka_unit_test(foreign_addresses_belong_to_nobody),
        cmocka_unit_test(looking_up_foreign_addresses_makes_nothing),
        cmocka_unit_test(four_buffers_share_one_window),
        cmocka_unit_test(buffer_over_several_windows_is_found_in_each),
        cmocka_unit_test(overlapping_buffer_is_refused_and_leaves_no_trace),
        cmocka_unit_test(buffer_inside_a_page_hides_it_only_where_it_lies),
        cmocka_unit_test(page_under_a_buffer_may_come_and_go),
        cmocka_unit_test(window_never_serves_the_fast_path),
        cmocka_unit_test(reader_never_misses_a_live_block_while_its_window_changes),
        cmocka_unit_test(descriptors_of_a_neighbour_are_not_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
