/*
 * cuda_test.c - segments/registrars/cuda.c, sources/cuda_host.c, cuda_device.c, cuda/runtime.c, token.c against a fake runtime (tests/fake/cudart.c):
 * every path and failure that needs no device. What a real one does is not shown here.
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
#include "../support/emulated.h"
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

static void print_finding(void *user, const char *rule, const char *text)
{
    (void)user;
    print_error("%s: %s\n", rule, text);
}

static void contracts_are_kept(void **state)
{
    static const char *const names[] = { "cuda-host", "cuda-device" };

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct seg_choice choice = { .ops = seg_source_find(names[i]) };
        struct seg_conformance run = { .struct_size = sizeof(run), .report = print_finding };

        assert_int_equal(seg_conformance_source(&choice, &run), 0);
        assert_true(run.checks > 50);
    }
}

/* ---- memory of the device: every touch of the processor's traps in the fake ---- */

static void memory_of_the_device_serves_chains(void **state)
{
    struct seg_registrar *registrar = make_registrar(SEG_CUDA_MAPPED);
    struct seg_supply *supply = make_supply("cuda-device", registrar);
    struct seg_location location = { .struct_size = sizeof(location) };
    struct seg_supply_info info = { .struct_size = sizeof(info) };
    struct la_owner owner = { .struct_size = sizeof(owner) };
    struct seg_key_here key;
    struct la_chain *chain;
    void *blocks[3000];

    (void)state;
    fake->crooked = 1;
    assert_int_equal(la_chain_create(seg_supply_source(supply), LA_CHAIN_MT, &chain), 0);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 3000; i++) {
            blocks[i] = la_chain_alloc(chain, i % 100 == 0 ? 300000 : 3000);
            assert_non_null(blocks[i]);
            assert_int_equal(seg_key_of(blocks[i], registrar, &key), 0);
            assert_int_equal(key.device, (uintptr_t)blocks[i]);         /* itself */
            assert_int_equal(seg_cuda_memory(blocks[i]), SEG_CUDA_DEVICE);
        }
        assert_int_equal(la_owner_of((char *)blocks[7] + 2999, &owner), 0);
        assert_ptr_equal(owner.block, blocks[7]);
        assert_int_equal(seg_find(blocks[7], &location), 0);
        assert_true(location.capabilities & SEG_DEVICE_ONLY);
        for (int i = 0; i < 3000; i++)
            la_free(blocks[i]);
    }
    assert_int_equal(seg_supply_info(supply, &info), 0);
    assert_int_equal(info.pinned, info.bytes);
    assert_int_equal(fake->allocated, info.segments);
    assert_int_equal(fake->registered, 0);
    assert_int_equal(la_chain_destroy(chain), 0);
    assert_int_equal(seg_supply_destroy(supply), 0);
    assert_int_equal(seg_registrar_destroy(registrar), 0);
    assert_int_equal(fake->allocated, 0);
}

static void device_is_the_one_that_the_list_says(void **state)
{
    struct seg_supply_config config = { .struct_size = sizeof(config), .list = "cuda-device:2" };
    struct seg_supply *second, *own, *none;
    struct la_range range, other;

    (void)state;
    fake->devices = 2;
    assert_int_equal(seg_supply_create(&config, &none), -ENODEV);
    assert_non_null(strstr(la_last_error(), "there are 2 devices"));
    config.list = "cuda-device:x";
    assert_int_equal(seg_supply_create(&config, &none), -EINVAL);
    second = make_supply("cuda-device:1", NULL);
    own = make_supply("cuda-device", NULL);
    assert_int_equal(seg_supply_acquire(second, MIB, MIB, &range), 0);
    assert_int_equal(fake->last_device, 1);
    assert_int_equal(fake->device, 0);          /* the thread's own is put back */
    fake->device = 1;
    assert_int_equal(seg_supply_acquire(own, MIB, MIB, &other), 0);
    assert_int_equal(fake->last_device, 0);     /* the one that it had when the source was opened */
    assert_int_equal(fake->device, 1);
    assert_int_equal(seg_supply_release(second, range) | seg_supply_release(own, other), 0);
    assert_int_equal(seg_supply_destroy(second) | seg_supply_destroy(own), 0);
}

