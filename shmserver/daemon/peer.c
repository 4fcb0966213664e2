#include "shmserver/daemon/peer.h"

#include <errno.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/error.h"
#include "shmserver/daemon/answer.h"
#include "shmserver/daemon/log.h"
#include "shmserver/daemon/reaper.h"
#include "shmserver/daemon/server.h"
#include "shmserver/protocol/fdpass.h"

#include <liballoc/error.h>

static void drop(struct peer *peer, const char *why)
{
    log_write(LOG_WARNING, "process %d (%s, user %u) is dropped: %s", peer->id.pid, peer->id.command, peer->id.uid, why);
    peer->server->drops++;
    peer_destroy(peer);
}

/*
 * An answer that was not read means that the peer did not wait for it. Its socket would take many, each with a descriptor that counts
 * in the system's limit for our user: so one at most is on its way to a peer.
 */
static bool has_unread_answer(const struct peer *peer)
{
    int bytes = 0;

    return ioctl(peer->socket.fd, SIOCOUTQ, &bytes) == 0 && bytes > 0;
}

static void serve(struct peer *peer, struct wire_message *m, int received)
{
    int fd = -1, r;

    if (has_unread_answer(peer)) {
        drop(peer, "it asks again before it has read its answer");
        return;
    }
    r = answer_request(peer, m, received, &fd);
    if (r < 0) {
        drop(peer, la_last_error());
        return;
    }
    peer->server->requests++;
    r = fdpass_send(peer->socket.fd, m, fd);
    close_fd(&fd);
    if (r == -EPIPE || r == -ECONNRESET)
        peer_destroy(peer);
    else if (r < 0)
        drop(peer, "its answer cannot be sent");
    else
        /* Hello and attach, page after page of a list: requests come in rows. */
        loop_expect(&peer->server->loop);
}

/* Nobody reads its socket for a while, so that it waits, and the others do not. Its death is seen by its pidfd. */
static void pause_peer(struct peer *peer, uint64_t until)
{
    loop_remove(&peer->server->loop, &peer->socket);
    peer->paused_until = until;
}

static void resume_peer(struct peer *peer)
{
    peer->paused_until = 0;
    /* Its hello may be what waited. */
    peer->hello_by = now_ms() + PEER_HELLO_MS;
    if (loop_add(&peer->server->loop, &peer->socket) < 0)
        drop(peer, la_last_error());
}

static void socket_is_ready(struct loop_source *source, uint32_t events)
{
    struct peer *peer = container_of(source, struct peer, socket);
    struct fdpass_set set;
    struct wire_message m;
    uint64_t now = now_ms();
    unsigned delay = quota_take_request(&peer->server->quota, peer->id.uid, now);
    int r;

    (void)events;
    if (delay) {
        pause_peer(peer, now + delay);
        return;
    }
    r = fdpass_receive(source->fd, &m, &set);
    if (r == 1 && set.count == wire_brings_fd(m.header.type)) {
        serve(peer, &m, set.count ? set.fd[0] : -1);
        fdpass_close(&set);
    } else if (r == 1) {
        fdpass_close(&set);
        drop(peer, "it sent descriptors, which this request has not, or none where one is needed");
    } else if (r == 0 || r == -ECONNRESET) {
        peer_destroy(peer);
    } else if (r == -EBADMSG) {
        drop(peer, la_last_error());
    } else if (r != -EAGAIN) {
        drop(peer, "its socket cannot be read");
    }
}

static void process_is_ready(struct loop_source *source, uint32_t events)
{
    struct peer *peer = container_of(source, struct peer, process);

    (void)events;
    log_write(LOG_DEBUG, "process %d (%s) has ended", peer->id.pid, peer->id.command);
    peer_destroy(peer);
}

/* What can fail of peer_create(), beside memory; peer_destroy() undoes it. */
static int watch(struct peer *peer)
{
    struct loop *loop = &peer->server->loop;
    int r = loop_add(loop, &peer->socket);

    if (r == 0 && peer->process.fd >= 0)
        r = loop_add(loop, &peer->process);
    return r;
}

