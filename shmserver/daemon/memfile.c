#include "shmserver/daemon/memfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <linux/magic.h>

#include <liballoc/heap.h>
#include <liballoc/vspace.h>

#include "base/error.h"
#include "base/user_ids.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U     /* Linux 6.3; includes MFD_ALLOW_SEALING */
#endif

enum { LABEL_SIZE = 200, HOLDER_SIZE = 64, HUGE_SHIFT = 26 };   /* the last: MFD_HUGE_SHIFT, which old headers lack */
_Static_assert(LABEL_SIZE <= 249, "memfd_create() takes so much");

/* Name, owner, group, address: for a daemon that knows nothing but the file. */
static void write_label(const struct memfile_label *label, uintptr_t address, char ret[LABEL_SIZE])
{
    snprintf(ret, LABEL_SIZE, "liballoc:%s:%u:%u:%lx", label->name, label->owner, label->group, (unsigned long)address);
}

/* By the kernel's word: what is in the file may be anybody's. */
static uint64_t page_size_of(int fd)
{
    struct statfs fs;

    return fstatfs(fd, &fs) == 0 && fs.f_type == HUGETLBFS_MAGIC ? (uint64_t)fs.f_bsize : (uint64_t)sysconf(_SC_PAGESIZE);
}

bool memfile_is_huge(const struct memfile *file)
{
    return file->page_size > (uint64_t)sysconf(_SC_PAGESIZE);
}

static int open_memfd(const struct memfile_label *label, uintptr_t address, uint64_t page_size)
{
    unsigned flags = MFD_CLOEXEC | (page_size ? MFD_HUGETLB | (unsigned)__builtin_ctzll(page_size) << HUGE_SHIFT : 0);
    char text[LABEL_SIZE];
    int fd;

    write_label(label, address, text);
    fd = memfd_create(text, flags | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL)
        fd = memfd_create(text, flags | MFD_ALLOW_SEALING);
    if (fd < 0 && page_size && (errno == ENODEV || errno == EINVAL))
        return la_fail(-EINVAL, "this machine has no pages of %lu KiB for heap %s: /sys/kernel/mm/hugepages has a folder for each size",
                       (unsigned long)page_size >> 10, label->name);
    if (fd < 0)
        return la_fail(-errno, "cannot make a memory file for heap %s (errno %d)", label->name, errno);
    /* A memfd is born open to all: another user could open a read-only descriptor again for writing. */
    if (fchmod(fd, 0600) < 0) {
        int r = la_fail(-errno, "cannot close the file of heap %s for other users (errno %d)", label->name, errno);
        close(fd);
        return r;
    }
    return fd;
}

static int format_and_seal(int fd, const char *name, uint64_t size, uintptr_t address)
{
    int r = la_heap_format(fd, size, address, name);

    if (r == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK) < 0)
        r = la_fail(-errno, "cannot seal the file of heap %s (errno %d)", name, errno);
    return r;
}

/* A claim that is named by a path may be dropped when that is gone: here, when we have died without giving it back. */
static void name_holder(int fd, char holder[HOLDER_SIZE])
{
    snprintf(holder, HOLDER_SIZE, "/proc/%d/fd/%d", getpid(), fd);
}

/* An address of our own for as long as we live; the file, which knows it from its birth on, takes the claim over. */
static int claim_address(uint64_t size, uint64_t page_size, uintptr_t *ret)
{
    char holder[HOLDER_SIZE];

    snprintf(holder, sizeof(holder), "/proc/%d/exe", getpid());
    return la_vspace_claim_aligned(size, MAX(page_size, LA_VSPACE_GRANULE), holder, ret);
}

static int make_file(const struct memfile_label *label, uint64_t size, uint64_t page_size, uintptr_t address)
{
    CLEANUP(close_fd) int fd = open_memfd(label, address, page_size);
    char holder[HOLDER_SIZE];
    int r;

    if (fd < 0)
        return fd;
    name_holder(fd, holder);
    r = la_vspace_claim_at(address, size, holder);
    if (r == 0)
        r = format_and_seal(fd, label->name, size, address);
    return r < 0 ? r : steal_fd(&fd);
}

int memfile_round(uint64_t size, uint64_t page_size, uint64_t *ret)
{
    const uint64_t unit = MAX(page_size, LA_VSPACE_GRANULE);

    if (page_size && (!is_power_of_2(page_size) || page_size <= (uint64_t)sysconf(_SC_PAGESIZE) || page_size > GiB))
        return la_fail(-EINVAL, "%lu bytes are no size of a huge page: use 2 MiB or 1 GiB", (unsigned long)page_size);
    *ret = size > UINT64_MAX - unit ? UINT64_MAX : align_up(size, unit);
    return 0;
}

