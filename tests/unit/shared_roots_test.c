#include "../support/shared.h"

#include <errno.h>

static void roots_are_found_by_name_and_listed_in_order(void **state)
{
    struct shared *s = *state;
    la_link *a = shared_root(s->heap, "a"), *b = shared_root(s->heap, "b"), *found;
    const char *name;

    assert_ptr_not_equal(a, b);
    assert_ptr_equal(shared_root(s->heap, "a"), a);
    assert_int_equal(la_heap_root_at(s->heap, 1, &name, &found), 0);
    assert_string_equal(name, "b");
    assert_ptr_equal(found, b);
    assert_int_equal(la_heap_root_at(s->heap, 2, &name, &found), -ENOENT);
    assert_int_equal(la_heap_root(s->heap, "no/slash", &found), -EINVAL);
    assert_int_equal(la_heap_root(s->heap, "", &found), -EINVAL);
    for (int i = 2; i < LA_HEAP_MAX_ROOTS; i++) {
        char text[16];
        snprintf(text, sizeof(text), "r%d", i);
        assert_int_equal(la_heap_root(s->heap, text, &found), 0);
    }
    assert_int_equal(la_heap_root(s->heap, "one-too-many", &found), -ENOSPC);
    assert_non_null(strstr(la_last_error(), "a name is for good"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        shared_test(roots_are_found_by_name_and_listed_in_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
