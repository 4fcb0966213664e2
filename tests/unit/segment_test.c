/*
 * segment_test.c - segments/: what is asked for is got or refused with a reason, memory that is not there is an error and no SIGBUS,
 * and chains allocate from every kind. Covers segment.c, source_adapter.c, placement.c and all backends, through the public header.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/mempolicy.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <liballoc/chain.h>
#include <liballoc/vspace.h>
#include <segments/supply.h>

#include "base/util.h"
#include "os/headroom.h"

#include "../support/emulated.h"
#include "child.h"
#include "huge_pool.h"

static char name[32], registry[64];

static int setup(void **state)
{
    (void)state;
    snprintf(name, sizeof(name), "segment-test-%d", (int)getpid());
    snprintf(registry, sizeof(registry), "/tmp/segment-test-registry-%d", (int)getpid());
    return setenv("LIBALLOC_VSPACE_REGISTRY", registry, 1);
}

static int teardown(void **state)
{
    (void)state;
    seg_remove(name);
    unlink(registry);
    unlock_pool();
    return 0;
}

static struct seg_request request_for(enum seg_kind kind, size_t size)
{
    struct seg_request r = { .struct_size = sizeof(r), .kind = kind, .wanted_size = size };

    if (kind == SEG_POSIX_SHM) {
        r.name = name;
        r.flags = SEG_CREATE;
    }
    return r;
}

static struct seg_segment *open_segment(const struct seg_request *request)
{
    struct seg_segment *s = NULL;

    if (seg_open(request, &s) < 0)
        fail_msg("seg_open: %s", la_last_error());
    return s;
}

static struct seg_info info_of(struct seg_segment *s)
{
    struct seg_info info = { .struct_size = sizeof(info) };

    assert_int_equal(seg_info(s, &info), 0);
    return info;
}

static struct la_range acquire(struct seg_segment *s, size_t size)
{
    struct la_range range = { 0 };

    if (seg_acquire(s, size, size, &range) < 0)
        fail_msg("seg_acquire: %s", la_last_error());
    return range;
}

static bool is_zero(const char *p, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (p[i])
            return false;
    return true;
}

/* ---- bad input ---- */

static void assert_refused(struct seg_request request, int code, const char *word)
{
    struct seg_segment *s = (void *)1;

    assert_int_equal(seg_open(&request, &s), code);
    assert_ptr_equal(s, (void *)1);
    assert_int_equal(la_last_error_code(), code);
    if (!strstr(la_last_error(), word))
        fail_msg("\"%s\" does not say \"%s\"", la_last_error(), word);
}

static void bad_requests_are_refused_with_a_reason(void **state)
{
    struct seg_request r;
    struct seg_info info = { 0 };
    struct seg_segment *s;
    char longest[SEG_NAME_MAX + 2];
    static char buffer[4096];

    (void)state;
    assert_int_equal(seg_open(NULL, &s), -EINVAL);
    for (enum seg_kind kind = SEG_ANON; kind <= SEG_USER; kind++)
        assert_refused(request_for(kind, 0), -EINVAL, "0 bytes");
    assert_refused(request_for(SEG_ANON, SIZE_MAX), -EINVAL, "address space");
    assert_refused(request_for(0, 4096), -EINVAL, "kind 0");
    assert_refused(request_for(99, 4096), -EINVAL, "kind 99");
    r = request_for(SEG_USER, 4096);
    assert_refused(r, -EINVAL, "NULL");
    r.buffer = (void *)(UINTPTR_MAX - 100);
    assert_refused(r, -EINVAL, "wraps");
    r = request_for(SEG_ANON, 4096);
    r.struct_size = 0;
    assert_refused(r, -EINVAL, "struct_size");
    r = request_for(SEG_ANON, 4096);
    r.flags = SEG_CREATE;
    assert_refused(r, -EINVAL, "flags");
    r = request_for(SEG_ANON, 4096);
    r.preferred = 1u << 31;
    assert_refused(r, -EINVAL, "capabilities");
    r = request_for(SEG_POSIX_SHM, 4096);
    r.name = NULL;
    assert_refused(r, -EINVAL, "name");
    r.name = "a/b";
    assert_refused(r, -EINVAL, "a/b");
    r.name = "../etc";
    assert_refused(r, -EINVAL, "../etc");
    r.name = "";
    assert_refused(r, -EINVAL, "\"\"");
    r.name = memset(longest, 'n', sizeof(longest));
    longest[SEG_NAME_MAX + 1] = '\0';
    assert_refused(r, -ENAMETOOLONG, "longer");
    r = request_for(SEG_POSIX_SHM, 4096);
    r.flags = 0;
    assert_refused(r, -EINVAL, "SEG_ATTACH");

    r = request_for(SEG_USER, sizeof(buffer));
    r.buffer = buffer;
    s = open_segment(&r);
    assert_int_equal(seg_info(s, &info), -EINVAL);
    assert_int_equal(seg_info(s, NULL), -EINVAL);
    assert_int_equal(seg_close(s), 0);
    assert_int_equal(seg_close(NULL), 0);
    assert_int_equal(seg_remove(NULL), -EINVAL);
    assert_int_equal(seg_remove("a/b"), -EINVAL);
    assert_int_equal(seg_remove("nobody-has-this"), -ENOENT);
}

/* ---- parts ---- */

