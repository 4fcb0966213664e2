/*
 * vspace.c - fixed addresses that hit nobody: reserve an arena, map over the reservation only.
 *
 *     0x4100_0000_0000                                            0x4900_0000_0000
 *     |####|  segment  |#################|  segment  |####################|        # PROT_NONE, ours
 *
 * A range chosen at run time (a hole of this process) is a hole of this process only. The two ranges here were free in
 * thousands of starts of 39 kinds of program; docs/vspace.md tells who sits where.
 *
 * I1  An arena that is RESERVED is mapped from end to end: by us with PROT_NONE, or by an entry of `mapped`.
 *     (Unless somebody unmaps or overmaps it behind our back, which la_vspace_verify() finds.)
 * I2  MAP_FIXED is used only inside a RESERVED arena, over pages that /proc shows to be our PROT_NONE.
 *     Everything else is MAP_FIXED_NOREPLACE, and the address returned is compared: sanitizers, emulators and kernels
 *     before 4.17 take it for a hint.
 * I3  An arena is LAZY when it could not be reserved whole: RLIMIT_AS, or a system that does not honour
 *     MAP_FIXED_NOREPLACE (an emulator, where reserving terabytes may also cost gigabytes). Then each la_mmap() claims
 *     its own range, and a stranger may take an address before we need it: refused, never replaced.
 *
 * System calls: reservations are raw, since the mmap() of TSan and MSan refuses or moves them; mappings proper go
 * through libc, so that sanitizers know them.
 *
 * Locking: arena_lock for the arenas' states and `mapped`. No user code runs under it.
 */
#include "os/vspace.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/magic.h>

#include "base/error.h"
#include "base/fmt.h"
#include "base/lock.h"
#include "os/maps.h"
#include "os/os.h"
#include "os/vspace_registry.h"

const struct vspace_range vspace_ranges[VSPACE_ARENAS] = {
    [VSPACE_WIDE] = { "wide", 0x410000000000, 8192 * GiB },
    [VSPACE_NARROW] = { "narrow", 0x550000000000, 256 * GiB },
};

enum arena_state { OPEN, RESERVED, LAZY };

static enum arena_state states[VSPACE_ARENAS];
static struct range_table mapped;           /* tag: inode to expect there, 0: unknown */
static struct la_lock arena_lock = LOCK_INIT(RANK_VSPACE);

/* ---- which arena ---- */

/* Present in programs built with these sanitizers, which own the wide arena's addresses. */
extern void __tsan_init(void) __attribute__((weak));
extern void __msan_init(void) __attribute__((weak));
extern void dfsan_flush(void) __attribute__((weak));

static int choose_default(void)
{
    const char *word = secure_getenv("LIBALLOC_VSPACE");

    if (!word || !*word)
        return __tsan_init || __msan_init || dfsan_flush ? VSPACE_NARROW : VSPACE_WIDE;
    for (int i = 0; i < VSPACE_ARENAS; i++)
        if (strcmp(word, vspace_ranges[i].name) == 0)
            return i;
    return la_fail(-EINVAL, "LIBALLOC_VSPACE=%.*s: say wide or narrow", 40, word);
}

int vspace_default(void)
{
    static _Atomic(int) cached;         /* index + 1, 0: not chosen yet */
    int chosen = atomic_load_explicit(&cached, memory_order_relaxed) - 1;

    if (chosen < 0) {
        chosen = choose_default();
        if (chosen >= 0)
            atomic_store_explicit(&cached, chosen + 1, memory_order_relaxed);
    }
    return chosen;
}

int vspace_find(uintptr_t address, size_t size)
{
    for (int i = 0; i < VSPACE_ARENAS; i++) {
        const struct vspace_range *r = &vspace_ranges[i];

        if (address >= r->base && address - r->base < r->size && size <= r->size - (address - r->base))
            return i;
    }
    return -1;
}

int la_vspace_arena(uintptr_t *base, size_t *size)
{
    int arena = vspace_default();

    if (arena < 0)
        return arena;
    *base = vspace_ranges[arena].base;
    *size = vspace_ranges[arena].size;
    return 0;
}

/* ---- saying who sits there ---- */

static size_t describe(const struct maps_entry *e, char *out, size_t size)
{
    return la_format(out, size, "%#lx-%#lx %s %.*s", e->start, e->end, e->perms, 90, e->path[0] ? e->path : "(no name)");
}

