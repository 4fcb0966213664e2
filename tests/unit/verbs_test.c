/*
 * verbs_test.c - segments/registrars/verbs.c, verbs/runtime.c, driver.c against a fake libibverbs (tests/fake/ibverbs.c): every path and failure
 * that needs no device. What devices do is shown by tests/guest/rdma_test.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dlfcn.h>
#include <errno.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/syscall.h>

#include <liballoc/liballoc.h>
#include <segments/conformance.h>
#include <segments/find.h>
#include <segments/verbs.h>

#include "../fake/ibverbs.h"
#include "base/util.h"
#include "child.h"
#include "segments/registrar_state.h"
#include "segments/verbs/runtime.h"

static struct fake_ibverbs *fake;

enum { ALL = SEG_VERBS_LOCAL_WRITE | SEG_VERBS_REMOTE_WRITE | SEG_VERBS_REMOTE_READ | SEG_VERBS_REMOTE_ATOMIC };

/* The fake takes any pointer for a protection domain. */
static struct ibv_pd *domain(uintptr_t number)
{
    return (struct ibv_pd *)(number * 64);
}

static struct fake_ibverbs *find_fake(const char *path)
{
    return dlsym(dlopen(path, RTLD_NOW), "fake_ibverbs");
}

static int setup(void **state)
{
    (void)state;
    setenv("LIBALLOC_IBVERBS", FAKE_IBVERBS, 1);
    fake = find_fake(FAKE_IBVERBS);
    if (!fake)
        return -1;
    *fake = (struct fake_ibverbs)FAKE_IBVERBS_NEW;
    return 0;
}

static struct seg_registrar *make_registrar(uintptr_t number, unsigned access, size_t max_size)
{
    struct seg_registrar *registrar = NULL;

    if (seg_registrar_verbs(domain(number), access, max_size, &registrar) < 0)
        fail_msg("seg_registrar_verbs: %s", la_last_error());
    return registrar;
}

static struct seg_supply *make_supply(const char *list, struct seg_registrar *first, struct seg_registrar *second)
{
    struct seg_supply_config config = { .struct_size = sizeof(config), .list = list, .registrars = { first, second } };
    struct seg_supply *supply = NULL;

    if (seg_supply_create(&config, &supply) < 0)
        fail_msg("seg_supply_create: %s", la_last_error());
    return supply;
}

static void end(struct seg_supply *supply, struct seg_registrar *first, struct seg_registrar *second)
{
    assert_int_equal(seg_supply_destroy(supply), 0);
    assert_int_equal(seg_registrar_destroy(first) | seg_registrar_destroy(second), 0);
    assert_int_equal(fake->registered + fake->unmapped + fake->lists, 0);
}

/* ---- without a library ---- */

static void look_for_nothing(void *arg)
{
    struct seg_registrar *registrar = NULL;
    struct fake_ibverbs *old;

    (void)arg;
    setenv("LIBALLOC_IBVERBS", "/nowhere/libibverbs.so", 1);
    CHECK(seg_verbs_available() == -ENODEV);
    CHECK(strstr(la_last_error(), "/nowhere/libibverbs.so"));
    CHECK(seg_registrar_verbs(domain(1), ALL, 0, &registrar) == -ENODEV && !registrar);
    setenv("LIBALLOC_IBVERBS", "libc.so.6", 1);
    CHECK(seg_verbs_available() == -ENODEV);
    CHECK(strstr(la_last_error(), "has no ibv_get_device_list(), version IBVERBS_1.1"));

    /* One without what is optional: the hint is left out. */
    setenv("LIBALLOC_IBVERBS", FAKE_IBVERBS_OLD, 1);
    CHECK(seg_verbs_available() == 1);
    old = find_fake(FAKE_IBVERBS_OLD);
    struct seg_supply_config config = { .struct_size = sizeof(config), .list = "anon" };
    struct seg_supply *supply;
    struct la_range range;

    CHECK(seg_registrar_verbs(domain(1), SEG_VERBS_LOCAL_WRITE | SEG_VERBS_RELAXED_ORDERING, 0, &registrar) == 0);
    config.registrars[0] = registrar;
    CHECK(seg_supply_create(&config, &supply) == 0 && seg_supply_acquire(supply, MiB, MiB, &range) == 0);
    CHECK(old->registered == 1 && old->access == SEG_VERBS_LOCAL_WRITE && old->by_iova == 0);
    CHECK(seg_supply_release(supply, range) == 0 && old->registered == 0);
}