static void parts_are_apart_and_inside_and_come_back(void **state)
{
    enum { PARTS = 10 };
    struct la_range part[PARTS], large;

    (void)state;
    for (enum seg_kind kind = SEG_ANON; kind <= SEG_POSIX_SHM; kind++) {
        struct seg_request r = request_for(kind, PARTS * MiB);
        struct seg_segment *s = open_segment(&r);
        struct seg_info info = info_of(s);

        assert_int_equal(info.size, PARTS * MiB);
        for (int i = 0; i < PARTS; i++) {
            part[i] = acquire(s, MiB - 5);
            assert_int_equal(part[i].size, MiB);
            assert_int_equal((uintptr_t)part[i].base % info.page_size, 0);
            assert_true((char *)part[i].base >= (char *)info.base && (char *)part[i].base + MiB <= (char *)info.base + info.size);
            assert_true(is_zero(part[i].base, MiB));
            memset(part[i].base, i + 1, MiB);
        }
        for (int i = 0; i < PARTS; i++)
            assert_true(((char *)part[i].base)[0] == i + 1 && ((char *)part[i].base)[MiB - 1] == i + 1);
        assert_int_equal(info_of(s).acquired, PARTS * MiB);
        assert_true(info_of(s).committed >= PARTS * MiB);
        assert_int_equal(seg_acquire(s, 1, 1, &large), -ENOMEM);
        assert_int_equal(seg_close(s), -EBUSY);

        assert_int_equal(seg_release(s, part[3]), 0);
        assert_int_equal(seg_release(s, part[3]), -EINVAL);
        assert_int_equal(seg_release(s, part[7]), 0);
        assert_int_equal(seg_release(s, part[8]), 0);
        if (kind != SEG_ANON)
            assert_true(info_of(s).committed <= (PARTS - 3) * MiB);     /* the memory went back */
        assert_int_equal(seg_acquire(s, 3 * MiB, 3 * MiB, &large), -ENOMEM);
        assert_int_equal(seg_acquire(s, 1, 9 * MiB, &large), 0);        /* the longest run will do */
        assert_int_equal(large.size, 2 * MiB);
        assert_ptr_equal(large.base, part[7].base);
        assert_true(is_zero(large.base, large.size));
        for (int i = 0; i < PARTS; i++)
            if (i != 3 && i != 7 && i != 8)
                assert_int_equal(seg_release(s, part[i]), 0);
        assert_int_equal(seg_release(s, large), 0);
        assert_int_equal(seg_close(s), 0);
    }
}

static void bad_parts_are_refused(void **state)
{
    struct seg_request r = request_for(SEG_ANON, MiB);
    struct seg_segment *s = open_segment(&r);
    struct la_range part, none = { (void *)1, 1 };

    (void)state;
    assert_int_equal(seg_acquire(s, 0, MiB, &none), -EINVAL);
    assert_int_equal(seg_acquire(s, 2, 1, &none), -EINVAL);
    assert_int_equal(seg_acquire(s, MiB + 1, SIZE_MAX, &none), -ENOMEM);
    assert_int_equal(seg_acquire(s, SIZE_MAX, SIZE_MAX, &none), -ENOMEM);
    assert_ptr_equal(none.base, (void *)1);
    part = acquire(s, 8192);
    assert_int_equal(seg_release(s, (struct la_range){ part.base, 4096 }), -EINVAL);
    assert_int_equal(seg_release(s, (struct la_range){ (char *)part.base + 4096, 4096 }), -EINVAL);
    assert_int_equal(seg_release(s, (struct la_range){ part.base, 0 }), -EINVAL);
    assert_int_equal(seg_release(s, (struct la_range){ part.base, SIZE_MAX }), -EINVAL);
    assert_int_equal(seg_release(s, part), 0);
    assert_int_equal(seg_close(s), 0);
}

static void discarded_pages_read_as_zero_and_shared_ones_are_not_discarded(void **state)
{
    struct seg_request r = request_for(SEG_ANON, MiB);
    struct seg_segment *s = open_segment(&r);
    struct la_range part = acquire(s, 64 * KiB), middle = { (char *)part.base + 4096 * 4, 4096 * 4 };

    (void)state;
    memset(part.base, 1, part.size);
    assert_int_equal(seg_advise(s, middle, 77), -EINVAL);
    assert_int_equal(seg_advise(s, (struct la_range){ (char *)part.base + 1, 4096 }, SEG_DISCARD), -EINVAL);
    assert_int_equal(seg_advise(s, (struct la_range){ part.base, part.size + 4096 }, SEG_DISCARD), -EINVAL);
    assert_int_equal(seg_advise(s, middle, SEG_DISCARD), 0);
    assert_true(is_zero(middle.base, middle.size));
    assert_int_equal(((char *)middle.base)[-1], 1);
    assert_int_equal(((char *)middle.base)[middle.size], 1);
    assert_int_equal(seg_release(s, part), 0);
    assert_int_equal(seg_close(s), 0);

    r = request_for(SEG_MEMFD, MiB);
    s = open_segment(&r);
    part = acquire(s, MiB);
    memset(part.base, 1, part.size);
    assert_int_equal(seg_advise(s, part, SEG_DISCARD), -ENOTSUP);
    assert_int_equal(((char *)part.base)[0], 1);
    assert_in_range(seg_advise(s, part, SEG_POPULATE) + EPERM * 1000, EPERM * 1000 - ENOTSUP, EPERM * 1000);    /* 0, or an older kernel */
    assert_int_equal(seg_release(s, part), 0);
    assert_int_equal(seg_close(s), 0);
}

static void *acquire_write_release(void *arg)
{
    struct seg_segment *s = arg;
    struct la_range part;
    char mark = (char)(uintptr_t)&part;

    for (int i = 0; i < 300; i++) {
        assert_int_equal(seg_acquire(s, 4096, 4096 * (size_t)(1 + i % 7), &part), 0);
        memset(part.base, mark, part.size);
        for (size_t at = 0; at < part.size; at += 512)
            assert_int_equal(((char *)part.base)[at], mark);
        assert_int_equal(seg_release(s, part), 0);
    }
    return NULL;
}

static void threads_get_parts_of_their_own(void **state)
{
    struct seg_request r = request_for(SEG_MEMFD, MiB);
    struct seg_segment *s = open_segment(&r);
    pthread_t threads[4];

    (void)state;
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, acquire_write_release, s), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(info_of(s).acquired, 0);
    assert_int_equal(seg_close(s), 0);
}

/* ---- capabilities ---- */

