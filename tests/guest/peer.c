#include "peer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <rdma/rdma_verbs.h>

/* A test cannot go on without its peer. */
#define NEED(condition)                                                                                               \
    do {                                                                                                              \
        if (!(condition)) {                                                                                           \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #condition, strerror(errno));                      \
            exit(1);                                                                                                  \
        }                                                                                                             \
    } while (0)

enum operation { WRITE, READ, RECEIVE, END };

struct order {
    enum operation operation;
    uint32_t key, size, seed;
    uint64_t address;
};

struct report {
    enum ibv_wc_status status;
    bool same;
};

/* ---- both ---- */

void peer_fill(void *at, size_t size, unsigned seed)
{
    unsigned char *bytes = at;

    for (size_t i = 0; i < size; i++)
        bytes[i] = (unsigned char)(i * 7 + (i >> 8) + seed * 31);
}

bool peer_is_filled(const void *at, size_t size, unsigned seed)
{
    const unsigned char *bytes = at;
    size_t i = 0;

    while (i < size && bytes[i] == (unsigned char)(i * 7 + (i >> 8) + seed * 31))
        i++;
    return i == size;
}

static struct ibv_qp_init_attr connection_kind(void)
{
    return (struct ibv_qp_init_attr){ .cap = { .max_send_wr = 8, .max_recv_wr = 8, .max_send_sge = 1, .max_recv_sge = 1 },
                                      .qp_type = IBV_QPT_RC, .sq_sig_all = 1 };
}

static struct rdma_addrinfo *find_address(const char *address, const char *port, int flags)
{
    struct rdma_addrinfo hints = { .ai_flags = flags, .ai_port_space = RDMA_PS_TCP }, *found;

    NEED(rdma_getaddrinfo(address, port, &hints, &found) == 0);
    return found;
}

static struct rdma_conn_param patient(void)
{
    return (struct rdma_conn_param){ .initiator_depth = 1, .responder_resources = 1, .retry_count = 7, .rnr_retry_count = 7 };
}

/* ---- the second process ---- */

static struct rdma_cm_id *connect_to(const char *address, const char *port)
{
    struct rdma_addrinfo *found = find_address(address, port, 0);
    struct rdma_conn_param param = patient();
    struct rdma_cm_id *id = NULL;

    /* On a busy machine the seconds of one resolution may not do. */
    for (int i = 0; i < 20 && !id; i++) {
        struct ibv_qp_init_attr kind = connection_kind();

        if (rdma_create_ep(&id, found, NULL, &kind) < 0)
            NEED(errno == ETIMEDOUT);
    }
    NEED(id && rdma_connect(id, &param) == 0);
    rdma_freeaddrinfo(found);
    return id;
}

/* Events are acknowledged at once: there is never more than one to come. */
static void take_event(struct ibv_comp_channel *channel)
{
    struct ibv_cq *queue;
    void *context;

    NEED(ibv_get_cq_event(channel, &queue, &context) == 0);
    ibv_ack_cq_events(queue, 1);
}

enum { STEP_MS = 1000, IDLE_STEPS = 120 };

/*
 * What became of the operation in flight. siw does not complete all that it had in flight when a connection was ended by the other side: then
 * the end of the connection is the answer, or, as the last resort, that there is none. Events of operations that were found complete before
 * their event was waited for are still in the channel, many of them: only waiting in vain counts.
 */
static enum ibv_wc_status wait_for(struct rdma_cm_id *id, struct ibv_cq *queue, struct ibv_comp_channel *channel)
{
    struct pollfd events[] = { { .fd = channel->fd, .events = POLLIN }, { .fd = id->channel->fd, .events = POLLIN } };
    struct ibv_wc completion;

    for (int idle = 0; idle < IDLE_STEPS;) {
        int ready;

        NEED(ibv_req_notify_cq(queue, 0) == 0);
        if (ibv_poll_cq(queue, 1, &completion) == 1)
            return completion.status;
        if (events[1].revents)
            return IBV_WC_WR_FLUSH_ERR;
        ready = poll(events, 2, STEP_MS);
        NEED(ready >= 0);
        if (events[0].revents)
            take_event(channel);
        idle += ready == 0;
    }
    return IBV_WC_RESP_TIMEOUT_ERR;
}

static enum ibv_wc_status wait_for_send(struct rdma_cm_id *id)
{
    return wait_for(id, id->send_cq, id->send_cq_channel);
}

/* A connection that has failed may refuse what is posted, or flush it. */
static enum ibv_wc_status read_from(struct rdma_cm_id *id, struct ibv_mr *mr, size_t size, const struct order *o)
{
    if (rdma_post_read(id, NULL, mr->addr, size, mr, 0, o->address, o->key) < 0)
        return IBV_WC_WR_FLUSH_ERR;
    return wait_for_send(id);
}

/* A write is complete when it has left, on iWARP; what is read behind it shows that it was allowed and has arrived. */
static enum ibv_wc_status write_to(struct rdma_cm_id *id, struct ibv_mr *mr, const struct order *o)
{
    enum ibv_wc_status status;

    if (rdma_post_write(id, NULL, mr->addr, o->size, mr, 0, o->address, o->key) < 0)
        return IBV_WC_WR_FLUSH_ERR;
    status = wait_for_send(id);
    return status == IBV_WC_SUCCESS ? read_from(id, mr, 1, o) : status;
}

