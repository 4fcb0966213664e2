#include "shmserver/daemon/registry.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <liballoc/vspace.h>

#include "base/error.h"
#include "shmserver/daemon/log.h"
#include "shmserver/daemon/view.h"

#define segment_of(list_node) list_entry(list_node, struct segment, node)

void registry_init(struct registry *registry, struct quota *quota, unsigned max_segments)
{
    *registry = (struct registry){ .quota = quota, .max = max_segments, .next_serial = 1 };
    list_init(&registry->segments);
}

static void free_segment(struct segment *segment, bool keep_address)
{
    view_close(segment);
    memfile_close(&segment->file, keep_address);
    list_remove(&segment->node);
    segment->registry->count--;
    quota_give_heap(segment->registry->quota, segment->acl.owner, segment->file.size);
    free(segment);
}

void registry_deinit(struct registry *registry)
{
    while (!list_is_empty(&registry->segments)) {
        struct segment *segment = segment_of(registry->segments.next);
        bool used = segment_is_used(segment);

        if (used)
            log_write(LOG_INFO, "heap %s stays with the processes that are attached to it", segment->name);
        while (!list_is_empty(&segment->holders))
            holding_drop(list_entry(segment->holders.next, struct holding, in_segment));
        free_segment(segment, used);
    }
}

/* ---- finding ---- */

static struct segment *find(struct registry *registry, const char *name)
{
    list_for_each(node, &registry->segments)
        if (!segment_of(node)->removed && strcmp(segment_of(node)->name, name) == 0)
            return segment_of(node);
    return NULL;
}

struct segment *registry_find(struct registry *registry, const char *name)
{
    struct segment *segment = find(registry, name);

    if (!segment)
        la_fail(-ENOENT, "no heap \"%s\" here: `shms ls` shows which there are, `shms create` makes one", name);
    return segment;
}

struct segment *registry_find_id(struct registry *registry, uint64_t id)
{
    list_for_each(node, &registry->segments)
        if (segment_of(node)->id == id)
            return segment_of(node);
    return NULL;
}

struct segment *registry_after(struct registry *registry, uint64_t serial)
{
    list_for_each(node, &registry->segments)
        if (segment_of(node)->serial > serial)
            return segment_of(node);
    return NULL;
}

/* ---- creating ---- */

/* The heap's own word for what it is: attaching also proves that it can be attached. */
static int read_id(struct segment *segment)
{
    struct la_heap_info info = { .struct_size = sizeof(info) };
    struct la_heap *heap;
    int r = view_open(segment, &heap);

    if (r == 0)
        r = la_heap_info(heap, &info);
    segment->id = info.id;
    return r;
}

static int make_segment(struct registry *registry, const char *name, uint64_t size, struct segment **ret)
{
    struct segment *segment = calloc(1, sizeof(*segment));
    int r;

    if (!segment)
        return la_fail(-ENOMEM, "shmserver is out of memory");
    strncpy(segment->name, name, sizeof(segment->name) - 1);
    segment->registry = registry;
    segment->created = time(NULL);
    segment->serial = registry->next_serial++;
    segment->file.fd = -1;
    list_init(&segment->node);
    list_init(&segment->holders);
    r = memfile_create(name, size, &segment->file);
    if (r == 0)
        r = read_id(segment);
    if (r < 0) {
        view_close(segment);
        memfile_close(&segment->file, false);
        free(segment);
        return r;
    }
    *ret = segment;
    return 0;
}

int registry_create(struct registry *registry, const char *name, uint64_t size, uint64_t key, uid_t owner, gid_t group, struct segment **ret)
{
    uint64_t rounded = size > UINT64_MAX - LA_VSPACE_GRANULE ? UINT64_MAX : align_up(size, LA_VSPACE_GRANULE);
    struct segment *segment = find(registry, name);
    int r;

    if (segment && key && segment->key == key && segment->acl.owner == owner) {
        *ret = segment;
        return 0;
    }
    if (segment)
        return la_fail(-EEXIST, "heap \"%s\" exists: attach to it, or remove it first", name);
    if (registry->count >= registry->max)
        return la_fail(-EDQUOT, "there are %u heaps, which is the limit: remove some, or see shmserver --max-heaps-total", registry->count);
    r = quota_take_heap(registry->quota, owner, rounded);
    if (r < 0)
        return r;
    r = make_segment(registry, name, size, &segment);
    if (r < 0) {
        quota_give_heap(registry->quota, owner, rounded);
        return r;
    }
    segment->key = key;
    segment->acl = (struct acl){ .owner = owner, .group = group, .mode = ACL_MODE_NEW };
    list_add(registry->segments.prev, &segment->node);
    registry->count++;
    *ret = segment;
    return 0;
}

int registry_set_acl(struct segment *segment, const struct acl *acl)
{
    struct quota *quota = segment->registry->quota;
    int r = 0;

    if (acl->owner != segment->acl.owner)
        r = quota_take_heap(quota, acl->owner, segment->file.size);
    if (r < 0)
        return r;
    if (acl->owner != segment->acl.owner)
        quota_give_heap(quota, segment->acl.owner, segment->file.size);
    segment->acl = *acl;
    return 0;
}

/* ---- removing ---- */

bool segment_is_used(struct segment *segment)
{
    struct la_heap_process processes[LA_HEAP_MAX_PROCESSES];

    return !list_is_empty(&segment->holders) || view_processes(segment, processes) != 0 || view_has_readers(segment);
}

bool registry_release(struct segment *segment)
{
    if (!segment->removed || segment_is_used(segment))
        return false;
    log_write(LOG_DEBUG, "heap %s is gone", segment->name);
    free_segment(segment, false);
    return true;
}

void registry_remove(struct segment *segment)
{
    segment->removed = true;
}

/* ---- holdings ---- */

struct holding *segment_find_holding(struct segment *segment, const void *peer)
{
    list_for_each(node, &segment->holders) {
        struct holding *holding = list_entry(node, struct holding, in_segment);

        if (holding->peer == peer)
            return holding;
    }
    return NULL;
}

int segment_hold(struct segment *segment, void *peer, struct la_list *peer_list, bool read_only)
{
    struct holding *holding = segment_find_holding(segment, peer);

    if (holding) {
        holding->read_only &= read_only;
        return 0;
    }
    holding = malloc(sizeof(*holding));
    if (!holding)
        return la_fail(-ENOMEM, "shmserver is out of memory");
    *holding = (struct holding){ .segment = segment, .peer = peer, .read_only = read_only };
    list_add(&segment->holders, &holding->in_segment);
    list_add(peer_list, &holding->in_peer);
    return 0;
}

void holding_drop(struct holding *holding)
{
    list_remove(&holding->in_segment);
    list_remove(&holding->in_peer);
    free(holding);
}

/* ---- checking ---- */

bool registry_is_valid(const struct registry *registry)
{
    uint64_t last = 0;
    unsigned count = 0;

    list_for_each(node, &registry->segments) {
        const struct segment *segment = segment_of(node);

        if (segment->serial <= last || segment->serial >= registry->next_serial)
            return false;       /* I3 */
        last = segment->serial;
        count++;
        list_for_each(other, &registry->segments)
            if (other != node && !segment->removed && !segment_of(other)->removed &&
                strcmp(segment->name, segment_of(other)->name) == 0)
                return false;   /* I1 */
    }
    return count == registry->count && count <= registry->max;
}
