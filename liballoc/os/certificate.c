#include "os/certificate.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/fmt.h"

/* No file content ever lies there. */
#define FIRST_BYTE ((off_t)1 << 62)

static int lock_byte(int fd, int command, short type, uint32_t slot, short *found)
{
    struct flock lock = { .l_type = type, .l_whence = SEEK_SET, .l_start = FIRST_BYTE + slot, .l_len = 1 };
    int saved = errno, r;

    r = fcntl(fd, command, &lock) < 0 ? -errno : 0;
    errno = saved;
    if (found)
        *found = lock.l_type;
    return r == -EACCES ? -EAGAIN : r;
}

int certificate_hold(int fd, uint32_t slot)
{
    return lock_byte(fd, F_OFD_SETLK, F_WRLCK, slot, NULL);
}

int certificate_release(int fd, uint32_t slot)
{
    return lock_byte(fd, F_OFD_SETLK, F_UNLCK, slot, NULL);
}

int certificate_is_held(int fd, uint32_t slot)
{
    short found = F_UNLCK;
    int r = lock_byte(fd, F_OFD_GETLK, F_WRLCK, slot, &found);

    return r < 0 ? r : found != F_UNLCK;
}

int certificate_reopen(int fd)
{
    char path[32];
    int fresh;

    la_format(path, sizeof(path), "/proc/self/fd/%d", fd);
    fresh = open(path, O_RDWR | O_CLOEXEC);
    return fresh < 0 ? -errno : fresh;
}
