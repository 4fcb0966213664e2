/*
 * supply_test.c - segments/supply.c, growth.c: memory grows step by step, each step can fail, and a failure leaves no trace.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include <liballoc/liballoc.h>
#include <segments/find.h>
#include <segments/nodes.h>

#include "base/util.h"
#include "os/os.h"

#include "../support/emulated.h"
#include "child.h"

/* ---- a device that knows what it was told ---- */

enum { DEVICE_KEYS = 64 };

struct device {
    struct { uintptr_t base; size_t size; } mapped[DEVICE_KEYS];
    unsigned next, attached, calls;
    unsigned fail_attach_at;        /* the n-th attach fails; 0: none */
    unsigned stuck;                 /* so many detaches fail */
    int mute;                       /* fails without a sentence */
    struct seg_supply *calls_back;  /* asks this one for memory during attach */
    int called_back;
};

static int device_attach(void *self, const struct seg_extent *extent, struct seg_key *ret)
{
    struct device *d = self;
    struct la_range none;

    if (d->calls_back)
        d->called_back = seg_supply_acquire(d->calls_back, 4096, 4096, &none);
    if (++d->calls == d->fail_attach_at)
        return d->mute ? -EIO : seg_fail(-EIO, "device says no");
    assert_true(d->next < DEVICE_KEYS);
    d->mapped[d->next].base = (uintptr_t)extent->base;
    d->mapped[d->next].size = extent->size;
    *ret = (struct seg_key){ .local = 1000 + d->next, .remote = 2000 + d->next, .device = 0x100000000ull * (d->next + 1) };
    d->next++;
    d->attached++;
    memset(extent->base, 0x5a, extent->size);       /* all of it is there: a lie would be a signal */
    return 0;
}

static int device_detach(void *self, const struct seg_extent *extent, const struct seg_key *key)
{
    struct device *d = self;
    size_t i = key->local - 1000;

    assert_true(i < d->next && d->mapped[i].base == (uintptr_t)extent->base && d->mapped[i].size == extent->size);
    if (d->stuck) {
        d->stuck--;
        return -EBUSY;
    }
    /* Still mapped: a registrar comes before the unmapping, always. */
    assert_int_equal(msync(extent->base, extent->size, MS_ASYNC), 0);
    d->mapped[i].size = 0;
    d->attached--;
    return 0;
}

static struct seg_registrar *make_registrar(struct device *d, size_t max_size, unsigned flags)
{
    struct seg_registrar_ops ops = { .struct_size = sizeof(ops), .name = "device", .flags = flags, .max_size = max_size,
                                     .attach = device_attach, .detach = device_detach };
    struct seg_registrar *registrar;

    assert_int_equal(seg_registrar_create(&ops, d, &registrar), 0);
    return registrar;
}

static struct seg_supply *make_supply(const struct seg_supply_config *config)
{
    struct seg_supply *supply = NULL;

    if (seg_supply_create(config, &supply) < 0)
        fail_msg("seg_supply_create: %s", la_last_error());
    return supply;
}

static struct seg_supply_info info_of(struct seg_supply *supply)
{
    struct seg_supply_info info = { .struct_size = sizeof(info) };

    assert_int_equal(seg_supply_info(supply, &info), 0);
    return info;
}

static void assert_said(const char *word)
{
    if (!strstr(la_last_error(), word))
        fail_msg("\"%s\" does not say \"%s\"", la_last_error(), word);
}

#define CONFIG(...) &(struct seg_supply_config){ .struct_size = sizeof(struct seg_supply_config), __VA_ARGS__ }

/* ---- chains ---- */

static void every_block_has_the_key_of_its_extent(void **state)
{
    struct device device = { 0 };
    struct seg_registrar *registrar = make_registrar(&device, 0, 0);
    struct seg_supply *supply = make_supply(CONFIG(.list = "memfd", .registrars = { registrar }));
    struct la_chain *chain;
    char *block[400];

    (void)state;
    assert_int_equal(la_chain_create(seg_supply_source(supply), 0, &chain), 0);
    for (size_t i = 0; i < ARRAY_SIZE(block); i++) {
        size_t size = i % 40 == 39 ? 5 * MiB : 100 + i * 200;
        struct seg_key_here first, last;

        block[i] = la_chain_alloc(chain, size);
        assert_non_null(block[i]);
        memset(block[i], (int)i, size);
        assert_int_equal(seg_key_of(block[i], registrar, &first), 0);
        assert_int_equal(seg_key_of(block[i] + size - 1, registrar, &last), 0);
        assert_int_equal(first.remote, last.remote);    /* no block crosses an extent with another key */
        assert_int_equal(first.remote, first.local + 1000);
        assert_true(first.bytes >= size);
        assert_int_equal(last.device - first.device, size - 1);
        assert_int_equal(seg_check(block[i], first.generation), 0);
    }
    assert_int_equal(info_of(supply).segments, device.attached);
    assert_true(device.attached > 1);
    assert_int_equal(seg_registrar_destroy(registrar), -EBUSY);
    assert_int_equal(seg_supply_destroy(supply), -EBUSY);
    assert_int_equal(la_chain_destroy(chain), 0);
    assert_int_equal(seg_supply_destroy(supply), 0);
    assert_int_equal(device.attached, 0);
    assert_int_equal(seg_registrar_destroy(registrar), 0);
}

