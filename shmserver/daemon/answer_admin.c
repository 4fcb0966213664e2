#include "shmserver/daemon/answer_admin.h"

#include <errno.h>
#include <unistd.h>

#include <liballoc/error.h>

#include "base/error.h"
#include "shmserver/daemon/attached.h"
#include "shmserver/daemon/call.h"
#include "shmserver/daemon/committed.h"
#include "shmserver/daemon/log.h"
#include "shmserver/daemon/reaper.h"
#include "shmserver/daemon/server.h"
#include "shmserver/daemon/view.h"
#include "shmserver/protocol/record.h"

int answer_acl(struct call *call)
{
    struct segment *segment;
    int r = call_get_segment(call, &segment);
    struct acl acl;

    if (r < 0)
        return r;
    acl = segment->acl;
    if (!call_get_u32(call, TLV_OWNER, &acl.owner) || !call_get_u32(call, TLV_GROUP, &acl.group) || !call_get_u32(call, TLV_MODE, &acl.mode))
        return la_fail(-EINVAL, "an owner, group or mode has more than 32 bits");
    r = acl_check_change(&segment->acl, &acl, call->peer->socket.fd, &call->peer->id, segment->name);
    if (r == 0)
        r = registry_set_acl(segment, &acl);
    if (r == 0)
        call_tell(call, SHMS_EVENT_ACL, segment);
    if (r == 0)
        log_write(LOG_INFO, "heap %s is user %u's, group %u, mode %04o, by process %d (%s, user %u)", segment->name, acl.owner, acl.group, acl.mode,
                  call->peer->id.pid, call->peer->id.command, call->peer->id.uid);
    return r;
}

/* ---- sealing ---- */

/* What dead processes held is freed first: later nobody can. */
static int check_no_writers(struct segment *segment)
{
    struct la_heap_process processes[LA_HEAP_MAX_PROCESSES];
    int n;

    reaper_look(segment, now_ms());
    n = view_processes(segment, processes);
    if (n == 1)
        return la_fail(-EBUSY, "heap %s is attached for writing by process %d (%s), which must leave first", segment->name, processes[0].pid,
                       processes[0].command);
    if (n > 0)
        return la_fail(-EBUSY, "heap %s is attached for writing by %d processes, %d (%s) among them: they must leave first", segment->name, n,
                       processes[0].pid, processes[0].command);
    return n;
}

int answer_seal(struct call *call)
{
    struct segment *segment;
    int r = call_get_segment(call, &segment);

    if (r < 0 || segment->sealed)
        return r;
    if (!acl_is_owner(&segment->acl, &call->peer->id))
        return la_fail(-EPERM, "heap %s belongs to user %u: ask him to seal it", segment->name, segment->acl.owner);
    r = check_no_writers(segment);
    if (r < 0)
        return r;
    view_close(segment);        /* we are one, too */
    r = memfile_seal(&segment->file);
    if (r < 0)
        return la_fail(r, "heap %s stays open: %s", segment->name, la_last_error());
    segment->sealed = true;
    call_tell(call, SHMS_EVENT_SEALED, segment);
    log_write(LOG_INFO, "heap %s is sealed by process %d (%s, user %u)", segment->name, call->peer->id.pid, call->peer->id.command,
              call->peer->id.uid);
    return 0;
}

/* ---- quotas ---- */

static int write_down_limits(struct registry *registry, uid_t uid, const struct quota_limits *limits)
{
    const struct state_record record = { .kind = STATE_LIMITS, .id = uid, .clients = limits->clients, .heaps = limits->heaps,
                                         .requests = limits->requests, .bytes = limits->bytes,
                                         .committed = limits->committed, .huge = limits->huge + 1 };

    return registry->state ? state_put(registry->state, &record) : 0;
}

static int set_quota(const struct call *call, const struct shms_quota *wanted)
{
    const struct identity *id = &call->peer->id;
    struct quota *quota = call->registry->quota;
    struct quota_limits limits = quota_limits_of(quota, wanted->uid);
    int r;

    if (!acl_is_admin(id))
        return la_fail(-EPERM, "quotas are set by root or user %u only", geteuid());
    if (wanted->max_clients != SHMS_UNCHANGED)
        limits.clients = wanted->max_clients;
    if (wanted->max_heaps != SHMS_UNCHANGED)
        limits.heaps = wanted->max_heaps;
    if (wanted->max_bytes != UINT64_MAX)
        limits.bytes = wanted->max_bytes;
    if (wanted->max_requests != SHMS_UNCHANGED)
        limits.requests = wanted->max_requests;
    if (wanted->max_committed != 0)
        limits.committed = wanted->max_committed;
    if (wanted->max_huge != 0)
        limits.huge = wanted->max_huge == SHMS_NO_HUGE ? 0 : wanted->max_huge;
    r = write_down_limits(call->registry, wanted->uid, &limits);
    if (r < 0)
        return r;
    log_write(LOG_INFO, "user %u may have connections: %u, heaps: %u, of %lu bytes, requests per second: %u; by process %d (%s, user %u)", wanted->uid,
              limits.clients, limits.heaps, (unsigned long)limits.bytes, limits.requests, id->pid, id->command, id->uid);
    return quota_set_limits(quota, wanted->uid, &limits);
}

