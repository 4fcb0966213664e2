/*
 * shared-churn PROCESSES: the churn of churn.c in one shared heap, 16 B to 4 KiB. Two processes work on the same heap,
 * each on objects of its own: how much are they in each other's way?
 */
#include <stdlib.h>

#include "shared.h"

enum { LIVE = 100000 };
static const size_t HEAP_BYTES = (size_t)1 << 30;

static uint32_t sizes[BENCH_SIZES];
static void *live[LIVE];

static void *new_object(uint64_t random)
{
    void *block = shared_alloc(sizes[(random >> 32) % BENCH_SIZES]);

    bench_touch(block);
    return block;
}

static void replace(struct bench_worker *w, unsigned long operations)
{
    unsigned count = LIVE / w->count;

    for (unsigned long i = 0; i < operations; i++) {
        uint64_t random = bench_random(&w->random);
        void **slot = &live[(uint32_t)random % count];

        shared_free(*slot);
        *slot = new_object(random);
    }
}

static void begin(struct bench_worker *w)
{
    for (unsigned i = 0; i < LIVE / w->count; i++)
        live[i] = new_object(bench_random(&w->random));
    replace(w, 2 * LIVE / w->count);
}

int main(int argc, char **argv)
{
    unsigned processes = (unsigned)bench_argument(argc, argv, 1, 1);
    struct bench_case c = { .workers = processes, .unit = 1000, .begin = begin, .work = replace };

    if (processes > 1)
        bench_start_processes(argv);
    shared_open(HEAP_BYTES, processes);
    bench_log_uniform_sizes(sizes, 16, 4096);
    bench_print(bench_measure(&c), "shared churn to 4 KiB, %s", processes > 1 ? "2 processes" : "1 process");
    if (processes > 1)
        bench_finish_processes();
    return 0;
}
