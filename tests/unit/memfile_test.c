/* memfile_test.c - the file of a heap: sealed, private, at an address of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <liballoc/heap.h>

#include "shmserver/daemon/memfile.h"

static int make(const char *name, uint64_t size, struct memfile *ret)
{
    struct memfile_label label = { .owner = 1000, .group = 100 };

    snprintf(label.name, sizeof(label.name), "%s", name);
    return memfile_create(&label, size, 0, ret);
}

static void file_is_sealed_and_private(void **state)
{
    const int seals = F_SEAL_GROW | F_SEAL_SHRINK;
    struct memfile file;
    struct stat st;

    (void)state;
    assert_int_equal(make("sealed", LA_HEAP_MIN_SIZE + 1, &file), 0);
    assert_int_equal(file.size, LA_HEAP_MIN_SIZE + (2 << 20));
    assert_int_equal(fcntl(file.fd, F_GET_SEALS) & seals, seals);
    assert_int_equal(fstat(file.fd, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(st.st_size, file.size);
    assert_int_equal(ftruncate(file.fd, 0), -1);
    memfile_close(&file, false);
    assert_int_equal(file.fd, -1);
    memfile_close(&file, false);
}

static void two_heaps_have_two_addresses_and_one_that_is_kept_is_not_given_again(void **state)
{
    struct memfile first, second, third;

    (void)state;
    assert_int_equal(make("first", LA_HEAP_MIN_SIZE, &first), 0);
    assert_int_equal(make("second", LA_HEAP_MIN_SIZE, &second), 0);
    assert_true(second.address >= first.address + first.size || second.address + second.size <= first.address);
    memfile_close(&first, true);
    assert_int_equal(make("third", LA_HEAP_MIN_SIZE, &third), 0);
    assert_int_not_equal(third.address, first.address);
    memfile_close(&second, false);
    memfile_close(&third, false);
}

static void every_client_gets_a_description_of_its_own(void **state)
{
    struct memfile file;
    int a, b;

    (void)state;
    assert_int_equal(make("shared", LA_HEAP_MIN_SIZE, &file), 0);
    a = memfile_reopen(&file, false);
    b = memfile_reopen(&file, false);
    assert_true(a >= 0 && b >= 0);
    /* A position belongs to the open file description. */
    assert_int_equal(lseek(a, 100, SEEK_SET), 100);
    assert_int_equal(lseek(b, 0, SEEK_CUR), 0);
    assert_int_equal(fcntl(a, F_GETFL) & O_ACCMODE, O_RDWR);
    assert_true(fcntl(a, F_GETFD) & FD_CLOEXEC);
    close(a);
    close(b);
    memfile_close(&file, false);
}

static void wrong_sizes_and_names_are_refused(void **state)
{
    struct memfile file;

    (void)state;
    assert_int_equal(make("small", LA_HEAP_MIN_SIZE - 1, &file), -EINVAL);
    assert_int_equal(make("large", UINT64_MAX, &file), -EINVAL);
    assert_int_equal(make("with/slash", LA_HEAP_MIN_SIZE, &file), -EINVAL);
}

static char registry[] = "/tmp/memfile-test-XXXXXX";

static int group_setup(void **state)
{
    (void)state;
    close(mkstemp(registry));
    return setenv("LIBALLOC_VSPACE_REGISTRY", registry, 1);
}

static int group_teardown(void **state)
{
    (void)state;
    return unlink(registry);
}

static void sealed_file_can_be_written_by_no_descriptor(void **state)
{
    struct memfile file;
    void *p;
    int fd;

    (void)state;
    assert_int_equal(make("name", LA_HEAP_MIN_SIZE, &file), 0);
    fd = memfile_reopen(&file, false);
    p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(p != MAP_FAILED);
    assert_int_equal(memfile_seal(&file), -EBUSY);
    munmap(p, 4096);
    assert_int_equal(memfile_seal(&file), 0);
    assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
    assert_int_equal(pwrite(fd, "x", 1, 0), -1);
    assert_int_equal(memfile_seal(&file), -EPERM);      /* no more seals either */
    close(fd);
    memfile_close(&file, false);
}

