/* kill.h - the end of a worker process, by the test and not by an abort of its own. After cmocka.h. */
#ifndef TESTS_SUPPORT_KILL_H
#define TESTS_SUPPORT_KILL_H

#include <signal.h>
#include <sys/wait.h>

static inline void kill_worker(pid_t pid)
{
    int status;

    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

#endif
