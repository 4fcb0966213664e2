/*
 * source.c - the contract of struct seg_source_ops (segments/source.h), rule by rule.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <liballoc/error.h>

#include "segments/conformance/kit.h"

enum { EXTENTS = 8, CYCLES = 50, MARK = 1000000, CAPABILITIES = 11 };

/* What a process may keep for itself (tables, caches) after many cycles. */
enum { SLACK_KIB = 512 };

struct subject {
    struct kit kit;
    const struct seg_source_ops *ops;
    void *self;
};

#define HAS(ops, member)                                                                                               \
    ((ops)->struct_size >= offsetof(struct seg_source_ops, member) + sizeof((ops)->member) && (ops)->member)

static int acquire(struct subject *s, size_t min, size_t wanted, unsigned required, struct seg_extent *ret)
{
    struct seg_ask ask = { .struct_size = sizeof(ask), .min_size = min, .wanted_size = wanted, .required = required };

    int r;

    *ret = (struct seg_extent){ .struct_size = sizeof(*ret), .fd = -1, .node = -1 };
    r = s->ops->acquire(s->self, &ask, ret);
    ret->source = s->ops;
    ret->source_self = s->self;
    return r;
}

static void release(struct subject *s, struct seg_extent *extent)
{
    int r = s->ops->release(s->self, extent);

    kit_check(&s->kit, r == 0, "release: 0 for an extent that is out", "%d (%s)", r, la_last_error());
}

/* What can be said of one extent by looking at it. False: it must not be touched. */
static bool check_extent(struct subject *s, const struct seg_extent *e, size_t min, size_t wanted)
{
    struct kit *k = &s->kit;
    uintptr_t base = (uintptr_t)e->base;
    size_t page = e->page_size;

    if (!kit_check(k, page >= k->page && (page & (page - 1)) == 0, "acquire: pages are a power of two, at least the machine's", "%zu bytes", page))
        return false;
    return kit_check(k, e->base && base + e->size > base, "acquire: a range", "%p + %zu", e->base, e->size) &&
           kit_check(k, e->size >= min, "acquire: at least min_size", "%zu of %zu bytes", e->size, min) &&
           kit_check(k, e->size <= (wanted + page - 1) / page * page, "acquire: at most wanted_size, in whole pages", "%zu, wanted %zu", e->size, wanted) &&
           kit_check(k, (base | e->size) % page == 0, "acquire: whole pages", "%p + %zu of %zu", e->base, e->size, page) &&
           kit_check(k, !kit_is_device_only(e) || s->ops->can & SEG_DEVICE_ONLY, "acquire: memory of a device only if .can says so", "%p + %zu is",
                     e->base, e->size) &&
           kit_check(k, kit_touch(e), "acquire: all of it can be written and read", "%p + %zu cannot", e->base, e->size);
}

static void check_info(struct subject *s)
{
    struct seg_source_info info = { .struct_size = sizeof(info), .available = SIZE_MAX };
    int r = s->ops->info(s->self, &info);

    kit_check(&s->kit, r == 0, "info: 0", "%d", r);
    kit_check(&s->kit, info.page_size && (info.page_size & (info.page_size - 1)) == 0, "info: page size is a power of two", "%zu", info.page_size);
}

static bool overlap(const struct seg_extent *a, const struct seg_extent *b)
{
    return (char *)a->base < (char *)b->base + b->size && (char *)b->base < (char *)a->base + a->size;
}

static bool is_apart(const struct seg_extent *extents, unsigned count)
{
    for (unsigned i = 0; i + 1 < count; i++)
        if (overlap(&extents[i], &extents[count - 1]))
            return false;
    return true;
}

/* As many as it gives, marked; stops at the first that must not be touched. */
static unsigned take_many(struct subject *s, struct seg_extent *extents)
{
    unsigned count = 0;

    while (count < EXTENTS) {
        size_t min = s->kit.size / (1 + count % 3), wanted = s->kit.size;
        int r = acquire(s, min, wanted, 0, &extents[count]);

        if (r != 0) {
            kit_check(&s->kit, r < 0, "acquire: 0 or a negative errno", "%d", r);
            break;
        }
        if (!check_extent(s, &extents[count], min, wanted) ||
            !kit_check(&s->kit, is_apart(extents, count + 1), "acquire: no byte is given twice", "%p + %zu", extents[count].base, extents[count].size)) {
            release(s, &extents[count]);
            break;
        }
        kit_mark(&s->kit, &extents[count], count * MARK);
        count++;
    }
    return count;
}

