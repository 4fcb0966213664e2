#include "shmserver/daemon/answer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <liballoc/error.h>

#include "base/error.h"
#include "shmserver/daemon/answer_admin.h"
#include "shmserver/daemon/call.h"
#include "shmserver/daemon/log.h"
#include "shmserver/daemon/peer.h"
#include "shmserver/daemon/reaper.h"
#include "shmserver/daemon/server.h"
#include "shmserver/daemon/view.h"
#include "shmserver/protocol/fdpass.h"
#include "shmserver/protocol/record.h"

/* ---- reading requests ---- */

static int get_name(const struct call *call, char name[LA_HEAP_NAME_MAX + 1])
{
    if (!wire_get_text(call->request, TLV_NAME, name, LA_HEAP_NAME_MAX + 1))
        return la_fail(-EINVAL, "the request has no name of a heap of at most %d bytes", LA_HEAP_NAME_MAX);
    return 0;
}

bool call_get_u32(const struct call *call, enum wire_tlv_type type, uint32_t *ret)
{
    uint64_t value = *ret;

    wire_get_u64(call->request, type, &value);
    *ret = (uint32_t)value;
    return value <= UINT32_MAX;
}

bool call_sees(const struct call *call, const struct segment *segment)
{
    return call->peer->version >= WIRE_HUGE_SINCE || !memfile_is_huge(&segment->file);
}

static int check_sees(const struct call *call, const struct segment *segment)
{
    if (call_sees(call, segment))
        return 0;
    return la_fail(-EOPNOTSUPP, "heap %s is of huge pages, which protocol version %u has not: use the library of shmserver %s", segment->name,
                   call->peer->version, SERVER_VERSION);
}

int call_get_segment(const struct call *call, struct segment **ret)
{
    char name[LA_HEAP_NAME_MAX + 1];
    int r = get_name(call, name);

    if (r < 0)
        return r;
    *ret = registry_find(call->registry, name);
    return *ret ? check_sees(call, *ret) : -ENOENT;
}

bool call_may(const struct call *call, const struct segment *segment, enum acl_right right)
{
    return acl_allows(&segment->acl, call->peer->socket.fd, &call->peer->id, right);
}

int call_check_right(const struct call *call, const struct segment *segment, enum acl_right right)
{
    if (call_may(call, segment, right))
        return 0;
    return la_fail(-EACCES, "heap %s is user %u's, with mode %04o for group %u: ask him to open it to you with `shms acl`", segment->name,
                   segment->acl.owner, segment->acl.mode, segment->acl.group);
}

/* One that the caller may look at. */
static int get_visible_segment(const struct call *call, struct segment **ret)
{
    int r = call_get_segment(call, ret);

    return r < 0 ? r : call_check_right(call, *ret, ACL_READ);
}

/* ---- requests ---- */

void call_tell(const struct call *call, enum shms_event_kind kind, const struct segment *segment)
{
    const struct identity *id = &call->peer->id;

    if (call->registry->events)
        events_add_deed(call->registry->events, kind, id, segment->name, segment->acl.owner);
}

static int hello(struct call *call)
{
    uint64_t min = 0, max = 0, version;

    if (!wire_get_u64(call->request, TLV_VERSION_MIN, &min) || !wire_get_u64(call->request, TLV_VERSION_MAX, &max) || min > max)
        return la_fail(-EINVAL, "the hello says no versions");
    if (max < WIRE_VERSION_MIN || min > WIRE_VERSION_MAX)
        return la_fail(-EPROTO, "the client speaks protocol versions %u to %u, this shmserver (%s) %d to %d: use the same release", (unsigned)min,
                       (unsigned)max, SERVER_VERSION, WIRE_VERSION_MIN, WIRE_VERSION_MAX);
    version = MIN(max, (uint64_t)WIRE_VERSION_MAX);
    call->peer->version = (uint16_t)version;
    wire_put_u64(call->reply, TLV_VERSION, 0, version);
    wire_put_text(call->reply, TLV_SERVER, "shmserver " SERVER_VERSION);
    return 0;
}