/* The range cannot be had although no limit forbids it: name the first mapping in the way. */
static int refuse_taken(const char *what, uintptr_t start, size_t size, const char *remedy)
{
    struct maps_entry entry;
    char place[160];

    if (maps_find(start, start + size, &entry) > 0)
        describe(&entry, place, sizeof(place));
    else
        la_format(place, sizeof(place), "nothing in /proc/self/maps, but the system (an emulator?) refuses that address");
    return la_fail(-EEXIST, "%s %#lx-%#lx is taken: %s%s", what, start, start + size, place, remedy);
}

static int refuse_limit(uintptr_t start, size_t size, int error)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        return la_fail(-error, "cannot map %#lx-%#lx (%zu MiB): RLIMIT_AS is %lu MiB (ulimit -v)", start, start + size, size >> 20,
                       (unsigned long)limit.rlim_cur >> 20);
    return la_fail(-error, "cannot map %#lx-%#lx (%zu MiB), errno %d: no such address here, vm.max_map_count or no memory", start,
                   start + size, size >> 20, error);
}

/* ---- the reservation ---- */

/* Return: 0, or the positive errno; EEXIST also where the system puts it elsewhere. */
static int map_noreplace(uintptr_t address, size_t size, int prot, int flags, int fd, off_t offset)
{
    long p = syscall(SYS_mmap, address, size, prot, (flags & ~MAP_FIXED) | MAP_FIXED_NOREPLACE, fd, offset);

    if (p == -1)
        return errno;
    if ((uintptr_t)p == address)
        return 0;
    syscall(SYS_munmap, p, size);
    return EEXIST;
}

