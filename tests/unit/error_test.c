/* error_test.c - the sentence behind a failure: per thread, never longer than its room. */
#include "engine.h"

#include "base/error.h"

static void failure_returns_its_code_and_keeps_its_sentence(void **state)
{
    (void)state;
    assert_int_equal(la_fail(-ENOSPC, "%zu bytes are too few: give %d", (size_t)7, 8), -ENOSPC);
    assert_string_equal(la_last_error(), "7 bytes are too few: give 8");
    assert_int_equal(la_last_error_code(), -ENOSPC);
}

static void later_failure_replaces_the_earlier_one(void **state)
{
    (void)state;
    la_fail(-ENOMEM, "a long sentence about the first failure");
    la_fail(-EBUSY, "second");
    assert_string_equal(la_last_error(), "second");
    assert_int_equal(la_last_error_code(), -EBUSY);
}

static void look_and_fail(void *arg)
{
    bool *was_empty = arg;

    *was_empty = la_last_error()[0] == '\0' && la_last_error_code() == 0;
    la_fail(-EIO, "of the other thread");
}

static void each_thread_has_its_own_sentence(void **state)
{
    bool was_empty = false;

    (void)state;
    la_fail(-EINVAL, "of the first thread");
    in_other_thread(look_and_fail, &was_empty);
    assert_true(was_empty);
    assert_string_equal(la_last_error(), "of the first thread");
    assert_int_equal(la_last_error_code(), -EINVAL);
}

static void sentence_that_is_too_long_is_cut(void **state)
{
    char long_text[1000];

    (void)state;
    memset(long_text, 'x', sizeof(long_text) - 1);
    long_text[sizeof(long_text) - 1] = '\0';
    la_fail(-EINVAL, "<%s>", long_text);
    assert_int_equal(strlen(la_last_error()), 255);
    assert_memory_equal(la_last_error(), "<xxxx", 5);
}

static void first_failure_outlives_the_cleaning_up(void **state)
{
    struct error_kept why;
    unsigned before;

    (void)state;
    la_fail(-ENOSPC, "the disk is %s", "full");
    error_keep(&why);
    la_fail(-ENOENT, "nothing to remove");
    before = error_count();
    error_tell_again(&why);
    assert_string_equal(la_last_error(), "the disk is full");
    assert_int_equal(la_last_error_code(), -ENOSPC);
    assert_int_equal(error_count(), before + 1);
}

static void control_call_that_fails_leaves_a_sentence_with_the_value(void **state)
{
    struct la_chain *chain = NULL;

    (void)state;
    assert_int_equal(la_chain_create(NULL, 0x80, &chain), -EINVAL);
    assert_null(chain);
    assert_non_null(strstr(la_last_error(), "0x80"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(failure_returns_its_code_and_keeps_its_sentence),
        cmocka_unit_test(later_failure_replaces_the_earlier_one),
        cmocka_unit_test(each_thread_has_its_own_sentence),
        cmocka_unit_test(sentence_that_is_too_long_is_cut),
        cmocka_unit_test(first_failure_outlives_the_cleaning_up),
        cmocka_unit_test(control_call_that_fails_leaves_a_sentence_with_the_value),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