static int admit(struct server *server, int fd, struct identity *id)
{
    if (!id->is_certain)
        return la_fail(-EACCES, "this shmserver's user namespace does not map your user, who looks like all others that it does not map: map him there "
                                "(uid_map), or run shmserver outside");
    if (!access_allows(&server->access, fd, id))
        return la_fail(-EACCES, "user %u may not use this shmserver, which is user %u's: see shmserver --allow-group", id->uid, geteuid());
    if (server->peer_count >= server->max_peers)
        return la_fail(-EUSERS, "shmserver has %u connection%s, which is the limit", server->peer_count, plural(server->peer_count));
    return quota_take_client(&server->quota, id->uid);
}

int peer_create(struct server *server, int fd)
{
    struct peer *peer = calloc(1, sizeof(*peer));
    struct identity id;
    int r = peer ? identity_read(fd, &id) : la_fail(-ENOMEM, "shmserver is out of memory");

    if (r == 0) {
        r = admit(server, fd, &id);
        if (r < 0) {
            answer_refuse(fd, r);
            log_write(LOG_WARNING, "process %d (%s, user %u) is refused: %s", id.pid, id.command, id.uid, la_last_error());
            identity_deinit(&id);
        }
    }
    if (r < 0) {
        close_fd(&fd);
        free(peer);
        return r;
    }
    *peer = (struct peer){ .server = server, .socket = { fd, socket_is_ready }, .process = { id.pidfd, process_is_ready }, .id = id,
                           .serial = server->next_peer++, .hello_by = now_ms() + PEER_HELLO_MS };
    list_init(&peer->holdings);
    list_add(server->peers.prev, &peer->node);
    server->peer_count++;
    r = watch(peer);
    if (r < 0)
        peer_destroy(peer);
    else
        log_write(LOG_DEBUG, "process %d (%s, user %u) has connected", id.pid, id.command, id.uid);
    return r;
}

void peer_destroy(struct peer *peer)
{
    struct server *server = peer->server;

    log_write(LOG_DEBUG, "process %d (%s, user %u) is disconnected", peer->id.pid, peer->id.command, peer->id.uid);
    loop_remove(&server->loop, &peer->socket);
    loop_remove(&server->loop, &peer->process);
    close_fd(&peer->socket.fd);
    while (!list_is_empty(&peer->holdings)) {
        struct holding *holding = list_entry(peer->holdings.next, struct holding, in_peer);
        struct segment *segment = holding->segment;
        bool read_only = holding->read_only;

        holding_drop(holding);
        if (read_only)
            reaper_look(segment, now_ms());
        else
            reaper_peer_went(segment, now_ms());
    }
    list_remove(&peer->node);
    server->peer_count--;
    quota_give_client(&server->quota, peer->id.uid);
    identity_deinit(&peer->id);
    free(peer);
}

void peer_send_away(struct peer *peer, int status)
{
    answer_end(peer, status);
    peer_destroy(peer);
}

/* When this peer needs us next, 0: not by the clock. It may be gone afterwards. */
static uint64_t check_peer(struct peer *peer, uint64_t now)
{
    if (peer->paused_until) {
        if (peer->paused_until > now)
            return peer->paused_until;
        resume_peer(peer);
        return now + 1;     /* it may have to wait again, or have no time left to say hello */
    }
    if (peer->version)
        return 0;
    if (peer->hello_by > now)
        return peer->hello_by;
    drop(peer, "it has not said hello in time");
    return 0;
}

int peer_check_times(struct server *server, uint64_t now)
{
    uint64_t next = 0;

    for (struct la_list *node = server->peers.next, *following; node != &server->peers; node = following) {
        uint64_t due;

        following = node->next;
        due = check_peer(list_entry(node, struct peer, node), now);
        if (due && (!next || due < next))
            next = due;
    }
    return next ? (int)(next - now) : -1;
}
