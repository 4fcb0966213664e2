/*
 * path.c - memory of a file that the user names: on a disk, on a hugetlbfs mount (pages of the pool), on a DAX mount.
 *
 * Not linked in when it is ready, as a name in /dev/shm is: file systems without O_TMPFILE are common (hugetlbfs, NFS). A file that this
 * call made goes again when the call fails.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <linux/magic.h>

#include "base/error.h"
#include "os/os.h"
#include "segments/backends/file.h"
#include "segments/placement.h"

#ifndef MAP_SYNC
#define MAP_SYNC 0x80000
#endif

/* The pages of the file system that @path lies on; sets s->on_disk. */
static int look_at_file_system(struct seg_segment *s, const struct seg_request *request)
{
    struct statfs fs;

    if (fstatfs(s->fd, &fs) < 0)
        return la_fail(-errno, "file \"%s\": cannot look at its file system (errno %d)", request->path, errno);
    s->page_size = fs.f_type == HUGETLBFS_MAGIC ? (size_t)fs.f_bsize : os_page_size();
    s->on_disk = fs.f_type != HUGETLBFS_MAGIC && fs.f_type != TMPFS_MAGIC;
    if (fs.f_type == HUGETLBFS_MAGIC && (!request->page_size || request->page_size == s->page_size))
        s->capabilities |= SEG_HUGE;
    else if (seg_wants(request, SEG_HUGE))
        return seg_miss(s, request, SEG_HUGE, "huge pages: \"%s\" has pages of %zu KiB; mount hugetlbfs with pagesize=", request->path,
                        s->page_size / KiB);
    return 0;
}

static int map_synchronous(struct seg_segment *s, const struct seg_request *request)
{
    int r = seg_map(s, request, MAP_SHARED_VALIDATE | MAP_SYNC, 0, "");

    if (r == 0) {
        s->capabilities |= SEG_DAX;
        return 0;
    }
    return seg_miss(s, request, SEG_DAX, "DAX: \"%s\" is on no DAX mount (errno %d)", request->path, -r);
}

static int map(struct seg_segment *s, const struct seg_request *request)
{
    int r = seg_wants(request, SEG_DAX) ? map_synchronous(s, request) : 0;

    return r < 0 || s->capabilities & SEG_DAX ? r : seg_map(s, request, MAP_SHARED | MAP_NORESERVE, 0, "");
}

static int set_size(struct seg_segment *s, const struct seg_request *request, size_t size)
{
    s->size = align_up(size, s->page_size);
    if (ftruncate(s->fd, (off_t)s->size) < 0)
        return la_fail(-errno, "file \"%s\" cannot have %zu bytes (errno %d)", request->path, s->size, errno);
    return 0;
}

static int open_file(struct seg_segment *s, const struct seg_request *request, size_t size, bool create)
{
    int r;

    s->fd = open(request->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | (create ? O_CREAT | O_EXCL : 0), 0600);
    if (s->fd < 0)
        return la_fail(-errno, "cannot open \"%s\" (errno %d)%s", request->path, errno,
                       errno == ENOENT && !create ? ": make it with SEG_CREATE" : "");
    r = create ? 0 : seg_file_adopt(s, request);
    if (r == 0)
        r = look_at_file_system(s, request);
    if (r == 0 && create)
        r = set_size(s, request, size);
    if (r == 0)
        r = map(s, request);
    if (r < 0) {
        seg_file_close(s);
        if (create)
            unlink(request->path);
    }
    return r;
}

static int path_open(struct seg_segment *s, const struct seg_request *request, size_t size)
{
    int r;

    if (!request->path || !request->path[0])
        return la_fail(-EINVAL, "a FILE segment needs a path");
    if (!(request->flags & (SEG_CREATE | SEG_ATTACH)))
        return la_fail(-EINVAL, "file \"%s\": say SEG_CREATE, SEG_ATTACH or both", request->path);
    r = request->flags & SEG_ATTACH ? open_file(s, request, size, false) : -ENOENT;
    if (r == -ENOENT && request->flags & SEG_CREATE)
        r = open_file(s, request, size, true);
    if (r == 0)
        s->capabilities |= SEG_SHARED | SEG_NAMED | SEG_PURGE;
    return r;
}

const struct seg_backend seg_path_backend = {
    .struct_size = sizeof(struct seg_backend),
    .kind = SEG_FILE,
    .name = "file",
    .can = SEG_SHARED | SEG_NAMED | SEG_HUGE | SEG_PURGE | SEG_PLACED | SEG_DAX,
    .flags = SEG_CREATE | SEG_ATTACH,
    .open = path_open,
    .close = seg_file_close,
    .info = seg_file_info,
    .acquire = seg_file_acquire,
    .release = seg_file_release,
    .advise = seg_file_advise,
};
