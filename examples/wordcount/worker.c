/*
 * worker.c - one of several processes that index the files of the job.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "count.h"
#include "job.h"
#include "merge.h"
#include "roles.h"
#include "steps.h"

/* The tallies are in the table; free them. Each is taken before it is freed, so that a death leaks none. */
static int free_tallies(struct la_heap *heap, struct file *file)
{
    struct tally *tally;

    while ((tally = la_take(heap, &file->tallies, offsetof(struct tally, next)))) {
        step(true);
        la_free(tally);
        step(false);
    }
    return la_load(heap, &file->tallies) ? la_last_error_code() : 0;
}

/* Bring @file, claimed by this worker, from whatever state it is in to DONE. See the table in job.h. */
static int index_file(struct la_heap *heap, struct job *job, struct file *file)
{
    int r = 0;

    if (file->merged == 0 && !la_load(heap, &file->tallies))
        r = count_file(heap, file);
    if (r == 0)
        r = merge_file(heap, job, file);
    if (r == 0)
        r = free_tallies(heap, file);
    if (r == 0)
        file->holder = DONE;
    return r;
}

static int index_files(struct la_heap *heap, struct job *job, struct file **file, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        int r = index_file(heap, job, file[i]);

        if (r < 0)
            return complain(file[i]->path, r);
    }
    return 0;
}

/* Stand at the start until all workers are there, so that the seed and not the scheduler says who works on what. */
static int wait_for_start(struct la_heap *heap, struct job *job)
{
    int r = job_lock(heap, job);

    if (r < 0)
        return complain("lock of the job", r);
    job->ready++;
    la_cond_broadcast(heap, &job->changed);
    while (!job->started && (r == 0 || r == -EOWNERDEAD))
        r = la_cond_wait(heap, &job->changed, &job->lock, NULL);
    la_mutex_unlock(heap, &job->lock);
    return r == 0 || r == -EOWNERDEAD ? 0 : complain("waiting for the start", r);
}

/* Nothing to claim, but another worker may die, and leave something. False: all files are done. */
static bool wait_for_claims(struct la_heap *heap, struct job *job)
{
    bool more = false;

    if (job_lock(heap, job) < 0)
        return false;
    while (job_count_files(job, DONE) < job->files && !(more = job_count_files(job, NOBODY) > 0))
        la_cond_wait(heap, &job->changed, &job->lock, NULL);
    /* The last to finish tells those who wait for it to die. */
    if (!more)
        la_cond_broadcast(heap, &job->changed);
    la_mutex_unlock(heap, &job->lock);
    return more;
}

static int work(struct la_heap *heap, struct job *job, uint32_t number)
{
    struct file **file = la_calloc(job->batch, sizeof(struct file *));
    int r = wait_for_start(heap, job);

    do {
        unsigned n;

        while (file && r == 0 && (n = job_claim(job, number, file)) > 0)
            r = index_files(heap, job, file, n);
        steps_end();
    } while (file && r == 0 && wait_for_claims(heap, job));
    la_free(file);
    return r;
}

int run_worker(const struct options *options)
{
    struct la_heap *heap;
    struct job *job;
    int r = open_heap(options, 0, &heap);

    if (r < 0)
        return complain("attaching the heap", r);
    r = job_find(heap, &job);
    if (r < 0)
        return complain("finding the job", r);
    steps_die_at(options->die_at, options->die_holding);
    if (work(heap, job, options->number) != 0)
        return EXIT_FAILURE;
    la_heap_detach(heap);
    return EXIT_SUCCESS;
}
