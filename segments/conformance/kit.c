#include "segments/conformance/kit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int kit_begin(struct kit *kit, struct seg_conformance *run)
{
    if (!run || run->struct_size < sizeof(*run))
        return seg_fail(-EINVAL, "set struct_size of the run to sizeof(struct seg_conformance)");
    *kit = (struct kit){ .run = run, .size = run->size ? run->size : (size_t)1 << 20, .page = (size_t)sysconf(_SC_PAGESIZE) };
    return 0;
}

int kit_end(struct kit *kit)
{
    kit->run->checks = kit->checks;
    kit->run->findings = kit->findings;
    return (int)kit->findings;
}

bool kit_check(struct kit *kit, bool kept, const char *rule, const char *format, ...)
{
    char text[256];
    va_list args;

    kit->checks++;
    if (kept)
        return true;
    kit->findings++;
    if (kit->run->report) {
        va_start(args, format);
        vsnprintf(text, sizeof(text), format, args);
        va_end(args);
        kit->run->report(kit->run->user, rule, text);
    }
    return false;
}

bool kit_is_device_only(const struct seg_extent *extent)
{
    return extent->capabilities & SEG_DEVICE_ONLY;
}

static bool touch(void *base, size_t size)
{
    int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC), null = -1;
    bool ok = zero >= 0;

    for (size_t at = 0; ok && at < size;) {
        size_t step = size - at < 1 << 20 ? size - at : 1 << 20;
        ssize_t n = read(zero, (char *)base + at, step);

        ok = n > 0;
        at += ok ? (size_t)n : 0;
    }
    if (zero >= 0)
        close(zero);
    /* Writing to /dev/null reads nothing; a pipe does. */
    if (ok) {
        int ends[2];

        ok = pipe2(ends, O_CLOEXEC) == 0;
        null = ok ? ends[1] : -1;
        if (ok) {
            ok = write(null, (char *)base + size - 1, 1) == 1;
            close(ends[0]);
            close(ends[1]);
        }
    }
    return ok;
}

bool kit_touch(const struct seg_extent *extent)
{
    return kit_is_device_only(extent) || touch(extent->base, extent->size);
}

void kit_mark(const struct kit *kit, const struct seg_extent *extent, unsigned mark)
{
    if (kit_is_device_only(extent))
        return;
    for (size_t at = 0; at < extent->size; at += kit->page)
        *(volatile unsigned *)((char *)extent->base + at) = mark + (unsigned)(at / kit->page);
}

bool kit_is_marked(const struct kit *kit, const struct seg_extent *extent, unsigned mark)
{
    if (kit_is_device_only(extent))
        return true;
    for (size_t at = 0; at < extent->size; at += kit->page)
        if (*(volatile unsigned *)((char *)extent->base + at) != mark + (unsigned)(at / kit->page))
            return false;
    return true;
}

static size_t count_descriptors(void)
{
    DIR *folder = opendir("/proc/self/fd");
    size_t count = 0;

    while (folder && readdir(folder))
        count++;
    if (folder)
        closedir(folder);
    return count;
}

/* Addresses that are reserved and no more (the arena of fixed ones) stay for the life of a process, and cost nothing. */
static size_t accessible_kib(void)
{
#ifdef __SANITIZE_THREAD__
    return 0;       /* it maps more than a megabyte for each descriptor that is made, to note what becomes of it */
#else
    FILE *file = fopen("/proc/self/maps", "re");
    unsigned long from, to;
    char line[512], access[5];
    size_t bytes = 0;

    while (file && fgets(line, sizeof(line), file))
        if (sscanf(line, "%lx-%lx %4s", &from, &to, access) == 3 && strncmp(access, "---", 3) != 0)
            bytes += to - from;
    if (file)
        fclose(file);
    return bytes >> 10;
#endif
}

struct kit_trace kit_look(void)
{
    struct kit_trace trace = { .descriptors = count_descriptors(), .mapped_kib = accessible_kib() };
    FILE *file = fopen("/proc/self/status", "re");
    char line[256];

    while (file && fgets(line, sizeof(line), file)) {
        sscanf(line, "VmLck: %zu", &trace.locked_kib);
        sscanf(line, "VmPin: %zu", &trace.pinned_kib);
    }
    if (file)
        fclose(file);
    return trace;
}

void kit_compare(struct kit *kit, const struct kit_trace *before, const char *rule, size_t slack_kib)
{
    struct kit_trace now = kit_look();

    kit_check(kit, now.descriptors <= before->descriptors, rule, "%zu descriptors more than before", now.descriptors - before->descriptors);
    kit_check(kit, now.mapped_kib <= before->mapped_kib + slack_kib, rule, "%zu KiB more are mapped than before",
              now.mapped_kib - before->mapped_kib);
    kit_check(kit, now.locked_kib <= before->locked_kib, rule, "%zu KiB more are locked than before", now.locked_kib - before->locked_kib);
    kit_check(kit, now.pinned_kib <= before->pinned_kib, rule, "%zu KiB more are pinned than before", now.pinned_kib - before->pinned_kib);
}
