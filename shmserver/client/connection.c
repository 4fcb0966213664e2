/*
 * connection.c - shms_connect(), shms_disconnect() and what every request goes through.
 *
 * A connection is memory from mmap, as the library never calls malloc. Its lock is held over a request and its reply. After a
 * time-out or a reply that does not fit, later replies could be taken for the wrong request: such a connection is closed.
 *
 * A daemon that dies is started again. So a request that gets no answer is asked again on a new connection (all of them may be: the second
 * time they find done what they ask for), after the new daemon was told which heaps we have. All that happens inside of requests, within
 * about a second; nothing else in this process waits or is done for it. Who was sent away by the daemon stays away.
 *
 * Fork: the child must not hold its parent's connection open (the daemon would not see the parent's end) nor speak on it. All
 * connections are in a list; the handler in the child closes them. The child cannot take their locks (their holders are not
 * there), so "foreign" is an atomic that is looked at first.
 */
#include "shmserver/client/connection.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fmt.h"
#include "shmserver/protocol/fdpass.h"
#include "shmserver/protocol/record.h"
#include "shmserver/protocol/socket_path.h"
#include "shmserver/protocol/spin.h"

/* A daemon answers in microseconds; this is for one that is stopped. */
enum { ANSWER_SECONDS = 10 };
/* Pauses while none is there: 5 ms, 10, 20, ... 640. With a keeper or a service manager's socket there is none, as connections wait in it. */
enum { FIRST_PAUSE_MS = 5, LAST_PAUSE_MS = 640 };
/* Requests that a daemon dies of are not to kill one after the other. */
enum { MAX_DAEMONS = 3 };
/* More than a process can be attached to. */
enum { MAX_HELD = 32 };

struct shms_client {
    pthread_mutex_t lock;           /* fd, sequence; held over a request and its reply */
    int fd;                         /* -1: broken, the next request makes another one */
    bool gave_up;                   /* the last time that no daemon was there, none came within our patience */
    bool sent_away;                 /* for good, by the daemon or as it does not speak our language */
    uint64_t held[MAX_HELD];        /* ids of heaps; 0: free */
    uint64_t sequence;
    uint16_t version;               /* of the protocol, as agreed on */
    _Atomic(bool) foreign;          /* made by the parent of this process */
    struct shms_client *next;       /* list of all */
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
};

static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static struct shms_client *clients;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

/* ---- fork ---- */

static void fork_prepare(void)
{
    pthread_mutex_lock(&list_lock);
}

static void fork_parent(void)
{
    pthread_mutex_unlock(&list_lock);
}

static void fork_child(void)
{
    for (struct shms_client *client = clients; client; client = client->next) {
        close_fd(&client->fd);
        atomic_store(&client->foreign, true);
    }
    pthread_mutex_unlock(&list_lock);
}

static void watch_fork(void)
{
    pthread_atfork(fork_prepare, fork_parent, fork_child);
}

/* ---- asking ---- */

static void spin_for_answer(int socket)
{
    struct pollfd answer = { .fd = socket, .events = POLLIN };
    struct spin spin;

    spin_begin(&spin);
    while (poll(&answer, 1, 0) == 0 && spin_on(&spin))
        ;
}

/* One message out, with @fd unless that is negative, one back. The daemon may have refused us before we spoke: then sending fails, but its reply
 * is there. */
static int exchange(int socket, struct wire_message *m, int fd, struct fdpass_set *set)
{
    int sent = fdpass_send(socket, m, fd), r;

    *set = (struct fdpass_set){ .count = 0 };
    if (sent < 0 && sent != -EPIPE && sent != -ECONNRESET)
        return sent;
    spin_for_answer(socket);
    r = fdpass_receive(socket, m, set);
    /* Reported once if the daemon closed with our message unread; what it had sent before comes next. */
    if (r == -ECONNRESET)
        r = fdpass_receive(socket, m, set);
    return r;
}

/* A refusal to go on with us at all, which no request has asked for. */
static bool is_farewell(const struct wire_message *m, const struct wire_header *request)
{
    return request->type != WIRE_HELLO && m->header.type == WIRE_HELLO && (m->header.flags & WIRE_REPLY) && m->header.status < 0;
}

