#include "shmserver/daemon/memfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <liballoc/heap.h>
#include <liballoc/vspace.h>

#include "base/error.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U     /* Linux 6.3; includes MFD_ALLOW_SEALING */
#endif

static int open_memfd(const char *name)
{
    char label[LA_HEAP_NAME_MAX + sizeof("liballoc:")];
    int fd;

    snprintf(label, sizeof(label), "liballoc:%s", name);
    fd = memfd_create(label, MFD_CLOEXEC | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL)
        fd = memfd_create(label, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return la_fail(-errno, "cannot make a memory file for heap %s (errno %d)", name, errno);
    /* A memfd is born open to all: another user could open a read-only descriptor again for writing. */
    if (fchmod(fd, 0600) < 0) {
        int r = la_fail(-errno, "cannot close the file of heap %s for other users (errno %d)", name, errno);
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

enum { HOLDER_SIZE = 64 };

/* A claim that is named by a path may be dropped when that is gone: here, when we have died without giving it back. */
static void name_holder(int fd, char holder[HOLDER_SIZE])
{
    snprintf(holder, HOLDER_SIZE, "/proc/%d/fd/%d", getpid(), fd);
}

int memfile_create(const char *name, uint64_t size, struct memfile *ret)
{
    CLEANUP(close_fd) int fd = -1;
    char holder[HOLDER_SIZE];
    uintptr_t address;
    int r;

    if (size < LA_HEAP_MIN_SIZE || size > (uint64_t)1 << 46)
        return la_fail(-EINVAL, "heap size of %lu bytes: use %zu or more, at most 64 TiB", (unsigned long)size, LA_HEAP_MIN_SIZE);
    size = align_up(size, LA_VSPACE_GRANULE);
    fd = open_memfd(name);
    if (fd < 0)
        return fd;
    name_holder(fd, holder);
    r = la_vspace_claim(size, holder, &address);
    if (r < 0)
        return r;
    r = format_and_seal(fd, name, size, address);
    if (r < 0) {
        la_vspace_unclaim(address);
        return r;
    }
    *ret = (struct memfile){ .fd = steal_fd(&fd), .size = size, .address = address };
    return 0;
}

int memfile_adopt(int fd, uint64_t size, uintptr_t address, struct memfile *ret)
{
    const int seals = fcntl(fd, F_GET_SEALS);
    char holder[HOLDER_SIZE];
    struct stat st;
    int r = 0;

    if (seals < 0 || !(seals & F_SEAL_GROW) || !(seals & F_SEAL_SHRINK) || fstat(fd, &st) < 0 || (uint64_t)st.st_size != size)
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
