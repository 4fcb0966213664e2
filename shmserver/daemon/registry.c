#include "shmserver/daemon/registry.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <liballoc/error.h>
#include <liballoc/vspace.h>

#include "base/error.h"
#include "shmserver/daemon/log.h"
#include "shmserver/daemon/loop.h"
#include "shmserver/daemon/reaper.h"
#include "shmserver/daemon/view.h"

#define segment_of(list_node) list_entry(list_node, struct segment, node)

void registry_init(struct registry *registry, struct quota *quota, unsigned max_segments)
{
    *registry = (struct registry){ .quota = quota, .max = max_segments, .next_serial = 1 };
    list_init(&registry->segments);
}

/* ---- what outlives us ---- */

/* Of a heap's file in the store. */
static void name_file(uint64_t id, char ret[NAMED_FD_NAME_MAX + 1])
{
    snprintf(ret, NAMED_FD_NAME_MAX + 1, "heap-%016" PRIx64, id);
}

static int write_down(const struct segment *segment)
{
    struct state_record record = { .kind = STATE_HEAP, .removed = segment->removed, .id = segment->id, .serial = segment->serial,
        .key = segment->key, .address = segment->file.address, .size = segment->file.size, .created = segment->created,
        .owner = segment->acl.owner, .group = segment->acl.group, .mode = segment->acl.mode };

    if (!segment->registry->state)
        return 0;
    memcpy(record.name, segment->name, sizeof(record.name));
    return state_put(segment->registry->state, &record);
}

/* The file comes first: a record says that it is there (I5). */
static int keep(const struct segment *segment)
{
    struct store *store = segment->registry->store;
    char name[NAMED_FD_NAME_MAX + 1];
    int r = 0;

    name_file(segment->id, name);
    if (store)
        r = store_put(store, name, &segment->file.fd, 1);
    if (r == 0) {
        r = write_down(segment);
        if (r < 0 && store)
            store_drop(store, name);
    }
    return r;
}

static void keep_no_more(const struct segment *segment)
{
    char name[NAMED_FD_NAME_MAX + 1];

    name_file(segment->id, name);
    if (segment->registry->state)
        state_drop(segment->registry->state, STATE_HEAP, segment->id);
    if (segment->registry->store)
        store_drop(segment->registry->store, name);
}

int registry_copy_files(struct registry *registry, struct named_fds *ret)
{
    int r = 0;

    list_for_each(node, &registry->segments) {
        char name[NAMED_FD_NAME_MAX + 1];
        int fd = fcntl(segment_of(node)->file.fd, F_DUPFD_CLOEXEC, 3);

        name_file(segment_of(node)->id, name);
        r = fd < 0 ? la_fail(-errno, "cannot copy a descriptor (errno %d)", errno) : named_fds_add(ret, name, fd);
        if (r < 0)
            break;
    }
    return r;
}

/* ---- ending ---- */

static void free_segment(struct segment *segment, bool keep_address)
{
    bool huge = memfile_is_huge(&segment->file);

    view_close(segment);
    memfile_close(&segment->file, keep_address);
    list_remove(&segment->node);
    segment->registry->count--;
    quota_give_heap(segment->registry->quota, segment->acl.owner, segment->file.size, huge);
    free(segment);
}

