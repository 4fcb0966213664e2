/*
 * shared_queue.c - two processes produce, two consume: a queue of objects in a shared heap.
 *
 * The first process makes the heap and the queue, and starts this program again as producers and consumers (by exec: nothing is inherited).
 * A job is a block of the heap. Whoever has popped it holds it: kill -9 any of them, anywhere, and the job it had is freed, the others go on,
 * and the queue is as good as before. Closing the queue tells the consumers that no more will come.
 */
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <liballoc/liballoc.h>

enum { JOBS = 20000, PRODUCERS = 2, CONSUMERS = 2, CAPACITY = 64 };

struct job {
    int producer, number;
};

extern char **environ;

static int fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, la_last_error());
    return EXIT_FAILURE;
}

static int produce(struct la_heap *heap, struct la_queue *queue, int producer)
{
    for (int i = 1; i <= JOBS; i++) {
        struct job *job = la_heap_hold(heap, sizeof(*job));     /* ours: freed if we die now */

        if (!job)
            return fail("no room for a job");
        *job = (struct job){ .producer = producer, .number = i };
        if (la_queue_push(heap, queue, job, LA_FOREVER) < 0)    /* from now on the heap's; waits while the queue is full */
            return fail("push");
    }
    return EXIT_SUCCESS;
}

static int consume(struct la_heap *heap, struct la_queue *queue)
{
    int last[PRODUCERS] = { 0 };
    la_link *sum;
    void *block;
    long done = 0;

    if (la_heap_root(heap, "jobs-done", &sum) < 0)              /* a root may also be a plain number */
        return fail("root");
    while (la_queue_pop(heap, queue, LA_FOREVER, &block) == 0) {
        struct job *job = block;                                /* ours again */

        if (job->number <= last[job->producer])
            return fail("jobs of one producer come in its order");
        last[job->producer] = job->number;
        done++;
        la_free(job);                                           /* allocated by another process */
    }
    printf("consumer, process %d: did %ld jobs\n", (int)getpid(), done);
    atomic_fetch_add((_Atomic(uintptr_t) *)sum, (uintptr_t)done);
    return EXIT_SUCCESS;
}

/* shared_queue HEAP ROLE: a number for a producer, "consumer" */
static int be_worker(const char *name, const char *role)
{
    struct la_queue *queue;
    struct la_heap *heap;

    if (la_heap_attach(name, 0, &heap) < 0 || la_queue_open(heap, "jobs", &queue) < 0)
        return fail("worker");
    return strcmp(role, "consumer") == 0 ? consume(heap, queue) : produce(heap, queue, atoi(role));
}

static int wait_for(const pid_t *workers, int n)
{
    int status, bad = 0;

    for (int i = 0; i < n; i++)
        bad |= waitpid(workers[i], &status, 0) != workers[i] || status != 0;
    return bad;
}

int main(int argc, char **argv)
{
    char name[64], *roles[] = { "0", "1", "consumer", "consumer" };
    pid_t workers[PRODUCERS + CONSUMERS];
    struct la_queue *queue;
    struct la_heap *heap;
    la_link *sum;
    int bad;

    if (argc == 3)
        return be_worker(argv[1], argv[2]);
    snprintf(name, sizeof(name), "example-queue-%d", (int)getpid());
    if (la_heap_create(name, 64 << 20, 0, &heap) < 0 || la_queue_create(heap, "jobs", CAPACITY, &queue) < 0 ||
        la_heap_root(heap, "jobs-done", &sum) < 0)
        return fail("heap");
    for (int i = 0; i < PRODUCERS + CONSUMERS; i++)
        if (posix_spawn(&workers[i], "/proc/self/exe", NULL, NULL, (char *[]){ argv[0], name, roles[i], NULL }, environ) != 0)
            return fail("spawn");
    bad = wait_for(workers, PRODUCERS);
    la_queue_close(heap, queue);                                /* the consumers finish what is there */
    bad |= wait_for(workers + PRODUCERS, CONSUMERS);
    bad |= atomic_load((_Atomic(uintptr_t) *)sum) != (uintptr_t)PRODUCERS * JOBS || la_queue_destroy(heap, queue) < 0;
    printf("%s: %d jobs, each done once\n", bad ? "FAILED" : "ok", PRODUCERS * JOBS);
    la_heap_detach(heap);
    la_heap_remove(name);
    return bad ? EXIT_FAILURE : EXIT_SUCCESS;
}
