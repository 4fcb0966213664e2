/*
 * preload_chain.c - a library to preload beside liballoc-malloc.so: it chooses where an unmodified program allocates.
 *
 *     LD_PRELOAD="liballoc-malloc.so example-preload-chain.so" EXAMPLE_CHAIN=private:256 bash
 *     LD_PRELOAD="liballoc-malloc.so example-preload-chain.so" EXAMPLE_CHAIN=shared:NAME python3
 *
 *     private:MIB    a segment of MIB mebibytes, mapped here; a child of fork() gets a copy of it, as of any memory
 *     shared:NAME    an embedded shared heap; other processes can attach it and look at what the program has allocated
 *
 * Its constructor runs before main(), in the thread that will run main(), and switches that thread's default chain.
 * With EXAMPLE_REPORT=FILE each process adds a line to FILE when it ends: "PROGRAM ALLOCATIONS BYTES-MAPPED".
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <liballoc/liballoc.h>

static struct la_chain *chain;

__attribute__((noreturn)) static void fail(const char *where)
{
    fprintf(stderr, "EXAMPLE_CHAIN=%s: %s\n", where, la_last_error());
    exit(EXIT_FAILURE);
}

static struct la_chain *open_private(size_t size)
{
    void *segment = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    struct la_chain *made;

    if (segment == MAP_FAILED || la_chain_create_in(segment, size, LA_CHAIN_MT, &made) < 0)
        return NULL;
    la_chain_name(made, "example-private");
    return made;
}

static struct la_chain *open_shared(const char *name)
{
    struct la_heap *heap;

    return la_heap_open(name, (size_t)1 << 30, 0, &heap) == 0 ? la_heap_chain(heap, LA_KEEP) : NULL;
}

__attribute__((constructor)) static void choose_chain(void)
{
    const char *where = getenv("EXAMPLE_CHAIN");

    if (!where)
        return;
    if (strncmp(where, "private:", 8) == 0)
        chain = open_private(strtoul(where + 8, NULL, 10) << 20);
    else if (strncmp(where, "shared:", 7) == 0)
        chain = open_shared(where + 7);
    if (!chain)
        fail(where);
    la_default_set(chain);
    if (la_default_get() != chain)
        fail(where);
}

__attribute__((destructor)) static void report(void)
{
    const char *path = getenv("EXAMPLE_REPORT");
    struct la_stats stats = { .struct_size = sizeof(stats) };
    FILE *file;

    if (!chain || !path || la_chain_stats(chain, &stats) < 0)
        return;
    file = fopen(path, "a");
    if (!file)
        return;
    fprintf(file, "%s %" PRIu64 " %" PRIu64 "\n", program_invocation_short_name, stats.allocations, stats.mapped);
    fclose(file);
}
