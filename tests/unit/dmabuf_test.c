/*
 * dmabuf_test.c - segments/dmabuf.c, verbs/dmabuf.c, cuda/dmabuf.c: memory of one device registered for another. Against the fakes of libibverbs and of
 * the CUDA runtime and driver, and with a source of the test's own; what cards and GPUs do is not shown here.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <liballoc/liballoc.h>
#include <segments/conformance.h>
#include <segments/cuda.h>
#include <segments/find.h>
#include <segments/verbs.h>

#include "../fake/cudart.h"
#include "../fake/ibverbs.h"
#include "../support/emulated.h"
#include "base/util.h"
#include "child.h"
#include "segments/registrar_state.h"
#include "segments/verbs/runtime.h"

enum { ACCESS = SEG_VERBS_LOCAL_WRITE | SEG_VERBS_REMOTE_WRITE | SEG_VERBS_REMOTE_READ };

static struct fake_ibverbs *verbs;
static struct fake_cudart *cuda;

static int setup(void **state)
{
    (void)state;
    setenv("LIBALLOC_IBVERBS", FAKE_IBVERBS, 1);
    setenv("LIBALLOC_CUDART", FAKE_CUDART, 1);
    setenv("LIBALLOC_CUDA", FAKE_CUDART, 1);
    verbs = dlsym(dlopen(FAKE_IBVERBS, RTLD_NOW), "fake_ibverbs");
    cuda = dlsym(dlopen(FAKE_CUDART, RTLD_NOW), "fake_cudart");
    if (!verbs || !cuda)
        return -1;
    *verbs = (struct fake_ibverbs)FAKE_IBVERBS_NEW;
    *cuda = (struct fake_cudart)FAKE_CUDART_NEW;
    return 0;
}

static unsigned descriptors(void)
{
    DIR *folder = opendir("/proc/self/fd");
    unsigned count = 0;

    while (readdir(folder))
        count++;
    closedir(folder);
    return count;
}

/* ---- a source of memory that is a part of a file, which stands for a dmabuf ---- */

struct window {
    unsigned capabilities;      /* of its extents */
    size_t before;              /* bytes of the file in front of the memory */
    int error;                  /* export_dmabuf fails with this, without a sentence */
    int positive;               /* or returns this */
    bool closed, too_short;     /* or gives what is no descriptor; says an offset behind the end */
    unsigned out, exports;
};

static int open_window(const char *text, void *user, void **ret)
{
    (void)text;
    *ret = user;
    return 0;
}

static void close_window(void *self)
{
    (void)self;
}

static int window_info(void *self, struct seg_source_info *ret)
{
    const struct window *w = self;

    ret->can = w->capabilities;
    ret->page_size = 4096;
    return 0;
}

static int window_acquire(void *self, const struct seg_ask *ask, struct seg_extent *ret)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    struct window *w = self;
    char *p;

    if (ask->min_size > GiB)
        return -ENOMEM;
    ret->page_size = page;
    ret->size = align_up(MIN(ask->wanted_size, 8 * MiB), page);
    ret->size = MAX(ret->size, align_up(ask->min_size, page));
    ret->fd = memfd_create("window", MFD_CLOEXEC);
    CHECK(ret->fd >= 0 && ftruncate(ret->fd, (off_t)(w->before + ret->size)) == 0);
    p = mmap(NULL, ret->size, w->capabilities & SEG_DEVICE_ONLY ? PROT_NONE : PROT_READ | PROT_WRITE, MAP_SHARED, ret->fd,
             (off_t)align_down(w->before, page));
    CHECK(p != MAP_FAILED);
    ret->base = p;
    ret->cookie = w;
    ret->capabilities = w->capabilities;
    w->out++;
    return 0;
}

static int window_release(void *self, struct seg_extent *extent)
{
    struct window *w = self;

    munmap(extent->base, extent->size);
    close(extent->fd);
    w->out--;
    return 0;
}

static int window_dmabuf(void *self, const struct seg_extent *extent, struct seg_dmabuf *ret)
{
    struct window *w = self;

    w->exports++;
    if (w->error || w->positive)
        return w->error ? -w->error : w->positive;
    ret->fd = w->closed ? 1000 : fcntl(extent->fd, F_DUPFD, 0);
    ret->offset = w->before + (w->too_short ? extent->page_size : 0);
    return 0;
}

