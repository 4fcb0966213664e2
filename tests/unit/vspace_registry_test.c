/*
 * vspace_registry_test.c - claims never overlap, whoever makes them and whoever dies making one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/util.h"
#include "os/vspace.h"
#include "os/vspace_registry.h"

#include "child.h"

enum { RECORD = 192 };      /* bytes of the header and of each record in the file */

static char path[64];

static int setup(void **state)
{
    (void)state;
    snprintf(path, sizeof(path), "/tmp/vspace-registry-test-%d", (int)getpid());
    unlink(path);
    return setenv("LIBALLOC_VSPACE_REGISTRY", path, 1) || setenv("LIBALLOC_VSPACE", "narrow", 1);
}

static int teardown(void **state)
{
    (void)state;
    return unlink(path) < 0 && errno != ENOENT;
}

static uintptr_t claim(size_t size, const char *name)
{
    uintptr_t address = 0;

    assert_int_equal(la_vspace_claim(size, name, &address), 0);
    return address;
}

static void claims_lie_in_the_arena_with_a_guard_between(void **state)
{
    uintptr_t base, at[50];
    size_t size;

    (void)state;
    assert_int_equal(la_vspace_arena(&base, &size), 0);
    for (int i = 0; i < 50; i++) {
        at[i] = claim((size_t)(i + 1) * 300000, "guard");
        assert_int_equal(at[i] % LA_VSPACE_GRANULE, 0);
        assert_true(at[i] >= base && at[i] + LA_VSPACE_GRANULE <= base + size);
        for (int j = 0; j < i; j++) {
            size_t length = align_up((size_t)(j + 1) * 300000, LA_VSPACE_GRANULE);
            size_t mine = align_up((size_t)(i + 1) * 300000, LA_VSPACE_GRANULE);
            assert_true(at[i] >= at[j] + length + LA_VSPACE_GRANULE || at[i] + mine + LA_VSPACE_GRANULE <= at[j]);
        }
    }
}

/* A claim that is put into a gap keeps its distance on both sides. */
static void claim_in_a_gap_keeps_the_guards(void **state)
{
    uintptr_t at[3], fourth;

    (void)state;
    for (int i = 0; i < 3; i++)
        at[i] = claim(64 * GiB, "neighbour");
    assert_int_equal(la_vspace_unclaim(at[1]), 0);
    fourth = claim(64 * GiB, "in the gap");
    for (int i = 0; i < 3; i += 2)
        assert_true(fourth >= at[i] + 64 * GiB + LA_VSPACE_GRANULE || fourth + 64 * GiB + LA_VSPACE_GRANULE <= at[i]);
}

static void claim_keep(void *arg)
{
    uintptr_t address;

    CHECK(la_vspace_claim(100 * GiB, arg, &address) == 0);
}

static void claim_outlives_its_process(void **state)
{
    uintptr_t address, found = 0;
    size_t size = 0;

    (void)state;
    assert_int_equal(run_in_child(claim_keep, "theirs"), 0);
    assert_int_equal(vspace_find_claim("theirs", &found, &size), 0);
    assert_int_equal(size, 100 * GiB);
    address = claim(100 * GiB, "ours");
    assert_true(address >= found + size + LA_VSPACE_GRANULE || address + 100 * GiB + LA_VSPACE_GRANULE <= found);
    assert_int_equal(vspace_find_claim("nobody", &found, &size), -ENOENT);
}

static void given_back_address_is_used_again_only_after_a_round(void **state)
{
    uintptr_t first = claim(GiB, "first"), second;

    (void)state;
    assert_int_equal(la_vspace_unclaim(first), 0);
    assert_int_equal(la_vspace_unclaim(first), -ENOENT);
    second = claim(GiB, "second");
    assert_int_not_equal(second, first);
    assert_int_equal(la_vspace_unclaim(second), 0);
    for (int i = 0; i < 4; i++)         /* each fits only if the ones before are gone and the search goes round */
        assert_int_equal(la_vspace_unclaim(claim(200 * GiB, "large")), 0);
}

