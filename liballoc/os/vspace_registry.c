/*
 * vspace_registry.c - claims of addresses, in one file per user and machine.
 *
 *     file:    header | record 0 | record 1 | ...           fixed size each, so that a slot is overwritten in place
 *     record:  start length created id name ... check       check last
 *
 * A segment has the same address in every process only if nobody else of the user has it. Embedded heaps have no daemon
 * to ask, so all ask this file. It holds claims, not mappings: a claim lives as long as its segment, across processes.
 *
 * Choosing: the first fit from where the last claim ended, around once; so an address that was given back is not used again
 * before the arena has been gone through, and a stale pointer faults instead of finding another heap. The first claim starts
 * in a band of the user's own, so that heaps of different users seldom meet in a process that attaches both.
 *
 * I1  A record is valid when its check word is the sum of its other words. It is written with check 0 first and the check
 *     alone afterwards; dropped by writing check 0. So a process killed anywhere leaves a valid record or a free slot.
 * I2  Valid records lie inside one arena and do not overlap; one granule behind each is free: a guard.
 * I3  The file is read and changed only under an open-file-description lock on its first byte, which the kernel drops when
 *     its holder dies. The description is opened for each call, and no fork happens meanwhile (vspace_fork_prepare()), so
 *     nobody else can hold it.
 *
 * Distrust: the file must be a regular one of this user that nobody else may write; records that fail I1 or I2 are free slots.
 *
 * Locking: registry_lock, then the file's lock, then (inside vspace_copy_mapped()) arena_lock.
 */
#include "os/vspace_registry.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fmt.h"
#include "base/lock.h"
#include "base/user_ids.h"
#include "os/os.h"
#include "os/range_table.h"
#include "os/vspace.h"

enum {
    REGISTRY_VERSION = 1,
    RECORD_SIZE = 192,
    MAX_RECORDS = 8192,
    LOCK_PATIENCE_MS = 2000,    /* a healthy holder needs less than one */
    BANDS = 64,                 /* units of an arena where a user's first claim may start */
    SWEEP_AGE = 60,             /* seconds */
};

#define REGISTRY_MAGIC 0x6765726370737661u      /* "avspcreg" */

struct record {
    uint64_t start, length;     /* bytes; length without the guard */
    uint64_t created;           /* seconds since 1970 */
    uint64_t id;                /* random: tells a claim from a later one of the same place */
    char name[LA_VSPACE_NAME_MAX + 1];
    uint64_t reserved[3];
    uint64_t check;             /* I1 */
};
_Static_assert(sizeof(struct record) == RECORD_SIZE, "records are written in place by all versions");

struct header {
    uint64_t magic;
    uint32_t version, record_size;
    struct {
        uint64_t base, size;
        uint64_t next;          /* where the next search starts; any value is safe */
    } arenas[VSPACE_ARENAS];
    uint64_t reserved[16];
};
_Static_assert(sizeof(struct header) == RECORD_SIZE, "record i lies at (i + 1) * RECORD_SIZE");

/* The file, open and locked, and what it said. */
struct registry {
    int fd;
    struct header header;
    struct record *records;     /* MAX_RECORDS of address space */
    size_t count;               /* slots, valid or free */
};

static struct la_lock registry_lock = LOCK_INIT(RANK_REGISTRY);

/* ---- the file ---- */

enum { PATH_SIZE = 512 };

static int open_at(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

    return fd < 0 ? -errno : fd;
}

/*
 * Named by the environment, else in /dev/shm, where the heaps themselves are: the same place for sessions, services and cron jobs
 * of a user, and it ends when they end. The session's folder would differ between them; it serves where there is no /dev/shm.
 * *path says which, for messages.
 */
static int open_somewhere(char *path)
{
    const char *named = secure_getenv("LIBALLOC_VSPACE_REGISTRY"), *session = secure_getenv("XDG_RUNTIME_DIR");
    int fd;

    if (named && *named) {
        if (la_format(path, PATH_SIZE, "%s", named) >= PATH_SIZE)
            return -ENAMETOOLONG;
        return open_at(path);
    }
    la_format(path, PATH_SIZE, "/dev/shm/liballoc-vspace-%u", (unsigned)geteuid());
    fd = open_at(path);
    if (fd == -ENOENT && session && *session == '/' && la_format(path, PATH_SIZE, "%s/liballoc-vspace", session) < PATH_SIZE)
        fd = open_at(path);
    return fd;
}

