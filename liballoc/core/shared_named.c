/*
 * shared_named.c - heaps by name without a daemon ("embedded"): files in /dev/shm of one user, or in a hugetlbfs for those of huge pages.
 *
 * The file is made without a name and linked in place when it is a heap, so that nobody attaches half of one. POSIX shared
 * memory cannot be sealed: every process of the user is trusted not to shrink the file.
 *
 * A name is in one folder. Two that create it at the same moment in different ones both succeed; who attaches then gets that of small pages.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <liballoc/vspace.h>

#include "base/error.h"
#include "base/fmt.h"
#include "base/user_ids.h"
#include "core/shared_format.h"
#include "core/shared_heap.h"
#include "os/certificate.h"
#include "os/huge_pages.h"

enum { PATH_SIZE = 176, HUGE_FLAGS = LA_HEAP_HUGE_2M | LA_HEAP_HUGE_1G };

static const char small_pages[] = "/dev/shm";

static void path_in(const char *folder, const char *name, char *path)
{
    la_format(path, PATH_SIZE, "%s/liballoc-%u-%s", folder, (unsigned)geteuid(), name);
}

static bool exists(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0;
}

/* Where the heap is; of one that is not there, where it would be. */
static int path_of(const char *name, char *path)
{
    struct huge_mount mount;
    int r = heap_check_name(name);

    if (r < 0)
        return r;
    path_in(small_pages, name, path);
    if (exists(path))
        return 0;
    for (unsigned i = 0; os_huge_mount(i, &mount); i++) {
        path_in(mount.path, name, path);
        if (exists(path))
            return 0;
    }
    path_in(small_pages, name, path);
    return 0;
}

static int open_existing(const char *name, const char *path, int mode)
{
    int fd = open(path, mode | O_CLOEXEC | O_NOFOLLOW);
    struct stat st;

    if (fd < 0 && errno == ENOENT)
        return la_fail(-ENOENT, "no heap \"%s\": create it with la_heap_create() (file %s)", name, path);
    if (fd < 0)
        return la_fail(-errno, "cannot open heap \"%s\" (file %s, errno %d)", name, path, errno);
    if (fstat(fd, &st) < 0 || !file_is_own(fd, &st)) {
        close(fd);
        return la_fail(-EACCES, "file %s belongs to another user: not attached", path);
    }
    return fd;
}

int la_heap_attach(const char *name, unsigned flags, struct la_heap **ret)
{
    char path[PATH_SIZE];
    int r = path_of(name, path), fd;

    if (r < 0)
        return r;
    fd = open_existing(name, path, flags & LA_HEAP_READ_ONLY ? O_RDONLY : O_RDWR);
    return fd < 0 ? fd : la_heap_attach_fd(fd, flags, ret);
}

/* The folder for a new heap. Only files of hugetlbfs are of huge pages and have names. */
static int choose_folder(unsigned flags, struct huge_mount *ret)
{
    size_t page = flags & LA_HEAP_HUGE_1G ? GiB : 2 * MiB;
    const char *size = flags & LA_HEAP_HUGE_1G ? "1G" : "2M";

    if (!(flags & HUGE_FLAGS)) {
        *ret = (struct huge_mount){ .page = MACRO_SIZE };
        la_format(ret->path, sizeof(ret->path), "%s", small_pages);
        return 0;
    }
    for (unsigned i = 0; os_huge_mount(i, ret); i++)
        if (ret->page == page && access(ret->path, W_OK) == 0)
            return 0;
    return la_fail(-ENODEV, "a heap of %s pages with a name needs a hugetlbfs that this user may write to: mount -t hugetlbfs -o "
                            "pagesize=%s,mode=1777 none FOLDER, or let shmserver make it", size, size);
}