static void claim_for_huge_pages_lies_on_one(void **state)
{
    uintptr_t before = claim(LA_VSPACE_GRANULE, "before"), aligned = 0, after = claim(LA_VSPACE_GRANULE, "after"), none = 7;
    size_t size;

    (void)state;
    for (size_t alignment = 1; alignment <= GiB; alignment *= 2) {
        assert_int_equal(la_vspace_claim_aligned(GiB, alignment, "aligned", &aligned), 0);
        assert_int_equal(aligned % MAX(alignment, LA_VSPACE_GRANULE), 0);
        assert_true(aligned > before && aligned > after + LA_VSPACE_GRANULE);
        assert_int_equal(vspace_find_claim("aligned", &after, &size), 0);
        assert_true(after == aligned && size == GiB);
        assert_int_equal(la_vspace_unclaim(aligned), 0);
    }
    assert_int_equal(la_vspace_claim_aligned(GiB, 0, "none", &none), -EINVAL);
    assert_int_equal(la_vspace_claim_aligned(GiB, 3 * LA_VSPACE_GRANULE, "none", &none), -EINVAL);
    assert_int_equal(la_vspace_claim_aligned(GiB, 2 * GiB, "none", &none), -EINVAL);
    assert_int_equal(la_vspace_claim_aligned(256 * GiB - 4 * LA_VSPACE_GRANULE, GiB, "none", &none), -ENOSPC);
    assert_int_equal(none, 7);
}

static void full_arena_is_an_error_until_a_claim_ends(void **state)
{
    uintptr_t first = claim(100 * GiB, "a"), second = claim(100 * GiB, "b"), third = 7;

    (void)state;
    (void)second;
    assert_int_equal(la_vspace_claim(100 * GiB, "c", &third), -ENOSPC);
    assert_int_equal(third, 7);
    assert_non_null(strstr(la_last_error(), "narrow arena"));
    assert_int_equal(la_vspace_unclaim(first), 0);
    claim(100 * GiB, "c");
}

static void known_range_is_claimed_again_under_another_name(void **state)
{
    uintptr_t kept = claim(GiB, "first"), other = claim(GiB, "other"), found;
    size_t size;

    (void)state;
    assert_int_equal(la_vspace_claim_at(kept, GiB, "second"), 0);
    assert_int_equal(vspace_find_claim("first", &found, &size), -ENOENT);
    assert_int_equal(vspace_find_claim("second", &found, &size), 0);
    assert_true(found == kept && size == GiB);
    /* One claim, not two. */
    assert_int_equal(la_vspace_unclaim(kept), 0);
    assert_int_equal(la_vspace_unclaim(kept), -ENOENT);
    /* Also when nobody has it any more. */
    assert_int_equal(la_vspace_claim_at(kept, GiB, "third"), 0);
    assert_int_equal(vspace_find_claim("third", &found, &size), 0);

    /* What touches another claim, or its guard, is not ours. */
    assert_int_equal(la_vspace_claim_at(other, GiB + LA_VSPACE_GRANULE, "longer"), -EEXIST);
    assert_int_equal(la_vspace_claim_at(other + LA_VSPACE_GRANULE, GiB, "shifted"), -EEXIST);
    assert_int_equal(la_vspace_claim_at(other + GiB, GiB, "in the guard"), -EEXIST);
    assert_int_equal(la_vspace_claim_at(other, 0, "zero"), -EINVAL);
    assert_int_equal(la_vspace_claim_at(other + 1, GiB, "crooked"), -EINVAL);
    assert_int_equal(la_vspace_claim_at(GiB, GiB, "outside"), -EINVAL);
    assert_int_equal(la_vspace_claim_at(other, GiB, ""), -EINVAL);
    assert_int_equal(vspace_find_claim("other", &found, &size), 0);
}

