/* headroom_test.c - what may still be taken: no more than the machine has, no more than a control group leaves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/util.h"
#include "os/headroom.h"

#include "child.h"

static size_t machine_memory(void)
{
    return (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
}

static void headroom_is_part_of_the_machine(void **state)
{
    size_t left = os_headroom();

    (void)state;
    assert_true(left >= MiB);
    assert_true(left <= machine_memory() || left == SIZE_MAX);
}

enum { LIMIT = 64 << 20 };

static bool write_word(const char *folder, const char *file, const char *word)
{
    char path[160];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", folder, file);
    f = fopen(path, "w");
    return f && fputs(word, f) >= 0 && fclose(f) == 0;
}

static bool is_version_2(void)
{
    return access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0;
}

/* The limit stands on the group above ours. */
static void live_in_a_limited_group(void *folder)
{
    char inner[120], limit[32], pid[32];
    size_t before, after;
    char *p;

    snprintf(inner, sizeof(inner), "%s/inner", (char *)folder);
    snprintf(limit, sizeof(limit), "%d", LIMIT);
    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    if (mkdir(folder, 0755) < 0 || mkdir(inner, 0755) < 0 || !write_word(folder, is_version_2() ? "memory.max" : "memory.limit_in_bytes", limit) ||
        !write_word(inner, "cgroup.procs", pid))
        _exit(CANNOT);
    before = os_headroom();
    CHECK(before <= LIMIT && before > LIMIT / 2);
    p = mmap(NULL, 16 * MiB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    CHECK(p != MAP_FAILED);
    memset(p, 1, 16 * MiB);
    after = os_headroom();
    CHECK(after + 12 * MiB < before);
}

static void headroom_is_what_the_control_group_leaves(void **state)
{
    char folder[100], inner[120];
    int status;

    (void)state;
    if (SANITIZED)
        skip();     /* its own memory does not fit into the limit */
#ifdef __SANITIZE_THREAD__
    skip();     /* the sanitizer's own memory does not fit into the group */
#endif
    snprintf(folder, sizeof(folder), "/sys/fs/cgroup/%sliballoc-headroom-%d", is_version_2() ? "" : "memory/", (int)getpid());
    snprintf(inner, sizeof(inner), "%s/inner", folder);
    status = run_in_child(live_in_a_limited_group, folder);
    rmdir(inner);
    rmdir(folder);
    if (status == CANNOT)
        skip();     /* no right to make groups here, or no memory controller */
    assert_int_equal(status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headroom_is_part_of_the_machine),
        cmocka_unit_test(headroom_is_what_the_control_group_leaves),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
