/*
 * churn THREADS MAX: a random one of 100,000 live objects is replaced by one of a random size, 16 B to MAX bytes.
 * What does an allocation cost in a program whose data does not fit in the cache?
 */
#include <stdio.h>
#include <stdlib.h>

#include "bench.h"

enum { LIVE = 100000 };

static uint32_t sizes[BENCH_SIZES];
static void *live[BENCH_MAX_WORKERS][LIVE];

static void *new_object(uint64_t random)
{
    void *block = malloc(sizes[(random >> 32) % BENCH_SIZES]);

    if (!block) {
        fputs("churn: no memory is left\n", stderr);
        exit(2);
    }
    bench_touch(block);
    return block;
}

static void replace(struct bench_worker *w, unsigned long operations)
{
    void **mine = live[w->index];
    unsigned count = LIVE / w->count;

    for (unsigned long i = 0; i < operations; i++) {
        uint64_t random = bench_random(&w->random);
        void **slot = &mine[(uint32_t)random % count];

        free(*slot);
        *slot = new_object(random);
    }
}

/* Every object has been replaced about twice before the clock starts: the heap looks as it will stay. */
static void begin(struct bench_worker *w)
{
    for (unsigned i = 0; i < LIVE / w->count; i++)
        live[w->index][i] = new_object(bench_random(&w->random));
    replace(w, 2 * LIVE / w->count);
}

int main(int argc, char **argv)
{
    unsigned long max = bench_argument(argc, argv, 2, 4096);
    struct bench_case c = {
        .workers = (unsigned)bench_argument(argc, argv, 1, 1), .unit = 1000, .begin = begin, .work = replace,
    };

    bench_log_uniform_sizes(sizes, 16, (uint32_t)max);
    bench_print(bench_measure(&c), "churn to %lu KiB, %s", max >> 10, bench_threads(&c));
    return 0;
}