static void bad_requests_are_refused(void **state)
{
    uintptr_t address = 7;
    char longest[LA_VSPACE_NAME_MAX + 2];

    (void)state;
    memset(longest, 'n', sizeof(longest));
    longest[LA_VSPACE_NAME_MAX + 1] = '\0';
    assert_int_equal(la_vspace_claim(0, "zero", &address), -EINVAL);
    assert_int_equal(la_vspace_claim(GiB, NULL, &address), -EINVAL);
    assert_int_equal(la_vspace_claim(GiB, "", &address), -EINVAL);
    assert_int_equal(la_vspace_claim(GiB, longest, &address), -EINVAL);
    assert_int_equal(la_vspace_claim(SIZE_MAX, "overflow", &address), -ENOSPC);
    assert_int_equal(la_vspace_claim(256 * GiB, "no room for the guard", &address), -ENOSPC);
    assert_int_equal(address, 7);
    assert_int_equal(la_vspace_unclaim(0), -ENOENT);
    assert_int_equal(access(path, F_OK), 0);
    longest[LA_VSPACE_NAME_MAX] = '\0';
    claim(GiB, longest);
}

/* ---- many at once, and death ---- */

struct crowd {
    uintptr_t *claims;      /* shared */
    int member;
};

enum { MEMBERS = 4, EACH = 40 };

static void claim_many(void *arg)
{
    struct crowd *c = arg;

    for (int i = 0; i < EACH; i++) {
        CHECK(la_vspace_claim(64 * MiB, "crowd", &c->claims[c->member * EACH + i]) == 0);
        if (i % 4 == 3) {
            CHECK(la_vspace_unclaim(c->claims[c->member * EACH + i]) == 0);
            c->claims[c->member * EACH + i] = 0;
        }
    }
}

static void processes_that_claim_at_once_get_ranges_apart(void **state)
{
    uintptr_t *claims = mmap(NULL, MEMBERS * EACH * sizeof(*claims), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t pid[MEMBERS];

    (void)state;
    for (int m = 0; m < MEMBERS; m++)
        pid[m] = start_child(claim_many, &(struct crowd){ claims, m });
    for (int m = 0; m < MEMBERS; m++)
        assert_int_equal(child_status(pid[m]), 0);
    for (int i = 0; i < MEMBERS * EACH; i++)
        for (int j = 0; j < i && claims[i]; j++)
            if (claims[j])
                assert_true(claims[i] >= claims[j] + 64 * MiB + LA_VSPACE_GRANULE || claims[j] >= claims[i] + 64 * MiB + LA_VSPACE_GRANULE);
    munmap(claims, MEMBERS * EACH * sizeof(*claims));
}

static void claim_for_ever(void *arg)
{
    uintptr_t address;

    CHECK(write(*(int *)arg, "x", 1) == 1);
    for (;;) {
        CHECK(la_vspace_claim(GiB, "mortal", &address) == 0);
        CHECK(la_vspace_unclaim(address) == 0);
    }
}

/* Killed at any point: the lock goes with it, and what it wrote is a claim or nothing. */
static void killed_claimer_leaves_a_working_registry(void **state)
{
    uintptr_t kept = claim(GiB, "kept"), found, address;
    size_t size;
    int started[2];
    char c;

    (void)state;
    assert_int_equal(pipe2(started, O_CLOEXEC), 0);
    for (int round = 0; round < 50; round++) {
        pid_t pid = start_child(claim_for_ever, &started[1]);

        assert_int_equal(read(started[0], &c, 1), 1);
        for (volatile int spin = 0; spin < round * 2000; spin++)
            ;
        kill(pid, SIGKILL);
        assert_int_equal(child_status(pid), 128 + SIGKILL);
        address = claim(GiB, "after");
        assert_int_equal(la_vspace_unclaim(address), 0);
        assert_int_equal(vspace_find_claim("kept", &found, &size), 0);
        assert_true(found == kept && size == GiB);
    }
    close(started[0]);
    close(started[1]);
}

/* The same exhaustively: of the last record only the first @written bytes reached the file. */
static void torn_record_is_a_free_slot(void **state)
{
    (void)state;
    for (off_t written = 0; written < RECORD; written++) {
        uintptr_t kept = claim(GiB, "kept"), torn = claim(GiB, "torn"), found;
        size_t size;
        struct stat st;

        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_size, 3 * RECORD);
        assert_int_equal(truncate(path, 2 * RECORD + written), 0);
        if (written % 2)
            assert_int_equal(truncate(path, 3 * RECORD), 0);        /* zeros behind, as a write that stopped leaves */
        assert_int_equal(vspace_find_claim("torn", &found, &size), -ENOENT);
        assert_int_equal(la_vspace_unclaim(torn), -ENOENT);
        assert_int_equal(vspace_find_claim("kept", &found, &size), 0);
        assert_int_equal(found, kept);
        claim(GiB, "new");
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_size, 3 * RECORD);                   /* the slot is used again */
        unlink(path);
    }
}

