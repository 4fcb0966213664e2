/*
 * shared_list.c - a list in memory that two unrelated processes share.
 *
 * The first process makes the heap, starts this program again as "consumer" (by exec: nothing is inherited), and pushes
 * tasks. The consumer takes and frees them. Tasks hold plain pointers, for the heap lies at the same address in both. A
 * task is always either in the list, or held by one process and free when that dies: kill -9 either of them, anywhere,
 * and nothing is lost or leaked.
 */
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <liballoc/liballoc.h>

enum { TASKS = 10000 };

struct task {
    struct task *next;
    const char *unit;       /* another block of the heap, which all tasks share */
    int amount;
};

extern char **environ;

static int fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, la_last_error());
    return EXIT_FAILURE;
}

static int consume(const char *name)
{
    struct la_heap *heap;
    la_link *list;
    const char *unit = NULL;
    long apples = 0;

    if (la_heap_attach(name, 0, &heap) < 0 || la_heap_root(heap, "tasks", &list) < 0)
        return fail("consumer");
    for (int tasks = 0; tasks < TASKS;) {
        struct task *task = la_take(heap, list, offsetof(struct task, next));      /* ours from here on */

        if (!task) {
            sched_yield();      /* nothing there yet; la_cond_wait() would sleep */
            continue;
        }
        unit = task->unit;
        apples += strcmp(unit, "apples") == 0 ? task->amount : 0;
        tasks++;
        la_free(task);          /* the other process has allocated it */
    }
    printf("consumer, process %d: took %d tasks, %ld %s; their unit lies at %p\n", (int)getpid(), TASKS, apples, unit,
           (const void *)unit);
    la_heap_detach(heap);
    return apples == (long)TASKS * (TASKS + 1) / 2 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* A string of the heap that the root "unit" keeps. */
static char *publish_unit(struct la_heap *heap)
{
    char *unit = la_heap_hold(heap, sizeof("apples"));
    la_link *root;

    if (!unit || la_heap_root(heap, "unit", &root) < 0)
        return NULL;
    strcpy(unit, "apples");
    return la_publish(heap, root, NULL, unit) == 0 ? unit : NULL;
}

static int produce(struct la_heap *heap)
{
    const char *unit = publish_unit(heap);
    la_link *list;

    if (!unit || la_heap_root(heap, "tasks", &list) < 0)
        return fail("producer");
    for (int i = 1; i <= TASKS; i++) {
        struct task *task = la_heap_hold(heap, sizeof(*task));  /* ours until it is pushed */

        if (!task)
            return fail("producer");
        *task = (struct task){ .unit = unit, .amount = i };
        if (la_push(heap, list, task, offsetof(struct task, next)) < 0)
            return fail("producer");
    }
    printf("producer, process %d: pushed %d tasks; their unit lies at %p\n", (int)getpid(), TASKS, (const void *)unit);
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    struct la_fsck fsck = { .struct_size = sizeof(fsck) };
    char name[40], *consumer_argv[] = { argv[0], "consumer", name, NULL };
    struct la_heap *heap;
    pid_t consumer;
    int status, failed;

    if (argc == 3 && strcmp(argv[1], "consumer") == 0)
        return consume(argv[2]);

    snprintf(name, sizeof(name), "shared_list-%d", (int)getpid());
    if (la_heap_create(name, (size_t)64 << 20, 0, &heap) < 0)
        return fail("creating the heap");
    if (posix_spawn(&consumer, "/proc/self/exe", NULL, NULL, consumer_argv, environ) != 0)
        return EXIT_FAILURE;
    failed = produce(heap);
    if (failed)
        kill(consumer, SIGKILL);
    waitpid(consumer, &status, 0);

    /* What is left: the unit. */
    failed |= status != 0 || la_heap_fsck(heap, NULL, NULL, &fsck) != 0 || fsck.blocks[3] != 1;
    printf("live blocks at the end: %llu\n", (unsigned long long)fsck.blocks[3]);
    la_heap_detach(heap);
    la_heap_remove(name);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