static void keys_end_with_their_extent(void **state)
{
    struct device device = { 0 };
    struct seg_registrar *registrar = make_registrar(&device, 0, 0);
    struct seg_supply *supply = make_supply(CONFIG(.list = "anon", .registrars = { registrar }));
    struct seg_location location = { .struct_size = sizeof(location) };
    struct seg_key_here key;
    struct la_range range;

    (void)state;
    assert_int_equal(seg_supply_acquire(supply, 3 * MiB, 3 * MiB, &range), 0);
    assert_int_equal(seg_key_of((char *)range.base + 5000, registrar, &key), 0);
    assert_int_equal(key.bytes, 3 * MiB - 5000);
    assert_int_equal(key.device, 0x100000000ull + 5000);
    assert_int_equal(seg_find((char *)range.base + 5000, &location), 0);
    assert_ptr_equal(location.supply, supply);
    assert_int_equal(location.offset, 5000);
    assert_int_equal(location.key_count, 1);
    assert_int_equal(location.keys[0].remote, key.remote);
    assert_int_equal(seg_find((char *)range.base + range.size, &location), -ENOENT);
    assert_int_equal(seg_supply_release(supply, range), 0);
    assert_int_equal(seg_key_of(range.base, registrar, &key), -ENOENT);
    assert_int_equal(seg_check(range.base, key.generation), -ESTALE);
    assert_int_equal(seg_supply_release(supply, range), -EINVAL);
    assert_int_equal(seg_supply_destroy(supply), 0);
    assert_int_equal(seg_registrar_destroy(registrar), 0);
}

static void several_registrars_stand_on_one_extent(void **state)
{
    struct device a = { .next = 10 }, b = { .next = 20 }, other = { 0 };
    struct seg_registrar *ra = make_registrar(&a, 0, 0), *rb = make_registrar(&b, 0, 0), *rother = make_registrar(&other, 0, 0);
    struct seg_supply *supply = make_supply(CONFIG(.list = "memfd", .registrars = { ra, rb }));
    struct seg_key_here key;
    struct la_range range;

    (void)state;
    assert_int_equal(seg_supply_acquire(supply, MiB, MiB, &range), 0);
    assert_int_equal(seg_key_of(range.base, ra, &key), 0);
    assert_int_equal(key.local, 1010);
    assert_int_equal(seg_key_of(range.base, rb, &key), 0);
    assert_int_equal(key.local, 1020);
    assert_int_equal(seg_key_of(range.base, rother, &key), -ENOKEY);
    assert_int_equal(seg_supply_release(supply, range), 0);
    assert_int_equal(seg_supply_destroy(supply), 0);
    assert_int_equal(seg_registrar_destroy(ra) | seg_registrar_destroy(rb) | seg_registrar_destroy(rother), 0);
}

/* ---- failures ---- */

static void registrar_that_fails_leaves_no_trace(void **state)
{
    (void)state;
    for (int mute = 0; mute < 2; mute++) {
        struct device a = { 0 }, b = { 0 }, c = { .fail_attach_at = 2, .mute = mute };
        struct seg_registrar *r[3] = { make_registrar(&a, 0, 0), make_registrar(&b, 0, 0), make_registrar(&c, 0, 0) };
        struct seg_supply *supply = make_supply(CONFIG(.list = "memfd", .registrars = { r[0], r[1], r[2] }));
        struct la_range first, none = { (void *)1, 1 };

        assert_int_equal(seg_supply_acquire(supply, MiB, MiB, &first), 0);
        assert_int_equal(seg_supply_acquire(supply, MiB, MiB, &none), -EIO);
        assert_said(mute ? "registrar device refuses" : "device says no");
        assert_ptr_equal(none.base, (void *)1);
        assert_true(a.attached == 1 && b.attached == 1 && c.attached == 1);
        assert_int_equal(info_of(supply).bytes, MiB);
        assert_int_equal(info_of(supply).failures, 1);
        assert_int_equal(info_of(supply).quarantined, 0);
        assert_int_equal(seg_supply_release(supply, first), 0);
        assert_int_equal(seg_supply_destroy(supply), 0);
        for (int i = 0; i < 3; i++)
            assert_int_equal(seg_registrar_destroy(r[i]), 0);
    }
}

static void memory_that_a_driver_does_not_let_go_stays_mapped(void **state)
{
    struct device device = { .stuck = 2 };
    struct seg_registrar *registrar = make_registrar(&device, 0, 0);
    struct seg_supply *supply = make_supply(CONFIG(.list = "anon", .registrars = { registrar }));
    struct seg_key_here key;
    struct la_range range;

    (void)state;
    assert_int_equal(seg_supply_acquire(supply, MiB, MiB, &range), 0);
    assert_int_equal(seg_supply_release(supply, range), -EBUSY);
    assert_said("does not let go");
    assert_int_equal(info_of(supply).quarantined, MiB);
    assert_int_equal(info_of(supply).bytes, 0);
    memset(range.base, 1, range.size);                                      /* the device may still write there */
    assert_int_equal(seg_key_of(range.base, registrar, &key), -ENOENT);     /* but nobody is told its key */
    assert_int_equal(seg_supply_destroy(supply), -EBUSY);                   /* asked again: stuck */
    assert_said("quarantined");
    assert_int_equal(seg_supply_destroy(supply), 0);                        /* now it lets go */
    assert_int_equal(device.attached, 0);
    assert_int_equal(seg_registrar_destroy(registrar), 0);
}

