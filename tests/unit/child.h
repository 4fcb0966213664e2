/*
 * child.h - run a check in a forked child, so that what it changes (arena, limits, environment) ends with it.
 *
 * In a child say CHECK(), not assert_*(): cmocka's would jump back into the runner, and the child would go on with the
 * parent's tests.
 */
#ifndef TESTS_UNIT_CHILD_H
#define TESTS_UNIT_CHILD_H

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <liballoc/error.h>

#define CHECK(condition)                                                                                              \
    do {                                                                                                              \
        if (!(condition)) {                                                                                           \
            fprintf(stderr, "%s:%d: in child: %s is false (last error: %s)\n", __FILE__, __LINE__, #condition,        \
                    la_last_error());                                                                                 \
            _exit(1);                                                                                                 \
        }                                                                                                             \
    } while (0)

/* Wait for a child. Return: its exit status, or 128 + signal. */
static inline int child_status(pid_t pid)
{
    int status;

    while (waitpid(pid, &status, 0) < 0)
        ;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* Fork; the child runs @body and ends with status 0. */
static inline pid_t start_child(void (*body)(void *), void *arg)
{
    pid_t pid = fork();

    if (pid == 0) {
        body(arg);
        _exit(0);
    }
    return pid;
}

static inline int run_in_child(void (*body)(void *), void *arg)
{
    return child_status(start_child(body, arg));
}

#endif