/* By policy nothing more is given to who has more memory than he may. */
static int check_memory(const struct call *call, uid_t owner)
{
    const struct server *server = call->peer->server;

    if (server->over_committed == COMMITTED_TELL || !quota_is_over(call->registry->quota, owner))
        return 0;
    return la_fail(-EDQUOT, "the heaps of user %u have more memory than they may: remove some, or see shms quota (shmserver --max-committed)", owner);
}

static int create_segment(const struct call *call, const char *name, struct segment **ret)
{
    uint64_t size, page_size = 0, key = 0;
    int r;

    if (!wire_get_u64(call->request, TLV_SIZE, &size))
        return la_fail(-EINVAL, "the request says no size of the heap");
    wire_get_u64(call->request, TLV_PAGE_SIZE, &page_size);
    wire_get_u64(call->request, TLV_KEY, &key);
    r = check_memory(call, call->peer->id.uid);
    if (r == 0)
        r = registry_create(call->registry, name, size, page_size, key, call->peer->id.uid, call->peer->id.gid, ret);
    if (r == 0)
        call_tell(call, SHMS_EVENT_CREATED, *ret);
    if (r == 0)
        log_write(LOG_INFO, "heap %s of %lu bytes is made for process %d (%s, user %u)", name, (unsigned long)(*ret)->file.size,
                  call->peer->id.pid, call->peer->id.command, call->peer->id.uid);
    return r;
}

static int create(struct call *call)
{
    char name[LA_HEAP_NAME_MAX + 1];
    struct segment *segment;
    int r = get_name(call, name);

    if (r == 0)
        r = create_segment(call, name, &segment);
    if (r == 0)
        wire_put_u64(call->reply, TLV_ID, 0, segment->id);
    return r;
}

static int find_or_create(const struct call *call, struct segment **ret)
{
    char name[LA_HEAP_NAME_MAX + 1];
    uint64_t size = 0, exclusive = 0;
    int r = get_name(call, name);

    if (r < 0)
        return r;
    wire_get_u64(call->request, TLV_SIZE, &size);
    wire_get_u64(call->request, TLV_EXCLUSIVE, &exclusive);
    if (!exclusive) {
        *ret = registry_find(call->registry, name);
        if (*ret)
            return check_sees(call, *ret);
    }
    if (exclusive && !size)
        return la_fail(-EINVAL, "a heap that must be new needs a size");
    return size ? create_segment(call, name, ret) : -ENOENT;
}

static int attach(struct call *call)
{
    struct segment *segment;
    uint64_t read_only = 0;
    int r = find_or_create(call, &segment);

    wire_get_u64(call->request, TLV_READ_ONLY, &read_only);
    if (r == 0)
        r = call_check_right(call, segment, read_only ? ACL_READ : ACL_WRITE);
    if (r == 0 && !read_only)
        r = check_memory(call, segment->acl.owner);
    if (r == 0 && segment->sealed && !read_only)
        r = la_fail(-EROFS, "heap %s is sealed: nobody can write any more, attach to it with LA_HEAP_READ_ONLY", segment->name);
    if (r < 0)
        return r;
    call->fd = memfile_reopen(&segment->file, read_only);
    if (call->fd < 0)
        return call->fd;
    r = segment_hold(segment, call->peer, &call->peer->holdings, read_only);
    if (r < 0) {
        close_fd(&call->fd);
        return r;
    }
    call_tell(call, SHMS_EVENT_ATTACHED, segment);
    wire_put_u64(call->reply, TLV_ID, 0, segment->id);
    return 0;
}

/*
 * A process that was attached by an earlier daemon. Its descriptor is the proof that it was given the heap; that it may read only is seen from the
 * descriptor too, so nothing that the client says is believed. Rights that were taken from it meanwhile do not matter: it has the heap.
 */