static void driver_that_calls_back_gets_an_error(void **state)
{
    struct device device = { 0 };
    struct seg_registrar *registrar = make_registrar(&device, 0, 0);
    struct seg_supply *supply = make_supply(CONFIG(.list = "anon", .registrars = { registrar }));
    struct la_range range;

    (void)state;
    device.calls_back = supply;
    assert_int_equal(seg_supply_acquire(supply, MiB, MiB, &range), 0);
    assert_int_equal(device.called_back, -EDEADLK);
    assert_int_equal(seg_supply_release(supply, range), 0);
    assert_int_equal(seg_supply_destroy(supply), 0);
    assert_int_equal(seg_registrar_destroy(registrar), 0);
}

/* ---- lists ---- */

static void next_source_is_taken_and_the_reason_kept(void **state)
{
    struct seg_supply *supply = make_supply(CONFIG(.list = "hugetlb:1G,anon"));
    struct la_range range;

    (void)state;
    assert_int_equal(seg_supply_acquire(supply, MiB, MiB, &range), 0);
    if (strcmp(info_of(supply).source, "anon") == 0) {      /* a machine may have pages of 1 GiB */
        assert_non_null(strstr(info_of(supply).reason, "hugetlb: "));
        assert_int_equal(range.size, MiB);
    }
    assert_int_equal(seg_supply_release(supply, range), 0);
    assert_int_equal(seg_supply_destroy(supply), 0);
}

static void wrong_configurations_are_refused(void **state)
{
    static const struct { const char *list; int code; const char *word; } lists[] = {
        { "", -EINVAL, "unknown" },       { "anon,", -EINVAL, "unknown" },      { "anon,nonsense:3", -EINVAL, "nonsense" },
        { "hugetlb", -EINVAL, "hugetlb: a page size is 2M" },     { "hugetlb:3M", -EINVAL, "3M" },      { "anon:x", -EINVAL, "nothing belongs" },
        { "shm", -EINVAL, "shm:NAME" },   { "file", -EINVAL, "file:PATH" },     { "hugetlb:2", -EINVAL, "hugetlb:2" },
        { "anon,anon,anon,anon,anon,anon,anon,anon,anon", -E2BIG, "more than 8" },
    };
    struct seg_supply *supply = (void *)1;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
        assert_int_equal(seg_supply_create(CONFIG(.list = lists[i].list), &supply), lists[i].code);
        assert_said(lists[i].word);
    }
    assert_int_equal(seg_supply_create(NULL, &supply), -EINVAL);
    assert_int_equal(seg_supply_create(CONFIG(.list = NULL), &supply), -EINVAL);
    assert_int_equal(seg_supply_create(CONFIG(.list = "anon", .required = SEG_PLACED), &supply), -EINVAL);
    assert_ptr_equal(supply, (void *)1);
    assert_int_equal(seg_supply_destroy(NULL), 0);
}

/* ---- budgets ---- */

static void budgets_are_hard_and_named(void **state)
{
    struct device device = { 0 };
    struct seg_registrar *registrar = make_registrar(&device, 2 * MiB, SEG_REGISTRAR_PINS);
    struct seg_supply *supply = make_supply(CONFIG(.list = "anon", .max_bytes = 4 * MiB));
    struct la_range range[3];

    (void)state;
    assert_int_equal(seg_supply_acquire(supply, MiB, 3 * MiB, &range[0]), 0);
    assert_int_equal(seg_supply_acquire(supply, MiB, 3 * MiB, &range[1]), 0);       /* the rest will do */
    assert_int_equal(range[1].size, MiB);
    assert_int_equal(seg_supply_acquire(supply, 1, 1, &range[2]), -EDQUOT);
    assert_said("max_bytes = 4194304");
    assert_int_equal(seg_supply_release(supply, range[0]) | seg_supply_release(supply, range[1]), 0);
    assert_int_equal(seg_supply_destroy(supply), 0);

    supply = make_supply(CONFIG(.list = "anon", .max_segments = 1));
    assert_int_equal(seg_supply_acquire(supply, MiB, MiB, &range[0]), 0);
    assert_int_equal(seg_supply_acquire(supply, MiB, MiB, &range[1]), -EDQUOT);
    assert_said("max_segments");
    assert_int_equal(seg_supply_release(supply, range[0]), 0);
    assert_int_equal(seg_supply_destroy(supply), 0);

    supply = make_supply(CONFIG(.list = "anon", .registrars = { registrar }, .max_pinned = 3 * MiB));
    assert_int_equal(seg_supply_acquire(supply, MiB, 3 * MiB, &range[0]), 0);       /* a key covers 2 MiB */
    assert_int_equal(range[0].size, 2 * MiB);
    assert_int_equal(info_of(supply).pinned, 2 * MiB);
    assert_int_equal(seg_supply_acquire(supply, 2 * MiB, 2 * MiB, &range[1]), -EDQUOT);
    assert_said("max_pinned");
    assert_int_equal(seg_supply_acquire(supply, MiB / 2, MiB / 2, &range[1]), 0);
    assert_int_equal(seg_supply_release(supply, range[0]) | seg_supply_release(supply, range[1]), 0);
    assert_int_equal(seg_supply_acquire(supply, 2 * MiB + 4096, 4 * MiB, &range[1]), -E2BIG);
    assert_int_equal(device.attached, 0);
    assert_int_equal(seg_supply_destroy(supply), 0);
    assert_int_equal(seg_registrar_destroy(registrar), 0);
}

