/*
 * protocol.c - fuzz target: any sequence of clients, messages and descriptors against the daemon's real server, in one process.
 *
 * The input is a program for up to CLIENTS clients of several users (the format is what play() reads; `seeds` writes the first ones). The daemon sees
 * them through sockets, with the kernel's word on who they are. Not seen: kills by SHMS_KICK, as all clients are this process.
 *
 * Whatever happens: an answer is well-formed and is one; a refusal has a sentence; a descriptor goes only to whom the heap's mode allows it, and cannot
 * write if only reading was asked for; lists show what may be seen; the registry's invariants hold; no descriptor or memory is left over.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "input.h"
#include "world.h"

#include "shmserver/daemon/peer.h"
#include "shmserver/daemon/reaper.h"
#include "shmserver/daemon/scrape.h"
#include "shmserver/protocol/fdpass.h"
#include "shmserver/protocol/record.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CLIENTS = 4, MAX_FDS = 6, STEPS = 64 };

/* Low bits of the first byte of a step; then two bits for the client, and: the daemon does not run after this step. */
enum step { STEP_CONNECT, STEP_ASK, STEP_READ, STEP_CLOSE, STEP_DIE, STEP_WAIT, STEP_SCRAPE, STEP_REPEAT, STEP_KINDS };
enum { HOLD = 0x80 };

struct client {
    int fd;                     /* -1: not connected */
    uint64_t serial;            /* of its peer */
    enum world_user user;
    uint16_t version;           /* as agreed on */
    unsigned type;              /* of its last message; 0: that was not as it should be */
    uint64_t asked_at;          /* game.messages: the sequence number of that message */
    bool read_only;             /* its last message said so */
};

static struct {
    struct input in;
    struct client clients[CLIENTS];
    unsigned char message[2 * WIRE_MAX];    /* the last one */
    size_t size;
    int fds[MAX_FDS], n_fds;
    int kept;                   /* what the last ATTACH gave; -1: nothing */
    uint64_t last_id;
    uint64_t messages;          /* sent by anybody */
    int metrics;                /* reader of metrics, -1: none */
} game;

/* ---- what clients say ---- */

static uint64_t pick_value(unsigned index)
{
    const uint64_t values[] = { 0, 1, 2, 3, WIRE_VERSION_MAX, 40, 0640, 0666, 4711, HEAP_SIZE, 2 * HEAP_SIZE, (uint64_t)1 << 46, UINT64_MAX, UINT32_MAX,
        world.heap_id, world.old_id, game.last_id, UID_A, UID_B, GID_ALLOWED, 100000, 100001, 100002, (uint64_t)1 << 63,
        2 << 20 };

    return values[index % ARRAY_SIZE(values)];
}

static const char *pick_name(unsigned index)
{
    static const char *const names[] = { "a", "b", "old", "", ".", "..", "-", "a/b", "A.b_c-9", "\xff\xfe", "a:b:c", "%s%n",
        "0123456789012345678901234567890123456789012345678901234567890ab", "0123456789012345678901234567890123456789012345678901234567890abc" };

    return names[index % ARRAY_SIZE(names)];
}

static void put_field(struct wire_message *m)
{
    enum wire_tlv_type type = (enum wire_tlv_type)(take8(&game.in) % (TLV_TYPES + 1));
    unsigned kind = take8(&game.in), flags = kind & HOLD ? TLV_CRITICAL : 0;
    unsigned char raw[256];
    size_t size;

    switch (kind % 3) {
    case 0:
        wire_put_u64(m, type, flags, pick_value(take8(&game.in)));
        break;
    case 1:
        wire_put_text(m, type, pick_name(take8(&game.in)));
        break;
    default:
        size = take8(&game.in);
        take(&game.in, raw, size);
        wire_put(m, type, flags, raw, size);
    }
}

/* After this its header and lengths need not fit any more. Return: whether it was left alone. */
static bool mangle(void)
{
    size_t at;

    switch (take8(&game.in) % 4) {
    case 1:
        at = take16(&game.in) % game.size;
        game.message[at] = (unsigned char)take8(&game.in);
        break;
    case 2:
        game.size = take16(&game.in) % sizeof(game.message);
        break;
    case 3:
        take(&game.in, game.message, sizeof(struct wire_header));
        break;
    default:
        return true;
    }
    return false;
}

static int pick_fd(unsigned index)
{
    const unsigned kind = index % (FD_KINDS + 1);

    return kind == FD_KINDS && game.kept >= 0 ? game.kept : world.fds[kind % FD_KINDS];
}

