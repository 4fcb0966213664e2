/*
 * shared-live MILLIONS: a heap full of small live blocks, of which another process frees one in 1000 and the owner
 * allocates as many anew. Does either cost grow with the number of live blocks? A sweep over everything would show.
 *
 *   owner                                  other process
 *   writes the blocks to be freed  --->
 *                                  meet    frees them; writes its time
 *   allocates as many              <--- meet
 *
 * Only one of the two works at any time, so each takes its own CPU clock.
 */
#include <stdlib.h>

#include "shared.h"

/* Rounds enough that the faults by which the other process maps the pages of 10 M blocks are not what is measured: they were half of it with 10. */
enum { BLOCK_BYTES = 32, ONE_IN = 1000, FREES_PER_ROUND = 10000, MIN_ROUNDS = 100 };
_Static_assert(FREES_PER_ROUND < (int)BENCH_RING, "a round's blocks fit in the ring's slots, with one for the time");
static const size_t HEAP_BYTES = (size_t)1 << 30;

struct cost {
    double free_ns, alloc_ns;
};

/* What the two processes tell each other; the ring's slots serve as plain shared memory. */
static uint64_t *table(void)
{
    return bench_ring()->slot;
}

static uint64_t *time_cell(void)
{
    return &bench_ring()->slot[BENCH_RING - 1];
}

static void *new_block(void)
{
    void *block = shared_alloc(BLOCK_BYTES);

    if (!block) {
        fputs("shared-live: the heap is full\n", stderr);
        exit(2);
    }
    bench_touch(block);
    return block;
}

/* Round @round frees the blocks round, round + 1000, round + 2000 ... */
static void owner_round(void **live, unsigned long blocks, unsigned long round, struct cost *sum)
{
    unsigned long first = round % ONE_IN, count = blocks / ONE_IN;
    uint64_t begin;

    for (unsigned long i = 0; i < count; i++)
        table()[i] = shared_word(live[first + i * ONE_IN]);
    bench_meet();
    bench_meet();
    begin = bench_cpu_clock();
    for (unsigned long i = 0; i < count; i++)
        live[first + i * ONE_IN] = new_block();
    sum->alloc_ns += (double)(bench_cpu_clock() - begin);
    sum->free_ns += (double)*time_cell();
}

static void other_round(unsigned long blocks)
{
    uint64_t begin;

    bench_meet();
    begin = bench_cpu_clock();
    for (unsigned long i = 0; i < blocks / ONE_IN; i++)
        shared_free(shared_block(table()[i]));
    *time_cell() = bench_cpu_clock() - begin;
    bench_meet();
}

/* The same number of frees however many blocks live. */
static struct cost measure(void **live, unsigned long blocks)
{
    unsigned long rounds = MIN_ROUNDS * (FREES_PER_ROUND / (blocks / ONE_IN));
    struct cost sum = { 0, 0 };

    for (unsigned long round = 0; round < rounds; round++) {
        if (bench_is_first())
            owner_round(live, blocks, round, &sum);
        else
            other_round(blocks);
    }
    sum.free_ns /= (double)(rounds * (blocks / ONE_IN));
    sum.alloc_ns /= (double)(rounds * (blocks / ONE_IN));
    return sum;
}

static void print(struct cost cost, unsigned long count, const char *unit)
{
    bench_print(cost.free_ns, "cross-process free, %lu %s live, the free", count, unit);
    bench_print(cost.alloc_ns, "cross-process free, %lu %s live, the owner's next allocation", count, unit);
}

int main(int argc, char **argv)
{
    unsigned long few = 100000, many = bench_argument(argc, argv, 1, 10) * 1000000;
    void **live = NULL;
    struct cost with_few, with_many;

    if (many < few || many / ONE_IN > FREES_PER_ROUND) {
        fputs("shared-live: MILLIONS is from 1 to 10\n", stderr);
        return 2;
    }
    bench_start_processes(argv);
    bench_pin(bench_is_first() ? 0 : 1);
    shared_open(HEAP_BYTES, 2);
    if (bench_is_first()) {
        live = malloc(many * sizeof(*live));
        for (unsigned long i = 0; i < few; i++)
            live[i] = new_block();
    }
    with_few = measure(live, few);
    if (bench_is_first()) {
        for (unsigned long i = few; i < many; i++)
            live[i] = new_block();
    }
    with_many = measure(live, many);

    print(with_few, few / 1000, "k");
    print(with_many, many / 1000000, "M");
    bench_print((with_many.free_ns + with_many.alloc_ns) / (with_few.free_ns + with_few.alloc_ns),
                "cross-process free, %lu M live, times the cost with %lu k live", many / 1000000, few / 1000);
    bench_finish_processes();
    return 0;
}