static void check_many(struct subject *s)
{
    struct seg_extent extents[EXTENTS];
    unsigned count = take_many(s, extents);

    if (!kit_check(&s->kit, count > 0, "acquire: one extent at least", "none of %zu bytes (%s)", s->kit.size, la_last_error()))
        return;
    for (unsigned i = 0; i < count; i++)
        kit_check(&s->kit, kit_is_marked(&s->kit, &extents[i], i * MARK), "acquire: extents are apart", "the content of %p has changed", extents[i].base);
    for (unsigned i = 0; i < count; i += 2)         /* in an order of its own, odd ones stay */
        release(s, &extents[i]);
    for (unsigned i = 1; i < count; i += 2) {
        kit_check(&s->kit, kit_is_marked(&s->kit, &extents[i], i * MARK), "release: of others leaves an extent alone", "%p has changed", extents[i].base);
        release(s, &extents[i]);
    }
}

static void check_refusals(struct subject *s)
{
    struct seg_extent extent;
    int r;

    for (unsigned bit = 0; bit < CAPABILITIES; bit++) {
        unsigned capability = 1u << bit;

        r = s->ops->can & capability ? acquire(s, s->kit.size, s->kit.size, capability, &extent) : -ENOTSUP;
        if (r == 0) {
            kit_check(&s->kit, extent.capabilities & capability, "acquire: has what is required", "capability %#x is not there", capability);
            release(s, &extent);
        } else {
            kit_check(&s->kit, r < 0, "acquire: 0 or a negative errno", "%d", r);
        }
    }
    r = acquire(s, (size_t)1 << 50, (size_t)1 << 50, 0, &extent);
    kit_check(&s->kit, r < 0, "acquire: what cannot be is refused", "1 PiB: %d", r);
    r = acquire(s, SIZE_MAX - 4096, SIZE_MAX, 0, &extent);
    kit_check(&s->kit, r < 0, "acquire: what cannot be is refused", "all of the address space: %d", r);
}

static bool is_zero(const struct seg_extent *extent)
{
    if (kit_is_device_only(extent))
        return true;
    for (size_t at = 0; at < extent->size; at += sizeof(unsigned))
        if (*(volatile unsigned *)((char *)extent->base + at))
            return false;
    return true;
}

static void check_advice(struct subject *s)
{
    struct seg_extent extent;
    int r;

    if (!HAS(s->ops, advise) || acquire(s, s->kit.size, s->kit.size, 0, &extent) != 0)
        return;
    kit_mark(&s->kit, &extent, MARK);
    r = s->ops->advise(s->self, &extent, (struct la_range){ extent.base, extent.size }, SEG_POPULATE);
    kit_check(&s->kit, r <= 0, "advise: 0 or a negative errno", "%d", r);
    kit_check(&s->kit, kit_is_marked(&s->kit, &extent, MARK), "advise: populate keeps the content", "it has changed");
    r = s->ops->advise(s->self, &extent, (struct la_range){ extent.base, extent.size }, SEG_DISCARD);
    if (r == 0)
        kit_check(&s->kit, kit_touch(&extent) && is_zero(&extent), "advise: what was discarded reads as zero", "it does not");
    else
        kit_check(&s->kit, kit_is_marked(&s->kit, &extent, MARK), "advise: a refusal changes nothing", "the content has changed");
    release(s, &extent);
}

/* Another mapping of the same file shows the same bytes. */
static void check_export(struct subject *s)
{
    struct seg_handle handle = { .struct_size = sizeof(handle), .fd = -1 };
    struct seg_extent extent;
    char *other;

    if (!HAS(s->ops, export_handle) || acquire(s, s->kit.size, s->kit.size, 0, &extent) != 0)
        return;
    if (s->ops->export_handle(s->self, &extent, &handle) == 0) {
        kit_mark(&s->kit, &extent, MARK);
        other = mmap(NULL, extent.size, PROT_READ, MAP_SHARED, handle.fd, (off_t)handle.offset);
        if (kit_check(&s->kit, other != MAP_FAILED && handle.size == extent.size, "export: the descriptor can be mapped", "errno %d", errno)) {
            kit_check(&s->kit, memcmp(other, extent.base, extent.size) == 0, "export: it is the same memory", "other bytes are there");
            munmap(other, extent.size);
        }
        close(handle.fd);
    }
    release(s, &extent);
}

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