static void missed_wish_is_told_and_missed_need_is_an_error(void **state)
{
    struct seg_request r = request_for(SEG_ANON, MiB);
    struct seg_segment *s;
    struct seg_info info;

    (void)state;
    r.preferred = SEG_SHARED | SEG_SEALED | SEG_PURGE;
    s = open_segment(&r);
    info = info_of(s);
    assert_int_equal(info.missed, SEG_SHARED | SEG_SEALED);
    assert_true(info.capabilities & SEG_PURGE);
    assert_non_null(strstr(info.reason, "shared: anonymous segments cannot; sealed"));
    assert_int_equal(seg_close(s), 0);
    r.required = SEG_SHARED;
    assert_refused(r, -ENOTSUP, "shared");
    r = request_for(SEG_POSIX_SHM, MiB);
    r.required = SEG_SEALED;
    assert_refused(r, -ENOTSUP, "sealed");
    r.required = 0;
    s = open_segment(&r);               /* the refused one has left no name behind */
    assert_int_equal(info_of(s).missed, 0);
    assert_string_equal(info_of(s).reason, "");
    assert_int_equal(seg_close(s), 0);
}

static size_t free_huge_pages(void)
{
    FILE *file = fopen("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "r");
    size_t n = 0;

    if (file && fscanf(file, "%zu", &n) != 1)
        n = 0;
    if (file)
        fclose(file);
    return n;
}

static void huge_pages_are_got_or_the_pool_is_named(void **state)
{
    (void)state;
    lock_pool();
    for (enum seg_kind kind = SEG_ANON; kind <= SEG_MEMFD; kind++) {
        size_t pages = free_huge_pages();
        struct seg_request r = request_for(kind, (pages + 1) * 2 * MiB);
        struct seg_segment *s;
        struct la_range part;

        r.required = SEG_HUGE;
        assert_refused(r, -ENOTSUP, "2 MiB pages");
        r.preferred = r.required;
        r.required = 0;
        s = open_segment(&r);
        assert_int_equal(info_of(s).missed & SEG_HUGE, SEG_HUGE);
        assert_non_null(strstr(info_of(s).reason, "needed"));
        assert_int_equal(seg_close(s), 0);
        if (pages == 0)
            continue;
        r.wanted_size = 2 * MiB;
        s = open_segment(&r);
        assert_int_equal(info_of(s).missed, 0);
        assert_int_equal(info_of(s).page_size, 2 * MiB);
        part = acquire(s, 1);
        assert_int_equal(part.size, 2 * MiB);
        memset(part.base, 1, part.size);
        assert_int_equal(seg_release(s, part), 0);
        assert_int_equal(seg_close(s), 0);
    }
}

static void fixed_address_is_claimed_and_given_back(void **state)
{
    uintptr_t base, next;
    size_t size;

    (void)state;
    assert_int_equal(la_vspace_arena(&base, &size), 0);
    for (enum seg_kind kind = SEG_ANON; kind <= SEG_POSIX_SHM; kind++) {
        struct seg_request r = request_for(kind, 3 * MiB);
        struct seg_segment *s;
        struct seg_info info;

        r.required = SEG_FIXED_ADDRESS;
        s = open_segment(&r);
        info = info_of(s);
        assert_true((uintptr_t)info.base >= base && (uintptr_t)info.base < base + size);
        assert_true(info.capabilities & SEG_FIXED_ADDRESS);
        assert_int_equal(la_vspace_verify(NULL, NULL), 0);
        assert_int_equal(seg_close(s), 0);
        /* Its name keeps a POSIX shm segment's claim, until it is removed. */
        if (kind == SEG_POSIX_SHM)
            assert_int_equal(seg_remove(name), 0);
        assert_int_equal(la_vspace_unclaim((uintptr_t)info.base), -ENOENT);
    }
    assert_int_equal(la_vspace_claim(1, "next", &next), 0);
}

static void fixed_address_without_a_registry_is_a_miss(void **state)
{
    struct seg_request r = request_for(SEG_MEMFD, MiB);
    struct seg_segment *s;

    (void)state;
    setenv("LIBALLOC_VSPACE_REGISTRY", "/nowhere/registry", 1);
    r.preferred = SEG_FIXED_ADDRESS;
    s = open_segment(&r);
    assert_int_equal(info_of(s).missed, SEG_FIXED_ADDRESS);
    assert_non_null(strstr(info_of(s).reason, "/nowhere/registry"));
    assert_int_equal(seg_close(s), 0);
    r.required = SEG_FIXED_ADDRESS;
    assert_refused(r, -ENOTSUP, "/nowhere/registry");
}

/* ---- memfd ---- */

static void assert_sealed(int fd, size_t size)
{
    assert_int_equal(ftruncate(fd, (off_t)size * 2), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(ftruncate(fd, 0), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(fallocate(fd, 0, (off_t)size, 4096), -1);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
    assert_int_equal(errno, EPERM);
}

static void memfd_is_sealed_before_anybody_sees_it(void **state)
{
    struct seg_request r = request_for(SEG_MEMFD, MiB);
    struct seg_segment *s;
    struct seg_info info;

    (void)state;
    r.required = SEG_SHARED | SEG_SEALED;
    s = open_segment(&r);
    info = info_of(s);
    assert_true(info.fd >= 0);
    assert_int_equal(fcntl(info.fd, F_GETFD), FD_CLOEXEC);
    assert_sealed(info.fd, MiB);
    assert_int_equal(info.committed, 0);        /* sparse */
    assert_int_equal(seg_close(s), 0);
    assert_int_equal(fcntl(info.fd, F_GETFD), -1);
}

/* A kernel before 6.3: memfd_create() does not know the flag 8. */
static bool forbid_noexec_seal(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_memfd_create, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 8, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { .len = ARRAY_SIZE(code), .filter = code };

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

static void open_on_older_kernel(void *arg)
{
    struct seg_request r = request_for(SEG_MEMFD, MiB);
    struct seg_info info = { .struct_size = sizeof(info) };
    struct seg_segment *s;

    (void)arg;
    if (!forbid_noexec_seal())
        _exit(CANNOT);
    CHECK(memfd_create("probe", 8) < 0 && errno == EINVAL);
    r.required = SEG_SEALED;
    CHECK(seg_open(&r, &s) == 0 && seg_info(s, &info) == 0);
    CHECK(ftruncate(info.fd, 2 * MiB) < 0 && errno == EPERM);
}

static void memfd_is_sealed_on_kernels_without_noexec_too(void **state)
{
    int status = run_in_child(open_on_older_kernel, NULL);

    (void)state;
    if (status == CANNOT)
        skip();
    assert_int_equal(status, 0);
}

/* Told by the maker to a process that shares nothing with it. */
struct offer {
    pid_t pid;
    int fd;
    void *base;
};

static int offers[2];

static void import_and_answer(void *arg)
{
    struct seg_request r = request_for(SEG_MEMFD, 0);
    struct seg_info info = { .struct_size = sizeof(info) };
    struct seg_segment *s;
    struct offer offer;
    char path[64];

    (void)arg;
    CHECK(read(offers[0], &offer, sizeof(offer)) == sizeof(offer));
    snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)offer.pid, offer.fd);
    r.fd = open(path, O_RDWR | O_CLOEXEC);
    CHECK(r.fd >= 0);
    r.flags = SEG_IMPORT;
    r.required = SEG_SHARED | SEG_SEALED | SEG_FIXED_ADDRESS;
    r.address = (uintptr_t)offer.base;
    CHECK(seg_open(&r, &s) == 0 && seg_info(s, &info) == 0);
    CHECK(info.base == offer.base && info.size == MiB && info.missed == 0);
    CHECK(fcntl(r.fd, F_GETFD) >= 0 && info.fd != r.fd);    /* the caller's stays his */
    CHECK(strcmp(info.base, "question") == 0);
    strcpy(info.base, "answer");
    CHECK(seg_close(s) == 0);
}

static void memfd_is_shared_by_its_descriptor_at_the_same_address(void **state)
{
    struct seg_request r = request_for(SEG_MEMFD, MiB);
    struct seg_segment *s;
    struct la_range part;
    struct offer offer = { .pid = getpid() };
    pid_t pid;

    (void)state;
    assert_int_equal(pipe2(offers, O_CLOEXEC), 0);
    pid = start_child(import_and_answer, NULL);     /* before the segment exists: nothing is inherited */
    r.required = SEG_FIXED_ADDRESS;
    s = open_segment(&r);
    part = acquire(s, 4096);
    strcpy(part.base, "question");
    offer.fd = info_of(s).fd;
    offer.base = info_of(s).base;
    assert_ptr_equal(part.base, offer.base);
    assert_int_equal(write(offers[1], &offer, sizeof(offer)), sizeof(offer));
    assert_int_equal(child_status(pid), 0);
    assert_string_equal(part.base, "answer");
    assert_int_equal(seg_release(s, part), 0);
    assert_int_equal(seg_close(s), 0);
    close(offers[0]);
    close(offers[1]);
}

static void import_of_something_else_is_refused(void **state)
{
    struct seg_request r = request_for(SEG_MEMFD, 0);
    int fd = memfd_create("empty", MFD_CLOEXEC);
    struct seg_segment *s;

    (void)state;
    r.flags = SEG_IMPORT;
    r.fd = 999;
    assert_refused(r, -EBADF, "999");
    r.fd = fd;
    assert_refused(r, -EINVAL, "0 bytes");
    assert_int_equal(ftruncate(fd, 5000), 0);
    assert_refused(r, -EINVAL, "5000 bytes");
    assert_int_equal(ftruncate(fd, 8192), 0);
    r.min_size = 16384;
    assert_refused(r, -ENOSPC, "8192 bytes");
    r.min_size = 0;
    r.required = SEG_SEALED;
    assert_refused(r, -ENOTSUP, "sealed");
    r.required = SEG_FIXED_ADDRESS;
    assert_refused(r, -ENOTSUP, "address");
    r.required = 0;
    r.preferred = SEG_SEALED;
    s = open_segment(&r);
    assert_int_equal(info_of(s).missed, SEG_SEALED);
    assert_int_equal(info_of(s).size, 8192);
    assert_int_equal(seg_close(s), 0);
    close(fd);
    r.fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    assert_refused(r, -EINVAL, "no segment");
    close(r.fd);
}

/* ---- POSIX shm ---- */

static void attach_and_answer(void *arg)
{
    struct seg_request r = request_for(SEG_POSIX_SHM, 0);
    struct seg_info info = { .struct_size = sizeof(info) };
    struct seg_segment *s;
    struct offer offer;

    (void)arg;
    CHECK(read(offers[0], &offer, sizeof(offer)) == sizeof(offer));
    r.flags = SEG_ATTACH;
    r.required = SEG_SHARED | SEG_NAMED | SEG_FIXED_ADDRESS;
    CHECK(seg_open(&r, &s) == 0 && seg_info(s, &info) == 0);
    CHECK(info.base == offer.base && info.size == MiB);
    CHECK(strcmp(info.base, "question") == 0);
    strcpy(info.base, "answer");
    CHECK(seg_close(s) == 0);
}

static void named_segment_is_found_at_the_same_address(void **state)
{
    struct seg_request r = request_for(SEG_POSIX_SHM, MiB);
    struct seg_segment *s;
    struct la_range part;
    struct offer offer = { 0 };
    pid_t pid;

    (void)state;
    assert_int_equal(pipe2(offers, O_CLOEXEC), 0);
    pid = start_child(attach_and_answer, NULL);
    r.required = SEG_FIXED_ADDRESS;
    s = open_segment(&r);
    part = acquire(s, 4096);
    strcpy(part.base, "question");
    offer.base = info_of(s).base;
    assert_int_equal(write(offers[1], &offer, sizeof(offer)), sizeof(offer));
    assert_int_equal(child_status(pid), 0);
    assert_string_equal(part.base, "answer");
    assert_int_equal(seg_release(s, part), 0);
    assert_int_equal(seg_close(s), 0);
    close(offers[0]);
    close(offers[1]);
}

static void names_are_made_once_and_end_by_remove(void **state)
{
    struct seg_request create = request_for(SEG_POSIX_SHM, MiB), attach = create, either = create;
    struct seg_segment *s, *other;
    int fd;

    (void)state;
    attach.flags = SEG_ATTACH;
    either.flags = SEG_CREATE | SEG_ATTACH;
    assert_refused(attach, -ENOENT, "SEG_CREATE");
    s = open_segment(&create);
    assert_refused(create, -EEXIST, "exists");
    other = open_segment(&attach);
    assert_int_equal(seg_close(other), 0);
    attach.min_size = 2 * MiB;
    assert_refused(attach, -ENOSPC, "asked for");
    attach.min_size = 0;
    attach.required = SEG_FIXED_ADDRESS;
    assert_refused(attach, -ENOTSUP, "made without one");
    attach.required = 0;
    assert_int_equal(seg_close(s), 0);
    other = open_segment(&attach);          /* the name outlives its maker */
    fd = shm_open(name, O_RDWR, 0);         /* and is what shm_open() finds */
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(seg_remove(name), 0);
    assert_int_equal(seg_remove(name), -ENOENT);
    assert_true(info_of(other).size == MiB);
    assert_int_equal(seg_close(other), 0);
    s = open_segment(&either);
    other = open_segment(&either);
    assert_int_equal(seg_close(s), 0);
    assert_int_equal(seg_close(other), 0);
}

static void strange_files_in_dev_shm_are_not_attached(void **state)
{
    struct seg_request r = request_for(SEG_POSIX_SHM, 0);
    char path[80];
    int fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);

    (void)state;
    assert_true(fd >= 0);
    r.flags = SEG_ATTACH;
    assert_refused(r, -EINVAL, "0 bytes");
    assert_int_equal(ftruncate(fd, 4096), 0);
    if (geteuid() == 0) {
        assert_int_equal(fchown(fd, 1, 1), 0);
        assert_refused(r, -EACCES, "another user");
        assert_int_equal(seg_remove(name), -EACCES);
        assert_int_equal(fchown(fd, 0, 0), 0);
    }
    close(fd);
    assert_int_equal(seg_remove(name), 0);
    snprintf(path, sizeof(path), "/dev/shm/%s", name);
    assert_int_equal(symlink("/etc/passwd", path), 0);
    assert_refused(r, -ELOOP, name);
    unlink(path);
}

static void open_either(void *arg)
{
    struct seg_request r = request_for(SEG_POSIX_SHM, MiB);
    struct seg_info info = { .struct_size = sizeof(info) };
    struct seg_segment *s;

    r.flags = SEG_CREATE | SEG_ATTACH;
    CHECK(seg_open(&r, &s) == 0 && seg_info(s, &info) == 0);
    CHECK(__atomic_fetch_add((int *)arg, 1, __ATOMIC_RELAXED) >= 0);
    CHECK(fallocate(info.fd, 0, 0, 4096) == 0);
    __atomic_fetch_add((int *)info.base, 1, __ATOMIC_RELAXED);
}

static void all_who_open_one_name_at_once_get_one_segment(void **state)
{
    enum { CROWD = 12 };
    int *opened = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct seg_request r = request_for(SEG_POSIX_SHM, 0);
    struct seg_segment *s;
    pid_t pid[CROWD];

    (void)state;
    for (int i = 0; i < CROWD; i++)
        pid[i] = start_child(open_either, opened);
    for (int i = 0; i < CROWD; i++)
        assert_int_equal(child_status(pid[i]), 0);
    r.flags = SEG_ATTACH;
    s = open_segment(&r);
    assert_int_equal(*opened, CROWD);
    assert_int_equal(*(int *)info_of(s).base, CROWD);
    assert_int_equal(seg_close(s), 0);
    munmap(opened, 4096);
}

/* ---- huge pages, on a pool of this test's own ---- */

static void use_and_exhaust_pool(void *arg)
{
    struct seg_segment *refused = NULL;
    enum seg_kind kind = *(enum seg_kind *)arg;
    struct seg_request r = request_for(kind, 4 * MiB), more;
    size_t pages = (size_t)pool_number("free_hugepages") - (size_t)pool_number("resv_hugepages");
    struct seg_info info = { .struct_size = sizeof(info) };
    struct seg_segment *s, *rest;
    struct la_range part, none;

    CHECK(pages >= 4);
    r.required = SEG_HUGE | SEG_THP;
    CHECK(seg_open(&r, &refused) == -ENOTSUP && !refused && strstr(la_last_error(), "not together"));
    r.required = SEG_HUGE;
    CHECK(seg_open(&r, &s) == 0 && seg_acquire(s, 4 * MiB, 4 * MiB, &part) == 0);
    CHECK(seg_info(s, &info) == 0 && info.page_size == 2 * MiB && info.capabilities & SEG_HUGE);
    memset(part.base, 1, part.size);
    CHECK(pool_number("free_hugepages") == (long)pages - 2);

    /* All that is left, in a second one; then nothing is, which is told before any touch. */
    more = request_for(kind, (pages - 2) * 2 * MiB);
    more.required = SEG_HUGE;
    CHECK(seg_open(&more, &rest) == 0 && seg_acquire(rest, 1, more.wanted_size, &none) == 0);
    memset(none.base, 1, none.size);
    CHECK(seg_open(&r, &(struct seg_segment *){ NULL }) == -ENOTSUP);
    CHECK(strstr(la_last_error(), "2 MiB pages: 0 of"));
    CHECK(seg_release(rest, none) == 0 && seg_close(rest) == 0);

    /* Taken by somebody else between opening and committing. */
    CHECK(seg_open(&r, &rest) == 0);
    more = request_for(SEG_MEMFD, (pages - 2) * 2 * MiB);
    more.preferred = SEG_HUGE;
    if (kind == SEG_MEMFD) {
        struct seg_segment *thief;
        struct la_range last;

        CHECK(seg_open(&more, &thief) == 0 && seg_acquire(thief, 2 * MiB, 2 * MiB, &last) == 0);
        CHECK(seg_acquire(thief, more.wanted_size - 2 * MiB, more.wanted_size - 2 * MiB, &none) == 0);
        CHECK(seg_acquire(rest, 2 * MiB, 4 * MiB, &none) == -ENOSPC);
        CHECK(strstr(la_last_error(), "pool of huge pages is empty"));
        /* One is left for two: it stays in the pool. */
        CHECK(seg_release(thief, last) == 0);
        CHECK(seg_acquire(rest, 4 * MiB, 4 * MiB, &none) == -ENOSPC);
        CHECK(pool_number("free_hugepages") == 1);
    }
}

static void huge_pages_end_in_an_error_and_no_sigbus(void **state)
{
    (void)state;
    for (enum seg_kind kind = SEG_ANON; kind <= SEG_MEMFD; kind++) {
        int status = with_pool(4, use_and_exhaust_pool, &kind);

        if (status == CANNOT) {
            print_message("the pool of huge pages cannot be changed here (needs root and free memory)\n");
            skip();
        }
        assert_int_equal(status, 0);
    }
}

static void list_falls_back(void *arg)
{
    struct seg_supply_config config = { .struct_size = sizeof(config), .list = "hugetlb:2M,memfd:2M,anon" };
    struct seg_supply_info info = { .struct_size = sizeof(info) };
    struct seg_supply *supply;
    struct la_range range[3];
    size_t pages = (size_t)pool_number("free_hugepages") - (size_t)pool_number("resv_hugepages");

    (void)arg;
    CHECK(seg_supply_create(&config, &supply) == 0);
    CHECK(seg_supply_acquire(supply, 1, pages * 2 * MiB, &range[0]) == 0);
    CHECK(seg_supply_info(supply, &info) == 0 && strcmp(info.source, "hugetlb") == 0 && !info.reason[0]);
    memset(range[0].base, 1, range[0].size);
    CHECK(seg_supply_acquire(supply, MiB, MiB, &range[1]) == 0);
    CHECK(seg_supply_info(supply, &info) == 0 && strcmp(info.source, "anon") == 0);
    CHECK(strstr(info.reason, "hugetlb: 2 MiB pages: 0 of") && strstr(info.reason, "memfd: 2 MiB pages: 0 of"));
    memset(range[1].base, 1, range[1].size);
    CHECK(seg_supply_release(supply, range[0]) == 0);
    CHECK(seg_supply_acquire(supply, MiB, MiB, &range[2]) == 0);            /* the pool has some again */
    CHECK(seg_supply_info(supply, &info) == 0 && strcmp(info.source, "hugetlb") == 0);
    CHECK(range[2].size == 2 * MiB);
    CHECK(seg_supply_release(supply, range[1]) == 0 && seg_supply_release(supply, range[2]) == 0);
    CHECK(seg_supply_destroy(supply) == 0);
}

static void list_goes_on_where_the_pool_ends(void **state)
{
    int status = with_pool(4, list_falls_back, NULL);

    (void)state;
    if (status == CANNOT) {
        print_message("the pool of huge pages cannot be changed here (needs root and free memory)\n");
        skip();
    }
    assert_int_equal(status, 0);
}

/* ---- files by path ---- */

static void file_keeps_its_content(void **state)
{
    char path[64];
    struct seg_request r = request_for(SEG_FILE, 4 * MiB);
    struct seg_segment *s;
    struct la_range part;

    (void)state;
    snprintf(path, sizeof(path), "/tmp/segment-test-file-%d", (int)getpid());
    assert_refused(r, -EINVAL, "path");
    r.path = path;
    assert_refused(r, -EINVAL, "SEG_ATTACH");
    r.flags = SEG_ATTACH;
    assert_refused(r, -ENOENT, "SEG_CREATE");
    r.flags = SEG_CREATE;
    r.required = SEG_HUGE;
    assert_refused(r, -ENOTSUP, "hugetlbfs");
    assert_int_equal(access(path, F_OK), -1);       /* nothing is left of what failed */
    r.required = SEG_DAX;
    if (!EMULATED)      /* qemu-user takes MAP_SYNC for granted */
        assert_refused(r, -ENOTSUP, "DAX");
    assert_int_equal(access(path, F_OK), -1);
    r.required = SEG_SHARED | SEG_NAMED;
    r.preferred = SEG_DAX;
    s = open_segment(&r);
    assert_true(EMULATED || info_of(s).missed == SEG_DAX);
    part = acquire(s, MiB);
    strcpy(part.base, "kept");
    assert_refused(r, -EEXIST, path);
    assert_int_equal(seg_release(s, (struct la_range){ part.base, 4096 }), -EINVAL);
    r.flags = SEG_ATTACH;
    {
        struct seg_segment *other = open_segment(&r);

        assert_int_equal(info_of(other).size, 4 * MiB);
        assert_string_equal(info_of(other).base, "kept");
        assert_int_equal(seg_close(other), 0);
    }
    r.min_size = 8 * MiB;
    r.wanted_size = 0;
    assert_refused(r, -ENOSPC, "asked for");
    assert_int_equal(seg_release(s, part), 0);
    assert_int_equal(seg_close(s), 0);
    assert_int_equal(unlink(path), 0);
}

/* A hugetlbfs of 4 MiB, for this process alone. */
static void fill_hugetlbfs(void *arg)
{
    char folder[64], path[96];
    struct seg_request r = request_for(SEG_FILE, 16 * MiB);
    struct seg_segment *s;
    struct la_range part, none;

    (void)arg;
    snprintf(folder, sizeof(folder), "/tmp/segment-test-huge-%d", (int)getpid());
    snprintf(path, sizeof(path), "%s/file", folder);
    CHECK(mkdir(folder, 0700) == 0);
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", folder, "hugetlbfs", 0, "size=4M,pagesize=2M") < 0) {
        rmdir(folder);
        _exit(CANNOT);
    }
    r.path = path;
    r.flags = SEG_CREATE;
    r.required = SEG_HUGE;
    CHECK(seg_open(&r, &s) == 0);
    CHECK(seg_acquire(s, 4 * MiB, 4 * MiB, &part) == 0 && part.size == 4 * MiB);
    memset(part.base, 1, part.size);
    CHECK(seg_acquire(s, 1, 1, &none) == -ENOSPC);          /* the mount is full, the pool is not */
    CHECK(seg_release(s, part) == 0 && seg_close(s) == 0);
    CHECK(unlink(path) == 0 && umount(folder) == 0 && rmdir(folder) == 0);
}

