/*
 * heap_full_test.c - when memory runs out under a shared heap: NULL and a sentence, never SIGBUS, never the OOM killer.
 *
 * Every block is written as soon as it is there, so that a page that was promised and is missing would kill the child. The file system and the
 * control group are the child's own; where it may not make them the test is skipped.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <liballoc/heap.h>
#include <liballoc/vspace.h>

#include "../support/fill.h"
#include "../unit/child.h"

#define MEBI ((size_t)1 << 20)

static uint64_t committed(struct la_heap *heap)
{
    struct la_heap_info info = { .struct_size = sizeof(info) };

    CHECK(la_heap_info(heap, &info) == 0);
    return info.committed;
}

static void full_heap_goes_on(struct la_heap *heap, const char *reason)
{
    void **list = NULL;
    unsigned first = fill(heap, 3000, &list);
    uint64_t before = committed(heap);

    CHECK(first > 0 && strstr(la_last_error(), reason));
    /* A block that does not fit takes nothing with it. */
    CHECK(!la_heap_alloc(heap, 200 * MEBI) && strstr(la_last_error(), reason));
    CHECK(committed(heap) == before);
    CHECK(la_heap_fsck(heap, NULL, NULL, NULL) == 0);
    free_all(list);
    list = NULL;
    CHECK(fill(heap, 3000, &list) >= first);
    free_all(list);
    CHECK(la_heap_fsck(heap, NULL, NULL, NULL) == 0);
}

/* Four macro blocks come back, the lower two first; behind what is in use nothing has memory. 650 blocks fit into one. */
static void memory_that_comes_back_is_found(struct la_heap *heap)
{
    void **list = NULL;
    void *low = la_heap_alloc(heap, 3 * MEBI), *high = la_heap_alloc(heap, 3 * MEBI);
    unsigned first = fill(heap, 3000, &list);

    CHECK(low && high && first > 0);
    la_free(low);
    la_free(high);
    CHECK(fill(heap, 3000, &list) > 2500);
    free_all(list);
}

/* ---- a small tmpfs ---- */

static bool small_dev_shm(unsigned kib)
{
    char size[32];

    if (unshare(CLONE_NEWNS) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
        return false;
    snprintf(size, sizeof(size), "size=%uk", kib);
    return mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 && mount("tmpfs", "/dev/shm", "tmpfs", 0, size) == 0;
}

static void fill_tmpfs(void *kib)
{
    struct la_heap *heap;

    if (!small_dev_shm(*(unsigned *)kib))
        _exit(CANNOT);
    CHECK(la_heap_create("full", 1024 * MEBI, 0, &heap) == 0);
    memory_that_comes_back_is_found(heap);
    full_heap_goes_on(heap, "tmpfs");
    CHECK(la_heap_detach(heap) == 0);
}

static void full_tmpfs_is_null_and_no_sigbus(void **state)
{
    (void)state;
    /* In steps of less than a macro block, so that the end comes in the middle of one. */
    for (unsigned kib = 12 << 10; kib < 16 << 10; kib += 700) {
        int status = run_in_child(fill_tmpfs, &kib);

        if (status == CANNOT) {
            print_message("skipped: no right to mount a tmpfs of our own\n");
            skip();
        }
        assert_int_equal(status, 0);
    }
}

/* Too small for the header, then for the tables, then for the first macro block. */
static void start_in_tmpfs(void *kib)
{
    struct la_heap *heap;
    char *block;

    if (!small_dev_shm(*(unsigned *)kib))
        _exit(CANNOT);
    if (la_heap_create("tiny", 1024 * MEBI, 0, &heap) < 0) {
        CHECK(la_last_error()[0]);
        _exit(0);
    }
    block = la_heap_alloc(heap, 100);
    if (block)
        memset(block, 1, 100);
    else
        CHECK(la_last_error()[0]);
    CHECK(la_heap_detach(heap) == 0);
}

static void tmpfs_too_small_for_any_part_is_an_error(void **state)
{
    (void)state;
    for (unsigned kib = 100; kib < 4 << 10; kib += 60) {
        int status = run_in_child(start_in_tmpfs, &kib);

        if (status == CANNOT)
            skip();
        if (status != 0)
            fail_msg("with %u KiB: status %d", kib, status);
    }
}

/* ---- a small control group ---- */

static bool is_version_2(void)
{
    return access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0;
}

static bool write_word(const char *folder, const char *file, const char *word)
{
    char path[160];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", folder, file);
    f = fopen(path, "w");
    return f && fputs(word, f) >= 0 && fclose(f) == 0;
}

/* The heap is a memfd, as the daemon's are: it has no limit but this. */
static void fill_group(void *folder)
{
    struct la_heap *heap;
    uintptr_t address;
    char pid[32];
    int fd;

    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    if (mkdir(folder, 0755) < 0 || !write_word(folder, is_version_2() ? "memory.max" : "memory.limit_in_bytes", "67108864") ||
        !write_word(folder, "cgroup.procs", pid))
        _exit(CANNOT);
    fd = memfd_create("heap", MFD_CLOEXEC);
    CHECK(fd >= 0 && la_vspace_claim(1024 * MEBI, "test", &address) == 0);
    CHECK(la_heap_format(fd, 1024 * MEBI, address, "group") == 0);
    CHECK(la_heap_attach_fd(fd, 0, &heap) == 0);
    full_heap_goes_on(heap, "control group");
    CHECK(committed(heap) > 32 * MEBI && committed(heap) < 64 * MEBI);
    CHECK(la_heap_detach(heap) == 0);
    la_vspace_unclaim(address);
}

static void full_control_group_is_null_and_no_kill(void **state)
{
    char folder[100];
    int status;

    (void)state;
    if (SANITIZED)
        skip();     /* its own memory does not fit into the group */
    snprintf(folder, sizeof(folder), "/sys/fs/cgroup/%sliballoc-full-%d", is_version_2() ? "" : "memory/", (int)getpid());
    status = run_in_child(fill_group, folder);
    rmdir(folder);
    if (status == CANNOT) {
        print_message("skipped: no right to make control groups, or no memory controller\n");
        skip();
    }
    assert_int_equal(status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(full_tmpfs_is_null_and_no_sigbus),
        cmocka_unit_test(tmpfs_too_small_for_any_part_is_an_error),
        cmocka_unit_test(full_control_group_is_null_and_no_kill),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
