/*
 * group: 1,000,000 objects of 16 to 256 bytes that are all released together. GROUP_BACKEND names the header that says
 * how: one by one with free(), or at once. Memory is recycled: the first rounds, which fault it in, do not count.
 */
#include <stdlib.h>

#include "bench.h"
#include GROUP_BACKEND

enum { OBJECTS = 1000000, ROUNDS = 5 };

static uint32_t sizes[BENCH_SIZES];
static void *object[OBJECTS];

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static double median_per_object(uint64_t times[ROUNDS])
{
    qsort(times, ROUNDS, sizeof(times[0]), by_value);
    return (double)times[ROUNDS / 2] / OBJECTS;
}

int main(void)
{
    uint64_t allocating[ROUNDS], releasing[ROUNDS];

    bench_pin(0);
    bench_log_uniform_sizes(sizes, 16, 256);
    group_begin();
    for (int round = -1; round < ROUNDS; round++) {
        uint64_t begin = bench_cpu_clock(), middle, end;

        for (int i = 0; i < OBJECTS; i++) {
            object[i] = group_alloc(sizes[i % BENCH_SIZES]);
            bench_touch(object[i]);
        }
        middle = bench_cpu_clock();
        group_release(object, OBJECTS);
        end = bench_cpu_clock();
        if (round >= 0) {
            allocating[round] = middle - begin;
            releasing[round] = end - middle;
        }
    }
    bench_print(median_per_object(allocating), "group, allocate");
    bench_print(median_per_object(releasing), "group, free all");
    return 0;
}
