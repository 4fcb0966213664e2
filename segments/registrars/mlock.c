/*
 * mlock.c - pages that stay in memory. The key is empty: there is no device.
 */
#include <errno.h>
#include <sys/mman.h>

#include "base/error.h"
#include "segments/registrar_state.h"

static int attach(void *self, const struct seg_extent *extent, struct seg_key *ret)
{
    (void)self;
    if (mlock(extent->base, extent->size) < 0) {
        int r = -errno;

        /* It may have locked the first pages before it failed. */
        munlock(extent->base, extent->size);
        return la_fail(r, "mlock of %zu bytes refused (errno %d): ulimit -l, or no memory", extent->size, -r);
    }
    *ret = (struct seg_key){ 0 };
    return 0;
}

static int detach(void *self, const struct seg_extent *extent, const struct seg_key *key)
{
    (void)self;
    (void)key;
    return munlock(extent->base, extent->size) < 0 ? la_fail(-errno, "munlock refused (errno %d)", errno) : 0;
}

int seg_registrar_mlock(struct seg_registrar **ret)
{
    static const struct seg_registrar_ops ops = {
        .struct_size = sizeof(ops), .name = "mlock", .flags = SEG_REGISTRAR_LOCKS, .adds = SEG_PINNED, .attach = attach, .detach = detach,
    };

    return seg_registrar_create(&ops, NULL, ret);
}
