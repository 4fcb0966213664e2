/*
 * worker.c - one of several processes that index the files of the job.
 */
#include <stdlib.h>

#include "count.h"
#include "heap_access.h"
#include "job.h"
#include "merge.h"
#include "roles.h"
#include "steps.h"

/* The tallies are in the table; free them. Each is taken before it is freed, so that a death leaks none. */
static int free_tallies(struct la_heap *heap, struct file *file)
{
    struct tally *tally;

    while ((tally = la_take(heap, &file->tallies, offsetof(struct tally, next)))) {
        step(false);
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

/* Stand at the start until all workers are there, so that the seed and not the scheduler says who works on what. */
static int wait_for_start(struct la_heap *heap, struct job *job)
{
    int r = job_lock(heap, job);

    if (r < 0)
        return r;
    job->ready++;
    la_cond_broadcast(heap, &job->changed);
    while (r == 0 && !job->started)
        r = job_wait(heap, job, NULL);
    return r < 0 ? r : la_mutex_unlock(heap, &job->lock);
}

/* Nothing to claim, but another worker may die, and leave something. 1: it has, 0: all files are done. */
static int wait_for_claims(struct la_heap *heap, struct job *job)
{
    bool more = false;
    int r = job_lock(heap, job);

    while (r == 0 && job_count_files(job, DONE) < job->files && !(more = job_count_files(job, NOBODY) > 0))
        r = job_wait(heap, job, NULL);
    /* The last to finish tells those who wait for it to die. */
    if (r == 0)
        r = job_announce(heap, job);
    return r < 0 ? r : more;
}

static int index_files(struct la_heap *heap, struct job *job, uint32_t number, uint32_t *cursor)
{
    struct file *file;

    while ((file = job_claim(job, number, cursor))) {
        int r = index_file(heap, job, file);

        if (r < 0) {
            complain(file->path, r);
            return r;
        }
    }
    return 0;
}

static int work(struct la_heap *heap, struct job *job, uint32_t number)
{
    uint32_t cursor = 0;
    int r = wait_for_start(heap, job);

    do {
        if (r >= 0)
            r = index_files(heap, job, number, &cursor);
        if (r == 0) {
            steps_end();
            r = wait_for_claims(heap, job);
        }
    } while (r > 0);
    return r;
}

int run_worker(const struct options *options)
{
    struct la_heap *heap;
    struct job *job;
    int r = job_open(options, &heap, &job);

    if (r != EXIT_SUCCESS)
        return r;
    steps_die_at(options->die_at, options->die_in_bundle);
    r = work(heap, job, options->number);
    if (r < 0)
        return complain("working", r);
    heap_close(heap);
    return EXIT_SUCCESS;
}
