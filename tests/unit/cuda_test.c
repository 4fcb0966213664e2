/*
 * cuda_test.c - segments/registrars/cuda.c, sources/cuda_host.c, cuda/runtime.c against a fake runtime (tests/fake/cudart.c): every path and failure
 * that needs no device. What a real one does is not shown here.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dlfcn.h>
#include <errno.h>
#include <string.h>

#include <liballoc/liballoc.h>
#include <segments/conformance.h>
#include <segments/cuda.h>
#include <segments/find.h>

#include "../fake/cudart.h"
#include "child.h"

#define MIB ((size_t)1 << 20)

static struct fake_cudart *fake;

static int setup(void **state)
{
    (void)state;
    setenv("LIBALLOC_CUDART", FAKE_CUDART, 1);
    fake = dlsym(dlopen(FAKE_CUDART, RTLD_NOW), "fake_cudart");
    if (!fake)
        return -1;
    *fake = (struct fake_cudart)FAKE_CUDART_NEW;
    return 0;
}

static struct seg_supply *make_supply(const char *list, struct seg_registrar *registrar)
{
    struct seg_supply_config config = { .struct_size = sizeof(config), .list = list, .registrars = { registrar } };
    struct seg_supply *supply = NULL;

    if (seg_supply_create(&config, &supply) < 0)
        fail_msg("seg_supply_create: %s", la_last_error());
    return supply;
}

static struct seg_registrar *make_registrar(unsigned flags)
{
    struct seg_registrar *registrar = NULL;

    if (seg_registrar_cuda(flags, &registrar) < 0)
        fail_msg("seg_registrar_cuda: %s", la_last_error());
    return registrar;
}

static void blocks_of_every_kind_of_memory_have_a_device_address(void **state)
{
    static const char *const lists[] = { "anon", "memfd", "thp,anon" };

    (void)state;
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        struct seg_registrar *registrar = make_registrar(SEG_CUDA_PORTABLE | SEG_CUDA_MAPPED);
        struct seg_supply *supply = make_supply(lists[i], registrar);
        struct seg_location location = { .struct_size = sizeof(location) };
        struct seg_key_here key;
        struct la_chain *chain;

        assert_int_equal(la_chain_create(seg_supply_source(supply), 0, &chain), 0);
        for (int n = 0; n < 3000; n++) {
            char *block = la_chain_alloc(chain, 3000);

            assert_non_null(block);
            memset(block, n, 3000);
            assert_int_equal(seg_key_of(block, registrar, &key), 0);
            assert_int_equal(key.device, (uintptr_t)block + ((uintptr_t)1 << 44));
            assert_int_equal(seg_find(block, &location), 0);
            assert_true(location.capabilities & SEG_PINNED);
        }
        assert_true(fake->registered > 1 && fake->registered < 5);      /* once per extent, not per block */
        assert_int_equal(fake->flags, 3);
        assert_int_equal(la_chain_destroy(chain), 0);
        assert_int_equal(seg_supply_destroy(supply), 0);
        assert_int_equal(seg_registrar_destroy(registrar), 0);
        assert_int_equal(fake->registered + fake->unmapped, 0);
    }
}

static void pinned_memory_of_the_driver_serves_chains(void **state)
{
    struct seg_supply *supply = make_supply("cuda-host:portable+wc", NULL);
    struct seg_location location = { .struct_size = sizeof(location) };
    struct la_chain *chain;
    char *block;

    (void)state;
    assert_int_equal(la_chain_create(seg_supply_source(supply), 0, &chain), 0);
    block = la_chain_alloc(chain, 100000);
    assert_non_null(block);
    memset(block, 1, 100000);
    assert_int_equal(fake->flags, 5);
    assert_int_equal(seg_find(block, &location), 0);
    assert_true(location.capabilities & SEG_PINNED);
    assert_int_equal(fake->allocated, 1);
    assert_int_equal(la_chain_destroy(chain), 0);
    assert_int_equal(seg_supply_destroy(supply), 0);
    assert_int_equal(fake->allocated, 0);
}

static void contracts_are_kept(void **state)
{
    struct seg_choice choice = { .ops = seg_source_find("cuda-host") };
    struct seg_conformance run = { .struct_size = sizeof(run) };

    (void)state;
    assert_int_equal(seg_conformance_source(&choice, &run), 0);
    assert_true(run.checks > 50);
}

static void missing_driver_is_an_answer(void **state)
{
    struct seg_supply_config config = { .struct_size = sizeof(config), .list = "cuda-host,anon" };
    struct seg_supply_info info = { .struct_size = sizeof(info) };
    struct seg_registrar *registrar = NULL;
    struct seg_supply *supply;

    (void)state;
    assert_int_equal(seg_cuda_available(), 1);
    fake->driver_error = 35;
    assert_int_equal(seg_cuda_available(), -ENODEV);
    assert_non_null(strstr(la_last_error(), "error 35 (driver too old)"));
    assert_int_equal(seg_registrar_cuda(0, &registrar), -ENODEV);
    assert_null(registrar);
    assert_int_equal(fake->last_error, 0);      /* the program's own checks find nothing of ours */
    assert_int_equal(seg_supply_create(&config, &supply), 0);
    assert_int_equal(seg_supply_info(supply, &info), 0);
    assert_non_null(strstr(info.reason, "cuda-host: CUDA: no device"));
    assert_int_equal(seg_supply_destroy(supply), 0);
    config.list = "cuda-host";
    assert_int_equal(seg_supply_create(&config, &supply), -ENODEV);
    fake->driver_error = 0;
    fake->devices = 0;
    assert_int_equal(seg_cuda_available(), -ENODEV);
    config.list = "cuda-host:mapped+nonsense,anon";
    assert_int_equal(seg_supply_create(&config, &supply), -EINVAL);
    assert_int_equal(seg_registrar_cuda(1u << 10, &registrar), -EINVAL);
}

