#include "shmserver/daemon/server.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <liballoc/error.h>
#include <liballoc/vspace.h>

#include "base/error.h"
#include "base/user_ids.h"
#include "shmserver/daemon/holes.h"
#include "shmserver/daemon/log.h"
#include "shmserver/daemon/peer.h"
#include "shmserver/daemon/reaper.h"
#include "shmserver/daemon/scrape.h"
#include "shmserver/protocol/socket_path.h"

/* ---- connections ---- */

static int open_reserve(void)
{
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/*
 * No descriptor is left. The connection would stay in the queue, and the loop would turn for ever; so we give up the one that we keep
 * for this case, accept, close at once, and take it back.
 */
static void accept_and_close(struct server *server, const struct listener *listener)
{
    int fd;

    close_fd(&server->reserve);
    fd = listener_accept(listener);
    if (fd >= 0)
        close_fd(&fd);
    server->reserve = open_reserve();
    log_write(LOG_WARNING, "a connection is closed: this process may open no more descriptors (RLIMIT_NOFILE)");
}

static void connection_is_ready(struct loop_source *source, uint32_t events)
{
    struct server *server = container_of(source, struct server, accepting);
    int fd = listener_accept(&server->listener);

    (void)events;
    if (fd >= 0)
        peer_create(server, fd);
    else if (fd == -EMFILE || fd == -ENFILE)
        accept_and_close(server, &server->listener);
    else if (fd != -EAGAIN && fd != -ECONNABORTED && fd != -EINTR)
        log_write(LOG_WARNING, "a connection cannot be accepted (errno %d)", -fd);
}

static void scrape_is_ready(struct loop_source *source, uint32_t events)
{
    struct server *server = container_of(source, struct server, scraping);
    int fd = listener_accept(&server->metrics);

    (void)events;
    if (fd >= 0)
        scrape_create(server, fd);
    else if (fd == -EMFILE || fd == -ENFILE)
        accept_and_close(server, &server->metrics);
}

/* Two descriptors per peer, two per heap, and some. */
static void raise_descriptor_limit(void)
{
    const rlim_t enough = 16384;
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= enough)
        return;
    limit.rlim_cur = MIN(limit.rlim_max, enough);
    setrlimit(RLIMIT_NOFILE, &limit);
}

/* ---- signals ---- */

static void signal_is_ready(struct loop_source *source, uint32_t events)
{
    struct server *server = container_of(source, struct server, signals);
    struct signalfd_siginfo info;

    (void)events;
    if (read(source->fd, &info, sizeof(info)) != sizeof(info))
        return;
    if (info.ssi_signo == SIGHUP) {
        server->restarting = true;
        return;
    }
    log_write(LOG_INFO, "ending on %s from process %u", info.ssi_signo == SIGTERM ? "SIGTERM" : "SIGINT", info.ssi_pid);
    server->stopping = true;
}

static int watch_signals(struct server *server)
{
    sigset_t set;

    signal(SIGPIPE, SIG_IGN);
    holes_install();
    /* nohup(1) has it ignored; but it asks for a restart, which does no harm. */
    signal(SIGHUP, SIG_DFL);
    sigemptyset(&set);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    server->signals = (struct loop_source){ signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK), signal_is_ready };
    if (server->signals.fd < 0)
        return la_fail(-errno, "cannot make a descriptor for signals (errno %d)", errno);
    return loop_add(&server->loop, &server->signals);
}

/* ---- life ---- */

/* Of a socket of ours: with its lock, which says that it is in use also while no daemon runs. */
static void store_listener(struct server *server, const struct listener *listener, const char *name)
{
    const int fds[] = { listener->fd, listener->lock };

    if (listener_is_ours(listener) && store_put(&server->store, name, fds, ARRAY_SIZE(fds)) < 0)
        log_write(LOG_WARNING, "clients will not be able to connect while the daemon is started again: %s", la_last_error());
}

