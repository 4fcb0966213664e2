#include "../support/shared.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>

#include "base/error.h"
#include "core/shared_heap.h"
#include "os/certificate.h"

#include "child.h"

static void a_heap_is_attached_once_per_process(void **state)
{
    struct shared *s = *state;
    struct la_heap *second;

    assert_int_equal(la_heap_attach(s->name, 0, &second), -EALREADY);
    assert_non_null(strstr(la_last_error(), s->name));
}

static void a_heap_that_is_a_default_chain_is_not_detached(void **state)
{
    struct shared *s = *state;
    struct la_chain *previous = la_default_set(la_heap_chain(s->heap, LA_KEEP));
    void *block = la_malloc(100);

    assert_int_equal(la_heap_detach(s->heap), -EBUSY);
    la_default_set(previous);
    assert_true((char *)block >= s->heap->base && (char *)block < s->heap->base + s->heap->size);
    la_free(block);
}

static int address_is_the_same(struct la_heap *heap)
{
    const char *text = la_load(heap, shared_root(heap, "text"));

    return text && strcmp(text, "plain pointers work") == 0 ? 0 : 1;
}

static void another_process_sees_the_same_addresses(void **state)
{
    struct shared *s = *state;
    char *text = la_heap_hold(s->heap, 64);

    strcpy(text, "plain pointers work");
    assert_int_equal(la_publish(s->heap, shared_root(s->heap, "text"), NULL, text), 0);
    assert_int_equal(shared_run(s, address_is_the_same), 0);
}

/* Everything that would change the heap is refused in words; the rest works. In another process, as a heap is attached once per process. */
static void read_the_text(void *arg)
{
    const struct shared *s = arg;
    struct la_heap_info info = { .struct_size = sizeof(info) };
    struct la_mutex mutex = { 0 };
    struct la_heap *heap;
    la_link *root, *none;
    char *text;

    CHECK(la_heap_attach(s->name, LA_HEAP_READ_ONLY, &heap) == 0);
    CHECK(la_heap_root(heap, "text", &root) == 0 && la_heap_root(heap, "new", &none) == -ENOENT);
    text = la_load(heap, root);
    CHECK(text && strcmp(text, "plain pointers work") == 0 && la_usable_size(text) >= 64);
    CHECK(la_heap_info(heap, &info) == 0 && info.processes == 1 && !info.readers);
    CHECK(la_heap_fsck(heap, NULL, NULL, NULL) == 0 && la_heap_walk(heap, NULL, NULL) == 1);

    CHECK(!la_heap_alloc(heap, 100) && la_last_error_code() == -EROFS && !la_heap_hold(heap, 1 << 20) && la_last_error_code() == -EROFS);
    CHECK(!la_take(heap, root, LA_NO_NEXT) && la_last_error_code() == -EROFS);
    CHECK(la_publish(heap, root, text, text) == -EROFS && la_keep(heap, text) == -EROFS);
    CHECK(la_heap_recover(heap, NULL, NULL) == -EROFS && la_heap_reset(heap) == -EROFS);
    CHECK(la_mutex_lock(heap, (struct la_mutex *)text) == -EROFS && la_mutex_lock(heap, &mutex) == -EINVAL);
    CHECK(la_cond_signal(heap, (struct la_cond *)text) == -EROFS);
    la_misuse_set(LA_MISUSE_IGNORE, NULL, NULL);
    la_free(text);
    la_free(text);      /* the second time as well: no short way was remembered */
    CHECK(la_misuse_count() == 2 && strcmp(text, "plain pointers work") == 0);
    CHECK(mprotect(heap->base, 4096, PROT_READ | PROT_WRITE) < 0);
    CHECK(la_heap_detach(heap) == 0);
    /* And as anybody afterwards. */
    CHECK(la_heap_attach(s->name, 0, &heap) == 0 && la_heap_alloc(heap, 100));
}

static void reader_sees_everything_and_changes_nothing(void **state)
{
    struct shared *s = *state;
    char *text = la_heap_hold(s->heap, 64);

    strcpy(text, "plain pointers work");
    assert_int_equal(la_publish(s->heap, shared_root(s->heap, "text"), NULL, text), 0);
    assert_int_equal(run_in_child(read_the_text, s), 0);
}