static void full_device_is_an_error_or_less(void **state)
{
    struct seg_supply *supply = make_supply("cuda-device", NULL);
    struct la_range range;
    struct la_chain *chain;

    (void)state;
    assert_int_equal(seg_supply_acquire(supply, 4096 * MIB, 4096 * MIB, &range), -ENOMEM);
    assert_non_null(strstr(la_last_error(), "cudaMalloc of 4294967296 bytes: error 2 (out of memory)"));
    assert_int_equal(seg_supply_acquire(supply, MIB, 4096 * MIB, &range), 0);
    assert_int_equal(range.size, MIB);
    assert_int_equal(seg_supply_release(supply, range), 0);
    assert_int_equal(la_chain_create(seg_supply_source(supply), 0, &chain), 0);
    assert_null(la_chain_alloc(chain, 2048 * MIB));
    assert_int_equal(fake->last_error, 0);
    fake->unregister_error = 999;
    assert_int_equal(seg_supply_acquire(supply, MIB, MIB, &range), 0);
    assert_int_equal(seg_supply_release(supply, range), -EIO);      /* quarantined: the driver has it still */
    fake->unregister_error = 0;
    assert_int_equal(la_chain_destroy(chain), 0);
    assert_int_equal(seg_supply_destroy(supply), 0);
    assert_int_equal(fake->allocated, 0);
}

static int touch_nothing(void *self, const struct seg_extent *extent, struct seg_key *ret)
{
    (void)self, (void)extent, (void)ret;
    return 0;
}

static int detach_nothing(void *self, const struct seg_extent *extent, const struct seg_key *key)
{
    (void)self, (void)extent, (void)key;
    return 0;
}

static void what_cannot_be_with_device_memory_is_refused(void **state)
{
    static const struct seg_registrar_ops ops = { .struct_size = sizeof(ops), .name = "host-only", .attach = touch_nothing, .detach = detach_nothing };
    struct seg_supply_config config = { .struct_size = sizeof(config), .list = "anon,cuda-device" };
    struct seg_request request = { .struct_size = sizeof(request), .kind = SEG_MEMFD, .wanted_size = MIB, .required = SEG_DEVICE_ONLY };
    struct seg_supply *supply = make_supply("cuda-device", NULL);
    struct seg_segment *segment;
    struct la_chain *chain;
    struct la_range range;

    (void)state;
    assert_int_equal(seg_registrar_create(&ops, NULL, &config.registrars[0]), 0);
    assert_int_equal(seg_supply_create(&config, &supply), -ENOTSUP);
    assert_non_null(strstr(la_last_error(), "registrar host-only cannot take memory of a device"));
    assert_int_equal(seg_registrar_destroy(config.registrars[0]), 0);
    config.registrars[0] = NULL;
    assert_int_equal(seg_registrar_mlock(&config.registrars[0]), 0);
    assert_int_equal(seg_supply_create(&config, &supply), -ENOTSUP);
    assert_int_equal(seg_registrar_destroy(config.registrars[0]), 0);
    config.registrars[0] = NULL;
    /* As a shared heap, or shared at all. */
    config.list = "cuda-device";
    config.required = SEG_SHARED;
    assert_int_equal(seg_supply_destroy(supply), 0);
    assert_int_equal(seg_supply_create(&config, &supply), 0);
    assert_int_equal(seg_supply_acquire(supply, MIB, MIB, &range), -ENOTSUP);
    assert_non_null(strstr(la_last_error(), "cannot have what is required: shared"));
    assert_int_equal(seg_open(&request, &segment), -ENOTSUP);
    assert_non_null(strstr(la_last_error(), "device only: memfd segments cannot"));
    assert_int_equal(seg_supply_make_default(supply), -ENOTSUP);
    assert_int_equal(la_chain_create(seg_supply_source(supply), LA_CHAIN_STATS, &chain), -EINVAL);
    assert_int_equal(seg_supply_destroy(supply), 0);
    config.flags = 1u << 7;
    assert_int_equal(seg_supply_create(&config, &supply), -EINVAL);
}

