/* handoff: one thread allocates, the other frees. What does a free cost that the owner does not do himself? */
#include <stdlib.h>

#include "bench.h"

static uint32_t sizes[BENCH_SIZES];

static void give(unsigned long operations)
{
    struct bench_ring *ring = bench_ring();

    for (unsigned long done = 0; done < operations; done += BENCH_RING_BATCH) {
        unsigned long first = bench_ring_room(ring);

        for (unsigned long i = first; i < first + BENCH_RING_BATCH; i++) {
            void *block = malloc(sizes[i % BENCH_SIZES]);

            bench_touch(block);
            ring->slot[i % BENCH_RING] = (uintptr_t)block;
        }
        bench_ring_given(ring, first);
    }
}

static void take(unsigned long operations)
{
    struct bench_ring *ring = bench_ring();

    for (unsigned long done = 0; done < operations; done += BENCH_RING_BATCH) {
        unsigned long first = bench_ring_wait(ring);

        for (unsigned long i = first; i < first + BENCH_RING_BATCH; i++)
            free((void *)(uintptr_t)ring->slot[i % BENCH_RING]);
        bench_ring_taken(ring, first);
    }
}

static void give_or_take(struct bench_worker *w, unsigned long operations)
{
    if (w->index == 0)
        give(operations);
    else
        take(operations);
}

int main(void)
{
    struct bench_case c = { .workers = 2, .unit = 10 * BENCH_RING_BATCH, .shared_operations = true, .work = give_or_take };

    bench_log_uniform_sizes(sizes, 64, 64);
    bench_print(bench_measure(&c), "handoff 64 B");
    bench_log_uniform_sizes(sizes, 16, 4096);
    bench_print(bench_measure(&c), "handoff mixed to 4 KiB");
    return 0;
}
