/*
 * conformance_test.c - segments/conformance/: every built-in source and registrar keeps its contract, the kit finds those that do not, and growth
 * survives every one of them without a trace.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>

#include <liballoc/liballoc.h>
#include <segments/conformance.h>
#include <segments/find.h>

#include "../support/emulated.h"
#include "child.h"
#include "huge_pool.h"

#define MIB ((size_t)1 << 20)
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* ---- built-in kinds ---- */

static void print(void *user, const char *rule, const char *finding)
{
    print_message("%s: \"%s\" is broken: %s\n", (const char *)user, rule, finding);
}

/* No name is left in /dev/shm or /tmp. */
static void assert_no_name_is_left(const char *path)
{
    const char *slash = strrchr(path, '/');
    char folder[96], start[96];
    DIR *list;

    snprintf(folder, sizeof(folder), "%.*s", (int)(slash - path), path);
    snprintf(start, sizeof(start), "%s.", slash + 1);
    list = opendir(folder);
    for (struct dirent *entry = readdir(list); entry; entry = readdir(list))
        if (strncmp(entry->d_name, start, strlen(start)) == 0)
            fail_msg("%s/%s is left", folder, entry->d_name);
    closedir(list);
}

static void built_in_sources_keep_their_contract(void **state)
{
    char shm[64], file[96];
    const struct { const char *name, *text; } kinds[] = { { "anon", "" }, { "thp", "" },    { "memfd", "" },
                                                          { "shm", shm }, { "file", file } };

    (void)state;
    snprintf(shm, sizeof(shm), "conformance-test-%d", (int)getpid());
    snprintf(file, sizeof(file), "/tmp/conformance-test-%d", (int)getpid());
    for (size_t i = 0; i < COUNT(kinds); i++) {
        struct seg_choice choice = { .ops = seg_source_find(kinds[i].name), .text = kinds[i].text };
        struct seg_conformance run = { .struct_size = sizeof(run), .report = print, .user = (void *)(uintptr_t)kinds[i].name };
        int findings;

        findings = seg_conformance_source(&choice, &run);
        if (findings != 0)
            fail_msg("%s: %d findings (%s)", kinds[i].name, findings, la_last_error());
        assert_true(run.checks > 50);
    }
    assert_no_name_is_left(file);
    snprintf(file, sizeof(file), "/dev/shm/%s", shm);
    assert_no_name_is_left(file);
}

static void parts_of_a_segment_keep_the_contract(void **state)
{
    struct seg_request request = { .struct_size = sizeof(request), .kind = SEG_MEMFD, .wanted_size = 64 * MIB };
    struct seg_conformance run = { .struct_size = sizeof(run), .report = print, .user = (void *)(uintptr_t)"parts" };
    struct seg_choice choice = { .ops = seg_source_parts() };
    struct seg_segment *segment;

    (void)state;
    assert_int_equal(seg_open(&request, &segment), 0);
    choice.user = segment;
    assert_int_equal(seg_conformance_source(&choice, &run), 0);
    assert_int_equal(seg_close(segment), 0);
}

static void check_huge_pages(void *arg)
{
    struct seg_choice choice = { .ops = seg_source_find(arg), .text = "2M" };
    struct seg_conformance run = { .struct_size = sizeof(run), .report = print, .user = arg };

    CHECK(seg_conformance_source(&choice, &run) == 0);
    CHECK(run.checks > 50);
}

/* Twelve pages for eight extents. */
static void sources_of_huge_pages_keep_their_contract(void **state)
{
    static char hugetlb[] = "hugetlb", memfd[] = "memfd";
    int status = with_pool(12, check_huge_pages, hugetlb);

    (void)state;
    /* qemu-user maps such a file at addresses of its choice, which are no multiples of 2 MiB: -EINVAL. */
    if (status == 0 && !EMULATED)
        status = with_pool(12, check_huge_pages, memfd);
    unlock_pool();
    if (status == CANNOT) {
        print_message("the pool of huge pages cannot be changed here (needs root and free memory)\n");
        skip();
    }
    assert_int_equal(status, 0);
}