static void look_at_this_machine(void *arg)
{
    int count;

    (void)arg;
    unsetenv("LIBALLOC_IBVERBS");
    count = seg_verbs_available();
    CHECK(count > 0 || (count == -ENODEV && strstr(la_last_error(), "verbs: ")));
}

/* First of all: what is found is kept, in children too. */
static void missing_library_is_an_answer(void **state)
{
    (void)state;
    assert_int_equal(run_in_child(look_for_nothing, NULL), 0);
    assert_int_equal(run_in_child(look_at_this_machine, NULL), 0);
}

static void missing_device_is_an_answer(void **state)
{
    (void)state;
    assert_int_equal(seg_verbs_available(), 1);
    fake->devices = 0;
    assert_int_equal(seg_verbs_available(), -ENODEV);
    assert_string_equal(la_last_error(), "verbs: there are 0 RDMA devices");
    fake->list_error = ENOSYS;
    assert_int_equal(seg_verbs_available(), -ENODEV);
    assert_non_null(strstr(la_last_error(), "the kernel has no RDMA"));
    assert_int_equal(fake->lists, 0);
}

/* ---- registration ---- */

static void objects_have_the_keys_of_their_extent(void **state)
{
    static const char *const lists[] = { "anon", "memfd", "thp,anon" };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
        struct seg_registrar *registrar = make_registrar(1, ALL, 0);
        struct seg_supply *supply = make_supply(lists[i], registrar, NULL);
        struct seg_location location = { .struct_size = sizeof(location) };
        struct seg_key_here key;
        struct la_chain *chain;

        assert_int_equal(la_chain_create(seg_supply_source(supply), 0, &chain), 0);
        for (int n = 0; n < 3000; n++) {
            char *block = la_chain_alloc(chain, 3000);
            const struct verbs_mr *mr;

            assert_non_null(block);
            memset(block, n, 3000);
            assert_int_equal(seg_key_of(block, registrar, &key), 0);
            assert_int_equal(seg_find(block, &location), 0);
            mr = location.keys[0].handle;
            assert_true(key.local == mr->lkey && key.remote == mr->rkey && key.device == 0);
            assert_true(block >= (char *)mr->address && block + key.bytes == (char *)mr->address + mr->length);
            assert_true(location.capabilities & SEG_PINNED);
        }
        assert_true(fake->registered > 1 && fake->registered < 5);      /* once per extent, not per block */
        assert_int_equal(fake->access, ALL);
        assert_int_equal(la_source_trim(seg_supply_source(supply)), 0);      /* what is registered is not purged */
        assert_int_equal(la_chain_destroy(chain), 0);
        end(supply, registrar, NULL);
    }
}

static void domains_have_keys_of_their_own(void **state)
{
    struct seg_registrar *first = make_registrar(1, ALL, 0), *second = make_registrar(2, SEG_VERBS_REMOTE_READ, 0);
    struct seg_supply *supply = make_supply("memfd", first, second);
    struct seg_location location = { .struct_size = sizeof(location) };
    struct seg_key_here one, other;
    struct la_range range;

    (void)state;
    assert_int_equal(seg_supply_acquire(supply, MiB, MiB, &range), 0);
    assert_int_equal(fake->registered, 2);
    assert_int_equal(seg_key_of(range.base, first, &one) | seg_key_of(range.base, second, &other), 0);
    assert_true(one.local != other.local && one.remote != other.remote);
    assert_int_equal(seg_find(range.base, &location), 0);
    assert_ptr_equal(((const struct verbs_mr *)location.keys[0].handle)->pd, domain(1));
    assert_ptr_equal(((const struct verbs_mr *)location.keys[1].handle)->pd, domain(2));
    assert_int_equal(seg_supply_release(supply, range), 0);
    assert_int_equal(seg_check(range.base, one.generation), -ESTALE);
    end(supply, first, second);
}

