/*
 * job.c - make, find and hand out the work.
 */
#include <errno.h>
#include <string.h>

#include "job.h"

/* About one bucket per this many bytes of text: a few words in each, whatever the size of the job. */
enum { BYTES_PER_BUCKET = 512, BUCKETS_MIN = 1 << 8, BUCKETS_MAX = 1 << 18 };
/* A worker claims this part of its share at a time: large enough to be taken over, small enough to balance. */
enum { BATCHES_PER_WORKER = 32, BATCH_MAX = 64 };

static uint32_t buckets_for(uint64_t bytes)
{
    uint32_t buckets = BUCKETS_MIN;

    while (buckets < BUCKETS_MAX && (uint64_t)buckets * BYTES_PER_BUCKET < bytes)
        buckets *= 2;
    return buckets;
}

static uint32_t batch_for(uint32_t files, unsigned workers)
{
    uint32_t batch = files / (workers * BATCHES_PER_WORKER) + 1;

    return batch < BATCH_MAX ? batch : BATCH_MAX;
}

static void *bundle_calloc(struct la_bundle *bundle, size_t size)
{
    void *block = la_bundle_alloc(bundle, size);

    return block ? memset(block, 0, size) : NULL;
}

/* All of the job in blocks of @bundle; NULL: out of memory. */
static struct job *build_job(struct la_bundle *bundle, const char *paths, size_t paths_size, uint32_t files, uint32_t buckets)
{
    struct job *job = bundle_calloc(bundle, sizeof(*job));
    struct file *file = bundle_calloc(bundle, files * sizeof(*file));
    struct bucket *bucket = bundle_calloc(bundle, buckets * sizeof(*bucket));
    char *path = bundle_calloc(bundle, paths_size);

    if (!job || !file || !bucket || !path)
        return NULL;
    memcpy(path, paths, paths_size);
    for (uint32_t i = 0; i < files; i++) {
        file[i].path = path;
        path += strlen(path) + 1;
    }
    job->files = files;
    job->file = file;
    job->buckets = buckets;
    job->bucket = bucket;
    return job;
}

int job_create(struct la_heap *heap, const char *paths, size_t paths_size, uint32_t files, uint64_t bytes, unsigned workers,
               struct job **ret)
{
    struct la_bundle *bundle;
    struct job *job;
    la_link *root;
    int r;

    r = la_heap_root(heap, "job", &root);
    if (r < 0)
        return r;
    r = la_bundle_begin(heap, &bundle);
    if (r < 0)
        return r;
    job = build_job(bundle, paths, paths_size, files, buckets_for(bytes));
    if (!job) {
        la_bundle_abort(bundle);
        return -ENOMEM;
    }
    job->bytes = bytes;
    job->batch = batch_for(files, workers);
    r = la_bundle_publish(bundle, root, NULL, job);
    if (r < 0) {
        la_bundle_abort(bundle);
        return r;
    }
    *ret = job;
    return 0;
}

int job_find(struct la_heap *heap, struct job **ret)
{
    la_link *root;
    int r;

    r = la_heap_root(heap, "job", &root);
    if (r < 0)
        return r;
    *ret = la_load(heap, root);
    return *ret ? 0 : -ENOENT;
}

static bool claim(struct file *file, uint32_t worker)
{
    uint32_t nobody = NOBODY;

    /* Acquire: pairs with the release in job_return_claims(); sees what a dead worker did to the file. */
    return atomic_compare_exchange_strong_explicit(&file->holder, &nobody, worker, memory_order_acquire, memory_order_relaxed);
}

unsigned job_claim(struct job *job, uint32_t worker, struct file **ret)
{
    unsigned claimed = 0;
    uint32_t first = job->files;

    if (atomic_load_explicit(&job->next, memory_order_relaxed) < job->files)
        first = atomic_fetch_add_explicit(&job->next, job->batch, memory_order_relaxed);
    for (uint32_t i = first; i < job->files && i - first < job->batch; i++)
        if (claim(&job->file[i], worker))
            ret[claimed++] = &job->file[i];
    if (claimed > 0)
        return claimed;

    /* What the dead gave back lies anywhere, also what one passed over by job->next, without claiming it yet. */
    for (uint32_t i = 0; i < job->files && claimed < job->batch; i++)
        if (atomic_load_explicit(&job->file[i].holder, memory_order_relaxed) == NOBODY && claim(&job->file[i], worker))
            ret[claimed++] = &job->file[i];
    return claimed;
}

unsigned job_return_claims(struct job *job, uint32_t worker)
{
    unsigned returned = 0;

    for (uint32_t i = 0; i < job->files; i++) {
        uint32_t holder = worker;

        if (atomic_compare_exchange_strong_explicit(&job->file[i].holder, &holder, NOBODY, memory_order_acq_rel,
                                                    memory_order_relaxed))
            returned++;
    }
    return returned;
}

uint32_t job_count_files(const struct job *job, uint32_t holder)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < job->files; i++)
        n += atomic_load_explicit(&job->file[i].holder, memory_order_acquire) == holder;
    return n;
}

int job_lock(struct la_heap *heap, struct job *job)
{
    int r = la_mutex_lock(heap, &job->lock);

    return r == -EOWNERDEAD ? 0 : r;
}

uint32_t hash_of(const char *text, size_t length)
{
    uint32_t hash = 2166136261u;        /* FNV-1a */

    for (size_t i = 0; i < length; i++)
        hash = (hash ^ (unsigned char)text[i]) * 16777619u;
    return hash;
}