static void full_hugetlbfs_is_an_error_and_no_sigbus(void **state)
{
    int status = with_pool(4, fill_hugetlbfs, NULL);

    (void)state;
    if (status == CANNOT) {
        print_message("hugetlbfs cannot be mounted, or its pool cannot be changed here (needs root)\n");
        skip();
    }
    assert_int_equal(status, 0);
}

/* ---- NUMA: one node is enough to see that requests reach the kernel; tests with several run in the guest ---- */

static int policy_of(const void *address, unsigned long *nodes)
{
    int mode = -1;

    *nodes = 0;
    return syscall(SYS_get_mempolicy, &mode, nodes, 64, address, MPOL_F_ADDR) < 0 ? -1 : mode;
}

static void pages_are_placed_as_asked(void **state)
{
    static const struct { enum seg_numa_mode mode; int policy; } modes[] = {
        { SEG_NUMA_BIND, MPOL_BIND }, { SEG_NUMA_PREFER, MPOL_PREFERRED }, { SEG_NUMA_INTERLEAVE, MPOL_INTERLEAVE },
    };
    unsigned long nodes = 0;

    (void)state;
    if (policy_of(&nodes, &nodes) < 0) {
        print_message("this kernel or sandbox has no get_mempolicy()\n");
        skip();
    }
    for (enum seg_kind kind = SEG_ANON; kind <= SEG_POSIX_SHM; kind++)
        for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
            struct seg_request r = request_for(kind, MiB);
            struct seg_segment *s;
            struct la_range part;

            r.required = SEG_PLACED;
            r.numa = (struct seg_numa){ modes[i].mode, 1 };
            s = open_segment(&r);
            part = acquire(s, MiB);
            memset(part.base, 1, part.size);
            assert_true(info_of(s).capabilities & SEG_PLACED);
            assert_int_equal(policy_of(part.base, &nodes), modes[i].policy);
            assert_int_equal(nodes, 1);
            assert_int_equal(seg_release(s, part), 0);
            assert_int_equal(seg_close(s), 0);
            if (kind == SEG_POSIX_SHM)
                assert_int_equal(seg_remove(name), 0);
        }
}