static void contract_is_kept(void **state)
{
    static const char *const memory[] = { "anon", "memfd" };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(memory); i++) {
        struct seg_registrar *registrar = make_registrar(1, ALL, 0);
        struct seg_conformance run = { .struct_size = sizeof(run) };

        assert_int_equal(seg_conformance_registrar(&registrar->ops, registrar->self, memory[i], &run), 0);
        assert_true(run.checks > 50);
        assert_int_equal(fake->registered + fake->unmapped, 0);
        assert_int_equal(seg_registrar_destroy(registrar), 0);
    }
}

static void impossible_access_is_refused_with_the_reason(void **state)
{
    struct seg_registrar *registrar = NULL;

    (void)state;
    assert_int_equal(seg_registrar_verbs(NULL, ALL, 0, &registrar), -EINVAL);
    assert_non_null(strstr(la_last_error(), "ibv_alloc_pd()"));
    assert_int_equal(seg_registrar_verbs(domain(1), SEG_VERBS_REMOTE_WRITE, 0, &registrar), -EINVAL);
    assert_non_null(strstr(la_last_error(), "needs SEG_VERBS_LOCAL_WRITE"));
    assert_int_equal(seg_registrar_verbs(domain(1), SEG_VERBS_REMOTE_ATOMIC | SEG_VERBS_REMOTE_READ, 0, &registrar), -EINVAL);
    assert_int_equal(seg_registrar_verbs(domain(1), 1u << 5, 0, &registrar), -EINVAL);       /* zero based: not the objects' addresses */
    assert_int_equal(seg_registrar_verbs(domain(1), 1u << 6, 0, &registrar), -EINVAL);       /* on demand: not pinned */
    assert_non_null(strstr(la_last_error(), "access 0x40"));
    assert_int_equal(seg_registrar_verbs(domain(1), 0, 100, &registrar), -EINVAL);
    assert_non_null(strstr(la_last_error(), "less than a page"));
    assert_null(registrar);
    assert_int_equal(fake->calls, 0);
}

static void hints_go_the_way_that_drops_them_where_they_are_unknown(void **state)
{
    struct seg_registrar *registrar = make_registrar(1, SEG_VERBS_LOCAL_WRITE | SEG_VERBS_RELAXED_ORDERING, 0);
    struct seg_supply *supply = make_supply("anon", registrar, NULL);
    struct la_range range;

    (void)state;
    assert_int_equal(seg_supply_acquire(supply, MiB, MiB, &range), 0);
    assert_int_equal(fake->by_iova, 1);
    assert_int_equal(fake->access, SEG_VERBS_LOCAL_WRITE | SEG_VERBS_RELAXED_ORDERING);
    assert_int_equal(seg_supply_release(supply, range), 0);
    end(supply, registrar, NULL);
}

/* ---- chunks, failures ---- */

enum { CHUNKS = 5 };

