/*
 * reader.c - a process that looks at the finished table: all words, or the most frequent ones.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "heap_access.h"
#include "job.h"
#include "roles.h"

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
        return complain("ranking", -ENOMEM);
    job_each_word(heap, job, rank_word, &ranking);
    for (size_t i = 0; i < ranking.size; i++)
        printf("  %10" PRIu64 "  %.*s\n", ranking.word[i]->count, (int)ranking.word[i]->length, ranking.word[i]->text);
    la_free(ranking.word);
    return 0;
}

int run_reader(const struct options *options)
{
    struct la_heap *heap;
    struct job *job;
    int r = job_open(options, &heap, &job);

    if (r != EXIT_SUCCESS)
        return r;
    if (options->top > 0)
        r = print_top(heap, job, options->top);
    else
        job_each_word(heap, job, print_word, NULL);
    heap_close(heap);
    return r == 0 && fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