/* Everybody sees himself; all are seen by who may do everything. */
static int list_quotas(struct call *call)
{
    uint64_t after = 0;
    struct quota_usage usage;

    wire_get_u64(call->request, TLV_AFTER, &after);
    while (after <= UINT32_MAX && quota_next(call->registry->quota, (uid_t)after, &usage)) {
        struct shms_quota record = { .struct_size = sizeof(record), .uid = usage.uid, .clients = usage.clients, .heaps = usage.heaps,
            .bytes = usage.bytes, .max_clients = usage.limits.clients, .max_heaps = usage.limits.heaps, .max_bytes = usage.limits.bytes,
            .max_requests = usage.limits.requests, .refused = usage.refused, .delayed = usage.delayed, .max_committed = usage.limits.committed,
            .huge = usage.huge, .max_huge = usage.limits.huge };

        if (!call_has_room(call, sizeof(record))) {
            wire_put_u64(call->reply, TLV_NEXT, 0, after);
            break;
        }
        after = (uint64_t)usage.uid + 1;
        if (!acl_is_admin(&call->peer->id) && usage.uid != call->peer->id.uid)
            continue;
        record.committed = committed_by(call->registry, usage.uid);
        record_put_quota(call->reply, &record);
    }
    return 0;
}

int answer_quota(struct call *call)
{
    struct shms_quota wanted;
    struct wire_tlv tlv;

    if (!wire_find(call->request, TLV_QUOTA, &tlv))
        return list_quotas(call);
    if (!record_get_quota(&tlv, &wanted))
        return la_fail(-EINVAL, "the request's quota is too short");
    return set_quota(call, &wanted);
}

/* ---- events ---- */

int answer_events(struct call *call)
{
    const struct identity *id = &call->peer->id;
    const struct event *e;
    uint64_t after = 0;

    wire_get_u64(call->request, TLV_AFTER, &after);
    for (; (e = events_after(call->registry->events, after)); after = e->public.serial) {
        if (!acl_is_admin(id) && id->uid != e->owner && id->uid != e->public.uid)
            continue;
        if (!call_has_room(call, sizeof(e->public))) {
            wire_put_u64(call->reply, TLV_NEXT, 0, after);
            break;
        }
        record_put_event(call->reply, &e->public);
    }
    return 0;
}

/* ---- kicking ---- */

/* With @kill: its end. That of its connection is the caller's. */
static int kick(struct call *call, const struct identity *victim, bool kill)
{
    const struct identity *id = &call->peer->id;
    int r = 0;

    if (!acl_is_admin(id) && id->uid != victim->uid)
        return la_fail(-EPERM, "process %d is user %u's: he, root and user %u may kick it", victim->pid, victim->uid, geteuid());
    if (kill)
        r = identity_kill(victim);
    if (r < 0)
        return r;
    log_write(LOG_INFO, "process %d (%s, user %u) is %s by process %d (%s, user %u)", victim->pid, victim->command, victim->uid,
              kill ? "killed" : "kicked", id->pid, id->command, id->uid);
    events_add_deed(call->registry->events, SHMS_EVENT_KICKED, victim, NULL, victim->uid);
    return 0;
}

static int kick_peer(struct call *call, struct peer *peer, bool kill)
{
    int r = kick(call, &peer->id, kill);

    if (r < 0)
        return r;
    la_fail(-ECONNABORTED, "this process was kicked by user %u: its heaps stay attached", call->peer->id.uid);
    peer_send_away(peer, -ECONNABORTED);
    return 0;
}

/* One that has no connection to lose. */
static int kick_attached(struct call *call, pid_t pid, bool kill)
{
    struct identity victim;
    int r;

    if (!kill)
        return la_fail(-ESRCH, "process %d has no connection to this shmserver (`shms clients` shows a UID for who has); if it is attached, "
                               "--kill ends it", pid);
    r = attached_find(call->registry, pid, &victim);
    if (r < 0)
        return r;
    r = kick(call, &victim, kill);
    identity_deinit(&victim);
    return r;
}

int answer_kick(struct call *call)
{
    struct la_list *peers = &call->peer->server->peers;
    uint32_t pid = 0;
    uint64_t kill = 0;
    bool found = false;

    if (!call_get_u32(call, TLV_PID, &pid) || pid == 0)
        return la_fail(-EINVAL, "the request says no process");
    if ((pid_t)pid == call->peer->id.pid)
        return la_fail(-EINVAL, "process %u is the one that asks: it can disconnect by itself", pid);
    wire_get_u64(call->request, TLV_KILL, &kill);
    for (struct la_list *node = peers->next, *next; node != peers; node = next) {
        struct peer *peer = list_entry(node, struct peer, node);
        int r = 0;

        next = node->next;
        if (peer->id.pid == (pid_t)pid) {
            found = true;
            r = kick_peer(call, peer, kill != 0);
        }
        if (r < 0)
            return r;
    }
    return found ? 0 : kick_attached(call, (pid_t)pid, kill != 0);
}

/* ---- collecting ---- */

int answer_gc(struct call *call)
{
    struct registry *registry = call->registry;
    unsigned before = registry->count;
    uint64_t recovered = 0;

    if (!acl_is_admin(&call->peer->id))
        return la_fail(-EPERM, "only root and user %u may have all heaps looked at", geteuid());
    for (struct segment *segment = registry_after(registry, 0); segment;) {
        uint64_t serial = segment->serial;
        int n = reaper_look(segment, now_ms());

        recovered += (uint64_t)MAX(n, 0);
        /* It may be gone. */
        segment = registry_after(registry, serial);
    }
    wire_put_u64(call->reply, TLV_RECOVERED, 0, recovered);
    wire_put_u64(call->reply, TLV_FREED, 0, before - registry->count);
    return 0;
}
