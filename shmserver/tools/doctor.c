/*
 * doctor.c - shms doctor: would shared heaps work for this user on this machine, and if not, what helps?
 */
#include "doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <liballoc/error.h>
#include <liballoc/vspace.h>

#include "amount.h"
#include "shms.h"
#include "table.h"

struct finding finding(enum verdict verdict, const char *format, ...)
{
    struct finding f = { .verdict = verdict };
    va_list args;

    va_start(args, format);
    vsnprintf(f.text, sizeof(f.text), format, args);
    va_end(args);
    return f;
}

bool doctor_read(const char *path, char *ret, size_t size)
{
    FILE *file = fopen(path, "re");
    bool ok = file && fgets(ret, (int)size, file);

    if (file)
        fclose(file);
    if (ok)
        ret[strcspn(ret, "\n")] = '\0';
    return ok;
}

/* ---- what heaps need ---- */

/* The arenas of <liballoc/vspace.h>. */
static const struct arena {
    const char *name;
    uintptr_t base, end;
} arenas[] = {
    { "wide", 0x410000000000, 0x490000000000 },
    { "narrow", 0x550000000000, 0x554000000000 },
};

/* Who sits in an arena, as a line of /proc/self/maps; @ret: "" for nobody. Asked before anything is mapped there by us. */
static void find_stranger(const struct arena *arena, char *ret, size_t size)
{
    FILE *file = fopen("/proc/self/maps", "re");
    uintptr_t begin, end;

    while (file && fgets(ret, (int)size, file))
        if (sscanf(ret, "%" SCNxPTR "-%" SCNxPTR, &begin, &end) == 2 && begin < arena->end && end > arena->base) {
            ret[strcspn(ret, "\n")] = '\0';
            fclose(file);
            return;
        }
    if (file)
        fclose(file);
    *ret = '\0';
}

static struct finding check_arenas(void)
{
    char stranger[160];
    uintptr_t base;
    size_t size;

    if (la_vspace_arena(&base, &size) < 0)
        return finding(BAD, "%.220s", la_last_error());
    for (size_t i = 0; i < sizeof(arenas) / sizeof(arenas[0]); i++) {
        find_stranger(&arenas[i], stranger, sizeof(stranger));
        if (*stranger)
            return finding(LIMITED, "in the %s one sits %.140s: heaps of these addresses cannot be mapped", arenas[i].name, stranger);
    }
    return finding(GOOD, "both are free, heaps are made in the %s one (LIBALLOC_VSPACE)", base == arenas[0].base ? arenas[0].name : arenas[1].name);
}

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
    return r < 0 ? finding(BAD, "%.220s", la_last_error()) : finding(GOOD, "a heap can be mapped at its address, 0x%" PRIxPTR " for example", address);
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
    struct statfs type;
    char room[AMOUNT_SIZE];
    uint64_t left;

    if (statvfs("/dev/shm", &fs) < 0 || access("/dev/shm", W_OK) < 0)
        return finding(BAD, "/dev/shm cannot be used (errno %d): mount a tmpfs there, with mode 1777", errno);
    left = (uint64_t)fs.f_bavail * fs.f_frsize;
    amount_print(left, room);
    if (statfs("/dev/shm", &type) == 0 && type.f_type != TMPFS_MAGIC)
        return finding(LIMITED, "it is no tmpfs: embedded heaps are as slow as the disk behind it, shmserver's are not; mount a tmpfs there");
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

/* ---- all ---- */

/* Arenas first: the next check reserves one. */
static const struct check doctor_heaps[] = {
    { "kernel", check_kernel },     { "arenas", check_arenas },               { "addresses", check_addresses },     { "memory files", check_memory_files },
    { "/dev/shm", check_dev_shm },  { "address space", check_address_space }, { "descriptors", check_descriptors }, { "pidfd", check_pidfd },
    { 0 },
};

static const struct check *const groups[] = { doctor_heaps, doctor_machine, doctor_devices };

static struct finding check_daemon(const struct shms *shms)
{
    struct shms_client *client;
    int n = shms_connect(shms->socket, &client);

    if (n < 0)
        return finding(LIMITED, "%.220s", shms_last_error());
    n = shms_list(client, NULL, NULL);
    shms_disconnect(client);
    return n < 0 ? finding(BAD, "%.220s", shms_last_error()) : finding(GOOD, "it answers, and shows %d heap%s", n, plural((uint64_t)n));
}

static void add_finding(struct table *table, const char *name, const struct finding *f)
{
    static const char *const verdicts[] = { [GOOD] = "good", [LIMITED] = "limited", [ABSENT] = "absent", [BAD] = "bad" };

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
    for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++)
        for (const struct check *check = groups[i]; check->name; check++) {
            f = check->look();
            bad |= f.verdict == BAD;
            add_finding(table, check->name, &f);
        }
    table_end(table);
    return bad ? EXIT_FINDINGS : EXIT_SUCCESS;
}
