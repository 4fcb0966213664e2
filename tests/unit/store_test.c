/* store_test.c - what the daemon tells the service manager to keep, also to one that does not read for a while. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "shmserver/daemon/store.h"

static int manager;

static int setup(void **state)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    char variable[64];

    (void)state;
    snprintf(variable, sizeof(variable), "@store-test-%d", getpid());
    strcpy(address.sun_path, variable);
    address.sun_path[0] = '\0';
    manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(manager, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(variable))), 0);
    return setenv("NOTIFY_SOCKET", variable, 1);
}

static int teardown(void **state)
{
    (void)state;
    close(manager);
    return unsetenv("NOTIFY_SOCKET");
}

/* One message; the number of descriptors that came with it, or -1: there is none. */
static int receive(char text[256])
{
    union {
        struct cmsghdr aligned;
        char bytes[CMSG_SPACE(8 * sizeof(int))];
    } control;
    struct iovec io = { text, 255 };
    struct msghdr message = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes) };
    ssize_t n = recvmsg(manager, &message, MSG_CMSG_CLOEXEC);
    struct cmsghdr *c;
    int count;

    if (n < 0)
        return -1;
    text[n] = '\0';
    c = CMSG_FIRSTHDR(&message);
    count = c ? (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int)) : 0;
    for (int i = 0; i < count; i++) {
        int fd;

        memcpy(&fd, CMSG_DATA(c) + (size_t)i * sizeof(int), sizeof(int));
        close(fd);
    }
    return count;
}

static void orders_go_out_with_their_descriptors(void **state)
{
    const int fds[] = { 0, 1 };
    struct store store;
    char text[256];

    (void)state;
    store_init(&store);
    assert_true(store.on);
    assert_int_equal(store_put(&store, "socket", fds, 2), 0);
    store_drop(&store, "socket");
    assert_int_equal(receive(text), 2);
    assert_string_equal(text, "FDSTORE=1\nFDNAME=socket\nFDPOLL=0");
    assert_int_equal(receive(text), 0);
    assert_string_equal(text, "FDSTOREREMOVE=1\nFDNAME=socket");
    assert_int_equal(receive(text), -1);
    assert_int_equal(store_flush(&store), -1);
    store_deinit(&store);
}

static void manager_that_does_not_read_gets_all_in_order_later_but_what_is_over(void **state)
{
    struct store store;
    char text[256], name[16], expected[64];
    int sent = 0, got = 0;

    (void)state;
    store_init(&store);
    /* Until its queue is full, and three more. */
    for (int waiting = 0; waiting < 3; sent++) {
        snprintf(name, sizeof(name), "heap-%d", sent);
        assert_int_equal(store_put(&store, name, &manager, 1), 0);
        waiting += !list_is_empty(&store.waiting);
    }
    assert_int_equal(store_flush(&store), STORE_RETRY_MS);
    snprintf(name, sizeof(name), "heap-%d", sent - 2);
    store_drop(&store, name);   /* was never sent */
    store_drop(&store, "heap-0");

    while (store_flush(&store) > 0 || got < sent)
        if (receive(text) >= 0) {
            got += got == sent - 2;
            snprintf(expected, sizeof(expected), "FDNAME=heap-%d\n", got);
            if (got < sent)
                assert_non_null(strstr(text, expected));
            got++;
        }
    assert_true(receive(text) == 0);
    assert_string_equal(text, "FDSTOREREMOVE=1\nFDNAME=heap-0");
    assert_int_equal(receive(text), -1);
    store_deinit(&store);
}

static void without_a_manager_nothing_waits(void **state)
{
    struct store store;

    (void)state;
    unsetenv("NOTIFY_SOCKET");
    store_init(&store);
    assert_false(store.on);
    assert_int_equal(store_put(&store, "heap", &manager, 1), 0);
    store_drop(&store, "heap");
    assert_int_equal(store_flush(&store), -1);
    store_deinit(&store);
}

#define with_manager(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_manager(orders_go_out_with_their_descriptors),
        with_manager(manager_that_does_not_read_gets_all_in_order_later_but_what_is_over),
        with_manager(without_a_manager_nothing_waits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