static void wait_as_reader(void *arg)
{
    struct la_heap *heap;
    int *pipes = arg;
    char c;

    CHECK(la_heap_attach(getenv("TEST_HEAP"), LA_HEAP_READ_ONLY, &heap) == 0);
    CHECK(write(pipes[1], "!", 1) == 1);
    close(pipes[3]);
    CHECK(read(pipes[2], &c, 1) == 0);
}

static void readers_take_no_slot_and_are_seen(void **state)
{
    struct shared *s = *state;
    struct la_heap_info info = { .struct_size = sizeof(info) };
    int pipes[4];
    pid_t readers[3];
    char c;

    setenv("TEST_HEAP", s->name, 1);
    assert_int_equal(pipe(pipes) + pipe(pipes + 2), 0);
    assert_int_equal(la_heap_info(s->heap, &info), 0);
    assert_false(info.readers);
    for (int i = 0; i < 3; i++) {
        readers[i] = start_child(wait_as_reader, pipes);
        assert_int_equal(read(pipes[0], &c, 1), 1);
    }
    assert_int_equal(la_heap_info(s->heap, &info), 0);
    assert_true(info.readers);
    assert_int_equal(info.processes, 1);
    kill(readers[0], SIGKILL);
    assert_int_equal(child_status(readers[0]), 128 + SIGKILL);
    assert_int_equal(la_heap_recover(s->heap, NULL, NULL), 0);
    assert_int_equal(la_heap_info(s->heap, &info), 0);
    assert_true(info.readers);
    close(pipes[3]);
    assert_int_equal(child_status(readers[1]) + child_status(readers[2]), 0);
    assert_int_equal(la_heap_info(s->heap, &info), 0);
    assert_false(info.readers);
    for (int i = 0; i < 3; i++)
        close(pipes[i]);
}

static int free_the_text(struct la_heap *heap)
{
    void *text = la_take(heap, shared_root(heap, "text"), LA_NO_NEXT);

    la_free(text);
    return text ? 0 : 1;
}

static void a_block_is_freed_by_another_process(void **state)
{
    struct shared *s = *state;

    for (int i = 0; i < 3; i++) {
        assert_int_equal(la_publish(s->heap, shared_root(s->heap, "text"), NULL, la_heap_hold(s->heap, 300000)), 0);
        assert_int_equal(shared_run(s, free_the_text), 0);
    }
    assert_int_equal(shared_count(s).blocks[HEAP], 0);
}

/* ---- limits ---- */

static void attach_too_many(void *arg)
{
    const struct shared *s = arg;
    struct la_heap *heap;

    CHECK(la_heap_attach(s->name, 0, &heap) == -EUSERS);
    CHECK(strstr(la_last_error(), "256 process slots") != NULL);
    CHECK(la_heap_attach(s->name, LA_HEAP_READ_ONLY, &heap) == 0);      /* readers need none */
}

static void a_process_without_a_slot_is_told(void **state)
{
    struct shared *s = *state;
    char path[64];
    int fd;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", s->heap->fd);
    fd = open(path, O_RDWR | O_CLOEXEC);
    for (unsigned i = 0; i < LA_HEAP_MAX_PROCESSES; i++)
        assert_true(i == s->heap->process || certificate_hold(fd, i) == 0);
    assert_int_equal(run_in_child(attach_too_many, s), 0);
    close(fd);
}

static void attach_sixteen(void *arg)
{
    struct la_heap *heap[MAX_HEAPS + 1];
    char name[64];

    (void)arg;
    for (int i = 0; i <= MAX_HEAPS; i++) {
        snprintf(name, sizeof(name), "limit-%d-%d", getpid(), i);
        CHECK(la_heap_create(name, LA_HEAP_MIN_SIZE, 0, &heap[i]) == (i < MAX_HEAPS ? 0 : -EMFILE));
        CHECK(i < MAX_HEAPS || strstr(la_last_error(), "16 heaps") != NULL);
        CHECK(la_heap_remove(name) == (i < MAX_HEAPS ? 0 : -ENOENT));
    }
    CHECK(la_heap_detach(heap[0]) == 0);
    CHECK(la_heap_create(name, LA_HEAP_MIN_SIZE, 0, &heap[0]) == 0 && la_heap_remove(name) == 0);
}

