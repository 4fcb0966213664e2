/* misuse_test.c - a wrong free of each kind is reported once, with its address, and does no harm. */
#include "engine.h"

#include <sys/resource.h>

#include <liballoc/error.h>

#include "child.h"
#include "core/misuse.h"
#include "core/page.h"
#include "core/region_map.h"
#include "core/remote_free.h"
#include "core/thread.h"

struct fixture {
    struct misuse_record misuse;
};

static int setup(void **state)
{
    static struct fixture f;

    la_free(la_malloc(1));
    record_misuse(&f.misuse);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    la_source_trim(NULL);
    assert_heap_is_sound();
    return 0;
}

static void free_twice(size_t size)
{
    void *block = opaque(la_malloc(size));

    la_free(block);
    la_free(opaque(block));
}

/* Everything that @size finds in bins comes out; no block twice. */
static void assert_no_block_is_handed_out_twice(size_t size)
{
    enum { N = 600 };
    static void *blocks[N];

    for (unsigned i = 0; i < N; i++) {
        blocks[i] = la_malloc(size);
        for (unsigned j = 0; j < i; j++)
            assert_ptr_not_equal(blocks[i], blocks[j]);
    }
    for (unsigned i = 0; i < N; i++)
        la_free(blocks[i]);
}

/* ---- freed twice ---- */

static void small_block_freed_twice_in_a_row_is_reported_at_once(void **state)
{
    struct fixture *f = *state;

    static const size_t sizes[] = { 1, 8, 16, 100, 1024, 5000, 32768 };

    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        void *block = opaque(la_malloc(sizes[i]));

        record_misuse(&f->misuse);
        la_free(block);
        assert_int_equal(f->misuse.count, 0);
        la_free(opaque(block));
        assert_reported_once(&f->misuse, block);
        assert_no_block_is_handed_out_twice(sizes[i]);
        assert_int_equal(f->misuse.count, 1);
    }
}

static void small_block_freed_twice_with_others_between_is_reported_before_it_is_handed_out_again(void **state)
{
    struct fixture *f = *state;

    static const size_t sizes[] = { 8, 16, 100, 5000 };

    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        void *a = opaque(la_malloc(sizes[i])), *b = opaque(la_malloc(sizes[i]));

        record_misuse(&f->misuse);
        la_free(a);
        la_free(b);
        la_free(opaque(a));
        assert_no_block_is_handed_out_twice(sizes[i]);
        assert_reported_once(&f->misuse, a);
    }
}

static void block_freed_twice_that_went_back_to_its_page_is_reported_once(void **state)
{
    struct fixture *f = *state;
    void *blocks[3000];

    for (unsigned i = 0; i < ARRAY_SIZE(blocks); i++)
        blocks[i] = opaque(la_malloc(64));
    for (unsigned i = 0; i < ARRAY_SIZE(blocks); i++)
        la_free(blocks[i]);
    la_source_trim(NULL);       /* all bins are emptied, but one block keeps the page */
    blocks[0] = opaque(la_malloc(64));
    blocks[1] = opaque(la_malloc(64));
    la_free(blocks[1]);
    la_source_trim(NULL);
    assert_non_null(region_page(blocks[1]));
    la_free(opaque(blocks[1]));
    assert_no_block_is_handed_out_twice(64);
    assert_true(f->misuse.count <= 1);
    la_source_trim(NULL);
    assert_reported_once(&f->misuse, blocks[1]);
    la_free(blocks[0]);
}

static void large_block_freed_twice_is_reported(void **state)
{
    struct fixture *f = *state;
    void *block = opaque(la_malloc(100000));

    la_free(block);
    la_free(opaque(block));
    assert_reported_once(&f->misuse, block);
}

static void huge_block_freed_twice_is_reported(void **state)
{
    struct fixture *f = *state;
    void *block = opaque(la_malloc(5 * MiB));

    la_free(block);
    la_free(opaque(block));
    assert_reported_once(&f->misuse, block);
}

static void block_of_a_user_buffer_freed_twice_is_reported(void **state)
{
    struct fixture *f = *state;
    static char memory[32 * KiB];
    struct la_chain *chain;
    void *small, *large;

    assert_int_equal(la_chain_create_in(memory, sizeof(memory), 0, &chain), 0);
    la_default_set(chain);
    small = opaque(la_chain_alloc(chain, 100));
    large = opaque(la_chain_alloc(chain, 4000));
    la_free(small);
    la_free(opaque(small));
    assert_reported_once(&f->misuse, small);
    record_misuse(&f->misuse);
    la_free(large);
    la_free(opaque(large));
    assert_reported_once(&f->misuse, large);
    assert_chain_is_sound(chain);
    la_default_set(NULL);
    assert_int_equal(la_chain_destroy(chain), 0);
}

