/*
 * huge_heap_test.c - shared heaps of huge pages: the same heap, and a pool that runs empty is NULL and a sentence, never SIGBUS.
 *
 * Every block is written as soon as it is there. Each test runs in a child with some more pages in the pool than the machine had, which is put back
 * afterwards; without the right to do that it is skipped. What others have left free in the pool is taken away first, so that numbers are exact.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include <liballoc/heap.h>
#include <liballoc/vspace.h>

#include "../support/fill.h"
#include "../unit/huge_pool.h"

#define MEBI ((size_t)1 << 20)
#define GIBI ((size_t)1 << 30)

enum { FLAGS_2M = 21u << 26, FLAGS_1G = 30u << 26 };        /* MFD_HUGE_2MB, MFD_HUGE_1GB */

/* ---- pages ---- */

/* All pages that are free, but @kept. Return: a descriptor, which has them until it is closed. */
static int take_pages(long kib, long kept)
{
    int fd = memfd_create("taken", MFD_CLOEXEC | MFD_HUGETLB | (kib == KIB_1G ? FLAGS_1G : FLAGS_2M));
    off_t size = (pool_left(kib) - kept) * kib * 1024;

    CHECK(fd >= 0 && size >= 0 && ftruncate(fd, size) == 0);
    CHECK(size == 0 || fallocate(fd, 0, 0, size) == 0);
    CHECK(pool_left(kib) == kept);
    return fd;
}

static void run_with_pages_of(long kib, long extra, void (*body)(void *))
{
    int status = with_pool_of(kib, extra, body, &extra);

    if (status == CANNOT) {
        print_message("skipped: no %ld pages of %ld KiB to be had, or no right to change the pool\n", extra, kib);
        skip();
    }
    assert_int_equal(status, 0);
}

/* ---- a heap ---- */

/* Its file; every process opens it anew. */
static int make_file(size_t size, size_t page)
{
    int fd = memfd_create("heap", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB | (page == GIBI ? FLAGS_1G : FLAGS_2M));
    uintptr_t address;

    CHECK(fd >= 0 && la_vspace_claim_aligned(size, page, "test", &address) == 0 && address % page == 0);
    CHECK(la_heap_format(fd, size, address, "huge") == 0);
    la_vspace_unclaim(address);
    return fd;
}

static struct la_heap *attach(int file, unsigned flags)
{
    struct la_heap *heap;
    char path[40];
    int fd;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
    fd = open(path, (flags & LA_HEAP_READ_ONLY ? O_RDONLY : O_RDWR) | O_CLOEXEC);
    CHECK(fd >= 0 && la_heap_attach_fd(fd, flags, &heap) == 0);
    return heap;
}

static struct la_heap_info info_of(struct la_heap *heap)
{
    struct la_heap_info info = { .struct_size = sizeof(info) };

    CHECK(la_heap_info(heap, &info) == 0);
    return info;
}

static void leave(struct la_heap *heap)
{
    CHECK(la_heap_fsck(heap, NULL, NULL, NULL) == 0);
    CHECK(la_heap_detach(heap) == 0);
}

static bool is_all(const char *block, size_t size, char c)
{
    return block[0] == c && memcmp(block, block + 1, size - 1) == 0;
}

/* ---- several processes ---- */

struct guest {
    int file;
    int go, done;       /* pipes' ends of the child */
};

static void guest_work(void *arg)
{
    const struct guest *g = arg;
    struct la_heap *heap = attach(g->file, 0);
    la_link *link;
    char *block;

    CHECK(la_heap_root(heap, "first", &link) == 0);
    block = la_take(heap, link, LA_NO_NEXT);
    CHECK(block && is_all(block, 100000, 'p'));
    la_free(block);
    /* Grows by three macro blocks. */
    block = la_heap_hold(heap, 5 * MEBI);
    CHECK(block);
    memset(block, 'c', 5 * MEBI);
    CHECK(la_publish(heap, link, NULL, block) == 0);
    leave(heap);
}

