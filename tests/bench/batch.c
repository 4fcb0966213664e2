/* batch THREADS: 1000 objects, then all freed in the same order. Does the cost stay flat when a cache overflows? */
#include <stdlib.h>

#include "bench.h"

enum { BATCH = 1000 };

static size_t size;

static void batches(struct bench_worker *w, unsigned long operations)
{
    void *block[BATCH];

    (void)w;
    for (unsigned long done = 0; done < operations; done += BATCH) {
        for (int i = 0; i < BATCH; i++) {
            block[i] = malloc(size);
            bench_touch(block[i]);
        }
        for (int i = 0; i < BATCH; i++)
            free(block[i]);
    }
}

int main(int argc, char **argv)
{
    static const size_t sizes[] = { 16, 64, 256, 512, 1024, 4096, 32768 };
    struct bench_case c = { .workers = (unsigned)bench_argument(argc, argv, 1, 1), .unit = BATCH, .work = batches };

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        size = sizes[i];
        bench_print(bench_measure(&c), "batch %zu B, %s", size, bench_threads(&c));
    }
    return 0;
}