static void a_process_has_so_many_heaps_at_once(void **state)
{
    (void)state;
    assert_int_equal(run_in_child(attach_sixteen, NULL), 0);
}

/* ---- core dumps ---- */

/* The flags that the kernel has for the mapping. */
static bool is_left_out_of_dumps(uintptr_t address)
{
    FILE *maps = fopen("/proc/self/smaps", "r");
    char line[512], wanted[32];
    bool here = false, left_out = false;

    assert_non_null(maps);
    snprintf(wanted, sizeof(wanted), "%lx-", (unsigned long)address);
    while (fgets(line, sizeof(line), maps)) {
        if (strncmp(line, wanted, strlen(wanted)) == 0)
            here = true;
        if (here && strncmp(line, "VmFlags:", 8) == 0) {
            left_out = strstr(line, " dd") != NULL;
            break;
        }
    }
    assert_true(here);
    fclose(maps);
    return left_out;
}

static int is_in_dumps(struct la_heap *heap)
{
    return is_left_out_of_dumps((uintptr_t)heap->base);
}

static void heaps_are_in_core_dumps_by_option_only(void **state)
{
    struct shared *s = *state;

#ifndef __x86_64__
    skip();     /* qemu-user makes smaps up */
#endif
    assert_true(is_left_out_of_dumps((uintptr_t)s->heap->base));
    assert_int_equal(shared_run_with(s, LA_HEAP_DUMP, is_in_dumps), 0);
}

static void a_forked_child_has_no_heap_and_its_parent_keeps_its_own(void **state)
{
    struct shared *s = *state;
    void *block = la_heap_hold(s->heap, 64);
    struct la_chain *previous = la_default_set(la_heap_chain(s->heap, LA_HELD));
    pid_t pid = fork();
    int status;

    if (pid == 0) {
        struct la_heap *again;
        void *mine = la_malloc(64);     /* private memory: the default chain did not follow */
        int bad = !mine || la_default_get() != NULL || la_heap_attach(s->name, 0, &again) < 0;

        _exit(bad);
    }
    la_default_set(previous);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    la_heap_recover(s->heap, NULL, NULL);
    assert_int_equal(shared_count(s).blocks[HELD], 1);
    la_free(block);
}

static void count_block(void *user, void *block, size_t size, bool held)
{
    (void)block;
    (void)size;
    (void)held;
    ++*(long *)user;
}

/* In a child: what the parent's handle still answers. */
static bool all_say_echild(struct la_heap *heap)
{
    struct la_heap_info info = { .struct_size = sizeof(info) };
    struct la_heap_process process;
    la_link *root;
    long n = 0;

    return la_heap_info(heap, &info) == -ECHILD && la_heap_processes(heap, &process, 1) == -ECHILD && la_heap_recover(heap, NULL, NULL) == -ECHILD &&
           la_heap_root(heap, "root", &root) == -ECHILD && la_heap_fsck(heap, NULL, NULL, NULL) == -ECHILD &&
           la_heap_walk(heap, count_block, &n) == -ECHILD && la_heap_detach(heap) == -ECHILD && n == 0 &&
           strstr(la_last_error(), "a child of fork() attaches by itself");
}

static void the_parents_handle_is_refused_in_a_child(void **state)
{
    struct shared *s = *state;
    pid_t pid = fork();
    int status;

    if (pid == 0)
        _exit(all_say_echild(s->heap) ? 0 : 1);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(shared_count(s).errors, 0);
}