/* A formatted heap under its name, or nothing. @inode: set on success */
static int make_file(const char *name, const struct huge_mount *folder, size_t size, ino_t *inode)
{
    CLEANUP(close_fd) int fd = open(folder->path, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    char path[PATH_SIZE], link[64], claim[LA_VSPACE_NAME_MAX + 1];
    uintptr_t address;
    struct stat st;
    int r;

    if (fd < 0 || fstat(fd, &st) < 0)
        return la_fail(-errno, "cannot make a file in %s (errno %d)", folder->path, errno);
    path_in(folder->path, name, path);
    /* With the inode: a later heap of the same name is another claim. */
    la_format(claim, sizeof(claim), "%s#%lu", path, (unsigned long)st.st_ino);
    r = la_vspace_claim_aligned(size, folder->page, claim, &address);
    if (r < 0)
        return r;
    r = la_heap_format(fd, size, address, name);
    la_format(link, sizeof(link), "/proc/self/fd/%d", fd);
    if (r == 0 && linkat(AT_FDCWD, link, AT_FDCWD, path, AT_SYMLINK_FOLLOW) < 0)
        r = errno == EEXIST ? la_fail(-EEXIST, "heap \"%s\" exists: attach it, or remove it with la_heap_remove()", name)
                            : la_fail(-errno, "cannot make %s (errno %d)", path, errno);
    if (r < 0)
        la_vspace_unclaim(address);
    else
        *inode = st.st_ino;
    return r;
}

static bool is_attached(int fd)
{
    for (uint32_t i = 0; i < LA_HEAP_MAX_PROCESSES; i++)
        if (certificate_is_held(fd, i) != 0)
            return true;
    return false;
}

/* The file has gone; while somebody is attached the address stays claimed: the registry drops the claim of a lost file when it needs the room. */
static void give_address_back(int fd)
{
    struct heap_header h = { 0 };

    if (pread(fd, &h, sizeof(h), 0) == sizeof(h) && h.magic == HEAP_MAGIC && !is_attached(fd))
        la_vspace_unclaim((uintptr_t)h.address);
}

/* A heap that was made here and could not be attached, unless another process uses it already. */
static void undo_create(const char *path, ino_t inode)
{
    CLEANUP(close_fd) int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    struct stat st;

    if (fd >= 0 && fstat(fd, &st) == 0 && st.st_ino == inode && !is_attached(fd) && unlink(path) == 0)
        give_address_back(fd);
}

static int create(const char *name, const struct huge_mount *folder, size_t size, unsigned flags, struct la_heap **ret)
{
    char path[PATH_SIZE];
    struct error_kept why;
    ino_t inode = 0;
    int r = make_file(name, folder, size, &inode);

    if (r == 0)
        r = la_heap_attach(name, flags, ret);
    if (r < 0 && inode) {
        error_keep(&why);
        path_in(folder->path, name, path);
        undo_create(path, inode);
        error_tell_again(&why);
    }
    return r;
}

int la_heap_create(const char *name, size_t size, unsigned flags, struct la_heap **ret)
{
    struct huge_mount folder;
    char path[PATH_SIZE];
    int r = path_of(name, path);

    if (r == 0)
        r = heap_check_flags(flags & ~(unsigned)HUGE_FLAGS);
    if (r == 0)
        r = choose_folder(flags, &folder);
    if (r < 0)
        return r;
    if (size < LA_HEAP_MIN_SIZE || size > (size_t)1 << 46)
        return la_fail(-EINVAL, "heap size of %zu bytes: use %zu or more, at most 64 TiB", size, LA_HEAP_MIN_SIZE);
    if (exists(path))
        return la_fail(-EEXIST, "heap \"%s\" exists (%s): attach it, or remove it with la_heap_remove()", name, path);
    return create(name, &folder, align_up(size, MAX(folder.page, MACRO_SIZE)), flags & ~(unsigned)HUGE_FLAGS, ret);
}

int la_heap_open(const char *name, size_t size, unsigned flags, struct la_heap **ret)
{
    int r;

    do {
        r = la_heap_attach(name, flags & ~(unsigned)HUGE_FLAGS, ret);
        if (r != -ENOENT)
            return r;
        r = la_heap_create(name, size, flags, ret);
    } while (r == -EEXIST);
    return r;
}

int la_heap_remove(const char *name)
{
    char path[PATH_SIZE];
    int r = path_of(name, path);
    CLEANUP(close_fd) int fd = r < 0 ? r : open_existing(name, path, O_RDWR);

    if (fd < 0)
        return fd;
    if (unlink(path) < 0)
        return la_fail(-errno, "cannot remove %s (errno %d)", path, errno);
    give_address_back(fd);
    return 0;
}