static const struct seg_source_ops window_ops = {
    .struct_size = sizeof(window_ops), .name = "window", .can = SEG_DEVICE_ONLY, .open = open_window, .close = close_window, .info = window_info,
    .acquire = window_acquire, .release = window_release, .export_dmabuf = window_dmabuf,
};

/* ---- what is made of it ---- */

struct stack {
    struct seg_registrar *registrars[2];
    struct seg_supply *supply;
    unsigned descriptors;       /* before it was made */
};

static struct seg_registrar *make_registrar(uintptr_t domain)
{
    struct seg_registrar *registrar = NULL;

    if (seg_registrar_verbs((struct ibv_pd *)(domain * 64), ACCESS, 0, &registrar) < 0)
        fail_msg("seg_registrar_verbs: %s", la_last_error());
    return registrar;
}

/* @list, or @ops over @window. */
static void build(struct stack *s, const char *list, const struct seg_source_ops *ops, struct window *window, unsigned domains)
{
    struct seg_choice choice = { .ops = ops, .user = window };
    struct seg_supply_config config = { .struct_size = sizeof(config), .list = list, .choices = ops ? &choice : NULL, .choice_count = ops != NULL };

    *s = (struct stack){ .descriptors = descriptors() };
    for (unsigned i = 0; i < domains; i++)
        config.registrars[i] = s->registrars[i] = make_registrar(i + 1);
    if (seg_supply_create(&config, &s->supply) < 0)
        fail_msg("seg_supply_create: %s", la_last_error());
}

static void end(const struct stack *s)
{
    assert_int_equal(seg_supply_destroy(s->supply), 0);
    assert_int_equal(seg_registrar_destroy(s->registrars[0]) | seg_registrar_destroy(s->registrars[1]), 0);
    assert_int_equal(verbs->registered + verbs->unmapped + verbs->lists + verbs->open + cuda->allocated, 0);
    assert_int_equal(descriptors(), s->descriptors);
}

/* It fails with @code and a sentence that has @says, and leaves no trace. */
static void assert_fails(const struct stack *s, int code, const char *says)
{
    unsigned before = descriptors(), registered = verbs->registered;
    struct la_range range;
    int r = seg_supply_acquire(s->supply, MiB, MiB, &range);

    if (r != code || !strstr(la_last_error(), says))
        fail_msg("%d (%s), not %d (... %s ...)", r, r < 0 ? la_last_error() : "", code, says);
    assert_int_equal(descriptors(), before);
    assert_int_equal(verbs->registered, registered);
}

static void blocks_of_a_device_have_keys(void **state)
{
    struct window w = { .capabilities = SEG_DEVICE_ONLY, .before = 3 * MiB };
    struct seg_location location = { .struct_size = sizeof(location) };
    struct seg_key_here key;
    struct la_chain *chain;
    struct stack s;

    (void)state;
    build(&s, NULL, &window_ops, &w, 1);
    assert_int_equal(la_chain_create(seg_supply_source(s.supply), 0, &chain), 0);
    for (int i = 0; i < 10000; i++) {
        char *block = la_chain_alloc(chain, 3000);
        const struct verbs_mr *mr;

        assert_non_null(block);
        assert_int_equal(seg_key_of(block, s.registrars[0], &key), 0);
        assert_int_equal(seg_find(block, &location), 0);
        mr = location.keys[0].handle;
        assert_true(key.local == mr->lkey && key.remote == mr->rkey && key.bytes == location.size - location.offset);
        assert_true((uintptr_t)mr->address == w.before && mr->length == location.size);
        if (verbs->registered == w.out && i == 0)
            assert_ptr_equal(verbs->iova, location.base);       /* peers say the addresses of the device */
    }
    assert_true(w.out > 1);
    assert_true(verbs->by_dmabuf == w.out && w.exports == w.out && verbs->registered == w.out);
    /* The source's file, and what the device holds: not ours. */
    assert_int_equal(descriptors(), s.descriptors + 2 * w.out);
    assert_int_equal(la_chain_destroy(chain), 0);
    end(&s);
    assert_int_equal(w.out, 0);
}