int memfile_create(const struct memfile_label *label, uint64_t size, uint64_t page_size, struct memfile *ret)
{
    uintptr_t address;
    int fd, r;

    if (size < LA_HEAP_MIN_SIZE || size > (uint64_t)1 << 46)
        return la_fail(-EINVAL, "heap size of %lu bytes: use %zu or more, at most 64 TiB", (unsigned long)size, LA_HEAP_MIN_SIZE);
    r = memfile_round(size, page_size, &size);
    if (r == 0)
        r = claim_address(size, page_size, &address);
    if (r < 0)
        return r;
    fd = make_file(label, size, page_size, address);
    if (fd < 0) {
        la_vspace_unclaim(address);
        return fd;
    }
    *ret = (struct memfile){ .fd = fd, .size = size, .page_size = page_size_of(fd), .address = address };
    return 0;
}

/* ---- files that come from elsewhere ---- */

static bool has_our_seals(int fd)
{
    const int seals = fcntl(fd, F_GET_SEALS);

    return seals >= 0 && (seals & F_SEAL_GROW) && (seals & F_SEAL_SHRINK);
}

static bool is_made_by_us(int fd, struct stat *st)
{
    return fstat(fd, st) == 0 && S_ISREG(st->st_mode) && file_is_own(fd, st) && (st->st_mode & 07777) == 0600 && st->st_nlink == 0 &&
           has_our_seals(fd);
}

static bool read_label(int fd, struct memfile_label *label, uintptr_t *address)
{
    char path[32], text[LABEL_SIZE + 32], end[16] = "";
    unsigned long at;
    ssize_t n;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    n = readlink(path, text, sizeof(text) - 1);
    text[n > 0 ? n : 0] = '\0';
    if (sscanf(text, "/memfd:liballoc:%63[^:]:%u:%u:%lx%15s", label->name, &label->owner, &label->group, &at, end) != 5 ||
        strcmp(end, "(deleted)") != 0)
        return false;
    *address = at;
    return true;
}

int memfile_examine(int fd, struct memfile_label *label, struct memfile *ret)
{
    struct memfile file = { .fd = fd };
    struct stat st;

    if (!is_made_by_us(fd, &st) || !read_label(fd, label, &file.address))
        return la_fail(-EPERM, "the descriptor is not that of a heap which a shmserver of user %u has made", geteuid());
    file.fd = memfile_reopen(&file, memfile_is_sealed(&file));
    if (file.fd < 0)
        return file.fd;
    file.size = (uint64_t)st.st_size;
    file.page_size = page_size_of(fd);
    *ret = file;
    return 0;
}

bool memfile_is(const struct memfile *file, int fd)
{
    struct stat ours, other;

    return fstat(file->fd, &ours) == 0 && fstat(fd, &other) == 0 && ours.st_dev == other.st_dev && ours.st_ino == other.st_ino;
}

int memfile_adopt(int fd, uint64_t size, uintptr_t address, struct memfile *ret)
{
    char holder[HOLDER_SIZE];
    struct stat st;
    int r = 0;

    if (!has_our_seals(fd) || fstat(fd, &st) < 0 || (uint64_t)st.st_size != size)
        r = la_fail(-EINVAL, "it is no sealed memory file of %lu bytes", (unsigned long)size);
    name_holder(fd, holder);
    if (r == 0)
        r = la_vspace_claim_at(address, size, holder);
    if (r < 0) {
        close_fd(&fd);
        return r;
    }
    *ret = (struct memfile){ .fd = fd, .size = size, .page_size = page_size_of(fd), .address = address };
    return 0;
}

bool memfile_is_sealed(const struct memfile *file)
{
    return fcntl(file->fd, F_GET_SEALS) & F_SEAL_WRITE;
}

int memfile_seal(const struct memfile *file)
{
    if (fcntl(file->fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL) == 0)
        return 0;
    return errno == EBUSY ? la_fail(-EBUSY, "somebody has it mapped for writing still") : la_fail(-errno, "it cannot be sealed (errno %d)", errno);
}

void memfile_close(struct memfile *file, bool keep_address)
{
    if (file->fd < 0)
        return;
    close_fd(&file->fd);
    if (!keep_address)
        la_vspace_unclaim(file->address);
}

int memfile_reopen(const struct memfile *file, bool read_only)
{
    char path[32];
    int fd;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", file->fd);
    fd = open(path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
    if (fd < 0)
        return la_fail(-errno, "cannot open %s (errno %d): is /proc mounted?", path, errno);
    return fd;
}
