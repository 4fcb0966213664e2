/*
 * kinds.c - the built-in kinds of memory as sources: every extent is a segment of its own, committed whole.
 *
 * What a name in a list says is a request for seg_open(), filled here; sizes and wishes come from the ask.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fmt.h"
#include "os/headroom.h"
#include "os/os.h"
#include "segments/catalogue.h"
#include "segments/numa.h"
#include "segments/placement.h"

struct kind {
    struct seg_request request;     /* but for sizes and wishes */
    char text[SOURCE_TEXT_SIZE];
    unsigned made;                  /* extents so far: the next one's number */
};

/* "2M", "1G"; 0: no size. */
static size_t size_in(const char *text)
{
    size_t number = 0;

    for (; *text >= '0' && *text <= '9' && number < 1024; text++)
        number = number * 10 + (size_t)(*text - '0');
    if (strcmp(text, "M") == 0)
        return number * MiB;
    return strcmp(text, "G") == 0 ? number * GiB : 0;
}

static int open_kind(const char *text, const struct seg_request *request, struct kind **ret)
{
    struct kind *kind = os_map(align_up(sizeof(*kind), os_page_size()));

    if (!kind)
        return la_fail(-ENOMEM, "no memory for a source");
    kind->request = *request;
    kind->request.struct_size = sizeof(kind->request);
    la_format(kind->text, sizeof(kind->text), "%s", text);
    *ret = kind;
    return 0;
}

static void close_kind(void *self)
{
    os_unmap(self, align_up(sizeof(struct kind), os_page_size()));
}

static int open_with_pages(const char *name, const char *text, struct seg_request *request, void **ret)
{
    request->page_size = size_in(text);
    request->required |= SEG_HUGE;
    if (!is_power_of_2(request->page_size))
        return la_fail(-EINVAL, "%s%s%s: a page size is 2M or 1G (\"%s:2M\")", name, text[0] ? ":" : "", text, name);
    return open_kind(text, request, (struct kind **)ret);
}

static int refuse_text(const char *name, const char *text)
{
    return text[0] ? la_fail(-EINVAL, "%s:%s: nothing belongs behind %s", name, text, name) : 0;
}

static int open_anon(const char *text, void *user, void **ret)
{
    struct seg_request request = { .kind = SEG_ANON };
    int r = refuse_text("anon", text);

    (void)user;
    return r < 0 ? r : open_kind(text, &request, (struct kind **)ret);
}

static int open_thp(const char *text, void *user, void **ret)
{
    struct seg_request request = { .kind = SEG_ANON, .required = SEG_THP };
    int r = refuse_text("thp", text);

    (void)user;
    return r < 0 ? r : open_kind(text, &request, (struct kind **)ret);
}

static int open_hugetlb(const char *text, void *user, void **ret)
{
    struct seg_request request = { .kind = SEG_ANON };

    (void)user;
    return open_with_pages("hugetlb", text, &request, ret);
}

static int open_memfd(const char *text, void *user, void **ret)
{
    struct seg_request request = { .kind = SEG_MEMFD };

    (void)user;
    return text[0] ? open_with_pages("memfd", text, &request, ret) : open_kind(text, &request, (struct kind **)ret);
}

static int open_shm(const char *text, void *user, void **ret)
{
    struct seg_request request = { .kind = SEG_POSIX_SHM, .flags = SEG_CREATE };

    (void)user;
    if (!text[0])
        return la_fail(-EINVAL, "shm: say shm:NAME, extents are then NAME.1, NAME.2 ...");
    return open_kind(text, &request, (struct kind **)ret);
}

static int open_file(const char *text, void *user, void **ret)
{
    struct seg_request request = { .kind = SEG_FILE, .flags = SEG_CREATE };

    (void)user;
    if (!text[0])
        return la_fail(-EINVAL, "file: say file:PATH, extents are then PATH.1, PATH.2 ...");
    return open_kind(text, &request, (struct kind **)ret);
}

static int info(void *self, struct seg_source_info *ret)
{
    const struct kind *kind = self;
    bool huge = kind->request.required & SEG_HUGE;

    ret->page_size = huge ? seg_huge_page(&kind->request) : os_page_size();
    ret->available = huge ? seg_huge_free(&kind->request) : kind->request.kind == SEG_FILE ? SIZE_MAX : os_headroom();
    return 0;
}

/* ---- extents ---- */

static void describe(struct seg_segment *s, struct la_range range, struct seg_extent *ret)
{
    struct seg_info info = { .struct_size = sizeof(info) };

    seg_info(s, &info);
    ret->base = range.base;
    ret->size = range.size;
    ret->page_size = info.page_size;
    ret->capabilities = info.capabilities;
    ret->missed = info.missed;
    ret->fd = info.fd;
    ret->offset = (uint64_t)((char *)range.base - (char *)info.base);
    ret->node = info.node;
    ret->cookie = s;
    memcpy(ret->reason, info.reason, sizeof(ret->reason));
}

