/*
 * vspace.c - the manager of fixed addresses. docs/vspace.md says how the arenas were chosen.
 *
 * Reservation. On first use the arena is reserved in this process: PROT_NONE, MAP_FIXED_NOREPLACE, by a raw system call (the mmap of
 * sanitizers moves mappings or kills), and the address that comes back is compared. Segments are then mapped with MAP_FIXED, only over our own
 * reservation; unmapping puts the reservation back in the same call, so that no hole is ever open for another thread's mmap.
 * Where a limit forbids the whole arena (RLIMIT_AS), single ranges are claimed with MAP_FIXED_NOREPLACE instead ("lazy").
 *
 * Registry. A file per user says which ranges of the arena are taken by heaps, in any process: fixed records under one
 * open-file-description lock. A record counts only when its last word is set, which is stored last, so a process killed in the middle leaves
 * a free record. The lock goes with its holder.
 */
#include "os/vspace.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <liballoc/error.h>

#include "base/error.h"
#include "base/fmt.h"
#include "base/lock.h"
#include "os/maps.h"
#include "os/os.h"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

struct arena {
    const char *name;
    uintptr_t base;
    size_t size;
};

static const struct arena arenas[] = {
    { "wide", 0x410000000000, (size_t)8 << 40 },
    { "narrow", 0x550000000000, (size_t)256 << 30 },
};

enum { WIDE, NARROW, MAX_MAPPED = 256 };

/* Mappings made by la_mmap() in this process, in no order. */
struct mapped {
    uintptr_t address;
    size_t size;
};

static struct la_lock vspace_lock = LOCK_INIT(RANK_VSPACE);
static struct mapped mapped[MAX_MAPPED];
static unsigned mapped_count;
static enum { UNRESERVED, RESERVED, LAZY } reservation;

/* ---- the arena ---- */

#if defined(__SANITIZE_THREAD__)
#define BUILT_FOR_NARROW 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define BUILT_FOR_NARROW 1
#endif
#endif
#ifndef BUILT_FOR_NARROW
#define BUILT_FOR_NARROW 0
#endif

/* The program, not this library, may be built with one of the sanitizers that have their shadow at the wide arena. */
extern void __tsan_init(void) __attribute__((weak));
extern void __msan_init(void) __attribute__((weak));
extern void __dfsan_init(void) __attribute__((weak));

static const struct arena *my_arena(void)
{
    const char *chosen = getenv("LIBALLOC_VSPACE");

    for (unsigned i = 0; chosen && i < ARRAY_SIZE(arenas); i++)
        if (strcmp(chosen, arenas[i].name) == 0)
            return &arenas[i];
    return &arenas[BUILT_FOR_NARROW || __tsan_init || __msan_init || __dfsan_init ? NARROW : WIDE];
}

int la_vspace_arena(uintptr_t *base, size_t *size)
{
    *base = my_arena()->base;
    *size = my_arena()->size;
    return 0;
}

static const struct arena *arena_of(uintptr_t address, size_t size)
{
    for (unsigned i = 0; i < ARRAY_SIZE(arenas); i++)
        if (address >= arenas[i].base && size <= arenas[i].size && address - arenas[i].base <= arenas[i].size - size)
            return &arenas[i];
    return NULL;
}

static void *raw_mmap(uintptr_t address, size_t size, int prot, int flags, int fd, off_t offset)
{
    long r = syscall(SYS_mmap, address, size, prot, flags, fd, offset);

    return r == -1 ? MAP_FAILED : (void *)r;
}

/* 0, -EEXIST, -ENOMEM. The address is compared: old kernels and emulators take NOREPLACE for a hint. */
static int map_noreplace(uintptr_t address, size_t size, int prot, int flags, int fd, off_t offset)
{
    void *p = raw_mmap(address, size, prot, flags | MAP_FIXED_NOREPLACE, fd, offset);

    if (p == MAP_FAILED)
        return -errno;
    if ((uintptr_t)p == address)
        return 0;
    munmap(p, size);
    return -EEXIST;
}

static bool first_intruder(void *arg, const struct map_entry *entry)
{
    *(struct map_entry *)arg = *entry;
    return false;
}

