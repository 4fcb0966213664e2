/*
 * bench.h - what every benchmark shares: workers, clocks, sizes, and the lines it prints.
 *
 * A program measures one question and prints one line per result, "NAME<tab>VALUE"; tests/bench/run starts it under
 * each allocator, compares, and knows which unit the value has. A measurement is a struct bench_case: work() is called
 * with a number of operations that makes all repetitions together last 50 ms (LIBALLOC_BENCH_MS sets another length).
 *
 *   one worker       the CPU clock, because other programs may run; the median of 5 repetitions
 *   several workers  the wall clock, from the first start to the last end; the fastest of 25 repetitions
 *
 * Workers are threads, or processes that are started by fork and exec and run the same main(): both pass through the
 * same calls of bench_measure() and meet at its barriers.
 */
#ifndef TESTS_BENCH_BENCH_H
#define TESTS_BENCH_BENCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    BENCH_MAX_WORKERS = 2,
    BENCH_SIZES = 1 << 16,              /* length of a table of random sizes; a power of two */
    BENCH_RING = 1 << 14,               /* objects in a ring; a power of two */
};

/* Of one process or thread that works. */
struct bench_worker {
    unsigned index;                     /* 0 measures and prints, the others follow */
    unsigned count;                     /* workers of the case */
    uint64_t random;                    /* state of bench_random(); the same in every run */
};

struct bench_case {
    unsigned workers;
    unsigned long unit;                 /* the number of operations is a multiple of this; 0 means 1 */
    bool shared_operations;             /* the workers do each operation together (one gives, one takes) */
    void (*begin)(struct bench_worker *);               /* not measured; may be NULL */
    void (*work)(struct bench_worker *, unsigned long operations);
    void (*end)(struct bench_worker *);                 /* not measured; may be NULL */
};

/* Returns nanoseconds per operation in worker 0, 0 in the processes that follow. */
double bench_measure(const struct bench_case *c);

static inline const char *bench_threads(const struct bench_case *c)
{
    return c->workers == 1 ? "1 thread" : "2 threads";
}

/* Prints one result; does nothing in the processes that follow. */
void bench_print(double value, const char *name, ...) __attribute__((format(printf, 2, 3)));

/* Start the second process of this program. Call it first in main(); both go on from here. */
void bench_start_processes(char **argv);
bool bench_is_first(void);
pid_t bench_first_pid(void);
/* Both processes wait here for each other. */
void bench_meet(void);
/* The first process waits for the end of the other. One that fails has ended both before. */
void bench_finish_processes(void);

/* Nanoseconds of CPU that this process has used. */
uint64_t bench_cpu_clock(void);

/* Keep the calling thread on one processor; bench_measure() does it for its workers. */
void bench_pin(unsigned worker);

/* Programs have few arguments and read them by position. */
unsigned long bench_argument(int argc, char **argv, int index, unsigned long fallback);

static inline uint64_t bench_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Fill a table with log-uniform sizes from @min to @max bytes: every power of two is as likely as the next. */
void bench_log_uniform_sizes(uint32_t sizes[BENCH_SIZES], uint32_t min, uint32_t max);

/* Use a block as a program would: write its first bytes. The compiler cannot leave out the block. */
static inline void bench_touch(void *block)
{
    *(uint64_t *)block = (uintptr_t)block;
    __asm__ volatile("" : : "r"(block) : "memory");
}

/*
 * A ring of objects from one worker to the other. Both sides move their index only every BENCH_RING_BATCH objects, so
 * that the ring's own cache lines do not cover the allocator's cost.
 *   given: written by the giver;  taken: written by the taker;  slot: by the giver, before given passes it
 */
enum { BENCH_RING_BATCH = 64 };

struct bench_ring {
    _Alignas(64) _Atomic unsigned long given;
    _Alignas(64) _Atomic unsigned long taken;
    _Alignas(64) uint64_t slot[BENCH_RING];
};

/* In memory that all workers see, threads and processes. */
struct bench_ring *bench_ring(void);

/* Let the other worker run: it may need this processor. */
void bench_relax(unsigned *turns);

/* Both move a whole batch: wait until there is room for it, or until it is there. Returns the first slot's index. */
static inline unsigned long bench_ring_room(struct bench_ring *ring)
{
    unsigned long given = atomic_load_explicit(&ring->given, memory_order_relaxed);
    unsigned turns = 0;

    /* Acquire: the taker has read the slots that are written next. Pairs with bench_ring_taken(). */
    while (given + BENCH_RING_BATCH - atomic_load_explicit(&ring->taken, memory_order_acquire) > BENCH_RING)
        bench_relax(&turns);
    return given;
}

static inline void bench_ring_given(struct bench_ring *ring, unsigned long first)
{
    atomic_store_explicit(&ring->given, first + BENCH_RING_BATCH, memory_order_release);
}

static inline unsigned long bench_ring_wait(struct bench_ring *ring)
{
    unsigned long taken = atomic_load_explicit(&ring->taken, memory_order_relaxed);
    unsigned turns = 0;

    /* Acquire: the slots and the objects they name are written. Pairs with bench_ring_given(). */
    while (atomic_load_explicit(&ring->given, memory_order_acquire) - taken < BENCH_RING_BATCH)
        bench_relax(&turns);
    return taken;
}

static inline void bench_ring_taken(struct bench_ring *ring, unsigned long first)
{
    atomic_store_explicit(&ring->taken, first + BENCH_RING_BATCH, memory_order_release);
}

#endif
