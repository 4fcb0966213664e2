/*
 * job.h - what lies in the shared heap: the work to do, and the one table that all workers fill.
 *
 *     root "job" --> struct job --> struct file [files] --> tally --> tally ...      words of one file
 *                        |                |
 *                        |                '--> path
 *                        '--> struct bucket [buckets] --> word --> word ...          words of all files
 *
 * Plain structs with plain pointers: the heap lies at the same address in every process. Any worker may be
 * killed between any two instructions. What it leaves behind says how to go on, because every change that
 * others can see is one store of one word:
 *
 *     file->holder   file->merged   file->tallies
 *     NOBODY         0              NULL      nobody has begun
 *     a worker       0              NULL      being counted; the tallies are in that worker's bundle: invisible,
 *                                             and free again if it dies
 *     a worker       m              list      counted, all at once by la_bundle_publish(); the first m tallies
 *                                             are in the table
 *     a worker       ALL_MERGED     list      all are in the table; the tallies are being freed one by one
 *     DONE           ALL_MERGED     NULL
 *
 * A worker is given a file in any of these states, and continues there (worker.c).
 */
#ifndef WORDCOUNT_JOB_H
#define WORDCOUNT_JOB_H

#include <stdatomic.h>

#include <liballoc/liballoc.h>

/* How often a word occurs in one file. Part of a bundle, then of file->tallies; never changed once published. */
struct tally {
    struct tally *next;
    uint32_t index;         /* in the list, from 0 */
    uint32_t count;
    uint32_t hash;
    uint32_t length;        /* bytes of text */
    char text[];
};

struct file {
    _Atomic(uint32_t) holder;
    _Atomic(uint32_t) merged;
    la_link tallies;
    const char *path;
};

enum { NOBODY = 0, DONE = INT32_MAX };      /* file->holder; in between: number of a worker, from 1 */
#define ALL_MERGED UINT32_MAX

/* How often a word occurs in all files. */
struct word {
    struct word *next;
    _Atomic(uint64_t) count;
    uint32_t hash;
    uint32_t length;
    char text[];
};

/*
 * The words of one hash value, and the change that is being made to one of them (merge.c). All of it belongs to the
 * holder of lock; the fields are atomic for their order in time, to be seen after a kill.
 */
struct bucket {
    struct la_mutex lock;
    _Atomic(uint32_t) index;            /* of the tally that is being added */
    la_link words;
    _Atomic(struct word *) target;      /* word to change; NULL: nothing is being changed */
    _Atomic(uint64_t) count;            /* its new count */
    _Atomic(struct file *) file;        /* whose tally it is */
};

struct job {
    uint32_t files, buckets;            /* buckets: a power of two */
    uint32_t dealt, hands;              /* so many files are dealt to so many workers; the rest goes to who is free */
    uint64_t bytes;                     /* of text in all files */
    struct file *file;
    struct bucket *bucket;
    _Atomic(uint32_t) next;             /* file to claim next; a hint: a claim is what file->holder says */

    struct la_mutex lock;               /* for waiting: nothing below needs repair when its holder dies */
    struct la_cond changed;
    uint32_t ready;                     /* workers that stand at the start */
    bool started;

    /* For the summary, set by the coordinator. */
    uint64_t nanoseconds;               /* from the start to the last file */
    uint64_t killed, returned;          /* workers; files that they had claimed */
    uint64_t reclaimed_blocks, reclaimed_bytes;
};

enum { JOB_BLOCKS = 4 };                /* blocks of the heap that job_create() makes */

/* @paths: @files strings, each with its NUL, one after the other. Sets the root "job". */
int job_create(struct la_heap *heap, const char *paths, size_t paths_size, uint32_t files, uint64_t bytes,
               unsigned workers, struct job **ret);
/* The job of @heap, made by another process. Return: 0, -ENOENT. */
int job_find(struct la_heap *heap, struct job **ret);

/*
 * The next file for @worker to work on: one dealt to it, else one that nobody has claimed. @cursor: how far the worker
 * has come, at first 0. NULL: every file is done or somebody else's.
 */
struct file *job_claim(struct job *job, uint32_t worker, uint32_t *cursor);
/* What the dead @worker had claimed is anybody's again. Return: number of files. */
unsigned job_return_claims(struct job *job, uint32_t worker);

/* Number of files with @holder (also NOBODY and DONE). */
uint32_t job_count_files(const struct job *job, uint32_t holder);

/* Call @visit for every word of the table. No worker may be at work. */
typedef void word_visitor(const struct word *word, void *user);
void job_each_word(struct la_heap *heap, struct job *job, word_visitor *visit, void *user);

/*
 * job->lock: take it, wait under it for a change or until @timeout (NULL: for ever), tell everybody of a change and
 * give it back. When a holder has died there is nothing to repair. Return: 0 or a negative errno.
 */
int job_lock(struct la_heap *heap, struct job *job);
int job_wait(struct la_heap *heap, struct job *job, const struct timespec *timeout);
int job_announce(struct la_heap *heap, struct job *job);

uint32_t hash_of(const char *text, size_t length);

#endif
