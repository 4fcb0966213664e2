/*
 * doctor.c - shms doctor: would shared heaps work for this user on this machine, and if not, what helps?
 *
 * Each check is a function that looks at one thing and says "good", "limited" (works, with a cost) or "bad".
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <liballoc/error.h>
#include <liballoc/vspace.h>

#include "amount.h"
#include "shms.h"
#include "table.h"

enum verdict { GOOD, LIMITED, BAD };

struct finding {
    enum verdict verdict;
    char text[200];
};

static struct finding finding(enum verdict verdict, const char *format, ...) __attribute__((format(printf, 2, 3)));

static struct finding finding(enum verdict verdict, const char *format, ...)
{
    struct finding f = { .verdict = verdict };
    va_list args;

    va_start(args, format);
    vsnprintf(f.text, sizeof(f.text), format, args);
    va_end(args);
    return f;
}

/* ---- what heaps need ---- */

static struct finding check_addresses(void)
{
    int fd = memfd_create("shms-doctor", MFD_CLOEXEC);
    uintptr_t address;
    int r;

    if (fd < 0 || ftruncate(fd, LA_VSPACE_GRANULE) < 0)
        return finding(BAD, "no memory file (errno %d)", errno);
    r = la_vspace_claim(LA_VSPACE_GRANULE, "shms doctor", &address);
    if (r == 0)
        r = la_mmap(address, LA_VSPACE_GRANULE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (r == 0) {
        la_munmap(address, LA_VSPACE_GRANULE);
        la_vspace_unclaim(address);
    }
    close(fd);
    return r < 0 ? finding(BAD, "%.190s", la_last_error()) : finding(GOOD, "a heap can be mapped at its address, 0x%" PRIxPTR " for example", address);
}

static struct finding check_memory_files(void)
{
    int fd = memfd_create("shms-doctor", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1 };
    char path[32];
    int again, ok;

    if (fd < 0)
        return finding(BAD, "memfd_create() fails (errno %d): is it filtered?", errno);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    ok = ftruncate(fd, 4096) == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK) == 0;
    again = open(path, O_RDWR | O_CLOEXEC);
    ok = ok && again >= 0 && fcntl(again, F_OFD_SETLK, &lock) == 0;
    if (again >= 0)
        close(again);
    close(fd);
    return ok ? finding(GOOD, "they can be sealed, opened anew, and locked")
              : finding(BAD, "sealing, /proc/self/fd or locks fail (errno %d): is /proc mounted, is a system call filtered?", errno);
}

static struct finding check_dev_shm(void)
{
    struct statvfs fs;
    char room[AMOUNT_SIZE];
    uint64_t left;

    if (statvfs("/dev/shm", &fs) < 0 || access("/dev/shm", W_OK) < 0)
        return finding(BAD, "/dev/shm cannot be used (errno %d): mount a tmpfs there, with mode 1777", errno);
    left = (uint64_t)fs.f_bavail * fs.f_frsize;
    amount_print(left, room);
    if (left < 128u << 20)
        return finding(LIMITED, "%s left: enough for the registry of addresses; for embedded heaps enlarge it (docker run --shm-size)", room);
    return finding(GOOD, "%s left for embedded heaps", room);
}

/* ---- limits of the process ---- */

static struct finding check_address_space(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_AS, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY)
        return finding(GOOD, "not limited");
    return finding(LIMITED, "limited to %" PRIu64 " bytes (ulimit -v): a heap must fit, and its address is not reserved beforehand", (uint64_t)limit.rlim_cur);
}

static struct finding check_descriptors(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return finding(BAD, "not known (errno %d)", errno);
    if (limit.rlim_max < 1024)
        return finding(LIMITED, "%" PRIu64 " at most (ulimit -n): shmserver needs two per client and two per heap", (uint64_t)limit.rlim_max);
    return finding(GOOD, "%" PRIu64 " at most", (uint64_t)limit.rlim_max);
}

/* ---- the kernel ---- */

static struct finding check_kernel(void)
{
    struct utsname name;
    int major = 0, minor = 0;

    if (uname(&name) < 0 || sscanf(name.release, "%d.%d", &major, &minor) != 2)
        return finding(BAD, "its version is not known");
    if (major < 5 || (major == 5 && minor < 10))
        return finding(BAD, "Linux %.60s: 5.10 or newer is needed", name.release);
    return finding(GOOD, "Linux %.60s", name.release);
}

static struct finding check_pidfd(void)
{
    int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);

    if (fd < 0)
        return finding(LIMITED, "none (errno %d): deaths are seen when sockets hang up", errno);
    close(fd);
    return finding(GOOD, "deaths are seen at once");
}

static struct finding check_huge_pages(void)
{
    FILE *file = fopen("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "re");
    unsigned long n = 0;
    int got = file ? fscanf(file, "%lu", &n) : 0;

    if (file)
        fclose(file);
    if (got != 1 || n == 0)
        return finding(LIMITED, "no free page of 2 MiB: segments that prefer them get small ones (sysctl vm.nr_hugepages)");
    return finding(GOOD, "%lu pages of 2 MiB are free", n);
}

/* ---- all ---- */

static const struct check {
    const char *name;
    struct finding (*look)(void);
} checks[] = {
    { "kernel", check_kernel },           { "addresses", check_addresses },       { "memory files", check_memory_files },
    { "/dev/shm", check_dev_shm },        { "address space", check_address_space }, { "descriptors", check_descriptors },
    { "pidfd", check_pidfd },             { "huge pages", check_huge_pages },
};

static struct finding check_daemon(const struct shms *shms)
{
    struct shms_client *client;
    int n = shms_connect(shms->socket, &client);

    if (n < 0)
        return finding(LIMITED, "%.190s", la_last_error());
    n = shms_list(client, NULL, NULL);
    shms_disconnect(client);
    return n < 0 ? finding(BAD, "%.190s", la_last_error()) : finding(GOOD, "it answers, and shows %d heaps", n);
}

static void add_finding(struct table *table, const char *name, const struct finding *f)
{
    static const char *const verdicts[] = { [GOOD] = "good", [LIMITED] = "limited", [BAD] = "bad" };

    table_row(table);
    table_text(table, "check", "CHECK", name);
    table_text(table, "verdict", "VERDICT", verdicts[f->verdict]);
    table_text(table, "text", "", f->text);
}

int command_doctor(const struct shms *shms)
{
    struct table *table = table_begin(TABLE_ROWS, shms->json);
    struct finding f = check_daemon(shms);
    bool bad = f.verdict == BAD;

    add_finding(table, "daemon", &f);
    for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
        f = checks[i].look();
        bad |= f.verdict == BAD;
        add_finding(table, checks[i].name, &f);
    }
    table_end(table);
    return bad ? EXIT_FINDINGS : EXIT_SUCCESS;
}