static void flipped_bit_invalidates_a_record(void **state)
{
    uintptr_t found;
    size_t size;
    unsigned char byte;
    int fd;

    (void)state;
    claim(GiB, "flip");
    fd = open(path, O_RDWR | O_CLOEXEC);
    for (off_t at = RECORD; at < 2 * RECORD; at++) {
        assert_int_equal(pread(fd, &byte, 1, at), 1);
        byte ^= 0x10;
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
        assert_int_equal(vspace_find_claim("flip", &found, &size), -ENOENT);
        byte ^= 0x10;
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    }
    assert_int_equal(vspace_find_claim("flip", &found, &size), 0);
    close(fd);
}

static void lock_and_wait(void *arg)
{
    struct flock lock = { .l_type = F_WRLCK, .l_len = 1 };
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    CHECK(fd >= 0 && fcntl(fd, F_OFD_SETLK, &lock) == 0);
    CHECK(write(*(int *)arg, "x", 1) == 1);
    for (;;)
        pause();
}

static void stopped_holder_costs_an_error_not_a_hang(void **state)
{
    uintptr_t address = 7;
    int locked[2];
    char c;
    pid_t pid;

    (void)state;
    assert_int_equal(pipe2(locked, O_CLOEXEC), 0);
    pid = start_child(lock_and_wait, &locked[1]);
    assert_int_equal(read(locked[0], &c, 1), 1);
    assert_int_equal(la_vspace_claim(GiB, "late", &address), -EBUSY);
    assert_non_null(strstr(la_last_error(), "locked"));
    kill(pid, SIGKILL);
    child_status(pid);
    claim(GiB, "in time");
    close(locked[0]);
    close(locked[1]);
}

/* ---- a file that is not ours ---- */

/* As of root of a user namespace, whose number is that of the machine's root. */
static void claim_as_another_user(void *arg)
{
    uintptr_t address;

    (void)arg;
    CHECK(setresuid(1, 1, 1) == 0);
    CHECK(la_vspace_claim(GiB, "of root's", &address) == -EACCES);
    CHECK(strstr(la_last_error(), "name another one by LIBALLOC_VSPACE_REGISTRY") != NULL);
}

static void strange_files_are_not_used(void **state)
{
    uintptr_t address = 7;
    char other[80];
    int fd;

    (void)state;
    snprintf(other, sizeof(other), "%s-target", path);
    assert_int_equal(symlink(other, path), 0);
    assert_int_equal(la_vspace_claim(GiB, "link", &address), -ELOOP);
    assert_int_equal(access(other, F_OK), -1);
    unlink(path);

    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(la_vspace_claim(GiB, "folder", &address), -EISDIR);
    rmdir(path);

    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(fchmod(fd, 0666), 0);
    assert_int_equal(la_vspace_claim(GiB, "open to all", &address), -EACCES);
    assert_int_equal(fchmod(fd, 0600), 0);
    assert_int_equal(ftruncate(fd, 100000), 0);
    assert_int_equal(pwrite(fd, "something else", 14, 0), 14);
    assert_int_equal(la_vspace_claim(GiB, "foreign", &address), -EPROTO);
    assert_non_null(strstr(la_last_error(), path));
    assert_int_equal(ftruncate(fd, 0), 0);
    if (geteuid() == 0) {
        assert_int_equal(fchown(fd, 1, 1), 0);
        assert_int_equal(la_vspace_claim(GiB, "another user's", &address), -EACCES);
        assert_int_equal(fchown(fd, 0, 0), 0);
        assert_int_equal(run_in_child(claim_as_another_user, NULL), 0);
    }
    claim(GiB, "ours and empty");
    close(fd);
    setenv("LIBALLOC_VSPACE_REGISTRY", "/nowhere/registry", 1);
    assert_int_equal(la_vspace_claim(GiB, "no folder", &address), -ENOENT);
    assert_int_equal(address, 7);
}