/* Beside the other one. A daemon that cannot be monitored serves its clients all the same. */
static void open_metrics(struct server *server, long group)
{
    char path[sizeof(server->listener.path) + sizeof(SOCKET_PATH_METRICS)];

    snprintf(path, sizeof(path), "%s" SOCKET_PATH_METRICS, server->listener.path);
    if (listener_open(&server->metrics, path, SOCK_STREAM, group) < 0)
        log_write(LOG_WARNING, "there are no metrics: %s", la_last_error());
    else
        store_listener(server, &server->metrics, "metrics");
}

static int open_sockets(struct server *server, const struct server_options *options, long group)
{
    char usual[SOCKET_PATH_MAX];
    int r;

    socket_path_nth(0, usual, sizeof(usual));
    r = listener_open(&server->listener, options->path ? options->path : usual, SOCK_SEQPACKET, group);
    if (r < 0)
        return r;
    store_listener(server, &server->listener, "socket");
    open_metrics(server, group);
    return 0;
}

static int watch_sockets(struct server *server)
{
    int r = 0;

    server->scraping = (struct loop_source){ server->metrics.fd, scrape_is_ready };
    if (server->metrics.fd >= 0)
        r = loop_add(&server->loop, &server->scraping);
    if (r < 0)
        return r;
    server->accepting = (struct loop_source){ server->listener.fd, connection_is_ready };
    return loop_add(&server->loop, &server->accepting);
}

static int take_sockets(struct server *server, const struct server_options *options, struct named_fds *inherited)
{
    long group = options->access.by_group ? (long)options->access.group : -1;
    int r = listener_inherit(&server->listener, &server->metrics, inherited);

    server->sockets_inherited = r > 0;
    if (r == 0)
        r = open_sockets(server, options, group);
    else if (r > 0 && listener_is_ours(&server->listener) && server->metrics.fd < 0)
        open_metrics(server, group);    /* the last daemon was killed before it could */
    return r < 0 ? r : watch_sockets(server);
}

/* ---- what an earlier daemon has left ---- */

static int restore_limits(struct server *server)
{
    int r = 0;

    for (const struct state_record *record = NULL; r == 0 && (record = state_next(&server->state, STATE_LIMITS, record));) {
        const struct quota_limits limits = { .clients = record->clients, .heaps = record->heaps, .bytes = record->bytes,
                                             .requests = record->requests, .committed = record->committed ? record->committed : UINT64_MAX,
                                             .huge = record->huge - 1 };

        r = quota_set_limits(&server->quota, (uid_t)record->id, &limits);
    }
    return r;
}

static int restore(struct server *server, struct named_fds *inherited)
{
    int fd = named_fds_take(inherited, "state"), r = state_open(&server->state, fd);

    if (r < 0)
        return r;
    if (fd < 0)
        r = store_put(&server->store, "state", &server->state.fd, 1);
    if (r == 0)
        r = restore_limits(server);
    if (r == 0)
        r = registry_restore(&server->registry, inherited);
    if (r > 0)
        log_write(LOG_INFO, "%d heap%s of an earlier shmserver %s here again", r, plural((uint64_t)r), r == 1 ? "is" : "are");
    return MIN(r, 0);
}

/* Else it would be told to whoever wants a heap only. */
static int check_addresses(void)
{
    uintptr_t base;
    size_t size;

    return la_vspace_arena(&base, &size);
}

/* Strangers would look like ourselves, who may do everything. */
static int check_own_user(void)
{
    if (user_id_is_certain(geteuid()))
        return 0;
    return la_fail(-EPERM, "shmserver cannot run as user %u here, as its user namespace shows all users whom it does not map by that number: run it as "
                           "a user that is mapped (`unshare --map-current-user`)", geteuid());
}

