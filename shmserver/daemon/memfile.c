#include "shmserver/daemon/memfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <liballoc/heap.h>
#include <liballoc/vspace.h>

#include "base/error.h"
#include "base/user_ids.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U     /* Linux 6.3; includes MFD_ALLOW_SEALING */
#endif

enum { LABEL_SIZE = 200, HOLDER_SIZE = 64 };
_Static_assert(LABEL_SIZE <= 249, "memfd_create() takes so much");

/* Name, owner, group, address: for a daemon that knows nothing but the file. */
static void write_label(const struct memfile_label *label, uintptr_t address, char ret[LABEL_SIZE])
{
    snprintf(ret, LABEL_SIZE, "liballoc:%s:%u:%u:%lx", label->name, label->owner, label->group, (unsigned long)address);
}

static int open_memfd(const struct memfile_label *label, uintptr_t address)
{
    char text[LABEL_SIZE];
    int fd;

    write_label(label, address, text);
    fd = memfd_create(text, MFD_CLOEXEC | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL)
        fd = memfd_create(text, MFD_CLOEXEC | MFD_ALLOW_SEALING);
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
static int claim_address(uint64_t size, uintptr_t *ret)
{
    char holder[HOLDER_SIZE];

    snprintf(holder, sizeof(holder), "/proc/%d/exe", getpid());
    return la_vspace_claim(size, holder, ret);
}

static int make_file(const struct memfile_label *label, uint64_t size, uintptr_t address)
{
    CLEANUP(close_fd) int fd = open_memfd(label, address);
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

int memfile_create(const struct memfile_label *label, uint64_t size, struct memfile *ret)
{
    uintptr_t address;
    int fd, r;

    if (size < LA_HEAP_MIN_SIZE || size > (uint64_t)1 << 46)
        return la_fail(-EINVAL, "heap size of %lu bytes: use %zu or more, at most 64 TiB", (unsigned long)size, LA_HEAP_MIN_SIZE);
    size = align_up(size, LA_VSPACE_GRANULE);
    r = claim_address(size, &address);
    if (r < 0)
        return r;
    fd = make_file(label, size, address);
    if (fd < 0) {
        la_vspace_unclaim(address);
        return fd;
    }
    *ret = (struct memfile){ .fd = fd, .size = size, .address = address };
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

int memfile_examine(int fd, struct memfile_label *label, uint64_t *size, uintptr_t *address)
{
    struct stat st;
    struct memfile file = { .fd = fd };

    if (!is_made_by_us(fd, &st) || !read_label(fd, label, address))
        return la_fail(-EPERM, "the descriptor is not that of a heap which a shmserver of user %u has made", geteuid());
    *size = (uint64_t)st.st_size;
    return memfile_reopen(&file, memfile_is_sealed(&file));
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
    *ret = (struct memfile){ .fd = fd, .size = size, .address = address };
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
