#include "segments/backends/file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "os/headroom.h"
#include "os/huge_pages.h"
#include "os/os.h"
#include "segments/placement.h"

static off_t offset_of(const struct seg_segment *s, struct la_range range)
{
    return (char *)range.base - s->base;
}

/*
 * fallocate() on hugetlbfs does not look at the mapping's NUMA policy, a touch does; so pages that have a place are made by touching, without a
 * signal when there are none.
 */
static int populate(struct seg_segment *s, struct la_range range)
{
    int r;

    if (madvise(range.base, range.size, MADV_POPULATE_WRITE) == 0)
        return 0;
    r = errno == EINVAL ? -EOPNOTSUPP : -ENOSPC;        /* before Linux 5.14, or EFAULT in place of SIGBUS */
    seg_file_release(s, range);
    return r;
}

int seg_file_acquire(struct seg_segment *s, struct la_range range)
{
    bool pool = s->page_size > os_page_size();
    int r = pool && s->capabilities & SEG_PLACED ? populate(s, range)
                                                 : os_commit_file(s->fd, offset_of(s, range), range.size, pool || s->on_disk);

    /* hugetlbfs keeps what it has allocated of a request that it then refuses. */
    if (r == -ENOSPC && pool)
        seg_file_release(s, range);
    if (r == -ENOMEM)
        return la_fail(-ENOSPC, "segment \"%s\": %zu bytes are more than the machine or this control group has left", s->name, range.size);
    if (r == -ENOSPC)
        return la_fail(-ENOSPC, "segment \"%s\": no memory for %zu bytes (%s)", s->name, range.size,
                       pool ? "the pool of huge pages is empty" : s->on_disk ? "the file system is full" : "the tmpfs, or the memory, is full");
    return r < 0 ? la_fail(r, "segment \"%s\": cannot commit %zu bytes (errno %d)", s->name, range.size, -r) : 0;
}

void seg_file_release(struct seg_segment *s, struct la_range range)
{
    int saved = errno;

    /* Refused only where the file system cannot: then the content stays, as with a buffer. */
    fallocate(s->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset_of(s, range), (off_t)range.size);
    errno = saved;
}

int seg_file_advise(struct seg_segment *s, struct la_range range, enum seg_advice advice)
{
    if (advice == SEG_DISCARD)
        return la_fail(-ENOTSUP, "segment \"%s\" is shared: release the part and acquire it again, or its next touch may be SIGBUS", s->name);
    if (madvise(range.base, range.size, MADV_POPULATE_WRITE) < 0)
        return la_fail(errno == EINVAL ? -ENOTSUP : -errno, "this kernel does not take that advice (errno %d)", errno);
    return 0;
}

void seg_file_info(struct seg_segment *s, struct seg_info *ret)
{
    struct stat st;

    if (fstat(s->fd, &st) == 0)
        ret->committed = (size_t)st.st_blocks * 512;
}

void seg_file_close(struct seg_segment *s)
{
    seg_unmap(s);
    close_fd(&s->fd);
}

int seg_file_adopt(struct seg_segment *s, const struct seg_request *request)
{
    struct stat st;

    if (fstat(s->fd, &st) < 0)
        return la_fail(-errno, "segment \"%s\": cannot look at the file (errno %d)", s->name, errno);
    if (!S_ISREG(st.st_mode) || st.st_size <= 0 || (size_t)st.st_size & (os_page_size() - 1))
        return la_fail(-EINVAL, "segment \"%s\": a file of %ld bytes is no segment", s->name, (long)st.st_size);
    if ((size_t)st.st_size < request->min_size)
        return la_fail(-ENOSPC, "segment \"%s\" has %ld bytes, %zu are asked for", s->name, (long)st.st_size, request->min_size);
    s->size = (size_t)st.st_size;
    s->adopted = true;
    /* Not st_blksize: a tmpfs that may use transparent huge pages says 2 MiB there. */
    s->page_size = os_file_page(s->fd);
    return 0;
}