static int resume(struct call *call)
{
    struct segment *segment;
    bool read_only, held;
    uint64_t id;
    int r = 0;

    if (!wire_get_u64(call->request, TLV_ID, &id) || call->received < 0)
        return la_fail(-EINVAL, "the request does not say which heap, or brings no descriptor of it");
    segment = registry_find_id(call->registry, id);
    if (segment && !memfile_is(&segment->file, call->received))
        return la_fail(-EPERM, "the descriptor is not that of heap %s", segment->name);
    if (!segment)
        r = registry_adopt(call->registry, id, call->received, &segment);
    if (r < 0)
        return r;
    read_only = (fcntl(call->received, F_GETFL) & O_ACCMODE) == O_RDONLY;
    held = segment_find_holding(segment, call->peer) != NULL;
    r = segment_hold(segment, call->peer, &call->peer->holdings, read_only);
    if (r == 0 && !held && !read_only)
        reaper_resumed(segment);
    return r;
}

/* Of a heap that it does not hold (any more): the state that was asked for. */
static int detach(struct call *call)
{
    struct holding *holding;
    struct segment *segment;
    uint64_t id;

    if (!wire_get_u64(call->request, TLV_ID, &id))
        return la_fail(-EINVAL, "the request does not say which heap");
    segment = registry_find_id(call->registry, id);
    holding = segment ? segment_find_holding(segment, call->peer) : NULL;
    if (!holding)
        return 0;
    holding_drop(holding);
    if (segment->removed)
        reaper_look(segment, now_ms());
    return 0;
}

static int remove_heap(struct call *call)
{
    struct segment *segment;
    int r = call_get_segment(call, &segment);

    if (r < 0)
        return r;
    if (!acl_is_owner(&segment->acl, &call->peer->id))
        return la_fail(-EPERM, "heap %s belongs to user %u: ask him to remove it", segment->name, segment->acl.owner);
    log_write(LOG_INFO, "heap %s is removed by process %d (%s, user %u)", segment->name, call->peer->id.pid, call->peer->id.command,
              call->peer->id.uid);
    call_tell(call, SHMS_EVENT_REMOVED, segment);
    registry_remove(segment);
    reaper_look(segment, now_ms());
    return 0;
}

static int info(struct call *call)
{
    struct shms_heap heap;
    struct segment *segment;
    int r = get_visible_segment(call, &segment);

    if (r == 0)
        r = view_describe(segment, &heap);
    if (r == 0)
        record_put_heap(call->reply, &heap);
    return r;
}

/* ---- lists: as many records as fit, and the cursor of the last one if there are more ---- */

bool call_has_room(const struct call *call, size_t record)
{
    enum { NEXT_SIZE = 16 };    /* kept for it */

    return call->reply->header.length + 8 + record + NEXT_SIZE <= WIRE_MAX;
}

static int list(struct call *call)
{
    uint64_t after = 0;
    struct segment *segment;

    wire_get_u64(call->request, TLV_AFTER, &after);
    for (segment = registry_after(call->registry, after); segment; segment = registry_after(call->registry, after)) {
        struct shms_heap heap;

        if (!call_has_room(call, sizeof(heap))) {
            wire_put_u64(call->reply, TLV_NEXT, 0, after);
            break;
        }
        after = segment->serial;
        /* One that cannot be looked into is logged, and does not hide the others. */
        if (!segment->removed && call_sees(call, segment) && call_may(call, segment, ACL_READ) && view_describe(segment, &heap) == 0)
            record_put_heap(call->reply, &heap);
    }
    return 0;
}

/*
 * Cursor of a list of processes: | 0 | serial of the segment 54 | slot + 1, 9 | for its processes, then | 1 | serial of the peer 63 | for
 * connections without a heap.
 */
#define CURSOR_PEERS ((uint64_t)1 << 63)
enum { CURSOR_SLOT_BITS = 9 };

_Static_assert(LA_HEAP_MAX_PROCESSES < 1 << CURSOR_SLOT_BITS, "a slot fits into a cursor");

/* The user of a process, if it is connected and sees itself under the number that we see. */
static uint32_t uid_of(const struct segment *segment, int32_t pid)
{
    list_for_each(node, &segment->holders) {
        const struct peer *peer = list_entry(node, struct holding, in_segment)->peer;

        if (peer->id.pid == pid)
            return peer->id.uid;
    }
    return UINT32_MAX;
}

