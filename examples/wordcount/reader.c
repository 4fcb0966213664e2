/*
 * reader.c - processes that look at the finished table: the words, and what they cost.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "job.h"
#include "roles.h"

typedef void visitor(const struct word *word, void *user);

static void each_word(struct la_heap *heap, struct job *job, visitor *visit, void *user)
{
    for (uint32_t i = 0; i < job->buckets; i++)
        for (const struct word *word = la_load(heap, &job->bucket[i].words); word; word = word->next)
            visit(word, user);
}

static void print_word(const struct word *word, void *user)
{
    (void)user;
    printf("%" PRIu64 " %.*s\n", word->count, (int)word->length, word->text);
}

/* ---- the most frequent words ---- */

struct ranking {
    const struct word **word;   /* most frequent first */
    size_t size, capacity;
};

static bool is_more_frequent(const struct word *a, const struct word *b)
{
    return a->count > b->count;
}

static void rank_word(const struct word *word, void *user)
{
    struct ranking *ranking = user;
    size_t i = ranking->size;

    if (i < ranking->capacity)
        ranking->size++;
    else if (is_more_frequent(word, ranking->word[i - 1]))
        i--;
    else
        return;
    for (; i > 0 && is_more_frequent(word, ranking->word[i - 1]); i--)
        ranking->word[i] = ranking->word[i - 1];
    ranking->word[i] = word;
}

static int print_top(struct la_heap *heap, struct job *job, unsigned n)
{
    struct ranking ranking = { .word = la_calloc(n, sizeof(struct word *)), .capacity = n };

    if (!ranking.word)
        return complain("ranking", -1);
    each_word(heap, job, rank_word, &ranking);
    for (size_t i = 0; i < ranking.size; i++)
        printf("  %10" PRIu64 "  %.*s\n", ranking.word[i]->count, (int)ranking.word[i]->length, ranking.word[i]->text);
    la_free(ranking.word);
    return EXIT_SUCCESS;
}

int run_reader(const struct options *options)
{
    struct la_heap *heap;
    struct job *job;
    int r = open_heap(options, 0, &heap);

    if (r < 0)
        return complain("attaching the heap", r);
    r = job_find(heap, &job);
    if (r < 0)
        return complain("finding the job", r);
    if (options->top > 0)
        return print_top(heap, job, options->top);
    each_word(heap, job, print_word, NULL);
    return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* ---- the summary ---- */

struct totals {
    uint64_t words, occurrences;
};

static void add_word(const struct word *word, void *user)
{
    struct totals *totals = user;

    totals->words++;
    totals->occurrences += word->count;
}

static void print_finding(void *user, const char *line)
{
    (void)user;
    fprintf(stderr, "wordcount: fsck: %s\n", line);
}

/* Every live block of the heap is one that the job made or a word of the table: nobody leaked anything. */
static int check_blocks(struct la_heap *heap, const struct totals *totals, struct la_fsck *fsck)
{
    uint64_t expected = JOB_BLOCKS + totals->words;
    int r = la_heap_fsck(heap, print_finding, NULL, fsck);

    if (r < 0)
        return complain("checking the heap", r);
    if (r > 0)
        return EXIT_FAILURE;
    if (fsck->blocks[3] != expected || fsck->blocks[1] + fsck->blocks[2] > 0) {
        fprintf(stderr,
                "wordcount: the heap has %" PRIu64 " blocks, %" PRIu64 " held and %" PRIu64 " in doubt, instead of %" PRIu64 "\n",
                fsck->blocks[3], fsck->blocks[1], fsck->blocks[2], expected);
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}

static void print_mib(const char *what, uint64_t bytes)
{
    printf("  %-32s %12.1f MiB\n", what, (double)bytes / (1 << 20));
}

static void print_number(const char *what, uint64_t n)
{
    printf("  %-32s %12" PRIu64 "\n", what, n);
}

int run_summary(const struct options *options)
{
    struct la_heap_info info = { .struct_size = sizeof(info) };
    struct la_fsck fsck = { .struct_size = sizeof(fsck) };
    struct totals totals = { 0 };
    struct la_heap *heap;
    struct job *job;
    int r = open_heap(options, 0, &heap);

    if (r < 0)
        return complain("attaching the heap", r);
    r = job_find(heap, &job);
    if (r < 0)
        return complain("finding the job", r);
    each_word(heap, job, add_word, &totals);
    if (check_blocks(heap, &totals, &fsck) != EXIT_SUCCESS)
        return EXIT_FAILURE;
    la_heap_info(heap, &info);

    print_number("files", job->files);
    print_mib("text", job->bytes);
    print_number("words", totals.occurrences);
    print_number("different words", totals.words);
    print_number("objects in the heap", fsck.blocks[3]);
    print_mib("bytes of these objects", fsck.bytes[3]);
    print_mib("heap committed", info.committed);
    printf("  %-32s %12.2f s\n", "time", (double)job->nanoseconds / 1e9);
    print_number("workers killed", info.recovered_processes);
    print_number("  blocks reclaimed from them", info.recovered_blocks);
    print_number("  bytes of these", info.recovered_bytes);
    print_number("  files taken over", job->returned);
    return EXIT_SUCCESS;
}

int run_remove(const struct options *options)
{
    int r = la_heap_remove(options->heap);

    return r < 0 ? complain("removing the heap", r) : EXIT_SUCCESS;
}