/* Of a chain that is not the thread's own the first free waits in a queue; there was no other thread. */
static void block_of_a_named_chain_freed_twice_is_reported_without_a_guess(void **state)
{
    struct fixture *f = *state;
    static char memory[32 * KiB];
    struct la_chain *chain;
    void *block;

    assert_int_equal(la_chain_create_in(memory, sizeof(memory), 0, &chain), 0);
    block = opaque(la_chain_alloc(chain, 100));
    la_free(block);
    la_free(opaque(block));
    assert_reported_once(&f->misuse, block);
    assert_non_null(strstr(f->misuse.text, "was freed already: 0 bytes into a block of "));
    assert_int_equal(la_chain_destroy(chain), 0);
}

static void realloc_inside_a_block_is_told_as_free_tells_it(void **state)
{
    struct fixture *f = *state;
    char *small = opaque(la_malloc(100)), *large = opaque(la_malloc(100000));

    assert_null(la_realloc(opaque(small + 16), 5000));
    assert_reported_once(&f->misuse, small + 16);
    assert_non_null(strstr(f->misuse.text, "is not the start of a block: 16 bytes into a block of 112 bytes"));
    record_misuse(&f->misuse);
    assert_null(la_realloc(opaque(large + 16), 5000));
    assert_reported_once(&f->misuse, large + 16);
    assert_non_null(strstr(f->misuse.text, "is not the start of its large block"));
    la_free(small);
    la_free(large);
}

static void block_of_a_thread_safe_chain_freed_twice_is_reported(void **state)
{
    struct fixture *f = *state;
    static const size_t sizes[] = { 8, 100, 100000 };
    struct la_chain *chain = NULL;

    assert_int_equal(la_chain_create(NULL, LA_CHAIN_MT, &chain), 0);
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        void *block = opaque(la_chain_alloc(chain, sizes[i]));

        record_misuse(&f->misuse);
        la_free(block);
        la_free(opaque(block));
        assert_reported_once(&f->misuse, block);
    }
    assert_chain_is_sound(chain);
    assert_int_equal(la_chain_destroy(chain), 0);
}

/* ---- freed twice by other threads than the owner ---- */

static void free_twice_here(void *block)
{
    la_free(la_malloc(1));
    la_free(block);
    la_free(opaque(block));
}

static void block_freed_twice_by_another_thread_is_reported(void **state)
{
    struct fixture *f = *state;
    static const size_t sizes[] = { 16, 100, 5000, 100000, 5 * MiB };

    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        void *block = opaque(la_malloc(sizes[i]));

        record_misuse(&f->misuse);
        in_other_thread(free_twice_here, block);
        la_source_trim(NULL);
        assert_reported_once(&f->misuse, block);
        assert_heap_is_sound();
    }
}

static void free_mixed_twice_here(void *arg)
{
    void **blocks = arg;

    la_free(la_malloc(1));
    for (unsigned i = 0; i < 200; i++)
        la_free(blocks[i]);
    la_free(opaque(blocks[199]));
    la_free(opaque(blocks[120]));
    la_free(opaque(blocks[3]));
}

/* A block of 8 bytes has no room for mark and link: not every second free is found, but none may do harm. */
static void block_of_8_bytes_freed_twice_by_another_thread_does_no_harm(void **state)
{
    void *blocks[200];

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(blocks); i++)
        blocks[i] = opaque(la_malloc(8));
    in_other_thread(free_mixed_twice_here, blocks);
    assert_no_block_is_handed_out_twice(8);
}

static void free_one_of_three_twice_here(void *arg)
{
    void **blocks = arg;

    la_free(la_malloc(1));
    for (unsigned i = 0; i < 3; i++)
        la_free(blocks[i]);
    la_free(opaque(blocks[1]));
}

static void large_block_freed_twice_by_another_thread_takes_no_other_with_it(void **state)
{
    struct fixture *f = *state;
    struct la_stats before = { .struct_size = sizeof(before) }, after = before;
    void *blocks[3];

    la_chain_stats(NULL, &before);
    for (unsigned i = 0; i < 3; i++)
        blocks[i] = opaque(la_malloc(100000));
    in_other_thread(free_one_of_three_twice_here, blocks);
    la_source_trim(NULL);
    assert_reported_once(&f->misuse, blocks[1]);
    la_chain_stats(NULL, &after);
    assert_int_equal(after.blocks, before.blocks);
}

