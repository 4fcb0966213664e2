/*
 * job.c - make, find and hand out the work.
 */
#include <errno.h>
#include <string.h>

#include "job.h"

/* About one bucket per this many bytes of text: a few words in each, whatever the size of the job. */
enum { BYTES_PER_BUCKET = 512, BUCKETS_MIN = 1 << 8, BUCKETS_MAX = 1 << 18 };

static uint32_t buckets_for(uint64_t bytes)
{
    uint32_t buckets = BUCKETS_MIN;

    while (buckets < BUCKETS_MAX && (uint64_t)buckets * BYTES_PER_BUCKET < bytes)
        buckets *= 2;
    return buckets;
}

static void *bundle_calloc(struct la_bundle *bundle, size_t size)
{
    void *block = la_bundle_alloc(bundle, size);

    return block ? memset(block, 0, size) : NULL;
}

/* All of the job in blocks of @bundle; NULL: out of memory. */
static struct job *build_job(struct la_bundle *bundle, const char *paths, size_t paths_size, uint32_t files,
                             uint32_t buckets)
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

/* Half of the files in equal parts, so that each worker has its share however late the scheduler lets it begin. */
static void deal(struct job *job, unsigned workers)
{
    job->dealt = job->files / 2;
    job->hands = workers;
    job->next = job->dealt;
    for (uint32_t i = 0; i < job->dealt; i++)
        job->file[i].holder = 1 + i % workers;
}

int job_create(struct la_heap *heap, const char *paths, size_t paths_size, uint32_t files, uint64_t bytes,
               unsigned workers, struct job **ret)
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
    deal(job, workers);
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

    return atomic_compare_exchange_strong(&file->holder, &nobody, worker);
}

/* Those from number job->dealt on, one after the other; then what the dead gave back, which lies anywhere. */
static struct file *claim_free(struct job *job, uint32_t worker)
{
    while (job->next < job->files) {
        uint32_t i = atomic_fetch_add(&job->next, 1);

        if (i < job->files && claim(&job->file[i], worker))
            return &job->file[i];
    }
    for (uint32_t i = 0; i < job->files; i++)
        if (job->file[i].holder == NOBODY && claim(&job->file[i], worker))
            return &job->file[i];
    return NULL;
}

struct file *job_claim(struct job *job, uint32_t worker, uint32_t *cursor)
{
    uint32_t i = worker - 1 + *cursor * job->hands;

    if (worker > job->hands || i >= job->dealt)
        return claim_free(job, worker);
    ++*cursor;
    return &job->file[i];
}

unsigned job_return_claims(struct job *job, uint32_t worker)
{
    unsigned returned = 0;

    for (uint32_t i = 0; i < job->files; i++) {
        uint32_t holder = worker;

        if (atomic_compare_exchange_strong(&job->file[i].holder, &holder, NOBODY))
            returned++;
    }
    return returned;
}

uint32_t job_count_files(const struct job *job, uint32_t holder)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < job->files; i++)
        n += job->file[i].holder == holder;
    return n;
}

void job_each_word(struct la_heap *heap, struct job *job, word_visitor *visit, void *user)
{
    for (uint32_t i = 0; i < job->buckets; i++)
        for (const struct word *word = la_load(heap, &job->bucket[i].words); word; word = word->next)
            visit(word, user);
}

int job_lock(struct la_heap *heap, struct job *job)
{
    int r = la_mutex_lock(heap, &job->lock);

    return r == -EOWNERDEAD ? 0 : r;
}

int job_wait(struct la_heap *heap, struct job *job, const struct timespec *timeout)
{
    int r = la_cond_wait(heap, &job->changed, &job->lock, timeout);

    return r == -EOWNERDEAD || r == -ETIMEDOUT ? 0 : r;
}

int job_announce(struct la_heap *heap, struct job *job)
{
    la_cond_broadcast(heap, &job->changed);
    return la_mutex_unlock(heap, &job->lock);
}

uint32_t hash_of(const char *text, size_t length)
{
    uint32_t hash = 2166136261u;        /* FNV-1a */

    for (size_t i = 0; i < length; i++)
        hash = (hash ^ (unsigned char)text[i]) * 16777619u;
    return hash;
}
