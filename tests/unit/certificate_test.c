/* certificate_test.c - a certificate lasts exactly as long as a descriptor or mapping of its holder. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "os/certificate.h"

#include "child.h"

enum { SLOT = 3, OTHER_SLOT = 4, FILE_SIZE = 4096 };

/* The file, and two pipes over which the test and a child take turns. */
struct fixture {
    int fd;
    int up[2], down[2];
    pid_t grandchild;       /* told over the pipe */
};

static int setup(void **state)
{
    static struct fixture f;

    f = (struct fixture){ .fd = memfd_create("certificate-test", MFD_CLOEXEC) };
    *state = &f;
    return f.fd < 0 || ftruncate(f.fd, FILE_SIZE) < 0 || pipe2(f.up, O_CLOEXEC) < 0 || pipe2(f.down, O_CLOEXEC) < 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    close(f->fd);
    for (int i = 0; i < 2; i++) {
        close(f->up[i]);
        close(f->down[i]);
    }
    return 0;
}

static void tell(int fd, pid_t word)
{
    if (write(fd, &word, sizeof(word)) != sizeof(word))
        abort();
}

static pid_t hear(int fd)
{
    pid_t word = 0;

    if (read(fd, &word, sizeof(word)) != sizeof(word))
        abort();
    return word;
}

/* Child: a description of its own that holds SLOT. */
static int hold_in_child(struct fixture *f)
{
    int fd = certificate_reopen(f->fd);

    CHECK(fd >= 0);
    CHECK(certificate_hold(fd, SLOT) == 0);
    return fd;
}

static void kill_and_reap(pid_t pid)
{
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(child_status(pid), 128 + SIGKILL);
}

static void second_description_is_refused_until_the_first_releases(void **state)
{
    struct fixture *f = *state;
    int mine = certificate_reopen(f->fd), other = certificate_reopen(f->fd);

    assert_true(mine >= 0 && other >= 0 && mine != other);
    assert_int_equal(certificate_is_held(other, SLOT), 0);
    assert_int_equal(certificate_hold(mine, SLOT), 0);
    assert_int_equal(certificate_hold(mine, SLOT), 0);              /* again: no error */
    assert_int_equal(certificate_hold(other, SLOT), -EAGAIN);
    assert_int_equal(certificate_hold(other, OTHER_SLOT), 0);       /* slots are apart */
    assert_int_equal(certificate_is_held(other, SLOT), 1);
    assert_int_equal(certificate_is_held(mine, SLOT), 0);           /* documented: not asked through one's own */
    assert_int_equal(certificate_release(mine, SLOT), 0);
    assert_int_equal(certificate_is_held(other, SLOT), 0);
    assert_int_equal(certificate_is_held(mine, OTHER_SLOT), 1);
    assert_int_equal(certificate_hold(other, SLOT), 0);
    close(mine);
    close(other);
}

/* What makes classic locks useless here. */
static void closing_another_descriptor_of_the_file_keeps_it(void **state)
{
    struct fixture *f = *state;
    int mine = certificate_reopen(f->fd), other = certificate_reopen(f->fd), copy;

    assert_int_equal(certificate_hold(mine, SLOT), 0);
    close(other);
    assert_int_equal(certificate_is_held(f->fd, SLOT), 1);
    copy = dup(mine);
    close(mine);                                                    /* the description lives on */
    assert_int_equal(certificate_is_held(f->fd, SLOT), 1);
    close(copy);
    assert_int_equal(certificate_is_held(f->fd, SLOT), 0);
}

static void hold_and_wait(void *arg)
{
    struct fixture *f = arg;

    hold_in_child(f);
    tell(f->up[1], getpid());
    hear(f->down[0]);
}

static void kill_of_the_holder_drops_it(void **state)
{
    struct fixture *f = *state;
    pid_t pid = start_child(hold_and_wait, f);

    hear(f->up[0]);
    assert_int_equal(certificate_is_held(f->fd, SLOT), 1);
    assert_int_equal(certificate_hold(f->fd, SLOT), -EAGAIN);
    kill_and_reap(pid);
    assert_int_equal(certificate_is_held(f->fd, SLOT), 0);
    assert_int_equal(certificate_hold(f->fd, SLOT), 0);
}

static void stop_of_the_holder_keeps_it(void **state)
{
    struct fixture *f = *state;
    pid_t pid = start_child(hold_and_wait, f);
    int status;

    hear(f->up[0]);
    assert_int_equal(kill(pid, SIGSTOP), 0);
    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    assert_true(WIFSTOPPED(status));
    assert_int_equal(certificate_is_held(f->fd, SLOT), 1);
    kill_and_reap(pid);
    assert_int_equal(certificate_is_held(f->fd, SLOT), 0);
}