static bool put_process(struct call *call, const struct shms_process *process, uint64_t *cursor, uint64_t at)
{
    if (!call_has_room(call, sizeof(*process))) {
        wire_put_u64(call->reply, TLV_NEXT, 0, *cursor);
        return false;
    }
    record_put_process(call->reply, process);
    *cursor = at;
    return true;
}

/* false: the message is full */
static bool put_processes_of(struct call *call, struct segment *segment, uint64_t *cursor)
{
    struct la_heap_process processes[LA_HEAP_MAX_PROCESSES];
    int n = view_processes(segment, processes);

    for (int i = 0; i < n; i++) {
        const struct la_heap_process *p = &processes[i];
        uint64_t at = segment->serial << CURSOR_SLOT_BITS | (p->slot + 1);
        struct shms_process process = { .struct_size = sizeof(process), .pid = p->pid, .uid = uid_of(segment, p->pid), .lanes = p->lanes,
                                        .state = p->alive ? SHMS_ATTACHED : SHMS_DEAD };

        if (at <= *cursor)
            continue;
        memcpy(process.command, p->command, sizeof(process.command));
        memcpy(process.heap, segment->name, sizeof(process.heap));
        if (!put_process(call, &process, cursor, at))
            return false;
    }
    return true;
}

/* A heap that the peer reads, if it has no other kind; NULL: it is in the table of one, or has none. */
static const struct segment *read_by(const struct peer *peer)
{
    const struct segment *segment = NULL;

    list_for_each(node, &peer->holdings) {
        const struct holding *holding = list_entry(node, struct holding, in_peer);

        if (!holding->read_only)
            return NULL;
        segment = holding->segment;
    }
    return segment;
}

/* Connections that are in no heap's table of processes. */
static void put_other_peers(struct call *call, uint64_t *cursor)
{
    list_for_each(node, &call->peer->server->peers) {
        const struct peer *peer = list_entry(node, struct peer, node);
        uint64_t at = CURSOR_PEERS | peer->serial;
        struct shms_process process = { .struct_size = sizeof(process), .pid = peer->id.pid, .uid = peer->id.uid, .state = SHMS_CONNECTED };
        const struct segment *segment = read_by(peer);

        if (peer == call->peer || (!segment && !list_is_empty(&peer->holdings)) || at <= *cursor)
            continue;
        if (segment)
            process.state = SHMS_READING;
        if (segment && call_sees(call, segment) && call_may(call, segment, ACL_READ))
            memcpy(process.heap, segment->name, sizeof(process.heap));
        memcpy(process.command, peer->id.command, sizeof(process.command));
        if (!put_process(call, &process, cursor, at))
            return;
    }
}

static int processes(struct call *call)
{
    struct segment *segment = NULL;
    uint64_t cursor = 0, serial;
    struct wire_tlv tlv;

    wire_get_u64(call->request, TLV_AFTER, &cursor);
    if (wire_find(call->request, TLV_NAME, &tlv)) {
        int r = get_visible_segment(call, &segment);

        if (r == 0)
            put_processes_of(call, segment, &cursor);
        return r;
    }
    if (!(cursor & CURSOR_PEERS)) {
        /* Begin with the segment that the last page ended in. */
        serial = cursor >> CURSOR_SLOT_BITS;
        for (segment = registry_after(call->registry, serial ? serial - 1 : 0); segment;
             segment = registry_after(call->registry, segment->serial))
            if (call_sees(call, segment) && call_may(call, segment, ACL_READ) && !put_processes_of(call, segment, &cursor))
                return 0;
    }
    put_other_peers(call, &cursor);
    return 0;
}

/* ---- dispatch ---- */

