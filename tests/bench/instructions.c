/*
 * instructions: how many instructions does a malloc+free pair execute? Run under valgrind --tool=callgrind, which
 * counts them exactly; the counts, not the noisy times, are what a change is judged by.
 *
 * For every size two dumps with N and 2N pairs, and two of the bare loop: the difference between two dumps is what N
 * turns execute, free of the cost of the dump itself. tests/bench/run does the subtraction.
 */
#include <stdio.h>
#include <stdlib.h>
#include <valgrind/callgrind.h>

#include "bench.h"

enum { PAIRS = 10000 };

static __attribute__((noinline)) void pairs(size_t size, long count)
{
    for (long i = 0; i < count; i++) {
        void *block = malloc(size);

        bench_touch(block);
        free(block);
    }
}

/* The same loop around nothing. */
static __attribute__((noinline)) void loop(size_t size, long count)
{
    static uint64_t block;

    (void)size;
    for (long i = 0; i < count; i++)
        bench_touch(&block);
}

static void dump(void (*work)(size_t, long), const char *name, size_t size, long count)
{
    char label[64];

    snprintf(label, sizeof(label), "%s %zu %ld", name, size, count);
    work(size, 100);
    CALLGRIND_ZERO_STATS;
    work(size, count);
    CALLGRIND_DUMP_STATS_AT(label);
}

int main(void)
{
    static const size_t sizes[] = { 16, 64, 128, 256, 512, 1024, 4096, 65536 };

    dump(loop, "loop", 0, PAIRS);
    dump(loop, "loop", 0, 2 * PAIRS);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        dump(pairs, "pair", sizes[i], PAIRS);
        dump(pairs, "pair", sizes[i], 2 * PAIRS);
    }
    return 0;
}
