/*
 * futex.h - sleep on a word until somebody changes it, and wake who sleeps (futex(2)). errno is kept.
 */
#ifndef BASE_FUTEX_H
#define BASE_FUTEX_H

#include <errno.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Whose threads sleep there: one process's, or those of all that map the word. */
enum futex_scope { FUTEX_OF_PROCESS = FUTEX_PRIVATE_FLAG, FUTEX_OF_ALL = 0 };

/* @timeout NULL: for ever. Return: 0 (look again), -EAGAIN (the word is not @value), -ETIMEDOUT, -EINTR. */
static inline int futex_wait(_Atomic(uint32_t) *word, uint32_t value, const struct timespec *timeout, enum futex_scope scope)
{
    int saved = errno, r = syscall(SYS_futex, word, FUTEX_WAIT | (int)scope, value, timeout, NULL, 0) < 0 ? -errno : 0;

    errno = saved;
    return r;
}

/* Return: how many of at most @n were woken. */
static inline int futex_wake(_Atomic(uint32_t) *word, int n, enum futex_scope scope)
{
    int saved = errno, woken = (int)syscall(SYS_futex, word, FUTEX_WAKE | (int)scope, n, NULL, NULL, 0);

    errno = saved;
    return woken;
}

#endif