static void chain_stops_at_the_budget_and_says_so(void **state)
{
    struct seg_supply *supply = make_supply(CONFIG(.list = "memfd", .max_bytes = 8 * MiB));
    struct la_chain *chain;

    (void)state;
    assert_int_equal(la_chain_create(seg_supply_source(supply), 0, &chain), 0);
    while (la_chain_alloc(chain, 100000))
        ;
    assert_said("max_bytes");
    assert_true(info_of(supply).bytes <= 8 * MiB && info_of(supply).bytes >= 4 * MiB);
    assert_int_equal(la_chain_destroy(chain), 0);
    assert_int_equal(seg_supply_destroy(supply), 0);
}

/* ---- subscribers ---- */

struct audience {
    unsigned grown, gone, live;
    uint64_t last_remote;
    unsigned refuse_at;             /* the n-th SEG_GROWN; 0: none */
    struct seg_registrar *registrar;
    bool seen_early;                /* lookups found it before everybody was told */
};

static int listen(void *user, enum seg_event event, const struct seg_extent *extent, const struct seg_key *keys, size_t key_count)
{
    struct audience *a = user;
    struct seg_key_here key;

    if (a->registrar && seg_key_of(extent->base, a->registrar, &key) == 0)
        a->seen_early = true;
    if (event == SEG_GONE) {
        a->gone++;
        a->live--;
        return 0;
    }
    if (++a->grown == a->refuse_at)
        return -ECONNREFUSED;
    a->live++;
    assert_int_equal(key_count, 1);
    a->last_remote = keys[0].remote;
    return 0;
}

static void subscribers_know_keys_before_any_block_is_out(void **state)
{
    struct device device = { 0 };
    struct seg_registrar *registrar = make_registrar(&device, 0, 0);
    struct seg_supply *supply = make_supply(CONFIG(.list = "anon", .registrars = { registrar }));
    struct audience a = { .registrar = registrar }, b = { .refuse_at = 3 }, late = { .refuse_at = 2 };
    struct seg_key_here key;
    struct la_range range[2], none;

    (void)state;
    assert_int_equal(seg_supply_subscribe(supply, listen, &a), 0);
    assert_int_equal(seg_supply_subscribe(supply, listen, &b), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(seg_supply_acquire(supply, MiB, MiB, &range[i]), 0);
        assert_int_equal(seg_key_of(range[i].base, registrar, &key), 0);
        assert_int_equal(a.last_remote, key.remote);
        assert_int_equal(b.last_remote, key.remote);
    }
    assert_false(a.seen_early);
    assert_int_equal(seg_supply_acquire(supply, MiB, MiB, &none), -ECONNREFUSED);
    assert_true(a.live == 2 && a.gone == 1 && b.live == 2);
    assert_int_equal(device.attached, 2);

    a.registrar = NULL;     /* who comes late is told of what is out already */
    assert_int_equal(seg_supply_subscribe(supply, listen, &late), -ECONNREFUSED);
    assert_int_equal(late.live, 0);
    late = (struct audience){ 0 };
    assert_int_equal(seg_supply_subscribe(supply, listen, &late), 0);
    assert_int_equal(late.live, 2);
    assert_int_equal(seg_supply_unsubscribe(supply, listen, &b), 0);
    assert_int_equal(seg_supply_unsubscribe(supply, listen, &b), -ENOENT);
    assert_int_equal(seg_supply_release(supply, range[0]) | seg_supply_release(supply, range[1]), 0);
    assert_true(a.live == 0 && late.live == 0 && b.live == 2);
    assert_int_equal(seg_supply_destroy(supply), 0);
    assert_int_equal(seg_registrar_destroy(registrar), 0);
}

/* ---- kinds ---- */

static void extents_have_what_was_required(void **state)
{
    struct seg_supply *supply = make_supply(CONFIG(.list = "anon,memfd", .required = SEG_SHARED, .preferred = SEG_NAMED));
    struct seg_location location = { .struct_size = sizeof(location) };
    struct la_range range;

    (void)state;
    assert_int_equal(seg_supply_acquire(supply, 100, MiB, &range), 0);
    assert_string_equal(info_of(supply).source, "memfd");
    assert_non_null(strstr(info_of(supply).reason, "anon: cannot"));
    assert_non_null(strstr(info_of(supply).reason, "named: memfd segments cannot"));
    assert_int_equal(seg_find(range.base, &location), 0);
    assert_true(location.capabilities & SEG_SHARED && location.fd >= 0);
    assert_int_equal(seg_supply_release(supply, range), 0);
    assert_int_equal(seg_supply_destroy(supply), 0);
}