static void map_close_and_wait(void *arg)
{
    struct fixture *f = arg;
    int fd = hold_in_child(f);

    CHECK(mmap(NULL, FILE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) != MAP_FAILED);
    close(fd);
    tell(f->up[1], getpid());
    hear(f->down[0]);
}

static void mapping_alone_keeps_it(void **state)
{
    struct fixture *f = *state;
    pid_t pid = start_child(map_close_and_wait, f);

    hear(f->up[0]);
    assert_int_equal(certificate_is_held(f->fd, SLOT), 1);
    kill_and_reap(pid);
    assert_int_equal(certificate_is_held(f->fd, SLOT), 0);
}

static void fork_and_wait(void *arg)
{
    struct fixture *f = arg;
    pid_t pid;

    hold_in_child(f);
    pid = fork();
    if (pid == 0) {
        hear(f->down[0]);
        _exit(0);
    }
    tell(f->up[1], pid);
    for (;;)
        pause();
}

static void forked_child_keeps_it_until_it_ends_too(void **state)
{
    struct fixture *f = *state;
    pid_t pid, grandchild;

    if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
        skip();     /* an emulator: nobody would tell us when the grandchild has ended */
    pid = start_child(fork_and_wait, f);
    grandchild = hear(f->up[0]);
    kill_and_reap(pid);
    assert_int_equal(certificate_is_held(f->fd, SLOT), 1);
    tell(f->down[1], 0);
    assert_int_equal(child_status(grandchild), 0);      /* ours now: we are a subreaper */
    assert_int_equal(certificate_is_held(f->fd, SLOT), 0);
}

static void map_and_exec(void *arg)
{
    struct fixture *f = arg;
    int fd = hold_in_child(f);

    CHECK(mmap(NULL, FILE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) != MAP_FAILED);
    dup2(f->down[0], STDIN_FILENO);
    dup2(f->up[1], STDOUT_FILENO);
    execl("/bin/cat", "cat", (char *)NULL);
    CHECK(!"no /bin/cat");
}

/* The echo proves that the other program runs; its predecessor's stores have all happened. */
static void exec_of_another_program_drops_it(void **state)
{
    struct fixture *f = *state;
    pid_t pid = start_child(map_and_exec, f);

    tell(f->down[1], 12345);
    assert_int_equal(hear(f->up[0]), 12345);
    assert_int_equal(certificate_is_held(f->fd, SLOT), 0);
    kill_and_reap(pid);
}

static void bad_descriptors_are_errors(void **state)
{
    struct fixture *f = *state;
    char path[64];
    int fd;

    assert_int_equal(certificate_hold(-1, SLOT), -EBADF);
    assert_int_equal(certificate_release(-1, SLOT), -EBADF);
    assert_int_equal(certificate_is_held(-1, SLOT), -EBADF);
    assert_int_equal(certificate_reopen(-1), -ENOENT);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", f->fd);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(certificate_hold(fd, SLOT), -EBADF);
    assert_int_equal(certificate_is_held(fd, SLOT), 0);     /* looking needs no right to write */
    close(fd);
}

static void last_slot_is_a_byte_too(void **state)
{
    struct fixture *f = *state;
    int mine = certificate_reopen(f->fd);

    assert_int_equal(certificate_hold(mine, UINT32_MAX), 0);
    assert_int_equal(certificate_is_held(f->fd, UINT32_MAX), 1);
    assert_int_equal(certificate_is_held(f->fd, 0), 0);
    close(mine);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static void readers_share_a_byte_that_nobody_else_gets(void **state)
{
    int first = memfd_create("certificate", MFD_CLOEXEC), second = certificate_reopen(first), third = certificate_reopen(first);
    char path[32];
    int reader;

    (void)state;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", first);
    reader = open(path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(certificate_share(reader, 9), 0);
    assert_int_equal(certificate_share(second, 9), 0);
    assert_int_equal(certificate_hold(third, 9), -EAGAIN);
    assert_int_equal(certificate_is_held(third, 9), 1);
    close(reader);
    assert_int_equal(certificate_is_held(third, 9), 1);
    assert_int_equal(certificate_release(second, 9), 0);
    assert_int_equal(certificate_is_held(third, 9), 0);
    assert_int_equal(certificate_hold(third, 9), 0);
    assert_int_equal(certificate_share(second, 9), -EAGAIN);
    close(first);
    close(second);
    close(third);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(second_description_is_refused_until_the_first_releases),
        TEST(closing_another_descriptor_of_the_file_keeps_it),
        TEST(readers_share_a_byte_that_nobody_else_gets),
        TEST(kill_of_the_holder_drops_it),
        TEST(stop_of_the_holder_keeps_it),
        TEST(mapping_alone_keeps_it),
        TEST(forked_child_keeps_it_until_it_ends_too),
        TEST(exec_of_another_program_drops_it),
        TEST(bad_descriptors_are_errors),
        TEST(last_slot_is_a_byte_too),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