/* ---- the kit finds what is wrong ---- */

struct finding {
    char rule[96];
    unsigned count;
};

static void keep_first(void *user, const char *rule, const char *finding)
{
    struct finding *f = user;

    (void)finding;
    if (f->count++ == 0)
        snprintf(f->rule, sizeof(f->rule), "%s", rule);
}

static void kit_finds_each_fault_of_a_source(void **state)
{
    static const struct { enum seg_fault fault; const char *rule; } expected[] = {
        { SEG_FAULT_POSITIVE, "0 or a negative errno" }, { SEG_FAULT_SHORT, "at least min_size" },
        { SEG_FAULT_LONG, "at most wanted_size" },       { SEG_FAULT_UNMAPPED, "can be written and read" },
        { SEG_FAULT_MISALIGNED, "whole pages" },         { SEG_FAULT_NULL, "a range" },
    };

    (void)state;
    for (size_t i = 0; i < COUNT(expected); i++) {
        struct seg_faults faults = { .struct_size = sizeof(faults), .fault = expected[i].fault, .at = 3 };
        struct seg_choice choice = { .ops = seg_fault_source(), .text = "anon", .user = &faults };
        struct finding found = { .count = 0 };
        struct seg_conformance run = { .struct_size = sizeof(run), .report = keep_first, .user = &found };

        assert_true(seg_conformance_source(&choice, &run) > 0);
        assert_int_equal(run.findings, found.count);
        if (!strstr(found.rule, expected[i].rule))
            fail_msg("fault %d: \"%s\" was found, not \"%s\"", (int)expected[i].fault, found.rule, expected[i].rule);
        assert_int_equal(faults.out, 0);
    }
}