static int (*const handlers[WIRE_TYPES])(struct call *call) = {
    [WIRE_HELLO] = hello,   [WIRE_CREATE] = create, [WIRE_ATTACH] = attach, [WIRE_DETACH] = detach,
    [WIRE_REMOVE] = remove_heap, [WIRE_LIST] = list, [WIRE_INFO] = info,     [WIRE_PROCESSES] = processes,
    [WIRE_ACL] = answer_acl, [WIRE_SEAL] = answer_seal, [WIRE_QUOTA] = answer_quota,
    [WIRE_EVENTS] = answer_events, [WIRE_KICK] = answer_kick, [WIRE_GC] = answer_gc, [WIRE_RESUME] = resume,
};

/* May a peer in this state send this at all? */
static int check_state(const struct peer *peer, const struct wire_message *m)
{
    unsigned type = m->header.type;

    if (type == 0 || type >= WIRE_TYPES || m->header.flags != 0 || m->header.status != 0)
        return la_fail(-EPROTO, "it sent a message of type %u with flags %#x, which is no request", type, m->header.flags);
    if (type != WIRE_HELLO && !peer->version)
        return la_fail(-EPROTO, "its first message is no hello");
    if (type != WIRE_HELLO && m->header.version != peer->version)
        return la_fail(-EPROTO, "it sent a message of protocol version %u after it had agreed on %u", m->header.version, peer->version);
    if (type != WIRE_HELLO && record_since(m) > peer->version)
        return la_fail(-EPROTO, "it sent a request of type %u or a field of it, which protocol version %u has not", type, peer->version);
    return 0;
}

static void refuse(struct wire_message *reply, const struct wire_header *request, int status)
{
    wire_begin(reply, (enum wire_type)request->type, WIRE_REPLY, request->sequence);
    reply->header.status = status;
    wire_put_text(reply, TLV_TEXT, la_last_error());
}

/* Also to the owner of the heap that it was about. Leaves no la_last_error(). */
static void tell_refused(const struct call *call)
{
    const struct identity *id = &call->peer->id;
    struct shms_event event = { .kind = SHMS_EVENT_REFUSED, .pid = id->pid, .uid = id->uid };
    char name[LA_HEAP_NAME_MAX + 1] = "";
    const struct segment *segment;

    memcpy(event.command, id->command, sizeof(event.command));
    snprintf(event.reason, sizeof(event.reason), "%s", la_last_error());
    wire_get_text(call->request, TLV_NAME, name, sizeof(name));
    /* It goes to terminals, and may be the name of no heap at all. */
    for (char *c = name; *c; c++)
        if (*c < ' ' || *c > '~')
            *c = '?';
    segment = registry_find(call->registry, name);
    events_add(call->registry->events, &event, name, segment ? segment->acl.owner : id->uid);
}

int answer_request(struct peer *peer, struct wire_message *m, int received, int *fd)
{
    const struct wire_header *header = &m->header;
    struct wire_message reply;
    struct call call = { .peer = peer, .registry = &peer->server->registry, .request = m, .reply = &reply, .received = received, .fd = -1 };
    unsigned unknown;
    int r = check_state(peer, m);

    if (r < 0)
        return r;
    wire_begin(&reply, (enum wire_type)header->type, WIRE_REPLY, header->sequence);
    unknown = wire_unknown_critical(m);
    r = unknown ? la_fail(-EOPNOTSUPP, "this shmserver (%s) does not know field %u, which the request depends on", SERVER_VERSION, unknown)
                : handlers[header->type](&call);
    if (r < 0)
        refuse(&reply, header, r);
    if (r == -EACCES || r == -EPERM || r == -EDQUOT)
        tell_refused(&call);
    if (peer->version)
        reply.header.version = peer->version;
    memcpy(m, &reply, reply.header.length);
    *fd = call.fd;
    return 0;
}

void answer_end(const struct peer *peer, int status)
{
    if (peer->version >= wire_type_since(WIRE_RESUME))
        answer_refuse(peer->socket.fd, status);
}

void answer_refuse(int socket, int status)
{
    const struct wire_header hello_header = { .type = WIRE_HELLO };
    struct wire_message m;

    refuse(&m, &hello_header, status);
    fdpass_send(socket, &m, -1);
}
