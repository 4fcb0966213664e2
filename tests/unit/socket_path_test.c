/* socket_path_test.c - where daemon and client look for the socket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shmserver/protocol/socket_path.h"

static char path[SOCKET_PATH_MAX];

static void chosen_socket_is_the_only_place(void **state)
{
    (void)state;
    setenv("SHMSERVER_SOCKET", "/chosen", 1);
    setenv("XDG_RUNTIME_DIR", "/runtime", 1);
    assert_true(socket_path_nth(0, path, sizeof(path)));
    assert_string_equal(path, "/chosen");
    assert_false(socket_path_nth(1, path, sizeof(path)));
}

static void own_daemon_goes_before_the_system_s(void **state)
{
    (void)state;
    setenv("SHMSERVER_SOCKET", "", 1);
    setenv("XDG_RUNTIME_DIR", "/runtime", 1);
    assert_true(socket_path_nth(0, path, sizeof(path)));
    assert_string_equal(path, "/runtime/shmserver.sock");
    assert_true(socket_path_nth(1, path, sizeof(path)));
    assert_string_equal(path, "/run/shmserver/shmserver.sock");
    assert_false(socket_path_nth(2, path, sizeof(path)));
}

static void without_a_runtime_folder_there_is_the_system_s(void **state)
{
    (void)state;
    unsetenv("SHMSERVER_SOCKET");
    setenv("XDG_RUNTIME_DIR", "relative", 1);
    assert_true(socket_path_nth(0, path, sizeof(path)));
    assert_string_equal(path, "/run/shmserver/shmserver.sock");
    assert_false(socket_path_nth(1, path, sizeof(path)));
}

static void address_takes_what_fits(void **state)
{
    struct sockaddr_un address;
    char text[sizeof(address.sun_path) + 1];

    (void)state;
    memset(text, 'x', sizeof(text));
    text[sizeof(address.sun_path)] = '\0';
    assert_int_equal(socket_path_address(text, &address), -ENAMETOOLONG);
    text[sizeof(address.sun_path) - 1] = '\0';
    assert_int_equal(socket_path_address(text, &address), 0);
    assert_string_equal(address.sun_path, text);
    assert_int_equal(socket_path_address("", &address), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chosen_socket_is_the_only_place),
        cmocka_unit_test(own_daemon_goes_before_the_system_s),
        cmocka_unit_test(without_a_runtime_folder_there_is_the_system_s),
        cmocka_unit_test(address_takes_what_fits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
