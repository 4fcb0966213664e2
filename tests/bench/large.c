/*
 * large: allocate a block of some MiB, write every page, free it, again and again. Does the memory stay, or is each
 * round paid in page faults? Counts the faults of ROUNDS rounds after the first one, per size and for all sizes in turn.
 */
#include <stdlib.h>
#include <sys/resource.h>

#include "bench.h"

enum { ROUNDS = 4, TOUCH_STEP = 4096 };

static const size_t sizes[] = { 1 << 20, 4 << 20, 16 << 20, 32 << 20 };
enum { SIZES = sizeof(sizes) / sizeof(sizes[0]) };

static size_t size;

static void cycle(size_t bytes)
{
    char *block = malloc(bytes);

    for (size_t at = 0; at < bytes; at += TOUCH_STEP)
        bench_touch(block + at);
    free(block);
}

static void cycle_all(void)
{
    for (int i = 0; i < SIZES; i++)
        cycle(sizes[i]);
}

static void cycle_size(void)
{
    cycle(size);
}

static void cycles(struct bench_worker *w, unsigned long operations)
{
    (void)w;
    for (unsigned long i = 0; i < operations; i++)
        cycle(size);
}

static long faults(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_minflt;
}

static long faults_after_first_round(void (*round)(void))
{
    long before;

    faults();
    round();
    before = faults();
    for (int i = 0; i < ROUNDS; i++)
        round();
    return faults() - before;
}

int main(void)
{
    struct bench_case c = { .workers = 1, .work = cycles };

    bench_pin(0);
    for (int i = 0; i < SIZES; i++) {
        size = sizes[i];
        bench_print((double)faults_after_first_round(cycle_size), "large %zu MiB, faults", size >> 20);
        bench_print(bench_measure(&c), "large %zu MiB", size >> 20);
    }
    bench_print((double)faults_after_first_round(cycle_all), "large 1 to 32 MiB in turn, faults");
    return 0;
}
