/*
 * parts.c - an open segment as a source: extents are parts of it, so that what is shared by name or descriptor can be registered and allocated
 * from as it is committed.
 */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "segments/backend.h"
#include "segments/catalogue.h"

static int parts_open(const char *text, void *user, void **ret)
{
    (void)text;
    if (!user)
        return la_fail(-EINVAL, "parts of which segment? Set .user of the choice");
    *ret = user;
    return 0;
}

static void parts_close(void *self)
{
    (void)self;
}

static int parts_info(void *self, struct seg_source_info *ret)
{
    struct seg_info info = { .struct_size = sizeof(info) };

    seg_info(self, &info);
    ret->can = info.capabilities;
    ret->page_size = info.page_size;
    ret->available = info.size - info.acquired;
    return 0;
}

/* Where its pages lie was said when the segment was opened. */
static bool is_placed_otherwise(const struct seg_segment *s, const struct seg_numa *numa)
{
    return numa->mode != SEG_NUMA_ANY && (numa->mode != s->numa.mode || numa->nodes != s->numa.nodes);
}

static int parts_acquire(void *self, const struct seg_ask *ask, struct seg_extent *ret)
{
    struct seg_segment *s = self;
    struct seg_info info = { .struct_size = sizeof(info) };
    struct la_range range;
    int r;

    seg_info(s, &info);
    if (is_placed_otherwise(s, &ask->numa))
        info.capabilities &= ~(unsigned)SEG_PLACED;
    if (ask->required & ~info.capabilities)
        return la_fail(-ENOTSUP, "segment \"%s\" was opened without the capabilities %#x", info.name, ask->required & ~info.capabilities);
    r = seg_acquire(s, ask->min_size, ask->wanted_size, &range);
    if (r < 0)
        return r;
    ret->base = range.base;
    ret->size = range.size;
    ret->page_size = info.page_size;
    ret->capabilities = info.capabilities;
    ret->missed = ask->preferred & ~info.capabilities;
    ret->fd = info.fd;
    ret->offset = (uint64_t)((char *)range.base - (char *)info.base);
    ret->node = info.node;
    memcpy(ret->reason, info.reason, sizeof(ret->reason));
    return 0;
}

static int parts_release(void *self, struct seg_extent *extent)
{
    return seg_release(self, (struct la_range){ extent->base, extent->size });
}

static int parts_advise(void *self, struct seg_extent *extent, struct la_range range, enum seg_advice advice)
{
    (void)extent;
    return seg_advise(self, range, advice);
}

static const struct seg_source_ops parts_ops = {
    .struct_size = sizeof(parts_ops), .name = "parts", .can = ~(unsigned)(SEG_PINNED | SEG_DEVICE_ONLY), .open = parts_open,
    .close = parts_close, .info = parts_info, .acquire = parts_acquire, .release = parts_release, .advise = parts_advise,
};

const struct seg_source_ops *seg_source_parts(void)
{
    return &parts_ops;
}