static void each_domain_gets_a_descriptor_of_its_own(void **state)
{
    struct window w = { .capabilities = SEG_DEVICE_ONLY };
    struct la_range range;
    struct stack s;

    (void)state;
    build(&s, NULL, &window_ops, &w, 2);
    assert_int_equal(seg_supply_acquire(s.supply, MiB, MiB, &range), 0);
    assert_int_equal(verbs->by_dmabuf, 2);
    assert_int_equal(w.exports, 2);
    assert_int_equal(seg_supply_release(s.supply, range), 0);
    assert_int_equal(descriptors(), s.descriptors);
    verbs->fail_at = 2;
    verbs->error = ENOMEM;
    assert_fails(&s, -ENOMEM, "ibv_reg_dmabuf_mr of 1048576 bytes, access 0x7: errno 12: out of memory");
    assert_int_equal(w.out, 0);
    end(&s);
}

static void every_failure_is_named_and_leaves_nothing(void **state)
{
    static const struct {
        struct window window;
        int reg_error, code;
        const char *says;
    } cases[] = {
        { { .error = ENOTSUP }, 0, -ENOTSUP, "source window: no dmabuf (errno 95)" },
        { { .error = EMFILE }, 0, -EMFILE, "source window: no dmabuf (errno 24)" },
        { { .positive = 3 }, 0, -EPROTO, "export_dmabuf returned 3" },
        { { .closed = true }, 0, -EPROTO, "gave 1000 for the descriptor of a dmabuf" },
        { { .too_short = true }, 0, -EPROTO, "gave a dmabuf of 1048576 bytes for 1048576 at offset 4096" },
        { { .before = 100 }, 0, -EINVAL, "offset 0x64 in its dmabuf and address" },
        { { 0 }, EINVAL, -EINVAL, "ibv_reg_dmabuf_mr of 1048576 bytes, access 0x7: errno 22" },
        { { 0 }, EIO, -EIO, "errno 5" },
        { { 0 }, EOPNOTSUPP, -ENOTSUP, "the device does not register a dmabuf (errno 95; mlx5" },
        { { 0 }, EPROTONOSUPPORT, -ENOTSUP, "the device does not register a dmabuf (errno 93; mlx5" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct window w = cases[i].window;
        struct stack s;

        w.capabilities = SEG_DEVICE_ONLY;
        verbs->dmabuf_error = cases[i].reg_error;
        verbs->peer_memory = 1;         /* nothing of CUDA's: it is not tried */
        build(&s, NULL, &window_ops, &w, 1);
        assert_fails(&s, cases[i].code, cases[i].says);
        assert_int_equal(w.out, 0);
        end(&s);
    }
}

static int never(void *self, const struct seg_extent *extent, struct seg_dmabuf *ret)
{
    (void)self, (void)extent, (void)ret;
    fail_msg("called behind the end of the table");
    return -EIO;
}

static void tables_of_before_have_no_dmabuf(void **state)
{
    struct window w = { .capabilities = SEG_DEVICE_ONLY };
    struct seg_source_ops older = window_ops;
    struct la_range range;
    struct stack s;

    (void)state;
    older.struct_size = offsetof(struct seg_source_ops, export_dmabuf);
    older.export_dmabuf = never;
    older.can = SEG_DEVICE_ONLY | SEG_SHARED;
    build(&s, NULL, &older, &w, 1);
    assert_fails(&s, -ENOTSUP, "source window describes no memory by a dmabuf");
    w.capabilities = SEG_SHARED;
    assert_int_equal(seg_supply_acquire(s.supply, MiB, MiB, &range), 0);        /* the machine's, by its address */
    assert_int_equal(verbs->by_dmabuf, 0);
    assert_int_equal(seg_supply_release(s.supply, range), 0);
    end(&s);
}

static void memory_of_the_machine_goes_by_its_address_where_dmabufs_do_not(void **state)
{
    struct window w = { .capabilities = SEG_SHARED };
    struct la_range range;
    struct stack s;

    (void)state;
    build(&s, NULL, &window_ops, &w, 1);
    for (int i = 0; i < 3; i++) {
        verbs->by_dmabuf = 0;
        verbs->dmabuf_error = i == 1 ? EOPNOTSUPP : 0;
        w.error = i == 2 ? ENOTSUP : 0;
        assert_int_equal(seg_supply_acquire(s.supply, MiB, MiB, &range), 0);
        assert_int_equal(verbs->registered, 1);
        assert_int_equal(verbs->by_dmabuf, i == 0);
        assert_ptr_equal(verbs->iova, range.base);
        assert_int_equal(seg_supply_release(s.supply, range), 0);
        assert_int_equal(descriptors(), s.descriptors);
    }
    w.error = 0;
    verbs->dmabuf_error = EOPNOTSUPP;
    verbs->fail_at = 2;         /* behind that by the dmabuf */
    verbs->error = ENOMEM;
    assert_fails(&s, -ENOMEM, "the device does not register a dmabuf");
    assert_non_null(strstr(la_last_error(), "; by address: verbs: ibv_reg_mr of 1048576 bytes, access 0x7: errno 12: out of memory"));
    w.error = EMFILE;           /* what should work and fails is told */
    assert_fails(&s, -EMFILE, "no dmabuf (errno 24)");
    end(&s);
}

/* ---- cuda-device ---- */

static void memory_of_a_gpu_is_registered_by_a_dmabuf(void **state)
{
    struct seg_location location = { .struct_size = sizeof(location) };
    struct seg_key_here key;
    struct la_chain *chain;
    struct stack s;
    void *block;

    (void)state;
    for (unsigned crooked = 0; crooked < 2; crooked++) {
        setup(NULL);
        cuda->devices = 2;
        cuda->crooked = crooked;        /* the extent is a part of what the driver gave */
        build(&s, "cuda-device:1", NULL, NULL, 2);
        assert_int_equal(la_chain_create(seg_supply_source(s.supply), LA_CHAIN_MT, &chain), 0);
        block = la_chain_alloc(chain, 1000);
        assert_non_null(block);
        assert_int_equal(seg_key_of(block, s.registrars[1], &key), 0);
        assert_int_equal(seg_find(block, &location), 0);
        assert_ptr_equal(verbs->iova, location.base);
        assert_int_equal(key.remote, ((const struct verbs_mr *)location.keys[1].handle)->rkey);
        assert_true(cuda->dmabufs == 2 && verbs->by_dmabuf == 2);
        assert_int_equal(cuda->device, 0);      /* the thread's own is put back */
        assert_int_equal(cuda->last_error, 0);
        assert_int_equal(la_chain_destroy(chain), 0);
        end(&s);
    }
}

static void print_finding(void *user, const char *rule, const char *what)
{
    (void)user;
    print_error("%s: %s\n", rule, what);
}

static void contracts_are_kept(void **state)
{
    struct window w = { .capabilities = SEG_DEVICE_ONLY, .before = 64 << 10 };
    struct seg_choice choices[] = { { .ops = &window_ops, .user = &w }, { .ops = seg_source_find("cuda-device") } };
    struct seg_registrar *registrar = make_registrar(1);
    struct seg_conformance run = { .struct_size = sizeof(run), .report = print_finding };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(choices); i++)
        assert_int_equal(seg_conformance_source(&choices[i], &run), 0);
    assert_true(w.exports == 2 && cuda->dmabufs == 2);
    w.capabilities = SEG_SHARED;
    choices[0].ops = &(struct seg_source_ops){ .struct_size = sizeof(window_ops), .name = "shared", .can = SEG_SHARED, .open = open_window,
                                               .close = close_window, .info = window_info, .acquire = window_acquire, .release = window_release,
                                               .export_dmabuf = window_dmabuf };
    assert_int_equal(seg_conformance_source(&choices[0], &run), 0);
    assert_int_equal(seg_conformance_registrar(&registrar->ops, registrar->self, "cuda-device", &run), 0);
    assert_true(verbs->by_dmabuf > 50);
    assert_int_equal(verbs->registered + verbs->unmapped + cuda->allocated, 0);
    assert_int_equal(seg_registrar_destroy(registrar), 0);
}

