/*
 * registrar_test.c - segments/registrar.c, registrars/mlock.c, budget.c: locked memory is locked, limits are named before a driver is called.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/syscall.h>

#include <liballoc/liballoc.h>
#include <segments/find.h>

#include "base/util.h"

#include "child.h"

static size_t locked_bytes(void)
{
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    size_t kib = 0;

    while (file && fgets(line, sizeof(line), file))
        if (sscanf(line, "VmLck: %zu", &kib) == 1)
            break;
    if (file)
        fclose(file);
    return kib * KiB;
}

static struct seg_supply *locked_supply(const char *list, struct seg_registrar **registrar)
{
    struct seg_supply_config config = { .struct_size = sizeof(config), .list = list, .required = SEG_PINNED };
    struct seg_supply *supply = NULL;

    CHECK(seg_registrar_mlock(registrar) == 0);
    config.registrars[0] = *registrar;
    CHECK(seg_supply_create(&config, &supply) == 0);
    return supply;
}

static void lock_and_unlock(void *arg)
{
    static const char *const lists[] = { "anon", "memfd", "thp,anon" };
    struct seg_location location = { .struct_size = sizeof(location) };
    struct seg_registrar *registrar;
    struct seg_key_here key;
    struct la_range range;

    (void)arg;
    for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
        struct seg_supply *supply = locked_supply(lists[i], &registrar);
        size_t before = locked_bytes();

        if (seg_supply_acquire(supply, MiB, MiB, &range) == -EDQUOT)
            _exit(CANNOT);      /* not even 1 MiB may be locked here */
        CHECK(range.size == MiB && locked_bytes() == before + MiB);
        CHECK(seg_find(range.base, &location) == 0 && location.capabilities & SEG_PINNED);
        CHECK(seg_key_of(range.base, registrar, &key) == 0 && key.local == 0 && key.device == 0 && key.bytes == MiB);
        CHECK(la_source_trim(seg_supply_source(supply)) == 0);      /* what is pinned is not purged */
        CHECK(seg_supply_release(supply, range) == 0);
        CHECK(locked_bytes() == before);
        CHECK(seg_supply_destroy(supply) == 0 && seg_registrar_destroy(registrar) == 0);
    }
}

/* Memory that stays mapped: here nothing but detach() unlocks it. */
static void lock_parts(void *arg)
{
    struct seg_request request = { .struct_size = sizeof(request), .kind = SEG_MEMFD, .wanted_size = 4 * MiB };
    struct seg_choice choice = { .ops = seg_source_parts() };
    struct seg_supply_config config = { .struct_size = sizeof(config), .choices = &choice, .choice_count = 1 };
    struct seg_registrar *registrar;
    struct seg_segment *segment;
    struct seg_supply *supply;
    size_t before = locked_bytes();
    struct la_range range;

    (void)arg;
    CHECK(seg_open(&request, &segment) == 0 && seg_registrar_mlock(&registrar) == 0);
    choice.user = segment;
    config.registrars[0] = registrar;
    CHECK(seg_supply_create(&config, &supply) == 0);
    if (seg_supply_acquire(supply, MiB, MiB, &range) == -EDQUOT)
        _exit(CANNOT);
    CHECK(locked_bytes() == before + MiB);
    CHECK(seg_supply_release(supply, range) == 0);
    CHECK(locked_bytes() == before);
    CHECK(seg_supply_destroy(supply) == 0 && seg_registrar_destroy(registrar) == 0 && seg_close(segment) == 0);
}

static void locked_memory_is_locked_until_it_goes_back(void **state)
{
    int status = SANITIZED ? CANNOT : run_in_child(lock_and_unlock, NULL);      /* a sanitizer makes mlock() do nothing */

    (void)state;
    if (status == 0)
        status = run_in_child(lock_parts, NULL);
    if (status == CANNOT) {
        print_message("mlock() does nothing under a sanitizer, or the limit is below 1 MiB\n");
        skip();
    }
    assert_int_equal(status, 0);
}