static void one_registrar_finds_addresses_in_all_kinds_of_memory(void **state)
{
    static const char *const lists[] = { "anon", "cuda-host:mapped+wc", "cuda-host:portable+mapped", "cuda-device" };
    struct seg_registrar *registrar = make_registrar(SEG_CUDA_PORTABLE | SEG_CUDA_MAPPED);
    struct seg_supply *supply;
    struct la_range range;
    unsigned calls;

    (void)state;
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        struct seg_key_here key;

        supply = make_supply(lists[i], registrar);
        assert_int_equal(seg_supply_acquire(supply, MIB, MIB, &range), 0);
        assert_int_equal(seg_key_of((char *)range.base + 4096, registrar, &key), 0);
        assert_int_equal(key.device, (uintptr_t)range.base + 4096 + (i == 3 ? 0 : (uintptr_t)1 << 44));
        assert_int_equal(seg_cuda_memory(range.base), i == 3 ? SEG_CUDA_DEVICE : SEG_CUDA_HOST);
        assert_int_equal(fake->registered, i == 0);     /* what the driver has made is not registered again */
        assert_int_equal(seg_supply_release(supply, range), 0);
        fake->device_pointer_error = i < 3 ? 999 : 0;   /* what was made is undone */
        assert_int_equal(seg_supply_acquire(supply, MIB, MIB, &range), i < 3 ? -EIO : 0);
        if (i == 3)
            assert_int_equal(seg_supply_release(supply, range), 0);
        fake->device_pointer_error = 0;
        assert_int_equal(seg_supply_destroy(supply), 0);
        assert_int_equal(fake->registered + fake->allocated, 0);
    }
    calls = fake->calls;
    assert_int_equal(seg_cuda_memory(&calls), SEG_CUDA_PAGEABLE);
    assert_int_equal(fake->calls, calls + 1);
    fake->attributes_error = 1;                         /* what a runtime before CUDA 11 says of memory that it does not know */
    assert_int_equal(seg_cuda_memory(&calls), SEG_CUDA_PAGEABLE);
    assert_int_equal(fake->last_error, 0);
    supply = make_supply("anon", registrar);
    assert_int_equal(seg_supply_acquire(supply, MIB, MIB, &range), 0);
    assert_int_equal(fake->registered, 1);
    assert_int_equal(seg_supply_release(supply, range) | seg_supply_destroy(supply), 0);
    supply = make_supply("cuda-device", registrar);
    assert_int_equal(seg_supply_acquire(supply, MIB, MIB, &range), -ENOTSUP);   /* not registered as if it were the machine's */
    assert_int_equal(fake->registered + fake->allocated, 0);
    assert_int_equal(seg_supply_destroy(supply), 0);
    assert_int_equal(seg_registrar_destroy(registrar), 0);
}

static void registered_memory_is_neither_purged_nor_given_back_under_the_driver(void **state)
{
    struct seg_request request = { .struct_size = sizeof(request), .kind = SEG_MEMFD, .wanted_size = 4 * MIB };
    struct seg_supply_config config = { .struct_size = sizeof(config), .registrars = { make_registrar(0) }, .choice_count = 1 };
    struct seg_choice choice = { .ops = seg_source_parts() };
    struct seg_supply *supply;
    struct seg_segment *segment;
    struct la_range range;

    (void)state;
    assert_int_equal(seg_open(&request, &segment), 0);
    choice.user = segment;
    config.choices = &choice;
    assert_int_equal(seg_supply_create(&config, &supply), 0);
    assert_int_equal(seg_supply_acquire(supply, MIB, MIB, &range), 0);
    assert_int_equal(seg_advise(segment, range, SEG_DISCARD), -EBUSY);
    assert_non_null(strstr(la_last_error(), "registered with cuda"));
    assert_int_equal(seg_release(segment, range), -EBUSY);
    assert_non_null(strstr(la_last_error(), "seg_supply_release()"));
    assert_int_equal(seg_supply_release(supply, range), 0);
    assert_int_equal(seg_supply_destroy(supply), 0);
    assert_int_equal(seg_registrar_destroy(config.registrars[0]), 0);
    assert_int_equal(seg_close(segment), 0);
    assert_int_equal(fake->unmapped, 0);
}

