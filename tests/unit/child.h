/*
 * child.h - run a check in a forked child, so that what it changes (arena, limits, environment) ends with it.
 *
 * In a child say CHECK(), not assert_*(): cmocka's would jump back into the runner, and the child would go on with the
 * parent's tests.
 */
#ifndef TESTS_UNIT_CHILD_H
#define TESTS_UNIT_CHILD_H

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <liballoc/error.h>

/* Built with a sanitizer, which has terabytes of mappings of its own: limits on memory cannot be tested. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

#define CHECK(condition)                                                                                              \
    do {                                                                                                              \
        if (!(condition)) {                                                                                           \
            fprintf(stderr, "%s:%d: in child: %s is false (last error: %s)\n", __FILE__, __LINE__, #condition,        \
                    la_last_error());                                                                                 \
            _exit(1);                                                                                                 \
        }                                                                                                             \
    } while (0)

/* Status of a child that cannot do its check on this machine: the test says skip(). */
enum { CANNOT = 77 };

/* Leave the calling child @bytes more of address space. Ends it with CANNOT where nobody enforces that (an emulator). */
static inline void limit_address_space(size_t bytes)
{
    struct rlimit limit;
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");

    CHECK(file && fscanf(file, "%lu", &pages) == 1);
    fclose(file);
    limit.rlim_cur = limit.rlim_max = pages * (unsigned long)sysconf(_SC_PAGESIZE) + bytes;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    if (mmap(NULL, 2 * bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) != MAP_FAILED)
        _exit(CANNOT);
}

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
        /* cmocka's handlers, too, would jump back into the runner. */
        signal(SIGBUS, SIG_DFL);
        signal(SIGSEGV, SIG_DFL);
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