static int check_owner(int fd, const struct stat *st, const char *path)
{
    if (!S_ISREG(st->st_mode))
        return la_fail(-EACCES, "registry %s is no regular file: name another one by LIBALLOC_VSPACE_REGISTRY", path);
    if (!file_is_own(fd, st))
        return la_fail(-EACCES, "registry %s belongs to user %u: name another one by LIBALLOC_VSPACE_REGISTRY", path,
                       (unsigned)st->st_uid);
    if (st->st_mode & (S_IWGRP | S_IWOTH))
        return la_fail(-EACCES, "registry %s may be written by others: chmod 600 it", path);
    return 0;
}

/* Not F_OFD_SETLKW: a stopped holder must cost a clear error, not a hang. */
static int lock_file(int fd, const char *path)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1 };
    struct timespec pause = { .tv_nsec = 200 * 1000 };
    uint64_t start = os_now_ms();

    while (fcntl(fd, F_OFD_SETLK, &lock) < 0) {
        if (errno != EAGAIN && errno != EACCES && errno != EINTR)
            return la_fail(-errno, "cannot lock registry %s (errno %d)", path, errno);
        if (os_now_ms() - start > LOCK_PATIENCE_MS)
            return la_fail(-EBUSY, "registry %s is locked by another process for %d s: is one stopped?", path, LOCK_PATIENCE_MS / 1000);
        nanosleep(&pause, NULL);
        pause.tv_nsec = MIN(2 * pause.tv_nsec, 10L * 1000 * 1000);
    }
    return 0;
}

static const char *what_helps(int error)
{
    switch (error) {
    case ELOOP:
        return ": it is a symbolic link";
    case EACCES:
        return ": it is another user's (root's of another user namespace?), name another one by LIBALLOC_VSPACE_REGISTRY";
    default:
        return "";
    }
}

/* The file under its lock; a file that was removed while we waited is not the registry any more: -ESTALE. */
static int open_locked(char *path, struct stat *st)
{
    CLEANUP(close_fd) int fd = open_somewhere(path);
    int r;

    if (fd < 0)
        return la_fail(fd, "cannot open registry %s (errno %d)%s", path, -fd, what_helps(-fd));
    if (fstat(fd, st) < 0)
        return la_fail(-errno, "cannot look at registry %s (errno %d)", path, errno);
    r = check_owner(fd, st, path);
    if (r == 0)
        r = lock_file(fd, path);
    if (r < 0)
        return r;
    if (fstat(fd, st) < 0 || st->st_nlink == 0)
        return -ESTALE;
    return steal_fd(&fd);
}

static bool write_at(int fd, const void *data, size_t size, uint64_t offset)
{
    return pwrite(fd, data, size, (off_t)offset) == (ssize_t)size;
}

/* Where a user's first claim starts: one of BANDS units, by a hash of the user id. */
static uint64_t band_start(const struct vspace_range *arena)
{
    uint32_t hash = (uint32_t)geteuid() * 0x9e3779b1u;     /* 2^32 / golden ratio: spreads neighbouring ids */

    return arena->base + (uint64_t)(hash >> 16) % BANDS * (arena->size / BANDS);
}

static void fill_header(struct header *h)
{
    *h = (struct header){ .magic = REGISTRY_MAGIC, .version = REGISTRY_VERSION, .record_size = RECORD_SIZE };
    for (int i = 0; i < VSPACE_ARENAS; i++) {
        h->arenas[i].base = vspace_ranges[i].base;
        h->arenas[i].size = vspace_ranges[i].size;
        h->arenas[i].next = band_start(&vspace_ranges[i]);
    }
}

