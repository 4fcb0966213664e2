#include "shmserver/daemon/view.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <liballoc/error.h>

#include "base/error.h"
#include "shmserver/daemon/holes.h"
#include "shmserver/daemon/log.h"

static struct segment *least_recently_used(struct registry *registry, unsigned *open)
{
    struct segment *oldest = NULL;

    *open = 0;
    list_for_each(node, &registry->segments) {
        struct segment *segment = list_entry(node, struct segment, node);

        if (!segment->view)
            continue;
        (*open)++;
        if (!oldest || segment->view_used < oldest->view_used)
            oldest = segment;
    }
    return oldest;
}

/* The header is anybody's work: an address that is not the heap's own is not where we watch. */
static int check_address(const struct segment *segment)
{
    struct la_heap_info info = { .struct_size = sizeof(info) };
    int r = la_heap_info(segment->view, &info);

    if (r == 0 && info.address != segment->file.address)
        r = la_fail(-EINVAL, "the header of heap %s is not the one that was written", segment->name);
    return r;
}

static int attach_file(struct segment *segment)
{
    int fd = memfile_reopen(&segment->file, segment->sealed), r;

    if (fd < 0)
        return fd;
    /* The dead are left for la_heap_recover(), which tells who they were; unless no slot is free otherwise. */
    r = la_heap_attach_fd(fd, segment->sealed ? LA_HEAP_READ_ONLY : LA_HEAP_NO_RECOVER, &segment->view);
    if (r == -EUSERS) {
        fd = memfile_reopen(&segment->file, false);
        r = fd < 0 ? fd : la_heap_attach_fd(fd, 0, &segment->view);
    }
    return r;
}

static int attach(struct segment *segment)
{
    int r;

    if (!holes_watch(segment->file.address, segment->file.size, segment->file.page_size))
        return la_fail(-EMFILE, "too many heaps are looked into");
    r = attach_file(segment);
    if (r < 0) {
        holes_forget(segment->file.address);
        return r;
    }
    r = check_address(segment);
    if (r < 0)
        view_close(segment);
    return r;
}

/* The last look met a page that was gone. */
static void give_up_broken(struct segment *segment)
{
    if (!segment->view || !holes_found(segment->file.address))
        return;
    view_close(segment);
    segment->broken = true;
    log_write(LOG_WARNING, "heap %s: somebody has punched a hole into it, and no page is left: it is not looked into any more", segment->name);
}

int view_open(struct segment *segment, struct la_heap **ret)
{
    int r;

    give_up_broken(segment);
    if (segment->broken)
        return la_fail(-EIO, "heap %s is broken: somebody has punched a hole into it", segment->name);
    if (!segment->view) {
        unsigned open;
        struct segment *oldest = least_recently_used(segment->registry, &open);

        if (open >= VIEW_MAX)
            view_close(oldest);
        r = attach(segment);
        if (r < 0 && !segment->view_failed)
            log_write(LOG_WARNING, "cannot look into heap %s: %s", segment->name, la_last_error());
        segment->view_failed = r < 0;
        if (r < 0)
            return r;
    }
    segment->view_used = ++segment->registry->clock;
    *ret = segment->view;
    return 0;
}

void view_close(struct segment *segment)
{
    if (!segment->view || la_heap_detach(segment->view) < 0)
        return;
    segment->view = NULL;
    holes_forget(segment->file.address);
}

int view_processes(struct segment *segment, struct la_heap_process ret[LA_HEAP_MAX_PROCESSES])
{
    struct la_heap *heap;
    int n = view_open(segment, &heap);

    if (n == 0)
        n = la_heap_processes(heap, ret, LA_HEAP_MAX_PROCESSES);
    n = MIN(n, LA_HEAP_MAX_PROCESSES);
    for (int i = 0; i < n; i++)
        if (ret[i].self) {
            memmove(&ret[i], &ret[i + 1], (size_t)(n - i - 1) * sizeof(*ret));
            return n - 1;
        }
    return n;
}

int view_describe(struct segment *segment, struct shms_heap *ret)
{
    struct la_heap_process processes[LA_HEAP_MAX_PROCESSES];
    struct la_heap_info info = { .struct_size = sizeof(info) };
    struct la_heap *heap;
    int r = view_open(segment, &heap), n;

    if (r == 0)
        r = la_heap_info(heap, &info);
    if (r < 0)
        return r;
    n = view_processes(segment, processes);
    if (n < 0)
        return n;
    *ret = (struct shms_heap){ .struct_size = sizeof(*ret), .id = segment->id, .address = info.address, .size = info.size,
        .committed = info.committed, .recovered_processes = info.recovered_processes, .recovered_blocks = info.recovered_blocks,
        .recovered_bytes = info.recovered_bytes, .created = segment->created, .macro_blocks = info.macro_blocks,
        .macro_blocks_used = info.macro_blocks_used, .lanes = info.lanes, .owner = segment->acl.owner,
        .quarantined = info.quarantined, .group = segment->acl.group, .mode = segment->acl.mode, .sealed = segment->sealed,
        .page_size = info.page_size };
    memcpy(ret->name, segment->name, sizeof(ret->name));
    for (int i = 0; i < n; i++)
        ret->processes += processes[i].alive;
    return 0;
}

bool view_has_readers(struct segment *segment)
{
    struct la_heap_info info = { .struct_size = sizeof(info) };
    struct la_heap *heap;

    return view_open(segment, &heap) == 0 && la_heap_info(heap, &info) == 0 && info.readers;
}