int server_init(struct server *server, const struct server_options *options, struct named_fds *inherited)
{
    int r;

    *server = (struct server){ .access = options->access, .max_peers = options->max_peers, .over_committed = options->over_committed,
        .next_peer = 1, .reserve = open_reserve(), .signals.fd = -1, .accepting.fd = -1, .listener = { .fd = -1, .lock = -1 },
        .metrics = { .fd = -1, .lock = -1 }, .scraping.fd = -1, .state.fd = -1 };
    list_init(&server->scrapes);
    list_init(&server->peers);
    store_init(&server->store);
    quota_init(&server->quota, &options->limits);
    registry_init(&server->registry, &server->quota, options->max_segments);
    events_init(&server->events, now_ms() * 1000);
    server->registry.events = &server->events;
    server->registry.state = &server->state;
    server->registry.store = &server->store;
    raise_descriptor_limit();
    r = loop_init(&server->loop);
    if (r == 0)
        r = check_own_user();
    if (r == 0)
        r = check_addresses();
    if (r == 0)
        r = watch_signals(server);
    if (r == 0)
        r = take_sockets(server, options, inherited);
    if (r == 0)
        r = restore(server, inherited);
    if (r < 0)
        server_deinit(server, server->sockets_inherited ? KEEP_ALL : KEEP_HEAPS);
    named_fds_close(inherited);
    return r;
}

static int sooner(int a, int b)
{
    return a < 0 ? b : b < 0 ? a : MIN(a, b);
}

int server_run(struct server *server)
{
    int r = 0;

    while (!server->stopping && !server->restarting && r == 0) {
        uint64_t now = now_ms();
        int peers = peer_check_times(server, now), look = reaper_run(&server->registry, now);
        int scrapes = scrape_check_times(server, now), store = store_flush(&server->store), memory = committed_check(server, now);

        r = loop_turn(&server->loop, sooner(memory, sooner(store, sooner(scrapes, sooner(peers, look)))));
    }
    return r < 0 ? r : server->stopping ? SERVER_STOP : SERVER_RESTART;
}

/* ---- handing over ---- */

static int copy_one(struct named_fds *ret, const char *name, int fd)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);

    return copy < 0 ? la_fail(-errno, "cannot copy a descriptor (errno %d)", errno) : named_fds_add(ret, name, copy);
}

static int copy_listener(struct named_fds *ret, const char *name, const struct listener *listener)
{
    int r = listener->fd < 0 ? 0 : copy_one(ret, name, listener->fd);

    return r < 0 || listener->lock < 0 ? r : copy_one(ret, name, listener->lock);
}

int server_copy(struct server *server, struct named_fds *ret)
{
    int r = copy_listener(ret, "socket", &server->listener);

    if (r == 0)
        r = copy_listener(ret, "metrics", &server->metrics);
    if (r == 0)
        r = copy_one(ret, "state", server->state.fd);
    if (r == 0)
        r = registry_copy_files(&server->registry, ret);
    return r;
}

static void end_listener(struct server *server, struct listener *listener, const char *name, enum server_keeps keeps)
{
    if (keeps == KEEP_ALL) {
        listener_leave(listener);
        return;
    }
    /* Nobody is to start on a socket that has no name any more. */
    if (listener_is_ours(listener))
        store_drop(&server->store, name);
    listener_close(listener);
}

void server_deinit(struct server *server, enum server_keeps keeps)
{
    loop_remove(&server->loop, &server->accepting);
    end_listener(server, &server->listener, "socket", keeps);
    server->accepting.fd = -1;
    loop_remove(&server->loop, &server->scraping);
    end_listener(server, &server->metrics, "metrics", keeps);
    while (!list_is_empty(&server->scrapes))
        scrape_destroy(list_entry(server->scrapes.next, struct scrape, node));
    while (!list_is_empty(&server->peers))
        peer_destroy(list_entry(server->peers.next, struct peer, node));
    registry_deinit(&server->registry, keeps != LOSE_ALL);
    quota_deinit(&server->quota);
    store_flush(&server->store);
    store_deinit(&server->store);
    state_close(&server->state);
    loop_remove(&server->loop, &server->signals);
    close_fd(&server->signals.fd);
    close_fd(&server->reserve);
    loop_deinit(&server->loop);
}
