/*
 * merge.c - add a tally to the table exactly once, though one may be killed at any instruction of it.
 *
 * Two words have to change: the word's count, and the marker that says so (file->merged). No store changes both, so
 * the change is written down first, in the bucket, with the new count instead of the difference:
 *
 *     lock the bucket
 *     1  bucket: index, count, file            what would be done
 *     2  bucket->target = word                 decided
 *     3  word->count = bucket->count           done again, it does no harm
 *     4  file->merged: index -> index + 1      compare-and-swap: done again, it does nothing
 *     5  bucket->target = NULL
 *     unlock
 *
 * Killed before 2, nothing has happened, and file->merged still says so. Killed later, the next one to lock the bucket,
 * for whatever word, is told -EOWNERDEAD and does 3 to 5. Whoever takes the file over locks the bucket of the tally in
 * doubt before it looks at the marker, and so cannot miss that. The marker lies in the file, which is never freed, and
 * not in the tally: step 4 may be done again when the tally is gone.
 *
 * The fields are _Atomic, and an assignment to one is sequentially consistent: the order above is the order in memory.
 */
#include <errno.h>
#include <string.h>

#include "merge.h"
#include "steps.h"

static struct word *find_word(struct la_heap *heap, struct bucket *bucket, const struct tally *tally)
{
    struct word *word = la_load(heap, &bucket->words);

    while (word && !(word->hash == tally->hash && word->length == tally->length &&
                     memcmp(word->text, tally->text, word->length) == 0))
        word = word->next;
    return word;
}

/* A new word that occurs nowhere yet. If its maker dies now it stays so until the tally is merged by somebody else. */
static struct word *insert_word(struct la_heap *heap, struct bucket *bucket, const struct tally *tally)
{
    struct word *word = la_heap_hold(heap, sizeof(*word) + tally->length);

    if (!word)
        return NULL;
    step(false);
    *word = (struct word){ .hash = tally->hash, .length = tally->length };
    memcpy(word->text, tally->text, tally->length);
    if (la_push(heap, &bucket->words, word, offsetof(struct word, next)) < 0) {
        la_free(word);
        return NULL;
    }
    step(false);
    return word;
}

/* Steps 1 and 2. */
static void decide(struct bucket *bucket, struct word *word, struct file *file, const struct tally *tally)
{
    bucket->index = tally->index;
    bucket->count = word->count + tally->count;
    bucket->file = file;
    step(false);
    bucket->target = word;
    step(false);
}

/* Steps 3 to 5, if something was decided. */
static void complete(struct bucket *bucket)
{
    struct word *word = bucket->target;
    struct file *file = bucket->file;
    uint32_t index = bucket->index;

    if (!word)
        return;
    word->count = bucket->count;
    step(false);
    atomic_compare_exchange_strong(&file->merged, &index, index + 1);
    step(false);
    bucket->target = NULL;
    step(false);
}

/* The bucket is locked, and nothing is being changed in it. */
static int add_tally(struct la_heap *heap, struct bucket *bucket, struct file *file, const struct tally *tally)
{
    struct word *word;

    if (file->merged != tally->index)   /* just completed for its dead worker */
        return 0;
    word = find_word(heap, bucket, tally);
    if (!word)
        word = insert_word(heap, bucket, tally);
    if (!word)
        return -ENOMEM;
    decide(bucket, word, file, tally);
    complete(bucket);
    return 0;
}

static int merge_tally(struct la_heap *heap, struct job *job, struct file *file, const struct tally *tally)
{
    struct bucket *bucket = &job->bucket[tally->hash & (job->buckets - 1)];
    int r = la_mutex_lock(heap, &bucket->lock), unlocked;

    if (r == -EOWNERDEAD)
        complete(bucket);
    else if (r < 0)
        return r;
    step(false);
    r = add_tally(heap, bucket, file, tally);
    unlocked = la_mutex_unlock(heap, &bucket->lock);
    return r < 0 ? r : unlocked;
}

int merge_file(struct la_heap *heap, struct job *job, struct file *file)
{
    uint32_t merged = file->merged;

    if (merged == ALL_MERGED)
        return 0;
    for (const struct tally *tally = la_load(heap, &file->tallies); tally; tally = tally->next) {
        int r = tally->index < merged ? 0 : merge_tally(heap, job, file, tally);

        if (r < 0)
            return r;
    }
    file->merged = ALL_MERGED;
    step(false);
    return 0;
}