static bool header_is_ours(const struct header *h)
{
    if (h->magic != REGISTRY_MAGIC || h->version != REGISTRY_VERSION || h->record_size != RECORD_SIZE)
        return false;
    for (int i = 0; i < VSPACE_ARENAS; i++)
        if (h->arenas[i].base != vspace_ranges[i].base || h->arenas[i].size != vspace_ranges[i].size)
            return false;
    return true;
}

/* A file shorter than a header is new, or its maker was killed: nothing is claimed yet. */
static int read_header(struct registry *reg, const char *path, uint64_t file_size)
{
    if (file_size < sizeof(reg->header)) {
        fill_header(&reg->header);
        if (!write_at(reg->fd, &reg->header, sizeof(reg->header), 0))
            return la_fail(-EIO, "cannot write registry %s (errno %d): is the disk full?", path, errno);
        return 0;
    }
    if (pread(reg->fd, &reg->header, sizeof(reg->header), 0) != sizeof(reg->header))
        return la_fail(-EIO, "cannot read registry %s (errno %d)", path, errno);
    if (!header_is_ours(&reg->header))
        return la_fail(-EPROTO, "%s is no registry of this version: remove it when no shared heap is in use", path);
    return 0;
}

static int read_records(struct registry *reg, const char *path, uint64_t file_size)
{
    size_t slots = file_size > sizeof(reg->header) ? (file_size - sizeof(reg->header)) / RECORD_SIZE : 0;

    reg->count = MIN(slots, (size_t)MAX_RECORDS);
    reg->records = os_map(MAX_RECORDS * sizeof(struct record));
    if (!reg->records)
        return la_fail(-ENOMEM, "no memory to read registry %s", path);
    if (pread(reg->fd, reg->records, reg->count * RECORD_SIZE, sizeof(reg->header)) != (ssize_t)(reg->count * RECORD_SIZE))
        return la_fail(-EIO, "cannot read registry %s (errno %d)", path, errno);
    return 0;
}

static void close_registry(struct registry *reg)
{
    struct flock lock = { .l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1 };

    if (reg->records)
        os_unmap(reg->records, MAX_RECORDS * sizeof(struct record));
    /* Unlock by word: a child made meanwhile without our fork handlers has a copy of the descriptor. */
    if (reg->fd >= 0)
        fcntl(reg->fd, F_OFD_SETLK, &lock);
    close_fd(&reg->fd);
    lock_give(&registry_lock);
}

static int open_registry(struct registry *reg)
{
    char path[PATH_SIZE];
    struct stat st;
    int r;

    *reg = (struct registry){ .fd = -1 };
    lock_take(&registry_lock);
    do
        reg->fd = open_locked(path, &st);
    while (reg->fd == -ESTALE);
    r = MIN(reg->fd, 0);
    if (r == 0)
        r = read_header(reg, path, (uint64_t)st.st_size);
    if (r == 0)
        r = read_records(reg, path, (uint64_t)st.st_size);
    if (r < 0)
        close_registry(reg);
    return r;
}

/* ---- records ---- */

static uint64_t check_of(const struct record *record)
{
    const uint64_t *word = (const uint64_t *)record;
    uint64_t sum = REGISTRY_MAGIC;

    for (size_t i = 0; i < offsetof(struct record, check) / sizeof(*word); i++)
        sum = (sum ^ word[i]) * 0x100000001b3;      /* FNV-1a by words: finds torn writes, not malice */
    return sum | 1;                                 /* never 0, which says free */
}

/* I1 and I2 for one record. */
static bool is_valid(const struct record *record)
{
    return record->check == check_of(record) && memchr(record->name, 0, sizeof(record->name)) && record->length > 0 &&
           (record->start | record->length) % LA_VSPACE_GRANULE == 0 && vspace_find(record->start, record->length) >= 0;
}

static uint64_t record_offset(size_t slot)
{
    return sizeof(struct header) + (uint64_t)slot * RECORD_SIZE;
}

static bool write_check(struct registry *reg, size_t slot, uint64_t check)
{
    reg->records[slot].check = check;
    return write_at(reg->fd, &check, sizeof(check), record_offset(slot) + offsetof(struct record, check));
}