static int fits(const struct wire_message *m, const struct wire_header *request)
{
    if (!(m->header.flags & WIRE_REPLY) || m->header.type != request->type || m->header.sequence != request->sequence)
        return la_fail(-EPROTO, "shmserver answered another question than was asked (type %u, sequence %lu): connect again",
                       m->header.type, (unsigned long)m->header.sequence);
    if (m->header.status > 0)
        return la_fail(-EPROTO, "shmserver answered with status %d: connect again", m->header.status);
    return 0;
}

/* What the result of exchange() means, in words. */
static int explain(int r, const char *path)
{
    switch (r) {
    case 1:
        return 0;
    case -EAGAIN:
        return la_fail(-ETIMEDOUT, "shmserver at %s has not answered for %d s: is it stopped?", path, ANSWER_SECONDS);
    case -EBADMSG:
        return -EPROTO;     /* the text is there */
    case 0:
    case -EPIPE:
    case -ECONNRESET:
        return la_fail(-ENOTCONN, "shmserver at %s has closed the connection: connect again", path);
    default:
        return la_fail(r, "cannot talk to shmserver at %s (errno %d)", path, -r);
    }
}

static int refusal(const struct wire_message *m)
{
    char text[200];

    if (!wire_get_text(m, TLV_TEXT, text, sizeof(text)))
        return la_fail(m->header.status, "shmserver refused with errno %d", -m->header.status);
    return la_fail(m->header.status, "%s", text);
}

/* Under client->lock, as all that follows. The request is given up when its daemon is; -ENOTCONN then. */
static int ask_once(struct shms_client *client, struct wire_message *m, int fd, struct fdpass_set *set)
{
    struct wire_header request;
    int r;

    set->count = 0;
    if (client->fd < 0)
        return la_fail(-ENOTCONN, "the connection to shmserver at %s has failed before", client->path);
    if (record_since(m) > client->version)
        return la_fail(-EOPNOTSUPP, "shmserver at %s speaks protocol version %u, which has no request of this kind: run a newer one", client->path,
                       client->version);
    m->header.version = client->version;
    m->header.sequence = client->sequence++;
    request = m->header;
    r = explain(exchange(client->fd, m, fd, set), client->path);
    if (r == 0 && is_farewell(m, &request)) {
        client->sent_away = true;
        refusal(m);
        r = -ENOTCONN;
    } else if (r == 0) {
        r = fits(m, &request);
    }
    client->sent_away |= r == -EPROTO;
    if (r < 0)
        close_fd(&client->fd);
    return r;
}

static int hello_locked(struct shms_client *client)
{
    struct fdpass_set set;
    struct wire_message m;
    uint64_t version;
    int r;

    client->version = WIRE_VERSION_MAX;
    client->sequence = 0;       /* a refusal to connect answers request 0 */
    wire_begin(&m, WIRE_HELLO, 0, 0);
    wire_put_u64(&m, TLV_VERSION_MIN, 0, WIRE_VERSION_MIN);
    wire_put_u64(&m, TLV_VERSION_MAX, 0, WIRE_VERSION_MAX);
    r = ask_once(client, &m, -1, &set);
    fdpass_close(&set);
    if (r == 0 && m.header.status < 0)
        r = refusal(&m);
    if (r < 0)
        return r;
    if (!wire_get_u64(&m, TLV_VERSION, &version) || version < WIRE_VERSION_MIN || version > WIRE_VERSION_MAX)
        return la_fail(-EPROTO, "shmserver at %s chose a protocol version that this library does not speak", client->path);
    client->version = (uint16_t)version;
    return 0;
}

/* ---- again ---- */

/* Say which heaps we have. A daemon that does not want to know one goes on without, and so do we: the heap does not need it. */
static int resume_heaps(struct shms_client *client)
{
    int r = 0;

    for (unsigned i = 0; i < MAX_HELD && r == 0 && client->version >= wire_type_since(WIRE_RESUME); i++) {
        int fd = client->held[i] ? la_heap_descriptor(client->held[i]) : -1;
        struct fdpass_set set;
        struct wire_message m;

        if (fd < 0) {
            client->held[i] = 0;
            continue;
        }
        wire_begin(&m, WIRE_RESUME, 0, 0);
        wire_put_u64(&m, TLV_ID, TLV_CRITICAL, client->held[i]);
        r = ask_once(client, &m, fd, &set);
        fdpass_close(&set);
        close_fd(&fd);
        if (r == 0 && m.header.status < 0)
            client->held[i] = 0;
    }
    return r;
}

