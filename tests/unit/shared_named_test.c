#include "../support/shared.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

static void a_name_is_taken_once(void **state)
{
    struct shared *s = *state;
    struct la_heap *heap;

    assert_int_equal(la_heap_create(s->name, (size_t)16 << 20, 0, &heap), -EEXIST);
    assert_non_null(strstr(la_last_error(), s->name));
}

static void bad_names_and_sizes_are_refused(void **state)
{
    static const char *const names[] = { "", ".hidden", "-option", "a/b", "white space", NULL };
    char longest[LA_HEAP_NAME_MAX + 2];
    struct la_heap *heap;

    (void)state;
    for (unsigned i = 0; i < sizeof(names) / sizeof(*names); i++)
        assert_int_equal(la_heap_create(names[i], (size_t)16 << 20, 0, &heap), -EINVAL);
    memset(longest, 'x', sizeof(longest));
    longest[LA_HEAP_NAME_MAX + 1] = '\0';
    assert_int_equal(la_heap_create(longest, (size_t)16 << 20, 0, &heap), -EINVAL);
    assert_int_equal(la_heap_create("small", 4096, 0, &heap), -EINVAL);
    assert_int_equal(la_heap_create("big", SIZE_MAX, 0, &heap), -EINVAL);
    assert_int_equal(la_heap_attach("nobody-made-this", 0, &heap), -ENOENT);
    assert_int_equal(la_heap_remove("nobody-made-this"), -ENOENT);
}

static void a_creation_that_fails_leaves_nothing_behind(void **state)
{
    struct la_heap *heap, *many[64];
    unsigned n = 0;
    char name[32];
    int r;

    (void)state;
    assert_int_equal(la_heap_create("unmade", (size_t)16 << 20, 0x40, &heap), -EINVAL);
    assert_non_null(strstr(la_last_error(), "0x40"));
    assert_int_equal(la_heap_attach("unmade", 0, &heap), -ENOENT);
    assert_int_equal(la_heap_create("unmade", (size_t)16 << 20, 0, &heap), 0);
    assert_int_equal(la_heap_detach(heap), 0);
    assert_int_equal(la_heap_remove("unmade"), 0);
    /* More heaps than a process can attach. */
    for (r = 0; n < 64 && r == 0; n += r == 0) {
        snprintf(name, sizeof(name), "unmade-%u", n);
        r = la_heap_create(name, LA_HEAP_MIN_SIZE, 0, &many[n]);
    }
    assert_int_equal(r, -EMFILE);
    assert_non_null(strstr(la_last_error(), "detach one first"));
    assert_int_equal(la_heap_remove(name), -ENOENT);
    while (n > 0) {
        assert_int_equal(la_heap_detach(many[--n]), 0);
        snprintf(name, sizeof(name), "unmade-%u", n);
        assert_int_equal(la_heap_remove(name), 0);
    }
}

static void open_creates_then_attaches(void **state)
{
    struct shared *s = *state;
    struct la_heap *heap;

    assert_int_equal(la_heap_open(s->name, (size_t)16 << 20, 0, &heap), -EALREADY);
    assert_int_equal(la_heap_open("open-test", (size_t)16 << 20, 0, &heap), 0);
    assert_int_equal(la_heap_detach(heap), 0);
    assert_int_equal(la_heap_open("open-test", 0, 0, &heap), 0);
    assert_int_equal(la_heap_detach(heap), 0);
    assert_int_equal(la_heap_remove("open-test"), 0);
}

static void a_file_that_is_no_heap_is_refused(void **state)
{
    char path[80];
    struct la_heap *heap;
    int fd;

    (void)state;
    snprintf(path, sizeof(path), "/dev/shm/liballoc-%u-noheap", (unsigned)geteuid());
    fd = open(path, O_RDWR | O_CREAT, 0600);
    assert_int_equal(write(fd, "hello", 5), 5);
    close(fd);
    assert_int_equal(la_heap_attach("noheap", 0, &heap), -EINVAL);
    assert_int_equal(la_heap_remove("noheap"), 0);
}

static void a_removed_heap_stays_with_those_attached(void **state)
{
    struct la_heap *heap, *again;

    (void)state;
    assert_int_equal(la_heap_create("removed", (size_t)16 << 20, 0, &heap), 0);
    assert_int_equal(la_heap_remove("removed"), 0);
    assert_non_null(la_heap_alloc(heap, 1000));
    assert_int_equal(la_heap_attach("removed", 0, &again), -ENOENT);
    /* Its address is still taken: the next of that name lies elsewhere, and both can be attached. */
    assert_int_equal(la_heap_create("removed", (size_t)16 << 20, 0, &again), 0);
    assert_int_equal(la_heap_detach(again), 0);
    assert_int_equal(la_heap_remove("removed"), 0);
    assert_int_equal(la_heap_detach(heap), 0);
}

static void blocks_are_there_at_the_next_attach(void **state)
{
    struct la_heap *heap;
    char *text;

    (void)state;
    assert_int_equal(la_heap_create("again", (size_t)16 << 20, 0, &heap), 0);
    text = la_heap_hold(heap, 32);
    strcpy(text, "tomorrow");
    assert_int_equal(la_publish(heap, shared_root(heap, "text"), NULL, text), 0);
    assert_int_equal(la_heap_detach(heap), 0);
    assert_int_equal(la_heap_attach("again", 0, &heap), 0);
    assert_string_equal(la_load(heap, shared_root(heap, "text")), "tomorrow");
    assert_int_equal(la_heap_detach(heap), 0);
    assert_int_equal(la_heap_remove("again"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        shared_test(a_name_is_taken_once),
        cmocka_unit_test(bad_names_and_sizes_are_refused),
        cmocka_unit_test(a_creation_that_fails_leaves_nothing_behind),
        shared_test(open_creates_then_attaches),
        cmocka_unit_test(a_file_that_is_no_heap_is_refused),
        cmocka_unit_test(a_removed_heap_stays_with_those_attached),
        cmocka_unit_test(blocks_are_there_at_the_next_attach),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
