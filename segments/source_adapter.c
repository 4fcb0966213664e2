/*
 * source_adapter.c - a segment as a source of chains.
 *
 * The engine asks for ranges and gives them back whole: that is seg_acquire() and seg_release(). Purging is offered only
 * where a purged page cannot be missing later: the engine touches it again without asking.
 */
#include "segments/backend.h"

#include <errno.h>

#include "base/error.h"

static int acquire(void *self, size_t min, size_t wanted, struct la_range *ret)
{
    return seg_acquire(self, min, wanted, ret);
}

static void release(void *self, struct la_range range)
{
    seg_release(self, range);
}

static int purge(void *self, struct la_range range)
{
    return seg_advise(self, range, SEG_DISCARD);
}

int seg_source_create(struct seg_segment *segment, struct la_source **ret)
{
    struct la_source_ops ops = { .struct_size = sizeof(ops), .acquire = acquire, .release = release };

    if (!segment || !ret)
        return la_fail(-EINVAL, "seg_source_create() needs a segment and a place for the source");
    ops.name = segment->name[0] ? segment->name : segment->backend->name;
    if (segment->backend->kind == SEG_ANON && !(segment->capabilities & SEG_HUGE))
        ops.purge = purge;
    return la_source_create(&ops, segment, ret);
}