static void realloc_inside_a_block_is_told_as_free_tells_it(void **state)
{
    struct shared *s = *state;
    char *block = la_heap_hold(s->heap, 100), told[256];

    la_misuse_set(LA_MISUSE_REPORT, NULL, NULL);
    la_free(block + 16);
    snprintf(told, sizeof(told), "%s", la_last_error());
    assert_non_null(strstr(told, "is 16 bytes into a block of "));
    la_fail(-EIO, "something else");
    assert_null(la_realloc(block + 16, 5000));
    assert_string_equal(la_last_error(), told);
    la_free(block);
    assert_null(la_realloc(block, 5000));
    assert_string_not_equal(la_last_error(), told);
}

static void descriptor_is_a_duplicate_of_the_heaps_own(void **state)
{
    struct shared *s = *state;
    struct la_heap_info info = { .struct_size = sizeof(info) };
    int fd;

    assert_int_equal(la_heap_info(s->heap, &info), 0);
    fd = la_heap_descriptor(info.id);
    assert_true(fd >= 0 && fd != s->heap->fd);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    /* One description: it has the certificate, too. */
    assert_int_equal(lseek(fd, 123, SEEK_SET), 123);
    assert_int_equal(lseek(s->heap->fd, 0, SEEK_CUR), 123);
    close(fd);
    assert_int_equal(la_heap_descriptor(info.id + 1), -ENOENT);
}

static void a_fork_with_its_default_chain_in_a_heap_is_reported_if_asked(void **state)
{
    struct shared *s = *state;

    la_misuse_set(LA_MISUSE_REPORT, NULL, NULL);
    for (unsigned flags = 0; flags <= LA_HEAP_FORK_REPORT; flags++) {
        unsigned long before = la_misuse_count();
        struct la_chain *previous;
        int status;
        pid_t pid;

        assert_int_equal(la_heap_detach(s->heap), 0);
        assert_int_equal(la_heap_attach(s->name, flags, &s->heap), 0);
        previous = la_default_set(la_heap_chain(s->heap, LA_KEEP));
        pid = fork();
        if (pid == 0) {
            char *block = la_malloc(100);
            _exit(block && heap_around(block) == NULL ? 0 : 1);
        }
        la_default_set(previous);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        assert_int_equal(la_misuse_count() - before, flags);
    }
    assert_non_null(strstr(la_last_error(), "fork() while shared heap "));
    assert_non_null(strstr(la_last_error(), "posix_spawn"));
}

static void quarantined_heap_gives_no_block_until_it_is_lifted(void **state)
{
    struct shared *s = *state;
    struct la_heap_info info = { .struct_size = sizeof(info) };
    void *block = la_heap_alloc(s->heap, 100), *more = NULL;

    assert_int_equal(la_heap_quarantine(s->heap, true), 0);
    assert_int_equal(la_heap_info(s->heap, &info), 0);
    assert_true(info.quarantined);
    /* What the lane has in its bins already it still gives. */
    for (int i = 0; i < 100000; i++) {
        more = la_heap_alloc(s->heap, 3000);
        if (!more)
            break;
    }
    assert_null(more);
    assert_int_equal(la_last_error_code(), -EUCLEAN);
    la_free(block);
    assert_int_equal(la_heap_quarantine(s->heap, false), 0);
    assert_non_null(la_heap_alloc(s->heap, (size_t)1 << 20));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        shared_test(quarantined_heap_gives_no_block_until_it_is_lifted),
        shared_test(a_heap_is_attached_once_per_process),
        shared_test(a_heap_that_is_a_default_chain_is_not_detached),
        shared_test(another_process_sees_the_same_addresses),
        shared_test(reader_sees_everything_and_changes_nothing),
        shared_test(readers_take_no_slot_and_are_seen),
        shared_test(a_block_is_freed_by_another_process),
        shared_test(a_process_without_a_slot_is_told),
        cmocka_unit_test(a_process_has_so_many_heaps_at_once),
        shared_test(heaps_are_in_core_dumps_by_option_only),
        shared_test(a_forked_child_has_no_heap_and_its_parent_keeps_its_own),
        shared_test(the_parents_handle_is_refused_in_a_child),
        shared_test(realloc_inside_a_block_is_told_as_free_tells_it),
        shared_test(a_fork_with_its_default_chain_in_a_heap_is_reported_if_asked),
        shared_test(descriptor_is_a_duplicate_of_the_heaps_own),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