static int write_record(struct registry *reg, const struct record *record)
{
    size_t slot = 0;

    while (slot < reg->count && is_valid(&reg->records[slot]))
        slot++;
    if (slot == MAX_RECORDS)
        return la_fail(-ENOSPC, "all %d claims of the registry are in use: remove heaps that nobody needs", MAX_RECORDS);
    reg->count = MAX(reg->count, slot + 1);
    reg->records[slot] = *record;
    reg->records[slot].check = 0;
    if (!write_at(reg->fd, &reg->records[slot], RECORD_SIZE, record_offset(slot)) || !write_check(reg, slot, check_of(record)))
        return la_fail(errno ? -errno : -EIO, "cannot write the registry (errno %d): is /dev/shm full?", errno);
    return 0;
}

static int drop_record(struct registry *reg, size_t slot)
{
    return write_check(reg, slot, 0) ? 0 : la_fail(-EIO, "cannot write the registry (errno %d)", errno);
}

/* ---- choosing an address ---- */

/* What is taken: valid claims with their guards, and what this process has mapped (a heap whose name was removed). */
static int collect_taken(const struct registry *reg, struct range_table *taken)
{
    struct range_table mapped;
    int r = vspace_copy_mapped(&mapped);

    if (r < 0)
        return r;
    for (size_t i = 0; i < reg->count && r != -ENOMEM; i++)
        if (is_valid(&reg->records[i]))
            r = range_insert(taken, reg->records[i].start, reg->records[i].start + reg->records[i].length + LA_VSPACE_GRANULE, 0);
    for (size_t i = 0; i < mapped.count && r != -ENOMEM; i++)
        r = range_insert(taken, align_down(mapped.entries[i].start, LA_VSPACE_GRANULE),
                         align_up(mapped.entries[i].end, LA_VSPACE_GRANULE) + LA_VSPACE_GRANULE, 0);
    range_clear(&mapped);
    /* Overlaps are as they should be: most of our mappings are claimed. A partial overlap leaves the claim, see below. */
    return r == -ENOMEM ? r : 0;
}

static int choose_address(struct registry *reg, int arena, size_t size, size_t alignment, uint64_t *ret)
{
    const struct vspace_range *a = &vspace_ranges[arena];
    uint64_t next = align_down(reg->header.arenas[arena].next, LA_VSPACE_GRANULE), end = a->base + a->size;
    /* With the guard, so that the last claim keeps one too; and with room to move up in. */
    size_t gap = size + LA_VSPACE_GRANULE + (alignment - LA_VSPACE_GRANULE);
    struct range_table taken = { 0 };
    uintptr_t found = 0;

    if (next < a->base || next >= end)
        next = a->base;
    if (collect_taken(reg, &taken) < 0) {
        range_clear(&taken);
        return la_fail(-ENOMEM, "no memory to choose an address");
    }
    if (!range_first_gap(&taken, next, end, gap, &found))
        range_first_gap(&taken, a->base, end, gap, &found);
    range_clear(&taken);
    if (!found)
        return la_fail(-ENOSPC, "no %zu MiB left in the %s arena: remove heaps that nobody needs", size >> 20, a->name);
    *ret = align_up(found, alignment);
    return 0;
}

static int claim_locked(struct registry *reg, int arena, size_t size, size_t alignment, const char *name, uintptr_t *ret)
{
    struct record record = { .length = size, .created = (uint64_t)time(NULL), .id = os_random() };
    int r = choose_address(reg, arena, size, alignment, &record.start);

    if (r < 0)
        return r;
    strcpy(record.name, name);
    r = write_record(reg, &record);
    if (r < 0)
        return r;
    reg->header.arenas[arena].next = record.start + size + LA_VSPACE_GRANULE;
    write_at(reg->fd, &reg->header, sizeof(reg->header), 0);        /* a hint: failure costs nothing */
    *ret = record.start;
    return 0;
}

static int claim_once(int arena, size_t size, size_t alignment, const char *name, uintptr_t *ret)
{
    struct registry reg;
    int r = open_registry(&reg);

    if (r < 0)
        return r;
    r = claim_locked(&reg, arena, size, alignment, name, ret);
    close_registry(&reg);
    return r;
}

