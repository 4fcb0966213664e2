/* pair THREADS: one object again and again. What does the shortest path cost, size by size? */
#include <stdlib.h>

#include "bench.h"

static size_t size;

static void pairs(struct bench_worker *w, unsigned long operations)
{
    (void)w;
    for (unsigned long i = 0; i < operations; i++) {
        void *block = malloc(size);

        bench_touch(block);
        free(block);
    }
}

int main(int argc, char **argv)
{
    static const size_t sizes[] = { 16, 64, 256, 512, 1024, 4096, 16384, 65536 };
    struct bench_case c = { .workers = (unsigned)bench_argument(argc, argv, 1, 1), .unit = 1000, .work = pairs };

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        size = sizes[i];
        bench_print(bench_measure(&c), "pair %zu B, %s", size, bench_threads(&c));
    }
    return 0;
}
