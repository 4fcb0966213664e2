/* notify_test.c - datagrams to the service manager. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "shmserver/daemon/notify.h"

static void without_a_service_manager_nothing_happens(void **state)
{
    (void)state;
    unsetenv("NOTIFY_SOCKET");
    assert_int_equal(notify_send("READY=1"), 0);
    setenv("NOTIFY_SOCKET", "relative", 1);
    assert_int_equal(notify_send("READY=1"), -EINVAL);
}

/* @name: as sun_path, a leading NUL for the abstract name space; @variable: as in the environment */
static void receive_at(const char *name, size_t length, const char *variable)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    char text[64];
    ssize_t n;

    memcpy(address.sun_path, name, length);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)), 0);
    setenv("NOTIFY_SOCKET", variable, 1);
    assert_int_equal(notify_send("READY=1"), 0);
    n = recv(fd, text, sizeof(text), MSG_DONTWAIT);
    assert_int_equal(n, 7);
    assert_memory_equal(text, "READY=1", 7);
    close(fd);
}

static void state_arrives_by_path_and_by_abstract_name(void **state)
{
    char folder[] = "/tmp/notify-test-XXXXXX", path[64], name[64], variable[64];

    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/socket", folder);
    receive_at(path, strlen(path), path);
    unlink(path);
    rmdir(folder);
    snprintf(variable, sizeof(variable), "@notify-test-%d", getpid());
    memcpy(name, variable, sizeof(name));
    name[0] = '\0';
    receive_at(name, strlen(variable), variable);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_service_manager_nothing_happens),
        cmocka_unit_test(state_arrives_by_path_and_by_abstract_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
