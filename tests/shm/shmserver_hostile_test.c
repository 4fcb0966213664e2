/*
 * shmserver_hostile_test.c - clients that break the protocol are dropped, their descriptors closed, and nobody else notices.
 *
 * Every test ends with a good client that was connected all the time doing something real.
 */
#include "daemon.h"

#include <dirent.h>

#include "shmserver/protocol/fdpass.h"
#include "shmserver/protocol/wire.h"

/* ---- raw connections ---- */

static int raw_connect(const struct daemon *d)
{
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    struct timeval limit = { .tv_sec = SAFETY_MS / 1000 };

    strcpy(address.sun_path, d->socket);
    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static void hello(struct wire_message *m)
{
    wire_begin(m, WIRE_HELLO, 0, 7);
    wire_put_u64(m, TLV_VERSION_MIN, 0, WIRE_VERSION_MIN);
    wire_put_u64(m, TLV_VERSION_MAX, 0, WIRE_VERSION_MAX);
}

static int ask(int fd, struct wire_message *m)
{
    struct fdpass_set set;
    int r;

    assert_int_equal(fdpass_send(fd, m, -1), 0);
    r = fdpass_receive(fd, m, &set);
    assert_int_equal(r, 1);
    r = m->header.status;
    fdpass_close(&set);
    return r;
}

static int raw_connect_and_greet(const struct daemon *d)
{
    int fd = raw_connect(d);
    struct wire_message m;

    hello(&m);
    assert_int_equal(ask(fd, &m), 0);
    assert_int_equal(m.header.sequence, 7);
    assert_true(m.header.flags & WIRE_REPLY);
    return fd;
}

/* The daemon has closed; before that it may have answered. */
static void assert_dropped(int fd)
{
    char bytes[WIRE_MAX];
    ssize_t n;

    do {
        n = recv(fd, bytes, sizeof(bytes), 0);
    } while (n > 0);
    assert_true(n == 0 || errno == ECONNRESET);
    close(fd);
}

static void send_bytes(int fd, const void *bytes, size_t size)
{
    assert_int_equal(send(fd, bytes, size, MSG_NOSIGNAL), size);
}

/* ---- the good client ---- */

struct fixture {
    struct daemon *d;
    struct shms_client *good;
    struct la_heap *heap;
    int descriptors;        /* of the daemon, before the attack */
};

static int count_descriptors(const struct daemon *d)
{
    char path[64];
    DIR *dir;
    int n = 0;

    snprintf(path, sizeof(path), "/proc/%d/fd", d->pid);
    dir = opendir(path);
    assert_non_null(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

static void begin(struct fixture *f, void **state)
{
    f->d = *state;
    f->good = connect_or_fail();
    f->heap = open_or_fail(f->good, "good", 64 << 20);
    /* Another answer: the daemon has closed what it sent with the one before. */
    assert_int_equal(shms_list(f->good, NULL, NULL), 1);
    f->descriptors = count_descriptors(f->d);
}

static bool descriptors_are_back(void *arg)
{
    const struct fixture *f = arg;

    return count_descriptors(f->d) == f->descriptors;
}

static void end(struct fixture *f)
{
    struct shms_heap info = { .struct_size = sizeof(info) };

    assert_int_equal(shms_heap_info(f->good, "good", &info), 0);
    assert_int_equal(info.processes, 1);
    assert_non_null(la_heap_alloc(f->heap, 100));
    assert_true(wait_until(descriptors_are_back, f));
    assert_int_equal(shms_heap_close(f->good, f->heap), 0);
    shms_disconnect(f->good);
    assert_int_equal(daemon_stop(f->d, SIGTERM), 0);
}

/* ---- attacks ---- */

static void malformed_messages_end_the_connection(void **state)
{
    struct fixture f;
    struct wire_message m;
    static char long_one[2 * WIRE_MAX];

    begin(&f, state);
    for (int attack = 0; attack < 9; attack++) {
        int fd = raw_connect_and_greet(f.d);
        size_t size;

        wire_begin(&m, WIRE_INFO, 0, 1);
        wire_put_text(&m, TLV_NAME, "good");
        size = m.header.length;
        switch (attack) {
        case 0:
            m.header.magic ^= 1;
            break;
        case 1:
            size = 7;                       /* shorter than a header */
            break;
        case 2:
            size -= 8;                      /* half */
            break;
        case 3:
            m.header.length = WIRE_MAX;     /* says more than comes */
            break;
        case 4:
            m.header.n_fds = 1;
            break;
        case 5:
            m.bytes[sizeof(m.header) + 4] = 0xff;   /* a field that reaches over the end */
            break;
        case 6:
            m.header.type = 999;
            break;
        case 7:
            m.header.flags = WIRE_REPLY;
            break;
        default:
            m.header.version = 77;
        }
        send_bytes(fd, m.bytes, size);
        assert_dropped(fd);
    }
    {
        int fd = raw_connect_and_greet(f.d);

        memcpy(long_one, m.bytes, sizeof(m.header));
        send_bytes(fd, long_one, sizeof(long_one));
        assert_dropped(fd);
    }
    end(&f);
    assert_true(daemon_said(f.d, "not our protocol"));
    assert_true(daemon_said(f.d, "shorter than its header"));
    assert_true(daemon_said(f.d, "longer than 4096"));
}

static void anything_before_hello_ends_the_connection(void **state)
{
    struct fixture f;
    struct wire_message m;
    int fd;

    begin(&f, state);
    fd = raw_connect(f.d);
    wire_begin(&m, WIRE_LIST, 0, 1);
    send_bytes(fd, m.bytes, m.header.length);
    assert_dropped(fd);
    end(&f);
    assert_true(daemon_said(f.d, "no hello"));
}

static void silent_connection_is_dropped_in_time(void **state)
{
    struct fixture f;
    int fd;

    begin(&f, state);
    fd = raw_connect(f.d);
    assert_dropped(fd);
    end(&f);
    assert_true(daemon_said(f.d, "has not said hello in time"));
}

static void descriptors_that_nobody_asked_for_are_closed(void **state)
{
    struct fixture f;
    struct wire_message m;

    begin(&f, state);
    for (int i = 0; i < 50; i++) {
        int fd = raw_connect_and_greet(f.d);

        wire_begin(&m, WIRE_LIST, 0, 1);
        assert_int_equal(fdpass_send(fd, &m, STDIN_FILENO), 0);
        assert_dropped(fd);
    }
    end(&f);
}

static void send_many_descriptors(int fd, const struct wire_message *m, int count)
{
    union {
        struct cmsghdr aligned;
        char bytes[CMSG_SPACE(100 * sizeof(int))];
    } control = { 0 };
    struct iovec io = { (void *)m->bytes, m->header.length };
    struct msghdr message = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = control.bytes,
                              .msg_controllen = CMSG_SPACE((size_t)count * sizeof(int)) };
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);

    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
    for (int i = 0; i < count; i++)
        ((int *)CMSG_DATA(c))[i] = STDIN_FILENO;
    assert_true(sendmsg(fd, &message, MSG_NOSIGNAL) > 0);
}

static void more_descriptors_than_fit_are_closed(void **state)
{
    struct fixture f;
    struct wire_message m;

    begin(&f, state);
    for (int count = 2; count <= 100; count += 7) {
        int fd = raw_connect_and_greet(f.d);

        wire_begin(&m, WIRE_LIST, 0, 1);
        m.header.n_fds = (uint32_t)count;
        send_many_descriptors(fd, &m, count);
        assert_dropped(fd);
    }
    end(&f);
}

static void unknown_fields_are_ignored_unless_they_are_critical(void **state)
{
    struct fixture f;
    struct wire_message m;
    int fd;

    begin(&f, state);
    fd = raw_connect_and_greet(f.d);
    wire_begin(&m, WIRE_INFO, 0, 1);
    wire_put(&m, (enum wire_tlv_type)500, 0, "future", 6);
    wire_put_text(&m, TLV_NAME, "good");
    assert_int_equal(ask(fd, &m), 0);
    wire_begin(&m, WIRE_INFO, 0, 2);
    wire_put_text(&m, TLV_NAME, "good");
    wire_put(&m, (enum wire_tlv_type)500, TLV_CRITICAL, "future", 6);
    assert_int_equal(ask(fd, &m), -EOPNOTSUPP);
    assert_int_equal(m.header.sequence, 2);
    /* Refused, not dropped: it may do without. */
    wire_begin(&m, WIRE_LIST, 0, 3);
    assert_int_equal(ask(fd, &m), 0);
    close(fd);
    end(&f);
}

static void versions_that_do_not_meet_are_told_so(void **state)
{
    struct fixture f;
    struct wire_message m;
    int fd;

    begin(&f, state);
    fd = raw_connect(f.d);
    wire_begin(&m, WIRE_HELLO, 0, 0);
    wire_put_u64(&m, TLV_VERSION_MIN, 0, 40);
    wire_put_u64(&m, TLV_VERSION_MAX, 0, 50);
    assert_int_equal(ask(fd, &m), -EPROTO);
    /* One who speaks newer versions too gets the one that both know. */
    wire_begin(&m, WIRE_HELLO, 0, 1);
    wire_put_u64(&m, TLV_VERSION_MIN, 0, 1);
    wire_put_u64(&m, TLV_VERSION_MAX, 0, 50);
    m.header.version = 50;
    assert_int_equal(ask(fd, &m), 0);
    assert_int_equal(m.header.version, WIRE_VERSION_MAX);
    close(fd);
    /* Who speaks version 1 gets version 1, and nothing that it has not. */
    fd = raw_connect(f.d);
    wire_begin(&m, WIRE_HELLO, 0, 0);
    wire_put_u64(&m, TLV_VERSION_MIN, 0, 1);
    wire_put_u64(&m, TLV_VERSION_MAX, 0, 1);
    assert_int_equal(ask(fd, &m), 0);
    assert_int_equal(m.header.version, 1);
    wire_begin(&m, WIRE_LIST, 0, 1);
    m.header.version = 1;
    assert_int_equal(ask(fd, &m), 0);
    wire_begin(&m, WIRE_ACL, 0, 2);
    wire_put_text(&m, TLV_NAME, "good");
    m.header.version = 1;
    send_bytes(fd, &m, m.header.length);
    assert_dropped(fd);
    end(&f);
}

static void requests_that_are_repeated_change_nothing(void **state)
{
    struct fixture f;
    struct wire_message m;
    uint64_t first = 0, second = 1;
    int fd;

    begin(&f, state);
    fd = raw_connect_and_greet(f.d);
    for (int i = 0; i < 2; i++) {
        wire_begin(&m, WIRE_CREATE, 0, 1);
        wire_put_text(&m, TLV_NAME, "again");
        wire_put_u64(&m, TLV_SIZE, 0, LA_HEAP_MIN_SIZE);
        wire_put_u64(&m, TLV_KEY, 0, 4711);
        assert_int_equal(ask(fd, &m), 0);
        assert_true(wire_get_u64(&m, TLV_ID, i ? &second : &first));
    }
    assert_true(first == second);
    for (int i = 0; i < 2; i++) {
        wire_begin(&m, WIRE_DETACH, 0, 1);
        wire_put_u64(&m, TLV_ID, 0, first);
        assert_int_equal(ask(fd, &m), 0);
    }
    wire_begin(&m, WIRE_CREATE, 0, 1);
    wire_put_text(&m, TLV_NAME, "again");
    wire_put_u64(&m, TLV_SIZE, 0, LA_HEAP_MIN_SIZE);
    wire_put_u64(&m, TLV_KEY, 0, 4712);
    assert_int_equal(ask(fd, &m), -EEXIST);
    hello(&m);
    assert_int_equal(ask(fd, &m), 0);
    wire_begin(&m, WIRE_REMOVE, 0, 1);
    wire_put_text(&m, TLV_NAME, "again");
    assert_int_equal(ask(fd, &m), 0);
    close(fd);
    /* Nobody used it: its file has gone with its name, and the count at the end is as at the beginning. */
    end(&f);
}

static void client_that_does_not_read_is_dropped(void **state)
{
    struct fixture f;
    struct wire_message m;
    int fd;

    begin(&f, state);
    fd = raw_connect_and_greet(f.d);
    for (int i = 0; i < 1000; i++) {
        wire_begin(&m, WIRE_ATTACH, 0, 1);
        wire_put_text(&m, TLV_NAME, "good");
        if (fdpass_send(fd, &m, -1) < 0)
            break;
    }
    assert_dropped(fd);
    end(&f);
    assert_true(daemon_said(f.d, "before it has read its answer"));
}

enum { MANY = 1000 };

static void connections_of_one_user_are_bounded(void **state)
{
    struct fixture f;
    struct shms_client *clients[MANY] = { NULL };
    int connected = 0, refused = 0;

    begin(&f, state);
    for (int i = 0; i < MANY; i++)
        if (shms_connect(NULL, &clients[i]) == 0)
            connected++;
        else if (la_last_error_code() == -EUSERS && strstr(la_last_error(), "--max-clients"))
            refused++;
    assert_int_equal(connected, 255);       /* of 256, with the good one */
    assert_int_equal(refused, MANY - connected);
    for (int i = 0; i < MANY; i++)
        shms_disconnect(clients[i]);
    end(&f);
}

static void daemon_without_descriptors_closes_connections_and_goes_on(void **state)
{
    struct daemon *d = *state;
    struct fixture f;
    int fds[200];

    d->descriptors = 40;
    daemon_start(d);
    begin(&f, state);
    for (int i = 0; i < 200; i++)
        fds[i] = raw_connect(d);
    /* While all are open: the good client is served. */
    assert_int_equal(shms_list(f.good, NULL, NULL), 1);
    for (int i = 0; i < 200; i++)
        close(fds[i]);
    end(&f);
    assert_true(daemon_said(d, "may open no more descriptors"));
}

static void random_messages_do_no_harm(void **state)
{
    struct fixture f;
    unsigned seed = 20240601;

    begin(&f, state);
    for (int round = 0; round < 2000; round++) {
        int fd = raw_connect_and_greet(f.d);
        struct wire_message m;
        size_t size;

        wire_begin(&m, (enum wire_type)(1 + rand_r(&seed) % (WIRE_TYPES - 1)), 0, (uint64_t)round);
        for (int i = rand_r(&seed) % 6; i > 0; i--) {
            char junk[64];
            size_t length = (size_t)(rand_r(&seed) % 64);

            for (size_t j = 0; j < length; j++)
                junk[j] = (char)rand_r(&seed);
            wire_put(&m, (enum wire_tlv_type)(rand_r(&seed) % (TLV_TYPES + 1)), 0, junk, length);
        }
        size = m.header.length;
        if (rand_r(&seed) % 2)
            m.bytes[(size_t)rand_r(&seed) % size] ^= (unsigned char)(1 << rand_r(&seed) % 8);
        send_bytes(fd, m.bytes, size);
        close(fd);
    }
    end(&f);
}

#define with_daemon(test) cmocka_unit_test_setup_teardown(test, daemon_setup, daemon_teardown)
#define without_daemon(test) cmocka_unit_test_setup_teardown(test, daemon_setup_stopped, daemon_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_daemon(malformed_messages_end_the_connection),
        with_daemon(anything_before_hello_ends_the_connection),
        with_daemon(silent_connection_is_dropped_in_time),
        with_daemon(descriptors_that_nobody_asked_for_are_closed),
        with_daemon(more_descriptors_than_fit_are_closed),
        with_daemon(unknown_fields_are_ignored_unless_they_are_critical),
        with_daemon(versions_that_do_not_meet_are_told_so),
        with_daemon(requests_that_are_repeated_change_nothing),
        with_daemon(client_that_does_not_read_is_dropped),
        with_daemon(connections_of_one_user_are_bounded),
        without_daemon(daemon_without_descriptors_closes_connections_and_goes_on),
        with_daemon(random_messages_do_no_harm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
