/*
 * resident: 64 MiB of live objects, log-uniform 16 B to 32 KiB, every byte written. How many bytes of memory does one
 * live byte take? Second line: what stays after everything has been freed, in MiB.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"

enum { MAX_OBJECTS = 1 << 16 };
static const size_t LIVE_BYTES = 64 << 20;

static uint32_t sizes[BENCH_SIZES];
static void *object[MAX_OBJECTS];

/* The page counts of the process, second field; no stdio, which would allocate. */
static double resident_bytes(void)
{
    char text[128] = "";
    unsigned long total = 0, resident = 0;
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);

    if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0 || sscanf(text, "%lu %lu", &total, &resident) != 2) {
        fputs("resident: /proc/self/statm cannot be read\n", stderr);
        exit(2);
    }
    close(fd);
    return (double)resident * (double)sysconf(_SC_PAGESIZE);
}

int main(void)
{
    double before, full;
    size_t live = 0;
    int count = 0;

    bench_log_uniform_sizes(sizes, 16, 32768);
    memset(object, 1, sizeof(object));
    resident_bytes();
    before = resident_bytes();
    while (live < LIVE_BYTES && count < MAX_OBJECTS) {
        size_t size = sizes[count];

        object[count] = malloc(size);
        memset(object[count++], 1, size);
        live += size;
    }
    full = resident_bytes();
    for (int i = 0; i < count; i++)
        free(object[i]);

    bench_print((full - before) / (double)live, "resident bytes per live byte, 16 B to 32 KiB");
    bench_print((resident_bytes() - before) / (1 << 20), "MiB that stay after all is freed");
    return 0;
}