static void compose(struct client *client)
{
    struct wire_message m;
    uint64_t read_only = 0;

    wire_begin(&m, (enum wire_type)(take8(&game.in) % (WIRE_TYPES + 1)), 0, ++game.messages);
    m.header.version = client->version;
    for (unsigned n = take8(&game.in) % 8; n > 0; n--)
        put_field(&m);
    game.n_fds = (int)(take8(&game.in) % (MAX_FDS + 1));
    for (int i = 0; i < game.n_fds; i++)
        game.fds[i] = pick_fd(take8(&game.in));
    m.header.n_fds = (uint32_t)game.n_fds;
    wire_get_u64(&m, TLV_READ_ONLY, &read_only);
    client->type = m.header.type;
    client->read_only = read_only != 0;
    game.size = m.header.length;
    memcpy(game.message, m.bytes, m.header.length);
    if (!mangle())
        client->type = 0;
}

static void send_message(struct client *client)
{
    union {
        struct cmsghdr aligned;
        char bytes[CMSG_SPACE(MAX_FDS * sizeof(int))];
    } control = { 0 };
    struct iovec io = { game.message, game.size };
    struct msghdr message = { .msg_iov = &io, .msg_iovlen = 1 };

    if (game.n_fds) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE((size_t)game.n_fds * sizeof(int));
        control.aligned = (struct cmsghdr){ .cmsg_len = CMSG_LEN((size_t)game.n_fds * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS };
        memcpy(CMSG_DATA(&control.aligned), game.fds, (size_t)game.n_fds * sizeof(int));
    }
    client->asked_at = game.messages;
    sendmsg(client->fd, &message, MSG_NOSIGNAL);
}

static void ask(struct client *client)
{
    compose(client);
    send_message(client);
}

/* What any client said last, by this one. */
static void repeat(struct client *client)
{
    game.messages++;
    client->type = 0;
    if (game.size)
        send_message(client);
}

/* ---- what they are told ---- */

static bool may(const struct client *client, const struct acl *acl, unsigned wanted)
{
    static const uid_t uids[USERS] = { 0, UID_A, UID_B, UID_STRANGER };
    unsigned rights = acl->mode;

    if (geteuid() != 0 || client->user == USER_ROOT)
        return true;
    if (acl->owner == uids[client->user])
        rights >>= 6;
    else if (acl->group == GID_ALLOWED)
        rights >>= 3;
    return (rights & wanted) == wanted;
}

/* The answer is to the last message of all, so the state is as it was when it was given. */
static bool is_fresh(const struct client *client, const struct wire_message *m)
{
    return m->header.type == client->type && client->asked_at == game.messages && m->header.sequence == game.messages;
}

static void check_attach(const struct client *client, const struct wire_message *m, int fd)
{
    const struct segment *segment;

    REQUIRE(fd >= 0 && wire_get_u64(m, TLV_ID, &game.last_id));
    segment = registry_find_id(&world.server.registry, game.last_id);
    REQUIRE(segment && memfile_is(&segment->file, fd));
    REQUIRE(may(client, &segment->acl, client->read_only ? ACL_READ : ACL_WRITE));
    REQUIRE((fcntl(fd, F_GETFL) & O_ACCMODE) == (client->read_only ? O_RDONLY : O_RDWR));
}

static void check_list(const struct client *client, const struct wire_message *m)
{
    struct shms_heap heap;
    struct wire_tlv tlv;

    for (size_t cursor = 0; wire_next(m, &cursor, &tlv);)
        if (record_get_heap(&tlv, &heap)) {
            const struct segment *segment = registry_find(&world.server.registry, heap.name);

            REQUIRE(segment && segment->id == heap.id && may(client, &segment->acl, ACL_READ));
        }
}

static void check_answer(struct client *client, const struct wire_message *m, int fd)
{
    const bool attached = m->header.type == WIRE_ATTACH && m->header.status == 0;
    struct wire_tlv tlv;
    uint64_t version;

    REQUIRE((m->header.flags & WIRE_REPLY) && m->header.status <= 0);
    REQUIRE(m->header.status == 0 || wire_find(m, TLV_TEXT, &tlv));
    REQUIRE((fd >= 0) == attached);
    if (m->header.type == WIRE_HELLO && wire_get_u64(m, TLV_VERSION, &version))
        client->version = (uint16_t)version;
    if (!is_fresh(client, m))
        return;
    if (attached)
        check_attach(client, m, fd);
    if (m->header.type == WIRE_LIST || m->header.type == WIRE_INFO)
        check_list(client, m);
}