static void forget_name(const struct kind *kind, const char *name)
{
    int saved = errno;

    if (kind->request.kind == SEG_POSIX_SHM)
        seg_remove(name);
    else if (kind->request.kind == SEG_FILE)
        unlink(name);
    errno = saved;
}

static void name_extent(const struct kind *kind, unsigned number, char *name, size_t size)
{
    la_format(name, size, "%s.%u", kind->text, number);
}

static bool has_name(const struct kind *kind)
{
    return kind->request.kind == SEG_POSIX_SHM || kind->request.kind == SEG_FILE;
}

/* No more than there is: what is needed may be less than what is wanted. */
static size_t what_can_be_had(const struct seg_request *request, const struct seg_ask *ask)
{
    size_t free = request->required & SEG_HUGE ? seg_huge_free(request) : seg_numa_headroom(&request->numa);

    return MIN(ask->wanted_size, MAX(free, ask->min_size));
}

static int acquire(void *self, const struct seg_ask *ask, struct seg_extent *ret)
{
    struct kind *kind = self;
    struct seg_request request = kind->request;
    char name[SOURCE_TEXT_SIZE + 12];
    struct seg_segment *segment;
    struct error_kept why;
    struct la_range range;
    int r;

    request.required |= ask->required;
    request.preferred |= ask->preferred;
    request.numa = ask->numa;
    request.min_size = ask->min_size;
    request.wanted_size = what_can_be_had(&request, ask);
    name_extent(kind, kind->made + 1, name, sizeof(name));
    request.name = kind->request.kind == SEG_POSIX_SHM ? name : NULL;
    request.path = kind->request.kind == SEG_FILE ? name : NULL;
    r = seg_open(&request, &segment);
    if (r < 0)
        return r;
    r = seg_acquire(segment, ask->min_size, request.wanted_size, &range);
    if (r < 0) {
        error_keep(&why);
        seg_close(segment);
        if (has_name(kind))
            forget_name(kind, name);
        error_tell_again(&why);
        return r;
    }
    kind->made++;
    describe(segment, range, ret);
    segment->number = kind->made;
    return 0;
}

static int release(void *self, struct seg_extent *extent)
{
    const struct kind *kind = self;
    struct seg_segment *segment = extent->cookie;
    char name[SOURCE_TEXT_SIZE + 12];
    int r;

    name_extent(kind, segment->number, name, sizeof(name));
    r = seg_release(segment, (struct la_range){ extent->base, extent->size });
    if (r == 0)
        r = seg_close(segment);
    if (r == 0 && has_name(kind))
        forget_name(kind, name);
    return r;
}

static int advise(void *self, struct seg_extent *extent, struct la_range range, enum seg_advice advice)
{
    (void)self;
    return seg_advise(extent->cookie, range, advice);
}

static int export_handle(void *self, struct seg_extent *extent, struct seg_handle *ret)
{
    int fd;

    (void)self;
    if (extent->fd < 0)
        return la_fail(-ENOTSUP, "private memory cannot be handed to another process: use memfd, shm or file");
    fd = fcntl(extent->fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0)
        return la_fail(-errno, "no descriptor for the extent (errno %d)", errno);
    ret->fd = fd;
    ret->offset = extent->offset;
    ret->size = extent->size;
    ret->address = extent->capabilities & SEG_FIXED_ADDRESS ? (uintptr_t)extent->base : 0;
    return 0;
}

#define KIND(kind_name, open_function, capabilities)                                                                   \
    {                                                                                                                  \
        .struct_size = sizeof(struct seg_source_ops), .name = kind_name, .can = capabilities, .open = open_function,   \
        .close = close_kind, .info = info, .acquire = acquire, .release = release, .advise = advise,                   \
        .export_handle = export_handle,                                                                                \
    }

const struct seg_source_ops kind_sources[] = {
    KIND("anon", open_anon, SEG_FIXED_ADDRESS | SEG_HUGE | SEG_THP | SEG_PURGE | SEG_PLACED),
    KIND("thp", open_thp, SEG_FIXED_ADDRESS | SEG_THP | SEG_PURGE | SEG_PLACED),
    KIND("hugetlb", open_hugetlb, SEG_FIXED_ADDRESS | SEG_HUGE | SEG_PURGE | SEG_PLACED),
    KIND("memfd", open_memfd, SEG_SHARED | SEG_SEALED | SEG_FIXED_ADDRESS | SEG_HUGE | SEG_THP | SEG_PURGE | SEG_PLACED),
    KIND("shm", open_shm, SEG_SHARED | SEG_NAMED | SEG_FIXED_ADDRESS | SEG_THP | SEG_PURGE | SEG_PLACED),
    KIND("file", open_file, SEG_SHARED | SEG_NAMED | SEG_HUGE | SEG_PURGE | SEG_PLACED | SEG_DAX),
};
const size_t kind_source_count = ARRAY_SIZE(kind_sources);