static void block_waits_for_an_event(void **state)
{
    struct seg_supply *supply = make_supply("cuda-device", NULL);
    struct la_limbo *limbo;
    struct la_token token;
    struct la_chain *chain;
    void *block;

    (void)state;
    assert_int_equal(la_chain_create(seg_supply_source(supply), LA_CHAIN_MT, &chain), 0);
    assert_int_equal(la_limbo_create(&limbo), 0);
    block = la_chain_alloc(chain, 1000);
    assert_int_equal(seg_cuda_token(fake, &token), 0);
    fake->event_error = 600;                            /* not ready */
    assert_int_equal(la_free_after(limbo, block, token), 0);
    assert_int_equal(la_limbo_poll(limbo, 0), 0);
    assert_ptr_not_equal(la_chain_alloc(chain, 1000), block);
    assert_int_equal(la_limbo_destroy(limbo), -EBUSY);
    assert_non_null(strstr(la_last_error(), "CUDA event"));
    fake->event_error = 700;                            /* a kernel's illegal address: the context is lost */
    assert_int_equal(la_limbo_poll(limbo, 0), -EIO);
    assert_non_null(strstr(la_last_error(), "cudaEventQuery"));
    assert_int_equal(fake->last_error, 0);
    fake->event_error = 0;
    assert_int_equal(la_limbo_poll(limbo, 0), 1);
    assert_ptr_equal(la_chain_alloc(chain, 1000), block);
    assert_int_equal(la_limbo_destroy(limbo), 0);
    assert_int_equal(la_chain_destroy(chain), 0);
    assert_int_equal(seg_supply_destroy(supply), 0);
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

static void memory_of_the_drivers_own_that_it_keeps_is_quarantined(void **state)
{
    static const char *const lists[] = { "cuda-host", "cuda-device" };

    (void)state;
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        struct seg_supply_info info = { .struct_size = sizeof(info) };
        struct seg_supply *supply = make_supply(lists[i], NULL);
        struct la_range range;

        assert_int_equal(seg_supply_acquire(supply, MIB, MIB, &range), 0);
        fake->unregister_error = 46;
        assert_int_equal(seg_supply_release(supply, range), -EBUSY);
        assert_int_equal(seg_supply_info(supply, &info), 0);
        assert_int_equal(info.quarantined, MIB);
        assert_int_equal(fake->last_error, 0);
        assert_int_equal(seg_supply_destroy(supply), -EBUSY);
        fake->unregister_error = 0;
        assert_int_equal(seg_supply_destroy(supply), 0);
        assert_int_equal(fake->allocated, 0);
    }
}