static struct report obey(struct rdma_cm_id *id, struct ibv_mr *mr, const struct order *o, int orders)
{
    struct report report = { IBV_WC_SUCCESS, true };

    memset(mr->addr, 0, o->size);
    switch (o->operation) {
    case WRITE:
        peer_fill(mr->addr, o->size, o->seed);
        report.status = write_to(id, mr, o);
        break;
    case READ:
        report.status = read_from(id, mr, o->size, o);
        break;
    default:
        NEED(rdma_post_recv(id, NULL, mr->addr, o->size, mr) == 0);
        NEED(write(orders, &report, sizeof(report)) == sizeof(report));     /* posted: send now */
        report.status = wait_for(id, id->recv_cq, id->recv_cq_channel);
    }
    report.same = peer_is_filled(mr->addr, o->size, o->seed);
    return report;
}

void peer_main(int argc, char **argv)
{
    struct rdma_cm_id *id;
    struct ibv_mr *mr;
    struct order order;
    int orders;

    if (argc != 5 || strcmp(argv[1], "--peer") != 0)
        return;
    NEED(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
    orders = atoi(argv[4]);
    id = connect_to(argv[2], argv[3]);
    /* iWARP wants REMOTE_WRITE for what a read fills. */
    mr = ibv_reg_mr(id->pd, aligned_alloc(4096, PEER_SIZE_MAX), PEER_SIZE_MAX, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
    NEED(mr);
    while (read(orders, &order, sizeof(order)) == sizeof(order) && order.operation != END) {
        struct report report = obey(id, mr, &order, orders);

        NEED(write(orders, &report, sizeof(report)) == sizeof(report));
    }
    /* No rdma_disconnect(): it would wait minutes for an answer of the first process, which waits for this one. */
    _exit(0);
}

/* ---- the first process ---- */

static void run_peer(const char *address, const char *port, int orders)
{
    char text[16];

    snprintf(text, sizeof(text), "%d", orders);
    execl("/proc/self/exe", "peer", "--peer", address, port, text, (char *)NULL);
    NEED(!"exec");
}

void peer_start(struct peer *peer, const char *address)
{
    struct rdma_addrinfo *here = find_address(address, "0", RAI_PASSIVE);
    struct ibv_qp_init_attr kind = connection_kind();
    struct rdma_conn_param param = patient();
    char port[16];
    int sockets[2];

    NEED(rdma_create_ep(&peer->listener, here, NULL, &kind) == 0 && rdma_listen(peer->listener, 1) == 0);
    rdma_freeaddrinfo(here);
    snprintf(port, sizeof(port), "%u", ntohs(rdma_get_src_port(peer->listener)));
    NEED(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sockets) == 0);
    peer->orders = sockets[0];
    peer->pid = fork();
    NEED(peer->pid >= 0);
    if (peer->pid == 0) {
        close(sockets[0]);
        run_peer(address, port, sockets[1]);
    }
    close(sockets[1]);
    NEED(rdma_get_request(peer->listener, &peer->connection) == 0 && rdma_accept(peer->connection, &param) == 0);
}

static struct report ask(struct peer *peer, const struct order *order)
{
    struct report report;

    NEED(write(peer->orders, order, sizeof(*order)) == sizeof(*order) && read(peer->orders, &report, sizeof(report)) == sizeof(report));
    return report;
}

static struct order order_for(enum operation operation, const void *at, uint64_t key, size_t size, unsigned seed)
{
    NEED(size <= PEER_SIZE_MAX && key <= UINT32_MAX);
    return (struct order){ .operation = operation, .address = (uintptr_t)at, .key = (uint32_t)key, .size = (uint32_t)size, .seed = seed };
}

enum ibv_wc_status peer_write(struct peer *peer, const void *at, uint64_t key, size_t size, unsigned seed)
{
    struct order order = order_for(WRITE, at, key, size, seed);

    return ask(peer, &order).status;
}

enum ibv_wc_status peer_read(struct peer *peer, const void *at, uint64_t key, size_t size, unsigned seed, bool *same)
{
    struct order order = order_for(READ, at, key, size, seed);
    struct report report = ask(peer, &order);

    *same = report.same;
    return report.status;
}

enum ibv_wc_status peer_receive(struct peer *peer, const void *at, uint64_t local_key, size_t size, unsigned seed, bool *same)
{
    struct order order = order_for(RECEIVE, NULL, 0, size, seed);
    struct ibv_sge piece = { .addr = (uintptr_t)at, .length = (uint32_t)size, .lkey = (uint32_t)local_key };
    struct ibv_send_wr send = { .sg_list = &piece, .num_sge = 1, .opcode = IBV_WR_SEND }, *bad;
    enum ibv_wc_status status;
    struct report report;

    ask(peer, &order);
    NEED(ibv_post_send(peer->connection->qp, &send, &bad) == 0);
    status = wait_for_send(peer->connection);
    NEED(read(peer->orders, &report, sizeof(report)) == sizeof(report));
    *same = report.same;
    return status == IBV_WC_SUCCESS ? report.status : status;
}

void peer_stop(struct peer *peer)
{
    struct order order = { .operation = END };
    int status;

    NEED(write(peer->orders, &order, sizeof(order)) == sizeof(order) && waitpid(peer->pid, &status, 0) == peer->pid);
    NEED(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    close(peer->orders);
    rdma_destroy_ep(peer->connection);
    rdma_destroy_ep(peer->listener);
}
