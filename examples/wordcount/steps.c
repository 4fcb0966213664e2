#include <signal.h>

#include "steps.h"

static uint64_t steps, die_at;
static bool only_holding;

void steps_die_at(uint64_t number, bool holding)
{
    die_at = number;
    only_holding = holding;
}

void steps_end(void)
{
    if (die_at)
        raise(SIGKILL);
}

void step(bool holding)
{
    steps++;
    if (die_at && steps >= die_at && (holding || !only_holding))
        raise(SIGKILL);
}
