/*
 * memfd.c - memory that is shared by handing a descriptor over; its length is sealed before anybody else sees it.
 *
 * Without F_SEAL_SHRINK a peer could cut the file under our feet (SIGBUS), without F_SEAL_GROW it could take memory beyond
 * what was granted, and F_SEAL_SEAL keeps anybody from forbidding us to write. The file is sparse: parts cost memory when acquired.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <liballoc/vspace.h>

#include "base/error.h"
#include "os/huge_pages.h"
#include "os/os.h"
#include "segments/backends/file.h"
#include "segments/placement.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

enum { SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL };

/* Kernels before 6.3 do not know MFD_NOEXEC_SEAL, which implies MFD_ALLOW_SEALING: the fallback must still say that. */
static int create_file(const char *name, unsigned flags)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL | flags);

    if (fd < 0 && errno == EINVAL)
        fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | flags);
    return fd < 0 ? -errno : fd;
}

/* A sealed file of @size bytes in s->fd. */
static int make_file(struct seg_segment *s, size_t size, size_t page)
{
    CLEANUP(close_fd) int fd = create_file(s->name[0] ? s->name : "segment",
                                           page > os_page_size() ? MFD_HUGETLB | os_huge_flags(page) : 0);

    if (fd < 0)
        return la_fail(fd, "memfd_create of \"%s\" failed (errno %d)", s->name, -fd);
    s->page_size = page;
    s->size = align_up(size, page);
    if (ftruncate(fd, (off_t)s->size) < 0)
        return la_fail(-errno, "memfd \"%s\" cannot have %zu bytes (errno %d)", s->name, s->size, errno);
    if (fcntl(fd, F_ADD_SEALS, SEALS) < 0)
        return la_fail(-errno, "memfd \"%s\" cannot be sealed (errno %d)", s->name, errno);
    s->fd = steal_fd(&fd);
    s->capabilities |= SEG_SHARED | SEG_SEALED | SEG_PURGE;
    return 0;
}

/* The caller's file, through a descriptor of our own. */
static int import_file(struct seg_segment *s, const struct seg_request *request)
{
    int seals, r;

    s->fd = fcntl(request->fd, F_DUPFD_CLOEXEC, 0);
    if (s->fd < 0)
        return la_fail(-errno, "descriptor %d cannot be imported (errno %d)", request->fd, errno);
    r = seg_file_adopt(s, request);
    if (r < 0)
        return r;
    s->capabilities |= SEG_SHARED | SEG_PURGE;
    if (s->page_size > os_page_size() && (!request->page_size || request->page_size == s->page_size))
        s->capabilities |= SEG_HUGE;
    else if ((r = seg_miss(s, request, SEG_HUGE, "huge pages: the file has pages of %zu KiB", s->page_size / KiB)) < 0)
        return r;
    seals = fcntl(s->fd, F_GET_SEALS);
    if (seals >= 0 && (seals & (F_SEAL_SHRINK | F_SEAL_GROW)) == (F_SEAL_SHRINK | F_SEAL_GROW))
        s->capabilities |= SEG_SEALED;
    else
        return seg_miss(s, request, SEG_SEALED, "sealed: the file's maker has not sealed its length");
    return 0;
}

/* Pages are committed by acquire(): the mapping itself reserves nothing. */
static int map_file(struct seg_segment *s, const struct seg_request *request)
{
    char claim[LA_VSPACE_NAME_MAX + 1];
    uintptr_t address = request->flags & SEG_IMPORT ? request->address : 0;

    seg_claim_name_of_process(claim);
    if (request->flags & SEG_IMPORT && !address && seg_wants(request, SEG_FIXED_ADDRESS)) {
        struct seg_request anywhere = *request;
        int r = seg_miss(s, request, SEG_FIXED_ADDRESS, "no fixed address: set .address to the maker's");

        anywhere.required &= ~(unsigned)SEG_FIXED_ADDRESS;
        anywhere.preferred &= ~(unsigned)SEG_FIXED_ADDRESS;
        return r < 0 ? r : seg_map(s, &anywhere, MAP_SHARED | MAP_NORESERVE, 0, claim);
    }
    return seg_map(s, request, MAP_SHARED | MAP_NORESERVE, address, claim);
}

static int make_with_pages(struct seg_segment *s, const struct seg_request *request, size_t size, size_t page)
{
    int r = make_file(s, size, page);

    if (r == 0)
        r = map_file(s, request);
    if (r < 0)
        close_fd(&s->fd);
    return r;
}

static int make_huge(struct seg_segment *s, const struct seg_request *request, size_t size)
{
    int r = seg_huge_available(s, request, size);

    if (r <= 0)
        return r;
    r = make_with_pages(s, request, size, seg_huge_page(request));
    if (r == 0)
        s->capabilities |= SEG_HUGE;
    else
        r = seg_miss(s, request, SEG_HUGE, "huge pages: refused (errno %d)", -r);
    return r;
}

static int make(struct seg_segment *s, const struct seg_request *request, size_t size)
{
    int r = seg_wants(request, SEG_HUGE) ? make_huge(s, request, size) : 0;

    return r < 0 || s->capabilities & SEG_HUGE ? r : make_with_pages(s, request, size, os_page_size());
}

static int memfd_open(struct seg_segment *s, const struct seg_request *request, size_t size)
{
    int r;

    if (request->flags & SEG_IMPORT) {
        r = import_file(s, request);
        if (r == 0)
            r = map_file(s, request);
    } else {
        r = make(s, request, size);
    }
    if (r == 0 && !(s->capabilities & SEG_HUGE))
        r = seg_advise_thp(s, request, true);
    if (r < 0)
        seg_file_close(s);
    return r;
}

const struct seg_backend seg_memfd_backend = {
    .struct_size = sizeof(struct seg_backend),
    .kind = SEG_MEMFD,
    .name = "memfd",
    .can = SEG_SHARED | SEG_SEALED | SEG_FIXED_ADDRESS | SEG_HUGE | SEG_THP | SEG_PURGE | SEG_PLACED,
    .flags = SEG_IMPORT,
    .open = memfd_open,
    .close = seg_file_close,
    .info = seg_file_info,
    .acquire = seg_file_acquire,
    .release = seg_file_release,
    .advise = seg_file_advise,
};