static void block_freed_by_two_other_threads_is_reported(void **state)
{
    struct fixture *f = *state;
    static const size_t sizes[] = { 16, 100, 100000 };

    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        void *block = opaque(la_malloc(sizes[i]));

        record_misuse(&f->misuse);
        free_in_other_thread(block);
        free_in_other_thread(opaque(block));
        la_source_trim(NULL);
        assert_reported_once(&f->misuse, block);
        assert_heap_is_sound();
    }
}

static void block_freed_by_another_thread_and_by_its_owner_is_reported(void **state)
{
    struct fixture *f = *state;
    static const size_t sizes[] = { 16, 100, 100000 };

    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        void *block = opaque(la_malloc(sizes[i]));

        record_misuse(&f->misuse);
        free_in_other_thread(block);
        la_free(opaque(block));
        assert_no_block_is_handed_out_twice(sizes[i] < 50000 ? sizes[i] : 40000);
        la_source_trim(NULL);
        assert_reported_once(&f->misuse, block);
    }
}

static void end_with_a_block(void *arg)
{
    *(void **)arg = opaque(la_malloc(100000));
}

static void large_block_of_an_ended_thread_freed_twice_is_reported(void **state)
{
    struct fixture *f = *state;
    void *block;

    in_other_thread(end_with_a_block, &block);
    la_free(block);
    la_free(opaque(block));
    la_source_trim(NULL);
    assert_reported_once(&f->misuse, block);
}

/* ---- no start of a block ---- */

static void pointer_into_a_block_is_reported_and_the_block_lives(void **state)
{
    struct fixture *f = *state;
    static const struct {
        size_t size, offset;
    } cases[] = { { 100, 1 }, { 100, 8 }, { 100, 16 }, { 100, 99 }, { 32768, 16384 }, { 100000, 16 }, { 100000, 65536 },
                  { 100000, 99999 }, { 5 * MiB, 16 }, { 5 * MiB, 4096 }, { 5 * MiB, 3 * MiB } };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        char *block = opaque(la_malloc(cases[i].size));

        memset(block, 'a', cases[i].size);
        record_misuse(&f->misuse);
        la_free(opaque(block + cases[i].offset));
        assert_reported_once(&f->misuse, block + cases[i].offset);
        assert_true(la_usable_size(block) >= cases[i].size);
        for (size_t j = 0; j < cases[i].size; j++)
            assert_int_equal(block[j], 'a');
        la_free(block);
        assert_int_equal(f->misuse.count, 1);
    }
}

static void report_says_where_in_which_block_the_pointer_lies(void **state)
{
    struct fixture *f = *state;
    char *block = opaque(la_malloc(100)), expected[64];

    la_free(opaque(block + 24));
    snprintf(expected, sizeof(expected), "24 bytes into a block of 112 bytes at %p", (void *)block);
    assert_non_null(strstr(f->misuse.text, expected));
    la_free(block);
}

static void foreign_pointers_are_reported_and_not_touched(void **state)
{
    struct fixture *f = *state;
    static char in_data[64];
    char on_stack[64] = "untouched", *mapped = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    void *const pointers[] = { on_stack, in_data, mapped, (void *)8, (void *)0x123456789000, (void *)0x800000000000,
                               (void *)0xffff800000000000, (void *)(UINTPTR_MAX - 7) };

    for (unsigned i = 0; i < ARRAY_SIZE(pointers); i++) {
        record_misuse(&f->misuse);
        la_free(opaque(pointers[i]));
        assert_reported_once(&f->misuse, pointers[i]);
    }
    assert_string_equal(on_stack, "untouched");
    munmap(mapped, 4096);
    record_misuse(&f->misuse);
    la_free(NULL);
    assert_int_equal(f->misuse.count, 0);
}

static void descriptors_in_a_user_buffer_are_no_block(void **state)
{
    struct fixture *f = *state;
    static char memory[32 * KiB];
    struct la_chain *chain;

    assert_int_equal(la_chain_create_in(memory, sizeof(memory), 0, &chain), 0);
    la_free(opaque(memory));
    assert_reported_once(&f->misuse, memory);
    record_misuse(&f->misuse);
    la_free(opaque(chain));
    assert_reported_once(&f->misuse, chain);
    assert_chain_is_sound(chain);
    assert_int_equal(la_chain_destroy(chain), 0);
}

/* ---- written to after free, realloc ---- */

static void block_written_to_after_free_is_not_handed_out_again(void **state)
{
    struct fixture *f = *state;
    void *block = opaque(la_malloc(300));

    la_free(block);
    memset(opaque(block), 'x', 300);
    assert_no_block_is_handed_out_twice(300);
    assert_reported_once(&f->misuse, block);
}