static void failure_at_any_chunk_leaves_the_others(void **state)
{
    (void)state;
    for (unsigned at = 1; at <= CHUNKS; at++) {
        struct seg_registrar *registrar = make_registrar(1, ALL, MiB);
        struct seg_supply *supply = make_supply("memfd", registrar, NULL);
        struct seg_supply_info info = { .struct_size = sizeof(info) };
        struct la_range range[CHUNKS];
        unsigned got = 0;

        fake->fail_at = at;
        fake->error = ENOMEM;
        for (unsigned i = 1; i <= CHUNKS; i++) {
            int r = seg_supply_acquire(supply, MiB / 2, 64 * MiB, &range[got]);

            assert_int_equal(r, i == at ? -ENOMEM : 0);
            if (r == 0)
                assert_int_equal(range[got++].size, MiB);       /* as much as a key covers */
            else
                assert_non_null(strstr(la_last_error(), "ibv_reg_mr of 1048576 bytes, access 0xf: errno 12: out of memory, or of RLIMIT_MEMLOCK"));
        }
        assert_int_equal(fake->registered, CHUNKS - 1);
        assert_int_equal(seg_supply_info(supply, &info), 0);
        assert_int_equal(info.bytes, (CHUNKS - 1) * MiB);
        assert_int_equal(info.quarantined, 0);
        assert_int_equal(seg_supply_acquire(supply, 2 * MiB, 2 * MiB, &range[got]), -E2BIG);
        while (got > 0)
            assert_int_equal(seg_supply_release(supply, range[--got]), 0);
        end(supply, registrar, NULL);
    }
}

static void failure_of_the_second_domain_takes_the_first_back(void **state)
{
    static const struct { int said, code; const char *hint; } errors[] = {
        { ENOMEM, -ENOMEM, "RLIMIT_MEMLOCK" }, { EINVAL, -EINVAL, "access flags" },          { EFAULT, -EFAULT, "cannot be written" },
        { ENOSPC, -ENOSPC, "errno 28" },       { EOPNOTSUPP, -EOPNOTSUPP, "cannot do that" }, { 0, -EIO, "errno 5" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
        struct seg_registrar *first = make_registrar(1, ALL, 0), *second = make_registrar(2, ALL, 0);
        struct seg_supply *supply = make_supply("anon", first, second);
        struct la_range range;

        fake->fail_at = 2;
        fake->error = errors[i].said;
        assert_int_equal(seg_supply_acquire(supply, MiB, MiB, &range), errors[i].code);
        assert_non_null(strstr(la_last_error(), errors[i].hint));
        end(supply, first, second);
    }
}

static void memory_that_the_device_does_not_let_go_stays_mapped(void **state)
{
    static const struct { int said, number, code; } errors[] = { { EBUSY, 0, -EBUSY }, { -1, EIO, -EIO }, { -1, 0, -EIO } };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
        struct seg_registrar *registrar = make_registrar(1, ALL | SEG_VERBS_MW_BIND, 0);
        struct seg_supply *supply = make_supply("memfd", registrar, NULL);
        struct seg_supply_info info = { .struct_size = sizeof(info) };
        struct la_range range;

        assert_int_equal(seg_supply_acquire(supply, MiB, MiB, &range), 0);
        fake->dereg_error = errors[i].said;
        fake->dereg_errno = errors[i].number;
        assert_int_equal(seg_supply_release(supply, range), errors[i].code);
        assert_non_null(strstr(la_last_error(), "ibv_dereg_mr of 1048576 bytes"));
        memset(range.base, 1, range.size);
        assert_int_equal(seg_supply_info(supply, &info), 0);
        assert_int_equal(info.quarantined, MiB);
        assert_int_equal(seg_supply_destroy(supply), -EBUSY);
        fake->dereg_error = 0;
        end(supply, registrar, NULL);
    }
}

/* ---- limits ---- */

