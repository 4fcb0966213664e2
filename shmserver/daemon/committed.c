#include "shmserver/daemon/committed.h"

#include <errno.h>

#include "base/error.h"
#include "shmserver/daemon/log.h"
#include "shmserver/daemon/peer.h"
#include "shmserver/daemon/server.h"
#include "shmserver/daemon/view.h"

uint64_t committed_by(struct registry *registry, uid_t uid)
{
    uint64_t sum = 0;

    for (struct segment *segment = registry_after(registry, 0); segment; segment = registry_after(registry, segment->serial)) {
        struct shms_heap heap;

        if (segment->acl.owner == uid && view_describe(segment, &heap) == 0)
            sum += heap.committed;
    }
    return sum;
}

/* It has a heap of its user's for writing. */
static bool can_commit(const struct peer *peer)
{
    list_for_each(node, &peer->holdings) {
        const struct holding *holding = list_entry(node, struct holding, in_peer);

        if (!holding->read_only && holding->segment->acl.owner == peer->id.uid)
            return true;
    }
    return false;
}

static void act(struct server *server, uid_t uid)
{
    for (struct la_list *node = server->peers.next, *next; node != &server->peers; node = next) {
        struct peer *peer = list_entry(node, struct peer, node);

        next = node->next;
        if (peer->id.uid != uid || !can_commit(peer))
            continue;
        if (server->over_committed == COMMITTED_KILL && identity_kill(&peer->id) < 0)
            log_write(LOG_WARNING, "process %d goes on: it cannot be killed", peer->id.pid);
        else
            log_write(LOG_WARNING, "process %d (%s, user %u) is %s for that", peer->id.pid, peer->id.command, uid,
                      server->over_committed == COMMITTED_KILL ? "killed" : "kicked");
        events_add_deed(&server->events, SHMS_EVENT_KICKED, &peer->id, NULL, uid);
        la_fail(-ECONNABORTED, "the heaps of user %u have more memory than they may: remove some", uid);
        peer_send_away(peer, -ECONNABORTED);
    }
}

static void look_at(struct server *server, const struct quota_usage *usage)
{
    struct shms_event event = { .kind = SHMS_EVENT_COMMITTED, .uid = usage->uid, .bytes = committed_by(&server->registry, usage->uid) };
    bool over = event.bytes > usage->limits.committed;

    if (!quota_set_over(&server->quota, usage->uid, over) || !over)
        return;
    log_write(LOG_WARNING, "the heaps of user %u have %lu bytes of memory, above the limit of %lu", usage->uid, (unsigned long)event.bytes,
              (unsigned long)usage->limits.committed);
    events_add(&server->events, &event, NULL, usage->uid);
    if (server->over_committed != COMMITTED_TELL)
        act(server, usage->uid);
}

int committed_check(struct server *server, uint64_t now)
{
    struct quota_usage usage;

    if (!quota_watches_memory(&server->quota))
        return -1;
    if (server->committed_at > now)
        return (int)(server->committed_at - now);
    for (uint64_t uid = 0; uid <= UINT32_MAX && quota_next(&server->quota, (uid_t)uid, &usage); uid = (uint64_t)usage.uid + 1)
        look_at(server, &usage);
    server->committed_at = now + COMMITTED_LOOK_MS;
    return COMMITTED_LOOK_MS;
}