static void share_a_heap(void *arg)
{
    int taken = take_pages(KIB_2M, 8), file = make_file(64 * MEBI, 2 * MEBI);
    struct guest g = { .file = file };
    struct la_heap *heap = attach(file, 0), *reader;
    la_link *link;
    char *block;

    (void)arg;
    CHECK(info_of(heap).page_size == 2 * MEBI && info_of(heap).committed == 2 * MEBI);
    CHECK(la_heap_root(heap, "first", &link) == 0);
    block = la_heap_hold(heap, 100000);
    CHECK(block);
    memset(block, 'p', 100000);
    CHECK(la_publish(heap, link, NULL, block) == 0);
    CHECK(run_in_child(guest_work, &g) == 0);
    block = la_load(heap, link);
    CHECK(block && is_all(block, 5 * MEBI, 'c'));
    /* What is told is what the pool has given: nothing was taken by touching. */
    CHECK(info_of(heap).committed == (size_t)(8 - pool_left(KIB_2M)) * 2 * MEBI);
    leave(heap);
    reader = attach(file, LA_HEAP_READ_ONLY);
    CHECK(la_heap_root(reader, "first", &link) == 0 && is_all(la_load(reader, link), 5 * MEBI, 'c'));
    CHECK(info_of(reader).page_size == 2 * MEBI);
    leave(reader);
    close(file);
    CHECK(pool_left(KIB_2M) == 8);
    close(taken);
}

static void heap_of_huge_pages_is_shared_and_grows(void **state)
{
    (void)state;
    run_with_pages_of(KIB_2M, 8, share_a_heap);
}

/* ---- an empty pool ---- */

static void create_without_pages(void *arg)
{
    int taken = take_pages(KIB_2M, 0), fd = memfd_create("heap", MFD_CLOEXEC | MFD_HUGETLB | FLAGS_2M);
    char remedy[64];

    (void)arg;
    snprintf(remedy, sizeof(remedy), "0 of %ld free: sysctl vm.nr_hugepages=%ld", pool_number("nr_hugepages"), pool_number("nr_hugepages") + 1);
    CHECK(la_heap_format(fd, 64 * MEBI, 0x410000000000, "huge") == -ENOSPC);
    CHECK(strstr(la_last_error(), "1 page of 2 MiB needed") && strstr(la_last_error(), remedy));
    close(taken);
}

static void empty_pool_at_creation_is_an_error_with_a_remedy(void **state)
{
    (void)state;
    run_with_pages_of(KIB_2M, 1, create_without_pages);
}

/* Another process has them, and is killed. */
struct rival {
    pid_t pid;
    int said;
};

static struct rival start_rival(void)
{
    struct rival rival;
    int ends[2];
    char c;

    CHECK(pipe(ends) == 0);
    rival.pid = fork();
    if (rival.pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        take_pages(KIB_2M, 0);
        CHECK(write(ends[1], "!", 1) == 1);
        for (;;)
            pause();
    }
    close(ends[1]);
    CHECK(read(ends[0], &c, 1) == 1);
    rival.said = ends[0];
    return rival;
}

static void end_rival(struct rival *rival)
{
    CHECK(kill(rival->pid, SIGKILL) == 0 && child_status(rival->pid) == 128 + SIGKILL);
    close(rival->said);
}

static void pool_is_emptied(void *arg)
{
    int taken = take_pages(KIB_2M, 8), file = make_file(64 * MEBI, 2 * MEBI);
    struct la_heap *heap = attach(file, 0);
    char *block = la_heap_alloc(heap, 100000);
    struct rival rival;
    void **list = NULL;
    uint64_t committed;
    unsigned n;

    (void)arg;
    CHECK(block);
    memset(block, 'b', 100000);
    committed = info_of(heap).committed;
    rival = start_rival();
    CHECK(!la_heap_alloc(heap, 3 * MEBI) && strstr(la_last_error(), "2 pages of 2 MiB needed, 0 of ") && strstr(la_last_error(), "sysctl vm.nr_hugepages="));
    CHECK(la_last_error_code() == -ENOSPC);
    /* What it has, it can give: up to the last slice. */
    n = fill(heap, 3000, &list);
    CHECK(n > 500 && strstr(la_last_error(), "1 page of 2 MiB needed"));
    CHECK(info_of(heap).committed == committed && is_all(block, 100000, 'b'));
    CHECK(la_heap_fsck(heap, NULL, NULL, NULL) == 0);
    free_all(list);
    list = NULL;
    CHECK(fill(heap, 3000, &list) >= n);
    end_rival(&rival);
    CHECK(fill(heap, 3000, &list) > 3000);
    free_all(list);
    la_free(block);
    leave(heap);
    close(file);
    close(taken);
}