static void named_extents_go_with_their_release(void **state)
{
    char list[128], path[64], shm[64];
    struct seg_supply *supply;
    struct la_range range[2];

    (void)state;
    snprintf(path, sizeof(path), "/tmp/supply-test-%d", (int)getpid());
    snprintf(shm, sizeof(shm), "supply-test-%d", (int)getpid());
    for (int i = 0; i < 2; i++) {
        char first[80], second[80];

        snprintf(list, sizeof(list), i ? "file:%s" : "shm:%s", i ? path : shm);
        snprintf(first, sizeof(first), i ? "%s.1" : "/dev/shm/%s.1", i ? path : shm);
        snprintf(second, sizeof(second), i ? "%s.2" : "/dev/shm/%s.2", i ? path : shm);
        supply = make_supply(CONFIG(.list = list));
        assert_int_equal(seg_supply_acquire(supply, MiB, MiB, &range[0]) | seg_supply_acquire(supply, MiB, MiB, &range[1]), 0);
        assert_true(access(first, F_OK) == 0 && access(second, F_OK) == 0);
        assert_int_equal(seg_supply_release(supply, range[0]), 0);
        assert_true(access(first, F_OK) != 0 && access(second, F_OK) == 0);
        assert_int_equal(seg_supply_release(supply, range[1]), 0);
        assert_true(access(second, F_OK) != 0);
        assert_int_equal(seg_supply_destroy(supply), 0);
    }
}

static void parts_of_an_open_segment_are_extents(void **state)
{
    struct device device = { 0 };
    struct seg_registrar *registrar = make_registrar(&device, 0, 0);
    struct seg_request request = { .struct_size = sizeof(request), .kind = SEG_MEMFD, .wanted_size = 32 * MiB };
    struct seg_segment *segment;
    struct seg_choice choice = { .ops = seg_source_parts() };
    struct seg_location location = { .struct_size = sizeof(location) };
    struct seg_info info = { .struct_size = sizeof(info) };
    struct seg_supply *supply;
    struct la_chain *chain;
    char *block;

    (void)state;
    assert_int_equal(seg_supply_create(CONFIG(.choices = &choice, .choice_count = 1), &supply), -EINVAL);
    assert_int_equal(seg_open(&request, &segment), 0);
    choice.user = segment;
    supply = make_supply(CONFIG(.choices = &choice, .choice_count = 1, .registrars = { registrar }));
    assert_int_equal(la_chain_create(seg_supply_source(supply), 0, &chain), 0);
    block = la_chain_alloc(chain, 1000);
    assert_int_equal(seg_find(block, &location), 0);
    assert_int_equal(seg_info(segment, &info), 0);
    assert_int_equal(location.file_offset, (size_t)(block - (char *)info.base));
    assert_true(location.size < info.size);     /* what is committed is registered, not the sparse rest */
    assert_int_equal(info.committed, location.size);
    while (la_chain_alloc(chain, 1000))
        ;
    assert_said("full");
    assert_int_equal(la_chain_destroy(chain), 0);
    assert_int_equal(seg_supply_destroy(supply), 0);
    assert_int_equal(seg_close(segment), 0);
    assert_int_equal(device.attached, 0);
    assert_int_equal(seg_registrar_destroy(registrar), 0);
}

/* ---- threads and fork ---- */

static void *grow_and_shrink(void *arg)
{
    struct seg_location location = { .struct_size = sizeof(location) };
    struct la_range range;

    for (int i = 0; i < 100; i++) {
        if (seg_supply_acquire(arg, 64 * KiB, 64 * KiB, &range) < 0)
            return (void *)1;
        *(volatile char *)range.base = 1;
        if (seg_find(range.base, &location) < 0 || location.base != range.base || seg_supply_release(arg, range) < 0)
            return (void *)1;
    }
    return NULL;
}

static void threads_grow_one_supply(void **state)
{
    struct seg_supply *supply = make_supply(CONFIG(.list = "anon"));
    pthread_t threads[3];
    void *failed;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, grow_and_shrink, supply), 0);
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++) {
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    assert_int_equal(info_of(supply).bytes, 0);
    assert_int_equal(info_of(supply).growths, 300);
    assert_int_equal(seg_supply_destroy(supply), 0);
}

static void grow_in_child(void *arg)
{
    struct la_range range;

    CHECK(seg_supply_acquire(arg, MiB, MiB, &range) == 0);
    CHECK(seg_supply_release(arg, range) == 0);
}

/* Holds a growth up until it is told to go on. */
struct gate {
    int entered[2], go_on[2];
    struct seg_supply *supply;
};

static int wait_at_gate(void *user, enum seg_event event, const struct seg_extent *extent, const struct seg_key *keys, size_t count)
{
    struct gate *gate = user;
    char c = 0;

    (void)extent;
    (void)keys;
    (void)count;
    if (event == SEG_GROWN && (write(gate->entered[1], &c, 1) != 1 || read(gate->go_on[0], &c, 1) != 1))
        return -EIO;
    return 0;
}

static void *grow_through_gate(void *arg)
{
    struct gate *gate = arg;
    struct la_range range;

    return seg_supply_acquire(gate->supply, MiB, MiB, &range) < 0 || seg_supply_release(gate->supply, range) < 0 ? (void *)1 : NULL;
}

static void leave_and_grow(void *arg)
{
    struct gate *gate = arg;

    CHECK(seg_supply_unsubscribe(gate->supply, wait_at_gate, gate) == 0);
    grow_in_child(gate->supply);
}