static int open_socket(const char *path, int *ret);

static int reconnect(struct shms_client *client)
{
    int r;

    close_fd(&client->fd);
    r = open_socket(client->path, &client->fd);
    if (r == 0)
        r = hello_locked(client);
    if (r == 0)
        r = resume_heaps(client);
    if (r < 0)
        close_fd(&client->fd);
    return r;
}

static void sleep_ms(unsigned ms)
{
    struct timespec left = { .tv_nsec = (long)ms * 1000 * 1000 };

    while (nanosleep(&left, &left) < 0 && errno == EINTR)
        ;
}

/* Until a daemon is there that answers. When none came last time, nobody waits for one again. */
static int reconnect_patiently(struct shms_client *client)
{
    int r = reconnect(client);

    for (unsigned pause = FIRST_PAUSE_MS; (r == -ECONNREFUSED || r == -ENOTCONN) && !client->sent_away && pause <= LAST_PAUSE_MS; pause *= 2) {
        if (client->gave_up)
            break;
        sleep_ms(pause);
        r = reconnect(client);
    }
    client->gave_up = r < 0;
    return r == -ECONNREFUSED ? la_fail(-ENOTCONN, "shmserver at %s has ended: heaps stay attached, and work without it", client->path) : r;
}

/* *again: the request may have been done before. */
static int ask_locked(struct shms_client *client, struct wire_message *m, struct fdpass_set *set, bool *again)
{
    const uint32_t length = m->header.length;
    struct wire_message request;
    bool was_connected = client->fd >= 0;
    int r;

    memcpy(&request, m, length);
    r = ask_once(client, m, -1, set);
    /* A daemon that does not know that we are attached need not be told that we are not. */
    for (unsigned daemons = 1; r == -ENOTCONN && !client->sent_away && request.header.type != WIRE_DETACH && daemons < MAX_DAEMONS; daemons++) {
        r = reconnect_patiently(client);
        if (r < 0)
            break;
        *again |= was_connected;
        was_connected = true;
        memcpy(m, &request, length);
        r = ask_once(client, m, -1, set);
    }
    return r;
}

int connection_ask_again(struct shms_client *client, struct wire_message *m, int *fd, bool *again)
{
    struct fdpass_set set = { .count = 0 };
    int r;

    *again = false;
    if (!client)
        return la_fail(-EINVAL, "no connection: get one from shms_connect()");
    if (atomic_load(&client->foreign))
        return la_fail(-ECHILD, "this connection is the parent process's: call shms_connect() in the child");
    pthread_mutex_lock(&client->lock);
    r = ask_locked(client, m, &set, again);
    pthread_mutex_unlock(&client->lock);

    if (r == 0 && m->header.status < 0)
        r = refusal(m);
    if (r == 0 && fd)
        *fd = set.count > 0 ? steal_fd(&set.fd[0]) : -1;
    fdpass_close(&set);
    return r;
}

int connection_ask(struct shms_client *client, struct wire_message *m, int *fd)
{
    bool again;

    return connection_ask_again(client, m, fd, &again);
}

/* ---- heaps ---- */

static bool is_attached(uint64_t id)
{
    CLEANUP(close_fd) int fd = la_heap_descriptor(id);

    return fd >= 0;
}

void connection_hold(struct shms_client *client, uint64_t id)
{
    uint64_t *place = NULL;

    pthread_mutex_lock(&client->lock);
    for (unsigned i = 0; i < MAX_HELD; i++) {
        if (client->held[i] == id) {
            place = &client->held[i];
            break;
        }
        if (!place && (!client->held[i] || !is_attached(client->held[i])))
            place = &client->held[i];
    }
    if (place)
        *place = id;
    pthread_mutex_unlock(&client->lock);
}

void connection_drop(struct shms_client *client, uint64_t id)
{
    pthread_mutex_lock(&client->lock);
    for (unsigned i = 0; i < MAX_HELD; i++)
        if (client->held[i] == id)
            client->held[i] = 0;
    pthread_mutex_unlock(&client->lock);
}

