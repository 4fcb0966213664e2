/* shared-handoff: one process allocates, the other frees. The processes are unrelated but for the heap and the ring. */
#include "shared.h"

enum { HEAP_BYTES = 512 << 20 };

static uint32_t sizes[BENCH_SIZES];

static void give(unsigned long operations)
{
    struct bench_ring *ring = bench_ring();

    for (unsigned long done = 0; done < operations; done += BENCH_RING_BATCH) {
        unsigned long first = bench_ring_room(ring);

        for (unsigned long i = first; i < first + BENCH_RING_BATCH; i++) {
            void *block = shared_alloc(sizes[i % BENCH_SIZES]);

            bench_touch(block);
            ring->slot[i % BENCH_RING] = shared_word(block);
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
            shared_free(shared_block(ring->slot[i % BENCH_RING]));
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

int main(int argc, char **argv)
{
    struct bench_case c = { .workers = 2, .unit = 10 * BENCH_RING_BATCH, .shared_operations = true, .work = give_or_take };

    (void)argc;
    bench_start_processes(argv);
    shared_open(HEAP_BYTES, 2);
    bench_log_uniform_sizes(sizes, 64, 64);
    bench_print(bench_measure(&c), "cross-process free, 64 B");
    bench_log_uniform_sizes(sizes, 16, 4096);
    bench_print(bench_measure(&c), "cross-process free, mixed to 4 KiB");
    bench_finish_processes();
    return 0;
}