static void wrong_nodes_are_named(void **state)
{
    struct seg_request r = request_for(SEG_POSIX_SHM, MiB);
    struct seg_segment *s;

    (void)state;
    r.required = SEG_PLACED;
    assert_refused(r, -EINVAL, "mode");
    r.numa.mode = SEG_NUMA_BIND;
    assert_refused(r, -EINVAL, "needs nodes");
    r.numa = (struct seg_numa){ SEG_NUMA_LOCAL, 1 };
    assert_refused(r, -EINVAL, "takes no nodes");
    r.numa = (struct seg_numa){ 77, 1 };
    assert_refused(r, -EINVAL, "mode 77");
    r.numa = (struct seg_numa){ SEG_NUMA_BIND, 1ull << 62 };
    assert_refused(r, -ENOTSUP, "NUMA placement: bind on nodes 0x4000000000000000");
    r.required = 0;
    s = open_segment(&r);               /* a wish; and the refused ones have left no name behind */
    assert_int_equal(info_of(s).missed, SEG_PLACED);
    assert_int_equal(seg_close(s), 0);
}

/* ---- no memory ---- */

/* A /dev/shm of 8 MiB, for this process alone. */
static bool small_dev_shm(void)
{
    if (unshare(CLONE_NEWNS) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
        return false;
    return mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 && mount("tmpfs", "/dev/shm", "tmpfs", 0, "size=8m") == 0;
}

static void fill_dev_shm(void *arg)
{
    struct seg_request r = request_for(SEG_POSIX_SHM, 64 * MiB);
    struct la_range first, second, none;
    struct la_source *source;
    struct la_chain *chain;
    struct seg_segment *s;
    unsigned blocks = 0;
    char *p;

    (void)arg;
    if (!small_dev_shm())
        _exit(CANNOT);
    CHECK(seg_open(&r, &s) == 0);       /* sparse: address space is free */
    CHECK(seg_acquire(s, 5 * MiB, 5 * MiB, &first) == 0);
    CHECK(seg_acquire(s, 5 * MiB, 5 * MiB, &none) == -ENOSPC);
    CHECK(strstr(la_last_error(), "full"));
    CHECK(seg_acquire(s, MiB, 60 * MiB - 5 * MiB, &second) == 0 && second.size == MiB);     /* the least will do */
    memset(first.base, 1, first.size);
    memset(second.base, 1, second.size);
    CHECK(seg_release(s, first) == 0 && seg_release(s, second) == 0);
    CHECK(seg_acquire(s, 7 * MiB, 7 * MiB, &first) == 0);
    CHECK(seg_release(s, first) == 0);

    /* A chain runs into the same wall: NULL. Every block is written, so that a missing page would kill us. */
    CHECK(seg_source_create(s, &source) == 0 && la_chain_create(source, 0, &chain) == 0);
    while ((p = la_chain_alloc(chain, 10000))) {
        memset(p, 1, 10000);
        blocks++;
    }
    CHECK(blocks > 200 && blocks < 839);
    CHECK(la_chain_destroy(chain) == 0 && la_source_destroy(source) == 0 && seg_close(s) == 0);
}

static void full_dev_shm_is_an_error_and_no_sigbus(void **state)
{
    int status = run_in_child(fill_dev_shm, NULL);

    (void)state;
    if (status == CANNOT)
        skip();
    assert_int_equal(status, 0);
}

static void more_than_the_machine_has_is_refused_before_it_is_filled(void **state)
{
    size_t left = os_headroom();
    struct seg_request r = request_for(SEG_MEMFD, 2 * left);
    struct seg_segment *s;
    struct la_range none;

    (void)state;
    if (left == SIZE_MAX)
        skip();     /* no /proc/meminfo */
    s = open_segment(&r);
    assert_int_equal(seg_acquire(s, left + left / 2, 2 * left, &none), -ENOSPC);
    assert_non_null(strstr(la_last_error(), "more than the machine"));
    assert_int_equal(info_of(s).committed, 0);
    assert_int_equal(seg_close(s), 0);
}

static void open_with_few_addresses(void *arg)
{
    struct seg_request r = request_for(SEG_MEMFD, GiB);
    struct seg_info info = { .struct_size = sizeof(info) };
    struct seg_segment *s;

    (void)arg;
    limit_address_space(300 * MiB);
    r.min_size = 100 * MiB;
    CHECK(seg_open(&r, &s) == 0 && seg_info(s, &info) == 0);
    CHECK(info.size >= 100 * MiB && info.size < 300 * MiB);
    r.min_size = GiB;
    CHECK(seg_open(&r, &s) == -ENOMEM);
    CHECK(strstr(la_last_error(), "addresses"));
}

static void segment_is_smaller_than_wanted_when_addresses_are_short(void **state)
{
    int status = SANITIZED ? CANNOT : run_in_child(open_with_few_addresses, NULL);

    (void)state;
    if (status == CANNOT)
        skip();
    assert_int_equal(status, 0);
}

/* ---- chains ---- */

static void chains_allocate_inside_every_kind(void **state)
{
    static char buffer[16 << 20];

    (void)state;
    for (enum seg_kind kind = SEG_ANON; kind <= SEG_USER; kind++) {
        struct seg_request r = request_for(kind, sizeof(buffer) - 13);
        struct la_source *source;
        struct la_chain *chain;
        struct seg_segment *s;
        struct seg_info info;
        unsigned blocks = 0;
        char *p, *last = NULL;

        r.buffer = kind == SEG_USER ? buffer + 13 : NULL;
        s = open_segment(&r);
        info = info_of(s);
        assert_int_equal(seg_source_create(s, &source), 0);
        assert_int_equal(la_chain_create(source, 0, &chain), 0);
        while ((p = la_chain_alloc(chain, 1000))) {
            assert_true(p >= (char *)info.base && p + 1000 <= (char *)info.base + info.size);
            memset(p, 7, 1000);
            last = p;
            blocks++;
        }
        assert_in_range(blocks, 5000, 16777);
        la_free(last);
        assert_ptr_equal(la_chain_alloc(chain, 1000), last);
        assert_true(info_of(s).acquired > 0);
        assert_int_equal(seg_close(s), -EBUSY);
        assert_int_equal(la_chain_destroy(chain), 0);
        assert_int_equal(la_source_destroy(source), 0);
        assert_int_equal(info_of(s).acquired, 0);
        assert_int_equal(seg_close(s), 0);
    }
    assert_int_equal(seg_source_create(NULL, NULL), -EINVAL);
}

static void user_buffer_is_used_and_nothing_beside_it(void **state)
{
    static char memory[3 * 4096];
    struct seg_request r = request_for(SEG_USER, 4096);
    struct seg_segment *s;
    struct la_range part;

    (void)state;
    memset(memory, 'x', sizeof(memory));
    r.buffer = memory + 4096 + 3;
    s = open_segment(&r);
    assert_int_equal(seg_acquire(s, 1, 4096, &part), 0);
    assert_true((char *)part.base >= memory + 4096 + 3 && (char *)part.base + part.size <= memory + 2 * 4096 + 3);
    assert_true(part.size >= 4096 - 128);
    memset(part.base, 'y', part.size);
    assert_int_equal(seg_release(s, part), 0);
    assert_int_equal(memory[4096 + 2], 'x');
    assert_int_equal(memory[2 * 4096 + 3], 'x');
    assert_int_equal(((char *)part.base)[0], 'y');      /* the content is the caller's */
    assert_int_equal(seg_close(s), 0);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bad_requests_are_refused_with_a_reason),
        TEST(parts_are_apart_and_inside_and_come_back),
        TEST(bad_parts_are_refused),
        TEST(discarded_pages_read_as_zero_and_shared_ones_are_not_discarded),
        TEST(threads_get_parts_of_their_own),
        TEST(missed_wish_is_told_and_missed_need_is_an_error),
        TEST(huge_pages_are_got_or_the_pool_is_named),
        TEST(fixed_address_is_claimed_and_given_back),
        TEST(fixed_address_without_a_registry_is_a_miss),
        TEST(memfd_is_sealed_before_anybody_sees_it),
        TEST(memfd_is_sealed_on_kernels_without_noexec_too),
        TEST(memfd_is_shared_by_its_descriptor_at_the_same_address),
        TEST(import_of_something_else_is_refused),
        TEST(named_segment_is_found_at_the_same_address),
        TEST(names_are_made_once_and_end_by_remove),
        TEST(strange_files_in_dev_shm_are_not_attached),
        TEST(all_who_open_one_name_at_once_get_one_segment),
        TEST(huge_pages_end_in_an_error_and_no_sigbus),
        TEST(list_goes_on_where_the_pool_ends),
        TEST(file_keeps_its_content),
        TEST(full_hugetlbfs_is_an_error_and_no_sigbus),
        TEST(pages_are_placed_as_asked),
        TEST(wrong_nodes_are_named),
        TEST(full_dev_shm_is_an_error_and_no_sigbus),
        TEST(more_than_the_machine_has_is_refused_before_it_is_filled),
        TEST(segment_is_smaller_than_wanted_when_addresses_are_short),
        TEST(chains_allocate_inside_every_kind),
        TEST(user_buffer_is_used_and_nothing_beside_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
