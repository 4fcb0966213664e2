#include "../support/shared.h"

#include <errno.h>

#include "core/shared_heap.h"

static char *published(struct shared *s, const char *text, size_t size)
{
    la_link *root = shared_root(s->heap, "root");
    char *block = la_heap_hold(s->heap, size);

    assert_non_null(block);
    strcpy(block, text);
    assert_int_equal(la_publish(s->heap, root, la_load(s->heap, root), block), 0);
    return block;
}

static void an_object_is_read_while_it_is_there(void **state)
{
    struct shared *s = *state;
    la_link *root = shared_root(s->heap, "root");
    char *block = published(s, "something to read", 100), text[32] = "";
    struct la_ref ref;

    assert_int_equal(la_ref_get(s->heap, root, &ref), 0);
    assert_ptr_equal(ref.block, block);
    assert_true(la_ref_is_valid(s->heap, &ref));
    assert_int_equal(la_ref_read(s->heap, &ref, 0, text, 18), 0);
    assert_string_equal(text, "something to read");
    assert_int_equal(la_ref_read(s->heap, &ref, 13, text, 5), 0);
    assert_string_equal(text, "read");
    assert_int_equal(la_ref_read(s->heap, &ref, la_usable_size(block), text, 0), 0);
    assert_int_equal(la_ref_read(s->heap, &ref, la_usable_size(block), text, 1), -EINVAL);
    assert_int_equal(la_ref_read(s->heap, &ref, SIZE_MAX, text, 2), -EINVAL);
}

static void an_object_that_was_taken_or_freed_is_stale_also_when_its_block_is_used_again(void **state)
{
    struct shared *s = *state;
    la_link *root = shared_root(s->heap, "root");
    char *block = published(s, "old", 100), text[8];
    struct la_ref ref;

    assert_int_equal(la_ref_get(s->heap, root, &ref), 0);
    assert_ptr_equal(la_take(s->heap, root, LA_NO_NEXT), block);
    assert_int_equal(la_ref_read(s->heap, &ref, 0, text, 4), -ESTALE);
    /* The same block in the same place. */
    assert_int_equal(la_publish(s->heap, root, NULL, block), 0);
    assert_false(la_ref_is_valid(s->heap, &ref));
    assert_int_equal(la_ref_get(s->heap, root, &ref), 0);
    assert_int_equal(la_heap_reset(s->heap), 0);
    assert_false(la_ref_is_valid(s->heap, &ref));
}

static void blocks_of_any_size_have_references(void **state)
{
    static const size_t sizes[] = { 16, 5000, 200000, (size_t)3 << 20 };
    struct shared *s = *state;
    la_link *root = shared_root(s->heap, "root");

    for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        struct la_ref ref;
        char text[8];

        published(s, "size", sizes[i]);
        assert_int_equal(la_ref_get(s->heap, root, &ref), 0);
        assert_int_equal(la_ref_read(s->heap, &ref, 0, text, 5), 0);
        assert_string_equal(text, "size");
        la_free(la_take(s->heap, root, LA_NO_NEXT));
        assert_int_equal(la_ref_read(s->heap, &ref, 0, text, 5), -ESTALE);
    }
}

static void nothing_and_nonsense_have_no_reference(void **state)
{
    struct shared *s = *state;
    la_link *root = shared_root(s->heap, "root"), outside = NULL;
    void *held = la_heap_hold(s->heap, 64);
    struct la_ref ref;

    assert_int_equal(la_ref_get(s->heap, root, &ref), -ENOENT);
    assert_int_equal(la_ref_get(s->heap, &outside, &ref), -EINVAL);
    atomic_store(root, (void *)(uintptr_t)12345);
    assert_int_equal(la_ref_get(s->heap, root, &ref), -EINVAL);
    atomic_store(root, held);
    assert_int_equal(la_ref_get(s->heap, root, &ref), -EAGAIN);
    atomic_store(root, NULL);
    la_free(held);
}

static int read_only(struct la_heap *heap)
{
    struct la_ref ref;
    la_link *root;
    char text[8];

    if (la_heap_root(heap, "root", &root) < 0 || la_ref_get(heap, root, &ref) < 0 || la_ref_read(heap, &ref, 0, text, 5) < 0)
        return 1;
    return strcmp(text, "read") != 0;
}

static void readers_have_references_too(void **state)
{
    struct shared *s = *state;

    published(s, "read", 64);
    assert_int_equal(shared_run_with(s, LA_HEAP_READ_ONLY, read_only), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        shared_test(an_object_is_read_while_it_is_there),
        shared_test(an_object_that_was_taken_or_freed_is_stale_also_when_its_block_is_used_again),
        shared_test(blocks_of_any_size_have_references),
        shared_test(nothing_and_nonsense_have_no_reference),
        shared_test(readers_have_references_too),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
