/* fmt_test.c - the formatter says what printf would say, and never writes outside its room. */
#include "engine.h"

#include <limits.h>
#include <stdlib.h>

#include "base/fmt.h"

/* The same call to both; libc is the reference. */
#define assert_like_printf(...)                                                                                       \
    do {                                                                                                              \
        char ours_[300], theirs_[300];                                                                                \
        size_t length_ = la_format(ours_, sizeof(ours_), __VA_ARGS__);                                                \
        assert_int_equal(length_, snprintf(theirs_, sizeof(theirs_), __VA_ARGS__));                                   \
        assert_string_equal(ours_, theirs_);                                                                          \
    } while (0)

static void integers_are_written_as_printf_writes_them(void **state)
{
    static const int widths[] = { 0, 1, -1, 9, 10, 42, -42, INT_MAX, INT_MIN };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(widths); i++) {
        assert_like_printf("[%d]", widths[i]);
        assert_like_printf("[%i|%u|%x|%o]", widths[i], (unsigned)widths[i], (unsigned)widths[i], (unsigned)widths[i]);
        assert_like_printf("[%8d|%-8d|%08d]", widths[i], widths[i], widths[i]);
        assert_like_printf("[%3x|%-3x|%03x]", (unsigned)widths[i], (unsigned)widths[i], (unsigned)widths[i]);
    }
}

static void every_length_is_read_whole(void **state)
{
    (void)state;
    assert_like_printf("%ld %ld", LONG_MIN, LONG_MAX);
    assert_like_printf("%lu %lx %lo", ULONG_MAX, ULONG_MAX, ULONG_MAX);
    assert_like_printf("%lld %llu", LLONG_MIN, ULLONG_MAX);
    assert_like_printf("%zu %zd", SIZE_MAX, (ssize_t)-1);
    /* A wrong length would shift what comes after it. */
    assert_like_printf("%d %ld %d %zu %s", 1, -2L, 3, (size_t)4, "five");
}

static void pointers_and_prefixes(void **state)
{
    char text[64];

    (void)state;
    assert_like_printf("%p", (void *)0x7f1234567890);
    assert_like_printf("%#x", 255u);
    la_format(text, sizeof(text), "%p", NULL);
    assert_string_equal(text, "0x0");
}

static void strings_are_padded_and_cut(void **state)
{
    char no_end[3] = { 'a', 'b', 'c' }, text[64];

    (void)state;
    assert_like_printf("[%s|%8s|%-8s|%c]", "abc", "abc", "abc", 'z');
    assert_like_printf("[%.2s|%.0s|%6.2s]", "abc", "abc", "abc");
    assert_like_printf("[%.*s]", 3, no_end);    /* must not look for a NUL behind it */
    assert_like_printf("100 %% %s", "sure");
    la_format(text, sizeof(text), "[%s]", (const char *)opaque(NULL));
    assert_string_equal(text, "[(null)]");
}

static void text_that_does_not_fit_is_cut_and_its_length_told(void **state)
{
    char out[16];

    (void)state;
    for (size_t room = 0; room <= 8; room++) {
        memset(out, '#', sizeof(out));
        assert_int_equal(la_format(out, room, "%s%d", "abc", 12345), 8);
        for (size_t i = 0; i < sizeof(out); i++)
            assert_int_equal(out[i], i >= room ? '#' : i == room - 1 ? '\0' : "abc12345"[i]);
    }
    assert_int_equal(la_format(NULL, 0, "%s", "abc"), 3);
}

static void percent_at_the_end_is_dropped(void **state)
{
    char out[16];
    const char *volatile format = "50 %";

    (void)state;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
#pragma GCC diagnostic ignored "-Wformat-security"
    assert_int_equal(la_format(out, sizeof(out), format), 3);
#pragma GCC diagnostic pop
    assert_string_equal(out, "50 ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_are_written_as_printf_writes_them),
        cmocka_unit_test(every_length_is_read_whole),
        cmocka_unit_test(pointers_and_prefixes),
        cmocka_unit_test(strings_are_padded_and_cut),
        cmocka_unit_test(text_that_does_not_fit_is_cut_and_its_length_told),
        cmocka_unit_test(percent_at_the_end_is_dropped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
