/*
 * summary.c - a process that looks at the heap after the work: is it in order, was anything leaked, what did it take?
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "heap_access.h"
#include "job.h"
#include "roles.h"

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
        fprintf(stderr, "wordcount: %" PRIu64 " blocks, %" PRIu64 " held, %" PRIu64 " in doubt, instead of %" PRIu64 "\n",
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
    int r = job_open(options, &heap, &job);

    if (r != EXIT_SUCCESS)
        return r;
    job_each_word(heap, job, add_word, &totals);
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
    print_number("workers killed", job->killed);
    print_number("  files taken over from them", job->returned);
    print_number("  blocks reclaimed", job->reclaimed_blocks);
    print_number("  bytes of these blocks", job->reclaimed_bytes);
    heap_close(heap);
    return EXIT_SUCCESS;
}

int run_remove(const struct options *options)
{
    int r = heap_remove(options);

    return r < 0 ? complain("removing the heap", r) : EXIT_SUCCESS;
}