/* As an ordinary user, with @bytes that may be locked. */
static void limit_locking(size_t bytes)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[2];
    struct rlimit limit = { bytes, bytes };

    CHECK(setrlimit(RLIMIT_MEMLOCK, &limit) == 0);
    CHECK(syscall(SYS_capget, &header, data) == 0);
    data[0].effective &= ~(1u << CAP_IPC_LOCK);
    CHECK(syscall(SYS_capset, &header, data) == 0);
}

static void lock_too_much(void *arg)
{
    struct seg_registrar *registrar;
    struct seg_supply *supply;
    struct la_range range, more;

    (void)arg;
    supply = locked_supply("anon", &registrar);
    limit_locking(2 * MiB);
    CHECK(seg_supply_acquire(supply, MiB, 64 * MiB, &range) == 0);      /* the least will do */
    CHECK(range.size == MiB);
    CHECK(seg_supply_acquire(supply, 2 * MiB, 2 * MiB, &more) == -EDQUOT);
    CHECK(strstr(la_last_error(), "mlock of 2097152 bytes: RLIMIT_MEMLOCK is 2097152, 1048576 used"));
    CHECK(strstr(la_last_error(), "ulimit -l"));
    CHECK(locked_bytes() == MiB);
    CHECK(seg_supply_release(supply, range) == 0);
    CHECK(seg_supply_acquire(supply, 2 * MiB, 2 * MiB, &more) == 0);
    CHECK(seg_supply_release(supply, more) == 0);
    CHECK(seg_supply_destroy(supply) == 0 && seg_registrar_destroy(registrar) == 0);
}

static void limit_of_locked_memory_is_named_with_its_remedy(void **state)
{
    (void)state;
    if (SANITIZED)
        skip();     /* as above */
    assert_int_equal(run_in_child(lock_too_much, NULL), 0);
}

static int attach(void *self, const struct seg_extent *extent, struct seg_key *ret)
{
    (void)self;
    (void)extent;
    (void)ret;
    return 0;
}

static int detach(void *self, const struct seg_extent *extent, const struct seg_key *key)
{
    (void)self;
    (void)extent;
    (void)key;
    return 0;
}

static void count_close(void *self)
{
    ++*(int *)self;
}

static void wrong_tables_are_refused(void **state)
{
    struct seg_registrar_ops ops = { .struct_size = sizeof(ops), .name = "mine", .attach = attach, .detach = detach, .close = count_close };
    struct seg_registrar *registrar = NULL;
    int closed = 0;

    (void)state;
    assert_int_equal(seg_registrar_create(&ops, &closed, &registrar), 0);
    assert_int_equal(seg_registrar_destroy(registrar), 0);
    assert_int_equal(closed, 1);
    ops.struct_size = offsetof(struct seg_registrar_ops, close);        /* an older author: no close */
    assert_int_equal(seg_registrar_create(&ops, &closed, &registrar), 0);
    assert_int_equal(seg_registrar_destroy(registrar), 0);
    assert_int_equal(closed, 1);
    ops.flags = 1u << 20;
    assert_int_equal(seg_registrar_create(&ops, NULL, &registrar), -EINVAL);
    ops.flags = 0;
    ops.detach = NULL;
    assert_int_equal(seg_registrar_create(&ops, NULL, &registrar), -EINVAL);
    ops.struct_size = 8;
    assert_int_equal(seg_registrar_create(&ops, NULL, &registrar), -EINVAL);
    assert_int_equal(seg_registrar_create(NULL, NULL, &registrar), -EINVAL);
    assert_int_equal(seg_registrar_destroy(NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(locked_memory_is_locked_until_it_goes_back),
        cmocka_unit_test(limit_of_locked_memory_is_named_with_its_remedy),
        cmocka_unit_test(wrong_tables_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