static void pin_too_much(void *arg)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[2];
    struct rlimit limit = { 3 * MiB, 3 * MiB };
    struct seg_registrar *first, *second;
    struct seg_supply *one, *both;
    struct la_range range;
    unsigned calls;

    (void)arg;
    first = make_registrar(1, ALL, 0);
    second = make_registrar(2, ALL, 0);
    one = make_supply("anon", first, NULL);
    both = make_supply("anon", first, second);
    CHECK(setrlimit(RLIMIT_MEMLOCK, &limit) == 0);
    CHECK(syscall(SYS_capget, &header, data) == 0);
    data[0].effective &= ~(1u << CAP_IPC_LOCK);
    CHECK(syscall(SYS_capset, &header, data) == 0);
    calls = fake->calls;
    CHECK(seg_supply_acquire(one, 4 * MiB, 4 * MiB, &range) == -EDQUOT);
    CHECK(strstr(la_last_error(), "verbs of 4194304 bytes: RLIMIT_MEMLOCK is 3145728, 0 used") && strstr(la_last_error(), "ulimit -l"));
    CHECK(seg_supply_acquire(both, 2 * MiB, 2 * MiB, &range) == -EDQUOT);        /* the same pages count for each */
    CHECK(strstr(la_last_error(), "verbs of 4194304 bytes"));
    CHECK(fake->calls == calls);            /* before any driver is asked */
    CHECK(seg_supply_acquire(one, 2 * MiB, 2 * MiB, &range) == 0 && seg_supply_release(one, range) == 0);
    CHECK(seg_supply_acquire(both, MiB, 64 * MiB, &range) == 0 && range.size == MiB && seg_supply_release(both, range) == 0);
    CHECK(seg_supply_destroy(one) == 0 && seg_supply_destroy(both) == 0 && fake->registered == 0);
}

static void limit_of_pinned_memory_is_named_before_the_device_is_asked(void **state)
{
    (void)state;
    assert_int_equal(run_in_child(pin_too_much, NULL), 0);
}

/* ---- fork ---- */

struct forked {
    struct seg_supply *supply;
    struct seg_registrar *registrar;
    struct la_range range;
};

static void use_in_child(void *arg)
{
    struct forked *f = arg;
    struct seg_registrar *own = NULL;
    unsigned calls = fake->calls;
    struct la_range range;
    struct seg_supply *supply;

    CHECK(seg_supply_acquire(f->supply, MiB, MiB, &range) == -ECHILD);
    CHECK(strstr(la_last_error(), "open one in the child"));
    CHECK(seg_supply_release(f->supply, f->range) == 0);
    CHECK(seg_supply_destroy(f->supply) == 0 && seg_registrar_destroy(f->registrar) == 0);
    CHECK(fake->calls == calls);            /* not a single call of the driver */

    /* A device that the child has opened is its own. */
    own = make_registrar(3, ALL, 0);
    supply = make_supply("anon", own, NULL);
    CHECK(seg_supply_acquire(supply, MiB, MiB, &range) == 0 && fake->registered == 2);
    CHECK(seg_supply_release(supply, range) == 0 && fake->registered == 1);
}

static void child_never_calls_the_driver_for_its_parent(void **state)
{
    struct forked f = { .registrar = make_registrar(1, ALL, 0) };

    (void)state;
    f.supply = make_supply("memfd", f.registrar, NULL);
    assert_int_equal(seg_supply_acquire(f.supply, MiB, MiB, &f.range), 0);
    assert_int_equal(run_in_child(use_in_child, &f), 0);
    assert_int_equal(fake->registered, 1);
    assert_int_equal(seg_supply_release(f.supply, f.range), 0);
    end(f.supply, f.registrar, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(missing_library_is_an_answer, setup),
        cmocka_unit_test_setup(missing_device_is_an_answer, setup),
        cmocka_unit_test_setup(objects_have_the_keys_of_their_extent, setup),
        cmocka_unit_test_setup(domains_have_keys_of_their_own, setup),
        cmocka_unit_test_setup(contract_is_kept, setup),
        cmocka_unit_test_setup(impossible_access_is_refused_with_the_reason, setup),
        cmocka_unit_test_setup(hints_go_the_way_that_drops_them_where_they_are_unknown, setup),
        cmocka_unit_test_setup(failure_at_any_chunk_leaves_the_others, setup),
        cmocka_unit_test_setup(failure_of_the_second_domain_takes_the_first_back, setup),
        cmocka_unit_test_setup(memory_that_the_device_does_not_let_go_stays_mapped, setup),
        cmocka_unit_test_setup(limit_of_pinned_memory_is_named_before_the_device_is_asked, setup),
        cmocka_unit_test_setup(child_never_calls_the_driver_for_its_parent, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