static void child_does_not_wait_for_a_growth_of_its_parent(void **state)
{
    struct gate gate = { .supply = make_supply(CONFIG(.list = "anon")) };
    pthread_t thread;
    void *failed;
    char c = 0;

    (void)state;
    assert_int_equal(pipe2(gate.entered, O_CLOEXEC) | pipe2(gate.go_on, O_CLOEXEC), 0);
    assert_int_equal(seg_supply_subscribe(gate.supply, wait_at_gate, &gate), 0);
    assert_int_equal(pthread_create(&thread, NULL, grow_through_gate, &gate), 0);
    assert_int_equal(read(gate.entered[0], &c, 1), 1);      /* the other thread is in the middle of a growth */
    assert_int_equal(run_in_child(leave_and_grow, &gate), 0);
    assert_int_equal(write(gate.go_on[1], &c, 1), 1);
    pthread_join(thread, &failed);
    assert_null(failed);
    assert_int_equal(seg_supply_destroy(gate.supply), 0);
    for (int i = 0; i < 2; i++) {
        close(gate.entered[i]);
        close(gate.go_on[i]);
    }
}

/* ---- fork, and memory of devices ---- */

struct inheritance {
    struct seg_supply *supply;
    struct la_range range;
    struct la_chain *chain;
    char *block;
    bool mapped, known;     /* what the child should find */
};

/* By a copy of the kernel's: no signal. */
static bool is_there(const void *p)
{
    int ends[2];
    bool there = pipe(ends) == 0 && write(ends[1], p, 1) == 1;

    close(ends[0]);
    close(ends[1]);
    return there;
}

static void look_at_inheritance(void *arg)
{
    struct inheritance *i = arg;
    struct seg_location location = { .struct_size = sizeof(location) };
    struct seg_supply_info info = { .struct_size = sizeof(info) };
    char *block;

    CHECK(is_there(i->range.base) == i->mapped);
    CHECK((seg_find(i->range.base, &location) == 0) == i->known);
    CHECK(seg_supply_info(i->supply, &info) == 0 && (info.bytes > 0) == i->known);
    block = la_chain_alloc(i->chain, 100);
    CHECK(!block == !i->known);
    la_free(block);
    la_misuse_set(LA_MISUSE_REPORT, NULL, NULL);
    la_free(i->block);
    CHECK((la_misuse_count() == 0) == i->known);
    CHECK(la_chain_destroy(i->chain) == 0);
    CHECK(i->known || seg_supply_destroy(i->supply) == 0);
}

static void child_has_no_private_memory_that_a_device_uses(void **state)
{
    static const struct {
        const char *list;
        unsigned registrar, flags;
        bool mapped, known;
    } cases[] = {
        { "anon", SEG_REGISTRAR_HOLDS, 0, false, false },
        { "thp,anon", SEG_REGISTRAR_PINS, 0, false, false },
        { "memfd", SEG_REGISTRAR_PINS, 0, true, false },        /* shared pages are not copied */
        { "anon", SEG_REGISTRAR_HOLDS, SEG_SUPPLY_INHERITED, true, true },
        { "anon", SEG_REGISTRAR_LOCKS, 0, true, true },         /* no device */
        { "anon", 0, 0, true, true },
    };

    (void)state;
    skip_if_emulated("children inherit all memory");
    for (size_t n = 0; n < ARRAY_SIZE(cases); n++) {
        struct device device = { 0 };
        struct seg_registrar *registrar = make_registrar(&device, 0, cases[n].registrar);
        struct seg_supply_config config = { .struct_size = sizeof(config), .list = cases[n].list, .registrars = { registrar },
                                            .flags = cases[n].flags };
        struct inheritance i = { .mapped = cases[n].mapped, .known = cases[n].known };

        assert_int_equal(seg_supply_create(&config, &i.supply), 0);
        assert_int_equal(seg_supply_acquire(i.supply, 1 << 16, 1 << 16, &i.range), 0);
        assert_int_equal(la_chain_create(seg_supply_source(i.supply), 0, &i.chain), 0);
        i.block = la_chain_alloc(i.chain, 1000);
        assert_non_null(i.block);
        assert_int_equal(run_in_child(look_at_inheritance, &i), 0);
        memset(i.block, 1, 1000);           /* all is as it was in the parent */
        la_free(i.block);
        assert_int_equal(la_chain_destroy(i.chain), 0);
        assert_int_equal(seg_supply_release(i.supply, i.range), 0);
        if (n == 0) {
            assert_int_equal(seg_supply_make_default(i.supply), -ENOTSUP);
            assert_non_null(strstr(la_last_error(), "not malloc's"));
        }
        assert_int_equal(seg_supply_destroy(i.supply), 0);
        assert_int_equal(seg_registrar_destroy(registrar), 0);
        assert_int_equal(device.attached, 0);
    }
}

static int open_liar(const char *text, void *user, void **ret)
{
    (void)text;
    *ret = user;
    return 0;
}

static void close_liar(void *self)
{
    (void)self;
}

static int ask_liar(void *self, struct seg_source_info *ret)
{
    (void)self, (void)ret;
    return 0;
}

static int acquire_device_memory(void *self, const struct seg_ask *ask, struct seg_extent *ret)
{
    (void)ask;
    ret->base = self;
    ret->size = ret->page_size = 4096;
    ret->capabilities = SEG_DEVICE_ONLY;
    return 0;
}

