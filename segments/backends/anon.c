/*
 * anon.c - private memory of this process.
 *
 * Committed by mmap() itself: not MAP_NORESERVE, so that what the machine cannot give fails at seg_open(). Pages of the huge page
 * pool are reserved by mmap() too, but that counts the whole pool: a node's share or a control group's may be used up, and then a touch is
 * SIGBUS. So they are made by acquire(), which can fail. (A child after fork() needs copies of its own.) So are pages that are bound to nodes: a
 * touch of one that no node has is the OOM killer's affair.
 */
#include <errno.h>
#include <sys/mman.h>

#include <liballoc/vspace.h>

#include "base/error.h"
#include "os/huge_pages.h"
#include "os/os.h"
#include "segments/placement.h"

static int map_with_pages(struct seg_segment *s, const struct seg_request *request, size_t size, size_t page)
{
    char claim[LA_VSPACE_NAME_MAX + 1];
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | (page > os_page_size() ? MAP_HUGETLB | (int)os_huge_flags(page) : 0);

    seg_claim_name_of_process(claim);
    s->page_size = page;
    s->size = align_up(size, page);
    return seg_map(s, request, flags, 0, claim);
}

static int open_huge(struct seg_segment *s, const struct seg_request *request, size_t size)
{
    int r = seg_huge_available(s, request, size);

    if (r <= 0)
        return r;
    r = map_with_pages(s, request, size, seg_huge_page(request));
    if (r == 0)
        s->capabilities |= SEG_HUGE;
    else
        r = seg_miss(s, request, SEG_HUGE, "huge pages: refused by mmap (errno %d)", -r);
    return r;
}

static int anon_open(struct seg_segment *s, const struct seg_request *request, size_t size)
{
    int r = seg_wants(request, SEG_HUGE) ? open_huge(s, request, size) : 0;

    if (r == 0 && !(s->capabilities & SEG_HUGE))
        r = map_with_pages(s, request, size, os_page_size());
    if (r < 0)
        return r;
    s->capabilities |= SEG_PURGE;
    r = s->capabilities & SEG_HUGE ? 0 : seg_advise_thp(s, request, false);
    if (r < 0)
        seg_unmap(s);
    return r;
}

static void anon_info(struct seg_segment *s, struct seg_info *ret)
{
    ret->committed = s->size;
}

static void anon_release(struct seg_segment *s, struct la_range range)
{
    (void)s;
    os_purge(range.base, range.size);
}

static int anon_acquire(struct seg_segment *s, struct la_range range)
{
    bool huge = s->capabilities & SEG_HUGE;
    int error;

    if (!huge && s->numa.mode != SEG_NUMA_BIND)
        return 0;
    error = madvise(range.base, range.size, MADV_POPULATE_WRITE) < 0 ? errno : 0;
    if (error == 0 || error == EINVAL)
        return 0;       /* before Linux 5.14: the reservation, or the look at the nodes, has to do */
    anon_release(s, range);
    return la_fail(-ENOSPC, "segment \"%s\": no %s for %zu bytes on the nodes or in the control group allowed (errno %d)", s->name,
                   huge ? "huge pages" : "memory", range.size, error);
}

static int anon_advise(struct seg_segment *s, struct la_range range, enum seg_advice advice)
{
    (void)s;
    if (madvise(range.base, range.size, advice == SEG_POPULATE ? MADV_POPULATE_WRITE : MADV_DONTNEED) < 0)
        return la_fail(errno == EINVAL ? -ENOTSUP : -errno, "this kernel does not take that advice (errno %d)", errno);
    return 0;
}

const struct seg_backend seg_anon_backend = {
    .struct_size = sizeof(struct seg_backend),
    .kind = SEG_ANON,
    .name = "anonymous",
    .can = SEG_FIXED_ADDRESS | SEG_HUGE | SEG_THP | SEG_PURGE | SEG_PLACED,
    .open = anon_open,
    .close = seg_unmap,
    .info = anon_info,
    .acquire = anon_acquire,
    .release = anon_release,
    .advise = anon_advise,
};
