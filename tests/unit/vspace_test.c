/*
 * vspace_test.c - mappings land where they are told, hit nobody, and nobody takes the place meanwhile.
 *
 * Each test runs in a forked child: the arena of a process is reserved once and for all.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <liballoc/chain.h>

#include "base/util.h"
#include "os/maps.h"
#include "os/vspace.h"

#include "child.h"

enum { SIZE = 2 << 20 };

static uintptr_t base;      /* of the arena that this build uses */
static size_t arena_size;

/* A place in the middle of the arena, @n granules apart. */
static uintptr_t place(unsigned n)
{
    return base + arena_size / 2 + n * LA_VSPACE_GRANULE;
}

static int make_file(size_t size)
{
    int fd = memfd_create("vspace-test", MFD_CLOEXEC);

    CHECK(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
    return fd;
}

static int map_anonymous(uintptr_t address, size_t size)
{
    return la_mmap(address, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

/* A stranger's mapping, by the kernel's own call: sanitizers would refuse it. */
static void *map_raw(uintptr_t address, size_t size, int flags, int fd)
{
    long p = syscall(SYS_mmap, address, size, PROT_READ, flags, fd, 0L);

    return p == -1 ? MAP_FAILED : (void *)p;
}

static bool is_reservation(uintptr_t address)
{
    struct maps_entry entry;

    return maps_find(address, address + 1, &entry) == 1 && strncmp(entry.perms, "---", 3) == 0 && entry.inode == 0;
}

/* Emulators do not honour MAP_FIXED_NOREPLACE: the arena is lazy there (I3). */
static bool can_reserve(void)
{
    uintptr_t page = (uintptr_t)mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return map_raw(page, 4096, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1) == MAP_FAILED;
}

struct findings {
    unsigned count;
    char text[1024];
};

static void collect(void *user, const char *line)
{
    struct findings *f = user;

    f->count++;
    strncat(f->text, line, sizeof(f->text) - strlen(f->text) - 2);
    strcat(f->text, "\n");
}

/* ---- the plain way ---- */

static void two_mappings_share_a_file(void *arg)
{
    int fd = make_file(SIZE);
    char *first = (char *)place(0), *second = (char *)place(5);

    (void)arg;
    CHECK(la_mmap(place(0), SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == 0);
    CHECK(la_mmap(place(5), SIZE / 2, PROT_READ, MAP_SHARED, fd, SIZE / 2) == 0);
    strcpy(first + SIZE / 2, "seen");
    CHECK(strcmp(second, "seen") == 0);
    CHECK(la_vspace_verify(NULL, NULL) == 0);
    CHECK(la_munmap(place(0), SIZE) == 0);
    CHECK(strcmp(second, "seen") == 0);
    CHECK(la_munmap(place(5), SIZE / 2) == 0);
    CHECK(la_vspace_verify(NULL, NULL) == 0);
}

static void file_is_mapped_at_the_address_asked_for(void **state)
{
    (void)state;
    assert_int_equal(run_in_child(two_mappings_share_a_file, NULL), 0);
}

static bool dontdump(uintptr_t address)
{
    FILE *file = fopen("/proc/self/smaps", "r");
    char line[512];
    unsigned long start, end;
    bool here = false, found = false;

    while (file && fgets(line, sizeof(line), file)) {
        if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
            here = address >= start && address < end;
        else if (here && strncmp(line, "VmFlags:", 8) == 0)
            found = strstr(line, " dd") != NULL;
    }
    fclose(file);
    return found;
}

static void reserve_and_look(void *arg)
{
    struct maps_entry entry;

    (void)arg;
    CHECK(maps_find(base, base + arena_size, &entry) == 0);     /* nothing before the first use */
    CHECK(map_anonymous(place(0), SIZE) == 0);
    if (!can_reserve())
        return;
    CHECK(is_reservation(base) && is_reservation(base + arena_size - 1));
    CHECK(is_reservation(place(0) - 1) && is_reservation(place(0) + SIZE));
    CHECK(dontdump(base) && dontdump(place(0) + SIZE) && !dontdump(place(0)));
    CHECK(la_munmap(place(0), SIZE) == 0);
    CHECK(is_reservation(place(0)) && dontdump(place(0)));
    /* Nobody else gets an address there without force. */
    CHECK(map_raw(place(0), 4096, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1) == MAP_FAILED && errno == EEXIST);
}

static void arena_is_reserved_around_mappings_and_left_out_of_core_dumps(void **state)
{
    (void)state;
    assert_int_equal(run_in_child(reserve_and_look, NULL), 0);
}

static void map_twice(void *arg)
{
    char *p = (char *)place(0);

    (void)arg;
    CHECK(map_anonymous(place(0), SIZE) == 0);
    strcpy(p, "precious");
    CHECK(map_anonymous(place(0), SIZE) == -EEXIST);
    CHECK(strstr(la_last_error(), "already"));
    CHECK(map_anonymous(place(0) + SIZE / 2, SIZE) == -EEXIST);
    CHECK(map_anonymous(place(0) - SIZE, 4 * SIZE) == -EEXIST);
    CHECK(strcmp(p, "precious") == 0);
    CHECK(map_anonymous(place(1), SIZE) == 0);      /* touching is not overlapping */
    CHECK(la_munmap(place(0), SIZE) == 0);
    CHECK(map_anonymous(place(0), SIZE) == 0);
    CHECK(p[0] == 0);
}

static void second_mapping_over_a_live_one_is_refused(void **state)
{
    (void)state;
    assert_int_equal(run_in_child(map_twice, NULL), 0);
}

static void map_nonsense(void *arg)
{
    (void)arg;
    CHECK(map_anonymous(place(0), 0) == -EINVAL);
    CHECK(map_anonymous(place(0) + 1, SIZE) == -EINVAL);
    CHECK(map_anonymous(place(0), SIZE + 1) == -EINVAL);
    CHECK(map_anonymous(place(0), SIZE_MAX & ~(size_t)0xffff) == -EINVAL);
    CHECK(map_anonymous(base - SIZE, 2 * SIZE) == -EINVAL);
    CHECK(map_anonymous(base + arena_size - SIZE, 2 * SIZE) == -EINVAL);
    CHECK(map_anonymous(0x10000, SIZE) == -EINVAL);
    CHECK(strstr(la_last_error(), "arena"));
    CHECK(la_munmap(place(0), SIZE) == -EINVAL);
    CHECK(map_anonymous(place(0), SIZE) == 0);
    CHECK(la_munmap(place(0), SIZE / 2) == -EINVAL);
    CHECK(la_munmap(place(0) + SIZE / 2, SIZE / 2) == -EINVAL);
    CHECK(la_munmap(place(0), SIZE) == 0);
    CHECK(la_munmap(place(0), SIZE) == -EINVAL);
}

static void ranges_outside_the_arena_or_unknown_are_refused(void **state)
{
    (void)state;
    assert_int_equal(run_in_child(map_nonsense, NULL), 0);
}

static void map_closed_file(void *arg)
{
    (void)arg;
    CHECK(la_mmap(place(0), SIZE, PROT_READ, MAP_SHARED, 999, 0) == -EBADF);
    CHECK(la_last_error_code() == -EBADF);
    CHECK(la_vspace_verify(NULL, NULL) == 0);
    CHECK(!can_reserve() || is_reservation(place(0)));
    CHECK(map_anonymous(place(0), SIZE) == 0);
}

static void failed_mapping_leaves_the_reservation_whole(void **state)
{
    (void)state;
    assert_int_equal(run_in_child(map_closed_file, NULL), 0);
}

static void map_a_thousand(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < 1000; i++)
        CHECK(map_anonymous(place(i * 37 % 1000 * 2), 4096) == 0);
    CHECK(la_vspace_verify(NULL, NULL) == 0);
    for (unsigned i = 0; i < 1000; i++)
        CHECK(la_munmap(place(i * 2), 4096) == 0);
}

static void a_thousand_mappings_are_kept_apart(void **state)
{
    (void)state;
    assert_int_equal(run_in_child(map_a_thousand, NULL), 0);
}

/* ---- strangers ---- */

static void occupy_before(void *arg)
{
    int fd = make_file(4096);
    uintptr_t there = base + arena_size / 4;
    char range[32];

    (void)arg;
    CHECK(map_raw(there, 4096, MAP_SHARED | MAP_FIXED_NOREPLACE, fd) == (void *)there);
    snprintf(range, sizeof(range), "0x%lx", there);
    if (can_reserve()) {
        CHECK(map_anonymous(place(0), SIZE) == -EEXIST);
        CHECK(strstr(la_last_error(), range));
        CHECK(strstr(la_last_error(), "/memfd:vspace-test"));
        CHECK(strstr(la_last_error(), "r--s"));
    }
    CHECK(map_anonymous(there, SIZE) == -EEXIST);
    CHECK(strstr(la_last_error(), "/memfd:vspace-test"));
    munmap((void *)there, 4096);
    CHECK(map_anonymous(place(0), SIZE) == 0);      /* tried anew each time */
}

static void occupied_arena_is_refused_and_the_mapping_there_is_named(void **state)
{
    (void)state;
    assert_int_equal(run_in_child(occupy_before, NULL), 0);
}

static void intrude(void *arg)
{
    struct findings f = { 0 };
    int fd = make_file(SIZE), ours = make_file(SIZE);

    (void)arg;
    CHECK(la_mmap(place(0), SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, ours, 0) == 0);
    if (!can_reserve())
        return;
    CHECK(la_vspace_verify(collect, &f) == 0 && f.count == 0);

    /* Over the reservation: named, and not overwritten by us. */
    CHECK(map_raw(place(4), 4096, MAP_SHARED | MAP_FIXED, fd) != MAP_FAILED);
    CHECK(la_vspace_verify(collect, &f) == 1 && f.count == 1);
    CHECK(strstr(f.text, "/memfd:vspace-test") && strstr(f.text, "r--s") && strstr(f.text, "over the reservation"));
    CHECK(map_anonymous(place(4), SIZE) == -EEXIST);
    CHECK(strstr(la_last_error(), "/memfd:vspace-test"));
    CHECK(*(char *)place(4) == 0);

    /* Over a mapping of ours: told by its inode. */
    CHECK(map_raw(place(0) + 8192, 4096, MAP_SHARED | MAP_FIXED, fd) != MAP_FAILED);
    CHECK(la_vspace_verify(collect, &f) == 2);
    CHECK(strstr(f.text, "over a mapping of la_mmap()"));

    /* A hole in either. */
    CHECK(munmap((void *)place(4), 4096) == 0);
    CHECK(munmap((void *)(place(0) + 8192), 4096) == 0);
    f = (struct findings){ 0 };
    CHECK(la_vspace_verify(collect, &f) == 2);
    CHECK(strstr(f.text, "is open") && strstr(f.text, "without la_munmap()"));
    CHECK(la_munmap(place(0), SIZE) == 0);
    CHECK(map_anonymous(place(4), SIZE) == 0);
    CHECK(la_munmap(place(4), SIZE) == 0);
    CHECK(la_vspace_verify(NULL, NULL) == 0);
}

static void intruders_and_holes_are_found_and_not_overwritten(void **state)
{
    (void)state;
    assert_int_equal(run_in_child(intrude, NULL), 0);
}

/* ---- limits ---- */

static void map_under_limit(void *arg)
{
    int fd = make_file(SIZE);
    uintptr_t there = place(8);

    (void)arg;
    limit_address_space(256 * MiB);
    CHECK(map_anonymous(place(0), SIZE) == 0);
    *(char *)place(0) = 1;
    CHECK(map_anonymous(place(0), SIZE) == -EEXIST);
    CHECK(map_anonymous(place(16), 1024 * MiB) == -ENOMEM);
    CHECK(strstr(la_last_error(), "RLIMIT_AS"));
    CHECK(la_vspace_verify(NULL, NULL) == 0);
    /* Not reserved, so a stranger can be there: refused by name, not replaced. */
    CHECK(map_raw(there, 4096, MAP_SHARED | MAP_FIXED_NOREPLACE, fd) == (void *)there);
    CHECK(map_anonymous(there, SIZE) == -EEXIST);
    CHECK(strstr(la_last_error(), "/memfd:vspace-test"));
    CHECK(*(char *)there == 0);
    CHECK(la_munmap(place(0), SIZE) == 0);
    CHECK(map_anonymous(place(0), SIZE) == 0);
    CHECK(munmap((void *)place(0), 4096) == 0);
    CHECK(la_vspace_verify(NULL, NULL) == 1);
}

static void address_space_limit_makes_single_claims(void **state)
{
    int status = SANITIZED ? CANNOT : run_in_child(map_under_limit, NULL);

    (void)state;
    if (status == CANNOT)
        skip();
    assert_int_equal(status, 0);
}

/* ---- which arena ---- */

static void use_word(void *word)
{
    uintptr_t got = 0;
    size_t size = 0;

    setenv("LIBALLOC_VSPACE", word, 1);
    CHECK(la_vspace_arena(&got, &size) == 0);
    CHECK(strcmp(word, "narrow") == 0 ? got == 0x550000000000 && size == 256 * GiB : got == 0x410000000000 && size == 8192 * GiB);
    if (SANITIZED && got == 0x410000000000)
        return;     /* not the application's under TSan */
    CHECK(map_anonymous(got + GiB, SIZE) == 0);
    *(char *)(got + GiB) = 1;
}

static void environment_names_the_arena(void **state)
{
    (void)state;
    assert_int_equal(run_in_child(use_word, "narrow"), 0);
    assert_int_equal(run_in_child(use_word, "wide"), 0);
}

static void use_wrong_word(void *arg)
{
    uintptr_t got = 0;
    size_t size = 0;

    (void)arg;
    setenv("LIBALLOC_VSPACE", "broad", 1);
    CHECK(la_vspace_arena(&got, &size) == -EINVAL && got == 0);
    CHECK(strstr(la_last_error(), "broad") && strstr(la_last_error(), "narrow"));
    CHECK(la_vspace_claim(SIZE, "x", &got) == -EINVAL);
}

static void unknown_arena_is_an_error(void **state)
{
    (void)state;
    assert_int_equal(run_in_child(use_wrong_word, NULL), 0);
}

/* A heap made by a TSan program lies in the narrow arena; all others can attach it. */
static void use_both(void *arg)
{
    (void)arg;
    CHECK(map_anonymous(vspace_ranges[VSPACE_NARROW].base + GiB, SIZE) == 0);
    CHECK(map_anonymous(vspace_ranges[VSPACE_WIDE].base + GiB, SIZE) == 0);
    CHECK(la_vspace_verify(NULL, NULL) == 0);
}

static void one_process_can_map_in_both_arenas(void **state)
{
    (void)state;
    if (SANITIZED)
        skip();
    assert_int_equal(run_in_child(use_both, NULL), 0);
}

/* ---- fork ---- */

static void map_in_child(void *arg)
{
    (void)arg;
    CHECK(*(char *)place(0) == 'x');
    CHECK(map_anonymous(place(0), SIZE) == -EEXIST);
    CHECK(la_munmap(place(0), SIZE) == 0);
    CHECK(map_anonymous(place(0), SIZE) == 0);
    CHECK(*(char *)place(0) == 0);
    CHECK(la_vspace_verify(NULL, NULL) == 0);
}

static void fork_with_mapping(void *arg)
{
    (void)arg;
    CHECK(map_anonymous(place(0), SIZE) == 0);
    *(char *)place(0) = 'x';
    CHECK(run_in_child(map_in_child, NULL) == 0);
    CHECK(*(char *)place(0) == 'x');
}

static void child_inherits_arena_and_mappings(void **state)
{
    (void)state;
    assert_int_equal(run_in_child(fork_with_mapping, NULL), 0);
}

static _Atomic(bool) enough;

static void *map_and_unmap(void *arg)
{
    (void)arg;
    while (!atomic_load(&enough)) {
        CHECK(map_anonymous(place(0), SIZE) == 0);
        CHECK(la_munmap(place(0), SIZE) == 0);
    }
    return NULL;
}

static void map_elsewhere(void *arg)
{
    (void)arg;
    alarm(60);      /* a hang is the failure */
    CHECK(map_anonymous(place(9), SIZE) == 0);
    CHECK(la_munmap(place(9), SIZE) == 0);
}

static void fork_beside_a_busy_thread(void *arg)
{
    pthread_t thread;

    (void)arg;
    la_free(la_malloc(1));      /* the engine, whose fork handlers serve vspace, is part of the program */
    CHECK(pthread_create(&thread, NULL, map_and_unmap, NULL) == 0);
    for (int i = 0; i < 100; i++)
        CHECK(run_in_child(map_elsewhere, NULL) == 0);
    atomic_store(&enough, true);
    pthread_join(thread, NULL);
}

static void fork_while_another_thread_maps_leaves_a_working_child(void **state)
{
    (void)state;
    assert_int_equal(run_in_child(fork_beside_a_busy_thread, NULL), 0);
}

static int setup(void **state)
{
    (void)state;
    unsetenv("LIBALLOC_VSPACE");
    base = vspace_ranges[SANITIZED ? VSPACE_NARROW : VSPACE_WIDE].base;     /* choosing is the children's business */
    arena_size = vspace_ranges[SANITIZED ? VSPACE_NARROW : VSPACE_WIDE].size;
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(file_is_mapped_at_the_address_asked_for),
        cmocka_unit_test(arena_is_reserved_around_mappings_and_left_out_of_core_dumps),
        cmocka_unit_test(second_mapping_over_a_live_one_is_refused),
        cmocka_unit_test(ranges_outside_the_arena_or_unknown_are_refused),
        cmocka_unit_test(failed_mapping_leaves_the_reservation_whole),
        cmocka_unit_test(a_thousand_mappings_are_kept_apart),
        cmocka_unit_test(occupied_arena_is_refused_and_the_mapping_there_is_named),
        cmocka_unit_test(intruders_and_holes_are_found_and_not_overwritten),
        cmocka_unit_test(address_space_limit_makes_single_claims),
        cmocka_unit_test(environment_names_the_arena),
        cmocka_unit_test(unknown_arena_is_an_error),
        cmocka_unit_test(one_process_can_map_in_both_arenas),
        cmocka_unit_test(child_inherits_arena_and_mappings),
        cmocka_unit_test(fork_while_another_thread_maps_leaves_a_working_child),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