static int release_nothing(void *self, struct seg_extent *extent)
{
    (void)self, (void)extent;
    return 0;
}

/* Chains would write to it. */
static void source_that_hides_device_memory_is_refused(void **state)
{
    static const struct seg_source_ops ops = { .struct_size = sizeof(ops), .name = "liar", .open = open_liar, .close = close_liar, .info = ask_liar,
                                               .acquire = acquire_device_memory, .release = release_nothing };
    struct seg_choice choice = { .ops = &ops };
    struct seg_supply_config config = { .struct_size = sizeof(config), .choices = &choice, .choice_count = 1 };
    struct seg_supply *supply;
    struct la_range range;

    (void)state;
    choice.user = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_int_equal(seg_supply_create(&config, &supply), 0);
    assert_int_equal(seg_supply_acquire(supply, 4096, 4096, &range), -EPROTO);
    assert_non_null(strstr(la_last_error(), "its .can does not say"));
    assert_int_equal(seg_supply_destroy(supply), 0);
    munmap(choice.user, 4096);
}

/* ---- NUMA: on any number of nodes; what it takes several for is in tests/guest/nodes_test.c ---- */

static struct seg_node_info node_info_of(struct seg_supply *supply, unsigned node)
{
    struct seg_node_info info = { .struct_size = sizeof(info) };

    assert_int_equal(seg_supply_node_info(supply, node, &info), 0);
    return info;
}

static void supply_counts_what_each_node_has(void **state)
{
    struct seg_supply *supply = make_supply(CONFIG(.list = "anon", .per_node = true));
    unsigned last = seg_node_count() - 1;
    struct la_range here, there;

    (void)state;
    assert_int_equal(seg_supply_acquire(supply, MiB, MiB, &here), 0);
    assert_int_equal(seg_supply_acquire_on(supply, last, 3 * MiB, 3 * MiB, &there), 0);
    assert_true(node_info_of(supply, last).bytes == 4 * MiB || (last > 0 && node_info_of(supply, last).bytes == 3 * MiB));
    assert_true(node_info_of(supply, last).segments >= 1);
    assert_int_equal(node_info_of(supply, last).bound, 0);
    assert_int_equal(info_of(supply).bytes, 4 * MiB);
    assert_int_equal(seg_supply_release(supply, here) | seg_supply_release(supply, there), 0);
    assert_int_equal(node_info_of(supply, last).bytes, 0);
    assert_int_equal(seg_supply_destroy(supply), 0);
}

/* Not asked for, not missed: as if per_node had not been said. */
static void on_one_node_nothing_is_different(void **state)
{
    struct seg_location l = { .struct_size = sizeof(l) };
    struct seg_supply *supply;
    struct la_chain *chain;
    void *block;

    (void)state;
    if (seg_node_count() > 1) {
        print_message("this machine has several NUMA nodes\n");
        skip();
    }
    supply = make_supply(CONFIG(.list = "anon", .per_node = true));
    assert_int_equal(la_chain_create(seg_supply_source(supply), 0, &chain), 0);
    assert_int_equal(la_chain_pin(chain, 0), 0);
    block = la_chain_alloc(chain, 1000);
    assert_int_equal(seg_find(block, &l), 0);
    assert_int_equal(l.capabilities & SEG_PLACED, 0);
    assert_string_equal(info_of(supply).reason, "");
    assert_int_equal(node_info_of(supply, 0).bytes, info_of(supply).bytes);
    assert_int_equal(la_chain_pin(chain, 1), -EINVAL);
    assert_int_equal(la_chain_destroy(chain), 0);
    assert_int_equal(seg_supply_destroy(supply), 0);
}

/* Since Linux 5.14; not under qemu-user. */
static bool can_populate(void)
{
    char *page = os_map(os_page_size());
    bool can = madvise(page, os_page_size(), MADV_POPULATE_WRITE) == 0;

    os_unmap(page, os_page_size());
    return can;
}

static void extent_that_is_bound_knows_its_node(void **state)
{
    static const char *const lists[] = { "anon", "memfd", "shm:liballoc-test-node" };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
        struct seg_location l = { .struct_size = sizeof(l) };
        struct seg_supply *supply = make_supply(CONFIG(.list = lists[i], .per_node = true, .numa = { SEG_NUMA_BIND, 0 }));
        size_t bytes[LA_NODES_MAX];
        struct la_range range;

        assert_int_equal(seg_supply_acquire_on(supply, 0, MiB, MiB, &range), 0);
        assert_int_equal(seg_find(range.base, &l), 0);
        if (!(l.capabilities & SEG_PLACED)) {
            print_message("%s\n", info_of(supply).reason);
            assert_int_equal(l.node, -1);
        } else {
            assert_int_equal(l.node, 0);
            assert_int_equal(node_info_of(supply, 0).bound, MiB);
            /* There before anybody has touched it; pages of files are not mapped yet. */
            if (i == 0 && can_populate() && seg_pages_on_nodes(range, bytes) == 0)
                assert_int_equal(bytes[0], MiB);
        }
        assert_int_equal(seg_supply_release(supply, range), 0);
        assert_int_equal(seg_supply_destroy(supply), 0);
    }
}