static void pool_emptied_between_creation_and_growth_is_null_and_no_sigbus(void **state)
{
    (void)state;
    run_with_pages_of(KIB_2M, 8, pool_is_emptied);
}

/* hugetlbfs keeps what it has allocated of a request that it refuses; the heap gives it back. */
static void ask_for_more_than_there_is(void *arg)
{
    int taken = take_pages(KIB_2M, 6), file = make_file(64 * MEBI, 2 * MEBI);
    struct la_heap *heap = attach(file, 0);
    char *block = la_heap_alloc(heap, 1);
    long left = pool_left(KIB_2M);

    (void)arg;
    CHECK(block && left == 4);
    *block = 'x';
    CHECK(!la_heap_alloc(heap, 20 * MEBI) && strstr(la_last_error(), "10 pages of 2 MiB needed, 4 of "));
    CHECK(pool_left(KIB_2M) == left && *block == 'x');
    block = la_heap_alloc(heap, 8 * MEBI);
    CHECK(block && pool_left(KIB_2M) == 0);
    memset(block, 1, 8 * MEBI);
    leave(heap);
    close(file);
    close(taken);
}

static void block_that_does_not_fit_takes_no_page_with_it(void **state)
{
    (void)state;
    run_with_pages_of(KIB_2M, 6, ask_for_more_than_there_is);
}

/* ---- deaths ---- */

static void hold_and_die(void *arg)
{
    const struct guest *g = arg;
    struct la_heap *heap = attach(g->file, 0);

    for (int i = 0; i < 1000; i++) {
        char *block = la_heap_hold(heap, 3000);

        CHECK(block);
        memset(block, 'h', 3000);
    }
    CHECK(la_heap_hold(heap, 3 * MEBI));
    kill(getpid(), SIGKILL);
}

static void recover_in_an_empty_pool(void *arg)
{
    int taken = take_pages(KIB_2M, 8), file = make_file(64 * MEBI, 2 * MEBI);
    struct guest g = { .file = file };
    struct la_heap *heap = attach(file, 0);
    struct rival rival;
    void **list = NULL;

    (void)arg;
    CHECK(run_in_child(hold_and_die, &g) == 128 + SIGKILL);
    rival = start_rival();
    CHECK(la_heap_recover(heap, NULL, NULL) == 1);
    CHECK(info_of(heap).recovered_blocks == 1001);
    /* Its memory is found again. */
    CHECK(fill(heap, 3000, &list) > 1000);
    free_all(list);
    end_rival(&rival);
    leave(heap);
    close(file);
    close(taken);
}

static void dead_process_is_recovered_without_a_page(void **state)
{
    (void)state;
    run_with_pages_of(KIB_2M, 8, recover_in_an_empty_pool);
}

/* ---- pages of 1 GiB ---- */

static void use_gigantic_pages(void *arg)
{
    int taken = take_pages(KIB_1G, 1), file = make_file(3 * GIBI, GIBI);
    struct la_heap *heap = attach(file, 0);
    char *small = la_heap_alloc(heap, 100), *blocks[600];
    unsigned n = 0;

    (void)arg;
    CHECK(small && info_of(heap).page_size == GIBI && info_of(heap).committed == GIBI && pool_left(KIB_1G) == 0);
    memset(small, 's', 100);
    /* All macro blocks of the first page, and none beyond. */
    while (n < 600 && (blocks[n] = la_heap_alloc(heap, 2 * MEBI)) != NULL)
        *blocks[n++] = 1;
    CHECK(n > 500 && n < 512 && strstr(la_last_error(), "1 page of 1 GiB needed, 0 of "));
    /* The page is shared with the tables and all blocks: nothing of it may go back when a request is refused. */
    CHECK(!la_heap_alloc(heap, 300 * MEBI) && !la_heap_alloc(heap, GIBI + 300 * MEBI));
    CHECK(is_all(small, 100, 's') && *blocks[0] == 1 && *blocks[n - 1] == 1 && info_of(heap).committed == GIBI);
    while (n > 0)
        la_free(blocks[--n]);
    CHECK(la_heap_alloc(heap, 300 * MEBI));
    leave(heap);
    close(file);
    close(taken);
}

