/*
 * own_source.c - plug in your own kind of memory.
 *
 * A source is a table of functions. This one takes memory that is backed by a file, so that the system may write it to
 * a disk of our choice instead of to swap; memory of a device, or of an arena of yours, is plugged in the same way. The
 * engine above it is the usual one.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <liballoc/liballoc.h>

struct file_memory {
    unsigned ranges;            /* mapped now */
    size_t bytes;
    unsigned acquired, released;
};

/* @wanted would be better for the engine, @min is enough; we give what is wanted. */
static int acquire(void *self, size_t min, size_t wanted, struct la_range *ret)
{
    struct file_memory *memory = self;
    char name[] = "/tmp/own_source-XXXXXX";
    int fd = mkstemp(name);
    void *base;
    int error;

    (void)min;
    if (fd < 0)
        return -errno;
    unlink(name);               /* the mapping keeps it */
    base = ftruncate(fd, (off_t)wanted) < 0 ? MAP_FAILED
                                            : mmap(NULL, wanted, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    error = errno;
    close(fd);
    if (base == MAP_FAILED)
        return -error;

    memory->ranges++;
    memory->acquired++;
    memory->bytes += wanted;
    *ret = (struct la_range){ .base = base, .size = wanted };
    return 0;
}

static void release(void *self, struct la_range range)
{
    struct file_memory *memory = self;

    munmap(range.base, range.size);
    memory->ranges--;
    memory->released++;
    memory->bytes -= range.size;
}

static const struct la_source_ops file_ops = {
    .struct_size = sizeof(file_ops),
    .name = "file",
    .acquire = acquire,
    .release = release,
};

static int fail(void)
{
    fprintf(stderr, "%s\n", la_last_error());
    return EXIT_FAILURE;
}

int main(void)
{
    struct file_memory memory = { 0 };
    struct la_source *source;
    struct la_chain *chain;
    char *small, *large;

    if (la_source_create(&file_ops, &memory, &source) < 0 || la_source_limit(source, (size_t)64 << 20) < 0 ||
        la_chain_create(source, 0, &chain) < 0)
        return fail();

    small = la_chain_alloc(chain, 40);
    large = la_chain_alloc(chain, (size_t)5 << 20);
    if (!small || !large)
        return fail();
    strcpy(small, "lives in a file");
    memset(large, 1, (size_t)5 << 20);
    printf("%s: %u ranges, %zu KiB\n", small, memory.ranges, memory.bytes >> 10);
    if (memory.bytes < (size_t)5 << 20)
        return EXIT_FAILURE;

    if (la_chain_alloc(chain, (size_t)80 << 20))        /* beyond the limit set above */
        return EXIT_FAILURE;
    printf("80 MiB more: %s\n", la_last_error());

    if (la_chain_destroy(chain) < 0 || la_source_destroy(source) < 0)
        return fail();
    printf("at the end %u ranges were acquired and %u released\n", memory.acquired, memory.released);
    return memory.ranges == 0 && memory.acquired == memory.released ? EXIT_SUCCESS : EXIT_FAILURE;
}
