/*
 * shared-live MILLIONS: blocks that the owner of their pages allocated are freed by another process, in three heaps: 10,000 blocks in a row, all of which
 * go; and 100,000 and MILLIONS million live ones, of which one in 1,000 goes. What does it cost beside a free of the owner's own, and does it grow with
 * the number of live blocks? A sweep over everything would show.
 *
 *   owner                                  other process
 *   names the blocks to be freed   --->
 *                                  meet    frees them; writes its time
 *   allocates as many              <--- meet
 *   frees as many itself, and allocates them again
 *
 * Only one of the two works at any time, so each takes its own CPU clock.
 */
#include <stdlib.h>

#include "shared.h"

/* Rounds enough that the faults by which the other process maps the pages of 10 M blocks are not what is measured: they were half of it with 10. */
enum { BLOCK_BYTES = 32, FREES_PER_ROUND = 10000, ROUNDS = 100 };
_Static_assert(FREES_PER_ROUND < (int)BENCH_RING, "a round's blocks fit in the ring's slots, with one for the time");
static const size_t HEAP_BYTES = (size_t)1 << 30;

/* Of @blocks live ones one in @one_in is freed in each round. */
struct course {
    const char *name;
    unsigned long blocks, one_in;
};

/* Nanoseconds per block. */
struct cost {
    double free, allocation, local_free;
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

static unsigned long per_round(const struct course *c)
{
    return c->blocks / c->one_in;
}

/* Return: when it was done. */
static uint64_t allocate(const struct course *c, void **live, unsigned long first)
{
    for (unsigned long i = first; i < c->blocks; i += c->one_in)
        live[i] = new_block();
    return bench_cpu_clock();
}

static void owner_round(const struct course *c, void **live, unsigned long round, struct cost *sum)
{
    unsigned long first = round % c->one_in, other = (round + c->one_in / 2) % c->one_in;
    uint64_t begin;

    for (unsigned long i = 0; i < per_round(c); i++)
        table()[i] = shared_word(live[first + i * c->one_in]);
    bench_meet();
    bench_meet();
    begin = bench_cpu_clock();
    sum->allocation += (double)(allocate(c, live, first) - begin);
    sum->free += (double)*time_cell();

    begin = bench_cpu_clock();
    for (unsigned long i = other; i < c->blocks; i += c->one_in)
        shared_free(live[i]);
    sum->local_free += (double)(bench_cpu_clock() - begin);
    allocate(c, live, other);
}

static void other_round(const struct course *c)
{
    uint64_t begin;

    bench_meet();
    begin = bench_cpu_clock();
    for (unsigned long i = 0; i < per_round(c); i++)
        shared_free(shared_block(table()[i]));
    *time_cell() = bench_cpu_clock() - begin;
    bench_meet();
}

/* The same number of frees however many blocks live. */
static struct cost measure(const struct course *c, void **live)
{
    unsigned long rounds = ROUNDS * (FREES_PER_ROUND / per_round(c));
    double frees = (double)(rounds * per_round(c));
    struct cost sum = { 0, 0, 0 };

    for (unsigned long round = 0; round < rounds; round++) {
        if (bench_is_first())
            owner_round(c, live, round, &sum);
        else
            other_round(c);
    }
    return (struct cost){ sum.free / frees, sum.allocation / frees, sum.local_free / frees };
}

static void print(const struct course *c, const struct cost *cost)
{
    bench_print(cost->free, "cross-process free, %s, the free", c->name);
    bench_print(cost->local_free, "free by the owner, %s", c->name);
    bench_print(cost->free / cost->local_free, "cross-process free, %s, times one by the owner", c->name);
    bench_print(cost->allocation, "cross-process free, %s, the owner's next allocation", c->name);
}

int main(int argc, char **argv)
{
    unsigned long millions = bench_argument(argc, argv, 1, 10), allocated = 0;
    char many[32];
    const struct course courses[] = { { "10 k in a row", 10000, 1 }, { "100 k live", 100000, 1000 }, { many, millions * 1000000, 1000 } };
    struct cost cost[3];
    void **live = NULL;

    if (millions < 1 || millions > 10) {
        fputs("shared-live: MILLIONS is from 1 to 10\n", stderr);
        return 2;
    }
    snprintf(many, sizeof(many), "%lu M live", millions);
    bench_start_processes(argv);
    bench_pin(bench_is_first() ? 0 : 1);
    shared_open(HEAP_BYTES, 2);
    if (bench_is_first())
        live = malloc(courses[2].blocks * sizeof(*live));
    for (int i = 0; i < 3; i++) {
        for (; bench_is_first() && allocated < courses[i].blocks; allocated++)
            live[allocated] = new_block();
        cost[i] = measure(&courses[i], live);
        if (bench_is_first())
            print(&courses[i], &cost[i]);
    }
    if (bench_is_first())
        bench_print((cost[2].free + cost[2].allocation) / (cost[1].free + cost[1].allocation),
                    "cross-process free, %s, times the cost with 100 k live", many);
    bench_finish_processes();
    return 0;
}