/* What the device does not let go stays the driver's: it is not freed under a key. */
static void memory_is_freed_when_the_device_has_let_go(void **state)
{
    struct seg_supply_info info = { .struct_size = sizeof(info) };
    struct la_range range;
    struct stack s;

    (void)state;
    build(&s, "cuda-device", NULL, NULL, 1);
    assert_int_equal(seg_supply_acquire(s.supply, MiB, MiB, &range), 0);
    verbs->dereg_error = EBUSY;
    assert_int_equal(seg_supply_release(s.supply, range), -EBUSY);
    assert_int_equal(cuda->allocated, 1);
    assert_int_equal(seg_supply_info(s.supply, &info), 0);
    assert_int_equal(info.quarantined, MiB);
    assert_int_equal(seg_supply_destroy(s.supply), -EBUSY);
    verbs->dereg_error = 0;
    end(&s);
}

static void driver_that_fails_is_told(void **state)
{
    struct stack s;

    (void)state;
    build(&s, "cuda-device", NULL, NULL, 1);
    verbs->peer_memory = 1;
    cuda->dmabuf_error = 999;
    assert_fails(&s, -EIO, "cuMemGetHandleForAddressRange of 1048576 bytes: error 999");
    assert_int_equal(cuda->allocated, 0);
    end(&s);
}