static int refuse(uintptr_t address, size_t size)
{
    struct map_entry found = { 0 };

    maps_each(address, address + size, first_intruder, &found);
    if (found.end == 0)
        return la_fail(-EEXIST, "addresses %#lx-%#lx cannot be reserved", address, address + size);
    return la_fail(-EEXIST, "addresses %#lx-%#lx are taken: %lx-%lx %s %s is there; if a sanitizer has it, set LIBALLOC_VSPACE=narrow",
                   address, address + size, found.start, found.end, found.permissions, found.path[0] ? found.path : "(anonymous)");
}

static int reserve_arena(void)
{
    const struct arena *a = my_arena();
    int r;

    if (reservation != UNRESERVED)
        return 0;
    r = map_noreplace(a->base, a->size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (r == -EEXIST)
        return refuse(a->base, a->size);
    if (r == 0)
        madvise((void *)a->base, a->size, MADV_DONTDUMP);
    reservation = r == 0 ? RESERVED : LAZY;
    return 0;
}

/* ---- mappings ---- */

static struct mapped *overlapping(uintptr_t address, size_t size)
{
    for (unsigned i = 0; i < mapped_count; i++)
        if (address < mapped[i].address + mapped[i].size && mapped[i].address < address + size)
            return &mapped[i];
    return NULL;
}

/* Ours to map over: reserved in this process. */
static bool is_reserved(uintptr_t address, size_t size)
{
    const struct arena *a = my_arena();

    return reservation == RESERVED && address >= a->base && address + size <= a->base + a->size;
}

static int map_locked(uintptr_t address, size_t size, int prot, int flags, int fd, off_t offset)
{
    void *p;
    int r;

    if (overlapping(address, size))
        return la_fail(-EEXIST, "addresses %#lx-%#lx are mapped by la_mmap() already", address, address + size);
    if (mapped_count == MAX_MAPPED)
        return la_fail(-ENOMEM, "%d fixed mappings exist: unmap one first", MAX_MAPPED);
    r = reserve_arena();
    if (r < 0)
        return r;
    if (is_reserved(address, size)) {
        p = raw_mmap(address, size, prot, flags | MAP_FIXED, fd, offset);
        if (p == MAP_FAILED)
            return la_fail(-errno, "mmap of %zu bytes at %#lx failed (errno %d)", size, address, errno);
    } else {
        r = map_noreplace(address, size, prot, flags, fd, offset);
        if (r == -EEXIST)
            return refuse(address, size);
        if (r < 0)
            return la_fail(r, "mmap of %zu bytes at %#lx failed (errno %d)", size, address, -r);
    }
    mapped[mapped_count++] = (struct mapped){ address, size };
    return 0;
}

int la_mmap(uintptr_t address, size_t size, int prot, int flags, int fd, off_t offset)
{
    int r;

    if (size == 0 || (address | size) & (os_page_size() - 1) || !arena_of(address, size))
        return la_fail(-EINVAL, "addresses %#lx + %zu: page-aligned ones inside the arena are needed, see la_vspace_arena()", address, size);
    lock_take(&vspace_lock);
    r = map_locked(address, size, prot, flags & ~(MAP_FIXED | MAP_FIXED_NOREPLACE), fd, offset);
    lock_give(&vspace_lock);
    return r;
}

static int unmap_locked(uintptr_t address, size_t size)
{
    struct mapped *m = overlapping(address, size);

    if (!m || m->address != address || m->size != size)
        return la_fail(-EINVAL, "addresses %#lx + %zu were not mapped by la_mmap()", address, size);
    if (!is_reserved(address, size)) {
        munmap((void *)address, size);
    } else if (raw_mmap(address, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED) {
        return la_fail(-errno, "cannot put the reservation of %#lx + %zu back (errno %d)", address, size, errno);
    } else {
        madvise((void *)address, size, MADV_DONTDUMP);
    }
    *m = mapped[--mapped_count];
    return 0;
}

int la_munmap(uintptr_t address, size_t size)
{
    int r;

    lock_take(&vspace_lock);
    r = unmap_locked(address, size);
    lock_give(&vspace_lock);
    return r;
}

/* ---- verify ---- */

struct verify {
    void (*report)(void *user, const char *line);
    void *user;
    int intruders;
};

/* Reserved ranges have no permissions; what has some must be in our table. */
static bool check_entry(void *arg, const struct map_entry *entry)
{
    struct verify *v = arg;
    struct mapped *m = overlapping(entry->start, entry->end - entry->start);
    char line[256];

    if (strncmp(entry->permissions, "---", 3) == 0 || (m && entry->start >= m->address && entry->end <= m->address + m->size))
        return true;
    v->intruders++;
    la_format(line, sizeof(line), "%lx-%lx %s %s", entry->start, entry->end, entry->permissions,
              entry->path[0] ? entry->path : "(anonymous)");
    if (v->report)
        v->report(v->user, line);
    return true;
}

int la_vspace_verify(void (*report)(void *user, const char *line), void *user)
{
    struct verify v = { .report = report, .user = user };
    const struct arena *a = my_arena();
    int r;

    lock_take(&vspace_lock);
    r = reservation == RESERVED ? maps_each(a->base, a->base + a->size, check_entry, &v) : 0;
    lock_give(&vspace_lock);
    return r < 0 ? r : v.intruders;
}

/* ---- registry ---- */

#define REGISTRY_MAGIC 0x31656361707376ull      /* "vspace1" */
enum { RECORDS = 4096, NAME_SIZE = 104 };

struct record {
    uint64_t address, size;
    char name[NAME_SIZE];
    uint64_t valid;         /* stored last: REGISTRY_MAGIC ^ address ^ size; anything else: a free record */
};

_Static_assert(sizeof(struct record) == 128, "records do not cross pages");

struct registry {
    uint64_t magic;
    uint64_t unused[15];
    struct record record[RECORDS];
};

static bool record_is_valid(const struct record *r)
{
    return r->valid == (REGISTRY_MAGIC ^ r->address ^ r->size) && r->size > 0;
}

static void registry_path(char *path, size_t size)
{
    const char *chosen = getenv("LIBALLOC_VSPACE_REGISTRY");

    if (chosen && chosen[0])
        la_format(path, size, "%s", chosen);
    else
        la_format(path, size, "/dev/shm/liballoc-vspace-%u", (unsigned)geteuid());
}

static int lock_file(int fd)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

    while (fcntl(fd, F_OFD_SETLKW, &lock) < 0)
        if (errno != EINTR)
            return -errno;
    return 0;
}

static int open_file(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    struct stat st;
    int r;

    if (fd < 0)
        return la_fail(-errno, "cannot open the address registry %s (errno %d): set LIBALLOC_VSPACE_REGISTRY to a file of yours", path, errno);
    r = fstat(fd, &st) < 0 ? -errno : st.st_uid != geteuid() || !S_ISREG(st.st_mode) ? -EACCES : lock_file(fd);
    if (r == 0 && posix_fallocate(fd, 0, sizeof(struct registry)) != 0)
        r = -ENOSPC;
    if (r < 0) {
        close(fd);
        return la_fail(r, "cannot use the address registry %s (errno %d): it must be a regular file of yours", path, -r);
    }
    return fd;
}

/* The registry, locked by the description of *fd and mapped; closed by registry_close(). */
static int registry_open(int *fd, struct registry **ret)
{
    char path[256];
    void *p;

    registry_path(path, sizeof(path));
    *fd = open_file(path);
    if (*fd < 0)
        return *fd;
    p = mmap(NULL, sizeof(struct registry), PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
    if (p == MAP_FAILED) {
        int r = -errno;
        close(*fd);
        return la_fail(r, "cannot map the address registry %s (errno %d)", path, -r);
    }
    *ret = p;
    if ((*ret)->magic != REGISTRY_MAGIC && (*ret)->magic != 0) {
        munmap(p, sizeof(struct registry));
        close(*fd);
        return la_fail(-EINVAL, "%s is no address registry: remove it, or set LIBALLOC_VSPACE_REGISTRY", path);
    }
    (*ret)->magic = REGISTRY_MAGIC;
    return 0;
}

static void registry_close(int fd, struct registry *r)
{
    munmap(r, sizeof(*r));
    close(fd);
}

/* Lowest address that is free for @size bytes and a guard granule on each side; 0: none. */
static uintptr_t find_gap(const struct registry *r, const struct arena *a, size_t size)
{
    uintptr_t at = a->base + LA_VSPACE_GRANULE;

    /* Every record that is in the way moves us behind it; each can do so once per pass, so this ends. */
    for (bool moved = true; moved;) {
        moved = false;
        if (size > a->size || at - a->base > a->size - size)
            return 0;
        for (unsigned i = 0; i < RECORDS; i++) {
            const struct record *rec = &r->record[i];

            if (record_is_valid(rec) && at < rec->address + rec->size + LA_VSPACE_GRANULE && rec->address < at + size + LA_VSPACE_GRANULE) {
                at = rec->address + rec->size + LA_VSPACE_GRANULE;
                moved = true;
            }
        }
    }
    return at;
}

static int enter(struct registry *r, uintptr_t address, size_t size, const char *name)
{
    for (unsigned i = 0; i < RECORDS; i++) {
        struct record *rec = &r->record[i];

        if (record_is_valid(rec))
            continue;
        rec->valid = 0;
        atomic_signal_fence(memory_order_seq_cst);
        rec->address = address;
        rec->size = size;
        la_format(rec->name, sizeof(rec->name), "%s", name);
        atomic_signal_fence(memory_order_seq_cst);
        rec->valid = REGISTRY_MAGIC ^ address ^ size;
        return 0;
    }
    return la_fail(-ENOSPC, "the address registry holds %d claims already: remove heaps", RECORDS);
}

/* Claims named by a path are dropped when the file is gone. */
static void drop_lost_files(struct registry *r)
{
    for (unsigned i = 0; i < RECORDS; i++)
        if (record_is_valid(&r->record[i]) && r->record[i].name[0] == '/' && access(r->record[i].name, F_OK) < 0 && errno == ENOENT)
            r->record[i].valid = 0;
}

int la_vspace_claim(size_t size, const char *name, uintptr_t *ret)
{
    struct registry *r;
    uintptr_t address;
    int fd, result;

    if (size == 0 || size > my_arena()->size || !name || strlen(name) >= NAME_SIZE)
        return la_fail(-EINVAL, "claim of %zu bytes for \"%.40s\": 1 byte to the arena's size, a name below %d bytes", size, name ? name : "(null)", NAME_SIZE);
    size = align_up(size, LA_VSPACE_GRANULE);
    result = registry_open(&fd, &r);
    if (result < 0)
        return result;
    address = find_gap(r, my_arena(), size);
    if (!address) {
        drop_lost_files(r);
        address = find_gap(r, my_arena(), size);
    }
    result = address ? enter(r, address, size, name)
                     : la_fail(-ENOSPC, "the %s arena has no %zu bytes of addresses left: remove heaps", my_arena()->name, size);
    registry_close(fd, r);
    if (result == 0)
        *ret = address;
    return result;
}

int la_vspace_unclaim(uintptr_t address)
{
    struct registry *r;
    int fd, result = registry_open(&fd, &r);

    if (result < 0)
        return result;
    result = -ENOENT;
    for (unsigned i = 0; i < RECORDS; i++)
        if (record_is_valid(&r->record[i]) && r->record[i].address == address) {
            r->record[i].valid = 0;
            result = 0;
        }
    registry_close(fd, r);
    return result;
}

int vspace_sweep(bool (*still_used)(void *arg, const char *name, uintptr_t address), void *arg)
{
    struct registry *r;
    int fd, dropped = 0, result = registry_open(&fd, &r);

    if (result < 0)
        return result;
    for (unsigned i = 0; i < RECORDS; i++)
        if (record_is_valid(&r->record[i]) && !still_used(arg, r->record[i].name, r->record[i].address)) {
            r->record[i].valid = 0;
            dropped++;
        }
    registry_close(fd, r);
    return dropped;
}

/* ---- fork ---- */

void vspace_fork_prepare(void)
{
    lock_take(&vspace_lock);
}

void vspace_fork_done(bool child)
{
    if (child)
        lock_reset(&vspace_lock);
    else
        lock_give(&vspace_lock);
}
