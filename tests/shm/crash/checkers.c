/*
 * checkers.c - a process that forks a fresh checker for each image.
 *
 * It is forked when the driver is still small, so that its own forks are cheap, and waits for orders on a socket. A checker that crashes or
 * hangs has found something, too.
 */
#include "checkers.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

enum { CHECK_SECONDS = 60 };

static int checkers = -1;
static pid_t checkers_pid;

struct order {
    uint32_t scenario, flags;
};

static void serve_orders(struct stage *stage, int fd)
{
    struct order order;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (read(fd, &order, sizeof(order)) == sizeof(order)) {
        pid_t pid = fork();
        int status = -1;

        if (pid == 0) {
            alarm(CHECK_SECONDS);
            check_image(stage, &scenarios[order.scenario], order.flags);
        }
        if (pid < 0 || waitpid(pid, &status, 0) != pid || write(fd, &status, sizeof(status)) != sizeof(status))
            _exit(1);
    }
    _exit(0);
}

void checkers_start(struct stage *stage)
{
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0 || (checkers_pid = fork()) < 0)
        abort();
    if (checkers_pid == 0) {
        close(ends[0]);
        serve_orders(stage, ends[1]);
    }
    close(ends[1]);
    checkers = ends[0];
}

void checkers_stop(void)
{
    close(checkers);
    waitpid(checkers_pid, NULL, 0);
}

bool checkers_check(struct stage *stage, const struct scenario *scenario, unsigned flags)
{
    struct order order = { (uint32_t)(scenario - scenarios), flags };
    int status;

    if (write(checkers, &order, sizeof(order)) != sizeof(order) || read(checkers, &status, sizeof(status)) != sizeof(status))
        stage_fail("the checkers are gone");
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return true;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 3)
        stage_fail("a checker could not do its work");
    if (WIFSIGNALED(status))
        snprintf(stage->verdict.text, sizeof(stage->verdict.text), WTERMSIG(status) == SIGALRM ? "the checker hangs" : "the checker dies of signal %d",
                 WTERMSIG(status));
    return false;
}