/* ---- connecting ---- */

/* The daemon may be killed in the middle of it. */
static int say_hello(struct shms_client *client)
{
    int r;

    pthread_mutex_lock(&client->lock);
    r = hello_locked(client);
    if (r == -ENOTCONN && !client->sent_away)
        r = reconnect_patiently(client);
    pthread_mutex_unlock(&client->lock);
    return r;
}

static int connect_failure(const char *path, int error)
{
    struct stat st = { 0 };

    switch (error) {
    case ENOENT:
    case ECONNREFUSED:
        return la_fail(-ECONNREFUSED, "no shmserver at %s: start one with `shmserver`, or use la_heap_open() for a heap "
                                      "without a daemon", path);
    case EACCES:
    case EPERM:
        if (stat(path, &st) == 0)
            return la_fail(-EACCES, "no rights on the socket %s (owner %u, group %u, mode %o): ask its owner for "
                                    "`shmserver --allow-group`", path, st.st_uid, st.st_gid, st.st_mode & 0777);
        return la_fail(-EACCES, "no rights on the folder of the socket %s", path);
    case EAGAIN:
        return la_fail(-ETIMEDOUT, "shmserver at %s accepts no connection: is it stopped?", path);
    case EPROTOTYPE:
    case ENOTSOCK:
        return la_fail(-EPROTO, "%s is not the socket of a shmserver", path);
    default:
        return la_fail(-error, "cannot connect to shmserver at %s (errno %d)", path, error);
    }
}

static int open_socket(const char *path, int *ret)
{
    const struct timeval limit = { .tv_sec = ANSWER_SECONDS };
    CLEANUP(close_fd) int fd = -1;
    struct sockaddr_un address;
    int r = socket_path_address(path, &address);

    if (r < 0)
        return r;
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return la_fail(-errno, "cannot make a socket (errno %d)", errno);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    while (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        if (errno != EINTR)
            return connect_failure(path, errno);
    *ret = steal_fd(&fd);
    return 0;
}

/* The first place where a daemon listens. Of several failures the first is told: that is the place of choice. */
static int find_socket(char *path, size_t size, int *ret)
{
    char first[SOCKET_PATH_MAX];
    int r;

    for (unsigned i = 0; socket_path_nth(i, path, size); i++) {
        r = open_socket(path, ret);
        if (r != -ECONNREFUSED)
            return r;
    }
    socket_path_nth(0, first, sizeof(first));
    return connect_failure(first, ENOENT);
}

static int make_client(int fd, const char *path, struct shms_client **ret)
{
    struct shms_client *client = mmap(NULL, sizeof(*client), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (client == MAP_FAILED) {
        close_fd(&fd);
        return la_fail(-ENOMEM, "no memory for a connection to shmserver");
    }
    pthread_mutex_init(&client->lock, NULL);
    client->fd = fd;
    client->version = WIRE_VERSION_MAX;
    la_format(client->path, sizeof(client->path), "%s", path);
    pthread_once(&fork_once, watch_fork);
    pthread_mutex_lock(&list_lock);
    client->next = clients;
    clients = client;
    pthread_mutex_unlock(&list_lock);
    *ret = client;
    return 0;
}

int shms_connect(const char *path, struct shms_client **ret)
{
    char found[SOCKET_PATH_MAX];
    struct shms_client *client = NULL;
    int fd = -1, r;

    if (!ret)
        return la_fail(-EINVAL, "shms_connect() needs a place for its result");
    r = path ? open_socket(path, &fd) : find_socket(found, sizeof(found), &fd);
    if (r == 0)
        r = make_client(fd, path ? path : found, &client);
    if (r < 0)
        return r;
    r = say_hello(client);
    if (r < 0) {
        shms_disconnect(client);
        return r;
    }
    *ret = client;
    return 0;
}

struct shms_client *shms_disconnect(struct shms_client *client)
{
    if (!client)
        return NULL;
    pthread_mutex_lock(&list_lock);
    for (struct shms_client **at = &clients; *at; at = &(*at)->next)
        if (*at == client) {
            *at = client->next;
            break;
        }
    pthread_mutex_unlock(&list_lock);
    close_fd(&client->fd);
    munmap(client, sizeof(*client));
    return NULL;
}
