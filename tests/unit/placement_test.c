/*
 * placement_test.c - segments/placement.c: pages of the system's pools. A pool that is empty, becomes so while a chain grows, or has pages of another
 * size than is asked for is an error or the next kind of the list, never SIGBUS. On this kernel, on pools made for the test (root).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <liballoc/liballoc.h>
#include <segments/find.h>

#include "base/util.h"
#include "os/headroom.h"

#include "../support/emulated.h"
#include "huge_pool.h"

#define CONFIG(...) &(struct seg_supply_config){ .struct_size = sizeof(struct seg_supply_config), __VA_ARGS__ }

static int release_pool(void **state)
{
    (void)state;
    unlock_pool();
    return 0;
}

static void assert_passed(int status, const char *needs)
{
    if (status == CANNOT) {
        print_message("%s\n", needs);
        skip();
    }
    assert_int_equal(status, 0);
}

#define NEEDS_POOL "the pool of huge pages cannot be changed here (needs root and free memory)"

static void check_said(const char *word)
{
    if (!strstr(la_last_error(), word)) {
        fprintf(stderr, "\"%s\" does not say \"%s\"\n", la_last_error(), word);
        _exit(1);
    }
}

/* In a child: "no" as the reason of a machine without such pages, not as a signal. */
static void check_refused(const char *list, const char *word)
{
    struct seg_supply *supply;
    struct la_range none;

    CHECK(seg_supply_create(CONFIG(.list = list), &supply) == 0);
    CHECK(seg_supply_acquire(supply, 1, 1, &none) == -ENOTSUP);
    check_said(word);
    CHECK(seg_supply_destroy(supply) == 0);
}

static struct seg_supply *supply_of(const char *list)
{
    struct seg_supply *supply;

    CHECK(seg_supply_create(CONFIG(.list = list), &supply) == 0);
    return supply;
}

/* All pages that are left, used. */
static struct la_range take_pool(struct seg_supply *supply, long kib)
{
    size_t bytes = (size_t)pool_left(kib) * (size_t)kib * KiB;
    struct la_range range;

    CHECK(seg_supply_acquire(supply, bytes, bytes, &range) == 0 && range.size == bytes);
    memset(range.base, 1, range.size);
    return range;
}

/* ---- empty ---- */

static void ask_an_empty_pool(void *arg)
{
    struct seg_supply *taker = supply_of("hugetlb:2M"), *listed = supply_of("hugetlb:2M,memfd:2M,anon");
    struct la_range all = take_pool(taker, KIB_2M), range;

    (void)arg;
    check_refused("hugetlb:2M", "2 MiB pages: 0 of");
    check_refused("memfd:2M", "(sysctl vm.nr_hugepages)");
    CHECK(seg_supply_acquire(listed, MiB, MiB, &range) == 0);
    memset(range.base, 1, range.size);
    CHECK(seg_supply_release(taker, all) == 0 && seg_supply_release(listed, range) == 0);
    CHECK(seg_supply_destroy(taker) == 0 && seg_supply_destroy(listed) == 0);
}

static void empty_pool_is_a_reason(void **state)
{
    (void)state;
    assert_passed(with_pool(1, ask_an_empty_pool, NULL), NEEDS_POOL);
}

/* ---- exhausted while a chain grows ---- */

struct growth {
    const char *list;
    bool ends;              /* NULL when the pool is empty, else the next kind */
    const char *word;
};

static void grow_until_the_pool_is_empty(void *arg)
{
    const struct growth *g = arg;
    struct seg_supply *supply = supply_of(g->list);
    size_t pool = (size_t)pool_left(KIB_2M) * 2 * MiB, size = 100000, huge = 0, small = 0;
    struct seg_location l = { .struct_size = sizeof(l) };
    unsigned char *block[1000];
    struct la_chain *chain;
    unsigned n = 0;

    CHECK(la_chain_create(seg_supply_source(supply), 0, &chain) == 0);
    for (; n < ARRAY_SIZE(block) && (g->ends || small < 4 * MiB) && (block[n] = la_chain_alloc(chain, size)); n++) {
        memset(block[n], (int)(n % 251), size);
        CHECK(seg_find(block[n], &l) == 0);
        *(l.capabilities & SEG_HUGE ? &huge : &small) += size;
    }
    CHECK(n < ARRAY_SIZE(block) && huge <= pool && huge > pool / 2);
    CHECK(g->ends ? small == 0 : small >= 4 * MiB);
    if (g->ends)
        check_said(g->word);
    for (unsigned i = 0; i < n; i++)
        CHECK(block[i][0] == i % 251 && block[i][size - 1] == i % 251);
    /* What is given back serves again. */
    la_free(block[0]);
    CHECK(la_chain_alloc(chain, size) && la_chain_check(chain, NULL, NULL) == 0);
    CHECK(la_chain_destroy(chain) == 0 && seg_supply_destroy(supply) == 0);
    CHECK((size_t)pool_left(KIB_2M) * 2 * MiB == pool);
}

