#include "../support/shared.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "core/shared_layout.h"

/* A memfd with a heap in it, changed by @offset and @value before it is attached. */
static int attach_changed(size_t offset, uint64_t value, off_t length)
{
    int fd = memfd_create("heap", MFD_CLOEXEC);
    uintptr_t address;
    struct la_heap *heap;
    int r;

    assert_int_equal(la_vspace_claim(LA_HEAP_MIN_SIZE, "changed", &address), 0);
    assert_int_equal(la_heap_format(fd, LA_HEAP_MIN_SIZE, address, "changed"), 0);
    if (offset != SIZE_MAX)
        assert_int_equal(pwrite(fd, &value, sizeof(value), (off_t)offset), sizeof(value));
    if (length)
        assert_int_equal(ftruncate(fd, length), 0);
    r = la_heap_attach_fd(fd, 0, &heap);
    if (r == 0)
        assert_int_equal(la_heap_detach(heap), 0);
    la_vspace_unclaim(address);
    return r;
}

static void damaged_and_foreign_files_are_refused(void **state)
{
    struct la_heap *heap;

    (void)state;
    assert_int_equal(attach_changed(SIZE_MAX, 0, 0), 0);
    assert_int_equal(attach_changed(0, 42, 0), -EINVAL);
    assert_int_equal(attach_changed(offsetof(struct heap_header, layout_version), 99, 0), -EPROTO);
    assert_int_equal(attach_changed(offsetof(struct heap_header, layout_hash), 99, 0), -EPROTO);
    assert_int_equal(attach_changed(offsetof(struct heap_header, payload_at), 4096, 0), -EINVAL);
    assert_int_equal(attach_changed(SIZE_MAX, 0, 4 << 20), -EINVAL);
    assert_non_null(strstr(la_last_error(), "truncated"));
    assert_int_equal(la_heap_attach_fd(open("/etc/passwd", O_RDONLY | O_CLOEXEC), 0, &heap), -EINVAL);
}

static void assert_refused(int fd, int code, const char *words)
{
    struct la_heap *heap;

    assert_int_equal(la_heap_attach_fd(fd, 0, &heap), code);
    if (!strstr(la_last_error(), words))
        fail_msg("%s: no \"%s\"", la_last_error(), words);
}

static void what_is_no_heap_is_told_what_it_is(void **state)
{
    int fd = memfd_create("short", MFD_CLOEXEC);

    (void)state;
    assert_refused(-1, -EBADF, "is it open?");
    assert_refused(open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC), -EINVAL, "folder");
    assert_refused(open("/dev/null", O_RDWR | O_CLOEXEC), -EINVAL, "device");
    assert_refused(memfd_create("empty", MFD_CLOEXEC), -EINVAL, "is empty");
    assert_int_equal(write(fd, "hello", 5), 5);
    assert_refused(fd, -EINVAL, "5 bytes are too few");
    assert_int_equal(attach_changed(0, 42, 0), -EINVAL);
    assert_non_null(strstr(la_last_error(), "first bytes"));
}

/* What the other library is told: both versions, and what to do. */
static void another_layout_is_refused_in_words(void **state)
{
    (void)state;
    assert_int_equal(attach_changed(offsetof(struct heap_header, layout_version), (uint64_t)64 << 32 | (HEAP_LAYOUT_VERSION - 1), 0), -EPROTO);
    assert_non_null(strstr(la_last_error(), "layout version 4 "));
    assert_non_null(strstr(la_last_error(), "needs 5 "));
    assert_non_null(strstr(la_last_error(), "use the same version of liballoc in all processes"));
    /* The same version, but another size of something. */
    assert_int_equal(attach_changed(offsetof(struct heap_header, layout_hash), HEAP_LAYOUT_HASH ^ 1, 0), -EPROTO);
    assert_non_null(strstr(la_last_error(), "hash"));
    assert_int_equal(attach_changed(offsetof(struct heap_header, layout_hash), HEAP_LAYOUT_HASH, 0), 0);
}

static void format_refuses_small_sizes_bad_names_and_bad_addresses(void **state)
{
    int fd = memfd_create("heap", MFD_CLOEXEC);

    (void)state;
    assert_int_equal(la_heap_format(fd, 1 << 20, 0x410000200000, "x"), -EINVAL);
    assert_int_equal(la_heap_format(fd, 8 << 20, 12345, "x"), -EINVAL);
    assert_int_equal(la_heap_format(fd, 8 << 20, 0x410000200000, "a/b"), -EINVAL);
    assert_int_equal(la_heap_format(fd, 8 << 20, 0x410000200000, NULL), -EINVAL);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damaged_and_foreign_files_are_refused),
        cmocka_unit_test(what_is_no_heap_is_told_what_it_is),
        cmocka_unit_test(another_layout_is_refused_in_words),
        cmocka_unit_test(format_refuses_small_sizes_bad_names_and_bad_addresses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
