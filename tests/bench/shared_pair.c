/* shared-pair: one object again and again in a shared heap, one process. */
#include "shared.h"

enum { HEAP_BYTES = 256 << 20 };

static size_t size;

static void pairs(struct bench_worker *w, unsigned long operations)
{
    (void)w;
    for (unsigned long i = 0; i < operations; i++) {
        void *block = shared_alloc(size);

        bench_touch(block);
        shared_free(block);
    }
}

int main(void)
{
    static const size_t sizes[] = { 16, 64, 512, 4096 };
    struct bench_case c = { .workers = 1, .unit = 1000, .work = pairs };

    shared_open(HEAP_BYTES, 1);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        size = sizes[i];
        bench_print(bench_measure(&c), "shared pair %zu B, 1 process", size);
    }
    return 0;
}