static void pool_exhausted_in_growth_is_null_or_the_next_kind(void **state)
{
    static struct growth growths[] = {
        { "hugetlb:2M", true, "2 MiB pages:" }, { "memfd:2M", true, "2 MiB pages:" }, { "hugetlb:2M,anon", false, "" },
        { "memfd:2M,memfd", false, "" },
    };

    (void)state;
    skip_if_emulated("huge pages of a file are not mapped");
    for (size_t i = 0; i < ARRAY_SIZE(growths); i++)
        assert_passed(with_pool(10, grow_until_the_pool_is_empty, &growths[i]), NEEDS_POOL);
}

/* ---- on a mount ---- */

struct mounted {
    const char *options;
    long kib;
};

/* hugetlbfs for this process alone; the folder goes with it. */
static void use_mount(void *arg)
{
    const struct mounted *m = arg;
    char folder[64], list[96];
    struct seg_request mismatch = { .struct_size = sizeof(mismatch), .kind = SEG_FILE, .flags = SEG_CREATE, .required = SEG_HUGE,
                                    .wanted_size = 1, .page_size = m->kib == KIB_2M ? GiB : 2 * MiB };
    struct seg_segment *none = NULL;
    struct seg_supply *supply;
    struct la_range all, rest;

    snprintf(folder, sizeof(folder), "/tmp/placement-test-%d", (int)getpid());
    CHECK(mkdir(folder, 0700) == 0);
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", folder, "hugetlbfs", 0, m->options) < 0) {
        rmdir(folder);
        _exit(CANNOT);
    }
    snprintf(list, sizeof(list), "file:%s/extent", folder);
    supply = supply_of(list);
    all = take_pool(supply, m->kib);
    CHECK(seg_supply_acquire(supply, 1, 1, &rest) == -ENOSPC);
    check_said("the pool of huge pages is empty");
    CHECK(seg_supply_release(supply, all) == 0 && seg_supply_destroy(supply) == 0);

    snprintf(list, sizeof(list), "%s/file", folder);
    mismatch.path = list;
    CHECK(seg_open(&mismatch, &none) == -ENOTSUP && !none);
    check_said(m->kib == KIB_2M ? "has pages of 2048 KiB" : "has pages of 1048576 KiB");
    CHECK(umount(folder) == 0 && rmdir(folder) == 0);           /* nothing is left in it, or it were busy */
}

static void mount_with_an_empty_pool_is_an_error(void **state)
{
    static struct mounted m = { "pagesize=2M", KIB_2M };

    (void)state;
    skip_if_emulated("huge pages of a file are not mapped");
    assert_passed(with_pool(4, use_mount, &m), "hugetlbfs cannot be mounted, or its pool cannot be changed here (needs root)");
}

/* ---- other sizes ---- */

static void ask_for_other_sizes(void *arg)
{
    struct seg_request request = { .struct_size = sizeof(request), .kind = SEG_MEMFD, .required = SEG_HUGE, .wanted_size = 2 * MiB };
    struct seg_info info = { .struct_size = sizeof(info) };
    struct seg_segment *maker, *importer = NULL;
    struct seg_supply *supply;

    (void)arg;
    check_refused("hugetlb:4M", "pages of 4096 KiB: this machine has no pool of them");
    check_refused("memfd:128M", "pages of 131072 KiB");
    CHECK(seg_supply_create(CONFIG(.list = "hugetlb:3M"), &supply) == -EINVAL);
    check_said("a page size is 2M or 1G");

    /* Of another process, with pages that are not those asked for. */
    CHECK(seg_open(&request, &maker) == 0 && seg_info(maker, &info) == 0);
    request.flags = SEG_IMPORT;
    request.fd = info.fd;
    request.page_size = GiB;
    CHECK(seg_open(&request, &importer) == -ENOTSUP && !importer);
    check_said("the file has pages of 2048 KiB");
    request.page_size = 2 * MiB;
    CHECK(seg_open(&request, &importer) == 0);
    CHECK(seg_info(importer, &info) == 0 && info.page_size == 2 * MiB && info.capabilities & SEG_HUGE);
    CHECK(seg_close(importer) == 0 && seg_close(maker) == 0);
}

