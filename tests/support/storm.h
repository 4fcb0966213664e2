/*
 * storm.h - signals to the calling thread at any of its instructions, as fast as it can take them.
 *
 * By a timer, not by another thread: on one processor each signal of that one would cost a time slice.
 */
#ifndef SUPPORT_STORM_H
#define SUPPORT_STORM_H

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <time.h>
#include <unistd.h>

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

/*
 * From the end of one handler to the next signal: the thread goes on in between. With a timer that runs on by itself, a handler that takes longer than the
 * interval (on a busy machine, inside of a slow path) is followed by the next signal at once, and nothing else is ever done.
 */
enum { STORM_INTERVAL_NS = 15000 };

static struct {
    timer_t timer;
    void (*handler)(int signal);
    volatile sig_atomic_t is_on;
} storm;

static inline int storm_next(void)
{
    const struct itimerspec once = { .it_value.tv_nsec = STORM_INTERVAL_NS };

    return timer_settime(storm.timer, 0, &once, NULL);
}

static inline void storm_strikes(int signal)
{
    int saved = errno;

    storm.handler(signal);
    if (storm.is_on)
        storm_next();
    errno = saved;
}

/* @handler gets SIGUSR1 from now on. Return: false if the system gives no timer. */
static inline bool storm_begin(void (*handler)(int signal))
{
    struct sigaction action = { .sa_handler = storm_strikes, .sa_flags = SA_RESTART };
    struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1, .sigev_notify_thread_id = gettid() };

    storm.handler = handler;
    storm.is_on = true;
    return sigaction(SIGUSR1, &action, NULL) == 0 && timer_create(CLOCK_MONOTONIC, &event, &storm.timer) == 0 && storm_next() == 0;
}

/* No signal comes after it. */
static inline void storm_end(void)
{
    struct sigaction action = { .sa_handler = SIG_IGN };

    storm.is_on = false;
    timer_delete(storm.timer);
    sigaction(SIGUSR1, &action, NULL);
}

#endif