/* ---- what else is in the way ---- */

static void map_and_claim(void *arg)
{
    uintptr_t first, second, base;
    size_t size;

    (void)arg;
    CHECK(la_vspace_claim(GiB, "mapped", &first) == 0);
    CHECK(la_mmap(first, GiB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) == 0);
    CHECK(la_vspace_unclaim(first) == 0);
    CHECK(la_vspace_arena(&base, &size) == 0);
    /* All that is left, but for the mapping. */
    for (size_t piece = 128 * GiB; piece >= LA_VSPACE_GRANULE; piece /= 2)
        while (la_vspace_claim(piece, "rest", &second) == 0)
            CHECK(second >= first + GiB || second + piece <= first);
}

static void address_that_is_still_mapped_here_is_not_claimed(void **state)
{
    (void)state;
    assert_int_equal(run_in_child(map_and_claim, NULL), 0);
}

/* ---- sweeping ---- */

static bool is_not_doomed(const char *name, uintptr_t address, void *user)
{
    uintptr_t probe;

    assert_true(address != 0);
    ++*(unsigned *)user;
    assert_int_equal(la_vspace_claim(GiB, "probe", &probe), 0);         /* no lock is held */
    assert_int_equal(la_vspace_unclaim(probe), 0);
    return strcmp(name, "doomed") != 0;
}

static void sweep_drops_what_nobody_needs(void **state)
{
    unsigned asked = 0;
    uintptr_t found;
    size_t size;

    (void)state;
    claim(GiB, "doomed");
    claim(GiB, "needed");
    claim(GiB, "doomed");
    assert_int_equal(vspace_sweep(is_not_doomed, &asked), 0);           /* too young */
    assert_int_equal(asked, 0);
    assert_int_equal(vspace_sweep_older(0, is_not_doomed, &asked), 2);
    assert_int_equal(asked, 3);
    assert_int_equal(vspace_find_claim("doomed", &found, &size), -ENOENT);
    assert_int_equal(vspace_find_claim("needed", &found, &size), 0);
}

static void claim_named_after_a_file_lasts_as_long_as_the_file(void **state)
{
    char file[80], exact[120], wrong[120];
    struct stat st;
    uintptr_t found;
    size_t size;

    (void)state;
    snprintf(file, sizeof(file), "%s-file", path);
    close(open(file, O_CREAT | O_RDWR | O_CLOEXEC, 0600));
    assert_int_equal(stat(file, &st), 0);
    snprintf(exact, sizeof(exact), "%s#%lu", file, (unsigned long)st.st_ino);
    snprintf(wrong, sizeof(wrong), "%s#%lu", file, (unsigned long)st.st_ino + 1);
    claim(GiB, file);
    claim(GiB, exact);
    claim(GiB, wrong);
    claim(GiB, "no path");
    assert_int_equal(vspace_sweep_older(0, NULL, NULL), 1);
    assert_int_equal(vspace_find_claim(wrong, &found, &size), -ENOENT);
    unlink(file);
    assert_int_equal(vspace_sweep_older(0, NULL, NULL), 2);
    assert_int_equal(vspace_find_claim("no path", &found, &size), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(claims_lie_in_the_arena_with_a_guard_between),
        TEST(claim_in_a_gap_keeps_the_guards),
        TEST(claim_outlives_its_process),
        TEST(given_back_address_is_used_again_only_after_a_round),
        TEST(claim_for_huge_pages_lies_on_one),
        TEST(full_arena_is_an_error_until_a_claim_ends),
        TEST(known_range_is_claimed_again_under_another_name),
        TEST(bad_requests_are_refused),
        TEST(processes_that_claim_at_once_get_ranges_apart),
        TEST(killed_claimer_leaves_a_working_registry),
        TEST(torn_record_is_a_free_slot),
        TEST(flipped_bit_invalidates_a_record),
        TEST(stopped_holder_costs_an_error_not_a_hang),
        TEST(strange_files_are_not_used),
        TEST(address_that_is_still_mapped_here_is_not_claimed),
        TEST(sweep_drops_what_nobody_needs),
        TEST(claim_named_after_a_file_lasts_as_long_as_the_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
