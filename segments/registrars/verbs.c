/*
 * verbs.c - extents as memory regions of a protection domain: memory of the machine by its address, that of another device by a dmabuf.
 */
#include <errno.h>
#include <stdint.h>
#include <unistd.h>

#include <segments/verbs.h>

#include "base/error.h"
#include "base/util.h"
#include "os/os.h"
#include "segments/verbs/dmabuf.h"
#include "segments/verbs/runtime.h"

/* A page of its own: the engine may be what malloc is made of. */
struct domain {
    const struct verbs_runtime *verbs;
    struct ibv_pd *pd;
    unsigned access;
    pid_t owner;            /* the process that may use the device */
};

/* As the macro of <infiniband/verbs.h> does: only ibv_reg_mr_iova2() drops hints that a device does not know. */
static int register_address(const struct domain *d, const struct seg_extent *extent, struct verbs_mr **ret)
{
    unsigned hints = SEG_VERBS_RELAXED_ORDERING;

    errno = 0;
    if (d->access & hints && d->verbs->ibv_reg_mr_iova2)
        *ret = d->verbs->ibv_reg_mr_iova2(d->pd, extent->base, extent->size, (uintptr_t)extent->base, d->access);
    else
        *ret = d->verbs->ibv_reg_mr(d->pd, extent->base, extent->size, (int)(d->access & ~hints));
    return *ret ? 0 : verbs_fail(errno, "ibv_reg_mr", extent->size, d->access);
}

/* What has no dmabuf; when this fails too, both are told. */
static int register_address_instead(const struct domain *d, const struct seg_extent *extent, struct verbs_mr **ret)
{
    struct error_kept dmabuf, address;
    int r;

    error_keep(&dmabuf);
    r = register_address(d, extent, ret);
    if (r == 0)
        return 0;
    error_keep(&address);
    return la_fail(r, "%.125s; by address: %.115s", dmabuf.text, address.text);
}

/*
 * By a dmabuf where there is one. Where there cannot be, by the address: right for memory of the machine, and for a GPU's only where the kernel is
 * known to ask its driver. Elsewhere an address of a device's could be anybody's.
 */
static int register_extent(const struct domain *d, const struct seg_extent *extent, struct verbs_mr **ret)
{
    bool of_device = extent->capabilities & SEG_DEVICE_ONLY;
    struct error_kept why;
    int r;

    if (!of_device && !verbs_is_dmabuf(extent))
        return register_address(d, extent, ret);
    r = verbs_register_dmabuf(d->verbs, d->pd, extent, d->access, ret);
    if (r != -ENOTSUP || (of_device && !verbs_is_of_cuda(extent->base)))
        return r;
    error_keep(&why);
    if (of_device && seg_verbs_peer_memory() < 0)
        return la_fail(r, "%.180s; nor is nvidia-peermem loaded, which does without (modprobe nvidia-peermem)", why.text);
    error_tell_again(&why);
    return register_address_instead(d, extent, ret);
}

static int attach(void *self, const struct seg_extent *extent, struct seg_key *ret)
{
    const struct domain *d = self;
    struct verbs_mr *mr;
    int r;

    if (d->owner != getpid())
        return la_fail(-ECHILD, "verbs: the device was opened by process %d, its child %d cannot use it; open one in the child, or use exec",
                       (int)d->owner, (int)getpid());
    r = register_extent(d, extent, &mr);
    if (r == 0)
        *ret = (struct seg_key){ .local = mr->lkey, .remote = mr->rkey, .handle = mr };
    return r;
}

static int detach(void *self, const struct seg_extent *extent, const struct seg_key *key)
{
    const struct domain *d = self;
    int error;

    if (d->owner != getpid())
        return 0;           /* the parent's registration, not ours to end */
    errno = 0;
    error = d->verbs->ibv_dereg_mr(key->handle);
    if (error == 0)
        return 0;
    /* The manual says an errno; some providers say -1. */
    error = error > 0 ? error : errno ? errno : EIO;
    return la_fail(-error, "verbs: ibv_dereg_mr of %zu bytes: errno %d%s", extent->size, error, error == EBUSY ? ": a memory window is bound to it" : "");
}

static void close_domain(void *self)
{
    os_unmap(self, os_page_size());
}

static int check(const struct ibv_pd *pd, unsigned access, size_t max_size)
{
    unsigned known = SEG_VERBS_LOCAL_WRITE | SEG_VERBS_REMOTE_WRITE | SEG_VERBS_REMOTE_READ | SEG_VERBS_REMOTE_ATOMIC | SEG_VERBS_MW_BIND |
                     SEG_VERBS_RELAXED_ORDERING;

    if (!pd)
        return la_fail(-EINVAL, "verbs: a protection domain is needed, from ibv_alloc_pd() or rdma_cm_id.pd");
    if (access & ~known)
        return la_fail(-EINVAL, "verbs: access %#x is not possible for extents (%#x is)", access & ~known, known);
    if (access & (SEG_VERBS_REMOTE_WRITE | SEG_VERBS_REMOTE_ATOMIC) && !(access & SEG_VERBS_LOCAL_WRITE))
        return la_fail(-EINVAL, "verbs: access %#x: what peers may write needs SEG_VERBS_LOCAL_WRITE too", access);
    if (max_size && max_size < os_page_size())
        return la_fail(-EINVAL, "verbs: max_size of %zu bytes is less than a page (%zu)", max_size, os_page_size());
    return 0;
}

int seg_registrar_verbs(struct ibv_pd *pd, unsigned access, size_t max_size, struct seg_registrar **ret)
{
    struct seg_registrar_ops ops = {
        .struct_size = sizeof(ops), .name = "verbs", .flags = SEG_REGISTRAR_PINS | SEG_REGISTRAR_DEVICE, .adds = SEG_PINNED, .max_size = max_size,
        .attach = attach, .detach = detach, .close = close_domain,
    };
    const struct verbs_runtime *verbs;
    struct domain *d;
    int r = check(pd, access, max_size);

    if (r == 0)
        r = verbs_runtime_open(&verbs);
    if (r < 0)
        return r;
    d = os_map(os_page_size());
    if (!d)
        return la_fail(-ENOMEM, "verbs: no memory for a registrar");
    *d = (struct domain){ verbs, pd, access, getpid() };
    r = seg_registrar_create(&ops, d, ret);
    if (r < 0)
        close_domain(d);
    return r;
}