static void descriptor_for_reading_cannot_be_mapped_for_writing(void **state)
{
    struct memfile file;
    void *p;
    int fd;

    (void)state;
    assert_int_equal(make("name", LA_HEAP_MIN_SIZE, &file), 0);
    fd = memfile_reopen(&file, true);
    assert_true(fd >= 0);
    assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
    p = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    assert_true(p != MAP_FAILED);
    assert_int_equal(mprotect(p, 4096, PROT_READ | PROT_WRITE), -1);
    assert_int_equal(write(fd, "x", 1), -1);
    assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), -1);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
    munmap(p, 4096);
    close(fd);
    memfile_close(&file, false);
}

static void file_that_comes_back_is_known_by_what_the_kernel_says_of_it(void **state)
{
    struct memfile file, again, seen, other;
    struct memfile_label label;

    (void)state;
    assert_int_equal(make("known", LA_HEAP_MIN_SIZE, &file), 0);
    assert_int_equal(memfile_examine(file.fd, &label, &seen), 0);
    assert_true(seen.fd >= 0 && seen.fd != file.fd);
    assert_string_equal(label.name, "known");
    assert_int_equal(label.owner, 1000);
    assert_int_equal(label.group, 100);
    assert_true(seen.size == file.size && seen.address == file.address && seen.page_size == file.page_size);
    assert_true(memfile_is(&file, seen.fd));
    /* One that was sealed, too. */
    assert_int_equal(memfile_seal(&file), 0);
    assert_int_equal(memfile_examine(file.fd, &label, &other), 0);
    close(other.fd);
    /* The address is claimed once, by who has it last. */
    memfile_close(&file, true);
    assert_int_equal(memfile_adopt(seen.fd, file.size, file.address, &again), 0);
    memfile_close(&again, false);
    assert_int_equal(memfile_adopt(memfd_create("x", MFD_CLOEXEC), file.size, file.address, &again), -EINVAL);
}

static void files_that_anybody_could_have_made_are_refused(void **state)
{
    const int seals = F_SEAL_GROW | F_SEAL_SHRINK;
    const char *label_like_ours = "liballoc:name:0:0:410000000000";
    struct memfile_label label;
    struct memfile seen;
    int fd;

    (void)state;
    assert_int_equal(memfile_examine(0, &label, &seen), -EPERM);
    assert_int_equal(memfile_examine(-1, &label, &seen), -EPERM);
    fd = memfd_create("liballoc:name", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(fchmod(fd, 0600), 0);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
    assert_int_equal(memfile_examine(fd, &label, &seen), -EPERM);    /* the label */
    close(fd);
    fd = memfd_create(label_like_ours, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(fchmod(fd, 0600), 0);
    assert_int_equal(memfile_examine(fd, &label, &seen), -EPERM);    /* no seals: it may shrink */
    assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
    assert_int_equal(fchmod(fd, 0666), 0);
    assert_int_equal(memfile_examine(fd, &label, &seen), -EPERM);    /* open to others */
    assert_int_equal(fchmod(fd, 0600), 0);
    if (geteuid() == 0) {
        assert_int_equal(fchown(fd, 1000, 1000), 0);
        assert_int_equal(memfile_examine(fd, &label, &seen), -EPERM);    /* another user's */
        assert_int_equal(fchown(fd, 0, 0), 0);
    }
    /* Then it is as good as ours: who can make it is our user, and could be the daemon. */
    assert_int_equal(memfile_examine(fd, &label, &seen), 0);
    assert_int_equal(seen.address, 0x410000000000);
    close(seen.fd);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(file_is_sealed_and_private),
        cmocka_unit_test(two_heaps_have_two_addresses_and_one_that_is_kept_is_not_given_again),
        cmocka_unit_test(every_client_gets_a_description_of_its_own),
        cmocka_unit_test(sealed_file_can_be_written_by_no_descriptor),
        cmocka_unit_test(descriptor_for_reading_cannot_be_mapped_for_writing),
        cmocka_unit_test(wrong_sizes_and_names_are_refused),
        cmocka_unit_test(file_that_comes_back_is_known_by_what_the_kernel_says_of_it),
        cmocka_unit_test(files_that_anybody_could_have_made_are_refused),
    };

    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
