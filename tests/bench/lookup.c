/*
 * lookup EXTENTS: the key of a random pointer into one of 1 ... EXTENTS extents of 2 MiB. LOOKUP_BACKEND names the header that
 * says how. The memory itself is never touched: what is measured is the way from an address to its key.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "bench.h"
#include LOOKUP_BACKEND

enum { EXTENT = 2 << 20, POINTERS = 1 << 16 };

static char *pointer[POINTERS];

static void look_up(struct bench_worker *w, unsigned long operations)
{
    uint64_t sum = 0;

    (void)w;
    for (unsigned long i = 0; i < operations; i++)
        sum += lookup_key(pointer[i % POINTERS]);
    __asm__ volatile("" : : "r"(sum));
}

int main(int argc, char **argv)
{
    unsigned long most = bench_argument(argc, argv, 1, 16384);
    struct bench_case c = { .workers = 1, .unit = POINTERS, .work = look_up };
    uint64_t random = 88172645463325252;
    char *base = mmap(NULL, (most + 1) * EXTENT, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    unsigned long made = 0;

    if (base == MAP_FAILED)
        return EXIT_FAILURE;
    base += EXTENT - (uintptr_t)base % EXTENT;
    lookup_begin(base, EXTENT, most);
    for (unsigned long extents = 1; extents <= most; extents *= extents < 64 ? 64 : 16) {
        for (; made < extents; made++)
            lookup_add(made);
        for (int i = 0; i < POINTERS; i++) {
            uint64_t r = bench_random(&random);

            pointer[i] = base + r % extents * EXTENT + (r >> 32) % EXTENT;
        }
        bench_print(bench_measure(&c), "key of a pointer, %lu extents", extents);
    }
    return EXIT_SUCCESS;
}
