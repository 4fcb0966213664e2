/*
 * storm.h - signals to the calling thread at any of its instructions, as fast as it can take them.
 *
 * By a timer, not by another thread: on one processor each signal of that one would cost a time slice.
 */
#ifndef SUPPORT_STORM_H
#define SUPPORT_STORM_H

#include <signal.h>
#include <time.h>
#include <unistd.h>

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

enum { STORM_INTERVAL_NS = 15000 };

/* @handler gets SIGUSR1 from now on. Return: false if the system gives no timer. */
static inline bool storm_begin(timer_t *storm, void (*handler)(int signal))
{
    struct sigaction action = { .sa_handler = handler, .sa_flags = SA_RESTART };
    struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1, .sigev_notify_thread_id = gettid() };
    const struct itimerspec interval = { { 0, STORM_INTERVAL_NS }, { 0, STORM_INTERVAL_NS } };

    return sigaction(SIGUSR1, &action, NULL) == 0 && timer_create(CLOCK_MONOTONIC, &event, storm) == 0 &&
           timer_settime(*storm, 0, &interval, NULL) == 0;
}

/* No signal comes after it. */
static inline void storm_end(timer_t storm)
{
    struct sigaction action = { .sa_handler = SIG_IGN };

    timer_delete(storm);
    sigaction(SIGUSR1, &action, NULL);
}

#endif
