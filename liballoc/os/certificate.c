#include "os/certificate.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fmt.h"

static struct flock byte_of(uint32_t slot, short type)
{
    /* l_pid must be 0 for open-file-description locks. */
    return (struct flock){ .l_type = type, .l_whence = SEEK_SET, .l_start = CERTIFICATE_BASE + slot, .l_len = 1 };
}

/* Return: 0 or a negative errno; -EAGAIN in both spellings that the kernel may use. */
static int lock_byte(int fd, int command, struct flock *lock)
{
    int r, saved = errno;

    do
        r = fcntl(fd, command, lock) < 0 ? -errno : 0;
    while (r == -EINTR);
    errno = saved;
    return r == -EACCES ? -EAGAIN : r;
}

int certificate_hold(int fd, uint32_t slot)
{
    struct flock lock = byte_of(slot, F_WRLCK);
    int r = lock_byte(fd, F_OFD_SETLK, &lock);

    if (r == -EBADF)
        return la_fail(r, "certificate %u: descriptor %d is not open for writing", slot, fd);
    if (r < 0 && r != -EAGAIN)
        return la_fail(r, "certificate %u: the file takes no open-file-description lock (errno %d)", slot, -r);
    return r;
}

int certificate_share(int fd, uint32_t slot)
{
    struct flock lock = byte_of(slot, F_RDLCK);
    int r = lock_byte(fd, F_OFD_SETLK, &lock);

    return r < 0 && r != -EAGAIN ? la_fail(r, "certificate %u cannot be shared through descriptor %d (errno %d)", slot, fd, -r) : r;
}

int certificate_release(int fd, uint32_t slot)
{
    struct flock lock = byte_of(slot, F_UNLCK);
    int r = lock_byte(fd, F_OFD_SETLK, &lock);

    return r < 0 ? la_fail(r, "certificate %u cannot be given back through descriptor %d (errno %d)", slot, fd, -r) : 0;
}

int certificate_is_held(int fd, uint32_t slot)
{
    struct flock lock = byte_of(slot, F_WRLCK);
    int r = lock_byte(fd, F_OFD_GETLK, &lock);

    if (r < 0)
        return la_fail(r, "certificate %u cannot be read through descriptor %d (errno %d)", slot, fd, -r);
    return lock.l_type != F_UNLCK;
}

int certificate_reopen(int fd)
{
    char path[32];
    int fresh;

    la_format(path, sizeof(path), "/proc/self/fd/%d", fd);
    fresh = open(path, O_RDWR | O_CLOEXEC);
    if (fresh < 0)
        return la_fail(-errno, "cannot open descriptor %d anew through %s (errno %d)", fd, path, errno);
    return fresh;
}
