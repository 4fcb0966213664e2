/*
 * segment.c - requests, answers, and the book of which parts of a segment are in use.
 *
 *     base |  used  |   free   | used |        free        | base + size
 *
 * I1  Parts in `used` do not overlap, lie inside the segment and are multiples of its page size.
 * I2  A part is entered before it is committed and dropped after it was decommitted, so that no other caller gets memory
 *     that is being given back. While that happens its tag is BUSY.
 *
 * Locking: vspace_lock() for `used`, never during a system call of a backend (fallocate of gigabytes takes seconds).
 */
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fmt.h"
#include "os/os.h"
#include "os/vspace.h"
#include "segments/backend.h"
#include "segments/numa.h"
#include "segments/registrar_state.h"
#include "segments/segment_map.h"

enum { IDLE, BUSY };

static const struct seg_backend *const backends[] = {
    &seg_anon_backend, &seg_memfd_backend, &seg_posix_shm_backend, &seg_user_backend, &seg_path_backend,
};

static const struct {
    unsigned bit;
    const char *name;
} capability_names[] = {
    { SEG_SHARED, "shared" },   { SEG_NAMED, "named" },        { SEG_SEALED, "sealed" },
    { SEG_HUGE, "huge pages" }, { SEG_THP, "transparent huge pages" },
    { SEG_PURGE, "purge" },     { SEG_FIXED_ADDRESS, "fixed address" },
    { SEG_PLACED, "NUMA placement" }, { SEG_DAX, "DAX" },     { SEG_PINNED, "pinned" },
    { SEG_DEVICE_ONLY, "device only" },
};

/* ---- misses ---- */

int seg_miss(struct seg_segment *s, const struct seg_request *request, unsigned capability, const char *format, ...)
{
    size_t length = strlen(s->reason);
    char text[192];
    va_list args;

    va_start(args, format);
    la_vformat(text, sizeof(text), format, args);
    va_end(args);
    if (request->required & capability)
        return la_fail(-ENOTSUP, "%s", text);
    if (!(request->preferred & capability) || (s->missed & capability))
        return 0;
    s->missed |= capability;
    la_format(s->reason + length, sizeof(s->reason) - length, "%s%s", length ? "; " : "", text);
    return 0;
}

void seg_capability_names(unsigned capabilities, char *text, size_t size)
{
    size_t length = 0;

    text[0] = '\0';
    for (size_t i = 0; i < ARRAY_SIZE(capability_names); i++)
        if (capabilities & capability_names[i].bit && length < size)
            length += la_format(text + length, size - length, "%s%s", length ? ", " : "", capability_names[i].name);
}

/* What the kind as such cannot have. */
static int miss_impossible(struct seg_segment *s, const struct seg_request *request)
{
    for (size_t i = 0; i < ARRAY_SIZE(capability_names); i++) {
        unsigned bit = capability_names[i].bit;

        if (seg_wants(request, bit) && !(s->backend->can & bit)) {
            int r = seg_miss(s, request, bit, "%s: %s segments cannot", capability_names[i].name, s->backend->name);
            if (r < 0)
                return r;
        }
    }
    return 0;
}

/* ---- requests ---- */

static const struct seg_backend *find_backend(enum seg_kind kind)
{
    for (size_t i = 0; i < ARRAY_SIZE(backends); i++)
        if (backends[i]->kind == kind)
            return backends[i];
    return NULL;
}

