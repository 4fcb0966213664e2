/*
 * posix_shm.c - memory that unrelated processes of one user find by name, in /dev/shm.
 *
 * The file is made without a name and linked when it has its size, so that nobody attaches half of one. It cannot be sealed
 * (F_ADD_SEALS says EPERM), so every process of the user is trusted not to shrink it.
 *
 * A fixed address outlives its maker: it is claimed as "/dev/shm/NAME#INODE", where those who attach find it, and goes with seg_remove() or,
 * when the file was removed by other means, when the arena is swept.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <liballoc/vspace.h>

#include "base/error.h"
#include "base/fmt.h"
#include "base/user_ids.h"
#include "os/os.h"
#include "os/vspace_registry.h"
#include "segments/backends/file.h"
#include "segments/placement.h"

#define FOLDER "/dev/shm"
enum { PATH_SIZE = sizeof(FOLDER) + 1 + SEG_NAME_MAX };

static void path_of(const char *name, char *path)
{
    la_format(path, PATH_SIZE, FOLDER "/%s", name);
}

static void claim_name_of(const char *name, ino_t inode, char *claim)
{
    la_format(claim, LA_VSPACE_NAME_MAX + 1, FOLDER "/%s#%lu", name, (unsigned long)inode);
}

static int open_file(const char *name)
{
    char path[PATH_SIZE];
    struct stat st;
    int fd;

    path_of(name, path);
    fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return la_fail(-errno, "cannot open segment \"%s\" (%s, errno %d)%s", name, path, errno,
                       errno == ENOENT ? ": make it with SEG_CREATE" : "");
    if (fstat(fd, &st) < 0 || !file_is_own(fd, &st)) {
        close(fd);
        return la_fail(-EACCES, "segment \"%s\" (%s) belongs to another user", name, path);
    }
    return fd;
}

static int attach(struct seg_segment *s, const struct seg_request *request)
{
    char claim[LA_VSPACE_NAME_MAX + 1];
    struct seg_request mine = *request;
    uintptr_t address = 0;
    struct stat st;
    size_t size;
    int r;

    s->fd = open_file(request->name);
    if (s->fd < 0)
        return s->fd;
    r = seg_file_adopt(s, request);
    if (r < 0 || fstat(s->fd, &st) < 0)
        return r < 0 ? r : -errno;
    claim_name_of(request->name, st.st_ino, claim);
    if (seg_wants(request, SEG_FIXED_ADDRESS) && vspace_find_claim(claim, &address, &size) < 0) {
        r = seg_miss(s, request, SEG_FIXED_ADDRESS, "no fixed address: segment \"%s\" was made without one", request->name);
        mine.preferred &= ~(unsigned)SEG_FIXED_ADDRESS;
    }
    if (r == 0)
        r = seg_map(s, &mine, MAP_SHARED, address, claim);
    return r < 0 ? r : seg_advise_thp(s, request, true);
}

static int link_file(struct seg_segment *s)
{
    char path[PATH_SIZE], self[32];

    path_of(s->name, path);
    la_format(self, sizeof(self), "/proc/self/fd/%d", s->fd);
    if (linkat(AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW) == 0)
        return 0;
    if (errno == EEXIST)
        return la_fail(-EEXIST, "segment \"%s\" exists: attach it, or remove it with seg_remove()", s->name);
    return la_fail(-errno, "cannot make %s (errno %d)", path, errno);
}

static int create(struct seg_segment *s, const struct seg_request *request, size_t size)
{
    char claim[LA_VSPACE_NAME_MAX + 1];
    struct stat st;
    int r;

    s->fd = open(FOLDER, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (s->fd < 0)
        return la_fail(-errno, "cannot make a file in " FOLDER " (errno %d)", errno);
    if (ftruncate(s->fd, (off_t)size) < 0 || fstat(s->fd, &st) < 0)
        return la_fail(-errno, "segment \"%s\" cannot have %zu bytes (errno %d)", s->name, size, errno);
    s->size = size;
    s->page_size = os_page_size();
    claim_name_of(s->name, st.st_ino, claim);
    r = seg_map(s, request, MAP_SHARED, 0, claim);
    if (r == 0)
        r = seg_advise_thp(s, request, true);       /* what may fail comes before the name */
    if (r == 0)
        r = link_file(s);
    if (r == 0)
        s->claim = 0;       /* the name's now, not this process's */
    return r;
}

/* Clean up between attempts: what failed leaves nothing. */
static int attempt(struct seg_segment *s, const struct seg_request *request, size_t size)
{
    int r = size ? create(s, request, size) : attach(s, request);

    if (r < 0)
        seg_file_close(s);
    return r;
}

static int open_or_create(struct seg_segment *s, const struct seg_request *request, size_t size)
{
    int r;

    do {
        r = attempt(s, request, 0);
        if (r != -ENOENT)
            return r;
        r = attempt(s, request, size);
    } while (r == -EEXIST);     /* somebody was faster: attach his */
    return r;
}

static int posix_shm_open(struct seg_segment *s, const struct seg_request *request, size_t size)
{
    int r;

    switch (request->flags & (SEG_CREATE | SEG_ATTACH)) {
    case SEG_CREATE:
        r = attempt(s, request, size);
        break;
    case SEG_ATTACH:
        r = attempt(s, request, 0);
        break;
    case SEG_CREATE | SEG_ATTACH:
        r = open_or_create(s, request, size);
        break;
    default:
        return la_fail(-EINVAL, "segment \"%s\": say SEG_CREATE, SEG_ATTACH or both", s->name);
    }
    if (r == 0)
        s->capabilities |= SEG_SHARED | SEG_NAMED | SEG_PURGE;
    return r;
}

int seg_remove(const char *name)
{
    char path[PATH_SIZE], claim[LA_VSPACE_NAME_MAX + 1];
    uintptr_t address;
    struct stat st;
    size_t size;
    int fd;

    if (!name || !*name || strlen(name) > SEG_NAME_MAX || strchr(name, '/'))
        return la_fail(-EINVAL, "\"%.70s\" is no segment's name", name ? name : "(null)");
    fd = open_file(name);
    if (fd < 0)
        return fd;
    if (fstat(fd, &st) < 0)
        st.st_ino = 0;
    close(fd);
    path_of(name, path);
    if (unlink(path) < 0)
        return la_fail(-errno, "cannot remove %s (errno %d)", path, errno);
    claim_name_of(name, st.st_ino, claim);
    if (vspace_find_claim(claim, &address, &size) == 0)
        la_vspace_unclaim(address);
    return 0;
}

const struct seg_backend seg_posix_shm_backend = {
    .struct_size = sizeof(struct seg_backend),
    .kind = SEG_POSIX_SHM,
    .name = "POSIX shm",
    .can = SEG_SHARED | SEG_NAMED | SEG_FIXED_ADDRESS | SEG_THP | SEG_PURGE | SEG_PLACED,
    .flags = SEG_CREATE | SEG_ATTACH,
    .open = posix_shm_open,
    .close = seg_file_close,
    .info = seg_file_info,
    .acquire = seg_file_acquire,
    .release = seg_file_release,
    .advise = seg_file_advise,
};