static void read_answer(struct client *client)
{
    struct wire_message m;
    struct fdpass_set set;
    int r = fdpass_receive(client->fd, &m, &set);

    REQUIRE(r == 1 || r == 0 || r == -EAGAIN || r == -ECONNRESET);
    if (r != 1)
        return;
    REQUIRE(set.count <= 1);
    check_answer(client, &m, set.count ? set.fd[0] : -1);
    if (set.count) {
        close_fd(&game.kept);
        game.kept = set.fd[0];
    }
}

/* ---- coming and going ---- */

/* The latest one. */
static struct peer *find_peer(uint64_t serial)
{
    list_for_each(node, &world.server.peers)
        if (list_entry(node, struct peer, node)->serial == serial)
            return list_entry(node, struct peer, node);
    return NULL;
}

/* The kernel says that it is this process; it is to be one of its own, and must not be killed by KICK. */
static void give_pid(struct peer *peer, unsigned index)
{
    loop_remove(&world.server.loop, &peer->process);
    close_fd(&peer->id.pidfd);
    peer->process.fd = -1;
    peer->id.pid = (pid_t)(100000 + index);
}

static void connect_client(struct client *client, unsigned index)
{
    int daemon_end;

    close_fd(&client->fd);
    client->user = (enum world_user)(take8(&game.in) % USERS);
    client->version = WIRE_VERSION_MAX;
    client->type = 0;
    client->fd = world_connect(client->user, SOCK_SEQPACKET, &daemon_end);
    client->serial = world.server.next_peer;
    if (peer_create(&world.server, daemon_end) == 0)
        give_pid(find_peer(client->serial), index);
}

/* Its process ends, its socket stays open for now (a child has it). */
static void die(const struct client *client)
{
    struct peer *peer = find_peer(client->serial);

    if (!peer || peer->process.fd >= 0)
        return;
    peer->id.pidfd = peer->process.fd = eventfd(1, EFD_CLOEXEC);
    REQUIRE(peer->process.fd >= 0 && loop_add(&world.server.loop, &peer->process) == 0);
}

static void let_time_pass(void)
{
    uint64_t now = now_ms() + 100 * (uint64_t)take8(&game.in);

    peer_check_times(&world.server, now);
    reaper_run(&world.server.registry, now);
    scrape_check_times(&world.server, now);
    world.server.committed_at = 0;
    committed_check(&world.server, now);
}

static void scrape(void)
{
    int daemon_end;

    close_fd(&game.metrics);
    game.metrics = world_connect(USER_B, SOCK_STREAM, &daemon_end);
    if (take8(&game.in) % 2)
        close_fd(&game.metrics);
    scrape_create(&world.server, daemon_end);
}

/* ---- a game ---- */

static void step_of(struct client *client, enum step step, unsigned index)
{
    if (step == STEP_CONNECT)
        connect_client(client, index);
    else if (step == STEP_WAIT)
        let_time_pass();
    else if (step == STEP_SCRAPE)
        scrape();
    else if (client->fd < 0)
        return;
    else if (step == STEP_ASK)
        ask(client);
    else if (step == STEP_READ)
        read_answer(client);
    else if (step == STEP_CLOSE)
        close_fd(&client->fd);
    else if (step == STEP_DIE)
        die(client);
    else
        repeat(client);
}

static void play(void)
{
    for (int i = 0; i < STEPS && game.in.left > 0; i++) {
        unsigned byte = take8(&game.in), index = byte / STEP_KINDS % CLIENTS;

        step_of(&game.clients[index], (enum step)(byte % STEP_KINDS), index);
        if (!(byte & HOLD))
            REQUIRE(loop_turn(&world.server.loop, 0) == 0);
        REQUIRE(registry_is_valid(&world.server.registry));
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    world_init();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    world_note_descriptors();
    game.in = (struct input){ data, size };
    game.size = 0;
    game.n_fds = 0;
    game.kept = game.metrics = -1;
    game.messages = game.last_id = 0;
    for (int i = 0; i < CLIENTS; i++)
        game.clients[i] = (struct client){ .fd = -1 };
    play();
    REQUIRE(loop_turn(&world.server.loop, 0) == 0);
    for (int i = 0; i < CLIENTS; i++)
        close_fd(&game.clients[i].fd);
    close_fd(&game.kept);
    close_fd(&game.metrics);
    REQUIRE(loop_turn(&world.server.loop, 0) == 0);
    world_reset();
    return 0;
}
