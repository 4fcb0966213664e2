/* os_linux_test.c - anonymous memory: zeroed, aligned, trimmed to size, and left alone when the system refuses. */
#include "engine.h"

#include <unistd.h>

#include "os/os.h"

/* Every page of the range is mapped (@want) or none is. */
static void assert_mapped(const char *p, size_t size, bool want)
{
    size_t page = os_page_size();
    unsigned char resident;

    for (size_t at = 0; at < size; at += page)
        assert_int_equal(mincore((void *)(p + at), page, &resident) == 0, want);
}

static void page_size_is_the_systems(void **state)
{
    (void)state;
    assert_int_equal(os_page_size(), sysconf(_SC_PAGESIZE));
}

static void mapping_is_zeroed_and_writable(void **state)
{
    size_t size = 3 * os_page_size();
    char *p = os_map(size);

    (void)state;
    assert_non_null(p);
    for (size_t i = 0; i < size; i++)
        assert_int_equal(p[i], 0);
    memset(p, 1, size);
    os_unmap(p, size);
    assert_mapped(p, size, false);
}

static void aligned_mapping_keeps_nothing_of_its_slack(void **state)
{
    size_t page = os_page_size(), size = 5 * page;

    (void)state;
    for (size_t alignment = 64 * KiB; alignment <= 64 * MiB; alignment *= 4) {
        /* The second one cannot lie where the first does, so at least one of them had to be trimmed. */
        char *a = os_map_aligned(size, alignment), *b = os_map_aligned(size, alignment);

        assert_non_null(a);
        assert_non_null(b);
        assert_int_equal((uintptr_t)a % alignment, 0);
        assert_int_equal((uintptr_t)b % alignment, 0);
        assert_mapped(a, size, true);
        assert_mapped(b, size, true);
        os_unmap(a, size);
        os_unmap(b, size);
        assert_mapped(a, size, false);
        assert_mapped(b, size, false);
    }
}

static void aligned_mappings_leave_the_address_space_as_it_was(void **state)
{
    unsigned long before, after;
    void *pieces[100];
    FILE *statm = fopen("/proc/self/statm", "r");

    (void)state;
    assert_non_null(statm);
    setvbuf(statm, NULL, _IONBF, 0);
    assert_int_equal(fscanf(statm, "%lu", &before), 1);
    for (int i = 0; i < 100; i++)       /* all at once, or each would find the place of the one before */
        assert_non_null(pieces[i] = os_map_aligned(MiB, 32 * MiB));
    for (int i = 0; i < 100; i++)
        os_unmap(pieces[i], MiB);
    rewind(statm);
    assert_int_equal(fscanf(statm, "%lu", &after), 1);
    fclose(statm);
    /* One piece of slack that stays would be 3,200 MiB in all. */
    assert_true(after < before + 64 * MiB / os_page_size());
}

static void refusal_is_null_and_keeps_errno(void **state)
{
    (void)state;
    errno = EXDEV;
    assert_null(os_map((size_t)1 << 50));
    assert_null(os_map_aligned((size_t)1 << 50, 2 * MiB));
    assert_null(os_map_aligned(SIZE_MAX - MiB, 2 * MiB));
    assert_int_equal(errno, EXDEV);
}

static void grown_mapping_keeps_its_content_and_alignment(void **state)
{
    size_t page = os_page_size(), size = 16 * page;
    char *p = os_map_aligned(size, 64 * KiB), *moved;
    /* In the way of growth in place, if the kernel left that room free. */
    char *wall = mmap(p + size, page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    (void)state;
    memset(p, 0x5a, size);
    moved = os_remap(p, size, 64 * size, 64 * KiB, NULL);
    assert_non_null(moved);
    assert_int_equal((uintptr_t)moved % (64 * KiB), 0);
    for (size_t i = 0; i < size; i++)
        assert_int_equal(moved[i], 0x5a);
    assert_mapped(moved, 64 * size, true);
    if (wall == p + size)
        assert_mapped(p, size, false);
    os_unmap(moved, 64 * size);
    munmap(wall, page);
}

static void shrunk_mapping_stays_where_it_is(void **state)
{
    size_t page = os_page_size();
    char *p = os_map(16 * page);

    (void)state;
    p[0] = 1;
    assert_ptr_equal(os_remap(p, 16 * page, 4 * page, 64 * KiB, NULL), p);
    assert_int_equal(p[0], 1);
    assert_mapped(p + 4 * page, 12 * page, false);
    os_unmap(p, 4 * page);
}

static bool accept_nothing(void *target)
{
    (void)target;
    return false;
}

static void refused_growth_leaves_the_old_mapping(void **state)
{
    size_t page = os_page_size();
    char *p = os_map(8 * page);     /* what lies behind the first four pages keeps them from growing where they are */

    (void)state;
    memset(p, 7, 4 * page);
    errno = EXDEV;
    assert_null(os_remap(p, 4 * page, (size_t)1 << 50, 64 * KiB, NULL));
    assert_null(os_remap(p, 4 * page, 64 * MiB, 64 * KiB, accept_nothing));
    assert_null(os_remap(p, 4 * page, SIZE_MAX - page + 1, 64 * KiB, NULL));
    assert_int_equal(errno, EXDEV);
    for (size_t i = 0; i < 4 * page; i++)
        assert_int_equal(p[i], 7);
    os_unmap(p, 8 * page);
}

static void purged_pages_read_as_zero(void **state)
{
    size_t page = os_page_size();
    char *p = os_map(4 * page);

    (void)state;
    memset(p, 7, 4 * page);
    assert_int_equal(os_purge(p + page, 2 * page), 0);
    assert_int_equal(p[page - 1], 7);
    assert_int_equal(p[page], 0);
    assert_int_equal(p[3 * page - 1], 0);
    assert_int_equal(p[3 * page], 7);
    errno = EXDEV;
    assert_int_equal(os_purge(p + 1, page), -EINVAL);
    assert_int_equal(errno, EXDEV);
    os_unmap(p, 4 * page);
}

static void time_does_not_go_back_and_random_numbers_differ(void **state)
{
    uint64_t last = os_now_ms();

    (void)state;
    for (int i = 0; i < 1000; i++) {
        uint64_t now = os_now_ms();
        assert_true(now >= last);
        last = now;
    }
    assert_int_not_equal(os_random(), os_random());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(page_size_is_the_systems),
        cmocka_unit_test(mapping_is_zeroed_and_writable),
        cmocka_unit_test(aligned_mapping_keeps_nothing_of_its_slack),
        cmocka_unit_test(aligned_mappings_leave_the_address_space_as_it_was),
        cmocka_unit_test(refusal_is_null_and_keeps_errno),
        cmocka_unit_test(grown_mapping_keeps_its_content_and_alignment),
        cmocka_unit_test(shrunk_mapping_stays_where_it_is),
        cmocka_unit_test(refused_growth_leaves_the_old_mapping),
        cmocka_unit_test(purged_pages_read_as_zero),
        cmocka_unit_test(time_does_not_go_back_and_random_numbers_differ),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
