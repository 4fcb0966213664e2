/* check_test.c - each equation of core/types.h, broken on purpose: the check names it, and is content when it is mended. */
#include "engine.h"

#include <stdatomic.h>

#include "core/macroblock.h"
#include "core/page.h"
#include "core/pool.h"
#include "core/region_map.h"
#include "core/size_class.h"
#include "core/source.h"
#include "core/thread.h"

/* ---- findings ---- */

struct findings {
    unsigned count;
    char text[2000];
};

static void collect(void *user, const char *line)
{
    struct findings *f = user;
    size_t n = strlen(f->text);

    f->count++;
    assert_null(strchr(line, '\n'));
    snprintf(f->text + n, sizeof(f->text) - n, "%s\n", line);
}

struct fixture {
    struct la_chain *chain;
    void *blocks[100];      /* of 200 bytes, every other one free */
    void *large;
    struct la_page *page;   /* of blocks[0] */
};

static int setup(void **state)
{
    static struct fixture f;

    assert_int_equal(la_chain_create(NULL, 0, &f.chain), 0);
    la_default_set(f.chain);
    for (unsigned i = 0; i < 100; i++)
        f.blocks[i] = la_malloc(200);
    f.large = la_malloc(200000);
    for (unsigned i = 0; i < 100; i += 2)
        la_free(f.blocks[i]);
    f.page = region_page(f.blocks[0]);
    pool_flush_all(f.chain);        /* so that the page's list is not empty */
    la_free(la_malloc(200));
    assert_true(f.page->free_count > 2);
    *state = &f;
    return 0;
}

/* Mended: nothing may be left of what a test has broken. */
static int teardown(void **state)
{
    struct fixture *f = *state;

    la_default_set(NULL);
    assert_chain_is_sound(f->chain);
    assert_heap_is_sound();
    assert_int_equal(la_chain_destroy(f->chain), 0);
    return 0;
}

static void assert_finding(const struct fixture *f, const char *about)
{
    struct findings found = { 0 };
    unsigned count = la_chain_check(f->chain, collect, &found);

    assert_int_equal(count, found.count);
    assert_true(count > 0);
    if (!strstr(found.text, about))
        fail_msg("no word of %s in:\n%s", about, found.text);
    assert_int_equal(la_chain_check(f->chain, NULL, NULL), found.count);    /* only counted */
}

static void sound_chain_has_no_finding(void **state)
{
    struct fixture *f = *state;
    struct findings found = { 0 };

    assert_int_equal(la_chain_check(f->chain, collect, &found), 0);
    assert_string_equal(found.text, "");
    assert_int_equal(la_heap_check(collect, &found), 0);
}

static void lost_block_is_found_e1(void **state)
{
    struct fixture *f = *state;

    f->page->used++;
    assert_finding(f, "(E1)");
    f->page->used--;
    f->page->free_count--;
    assert_finding(f, "(E1)");
    f->page->free_count++;
}

static void link_that_leaves_its_page_is_found(void **state)
{
    struct fixture *f = *state;
    void **link = page_link(f->page, f->page->free), *was = *link;

    *link = (char *)f->page->start - 208;
    assert_finding(f, "link of the free list leaves the page");
    *link = (char *)was + 8;
    assert_finding(f, "link of the free list leaves the page");
    *link = NULL;
    assert_finding(f, "link of the free list leaves the page");     /* too short */
    *link = was;
}

static void page_that_is_listed_wrongly_is_found_e2(void **state)
{
    struct fixture *f = *state;

    pool_unlist_page(f->chain, f->page);
    assert_finding(f, "(E2)");
    pool_list_page(f->chain, f->page);
}

static void slice_in_two_places_is_found_e3(void **state)
{
    struct fixture *f = *state;
    uint32_t bit = 1u << (f->page - macro_page(f->page->macro, 0));

    f->page->macro->free_slices |= bit;
    assert_finding(f, "in two places (E3)");
    f->page->macro->free_slices &= ~bit;
}

static void slice_that_is_nowhere_is_found_e3(void **state)
{
    struct fixture *f = *state;
    struct la_macro *m = f->page->macro;
    uint32_t was = m->free_slices;

    assert_int_not_equal(was, 0);
    m->free_slices &= was - 1;      /* without its lowest */
    assert_finding(f, "neither free nor in a page (E3)");
    m->free_slices = was;
}

static void page_longer_than_its_slices_is_found_e3(void **state)
{
    struct fixture *f = *state;
    struct la_page *large = region_page(f->large);

    large->slices++;
    assert_finding(f, "E3");
    large->slices--;
}

static void macro_block_on_the_wrong_list_is_found_e4(void **state)
{
    struct fixture *f = *state;
    struct la_macro *m = f->page->macro;
    uint8_t was = m->run;

    m->run = (uint8_t)(was - 1);
    assert_finding(f, "(E4)");
    m->run = was;
}

static void page_missing_in_the_region_map_is_found_e5(void **state)
{
    struct fixture *f = *state;
    uintptr_t start = slice_address(f->page->macro->segment, f->page);

    region_clear(start, f->page->slices);
    assert_finding(f, "not in the region map (E5)");
    region_set(start, f->page->slices, f->page);
}

static void page_of_another_chain_is_found_e6(void **state)
{
    struct fixture *f = *state;

    atomic_store(&f->page->chain, la_source_default()->orphan);
    assert_finding(f, "(E6)");
    atomic_store(&f->page->chain, f->chain);
}

