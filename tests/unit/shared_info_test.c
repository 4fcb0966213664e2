#include "../support/shared.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>

#include "core/shared_layout.h"

static void processes_are_listed(void **state)
{
    struct shared *s = *state;
    struct la_heap_process process;

    assert_int_equal(la_heap_processes(s->heap, &process, 1), 1);
    assert_int_equal(process.pid, getpid());
    assert_true(process.alive);
}

/* Told by a word, not by publishing: then it would be nobody's. */
static pid_t start_holder(struct shared *s)
{
    pid_t pid = fork();
    struct la_heap *heap;

    if (pid != 0)
        return pid;
    if (la_heap_attach(s->name, 0, &heap) < 0)
        _exit(99);
    atomic_store(shared_root(heap, "held"), la_heap_hold(heap, 100));
    for (;;)
        pause();
}

static void holder_of_a_block_is_told(void **state)
{
    struct shared *s = *state;
    struct la_heap_process holder;
    char *mine = la_heap_hold(s->heap, 1000), *kept = la_heap_alloc(s->heap, 100), *large = la_heap_hold(s->heap, 3 << 20), *other;
    la_link *link = shared_root(s->heap, "held");
    pid_t pid;

    assert_int_equal(la_heap_holder(s->heap, mine + 500, &holder), 0);
    assert_int_equal(holder.pid, getpid());
    assert_true(holder.self && holder.alive);
    assert_int_equal(la_heap_holder(s->heap, large + (2 << 20), &holder), 0);
    assert_true(holder.self);
    assert_int_equal(la_heap_holder(s->heap, kept, &holder), -ENOENT);
    la_free(mine);
    assert_int_equal(la_heap_holder(s->heap, mine, &holder), -ENOENT);
    assert_int_equal(la_heap_holder(s->heap, &holder, &holder), -EINVAL);

    pid = start_holder(s);
    while (!(other = atomic_load(link)))
        sched_yield();
    assert_int_equal(la_heap_holder(s->heap, other, &holder), 0);
    assert_int_equal(holder.pid, pid);
    assert_true(holder.alive && !holder.self);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(la_heap_holder(s->heap, other, &holder), 0);
    assert_false(holder.alive);
    assert_int_equal(la_heap_recover(s->heap, NULL, NULL), 1);
    assert_int_equal(la_heap_holder(s->heap, other, &holder), -ENOENT);
    atomic_store(link, NULL);
    la_free(large);
    la_free(kept);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        shared_test(processes_are_listed),
        shared_test(holder_of_a_block_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