static void kit_finds_what_is_given_twice_and_what_is_not_taken_back(void **state)
{
    struct seg_faults twice = { .struct_size = sizeof(twice), .fault = SEG_FAULT_AGAIN, .at = 4 };
    struct seg_faults stuck = { .struct_size = sizeof(stuck), .give_back_at = 5 };
    struct seg_choice choice = { .ops = seg_fault_source(), .text = "anon", .user = &twice };
    struct finding found = { .count = 0 };
    /* One size for all, so that what is given again is not found to be too long. */
    struct seg_conformance run = { .struct_size = sizeof(run), .report = keep_first, .user = &found, .size = 4096 };

    (void)state;
    assert_true(seg_conformance_source(&choice, &run) > 0);
    assert_string_equal(found.rule, "acquire: no byte is given twice");
    choice.user = &stuck;
    found.count = 0;
    assert_true(seg_conformance_source(&choice, &run) > 0);
    assert_string_equal(found.rule, "release: 0 for an extent that is out");
    assert_int_equal(stuck.out, 1);     /* leaked on purpose */
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

/* What is wrong with the dmabufs of a source whose files stand for them. */
enum dmabuf_fault { RIGHT, POSITIVE, NO_DESCRIPTOR, TOO_SHORT, OTHER_MEMORY, ONE_FOR_ALL, LEAK };

static enum dmabuf_fault dmabuf_fault;
static int one_for_all = -1, leaked[2], leaked_count;

static int export_wrongly(void *self, const struct seg_extent *extent, struct seg_dmabuf *ret)
{
    (void)self;
    if (dmabuf_fault == POSITIVE)
        return 1;
    if (dmabuf_fault == LEAK) {
        leaked[leaked_count++] = fcntl(extent->fd, F_DUPFD_CLOEXEC, 0);
        return -ENOTSUP;
    }
    if (dmabuf_fault == OTHER_MEMORY) {
        ret->fd = memfd_create("other", MFD_CLOEXEC);
        ret->offset = 0;
        return ftruncate(ret->fd, (off_t)extent->size);
    }
    if (dmabuf_fault == ONE_FOR_ALL && one_for_all < 0)
        one_for_all = fcntl(extent->fd, F_DUPFD_CLOEXEC, 0);
    ret->fd = dmabuf_fault == NO_DESCRIPTOR ? 999 : dmabuf_fault == ONE_FOR_ALL ? one_for_all : fcntl(extent->fd, F_DUPFD_CLOEXEC, 0);
    ret->offset = extent->offset + (dmabuf_fault == TOO_SHORT ? extent->size : 0);
    return 0;
}

static void kit_finds_each_fault_of_a_dmabuf(void **state)
{
    static const struct { enum dmabuf_fault fault; const char *rule; } expected[] = {
        { RIGHT, "" },
        { POSITIVE, "export_dmabuf: 0 or a negative errno" },
        { NO_DESCRIPTOR, "export_dmabuf: a descriptor" },
        { TOO_SHORT, "export_dmabuf: all of the extent is in it" },
        { OTHER_MEMORY, "export_dmabuf: it is the same memory" },
        { ONE_FOR_ALL, "export_dmabuf: a descriptor of its own for each" },
        { LEAK, "export_dmabuf: leaves nothing but the descriptor, and nothing in failure" },
    };
    struct seg_source_ops ops = *seg_source_find("memfd");
    struct seg_choice choice = { .ops = &ops };
    unsigned before = descriptors();

    (void)state;
    ops.name = "wrong";
    ops.export_dmabuf = export_wrongly;
    for (size_t i = 0; i < COUNT(expected); i++) {
        struct finding found = { .count = 0 };
        struct seg_conformance run = { .struct_size = sizeof(run), .report = keep_first, .user = &found };

        dmabuf_fault = expected[i].fault;
        assert_int_equal(seg_conformance_source(&choice, &run) > 0, dmabuf_fault != RIGHT);
        assert_string_equal(found.rule, expected[i].rule);
        if (one_for_all >= 0)
            close(one_for_all);
        one_for_all = -1;
        while (leaked_count > 0)
            close(leaked[--leaked_count]);
        assert_int_equal(descriptors(), before);        /* the kit leaves none either */
    }
}

static void *leak_of[1000];
static unsigned leaks;

static int leaky_attach(void *self, const struct seg_extent *extent, struct seg_key *ret)
{
    (void)self;
    if (*(unsigned *)extent->base == 0)
        memset(extent->base, 1, 1);
    *ret = (struct seg_key){ .local = 1 };
    leak_of[leaks++] = mmap(NULL, 64 << 10, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return 0;
}

static int careless_detach(void *self, const struct seg_extent *extent, const struct seg_key *key)
{
    (void)self;
    (void)extent;
    (void)key;
    return 0;
}

static void kit_finds_a_registrar_that_leaks_and_one_that_changes_memory(void **state)
{
    struct seg_registrar_ops ops = { .struct_size = sizeof(ops), .name = "leaky", .attach = leaky_attach, .detach = careless_detach };
    struct finding found = { .count = 0 };
    struct seg_conformance run = { .struct_size = sizeof(run), .report = keep_first, .user = &found, .size = 64 << 10 };

    (void)state;
    /* Under ThreadSanitizer the kit does not count what is mapped: see accessible_kib(). */
#ifdef __SANITIZE_THREAD__
    assert_int_equal(seg_conformance_registrar(&ops, NULL, "anon", &run), 1);
#else
    assert_int_equal(seg_conformance_registrar(&ops, NULL, "anon", &run), 2);
#endif
    assert_string_equal(found.rule, "attach: keeps the content");
    while (leaks > 0)
        munmap(leak_of[--leaks], 64 << 10);
    ops.detach = NULL;
    assert_int_equal(seg_conformance_registrar(&ops, NULL, "anon", &run), 1);
    assert_int_equal(seg_conformance_registrar(&ops, NULL, "nonsense", &run), -EINVAL);
    run.struct_size = 0;
    assert_int_equal(seg_conformance_registrar(&ops, NULL, "anon", &run), -EINVAL);
}

/* ---- growth against every fault ---- */

struct listener {
    unsigned grown, live, refuse_at;
};

static int listen(void *user, enum seg_event event, const struct seg_extent *extent, const struct seg_key *keys, size_t key_count)
{
    struct listener *l = user;

    (void)extent;
    (void)keys;
    (void)key_count;
    if (event == SEG_GONE) {
        l->live--;
        return 0;
    }
    if (++l->grown == l->refuse_at)
        return -EACCES;
    l->live++;
    return 0;
}

enum { GROWTHS = 4 };

/* One supply with a plan of faults for each step: after GROWTHS growths what is out is what was got, and in the end nothing is. */
struct plan {
    struct seg_faults source, first, second;
    struct listener early, late;
};

static struct seg_supply *supply_with(struct plan *p, struct seg_registrar **registrars)
{
    struct seg_choice choice = { .ops = seg_fault_source(), .text = "memfd", .user = &p->source };
    struct seg_supply_config config = { .struct_size = sizeof(config), .name = "plan", .choices = &choice, .choice_count = 1,
                                        .required = SEG_SHARED };
    struct seg_supply *supply;

    p->source.struct_size = p->first.struct_size = p->second.struct_size = sizeof(p->source);
    assert_int_equal(seg_fault_registrar(&p->first, 0, &registrars[0]), 0);
    assert_int_equal(seg_fault_registrar(&p->second, 0, &registrars[1]), 0);
    config.registrars[0] = registrars[0];
    config.registrars[1] = registrars[1];
    assert_int_equal(seg_supply_create(&config, &supply), 0);
    assert_int_equal(seg_supply_subscribe(supply, listen, &p->early), 0);
    assert_int_equal(seg_supply_subscribe(supply, listen, &p->late), 0);
    return supply;
}

static void assert_book_is(struct seg_supply *supply, const struct plan *p, unsigned got, unsigned quarantined)
{
    struct seg_supply_info info = { .struct_size = sizeof(info) };

    assert_int_equal(seg_supply_info(supply, &info), 0);
    assert_int_equal(info.segments, got);
    assert_int_equal(info.bytes, got * MIB);
    assert_int_equal(info.quarantined, quarantined * MIB);
    assert_int_equal(p->source.out, got + quarantined);
    assert_int_equal(p->early.live, got);
    assert_int_equal(p->late.live, got);
}

/* Return: how many growths failed; *code: of the first of them. */
static unsigned run_plan(struct plan *p, unsigned expected_quarantine, int *code)
{
    struct seg_registrar *registrars[2];
    unsigned before = descriptors(), got = 0, failed = 0;
    struct seg_supply *supply = supply_with(p, registrars);
    struct la_range range[GROWTHS];

    for (unsigned i = 0; i < GROWTHS; i++) {
        int r = seg_supply_acquire(supply, MIB, MIB, &range[got]);

        if (r < 0 && failed++ == 0)
            *code = r;
        if (r < 0)
            assert_int_equal(la_last_error_code(), r);
        else
            memset(range[got++].base, 1, MIB);
    }
    assert_book_is(supply, p, got, expected_quarantine);
    if (expected_quarantine == 0) {
        assert_int_equal(p->first.out, got);
        assert_int_equal(p->second.out, got);
    }
    while (got > 0)
        assert_int_equal(seg_supply_release(supply, range[--got]), 0);
    assert_book_is(supply, p, 0, expected_quarantine);
    assert_int_equal(seg_supply_destroy(supply), 0);
    assert_int_equal(p->source.out + p->first.out + p->second.out, 0);
    assert_int_equal(seg_registrar_destroy(registrars[0]) | seg_registrar_destroy(registrars[1]), 0);
    assert_int_equal(descriptors(), before);
    return failed;
}

static void failing_source_leaves_no_trace(void **state)
{
    static const struct { enum seg_fault fault; int code; } faults[] = {
        { SEG_FAULT_FAIL, -ENOMEM },       { SEG_FAULT_POSITIVE, -EPROTO },   { SEG_FAULT_SHORT, -EPROTO }, { SEG_FAULT_LONG, -EPROTO },
        { SEG_FAULT_UNMAPPED, -EPROTO },   { SEG_FAULT_MISALIGNED, -EPROTO }, { SEG_FAULT_NULL, -EPROTO },  { SEG_FAULT_AGAIN, -EEXIST },
        { SEG_FAULT_INCAPABLE, -EPROTO },
    };

    (void)state;
    for (size_t i = 0; i < COUNT(faults); i++)
        for (unsigned at = 1; at <= GROWTHS; at++) {
            struct plan p = { .source = { .fault = faults[i].fault, .at = at } };
            int code = 0;

            if (at == 1 && (faults[i].fault == SEG_FAULT_AGAIN || faults[i].fault == SEG_FAULT_INCAPABLE))
                continue;       /* nothing is out yet to be given again */
            assert_int_equal(run_plan(&p, 0, &code), 1);
            if (code != faults[i].code)
                fail_msg("fault %d at %u: %d (%s), not %d", (int)faults[i].fault, at, code, la_last_error(), faults[i].code);
        }
}

static void failing_registrar_or_subscriber_leaves_no_trace(void **state)
{
    (void)state;
    for (unsigned at = 1; at <= GROWTHS; at++) {
        struct plan first = { .first = { .fault = SEG_FAULT_FAIL, .at = at, .error = EIO } };
        struct plan second = { .second = { .fault = SEG_FAULT_FAIL, .at = at, .error = EIO } };
        struct plan positive = { .second = { .fault = SEG_FAULT_POSITIVE, .at = at } };
        struct plan early = { .early = { .refuse_at = at } }, late = { .late = { .refuse_at = at } };
        int code = 0;

        assert_int_equal(run_plan(&first, 0, &code), 1);
        assert_int_equal(code, -EIO);
        assert_int_equal(run_plan(&second, 0, &code), 1);
        assert_int_equal(run_plan(&positive, 0, &code), 1);
        assert_true(code < 0);
        assert_int_equal(run_plan(&early, 0, &code), 1);
        assert_int_equal(code, -EACCES);
        assert_int_equal(run_plan(&late, 0, &code), 1);
        assert_int_equal(code, -EACCES);
    }
}

/* A failure while a failure is undone: the memory is kept, and let go when the driver lets go. */
static void driver_that_refuses_the_undoing_keeps_the_memory_mapped(void **state)
{
    (void)state;
    for (unsigned at = 1; at <= GROWTHS; at++) {
        struct plan detach = { .first = { .give_back_at = 1 }, .second = { .fault = SEG_FAULT_FAIL, .at = at, .error = EIO } };
        struct plan release = { .source = { .give_back_at = 1 }, .second = { .fault = SEG_FAULT_FAIL, .at = at, .error = EIO } };
        int code = 0;

        assert_int_equal(run_plan(&detach, 1, &code), 1);
        assert_int_equal(code, -EIO);       /* what went wrong first */
        assert_int_equal(run_plan(&release, 1, &code), 1);
        assert_int_equal(code, -EIO);
    }
}

static void next_source_serves_when_the_first_lies(void **state)
{
    for (enum seg_fault fault = SEG_FAULT_FAIL; fault < SEG_FAULT_COUNT; fault++) {
        struct seg_faults faults = { .struct_size = sizeof(faults), .fault = fault, .at = 1, .times = 100 };
        struct seg_choice choices[] = { { .ops = seg_fault_source(), .text = "anon", .user = &faults }, { .ops = seg_source_find("anon") } };
        struct seg_supply_config config = { .struct_size = sizeof(config), .choices = choices, .choice_count = 2 };
        struct seg_supply_info info = { .struct_size = sizeof(info) };
        struct seg_supply *supply;
        struct la_chain *chain;

        if (fault == SEG_FAULT_SLOW || fault == SEG_FAULT_AGAIN || fault == SEG_FAULT_INCAPABLE)
            continue;
        assert_int_equal(seg_supply_create(&config, &supply), 0);
        assert_int_equal(la_chain_create(seg_supply_source(supply), 0, &chain), 0);
        for (int i = 0; i < 100; i++)
            assert_non_null(memset(la_chain_alloc(chain, 100000), 1, 100000));
        assert_int_equal(seg_supply_info(supply, &info), 0);
        assert_string_equal(info.source, "anon");
        assert_non_null(strstr(info.reason, "fault: "));
        assert_int_equal(la_chain_destroy(chain), 0);
        assert_int_equal(seg_supply_destroy(supply), 0);
    }
    (void)state;
}

/* ---- slow drivers hold up nobody else ---- */

struct gate {
    int entered[2], go_on[2];
};

static void wait_at_gate(void *user)
{
    struct gate *gate = user;
    char c = 0;

    if (write(gate->entered[1], &c, 1) != 1 || read(gate->go_on[0], &c, 1) != 1)
        abort();
}

static void *allocate(void *arg)
{
    return la_chain_alloc(arg, 100);
}

static void allocation_elsewhere_does_not_wait_for_a_slow_driver(void **state)
{
    struct gate gate;
    struct plan p = { .first = { .fault = SEG_FAULT_SLOW, .at = 1, .wait = wait_at_gate, .user = &gate } };
    struct seg_registrar *registrars[2];
    struct seg_supply *supply = supply_with(&p, registrars);
    struct la_chain *chain, *other;
    struct seg_location location = { .struct_size = sizeof(location) };
    pthread_t thread;
    void *block, *large;
    char c = 0;

    (void)state;
    assert_int_equal(pipe(gate.entered) | pipe(gate.go_on), 0);
    assert_int_equal(la_chain_create(seg_supply_source(supply), 0, &chain), 0);
    assert_int_equal(la_chain_create(NULL, 0, &other), 0);
    assert_int_equal(pthread_create(&thread, NULL, allocate, chain), 0);
    assert_int_equal(read(gate.entered[0], &c, 1), 1);
    /* It is in its driver now. The default source grows, other chains serve, lookups answer. */
    large = la_malloc(300 * MIB);
    assert_non_null(large);
    for (int i = 0; i < 2000; i++)
        assert_non_null(la_chain_alloc(other, 60000));
    assert_int_equal(seg_find(large, &location), -ENOENT);
    la_free(large);
    assert_int_equal(write(gate.go_on[1], &c, 1), 1);
    pthread_join(thread, &block);
    assert_non_null(block);
    assert_int_equal(seg_find(block, &location), 0);
    assert_int_equal(la_chain_destroy(chain) | la_chain_destroy(other), 0);
    assert_int_equal(seg_supply_destroy(supply), 0);
    assert_int_equal(seg_registrar_destroy(registrars[0]) | seg_registrar_destroy(registrars[1]), 0);
    for (int i = 0; i < 2; i++) {
        close(gate.entered[i]);
        close(gate.go_on[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(built_in_sources_keep_their_contract),
        cmocka_unit_test(sources_of_huge_pages_keep_their_contract),
        cmocka_unit_test(parts_of_a_segment_keep_the_contract),
        cmocka_unit_test(kit_finds_each_fault_of_a_source),
        cmocka_unit_test(kit_finds_what_is_given_twice_and_what_is_not_taken_back),
        cmocka_unit_test(kit_finds_each_fault_of_a_dmabuf),
        cmocka_unit_test(kit_finds_a_registrar_that_leaks_and_one_that_changes_memory),
        cmocka_unit_test(failing_source_leaves_no_trace),
        cmocka_unit_test(failing_registrar_or_subscriber_leaves_no_trace),
        cmocka_unit_test(driver_that_refuses_the_undoing_keeps_the_memory_mapped),
        cmocka_unit_test(next_source_serves_when_the_first_lies),
        cmocka_unit_test(allocation_elsewhere_does_not_wait_for_a_slow_driver),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