static void entry_of_a_bin_that_is_no_block_is_found(void **state)
{
    struct fixture *f = *state;
    unsigned c = class_of(200);
    void **entry = f->chain->bins[c].top, *was = *entry;
    int on_stack;

    assert_true(pool_bin_count(f->chain, c) > 0);
    *entry = &on_stack;
    assert_finding(f, "is no block of 208 bytes");
    *entry = (char *)was + 16;
    assert_finding(f, "is no block of 208 bytes");
    *entry = f->large;
    assert_finding(f, "is no block of 208 bytes");
    *entry = was;
}

static void entry_of_a_bin_of_large_blocks_that_is_none_is_found(void **state)
{
    struct fixture *f = *state;
    unsigned c = class_of_run(3);
    void *block = la_chain_alloc(f->chain, 3 * SLICE_SIZE), **entry;

    la_default_set(f->chain);
    la_free(block);
    la_default_set(NULL);
    assert_chain_is_sound(f->chain);
    entry = f->chain->bins[c].top;
    assert_ptr_equal(*entry, block);
    *entry = (char *)block + 64;
    assert_finding(f, "is no block of 196608 bytes");
    *entry = f->large;
    assert_finding(f, "is no block of 196608 bytes");
    *entry = block;
}

static void chain_over_a_small_buffer_is_checked_too(void **state)
{
    static char memory[64 * KiB];
    struct la_chain *chain;
    struct findings found = { 0 };
    struct la_page *page;

    (void)state;
    assert_int_equal(la_chain_create_in(memory, sizeof(memory), 0, &chain), 0);
    page = region_page(la_chain_alloc(chain, 100));
    assert_chain_is_sound(chain);
    page->used++;
    assert_true(la_chain_check(chain, collect, &found) > 0);
    page->used--;
    assert_int_equal(la_chain_destroy(chain), 0);
}

static void miscount_of_the_source_is_found(void **state)
{
    struct findings found = { 0 };

    (void)state;
    la_default_source.dirty_bytes += 4096;
    assert_int_equal(la_heap_check(collect, &found), 1);
    assert_non_null(strstr(found.text, "anonymous memory"));
    la_default_source.dirty_bytes -= 4096;
}

static void leave_a_block(void *arg)
{
    *(void **)arg = la_malloc(100);
}

static void abandoned_macro_block_in_another_state_is_found(void **state)
{
    struct findings found = { 0 };
    struct la_macro *m;
    void *block;

    (void)state;
    in_other_thread(leave_a_block, &block);
    m = la_default_source.nodes[0].abandoned;
    assert_non_null(m);
    m->state = MACRO_OWNED;
    assert_int_equal(la_heap_check(collect, &found), 1);
    assert_non_null(strstr(found.text, "abandoned list"));
    m->state = MACRO_ABANDONED;
    la_free(block);
    la_source_trim(NULL);
}

/* Threads that are at work meanwhile are no findings. */
static atomic_bool stop;

static void *work(void *arg)
{
    (void)arg;
    for (unsigned i = 0; !atomic_load(&stop); i++)
        la_free(la_malloc(i * 17 % 50000));
    return NULL;
}

static void heap_is_checked_while_others_work(void **state)
{
    pthread_t threads[2];

    (void)state;
    la_free(la_malloc(1));
    atomic_store(&stop, false);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, NULL), 0);
    for (unsigned i = 0; i < 200; i++)
        assert_heap_is_sound();
    atomic_store(&stop, true);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
}

static void check_without_own_chain(void *arg)
{
    for (unsigned i = 0; i < 200; i++)
        *(unsigned *)arg += la_heap_check(NULL, NULL);
}

static void thread_without_a_chain_of_its_own_may_check(void **state)
{
    struct thread_body_ body;
    unsigned findings = 0;
    pthread_t worker, checker;

    (void)state;
    atomic_store(&stop, false);
    body = (struct thread_body_){ check_without_own_chain, &findings };
    assert_int_equal(pthread_create(&worker, NULL, work, NULL), 0);
    assert_int_equal(pthread_create(&checker, NULL, run_body_, &body), 0);
    pthread_join(checker, NULL);
    atomic_store(&stop, true);
    pthread_join(worker, NULL);
    assert_int_equal(findings, 0);
}

#define check_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        check_test(sound_chain_has_no_finding),
        check_test(lost_block_is_found_e1),
        check_test(link_that_leaves_its_page_is_found),
        check_test(page_that_is_listed_wrongly_is_found_e2),
        check_test(slice_in_two_places_is_found_e3),
        check_test(slice_that_is_nowhere_is_found_e3),
        check_test(page_longer_than_its_slices_is_found_e3),
        check_test(macro_block_on_the_wrong_list_is_found_e4),
        check_test(page_missing_in_the_region_map_is_found_e5),
        check_test(page_of_another_chain_is_found_e6),
        check_test(entry_of_a_bin_that_is_no_block_is_found),
        check_test(entry_of_a_bin_of_large_blocks_that_is_none_is_found),
        cmocka_unit_test(chain_over_a_small_buffer_is_checked_too),
        cmocka_unit_test(miscount_of_the_source_is_found),
        cmocka_unit_test(abandoned_macro_block_in_another_state_is_found),
        cmocka_unit_test(heap_is_checked_while_others_work),
        cmocka_unit_test(thread_without_a_chain_of_its_own_may_check),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
