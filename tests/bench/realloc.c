/* realloc: an array that grows step by step, small and big. Is a step copied, extended or remapped? */
#include <stdlib.h>

#include "bench.h"

static size_t step, limit;

static void grow(struct bench_worker *w, unsigned long operations)
{
    (void)w;
    for (unsigned long done = 0; done < operations; done += limit / step) {
        char *block = NULL;

        for (size_t size = step; size <= limit; size += step) {
            block = realloc(block, size);
            bench_touch(block + size - step);
        }
        free(block);
    }
}

int main(void)
{
    struct bench_case c = { .workers = 1, .work = grow };

    step = 64, limit = 64 << 10, c.unit = limit / step;
    bench_print(bench_measure(&c), "realloc by 64 B to 64 KiB");
    step = 64 << 10, limit = 64 << 20, c.unit = limit / step;
    bench_print(bench_measure(&c), "realloc by 64 KiB to 64 MiB");
    return 0;
}