/* ---- nvidia-peermem ---- */

/* A /sys of the calling child's own, in which the module is loaded or not. */
static void pretend_module(bool loaded)
{
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || mount("none", "/sys", "tmpfs", 0, "size=1M") < 0)
        _exit(CANNOT);
    CHECK(mkdir("/sys/module", 0755) == 0);
    CHECK(!loaded || mkdir("/sys/module/nvidia_peermem", 0755) == 0);
}

struct peer_case {
    bool loaded;
    int dmabuf, reg_error;      /* of the GPU; of the card */
    const char *says;           /* NULL: it works */
};

static void register_in_child(void *arg)
{
    const struct peer_case *c = arg;
    struct seg_supply_config config = { .struct_size = sizeof(config), .list = "cuda-device", .registrars = { make_registrar(1) } };
    struct seg_supply *supply;
    struct la_range range;
    unsigned before;
    int r;

    pretend_module(c->loaded);
    verbs->peer_memory = c->loaded;
    verbs->dmabuf_error = c->reg_error;
    cuda->dmabuf = c->dmabuf;
    CHECK(seg_supply_create(&config, &supply) == 0);
    before = descriptors();
    r = seg_supply_acquire(supply, MiB, MiB, &range);
    if (c->says) {
        CHECK(r == -ENOTSUP && strstr(la_last_error(), c->says));
        CHECK(!!strstr(la_last_error(), "modprobe nvidia-peermem"));
        CHECK(verbs->registered == 0 && cuda->allocated == 0 && descriptors() == before);
    } else {
        CHECK(r == 0 && verbs->registered == 1 && verbs->by_dmabuf == 0 && verbs->iova == range.base);
        CHECK(seg_supply_release(supply, range) == 0);
    }
    CHECK(seg_supply_destroy(supply) == 0 && descriptors() == before);
    CHECK(verbs->registered == 0 && verbs->unmapped == 0 && cuda->allocated == 0);
}

static void address_of_a_gpu_serves_where_the_kernel_knows_its_driver(void **state)
{
    static struct peer_case cases[] = {
        { false, 0, 0, "CUDA: device 0 exports no dmabuf (with NVIDIA's open kernel modules" },
        { false, 1, EOPNOTSUPP, "the device does not register a dmabuf" },
        { true, 0, 0, NULL },
        { true, 1, EOPNOTSUPP, NULL },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        int status = run_in_child(register_in_child, &cases[i]);

        if (status == CANNOT) {
            print_message("a /sys of its own needs root\n");
            skip();
        }
        assert_int_equal(status, 0);
    }
}

/* ---- what is not there ---- */

static void look_for_nothing(void *arg)
{
    (void)arg;
    setenv("LIBALLOC_CUDART", FAKE_CUDART, 1);
    setenv("LIBALLOC_CUDA", "/nowhere/libcuda.so", 1);
    CHECK(seg_cuda_dmabuf(0) == -ENOTSUP);
    CHECK(strstr(la_last_error(), "no driver: /nowhere/libcuda.so"));
    setenv("LIBALLOC_CUDA", "libc.so.6", 1);
    CHECK(seg_cuda_dmabuf(0) == -ENOTSUP);
    CHECK(strstr(la_last_error(), "the driver has no cuDeviceGet() (11.7 or newer has)"));
    setenv("LIBALLOC_CUDART", "/nowhere/libcudart.so", 1);
    setenv("LIBALLOC_IBVERBS", "/nowhere/libibverbs.so", 1);
    CHECK(seg_verbs_dmabuf() == -ENODEV);
    setenv("LIBALLOC_IBVERBS", FAKE_IBVERBS_OLD, 1);
    CHECK(seg_verbs_dmabuf() == -ENOTSUP);
    CHECK(strstr(la_last_error(), "no ibv_reg_dmabuf_mr() (rdma-core 34 or newer has)"));
}