static void look_for_nothing(void *arg)
{
    (void)arg;
    setenv("LIBALLOC_CUDART", "/nowhere/libcudart.so", 1);
    CHECK(seg_cuda_available() == -ENODEV);
    CHECK(strstr(la_last_error(), "/nowhere/libcudart.so"));
    setenv("LIBALLOC_CUDART", "libc.so.6", 1);
    CHECK(seg_cuda_available() == -ENODEV);
    CHECK(strstr(la_last_error(), "has no cudaGetDeviceCount()"));
    unsetenv("LIBALLOC_CUDART");                /* whatever this machine has: an answer */
    CHECK(seg_cuda_available() != 0);
}

static void missing_library_is_named(void **state)
{
    (void)state;
    assert_int_equal(run_in_child(look_for_nothing, NULL), 0);
}

static void failures_of_the_driver_leave_no_trace(void **state)
{
    struct seg_registrar *registrar = make_registrar(SEG_CUDA_MAPPED);
    struct seg_supply *supply = make_supply("memfd", registrar);
    struct la_range range, none;

    (void)state;
    assert_int_equal(seg_supply_acquire(supply, MIB, MIB, &range), 0);
    fake->fail_at = 1;
    fake->error = 2;
    assert_int_equal(seg_supply_acquire(supply, MIB, MIB, &none), -ENOMEM);
    assert_non_null(strstr(la_last_error(), "cudaHostRegister of 1048576 bytes: error 2 (out of memory)"));
    fake->device_pointer_error = 999;
    assert_int_equal(seg_supply_acquire(supply, MIB, MIB, &none), -EIO);
    assert_int_equal(fake->registered, 1);
    assert_int_equal(fake->last_error, 0);
    fake->unregister_error = 46;                /* in use: the memory stays */
    assert_int_equal(seg_supply_release(supply, range), -EBUSY);
    memset(range.base, 1, range.size);
    fake->unregister_error = 4;                 /* unloading: the driver has let go of everything */
    assert_int_equal(seg_supply_destroy(supply), 0);
    assert_int_equal(seg_registrar_destroy(registrar), 0);
    assert_int_equal(fake->unmapped, 0);
}

static void less_is_taken_when_the_driver_has_less(void **state)
{
    struct seg_supply *supply = make_supply("cuda-host", NULL);
    struct la_range range;

    (void)state;
    fake->fail_at = 1;
    fake->error = 2;
    assert_int_equal(seg_supply_acquire(supply, MIB, 64 * MIB, &range), 0);
    assert_int_equal(range.size, MIB);
    assert_int_equal(seg_supply_release(supply, range), 0);
    assert_int_equal(seg_supply_destroy(supply), 0);
    assert_int_equal(fake->last_error, 0);
}

struct forked {
    struct seg_supply *registered, *pinned;
    struct la_range range, own;
};

static void use_in_child(void *arg)
{
    struct forked *f = arg;
    unsigned calls = fake->calls;
    struct la_range none;

    CHECK(seg_supply_acquire(f->registered, MIB, MIB, &none) == -ECHILD);
    CHECK(seg_supply_acquire(f->pinned, MIB, MIB, &none) == -ECHILD);
    CHECK(strstr(la_last_error(), "exec"));
    CHECK(seg_supply_release(f->registered, f->range) == 0 && seg_supply_release(f->pinned, f->own) == 0);
    CHECK(fake->calls == calls);                /* not a single call of the driver */
}

static void child_never_calls_the_driver(void **state)
{
    struct seg_registrar *registrar = make_registrar(0);
    struct forked f = { .registered = make_supply("anon", registrar), .pinned = make_supply("cuda-host", NULL) };

    (void)state;
    assert_int_equal(seg_supply_acquire(f.registered, MIB, MIB, &f.range), 0);
    assert_int_equal(seg_supply_acquire(f.pinned, MIB, MIB, &f.own), 0);
    assert_int_equal(run_in_child(use_in_child, &f), 0);
    assert_int_equal(fake->registered + fake->allocated, 2);
    assert_int_equal(seg_supply_release(f.registered, f.range) | seg_supply_release(f.pinned, f.own), 0);
    assert_int_equal(seg_supply_destroy(f.registered) | seg_supply_destroy(f.pinned), 0);
    assert_int_equal(seg_registrar_destroy(registrar), 0);
}

#define TEST(test) cmocka_unit_test_setup(test, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(missing_library_is_named),     /* before the library has found one */
        TEST(blocks_of_every_kind_of_memory_have_a_device_address),
        TEST(pinned_memory_of_the_driver_serves_chains),
        TEST(contracts_are_kept),
        TEST(missing_driver_is_an_answer),
        TEST(failures_of_the_driver_leave_no_trace),
        TEST(less_is_taken_when_the_driver_has_less),
        TEST(child_never_calls_the_driver),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