static void words_and_numbers_behind_the_colon_are_checked(void **state)
{
    static const struct {
        const char *list, *says;
    } wrong[] = {
        { "cuda-host:fast", "words are portable, mapped, wc" }, { "cuda-host:portable+", NULL }, { "cuda-host:portable+portablee", "words are" },
        { "cuda-device:-1", "number of a device" }, { "cuda-device:99999999999", "number of a device" }, { "cuda-device:7", "there are 1 devices" },
        { "cuda-devices", "is unknown" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct seg_supply_config config = { .struct_size = sizeof(config), .list = wrong[i].list };
        struct seg_supply *supply = NULL;
        int r = seg_supply_create(&config, &supply);

        if (wrong[i].says && (r >= 0 || !strstr(la_last_error(), wrong[i].says)))
            fail_msg("%s: %d, %s", wrong[i].list, r, la_last_error());
        assert_int_equal(seg_supply_destroy(supply), 0);
    }
}

struct forked {
    struct seg_supply *registered, *pinned;
    struct la_range range, own;
    struct la_limbo *limbo;
    struct la_token token;
    void *block;
};

static void use_in_child(void *arg)
{
    struct forked *f = arg;
    struct seg_location location = { .struct_size = sizeof(location) };
    unsigned calls = fake->calls;
    struct la_range none;

    CHECK(seg_supply_acquire(f->registered, MIB, MIB, &none) == -ECHILD);
    CHECK(seg_supply_acquire(f->pinned, MIB, MIB, &none) == -ECHILD);
    CHECK(strstr(la_last_error(), "exec"));
    CHECK(seg_find(f->range.base, &location) == -ENOENT);
    CHECK(seg_supply_release(f->registered, f->range) == -EINVAL && seg_supply_release(f->pinned, f->own) == -EINVAL);
    CHECK(la_free_after(f->limbo, f->block, f->token) == 0 && la_limbo_poll(f->limbo, 0) == -ECHILD);
    CHECK(la_limbo_forget(f->limbo) == 1);
    CHECK(seg_supply_destroy(f->registered) == 0 && seg_supply_destroy(f->pinned) == 0);
    CHECK(fake->calls == calls);                /* not a single call of the driver */
}

static void child_never_calls_the_driver(void **state)
{
    struct seg_registrar *registrar = make_registrar(0);
    struct forked f = { .registered = make_supply("anon", registrar), .pinned = make_supply("cuda-host", NULL) };

    (void)state;
    assert_int_equal(seg_supply_acquire(f.registered, MIB, MIB, &f.range), 0);
    assert_int_equal(seg_supply_acquire(f.pinned, MIB, MIB, &f.own), 0);
    assert_int_equal(la_limbo_create(&f.limbo) | seg_cuda_token(fake, &f.token), 0);
    f.block = la_malloc(100);
    assert_int_equal(run_in_child(use_in_child, &f), 0);
    la_free(f.block);
    assert_int_equal(la_limbo_destroy(f.limbo), 0);
    assert_int_equal(fake->registered + fake->allocated, 2);
    assert_int_equal(seg_supply_release(f.registered, f.range) | seg_supply_release(f.pinned, f.own), 0);
    assert_int_equal(seg_supply_destroy(f.registered) | seg_supply_destroy(f.pinned), 0);
    assert_int_equal(seg_registrar_destroy(registrar), 0);
}

static unsigned calls_at_exit = -1u;

/* The last handler that runs: registered before anything of ours was used. */
static void look_when_all_is_over(void)
{
    _exit(fake->calls == calls_at_exit ? 0 : 3);
}

/* What main() does under the name "exit": all kinds are in use when the process ends. */
static int exit_with_all_kinds(void)
{
    static const char *const lists[] = { "anon", "cuda-host:mapped", "cuda-device" };

    if (atexit(look_when_all_is_over) != 0 || setup(NULL) < 0)
        return 1;
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        struct seg_supply *supply = make_supply(lists[i], make_registrar(SEG_CUDA_MAPPED));
        struct la_chain *chain;

        if (la_chain_create(seg_supply_source(supply), 0, &chain) < 0 || !la_chain_alloc(chain, 100))
            return 2;
    }
    calls_at_exit = fake->calls;
    return 0;
}

static void start_anew(void *arg)
{
    (void)arg;
    execl("/proc/self/exe", "cuda_test", "exit", (char *)NULL);
    _exit(4);
}

static void exit_handlers_never_call_the_driver(void **state)
{
    (void)state;
    skip_if_emulated("/proc/self/exe is the emulator");
    assert_int_equal(run_in_child(start_anew, NULL), 0);
}

#define TEST(test) cmocka_unit_test_setup(test, setup)

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "exit") == 0)
        return exit_with_all_kinds();

    const struct CMUnitTest tests[] = {
        cmocka_unit_test(missing_library_is_named),     /* before the library has found one */
        TEST(blocks_of_every_kind_of_memory_have_a_device_address),
        TEST(pinned_memory_of_the_driver_serves_chains),
        TEST(contracts_are_kept),
        TEST(missing_driver_is_an_answer),
        TEST(failures_of_the_driver_leave_no_trace),
        TEST(less_is_taken_when_the_driver_has_less),
        TEST(memory_of_the_drivers_own_that_it_keeps_is_quarantined),
        TEST(words_and_numbers_behind_the_colon_are_checked),
        TEST(child_never_calls_the_driver),
        TEST(exit_handlers_never_call_the_driver),
        TEST(memory_of_the_device_serves_chains),
        TEST(device_is_the_one_that_the_list_says),
        TEST(full_device_is_an_error_or_less),
        TEST(what_cannot_be_with_device_memory_is_refused),
        TEST(one_registrar_finds_addresses_in_all_kinds_of_memory),
        TEST(registered_memory_is_neither_purged_nor_given_back_under_the_driver),
        TEST(block_waits_for_an_event),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