static void other_page_sizes_are_refused_by_name(void **state)
{
    (void)state;
    skip_if_emulated("huge pages of a file are not mapped");
    assert_passed(with_pool(2, ask_for_other_sizes, NULL), NEEDS_POOL);
}

/* ---- 1 GiB ---- */

static void ask_for_gigabytes_in_vain(void *arg)
{
    struct seg_supply *supply = supply_of("hugetlb:1G,anon");
    struct seg_supply_info info = { .struct_size = sizeof(info) };
    struct la_range range;

    (void)arg;
    if (pool_number_of(KIB_1G, "nr_hugepages") > 0)
        _exit(CANNOT);
    check_refused("hugetlb:1G", pool_number_of(KIB_1G, "nr_hugepages") < 0 ? "no pool of them" : "1 GiB pages: 0 of 0 free, 1 needed");
    CHECK(seg_supply_acquire(supply, MiB, MiB, &range) == 0);
    CHECK(seg_supply_info(supply, &info) == 0 && strcmp(info.source, "anon") == 0);
    CHECK(strstr(info.reason, "hugetlb: ") && strstr(info.reason, "1048576kB"));
    CHECK(seg_supply_release(supply, range) == 0 && seg_supply_destroy(supply) == 0);
}

static void gigabytes_that_are_not_there_are_a_reason(void **state)
{
    int status;

    (void)state;
    lock_pool();
    status = run_in_child(ask_for_gigabytes_in_vain, NULL);
    assert_passed(status, "this machine has pages of 1 GiB");
}

static void use_gigabytes(void *arg)
{
    struct seg_supply *supply = supply_of(arg);
    struct seg_location l = { .struct_size = sizeof(l) };
    struct la_chain *chain;
    char *block, *large;

    CHECK(la_chain_create(seg_supply_source(supply), 0, &chain) == 0);
    block = la_chain_alloc(chain, 1000);
    CHECK(block && seg_find(block, &l) == 0);
    CHECK(l.page_size == GiB && l.size == GiB && (uintptr_t)l.base % GiB == 0 && l.capabilities & SEG_HUGE);
    large = la_chain_alloc(chain, 900 * MiB);
    CHECK(large && seg_find(large + 900 * MiB - 1, &l) == 0);
    large[0] = large[900 * MiB - 1] = 1;
    CHECK(!la_chain_alloc(chain, 200 * MiB));
    check_said("1 GiB pages: 0 of");
    CHECK(la_chain_destroy(chain) == 0 && seg_supply_destroy(supply) == 0);
}

static void pages_of_a_gigabyte_serve_a_chain(void **state)
{
    static char anonymous[] = "hugetlb:1G", memfd[] = "memfd:1G";
    static struct mounted m = { "pagesize=1G", KIB_1G };
    static const char needs[] = "no page of 1 GiB can be had here (needs root, 4 GiB of free memory, and 1 GiB of it in one piece)";

    (void)state;
    if (os_headroom() < 4 * GiB || EMULATED) {
        print_message("%s\n", needs);
        skip();
    }
    assert_passed(with_pool_of(KIB_1G, 1, use_gigabytes, anonymous), needs);
    assert_passed(with_pool_of(KIB_1G, 1, use_gigabytes, memfd), needs);
    assert_passed(with_pool_of(KIB_1G, 1, use_mount, &m), needs);
}

#define TEST(f) cmocka_unit_test_teardown(f, release_pool)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(empty_pool_is_a_reason),
        TEST(pool_exhausted_in_growth_is_null_or_the_next_kind),
        TEST(mount_with_an_empty_pool_is_an_error),
        TEST(other_page_sizes_are_refused_by_name),
        TEST(gigabytes_that_are_not_there_are_a_reason),
        TEST(pages_of_a_gigabyte_serve_a_chain),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