static int check_name(const struct seg_request *request)
{
    const char *name = request->name;
    size_t length;

    if (!name)
        return request->kind == SEG_POSIX_SHM ? la_fail(-EINVAL, "a POSIX_SHM segment needs a name") : 0;
    length = strnlen(name, SEG_NAME_MAX + 1);
    if (length > SEG_NAME_MAX)
        return la_fail(-ENAMETOOLONG, "segment name \"%.20s...\" is longer than %d bytes", name, SEG_NAME_MAX);
    if (length == 0 || name[0] == '.' || name[0] == '-' ||
        strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") != length)
        return la_fail(-EINVAL, "segment name \"%s\": use A-Z a-z 0-9 . _ -, the first no . or -", name);
    return 0;
}

static unsigned all_capabilities(void)
{
    unsigned all = 0;

    for (size_t i = 0; i < ARRAY_SIZE(capability_names); i++)
        all |= capability_names[i].bit;
    return all;
}

/* Existing files bring their size. */
static bool brings_size(const struct seg_request *request)
{
    return request->flags & SEG_IMPORT || (request->flags & SEG_ATTACH && !(request->flags & SEG_CREATE));
}

static int check_sizes(struct seg_request *request)
{
    if (request->min_size == 0)
        request->min_size = request->wanted_size;
    if (request->wanted_size < request->min_size)
        request->wanted_size = request->min_size;
    if (request->wanted_size == 0 && !brings_size(request))
        return la_fail(-EINVAL, "a segment of 0 bytes: set min_size or wanted_size");
    if (request->wanted_size > (size_t)1 << 46)
        return la_fail(-EINVAL, "a segment of %zu bytes is beyond the address space", request->wanted_size);
    return 0;
}

/* Copy what the caller's struct has; newer fields stay zero. */
static int read_request(const struct seg_request *request, struct seg_request *copy)
{
    const struct seg_backend *backend;
    int r;

    if (!request || request->struct_size < offsetof(struct seg_request, buffer) || request->struct_size > 4 * sizeof(*copy))
        return la_fail(-EINVAL, "set struct_size of the request to sizeof(struct seg_request)");
    *copy = (struct seg_request){ .fd = -1 };
    memcpy(copy, request, MIN(request->struct_size, sizeof(*copy)));
    if (copy->numa.mode != SEG_NUMA_ANY)
        copy->preferred |= SEG_PLACED;
    backend = find_backend(copy->kind);
    if (!backend)
        return la_fail(-EINVAL, "segment kind %d is unknown", (int)copy->kind);
    if (copy->flags & ~backend->flags)
        return la_fail(-EINVAL, "flags %#x: %s segments know %#x", copy->flags, backend->name, backend->flags);
    if ((copy->required | copy->preferred) & ~all_capabilities())
        return la_fail(-EINVAL, "capabilities %#x are unknown", (copy->required | copy->preferred) & ~all_capabilities());
    r = seg_check_numa(&copy->numa, copy->required);
    if (r == 0)
        r = check_name(copy);
    return r < 0 ? r : check_sizes(copy);
}

/* ---- open and close ---- */

/* Each can be had, but not together: huge pages of the pool are never transparent ones. */
static int check_required(struct seg_segment *s, const struct seg_request *request)
{
    unsigned lacking = request->required & ~s->capabilities;

    if (!lacking)
        return 0;
    s->backend->close(s);
    for (size_t i = 0; i < ARRAY_SIZE(capability_names); i++)
        if (lacking & capability_names[i].bit)
            return la_fail(-ENOTSUP, "%s: not together with what else is required of a %s segment", capability_names[i].name, s->backend->name);
    return -ENOTSUP;
}

static int open_with_size(struct seg_segment *s, const struct seg_request *request)
{
    size_t page = os_page_size(), size = request->wanted_size, least = request->min_size;

    if (request->kind != SEG_USER) {
        size = align_up(size, page);
        least = align_up(least, page);
    }
    for (;; size = MAX(least, align_down(size / 2, page))) {
        int r;

        s->capabilities = s->missed = 0;
        s->numa = (struct seg_numa){ 0 };
        s->adopted = false;
        s->reason[0] = '\0';
        r = miss_impossible(s, request);
        if (r == 0)
            r = s->backend->open(s, request, size);
        if (r == 0)
            r = check_required(s, request);
        if ((r != -ENOMEM && r != -ENOSPC) || size <= least || brings_size(request))
            return r;
    }
}

static void free_segment(struct seg_segment *s)
{
    range_clear(&s->used);
    os_unmap(s, align_up(sizeof(*s), os_page_size()));
}

int seg_open(const struct seg_request *request, struct seg_segment **ret)
{
    struct seg_request copy;
    struct seg_segment *s;
    int r = read_request(request, &copy);

    if (r < 0)
        return r;
    s = os_map(align_up(sizeof(*s), os_page_size()));
    if (!s)
        return la_fail(-ENOMEM, "no memory for a segment's description");
    s->backend = find_backend(copy.kind);
    s->fd = -1;
    if (copy.name)
        strcpy(s->name, copy.name);
    r = open_with_size(s, &copy);
    if (r < 0) {
        free_segment(s);
        return r;
    }
    s->missed &= ~s->capabilities;      /* missed with huge pages, got without */
    *ret = s;
    return 0;
}

int seg_close(struct seg_segment *s)
{
    size_t parts;

    if (!s)
        return 0;
    vspace_lock();
    parts = s->used.count;
    vspace_unlock();
    if (parts > 0)
        return la_fail(-EBUSY, "segment \"%s\" has %zu acquired parts: release them, or destroy its source first", s->name, parts);
    s->backend->close(s);
    free_segment(s);
    return 0;
}

/* ---- answers ---- */

static size_t acquired_bytes(struct seg_segment *s)
{
    size_t sum = 0;

    vspace_lock();
    for (size_t i = 0; i < s->used.count; i++)
        sum += s->used.entries[i].end - s->used.entries[i].start;
    vspace_unlock();
    return sum;
}

int seg_info(struct seg_segment *s, struct seg_info *ret)
{
    struct seg_info info;
    size_t size = ret ? ret->struct_size : 0;

    if (size < offsetof(struct seg_info, reason) || size > 4 * sizeof(info))
        return la_fail(-EINVAL, "set struct_size to sizeof(struct seg_info) before the call");
    info = (struct seg_info){ .struct_size = size, .kind = s->backend->kind, .capabilities = s->capabilities, .missed = s->missed,
                              .base = s->base, .size = s->size, .page_size = s->page_size, .acquired = acquired_bytes(s),
                              .fd = s->fd, .node = seg_node_of(s) };
    memcpy(info.reason, s->reason, sizeof(info.reason));
    memcpy(info.name, s->name, sizeof(info.name));
    info.committed = info.acquired;
    s->backend->info(s, &info);
    memset(ret, 0, size);
    memcpy(ret, &info, MIN(size, sizeof(info)));
    return 0;
}

/* ---- parts ---- */

/* Enter a part of @wanted bytes, or of the longest free run from @min on. */
static int enter_part(struct seg_segment *s, size_t min, size_t wanted, struct la_range *ret)
{
    uintptr_t start = align_up((uintptr_t)s->base, s->page_size), end = align_down((uintptr_t)s->base + s->size, s->page_size), at;

    if (end < start || min > end - start)
        return la_fail(-ENOMEM, "segment \"%s\" has %zu bytes, %zu are asked for", s->name, s->size, min);
    min = align_up(min, s->page_size);
    wanted = align_up(MIN(wanted, end - start), s->page_size);
    if (!range_first_gap(&s->used, start, end, wanted, &at)) {
        wanted = range_longest_gap(&s->used, start, end);
        if (wanted < min || !range_first_gap(&s->used, start, end, wanted, &at))
            return la_fail(-ENOMEM, "segment \"%s\" is full: %zu bytes in a row are free, %zu are asked for", s->name, wanted, min);
    }
    if (range_insert(&s->used, at, at + wanted, IDLE) < 0)
        return la_fail(-ENOMEM, "no memory for the table of segment \"%s\"", s->name);
    *ret = (struct la_range){ .base = (void *)at, .size = wanted };
    return 0;
}

static void drop_part(struct seg_segment *s, struct la_range range)
{
    vspace_lock();
    range_remove(&s->used, (uintptr_t)range.base, (uintptr_t)range.base + range.size);
    vspace_unlock();
}

/* On nodes that are full the kernel kills before it says no. Pages of the pool are counted apart, and their lack is an error. */
static int check_nodes(const struct seg_segment *s, size_t size)
{
    size_t left = s->page_size > os_page_size() ? SIZE_MAX : seg_numa_headroom(&s->numa);

    return size <= left ? 0 : la_fail(-ENOSPC, "segment \"%s\": %zu bytes on NUMA nodes %#lx, which have %zu left", s->name, size,
                                      (unsigned long)s->numa.nodes, left);
}

static int commit(struct seg_segment *s, struct la_range range)
{
    int r = check_nodes(s, range.size);

    return r < 0 || !s->backend->acquire ? r : s->backend->acquire(s, range);
}

static int try_acquire(struct seg_segment *s, size_t min, size_t wanted, struct la_range *ret)
{
    int r;

    vspace_lock();
    r = enter_part(s, min, wanted, ret);
    vspace_unlock();
    if (r < 0)
        return r;
    r = commit(s, *ret);
    if (r < 0)
        drop_part(s, *ret);
    return r;
}

int seg_acquire(struct seg_segment *s, size_t min, size_t wanted, struct la_range *ret)
{
    struct la_range range;
    int r;

    if (min == 0 || min > wanted)
        return la_fail(-EINVAL, "acquire of %zu, better %zu bytes: the first must be above 0 and not above the second", min, wanted);
    r = try_acquire(s, min, wanted, &range);
    if (r == -ENOSPC && wanted > min)
        r = try_acquire(s, min, min, &range);
    if (r == 0)
        *ret = range;
    return r;
}

/* The part that is exactly @range, marked so that no second release begins. */
static int mark_part(struct seg_segment *s, struct la_range range)
{
    uintptr_t start = (uintptr_t)range.base, end = start + range.size;
    const struct range_entry *part = end > start ? range_find(&s->used, start, end) : NULL;

    if (!part || part->start != start || part->end != end || part->tag == BUSY)
        return la_fail(-EINVAL, "%#lx-%#lx is no acquired part of segment \"%s\"", start, end, s->name);
    range_remove(&s->used, start, end);
    return range_insert(&s->used, start, end, BUSY);    /* into the place just left: cannot fail */
}

/* A part that a supply has made an extent of, and not given up: a driver may use it. @remedy: what to do instead. */
static int check_is_no_extent(const struct seg_segment *s, struct la_range range, const char *remedy)
{
    struct map_answer answer;

    if (!map_read((uintptr_t)range.base, &answer))
        return 0;
    if (answer.keys[0].registrar)
        return la_fail(-EBUSY, "%p + %zu of segment \"%s\" is registered with %s: %s", range.base, range.size, s->name,
                       answer.keys[0].registrar->ops.name, remedy);
    return la_fail(-EBUSY, "%p + %zu of segment \"%s\" is an extent of a supply: %s", range.base, range.size, s->name, remedy);
}

int seg_release(struct seg_segment *s, struct la_range range)
{
    int r = check_is_no_extent(s, range, "seg_supply_release() gives it back");

    if (r < 0)
        return r;
    vspace_lock();
    r = mark_part(s, range);
    vspace_unlock();
    if (r < 0)
        return r;
    if (s->backend->release)
        s->backend->release(s, range);
    drop_part(s, range);
    return 0;
}

static bool is_inside_part(struct seg_segment *s, struct la_range range)
{
    uintptr_t start = (uintptr_t)range.base, end = start + range.size;
    const struct range_entry *part;
    bool inside;

    if (end <= start || (start | end) & (s->page_size - 1))
        return false;
    vspace_lock();
    part = range_find(&s->used, start, end);
    inside = part && part->start <= start && part->end >= end && part->tag == IDLE;
    vspace_unlock();
    return inside;
}

int seg_advise(struct seg_segment *s, struct la_range range, enum seg_advice advice)
{
    int r;

    if (advice != SEG_POPULATE && advice != SEG_DISCARD)
        return la_fail(-EINVAL, "advice %d is unknown", (int)advice);
    if (!is_inside_part(s, range))
        return la_fail(-EINVAL, "%p + %zu is not inside one acquired part of segment \"%s\", in whole pages", range.base, range.size, s->name);
    if (!SEG_BACKEND_HAS(s->backend, advise))
        return la_fail(-ENOTSUP, "%s segments take no advice", s->backend->name);
    r = advice == SEG_DISCARD ? check_is_no_extent(s, range, "its pages cannot be purged while a device may use them") : 0;
    return r < 0 ? r : s->backend->advise(s, range, advice);
}