/* First of all: what is found is kept, in children too. */
static void missing_library_is_an_answer(void **state)
{
    (void)state;
    assert_int_equal(run_in_child(look_for_nothing, NULL), 0);
}

static void use_old_library(void *arg)
{
    struct seg_supply_config config = { .struct_size = sizeof(config), .list = "cuda-device" };
    struct seg_supply *supply;
    struct la_range range;

    (void)arg;
    pretend_module(false);
    setenv("LIBALLOC_IBVERBS", FAKE_IBVERBS_OLD, 1);
    setenv("LIBALLOC_CUDART", FAKE_CUDART, 1);
    setenv("LIBALLOC_CUDA", FAKE_CUDART, 1);
    cuda = dlsym(dlopen(FAKE_CUDART, RTLD_NOW), "fake_cudart");
    config.registrars[0] = make_registrar(1);
    CHECK(seg_supply_create(&config, &supply) == 0);
    CHECK(seg_supply_acquire(supply, MiB, MiB, &range) == -ENOTSUP);
    CHECK(strstr(la_last_error(), "rdma-core 34") && strstr(la_last_error(), "modprobe nvidia-peermem"));
    CHECK(cuda->dmabufs == 0 && cuda->allocated == 0);          /* not asked for nothing */
}

static void library_of_before_is_named_with_the_remedy(void **state)
{
    int status = run_in_child(use_old_library, NULL);

    (void)state;
    if (status == CANNOT)
        skip();
    assert_int_equal(status, 0);
}

static void what_this_machine_does_is_told(void **state)
{
    (void)state;
    assert_int_equal(seg_cuda_dmabuf(0), 0);
    assert_int_equal(seg_cuda_dmabuf(1), -ENODEV);
    assert_int_equal(seg_cuda_dmabuf(-1), -ENODEV);
    cuda->dmabuf = 0;
    assert_int_equal(seg_cuda_dmabuf(0), -ENOTSUP);
    assert_non_null(strstr(la_last_error(), "NVIDIA's open kernel modules"));
    cuda->devices = 0;
    assert_int_equal(seg_cuda_dmabuf(0), -ENODEV);
    verbs->devices = 3;
    assert_int_equal(seg_verbs_dmabuf(), 3);
    verbs->dmabuf_error = EOPNOTSUPP;
    assert_int_equal(seg_verbs_dmabuf(), -ENOTSUP);
    assert_non_null(strstr(la_last_error(), "none of 3 RDMA devices"));
    verbs->devices = 0;
    assert_int_equal(seg_verbs_dmabuf(), -ENODEV);
    assert_int_equal(verbs->open + verbs->lists + verbs->registered, 0);
}

/* ---- limits, children, askers ---- */

static void lock_nothing(void *arg)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[2];
    struct rlimit limit = { 64 * KiB, 64 * KiB };
    struct seg_supply_config config = { .struct_size = sizeof(config), .list = arg, .registrars = { make_registrar(1) } };
    struct seg_supply *supply;
    struct la_range range;
    int expected = strcmp(arg, "cuda-device") == 0 ? 0 : -EDQUOT;

    CHECK(seg_supply_create(&config, &supply) == 0);
    CHECK(setrlimit(RLIMIT_MEMLOCK, &limit) == 0);
    CHECK(syscall(SYS_capget, &header, data) == 0);
    data[0].effective &= ~(1u << CAP_IPC_LOCK);
    CHECK(syscall(SYS_capset, &header, data) == 0);
    CHECK(seg_supply_acquire(supply, 4 * MiB, 4 * MiB, &range) == expected);
    CHECK(expected < 0 || (seg_supply_release(supply, range) == 0 && seg_supply_destroy(supply) == 0 && verbs->registered == 0));
}

static void memory_of_a_device_counts_against_no_limit_of_locked_memory(void **state)
{
    static char device[] = "cuda-device", host[] = "anon";

    (void)state;
    assert_int_equal(run_in_child(lock_nothing, device), 0);
    assert_int_equal(run_in_child(lock_nothing, host), 0);
}

