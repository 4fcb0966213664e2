/* fdpass_test.c - descriptors come with their message, and are closed when anything is wrong with it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "shmserver/protocol/fdpass.h"

struct pair {
    int a, b;
};

static int setup(void **state)
{
    struct pair *p = calloc(1, sizeof(*p));
    int ends[2];

    assert_non_null(p);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
    p->a = ends[0];
    p->b = ends[1];
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct pair *p = *state;

    close_fd(&p->a);
    close_fd(&p->b);
    free(p);
    return 0;
}

/* The lowest number that is free: the same before and after means that nothing was left open. */
static int next_descriptor(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    close(fd);
    return fd;
}

static void descriptor_arrives_with_its_message(void **state)
{
    const struct pair *p = *state;
    struct wire_message out, in;
    struct fdpass_set set;
    struct stat sent, got;

    wire_begin(&out, WIRE_ATTACH, WIRE_REPLY, 5);
    wire_put_text(&out, TLV_NAME, "heap");
    assert_int_equal(fdpass_send(p->a, &out, STDERR_FILENO), 0);
    assert_int_equal(fdpass_receive(p->b, &in, &set), 1);
    assert_int_equal(in.header.sequence, 5);
    assert_int_equal(in.header.n_fds, 1);
    assert_int_equal(set.count, 1);
    assert_int_equal(fstat(STDERR_FILENO, &sent), 0);
    assert_int_equal(fstat(set.fd[0], &got), 0);
    assert_int_equal(sent.st_ino, got.st_ino);
    assert_true(fcntl(set.fd[0], F_GETFD) & FD_CLOEXEC);
    fdpass_close(&set);
    assert_int_equal(set.count, 0);
}

static void message_without_descriptor_has_none(void **state)
{
    const struct pair *p = *state;
    struct wire_message m;
    struct fdpass_set set;

    wire_begin(&m, WIRE_LIST, 0, 1);
    assert_int_equal(fdpass_send(p->a, &m, -1), 0);
    assert_int_equal(fdpass_receive(p->b, &m, &set), 1);
    assert_int_equal(set.count, 0);
}

static void end_and_nothing_are_told_apart(void **state)
{
    struct pair *p = *state;
    struct wire_message m;
    struct fdpass_set set;

    assert_int_equal(fdpass_receive(p->b, &m, &set), -EAGAIN);
    close_fd(&p->a);
    assert_int_equal(fdpass_receive(p->b, &m, &set), 0);
    wire_begin(&m, WIRE_LIST, 0, 1);
    assert_int_equal(fdpass_send(p->b, &m, -1), -EPIPE);
}

static void sender_does_not_wait_for_who_does_not_read(void **state)
{
    const struct pair *p = *state;
    struct wire_message m;
    int r = 0;

    for (int i = 0; i < 100000 && r == 0; i++) {
        wire_begin(&m, WIRE_LIST, 0, 1);
        r = fdpass_send(p->a, &m, -1);
    }
    assert_int_equal(r, -EAGAIN);
}

static void send_raw(int socket, const void *bytes, size_t size, int fds)
{
    union {
        struct cmsghdr aligned;
        char bytes[CMSG_SPACE(64 * sizeof(int))];
    } control = { 0 };
    struct iovec io = { (void *)bytes, size };
    struct msghdr message = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = control.bytes,
                              .msg_controllen = CMSG_SPACE((size_t)fds * sizeof(int)) };
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);

    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN((size_t)fds * sizeof(int));
    for (int i = 0; i < fds; i++)
        ((int *)CMSG_DATA(c))[i] = STDERR_FILENO;
    assert_int_equal(sendmsg(socket, &message, 0), size);
}

static void descriptors_of_bad_messages_are_closed(void **state)
{
    const struct pair *p = *state;
    static char junk[2 * WIRE_MAX];
    struct wire_message m;
    struct fdpass_set set;
    int before = next_descriptor();

    /* Not ours; too long; says another number of descriptors; more than we take. */
    send_raw(p->a, junk, 100, 2);
    assert_int_equal(fdpass_receive(p->b, &m, &set), -EBADMSG);
    assert_int_equal(next_descriptor(), before);
    send_raw(p->a, junk, sizeof(junk), 3);
    assert_int_equal(fdpass_receive(p->b, &m, &set), -EBADMSG);
    assert_int_equal(next_descriptor(), before);
    wire_begin(&m, WIRE_LIST, 0, 1);
    m.header.n_fds = 1;
    send_raw(p->a, m.bytes, m.header.length, 2);
    assert_int_equal(fdpass_receive(p->b, &m, &set), -EBADMSG);
    assert_int_equal(next_descriptor(), before);
    wire_begin(&m, WIRE_LIST, 0, 1);
    m.header.n_fds = 40;
    send_raw(p->a, m.bytes, m.header.length, 40);
    assert_int_equal(fdpass_receive(p->b, &m, &set), -EBADMSG);
    assert_int_equal(set.count, 0);
    assert_int_equal(next_descriptor(), before);
}

#define with_pair(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_pair(descriptor_arrives_with_its_message),
        with_pair(message_without_descriptor_has_none),
        with_pair(end_and_nothing_are_told_apart),
        with_pair(sender_does_not_wait_for_who_does_not_read),
        with_pair(descriptors_of_bad_messages_are_closed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