void registry_deinit(struct registry *registry, bool kept)
{
    while (!list_is_empty(&registry->segments)) {
        struct segment *segment = segment_of(registry->segments.next);
        bool used = kept || segment_is_used(segment);

        if (used && !kept)
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

static struct segment *new_segment(struct registry *registry, const char *name)
{
    struct segment *segment = calloc(1, sizeof(*segment));

    if (!segment) {
        la_fail(-ENOMEM, "shmserver is out of memory");
        return NULL;
    }
    snprintf(segment->name, sizeof(segment->name), "%s", name);
    segment->registry = registry;
    segment->file.fd = -1;
    list_init(&segment->node);
    list_init(&segment->holders);
    return segment;
}

static void enter(struct registry *registry, struct segment *segment)
{
    list_add(registry->segments.prev, &segment->node);
    registry->count++;
}

/* A heap of the name, owner and key that @segment has. */
static int make_heap(struct segment *segment, uint64_t size, uint64_t page_size)
{
    struct memfile_label label = { .owner = segment->acl.owner, .group = segment->acl.group };
    int r;

    memcpy(label.name, segment->name, sizeof(label.name));
    r = memfile_create(&label, size, page_size, &segment->file);
    segment->created = time(NULL);
    segment->serial = segment->registry->next_serial++;
    if (r == 0)
        r = read_id(segment);
    if (r == 0)
        r = keep(segment);
    if (r < 0) {
        view_close(segment);
        memfile_close(&segment->file, false);
    }
    return r;
}

static int check_new(struct registry *registry, const char *name)
{
    if (find(registry, name))
        return la_fail(-EEXIST, "heap \"%s\" exists: attach to it, or remove it first", name);
    if (registry->count >= registry->max)
        return la_fail(-EDQUOT, "shmserver has %u heap%s, which is the limit: remove some, or see shmserver --max-heaps-total", registry->count,
                       plural(registry->count));
    return 0;
}

int registry_create(struct registry *registry, const char *name, uint64_t size, uint64_t page_size, uint64_t key, uid_t owner, gid_t group,
                    struct segment **ret)
{
    struct segment *segment = find(registry, name);
    uint64_t rounded;
    int r;

    if (segment && key && segment->key == key && segment->acl.owner == owner) {
        *ret = segment;
        return 0;
    }
    r = check_new(registry, name);
    if (r == 0)
        r = memfile_round(size, page_size, &rounded);
    if (r == 0)
        r = quota_take_heap(registry->quota, owner, rounded, page_size != 0);
    if (r < 0)
        return r;
    segment = new_segment(registry, name);
    r = -ENOMEM;
    if (segment) {
        segment->key = key;
        segment->acl = (struct acl){ .owner = owner, .group = group, .mode = ACL_MODE_NEW };
        r = make_heap(segment, size, page_size);
    }
    if (r < 0) {
        quota_give_heap(registry->quota, owner, rounded, page_size != 0);
        free(segment);
        return r;
    }
    enter(registry, segment);
    *ret = segment;
    return 0;
}

/* ---- adopting ---- */

/* The header must say what the label says. It may be anybody's work: la_heap_attach_fd() looks at it as at a stranger's. */
static int check_header(struct segment *segment, uint64_t id)
{
    struct la_heap_info info = { .struct_size = sizeof(info) };
    struct la_heap *heap;
    int r = view_open(segment, &heap);

    if (r == 0)
        r = la_heap_info(heap, &info);
    if (r == 0 && (info.id != id || info.address != segment->file.address))
        r = la_fail(-EINVAL, "the header of heap %s is not the one that was written", segment->name);
    return r;
}

static int take_over(struct segment *segment, uint64_t id, const struct memfile *file)
{
    int r = memfile_adopt(file->fd, file->size, file->address, &segment->file);

    if (r < 0)
        return r;
    segment->id = id;
    segment->created = time(NULL);
    segment->serial = segment->registry->next_serial++;
    segment->sealed = memfile_is_sealed(&segment->file);
    r = check_header(segment, id);
    if (r == 0)
        r = keep(segment);
    if (r < 0) {
        view_close(segment);
        memfile_close(&segment->file, true);
    }
    return r;
}

int registry_adopt(struct registry *registry, uint64_t id, int fd, struct segment **ret)
{
    struct memfile_label label;
    struct memfile ours;
    struct segment *segment;
    int r = memfile_examine(fd, &label, &ours);

    if (r < 0)
        return r;
    r = check_new(registry, label.name);
    if (r == 0)
        r = quota_take_heap(registry->quota, label.owner, ours.size, memfile_is_huge(&ours));
    if (r < 0) {
        close_fd(&ours.fd);
        return r;
    }
    segment = new_segment(registry, label.name);
    if (!segment) {
        close_fd(&ours.fd);
        r = -ENOMEM;
    } else {
        segment->acl = (struct acl){ .owner = label.owner, .group = label.group, .mode = ACL_MODE_NEW };
        r = take_over(segment, id, &ours);
    }
    if (r < 0) {
        quota_give_heap(registry->quota, label.owner, ours.size, memfile_is_huge(&ours));
        free(segment);
        return r;
    }
    enter(registry, segment);
    reaper_restored(segment, now_ms());
    log_write(LOG_INFO, "heap %s is here again, from a process that is attached to it; it is user %u's alone", segment->name, label.owner);
    *ret = segment;
    return 0;
}

/* ---- restoring ---- */

/* The books were written by a daemon, but not by this one, and memory can break: nothing in them may break us. */
static int check_record(struct registry *registry, const struct state_record *record)
{
    if (!memchr(record->name, '\0', sizeof(record->name)) || record->serial == UINT64_MAX)
        return la_fail(-EINVAL, "its record is not one of ours");
    if (!record->removed && find(registry, record->name))
        return la_fail(-EEXIST, "there is another record with its name");
    return 0;
}

static int restore_file(struct segment *segment, const struct state_record *record, struct named_fds *inherited)
{
    char name[NAMED_FD_NAME_MAX + 1];
    int fd;

    name_file(record->id, name);
    fd = named_fds_take(inherited, name);
    if (fd < 0)
        return la_fail(-ENOENT, "nobody has kept its file");
    return memfile_adopt(fd, record->size, record->address, &segment->file);
}

static int restore(struct registry *registry, const struct state_record *record, struct named_fds *inherited)
{
    struct segment *segment = new_segment(registry, "");
    int r;

    if (!segment)
        return -ENOMEM;
    r = check_record(registry, record);
    if (r == 0)
        r = restore_file(segment, record, inherited);
    if (r == 0)
        r = quota_count_heap(registry->quota, record->owner, record->size, memfile_is_huge(&segment->file));
    if (r < 0) {
        log_write(LOG_ERROR, "heap %.*s is lost: %s", LA_HEAP_NAME_MAX, record->name, la_last_error());
        memfile_close(&segment->file, false);
        free(segment);
        return r;
    }
    memcpy(segment->name, record->name, sizeof(segment->name));
    segment->serial = record->serial;
    segment->id = record->id;
    segment->key = record->key;
    segment->created = record->created;
    segment->acl = (struct acl){ .owner = record->owner, .group = record->group, .mode = record->mode };
    segment->removed = record->removed;
    segment->sealed = memfile_is_sealed(&segment->file);
    enter(registry, segment);
    registry->next_serial = MAX(registry->next_serial, segment->serial + 1);
    return 0;
}

/* The record with the lowest serial above @serial: records lie in any order, segments by serial (I3). */
static const struct state_record *next_record(const struct state *state, uint64_t serial)
{
    const struct state_record *next = NULL;

    for (const struct state_record *r = NULL; (r = state_next(state, STATE_HEAP, r));)
        if (r->serial > serial && (!next || r->serial < next->serial))
            next = r;
    return next;
}

/* Files of heaps that were not told to anybody yet, or were removed when the last daemon was killed. */
static void forget_others(struct registry *registry, struct named_fds *inherited)
{
    for (size_t i = inherited->count; i-- > 0;)
        if (strncmp(inherited->list[i].name, "heap-", 5) == 0) {
            int fd = inherited->list[i].fd;

            if (registry->store)
                store_drop(registry->store, inherited->list[i].name);
            named_fds_take_at(inherited, i);
            close_fd(&fd);
        }
}

int registry_restore(struct registry *registry, struct named_fds *inherited)
{
    const struct state_record *record;

    for (uint64_t serial = 0; (record = next_record(registry->state, serial));) {
        serial = record->serial;
        /* Of two with one number the first counts (state.h, I2). */
        if (registry_find_id(registry, record->id))
            continue;
        if (restore(registry, record, inherited) < 0)
            state_drop(registry->state, STATE_HEAP, record->id);
    }
    forget_others(registry, inherited);
    for (struct segment *segment = registry_after(registry, 0); segment;) {
        uint64_t serial = segment->serial;

        reaper_restored(segment, now_ms());
        /* It may be gone. */
        segment = registry_after(registry, serial);
    }
    return (int)registry->count;
}

int registry_set_acl(struct segment *segment, const struct acl *acl)
{
    struct quota *quota = segment->registry->quota;
    bool huge = memfile_is_huge(&segment->file);
    const struct acl before = segment->acl;
    int r = 0;

    if (acl->owner != before.owner)
        r = quota_take_heap(quota, acl->owner, segment->file.size, huge);
    if (r < 0)
        return r;
    segment->acl = *acl;
    r = write_down(segment);
    if (r < 0)
        segment->acl = before;
    if (acl->owner != before.owner)
        quota_give_heap(quota, r < 0 ? acl->owner : before.owner, segment->file.size, huge);
    return r;
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
    keep_no_more(segment);
    free_segment(segment, false);
    return true;
}

void registry_remove(struct segment *segment)
{
    segment->removed = true;
    /* It has a place to be written to, so this cannot fail for want of memory. */
    if (write_down(segment) < 0)
        log_write(LOG_WARNING, "heap %s is removed until the next daemon: %s", segment->name, la_last_error());
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
