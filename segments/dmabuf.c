/*
 * dmabuf.c - an extent described by a dmabuf, for registrars: what a source gives is checked before a driver of another device sees it.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "segments/catalogue.h"

/* The end of a dmabuf is its size. One that cannot tell is believed. */
static int check(const struct seg_extent *extent, const struct seg_dmabuf *dmabuf)
{
    const char *name = extent->source->name;
    off_t size;

    if (dmabuf->fd < 0 || fcntl(dmabuf->fd, F_SETFD, FD_CLOEXEC) < 0)
        return la_fail(-EPROTO, "source %s gave %d for the descriptor of a dmabuf", name, dmabuf->fd);
    size = lseek(dmabuf->fd, 0, SEEK_END);
    if (dmabuf->offset + extent->size < dmabuf->offset || (size >= 0 && dmabuf->offset + extent->size > (uint64_t)size))
        return la_fail(-EPROTO, "source %s gave a dmabuf of %lld bytes for %zu at offset %llu", name, (long long)size, extent->size,
                       (unsigned long long)dmabuf->offset);
    return 0;
}

static int ask(const struct seg_extent *extent, struct seg_dmabuf *dmabuf)
{
    const struct seg_source_ops *source = extent->source;
    unsigned failures = error_count();
    int r = source->export_dmabuf(extent->source_self, extent, dmabuf);

    if (r > 0)
        return la_fail(-EPROTO, "source %s: export_dmabuf returned %d: a contract is 0 or a negative errno", source->name, r);
    if (r < 0 && error_count() == failures)
        la_fail(r, "source %s: no dmabuf (errno %d)", source->name, -r);
    return r;
}

int seg_dmabuf_of(const struct seg_extent *extent, struct seg_dmabuf *ret)
{
    struct seg_dmabuf dmabuf = { .struct_size = sizeof(dmabuf), .fd = -1 };
    int r;

    if (ret->struct_size < sizeof(dmabuf) || ret->struct_size > 4 * sizeof(dmabuf))
        return la_fail(-EINVAL, "set struct_size to sizeof(struct seg_dmabuf) before the call");
    if (extent->struct_size < offsetof(struct seg_extent, source_self) + sizeof(extent->source_self) || !extent->source)
        return la_fail(-ENOTSUP, "the extent does not say what source it is of: ask in attach(), for the one that is given there");
    if (!SOURCE_HAS(extent->source, export_dmabuf))
        return la_fail(-ENOTSUP, "source %s describes no memory by a dmabuf", extent->source->name);
    r = ask(extent, &dmabuf);
    if (r == 0 && (r = check(extent, &dmabuf)) < 0 && dmabuf.fd >= 0)
        close(dmabuf.fd);
    if (r < 0)
        return r;
    ret->fd = dmabuf.fd;
    ret->offset = dmabuf.offset;
    return 0;
}
