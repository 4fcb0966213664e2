/* huge_pages_test.c - pools of huge pages: what there is of them, and what is said when that is not enough. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "os/huge_pages.h"
#include "os/os.h"

#include "huge_pool.h"

enum { NO_SUCH_PAGE = 1 << 27 };        /* bytes; of no machine */

static void file_of_small_pages_has_the_machines(void **state)
{
    int fd = memfd_create("small", MFD_CLOEXEC);

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(os_file_page(fd), os_page_size());
    close(fd);
    assert_int_equal(os_file_page(-1), os_page_size());
}

/* No page is needed for the answer. */
static void file_of_huge_pages_has_theirs(void **state)
{
    int fd = os_pool_exists(2 * MiB) ? memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB | os_huge_flags(2 * MiB)) : -1;

    (void)state;
    if (fd < 0) {
        print_message("skipped: no pages of 2 MiB here\n");
        skip();
    }
    assert_int_equal(os_file_page(fd), 2 * MiB);
    close(fd);
}

static void pool_that_is_not_there_is_told_from_an_empty_one(void **state)
{
    char text[POOL_TEXT_SIZE];

    (void)state;
    assert_false(os_pool_exists(NO_SUCH_PAGE));
    assert_int_equal(os_pool_number(NO_SUCH_PAGE, "nr_hugepages"), 0);
    assert_int_equal(os_pool_free(NO_SUCH_PAGE), 0);
    assert_string_equal(os_pool_explain(NO_SUCH_PAGE, 1, text), "this machine has no pool of pages of 128 MiB");
}

/* Compared with what the files say, in a machine whose pool nobody changes meanwhile. */
static void look_at_pool(void *kib)
{
    size_t page = (size_t)*(long *)kib * KiB, left = os_pool_free(page), all = os_pool_number(page, "nr_hugepages");
    char text[POOL_TEXT_SIZE], expected[POOL_TEXT_SIZE];

    CHECK(os_pool_exists(page) && (long)all == pool_number_of(*(long *)kib, "nr_hugepages") && (long)left == pool_left(*(long *)kib));
    os_pool_explain(page, (left + 2) * page + 1, text);
    snprintf(expected, sizeof(expected), "%zu pages of %s needed, %zu of %zu free: ", left + 3, page == GiB ? "1 GiB" : "2 MiB", left, all);
    CHECK(strncmp(text, expected, strlen(expected)) == 0);
    /* The remedy is the number that the pool must have. */
    snprintf(expected, sizeof(expected), page == GiB ? "%zu into /sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages" : "sysctl vm.nr_hugepages=%zu",
             all + 3);
    CHECK(strstr(text, expected));
    /* Enough of them, and refused all the same. */
    os_pool_explain(page, left * page, text);
    CHECK(strstr(text, "try again"));
}

static void explain_pool_of(long kib)
{
    int status = with_pool_of(kib, 0, look_at_pool, &kib);

    if (status == CANNOT) {
        print_message("skipped: no right to change the pool of huge pages\n");
        skip();
    }
    assert_int_equal(status, 0);
}

static void refusal_says_what_is_needed_what_there_is_and_the_remedy(void **state)
{
    (void)state;
    explain_pool_of(KIB_2M);
}

static void remedy_for_other_pages_is_their_own_file(void **state)
{
    (void)state;
    explain_pool_of(KIB_1G);
}

/* A hugetlbfs of our own in @folder, behind so many other mounts that their list is not read at once. */
static void look_for_a_mount(void *folder)
{
    struct huge_mount found = { .page = 0 };
    char path[64];
    unsigned i = 0;

    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        _exit(CANNOT);
    for (int n = 0; n < 200; n++) {
        snprintf(path, sizeof(path), "%s/with-a-name-that-is-long-%d", (char *)folder, n);
        if (mkdir(path, 0700) < 0 || mount("none", path, "tmpfs", 0, "size=64k") < 0)
            _exit(CANNOT);
    }
    if (mount("none", path, "hugetlbfs", 0, "pagesize=2M") < 0)
        _exit(CANNOT);
    while (os_huge_mount(i, &found) && strcmp(found.path, path) != 0)
        i++;
    CHECK(strcmp(found.path, path) == 0 && found.page == 2 * MiB);
    CHECK(!os_huge_mount(i + 1, &found) && strcmp(found.path, path) == 0);
}

static void mounted_hugetlbfs_is_found(void **state)
{
    char folder[] = "/tmp/huge-pages-test-XXXXXX", command[64];
    int status;

    (void)state;
    assert_non_null(mkdtemp(folder));
    status = run_in_child(look_for_a_mount, folder);
    snprintf(command, sizeof(command), "rm -rf %s", folder);
    assert_int_equal(system(command), 0);
    if (status == CANNOT) {
        print_message("skipped: no right to mount a hugetlbfs, or no pages of 2 MiB\n");
        skip();
    }
    assert_int_equal(status, 0);
}

static int teardown(void **state)
{
    (void)state;
    unlock_pool();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(file_of_small_pages_has_the_machines),
        cmocka_unit_test(file_of_huge_pages_has_theirs),
        cmocka_unit_test(mounted_hugetlbfs_is_found),
        cmocka_unit_test(pool_that_is_not_there_is_told_from_an_empty_one),
        cmocka_unit_test_teardown(refusal_says_what_is_needed_what_there_is_and_the_remedy, teardown),
        cmocka_unit_test_teardown(remedy_for_other_pages_is_their_own_file, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