static void pages_of_1_gib_hold_many_macro_blocks(void **state)
{
    (void)state;
    run_with_pages_of(KIB_1G, 1, use_gigantic_pages);
}

static void wrong_address_is_refused(void *arg)
{
    int taken = take_pages(KIB_1G, 0), fd = memfd_create("heap", MFD_CLOEXEC | MFD_HUGETLB | FLAGS_1G);

    (void)arg;
    CHECK(la_heap_format(fd, GIBI, 0x410000000000 + 2 * MEBI, "huge") == -EINVAL && strstr(la_last_error(), "1024 MiB"));
    CHECK(la_heap_format(fd, GIBI, 0x410000000000, "huge") == -ENOSPC && strstr(la_last_error(), "hugepages-1048576kB/nr_hugepages"));
    close(taken);
}

static void address_that_huge_pages_cannot_have_is_refused(void **state)
{
    (void)state;
    run_with_pages_of(KIB_1G, 0, wrong_address_is_refused);
}

/* ---- by name, without a daemon ---- */

static void attach_by_name(void *name)
{
    struct la_heap *heap;

    CHECK(la_heap_open(name, 64 * MEBI, 0, &heap) == 0 && info_of(heap).page_size == 2 * MEBI);
    CHECK(la_heap_alloc(heap, 100));
    leave(heap);
}

static void use_names(void *arg)
{
    char name[32], folder[] = "/tmp/huge-heap-test-XXXXXX", path[96];
    struct la_heap *heap;

    (void)arg;
    snprintf(name, sizeof(name), "huge-%d", (int)getpid());
    if (!mkdtemp(folder) || unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        _exit(CANNOT);
    while (umount2("/dev/hugepages", MNT_DETACH) == 0)
        ;
    CHECK(la_heap_create(name, 64 * MEBI, LA_HEAP_HUGE_2M, &heap) == -ENODEV && strstr(la_last_error(), "pagesize=2M"));
    if (mount("none", folder, "hugetlbfs", 0, "pagesize=2M,mode=1777") < 0)
        _exit(CANNOT);
    CHECK(la_heap_create(name, 64 * MEBI, LA_HEAP_HUGE_2M, &heap) == 0);
    CHECK(info_of(heap).page_size == 2 * MEBI);
    /* One name, one heap, of whatever pages. */
    CHECK(run_in_child(attach_by_name, name) == 0);
    leave(heap);
    CHECK(la_heap_create(name, 64 * MEBI, 0, &heap) == -EEXIST);
    CHECK(la_heap_create(name, 64 * MEBI, LA_HEAP_HUGE_2M, &heap) == -EEXIST);
    CHECK(la_heap_open(name, 64 * MEBI, LA_HEAP_HUGE_2M, &heap) == 0);
    leave(heap);
    CHECK(la_heap_remove(name) == 0 && la_heap_remove(name) == -ENOENT);
    CHECK(la_heap_create(name, 64 * MEBI, LA_HEAP_HUGE_1G, &heap) == -ENODEV && strstr(la_last_error(), "pagesize=1G"));
    snprintf(path, sizeof(path), "%s/liballoc-0-%s", folder, name);
    CHECK(access(path, F_OK) < 0);
    umount(folder);
    rmdir(folder);
}

static void heap_of_huge_pages_has_a_name_in_a_hugetlbfs(void **state)
{
    (void)state;
    run_with_pages_of(KIB_2M, 4, use_names);
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
        cmocka_unit_test_teardown(heap_of_huge_pages_is_shared_and_grows, teardown),
        cmocka_unit_test_teardown(empty_pool_at_creation_is_an_error_with_a_remedy, teardown),
        cmocka_unit_test_teardown(pool_emptied_between_creation_and_growth_is_null_and_no_sigbus, teardown),
        cmocka_unit_test_teardown(block_that_does_not_fit_takes_no_page_with_it, teardown),
        cmocka_unit_test_teardown(dead_process_is_recovered_without_a_page, teardown),
        cmocka_unit_test_teardown(pages_of_1_gib_hold_many_macro_blocks, teardown),
        cmocka_unit_test_teardown(heap_of_huge_pages_has_a_name_in_a_hugetlbfs, teardown),
        cmocka_unit_test_teardown(address_that_huge_pages_cannot_have_is_refused, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
