/*
 * spin.h - look again for a moment before sleeping, because what is waited for is likely to come at once.
 *
 * Waking a sleeping processor takes 30 to 50 us in a virtual machine, several times what a request takes. Who spins for about as long as a wake-up
 * costs pays at most twice what the better of the two would have cost (Karlin, Li, Manasse, Owicki, "Empirical studies of competitive spinning for a
 * shared-memory multiprocessor", 1991). The processor is offered to others meanwhile: whoever is waited for may want this very one.
 */
#ifndef PROTOCOL_SPIN_H
#define PROTOCOL_SPIN_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

enum { SPIN_NS = 50 * 1000 };

struct spin {
    uint64_t until;     /* monotonic nanoseconds */
};

static inline uint64_t spin_clock(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 * 1000 * 1000 + (uint64_t)t.tv_nsec;
}

static inline void spin_begin(struct spin *spin)
{
    spin->until = spin_clock() + SPIN_NS;
}

/* true: it is worth another look. */
static inline bool spin_on(const struct spin *spin)
{
    if (spin_clock() >= spin->until)
        return false;
    sched_yield();
    return true;
}

#endif