static void what_others_hold_is_not_said_to_lie_on_a_node(void **state)
{
    struct seg_request request = { .struct_size = sizeof(request), .kind = SEG_MEMFD, .min_size = 4 * MiB,
                                   .numa = { SEG_NUMA_BIND, 1 } };
    struct seg_info info = { .struct_size = sizeof(info) };
    struct seg_segment *maker, *importer;
    struct seg_choice parts = { .ops = seg_source_parts() };
    struct seg_location l = { .struct_size = sizeof(l) };
    struct seg_supply *supply;
    struct la_range range;

    (void)state;
    assert_int_equal(seg_open(&request, &maker), 0);
    assert_int_equal(seg_info(maker, &info), 0);
    if (info.missed) {
        print_message("%s\n", info.reason);
        assert_int_equal(seg_close(maker), 0);
        skip();
    }
    assert_int_equal(info.node, 0);
    request.flags = SEG_IMPORT;
    request.fd = info.fd;
    assert_int_equal(seg_open(&request, &importer), 0);
    assert_int_equal(seg_info(importer, &info), 0);
    assert_int_equal(info.node, -1);        /* its pages may have been made before */
    assert_int_equal(seg_close(importer), 0);

    /* Parts lie where their segment does; asked for elsewhere, that is a miss. */
    parts.user = maker;
    supply = make_supply(CONFIG(.choices = &parts, .choice_count = 1));
    assert_int_equal(seg_supply_acquire(supply, MiB, MiB, &range), 0);
    assert_int_equal(seg_find(range.base, &l), 0);
    assert_int_equal(l.node, 0);
    assert_int_equal(seg_supply_release(supply, range), 0);
    assert_int_equal(seg_supply_destroy(supply), 0);
    supply = make_supply(CONFIG(.choices = &parts, .choice_count = 1, .required = SEG_PLACED, .numa = { SEG_NUMA_INTERLEAVE, 1 }));
    assert_int_equal(seg_supply_acquire(supply, MiB, MiB, &range), -ENOTSUP);
    assert_int_equal(seg_supply_destroy(supply), 0);
    assert_int_equal(seg_close(maker), 0);
}

static void wrong_questions_about_nodes_are_refused(void **state)
{
    struct seg_node_info info = { .struct_size = sizeof(info) };
    struct seg_supply *supply = make_supply(CONFIG(.list = "anon"));
    struct la_range range;

    (void)state;
    assert_int_equal(seg_supply_node_info(supply, 0, &info), -EINVAL);
    assert_said("per_node");
    assert_int_equal(seg_supply_acquire_on(supply, 0, MiB, MiB, &range), -EINVAL);
    assert_int_equal(seg_supply_node_info(NULL, 0, &info), -ENOENT);
    assert_null(seg_supply_default());
    assert_int_equal(seg_supply_destroy(supply), 0);

    supply = make_supply(CONFIG(.list = "anon", .per_node = true));
    assert_int_equal(seg_supply_node_info(supply, seg_node_count(), &info), -EINVAL);
    assert_said("this machine has nodes 0 to");
    assert_int_equal(seg_supply_acquire_on(supply, seg_node_count(), MiB, MiB, &range), -EINVAL);
    info.struct_size = 1;
    assert_int_equal(seg_supply_node_info(supply, 0, &info), -EINVAL);
    assert_int_equal(seg_supply_destroy(supply), 0);

    assert_int_equal(seg_supply_create(CONFIG(.list = "anon", .per_node = true, .numa = { SEG_NUMA_INTERLEAVE, 1 }), &supply), -EINVAL);
    assert_said("per_node goes with");
    assert_int_equal(seg_supply_create(CONFIG(.list = "anon", .per_node = true, .numa = { SEG_NUMA_BIND, UINT64_C(1) << 63 }), &supply),
                     seg_node_count() < 64 ? -EINVAL : 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_block_has_the_key_of_its_extent),
        cmocka_unit_test(keys_end_with_their_extent),
        cmocka_unit_test(several_registrars_stand_on_one_extent),
        cmocka_unit_test(registrar_that_fails_leaves_no_trace),
        cmocka_unit_test(memory_that_a_driver_does_not_let_go_stays_mapped),
        cmocka_unit_test(driver_that_calls_back_gets_an_error),
        cmocka_unit_test(next_source_is_taken_and_the_reason_kept),
        cmocka_unit_test(wrong_configurations_are_refused),
        cmocka_unit_test(budgets_are_hard_and_named),
        cmocka_unit_test(chain_stops_at_the_budget_and_says_so),
        cmocka_unit_test(subscribers_know_keys_before_any_block_is_out),
        cmocka_unit_test(extents_have_what_was_required),
        cmocka_unit_test(named_extents_go_with_their_release),
        cmocka_unit_test(parts_of_an_open_segment_are_extents),
        cmocka_unit_test(threads_grow_one_supply),
        cmocka_unit_test(child_does_not_wait_for_a_growth_of_its_parent),
        cmocka_unit_test(child_has_no_private_memory_that_a_device_uses),
        cmocka_unit_test(source_that_hides_device_memory_is_refused),
        cmocka_unit_test(supply_counts_what_each_node_has),
        cmocka_unit_test(on_one_node_nothing_is_different),
        cmocka_unit_test(extent_that_is_bound_knows_its_node),
        cmocka_unit_test(what_others_hold_is_not_said_to_lie_on_a_node),
        cmocka_unit_test(wrong_questions_about_nodes_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
