/*
 * user.c - the caller's buffer: nothing is mapped, committed or given back.
 */
#include <errno.h>

#include "base/error.h"
#include "os/os.h"
#include "segments/backend.h"

/* A buffer of whole pages is cut at pages, so that parts can be registered; others at cache lines. */
enum { UNIT = 64 };

static size_t unit_of(const struct seg_segment *s)
{
    size_t page = os_page_size();

    return (((uintptr_t)s->base | s->size) & (page - 1)) == 0 ? page : UNIT;
}

static int user_open(struct seg_segment *s, const struct seg_request *request, size_t size)
{
    if (!request->buffer)
        return la_fail(-EINVAL, "a USER segment needs a buffer, got NULL");
    if ((uintptr_t)request->buffer + size < size)
        return la_fail(-EINVAL, "buffer %p + %zu bytes wraps around the address space", request->buffer, size);
    s->base = request->buffer;
    s->size = size;
    s->page_size = unit_of(s);
    return 0;
}

static void user_close(struct seg_segment *s)
{
    s->base = NULL;
}

static void user_info(struct seg_segment *s, struct seg_info *ret)
{
    ret->committed = s->size;
}

const struct seg_backend seg_user_backend = {
    .struct_size = sizeof(struct seg_backend),
    .kind = SEG_USER,
    .name = "user buffer",
    .open = user_open,
    .close = user_close,
    .info = user_info,
};
