/*
 * rdma_objects.c - a list of ordinary objects, read and written by another machine over InfiniBand, RoCE or iWARP.
 *
 *     rdma_objects server ADDRESS PORT        ADDRESS: the IP address of the RDMA device's interface here
 *     rdma_objects client ADDRESS PORT        the server's
 *     rdma_objects ADDRESS                    both, as two processes of this machine
 *
 * The server allocates notes from a chain. They lie in registered memory, so that the address of a note and the key of its extent are all that the
 * client needs: it follows the list by RDMA reads, and answers by a write, while the server's processor does nothing. Nobody registers an object.
 *
 * Both machines have the same byte order; a program that cannot know says le64toh() where addresses and keys go over the wire.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <rdma/rdma_cma.h>
#include <rdma/rdma_verbs.h>

#include <liballoc/liballoc.h>
#include <segments/find.h>
#include <segments/verbs.h>

/* All that a peer needs to reach an object. */
struct reference {
    uint64_t address;
    uint32_t key;
};

struct note {
    struct reference next;      /* for peers */
    struct note *mine;          /* the same for us */
    char text[88];
};

static const char *const texts[] = { "an object is allocated", "its address is a plain pointer", "its key is that of its extent", "" };
static const char answer[] = "and the client has read them all";

static int fail(const char *what)
{
    perror(what);
    return EXIT_FAILURE;
}

static int refuse(void)
{
    fprintf(stderr, "%s\n", la_last_error());
    return EXIT_FAILURE;
}

static struct rdma_cm_id *endpoint(const char *address, const char *port, int flags)
{
    struct rdma_addrinfo hints = { .ai_flags = flags, .ai_port_space = RDMA_PS_TCP }, *found;
    struct ibv_qp_init_attr kind = { .cap = { .max_send_wr = 4, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1 },
                                     .qp_type = IBV_QPT_RC, .sq_sig_all = 1 };
    struct rdma_cm_id *id = NULL;

    if (rdma_getaddrinfo(address, port, &hints, &found) < 0)
        return NULL;
    /* A resolution has two seconds, which a busy machine may not keep. */
    for (int tries = 10; tries > 0 && rdma_create_ep(&id, found, NULL, &kind) < 0; tries = errno == ETIMEDOUT ? tries - 1 : 0)
        id = NULL;
    rdma_freeaddrinfo(found);
    return id;
}

/* ---- server ---- */

struct memory {
    struct seg_registrar *rdma;
    struct seg_supply *supply;
    struct la_chain *chain;
};

/* Whatever memory there is, registered in the protection domain of the connection, and a chain over it. */
static int open_memory(struct memory *m, struct ibv_pd *domain)
{
    struct seg_supply_config config = { .struct_size = sizeof(config), .list = "hugetlb:2M,thp,anon" };
    int r = seg_registrar_verbs(domain, SEG_VERBS_LOCAL_WRITE | SEG_VERBS_REMOTE_READ | SEG_VERBS_REMOTE_WRITE, 0, &m->rdma);

    if (r < 0)
        return r;
    config.registrars[0] = m->rdma;
    r = seg_supply_create(&config, &m->supply);
    return r < 0 ? r : la_chain_create(seg_supply_source(m->supply), 0, &m->chain);
}

static int close_memory(struct memory *m)
{
    int r = la_chain_destroy(m->chain);

    if (r == 0)
        r = seg_supply_destroy(m->supply);      /* deregisters, then unmaps */
    return r < 0 ? r : seg_registrar_destroy(m->rdma);
}

static int refer_to(const struct memory *m, const struct note *note, struct reference *ret)
{
    struct seg_key_here key;
    int r = seg_key_of(note, m->rdma, &key);

    if (r == 0)
        *ret = (struct reference){ (uintptr_t)note, (uint32_t)key.remote };
    return r;
}

/* The list, last note first. */
static struct note *write_notes(const struct memory *m)
{
    struct note *first = NULL;

    for (size_t i = sizeof(texts) / sizeof(texts[0]); i-- > 0;) {
        struct note *note = la_chain_calloc(m->chain, 1, sizeof(*note));

        if (!note || (first && refer_to(m, first, &note->next) < 0))
            return NULL;
        strcpy(note->text, texts[i]);
        note->mine = first;
        first = note;
    }
    return first;
}

/* The reference to the first note goes with the acceptance; then there is nothing to do but to wait for the client to go. */
static int offer(struct rdma_cm_id *id, const struct memory *m, const struct note *first)
{
    struct reference reference = { 0 };
    struct rdma_conn_param param = { .private_data = &reference, .private_data_len = sizeof(reference), .responder_resources = 1, .initiator_depth = 1 };
    struct rdma_cm_event *event;
    enum rdma_cm_event_type type;

    if (refer_to(m, first, &reference) < 0)
        return refuse();
    if (rdma_accept(id, &param) < 0)
        return fail("rdma_accept");
    do {
        if (rdma_get_cm_event(id->channel, &event) < 0)
            return fail("rdma_get_cm_event");
        type = event->event;
        rdma_ack_cm_event(event);
    } while (type != RDMA_CM_EVENT_DISCONNECTED);
    return EXIT_SUCCESS;
}

