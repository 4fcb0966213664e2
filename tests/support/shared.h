/*
 * shared.h - a shared heap for a test, and processes that work in it and are killed.
 */
#ifndef SUPPORT_SHARED_H
#define SUPPORT_SHARED_H

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <liballoc/liballoc.h>

struct shared {
    struct la_heap *heap;
    char name[40];
};

static inline int shared_setup(void **state)
{
    static struct shared s;
    static unsigned serial;

    snprintf(s.name, sizeof(s.name), "test-%d-%u", getpid(), serial++);
    if (la_heap_create(s.name, (size_t)64 << 20, 0, &s.heap) < 0) {
        print_error("%s\n", la_last_error());
        return -1;
    }
    *state = &s;
    return 0;
}

static inline void shared_print(void *user, const char *line)
{
    (void)user;
    print_error("%s\n", line);
}

/* Every test ends with a sound heap. */
static inline int shared_teardown(void **state)
{
    struct shared *s = *state;
    int errors = la_heap_fsck(s->heap, shared_print, NULL, NULL);

    return errors || la_heap_detach(s->heap) < 0 || la_heap_remove(s->name) < 0 ? -1 : 0;
}

/* Run @work in another process that attaches the heap itself, and dies of SIGKILL when it returns. */
static inline void shared_kill_after(struct shared *s, void (*work)(struct la_heap *heap))
{
    pid_t pid = fork();
    int status;

    assert_true(pid >= 0);
    if (pid == 0) {
        struct la_heap *heap;

        if (la_heap_attach(s->name, 0, &heap) < 0)
            _exit(99);
        work(heap);
        kill(getpid(), SIGKILL);
        _exit(98);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* The same, but it ends in peace with what @work returns; attached with @flags. */
static inline int shared_run_with(struct shared *s, unsigned flags, int (*work)(struct la_heap *heap))
{
    pid_t pid = fork();
    int status;

    assert_true(pid >= 0);
    if (pid == 0) {
        struct la_heap *heap;

        if (la_heap_attach(s->name, flags, &heap) < 0)
            _exit(99);
        _exit(work(heap));
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static inline int shared_run(struct shared *s, int (*work)(struct la_heap *heap))
{
    return shared_run_with(s, 0, work);
}

static inline struct la_fsck shared_count(struct shared *s)
{
    struct la_fsck counts = { .struct_size = sizeof(counts) };

    assert_int_equal(la_heap_fsck(s->heap, shared_print, NULL, &counts), 0);
    return counts;
}

/* Indices of struct la_fsck's arrays. */
enum { FREE, HELD, IN_DOUBT, HEAP };

static inline la_link *shared_root(struct la_heap *heap, const char *name)
{
    la_link *root;

    if (la_heap_root(heap, name, &root) < 0)
        abort();
    return root;
}

#define shared_test(f) cmocka_unit_test_setup_teardown(f, shared_setup, shared_teardown)

#endif
