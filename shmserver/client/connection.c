/*
 * connection.c - shms_connect(), shms_disconnect() and what every request goes through.
 *
 * A connection is memory from mmap, as the library never calls malloc. Its lock is held over a request and its reply. After a
 * time-out or a reply that does not fit, later replies could be taken for the wrong request: such a connection is broken for good.
 *
 * Fork: the child must not hold its parent's connection open (the daemon would not see the parent's end) nor speak on it. All
 * connections are in a list; the handler in the child closes them. The child cannot take their locks (their holders are not
 * there), so "foreign" is an atomic that is looked at first.
 */
#include "shmserver/client/connection.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fmt.h"
#include "shmserver/protocol/fdpass.h"
#include "shmserver/protocol/socket_path.h"

/* A daemon answers in microseconds; this is for one that is stopped. */
enum { ANSWER_SECONDS = 10 };

struct shms_client {
    pthread_mutex_t lock;           /* fd, sequence; held over a request and its reply */
    int fd;                         /* -1: broken */
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

/* One message out, one back. The daemon may have refused us before we spoke: then sending fails, but its reply is there. */
static int exchange(int socket, struct wire_message *m, struct fdpass_set *set)
{
    int sent = fdpass_send(socket, m, -1), r;

    *set = (struct fdpass_set){ .count = 0 };
    if (sent < 0 && sent != -EPIPE && sent != -ECONNRESET)
        return sent;
    r = fdpass_receive(socket, m, set);
    /* Reported once if the daemon closed with our message unread; what it had sent before comes next. */
    if (r == -ECONNRESET)
        r = fdpass_receive(socket, m, set);
    return r;
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

/* Under client->lock. */
static int ask_locked(struct shms_client *client, struct wire_message *m, struct fdpass_set *set)
{
    struct wire_header request;
    int r;

    if (client->fd < 0)
        return la_fail(-ENOTCONN, "the connection to shmserver at %s has failed before: connect again", client->path);
    if (wire_type_since(m->header.type) > client->version)
        return la_fail(-EOPNOTSUPP, "shmserver at %s speaks protocol version %u, which has no request of this kind: run a newer one", client->path,
                       client->version);
    m->header.version = client->version;
    m->header.sequence = client->sequence++;
    request = m->header;
    r = explain(exchange(client->fd, m, set), client->path);
    if (r == 0)
        r = fits(m, &request);
    if (r < 0)
        close_fd(&client->fd);
    return r;
}

int connection_ask(struct shms_client *client, struct wire_message *m, int *fd)
{
    struct fdpass_set set = { .count = 0 };
    int r;

    if (!client)
        return la_fail(-EINVAL, "no connection: get one from shms_connect()");
    if (atomic_load(&client->foreign))
        return la_fail(-ECHILD, "this connection is the parent process's: call shms_connect() in the child");
    pthread_mutex_lock(&client->lock);
    r = ask_locked(client, m, &set);
    pthread_mutex_unlock(&client->lock);

    if (r == 0 && m->header.status < 0)
        r = refusal(m);
    if (r == 0 && fd)
        *fd = set.count > 0 ? steal_fd(&set.fd[0]) : -1;
    fdpass_close(&set);
    return r;
}

static int say_hello(struct shms_client *client)
{
    struct wire_message m;
    uint64_t version;
    int r;

    wire_begin(&m, WIRE_HELLO, 0, 0);
    wire_put_u64(&m, TLV_VERSION_MIN, 0, WIRE_VERSION_MIN);
    wire_put_u64(&m, TLV_VERSION_MAX, 0, WIRE_VERSION_MAX);
    r = connection_ask(client, &m, NULL);
    if (r < 0)
        return r;
    if (!wire_get_u64(&m, TLV_VERSION, &version) || version < WIRE_VERSION_MIN || version > WIRE_VERSION_MAX)
        return la_fail(-EPROTO, "shmserver at %s chose a protocol version that this library does not speak", client->path);
    client->version = (uint16_t)version;
    return 0;
}

/* ---- connecting ---- */

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