static int claim_range(uintptr_t address, size_t size)
{
    int error = map_noreplace(address, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    /* At once: a core dump would walk terabytes. */
    if (error == 0)
        madvise((void *)address, size, MADV_DONTDUMP);
    return error;
}

/* Does the system refuse MAP_FIXED_NOREPLACE over an existing page with EEXIST, as Linux since 4.17 does? */
static bool noreplace_is_honoured(uintptr_t address)
{
    size_t page = os_page_size();
    long p = syscall(SYS_mmap, address, page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0L);

    if (p != -1)
        syscall(SYS_munmap, p, page);
    return p == -1 && errno == EEXIST;
}

static int reserve(int arena)
{
    const struct vspace_range *r = &vspace_ranges[arena];
    int error = claim_range(r->base, LA_VSPACE_GRANULE);

    if (error == 0) {
        bool honoured = noreplace_is_honoured(r->base);

        syscall(SYS_munmap, r->base, LA_VSPACE_GRANULE);
        error = honoured ? claim_range(r->base, r->size) : ENOMEM;
    }
    if (error == EEXIST || error == EPERM)      /* EPERM: TSan, outside its application ranges */
        return refuse_taken("vspace arena", r->base, r->size,
                            arena == VSPACE_WIDE ? "; try LIBALLOC_VSPACE=narrow for all processes" : "");
    states[arena] = error == 0 ? RESERVED : LAZY;
    return 0;
}

static int arena_ready(int arena)
{
    int saved = errno, r = states[arena] == OPEN ? reserve(arena) : 0;

    errno = saved;
    return r;
}

/* I1 again, after a mapping over the reservation has ended or failed (a failed MAP_FIXED may leave a hole). */
static int put_reservation_back(uintptr_t address, size_t size)
{
    void *p = mmap((void *)address, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);

    if (p == MAP_FAILED)
        return refuse_limit(address, size, errno);
    madvise(p, size, MADV_DONTDUMP);
    return 0;
}

/* ---- who does not belong there ---- */

/* A piece of the address space that is inside or outside one entry of the table, and one mapping or none. */
struct piece {
    uintptr_t start, end;
    const struct maps_entry *mapping;       /* NULL: nothing is mapped */
    const struct range_entry *ours;         /* NULL: reservation */
};

static bool looks_reserved(const struct maps_entry *e)
{
    return e->inode == 0 && e->path[0] == '\0' && memcmp(e->perms, "---", 3) == 0;
}

/* What is wrong with @piece, NULL: nothing. */
static const char *fault_of(const struct piece *piece)
{
    if (!piece->mapping)
        return piece->ours ? "was unmapped without la_munmap()" : "is open: the reservation was unmapped";
    if (!piece->ours)
        return looks_reserved(piece->mapping) ? NULL : "was mapped over the reservation";
    return piece->ours->tag && piece->ours->tag != piece->mapping->inode ? "was mapped over a mapping of la_mmap()" : NULL;
}

typedef void report_fn(void *user, const char *line);

static int judge(const struct piece *piece, report_fn *report, void *user)
{
    const char *fault = fault_of(piece);
    char line[320];

    if (!fault)
        return 0;
    if (report && piece->mapping)
        la_format(line, sizeof(line), "%#lx-%#lx %s %s %s", piece->start, piece->end, piece->mapping->perms,
                  piece->mapping->path[0] ? piece->mapping->path : "(no name)", fault);
    else if (report)
        la_format(line, sizeof(line), "%#lx-%#lx %s", piece->start, piece->end, fault);
    if (report)
        report(user, line);
    return 1;
}

/* Judge [start, end), all of one mapping or all unmapped, piece by piece of the table. */
static int judge_range(const struct range_table *table, uintptr_t start, uintptr_t end, const struct maps_entry *mapping, bool reserved,
                       report_fn *report, void *user)
{
    int faults = 0;

    while (start < end) {
        const struct range_entry *next = range_find(table, start, end);
        bool inside = next && next->start <= start;
        struct piece piece = { .start = start, .end = !next ? end : MIN(end, inside ? next->end : next->start),
                               .mapping = mapping, .ours = inside ? next : NULL };

        if (inside || reserved)
            faults += judge(&piece, report, user);
        start = piece.end;
    }
    return faults;
}

/* Compare /proc with the table between @from and @to. @reserved: what the table does not know must be our reservation. */
static int scan(const struct range_table *table, uintptr_t from, uintptr_t to, bool reserved, report_fn *report, void *user)
{
    struct maps_reader reader;
    struct maps_entry entry;
    int faults = 0, r = maps_open(&reader);

    if (r < 0)
        return la_fail(r, "cannot read /proc/self/maps (errno %d)", -r);
    while ((r = maps_next(&reader, &entry)) > 0 && entry.start < to) {
        uintptr_t start = MAX(entry.start, from), end = MIN(entry.end, to);

        if (entry.end <= from)
            continue;
        faults += judge_range(table, from, start, NULL, reserved, report, user);
        faults += judge_range(table, start, end, &entry, reserved, report, user);
        from = end;
    }
    maps_close(&reader);
    if (r < 0)
        return la_fail(r, "cannot make sense of /proc/self/maps (errno %d)", -r);
    return faults + judge_range(table, from, to, NULL, reserved, report, user);
}

int la_vspace_verify(void (*report)(void *user, const char *line), void *user)
{
    struct range_table table;
    enum arena_state seen[VSPACE_ARENAS];
    int faults = 0, r;

    /* A copy: @report may allocate, map, or call us. */
    lock_take(&arena_lock);
    memcpy(seen, states, sizeof(seen));
    r = range_copy(&mapped, &table);
    lock_give(&arena_lock);
    if (r < 0)
        return la_fail(r, "no memory to copy the table of mappings");
    for (int i = 0; i < VSPACE_ARENAS && r >= 0; i++) {
        const struct vspace_range *a = &vspace_ranges[i];

        if (seen[i] == OPEN)
            continue;
        r = scan(&table, a->base, a->base + a->size, seen[i] == RESERVED, report, user);
        faults += MAX(r, 0);
    }
    range_clear(&table);
    return r < 0 ? r : faults;
}

/* ---- mapping ---- */

/* The inode that /proc will show for a mapping of @fd; 0 where file systems disagree with themselves (overlays). */
static uint64_t inode_of(int fd, int flags)
{
    struct stat st;
    struct statfs fs;

    if (flags & MAP_ANONYMOUS || fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0)
        return 0;
    return fs.f_type == TMPFS_MAGIC || fs.f_type == HUGETLBFS_MAGIC ? st.st_ino : 0;
}

static int check_range(uintptr_t address, size_t size)
{
    int arena;

    if (size == 0 || (address | size) & (os_page_size() - 1))
        return la_fail(-EINVAL, "range %#lx + %#lx: both must be multiples of the page size, %zu, and not empty", address, size,
                       os_page_size());
    arena = vspace_find(address, size);
    if (arena < 0)
        return la_fail(-EINVAL, "range %#lx + %#lx lies in no arena: get the address from la_vspace_claim()", address, size);
    return arena;
}

/* I2: what we are about to replace is ours. A hole is nobody's: harmless, and filled by the mapping. */
static int check_reservation(uintptr_t address, size_t size)
{
    struct maps_reader reader;
    struct maps_entry entry;
    int r = maps_open(&reader);

    /* Without /proc the reservation must be believed. */
    if (r < 0)
        return 0;
    while ((r = maps_next(&reader, &entry)) > 0 && entry.start < address + size)
        if (entry.end > address && !looks_reserved(&entry)) {
            char place[160];

            describe(&entry, place, sizeof(place));
            maps_close(&reader);
            return la_fail(-EEXIST, "range %#lx-%#lx is taken: %s was mapped over our reservation", address, address + size, place);
        }
    maps_close(&reader);
    return 0;
}

static int map_over_reservation(uintptr_t address, size_t size, int prot, int flags, int fd, off_t offset)
{
    int r = check_reservation(address, size);
    void *p;

    if (r < 0)
        return r;
    p = mmap((void *)address, size, prot, (flags & ~MAP_FIXED_NOREPLACE) | MAP_FIXED, fd, offset);
    if (p != MAP_FAILED)
        return 0;
    r = -errno;
    put_reservation_back(address, size);
    if (r == -ENOMEM)
        return refuse_limit(address, size, ENOMEM);
    return la_fail(r, "cannot map descriptor %d at %#lx-%#lx (errno %d)", fd, address, address + size, -r);
}

static int map_lazily(uintptr_t address, size_t size, int prot, int flags, int fd, off_t offset)
{
    int error = map_noreplace(address, size, prot, flags, fd, offset);

    switch (error) {
    case 0:
        return 0;
    case EEXIST:
    case EPERM:
        return refuse_taken("range", address, size, "");
    case ENOMEM:
        return refuse_limit(address, size, error);
    default:
        return la_fail(-error, "cannot map descriptor %d at %#lx-%#lx (errno %d)", fd, address, address + size, error);
    }
}

static int map_locked(int arena, uintptr_t address, size_t size, int prot, int flags, int fd, off_t offset)
{
    const struct range_entry *there;
    int r = arena_ready(arena);

    if (r < 0)
        return r;
    there = range_find(&mapped, address, address + size);
    if (there)
        return la_fail(-EEXIST, "range %#lx-%#lx: la_mmap() has mapped %#lx-%#lx in this process already", address, address + size,
                       there->start, there->end);
    if (range_insert(&mapped, address, address + size, inode_of(fd, flags)) < 0)
        return la_fail(-ENOMEM, "no memory for the table of mappings");
    r = states[arena] == RESERVED ? map_over_reservation(address, size, prot, flags, fd, offset)
                                  : map_lazily(address, size, prot, flags, fd, offset);
    if (r < 0)
        range_remove(&mapped, address, address + size);
    return r;
}

int la_mmap(uintptr_t address, size_t size, int prot, int flags, int fd, off_t offset)
{
    int arena = check_range(address, size), saved = errno, r;

    if (arena < 0)
        return arena;
    lock_take(&arena_lock);
    r = map_locked(arena, address, size, prot, flags, fd, offset);
    lock_give(&arena_lock);
    errno = saved;
    return r;
}

static int unmap_locked(int arena, uintptr_t address, size_t size)
{
    const struct range_entry *there = range_find(&mapped, address, address + size);
    int r = 0;

    if (!there || there->start != address || there->end != address + size)
        return la_fail(-EINVAL, "range %#lx-%#lx is not one mapping of la_mmap()", address, address + size);
    if (states[arena] == RESERVED)
        r = put_reservation_back(address, size);
    else if (munmap((void *)address, size) < 0)
        r = la_fail(-errno, "cannot unmap %#lx-%#lx (errno %d)", address, address + size, errno);
    if (r == 0)
        range_remove(&mapped, address, address + size);
    return r;
}

int la_munmap(uintptr_t address, size_t size)
{
    int arena = check_range(address, size), saved = errno, r;

    if (arena < 0)
        return arena;
    lock_take(&arena_lock);
    r = unmap_locked(arena, address, size);
    lock_give(&arena_lock);
    errno = saved;
    return r;
}

void vspace_lock(void)
{
    lock_take(&arena_lock);
}

void vspace_unlock(void)
{
    lock_give(&arena_lock);
}

int vspace_copy_mapped(struct range_table *ret)
{
    int r;

    lock_take(&arena_lock);
    r = range_copy(&mapped, ret);
    lock_give(&arena_lock);
    return r;
}

/* ---- fork: the child has the same reservation, mappings and table ---- */

void vspace_fork_prepare(void)
{
    vspace_registry_fork_prepare();
    lock_take(&arena_lock);
}

void vspace_fork_done(bool child)
{
    if (child)
        lock_reset(&arena_lock);
    else
        lock_give(&arena_lock);
    vspace_registry_fork_done(child);
}