static int show(const struct note *note)
{
    for (; note->mine; note = note->mine)
        ;
    printf("server: \"%s\"\n", note->text);
    return strcmp(note->text, answer) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int serve_one(struct rdma_cm_id *id)
{
    struct memory memory = { 0 };
    struct note *first;
    int status;

    if (open_memory(&memory, id->pd) < 0)
        return refuse();
    first = write_notes(&memory);
    if (!first)
        return refuse();
    status = offer(id, &memory, first);
    if (status == EXIT_SUCCESS)
        status = show(first);
    return close_memory(&memory) < 0 ? refuse() : status;
}

/* @with_client: start one, when connections are possible. A new program: a device that its parent has opened is of no use to a forked one. */
static int run_server(const char *address, const char *port, bool with_client)
{
    struct rdma_cm_id *listener = endpoint(address, port, RAI_PASSIVE), *id;
    char text[16];
    int status;

    if (!listener || rdma_listen(listener, 1) < 0)
        return fail(address);
    snprintf(text, sizeof(text), "%u", ntohs(rdma_get_src_port(listener)));
    if (with_client && fork() == 0) {
        execl("/proc/self/exe", "rdma_objects", "client", address, text, (char *)NULL);
        _exit(EXIT_FAILURE);
    }
    printf("server: at %s port %s\n", address, text);
    fflush(stdout);
    if (rdma_get_request(listener, &id) < 0)
        return fail("rdma_get_request");
    status = serve_one(id);
    rdma_destroy_ep(id);
    rdma_destroy_ep(listener);
    return status;
}

/* ---- client ---- */

static int wait_for(struct rdma_cm_id *id, const char *what)
{
    struct ibv_wc completion;

    if (rdma_get_send_comp(id, &completion) != 1)
        return -1;
    if (completion.status != IBV_WC_SUCCESS)
        fprintf(stderr, "client: %s: %s\n", what, ibv_wc_status_str(completion.status));
    return completion.status == IBV_WC_SUCCESS ? 0 : -1;
}

/* Follow the list to its last note, which the client writes. */
static int follow(struct rdma_cm_id *id, struct reference at, struct note *copy, struct ibv_mr *mr)
{
    for (;; at = copy->next) {
        if (rdma_post_read(id, NULL, copy, sizeof(*copy), mr, 0, at.address, at.key) < 0 || wait_for(id, "read") < 0)
            return EXIT_FAILURE;
        if (!copy->next.address)
            break;
        printf("client: \"%s\" at %#llx, key %#x\n", copy->text, (unsigned long long)at.address, at.key);
    }
    fflush(stdout);
    strcpy(copy->text, answer);
    if (rdma_post_write(id, NULL, copy, sizeof(*copy), mr, 0, at.address, at.key) < 0 || wait_for(id, "write") < 0)
        return EXIT_FAILURE;
    /* iWARP: a write is complete when it has left; what is read behind it shows that it has arrived. */
    return rdma_post_read(id, NULL, copy, sizeof(*copy), mr, 0, at.address, at.key) < 0 || wait_for(id, "read") < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int run_client(const char *address, const char *port)
{
    struct rdma_conn_param param = { .responder_resources = 1, .initiator_depth = 1, .retry_count = 7 };
    struct rdma_cm_id *id = endpoint(address, port, 0);
    struct reference first;
    static struct note copy;
    struct ibv_mr *mr;
    int status;

    if (!id || rdma_connect(id, &param) < 0)
        return fail(address);
    if (id->event->param.conn.private_data_len < sizeof(first))
        return fail("no reference from the server");
    memcpy(&first, id->event->param.conn.private_data, sizeof(first));
    mr = ibv_reg_mr(id->pd, &copy, sizeof(copy), IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);     /* REMOTE_WRITE: iWARP's reads need it */
    if (!mr)
        return fail("ibv_reg_mr");
    status = follow(id, first, &copy, mr);
    ibv_dereg_mr(mr);
    rdma_destroy_ep(id);            /* the server hears that we are gone */
    return status;
}

int main(int argc, char **argv)
{
    if (seg_verbs_available() < 0)
        return refuse();
    if (argc == 4 && strcmp(argv[1], "server") == 0)
        return run_server(argv[2], argv[3], false);
    if (argc == 4 && strcmp(argv[1], "client") == 0)
        return run_client(argv[2], argv[3]);
    if (argc == 2)
        return run_server(argv[1], "0", true);
    fprintf(stderr, "usage: rdma_objects [server|client] ADDRESS [PORT]; this machine has %d RDMA devices (rdma link)\n", seg_verbs_available());
    return 2;
}