static void realloc_of_what_is_no_live_block_is_refused(void **state)
{
    struct fixture *f = *state;
    int on_stack;
    void *freed = opaque(la_malloc(100)), *block = opaque(la_malloc(100));

    errno = 0;
    assert_null(la_realloc(opaque(&on_stack), 10));
    assert_int_equal(errno, EINVAL);
    assert_reported_once(&f->misuse, &on_stack);

    record_misuse(&f->misuse);
    assert_null(la_realloc(opaque((char *)block + 8), 10));
    assert_reported_once(&f->misuse, (char *)block + 8);

    record_misuse(&f->misuse);
    la_free(freed);
    assert_null(la_realloc(opaque(freed), 105));
    assert_reported_once(&f->misuse, freed);
    la_free(block);
}

/* ---- actions ---- */

static void ignored_misuse_is_counted_only(void **state)
{
    struct fixture *f = *state;
    unsigned long before = la_misuse_count();

    assert_int_equal(la_misuse_set(LA_MISUSE_IGNORE, record_misuse_, &f->misuse), 0);
    free_twice(100);
    assert_int_equal(f->misuse.count, 0);
    assert_int_equal(la_misuse_count(), before + 1);
}

static void report_without_handler_is_the_last_error(void **state)
{
    char address[32];
    int on_stack;

    (void)state;
    assert_int_equal(la_misuse_set(LA_MISUSE_REPORT, NULL, NULL), 0);
    errno = EXDEV;
    la_free(opaque(&on_stack));
    assert_int_equal(errno, EXDEV);
    snprintf(address, sizeof(address), "%p ", (void *)&on_stack);
    assert_memory_equal(la_last_error(), address, strlen(address));
    assert_int_equal(la_last_error_code(), -EINVAL);
}

static void say_so(void *user, const void *pointer, const char *text)
{
    (void)pointer;
    if (write(*(int *)user, text, strlen(text)) < 0)
        _exit(9);
}

static void free_twice_and_abort(void *arg)
{
    setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
    CHECK(la_misuse_set(LA_MISUSE_ABORT, say_so, arg) == 0);
    free_twice(100);
}

static void abort_comes_after_the_report(void **state)
{
    char text[200] = "";
    int ends[2];

    (void)state;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(run_in_child(free_twice_and_abort, &ends[1]), 128 + SIGABRT);
    close(ends[1]);
    assert_true(read(ends[0], text, sizeof(text) - 1) > 0);
    assert_non_null(strstr(text, "was freed already"));
    close(ends[0]);
}

static void unknown_action_is_refused_and_changes_nothing(void **state)
{
    struct fixture *f = *state;
    int on_stack;

    assert_int_equal(la_misuse_set((enum la_misuse_action)3, NULL, NULL), -EINVAL);
    assert_int_equal(la_misuse_set((enum la_misuse_action)-1, NULL, NULL), -EINVAL);
    la_free(opaque(&on_stack));
    assert_reported_once(&f->misuse, &on_stack);
}

#define misuse_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        misuse_test(small_block_freed_twice_in_a_row_is_reported_at_once),
        misuse_test(small_block_freed_twice_with_others_between_is_reported_before_it_is_handed_out_again),
        misuse_test(block_freed_twice_that_went_back_to_its_page_is_reported_once),
        misuse_test(large_block_freed_twice_is_reported),
        misuse_test(huge_block_freed_twice_is_reported),
        misuse_test(block_of_a_user_buffer_freed_twice_is_reported),
        misuse_test(block_of_a_named_chain_freed_twice_is_reported_without_a_guess),
        misuse_test(realloc_inside_a_block_is_told_as_free_tells_it),
        misuse_test(block_of_a_thread_safe_chain_freed_twice_is_reported),
        misuse_test(block_freed_twice_by_another_thread_is_reported),
        misuse_test(block_of_8_bytes_freed_twice_by_another_thread_does_no_harm),
        misuse_test(large_block_freed_twice_by_another_thread_takes_no_other_with_it),
        misuse_test(block_freed_by_two_other_threads_is_reported),
        misuse_test(block_freed_by_another_thread_and_by_its_owner_is_reported),
        misuse_test(large_block_of_an_ended_thread_freed_twice_is_reported),
        misuse_test(pointer_into_a_block_is_reported_and_the_block_lives),
        misuse_test(report_says_where_in_which_block_the_pointer_lies),
        misuse_test(foreign_pointers_are_reported_and_not_touched),
        misuse_test(descriptors_in_a_user_buffer_are_no_block),
        misuse_test(block_written_to_after_free_is_not_handed_out_again),
        misuse_test(realloc_of_what_is_no_live_block_is_refused),
        misuse_test(ignored_misuse_is_counted_only),
        misuse_test(report_without_handler_is_the_last_error),
        misuse_test(abort_comes_after_the_report),
        misuse_test(unknown_action_is_refused_and_changes_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