/* What a dmabuf shows is what the processor sees there, if it may see it at all. */
static void check_dmabuf_content(struct subject *s, const struct seg_extent *extent, const struct seg_dmabuf *dmabuf)
{
    char *other = MAP_FAILED;

    if (!kit_is_device_only(extent) && dmabuf->offset % s->kit.page == 0) {
        kit_mark(&s->kit, extent, MARK);
        other = mmap(NULL, extent->size, PROT_READ, MAP_SHARED, dmabuf->fd, (off_t)dmabuf->offset);
    }
    if (other == MAP_FAILED)
        return;
    kit_check(&s->kit, memcmp(other, extent->base, extent->size) == 0, "export_dmabuf: it is the same memory", "other bytes are there");
    munmap(other, extent->size);
}

static bool get_dmabuf(struct subject *s, const struct seg_extent *extent, struct seg_dmabuf *ret)
{
    off_t size;
    int r;

    *ret = (struct seg_dmabuf){ .struct_size = sizeof(*ret), .fd = -1 };
    r = s->ops->export_dmabuf(s->self, extent, ret);
    kit_check(&s->kit, r <= 0, "export_dmabuf: 0 or a negative errno", "%d", r);
    if (r != 0)
        return false;
    if (!kit_check(&s->kit, is_open(ret->fd), "export_dmabuf: a descriptor", "%d is none", ret->fd))
        return false;
    size = lseek(ret->fd, 0, SEEK_END);
    if (kit_check(&s->kit, size < 0 || ret->offset + extent->size <= (uint64_t)size, "export_dmabuf: all of the extent is in it",
                  "%zu at %llu of %lld bytes", extent->size, (unsigned long long)ret->offset, (long long)size))
        return true;
    close(ret->fd);
    return false;
}

/* Each is the asker's own, and is closed by it alone. */
static void check_dmabuf(struct subject *s)
{
    struct seg_dmabuf first, second;
    struct kit_trace before;
    struct seg_extent extent;

    if (!HAS(s->ops, export_dmabuf) || acquire(s, s->kit.size, s->kit.size, 0, &extent) != 0)
        return;
    before = kit_look();
    if (get_dmabuf(s, &extent, &first)) {
        bool again = get_dmabuf(s, &extent, &second);

        check_dmabuf_content(s, &extent, &first);
        if (kit_check(&s->kit, again && first.fd != second.fd, "export_dmabuf: a descriptor of its own for each", "%d, then %d", first.fd, second.fd)) {
            close(first.fd);
            kit_check(&s->kit, is_open(second.fd), "export_dmabuf: a descriptor of its own for each", "with the first the second is closed");
            close(second.fd);
        }
    }
    kit_compare(&s->kit, &before, "export_dmabuf: leaves nothing but the descriptor, and nothing in failure", SLACK_KIB);
    release(s, &extent);
}

static void check_cycles(struct subject *s)
{
    struct kit_trace before;
    struct seg_extent extent;

    for (int i = -1; i < CYCLES; i++) {
        if (i == 0)
            before = kit_look();        /* the first one may make what stays */
        if (acquire(s, s->kit.size, s->kit.size, 0, &extent) != 0)
            return;
        kit_touch(&extent);
        release(s, &extent);
    }
    kit_compare(&s->kit, &before, "release: gives all back", SLACK_KIB);
}

static bool check_table(struct kit *kit, const struct seg_source_ops *ops)
{
    return kit_check(kit, ops && ops->struct_size >= offsetof(struct seg_source_ops, resize), "table: struct_size is set", "it is not") &&
           kit_check(kit, ops->name && ops->open && ops->close && ops->info && ops->acquire && ops->release,
                     "table: name, open, close, info, acquire, release", "one is missing");
}

int seg_conformance_source(const struct seg_choice *choice, struct seg_conformance *run)
{
    struct subject s = { .ops = choice ? choice->ops : NULL };
    struct kit_trace before;
    int r = kit_begin(&s.kit, run);

    if (r < 0)
        return r;
    if (!check_table(&s.kit, s.ops))
        return kit_end(&s.kit);
    before = kit_look();
    r = s.ops->open(choice->text ? choice->text : "", choice->user, &s.self);
    if (r < 0)
        return r;
    check_info(&s);
    check_many(&s);
    check_refusals(&s);
    check_advice(&s);
    check_export(&s);
    check_dmabuf(&s);
    check_cycles(&s);
    s.ops->close(s.self);
    kit_compare(&s.kit, &before, "close: leaves nothing", 2 * SLACK_KIB);
    return kit_end(&s.kit);
}
