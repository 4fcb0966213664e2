/* maps_test.c - the parser of /proc/self/maps: real mappings, long paths, lines across buffers, garbage. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/maps.h"

#include "child.h"

static void mapping_of_a_file_is_found_with_its_name_and_inode(void **state)
{
    struct maps_entry entry;
    struct stat st;
    int fd = memfd_create("maps-test", MFD_CLOEXEC);
    char *p;

    (void)state;
    assert_int_equal(ftruncate(fd, 3 * 4096), 0);
    p = mmap(NULL, 2 * 4096, PROT_READ, MAP_SHARED, fd, 4096);
    assert_ptr_not_equal(p, MAP_FAILED);
    assert_int_equal(fstat(fd, &st), 0);

    assert_int_equal(maps_find((uintptr_t)p + 4096, (uintptr_t)p + 4097, &entry), 1);

    assert_true(entry.start == (uintptr_t)p && entry.end == (uintptr_t)p + 2 * 4096);
    assert_string_equal(entry.perms, "r--s");
    assert_int_equal(entry.offset, 4096);
    assert_int_equal(entry.inode, st.st_ino);
    assert_string_equal(entry.path, "/memfd:maps-test (deleted)");
    munmap(p, 2 * 4096);
    close(fd);
}

static void unmapped_range_has_no_entry(void **state)
{
    struct maps_entry entry;
    char *p = mmap(NULL, 3 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    (void)state;
    assert_ptr_not_equal(p, MAP_FAILED);
    munmap(p + 4096, 4096);
    assert_int_equal(maps_find((uintptr_t)p + 4096, (uintptr_t)p + 2 * 4096, &entry), 0);
    assert_int_equal(maps_find((uintptr_t)p, (uintptr_t)p + 2 * 4096, &entry), 1);
    assert_string_equal(entry.path, "");
    munmap(p, 3 * 4096);
}

/* Every line of stdio's reading is ours too, in order, so that buffer borders lose nothing. */
static void all_mappings_are_read_in_order(void **state)
{
    enum { EXTRA = 300 };
    char *p[EXTRA], line[512];
    struct maps_reader reader;
    struct maps_entry entry;
    uintptr_t last = 0;
    unsigned count = 0, expected = 0;
    FILE *file;
    int r;

    (void)state;
    for (int i = 0; i < EXTRA; i++) {
        p[i] = mmap(NULL, 4096, i & 1 ? PROT_NONE : PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        assert_ptr_not_equal(p[i], MAP_FAILED);
    }
    file = fopen("/proc/thread-self/maps", "r");
    while (fgets(line, sizeof(line), file))
        expected++;
    fclose(file);

    assert_int_equal(maps_open(&reader), 0);
    while ((r = maps_next(&reader, &entry)) > 0) {
        assert_true(entry.start >= last && entry.end > entry.start);
        last = entry.end;
        count++;
    }
    maps_close(&reader);
    assert_int_equal(r, 0);
    assert_true(expected > EXTRA / 2);
    assert_in_range(count, expected - 4, expected + 4);     /* stdio's buffer came and went */
    for (int i = 0; i < EXTRA; i++)
        munmap(p[i], 4096);
}

/* A file of the format under a name that maps_open_file() can open. */
static void write_file(char *path, const char *text)
{
    int fd;

    strcpy(path, "/tmp/maps-test-XXXXXX");
    fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static void long_path_is_cut_and_the_next_line_is_intact(void **state)
{
    static char text[9000];
    char path[64];
    struct maps_reader reader;
    struct maps_entry entry;

    (void)state;
    strcpy(text, "1000-2000 r-xp 00001000 fe:01 42   /");
    memset(text + strlen(text), 'x', 6000);
    strcat(text, "\n410000000000-490000000000 ---p 00000000 00:00 0 \n7000-8000 rw-s 00000000 00:05 7 /with space (deleted)\n");
    write_file(path, text);

    assert_int_equal(maps_open_file(&reader, path), 0);
    assert_int_equal(maps_next(&reader, &entry), 1);
    assert_int_equal(entry.inode, 42);
    assert_int_equal(strlen(entry.path), sizeof(entry.path) - 1);
    assert_int_equal(maps_next(&reader, &entry), 1);
    assert_true(entry.start == 0x410000000000 && entry.end == 0x490000000000);
    assert_string_equal(entry.perms, "---p");
    assert_string_equal(entry.path, "");
    assert_int_equal(maps_next(&reader, &entry), 1);
    assert_string_equal(entry.path, "/with space (deleted)");
    assert_int_equal(maps_next(&reader, &entry), 0);
    maps_close(&reader);
    unlink(path);
}

static void other_format_is_an_error_and_no_endless_loop(void **state)
{
    static const char *const garbage[] = { "hello\n", "1000 2000 rw-p 0 0:0 0\n", "1000-2000 rw\n", "1000-2000 rw-p 0 00:00 \n", "\n" };
    char path[64];
    struct maps_reader reader;
    struct maps_entry entry;

    (void)state;
    for (size_t i = 0; i < sizeof(garbage) / sizeof(*garbage); i++) {
        write_file(path, garbage[i]);
        assert_int_equal(maps_open_file(&reader, path), 0);
        assert_int_equal(maps_next(&reader, &entry), -EPROTO);
        maps_close(&reader);
        unlink(path);
    }
    assert_int_equal(maps_open_file(&reader, "/nowhere/maps"), -ENOENT);
}

static void *read_without_main_thread(void *arg)
{
    struct maps_entry entry;

    pthread_join(*(pthread_t *)arg, NULL);
    CHECK(maps_find((uintptr_t)arg, (uintptr_t)arg + 1, &entry) == 1);
    _exit(0);
}

static void main_thread_leaves(void *arg)
{
    static pthread_t leader;
    pthread_t other;

    (void)arg;
    leader = pthread_self();
    CHECK(pthread_create(&other, NULL, read_without_main_thread, &leader) == 0);
    pthread_exit(NULL);
}

/* /proc/self/maps is empty then. */
__attribute__((unused)) static void mappings_are_read_after_the_main_thread_has_ended(void **state)
{
    (void)state;
    if (SANITIZED)
        skip();     /* TSan cannot join the main thread */
    assert_int_equal(run_in_child(main_thread_leaves, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mapping_of_a_file_is_found_with_its_name_and_inode),
        cmocka_unit_test(unmapped_range_has_no_entry),
        cmocka_unit_test(all_mappings_are_read_in_order),
        cmocka_unit_test(long_path_is_cut_and_the_next_line_is_intact),
        cmocka_unit_test(other_format_is_an_error_and_no_endless_loop),
#ifndef __SANITIZE_THREAD__     /* which does not survive the end of the main thread */
        cmocka_unit_test(mappings_are_read_after_the_main_thread_has_ended),
#endif
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