int la_vspace_claim_aligned(size_t size, size_t alignment, const char *name, uintptr_t *ret)
{
    int arena = vspace_default(), r;
    size_t length = name ? strlen(name) : 0;

    if (arena < 0)
        return arena;
    if (length == 0 || length > LA_VSPACE_NAME_MAX)
        return la_fail(-EINVAL, "the name of a claim has %zu bytes: 1 to %d are needed", length, LA_VSPACE_NAME_MAX);
    if (size == 0)
        return la_fail(-EINVAL, "claim \"%s\" of 0 bytes: ask for some", name);
    if (!is_power_of_2(alignment) || alignment > GiB)
        return la_fail(-EINVAL, "claim \"%s\" at a multiple of %zu bytes: use a power of two, at most 1 GiB", name, alignment);
    alignment = MAX(alignment, LA_VSPACE_GRANULE);
    if (size > vspace_ranges[arena].size - LA_VSPACE_GRANULE - alignment)
        return la_fail(-ENOSPC, "claim \"%s\" of %zu MiB: the %s arena has %zu MiB", name, size >> 20, vspace_ranges[arena].name,
                       vspace_ranges[arena].size >> 20);
    size = align_up(size, LA_VSPACE_GRANULE);
    r = claim_once(arena, size, alignment, name, ret);
    if (r == -ENOSPC && vspace_sweep(NULL, NULL) > 0)
        r = claim_once(arena, size, alignment, name, ret);
    return r;
}

int la_vspace_claim(size_t size, const char *name, uintptr_t *ret)
{
    return la_vspace_claim_aligned(size, LA_VSPACE_GRANULE, name, ret);
}

/* ---- claiming again ---- */

/* A range of which the caller knows that it is his: so the only claim that may touch it is one of exactly this range. */
static int check_range_is_ours(const struct registry *reg, uint64_t start, uint64_t length)
{
    for (size_t i = 0; i < reg->count; i++) {
        const struct record *r = &reg->records[i];

        if (!is_valid(r) || (r->start == start && r->length == length))
            continue;
        if (start < r->start + r->length + LA_VSPACE_GRANULE && r->start < start + length + LA_VSPACE_GRANULE)
            return la_fail(-EEXIST, "range %#lx + %#lx is claimed by \"%s\"", (unsigned long)start, (unsigned long)length, r->name);
    }
    return 0;
}

/* First the new record, then the old one goes: whoever is killed in between leaves the range claimed twice, not unclaimed. */
static int replace_claim(struct registry *reg, const struct record *record)
{
    int r = write_record(reg, record);

    for (size_t i = 0; i < reg->count && r == 0; i++)
        if (is_valid(&reg->records[i]) && reg->records[i].start == record->start && reg->records[i].id != record->id)
            r = drop_record(reg, i);
    return r;
}

int la_vspace_claim_at(uintptr_t address, size_t size, const char *name)
{
    struct record record = { .start = address, .length = size, .created = (uint64_t)time(NULL), .id = os_random() };
    size_t length = name ? strlen(name) : 0;
    struct registry reg;
    int r;

    if (length == 0 || length > LA_VSPACE_NAME_MAX)
        return la_fail(-EINVAL, "the name of a claim has %zu bytes: 1 to %d are needed", length, LA_VSPACE_NAME_MAX);
    if (size == 0 || (address | size) % LA_VSPACE_GRANULE || vspace_find(address, size) < 0)
        return la_fail(-EINVAL, "range %#lx + %#zx lies in no arena, or is not made of whole granules", (unsigned long)address, size);
    strcpy(record.name, name);
    r = open_registry(&reg);
    if (r < 0)
        return r;
    r = check_range_is_ours(&reg, address, size);
    if (r == 0)
        r = replace_claim(&reg, &record);
    close_registry(&reg);
    return r;
}

int la_vspace_unclaim(uintptr_t address)
{
    struct registry reg;
    size_t slot = 0;
    int r = open_registry(&reg);

    if (r < 0)
        return r;
    while (slot < reg.count && !(is_valid(&reg.records[slot]) && reg.records[slot].start == address))
        slot++;
    r = slot < reg.count ? drop_record(&reg, slot) : la_fail(-ENOENT, "nobody has claimed address %#lx", address);
    close_registry(&reg);
    return r;
}