static void use_in_child(void *arg)
{
    struct stack *s = arg;
    unsigned calls = verbs->calls + cuda->calls;
    struct la_range none;

    CHECK(seg_supply_acquire(s->supply, MiB, MiB, &none) == -ECHILD);
    CHECK(seg_supply_destroy(s->supply) == 0 && seg_registrar_destroy(s->registrars[0]) == 0);
    CHECK(verbs->calls + cuda->calls == calls);
}

static void child_never_calls_a_driver(void **state)
{
    struct la_range range;
    struct stack s;

    (void)state;
    build(&s, "cuda-device", NULL, NULL, 1);
    assert_int_equal(seg_supply_acquire(s.supply, MiB, MiB, &range), 0);
    assert_int_equal(run_in_child(use_in_child, &s), 0);
    assert_int_equal(verbs->registered, 1);
    assert_int_equal(seg_supply_release(s.supply, range), 0);
    end(&s);
}

/* Whoever ships memory to another process does it so. */
static int ask_for_dmabuf(void *user, enum seg_event event, const struct seg_extent *extent, const struct seg_key *keys, size_t key_count)
{
    struct seg_dmabuf dmabuf = { .struct_size = sizeof(dmabuf) }, wrong = { .fd = -7 };

    (void)keys, (void)key_count;
    if (event == SEG_GONE)
        return 0;
    assert_int_equal(seg_dmabuf_of(extent, &wrong), -EINVAL);
    assert_int_equal(wrong.fd, -7);
    assert_int_equal(seg_dmabuf_of(extent, &dmabuf), 0);
    assert_int_equal(fcntl(dmabuf.fd, F_GETFD), FD_CLOEXEC);
    *(uint64_t *)user = dmabuf.offset;
    return close(dmabuf.fd);
}

static void subscribers_may_ask_for_a_dmabuf(void **state)
{
    struct seg_dmabuf dmabuf = { .struct_size = sizeof(dmabuf), .fd = -7 };
    struct window w = { .capabilities = SEG_DEVICE_ONLY, .before = 16 * MiB };
    struct seg_extent mine = { .struct_size = offsetof(struct seg_extent, source), .size = MiB };
    struct la_range range;
    uint64_t offset = 0;
    struct stack s;

    (void)state;
    build(&s, NULL, &window_ops, &w, 0);
    assert_int_equal(seg_supply_subscribe(s.supply, ask_for_dmabuf, &offset), 0);
    assert_int_equal(seg_supply_acquire(s.supply, MiB, MiB, &range), 0);
    assert_int_equal(offset, 16 * MiB);
    assert_int_equal(seg_supply_release(s.supply, range), 0);
    end(&s);
    assert_int_equal(seg_dmabuf_of(&mine, &dmabuf), -ENOTSUP);          /* of an older program */
    mine.struct_size = sizeof(mine);
    assert_int_equal(seg_dmabuf_of(&mine, &dmabuf), -ENOTSUP);          /* of nobody */
    assert_non_null(strstr(la_last_error(), "does not say what source"));
    mine.source = &(struct seg_source_ops){ .struct_size = offsetof(struct seg_source_ops, export_dmabuf), .name = "older", .export_dmabuf = never };
    assert_int_equal(seg_dmabuf_of(&mine, &dmabuf), -ENOTSUP);
    assert_int_equal(dmabuf.fd, -7);
}

#define TEST(test) cmocka_unit_test_setup(test, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(missing_library_is_an_answer),         /* before the library has found one: CUDA is then of no use to children */
        cmocka_unit_test(library_of_before_is_named_with_the_remedy),
        TEST(address_of_a_gpu_serves_where_the_kernel_knows_its_driver),
        TEST(memory_of_a_device_counts_against_no_limit_of_locked_memory),
        TEST(what_this_machine_does_is_told),
        TEST(blocks_of_a_device_have_keys),
        TEST(each_domain_gets_a_descriptor_of_its_own),
        TEST(every_failure_is_named_and_leaves_nothing),
        TEST(tables_of_before_have_no_dmabuf),
        TEST(memory_of_the_machine_goes_by_its_address_where_dmabufs_do_not),
        TEST(memory_of_a_gpu_is_registered_by_a_dmabuf),
        TEST(contracts_are_kept),
        TEST(memory_is_freed_when_the_device_has_let_go),
        TEST(driver_that_fails_is_told),
        TEST(child_never_calls_a_driver),
        TEST(subscribers_may_ask_for_a_dmabuf),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