int vspace_find_claim(const char *name, uintptr_t *address, size_t *size)
{
    struct registry reg;
    size_t slot = 0;
    int r = open_registry(&reg);

    if (r < 0)
        return r;
    while (slot < reg.count && !(is_valid(&reg.records[slot]) && strcmp(reg.records[slot].name, name) == 0))
        slot++;
    if (slot < reg.count) {
        *address = reg.records[slot].start;
        *size = reg.records[slot].length;
    } else {
        r = la_fail(-ENOENT, "no claim is named \"%s\"", name);
    }
    close_registry(&reg);
    return r;
}

/* ---- sweeping ---- */

bool vspace_claim_has_file(const char *name, uintptr_t address, void *user)
{
    const char *mark = strrchr(name, '#');
    char path[LA_VSPACE_NAME_MAX + 1];
    struct stat st;

    (void)address, (void)user;
    if (name[0] != '/')
        return true;
    if (lstat(name, &st) == 0)
        return true;
    if (!mark)
        return errno != ENOENT;
    la_format(path, sizeof(path), "%.*s", (int)(mark - name), name);
    return lstat(path, &st) == 0 ? st.st_ino == strtoull(mark + 1, NULL, 10) : errno != ENOENT;
}

/* Drop the claim @seen if it is still the same one. Return: 1 dropped, 0, or a negative errno. */
static int drop_same(struct registry *reg, const struct record *seen)
{
    for (size_t i = 0; i < reg->count; i++)
        if (is_valid(&reg->records[i]) && reg->records[i].id == seen->id && reg->records[i].start == seen->start) {
            int r = drop_record(reg, i);
            return r < 0 ? r : 1;
        }
    return 0;
}

static int drop_all_same(const struct record *seen, size_t count)
{
    struct registry reg;
    int dropped = 0, r = open_registry(&reg);

    if (r < 0)
        return r;
    for (size_t i = 0; i < count && r >= 0; i++) {
        r = drop_same(&reg, &seen[i]);
        dropped += MAX(r, 0);
    }
    close_registry(&reg);
    return r < 0 ? r : dropped;
}

/* Old enough; also when the clock was set back, which makes a claim look young, never old. */
static bool is_old(const struct record *record, uint64_t age)
{
    uint64_t now = (uint64_t)time(NULL);

    return now >= record->created && now - record->created >= age;
}

/* In three steps, so that the user's function runs under no lock: list, ask, drop what is still the same. */
int vspace_sweep_older(uint64_t age, bool (*still_used)(const char *name, uintptr_t address, void *user), void *user)
{
    struct registry reg;
    struct record *seen;
    size_t count = 0, unused = 0;
    int r = open_registry(&reg);

    if (r < 0)
        return r;
    seen = os_map(MAX_RECORDS * sizeof(*seen));
    for (size_t i = 0; seen && i < reg.count; i++)
        if (is_valid(&reg.records[i]) && is_old(&reg.records[i], age))
            seen[count++] = reg.records[i];
    close_registry(&reg);
    if (!seen)
        return la_fail(-ENOMEM, "no memory to sweep the registry");
    if (!still_used)
        still_used = vspace_claim_has_file;
    for (size_t i = 0; i < count; i++)
        if (!still_used(seen[i].name, seen[i].start, user))
            seen[unused++] = seen[i];
    r = unused > 0 ? drop_all_same(seen, unused) : 0;
    os_unmap(seen, MAX_RECORDS * sizeof(*seen));
    return r;
}

int vspace_sweep(bool (*still_used)(const char *name, uintptr_t address, void *user), void *user)
{
    return vspace_sweep_older(SWEEP_AGE, still_used, user);
}

/* ---- fork ---- */

void vspace_registry_fork_prepare(void)
{
    lock_take(&registry_lock);
}

void vspace_registry_fork_done(bool child)
{
    if (child)
        lock_reset(&registry_lock);
    else
        lock_give(&registry_lock);
}
