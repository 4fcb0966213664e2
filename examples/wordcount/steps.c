#include <signal.h>

#include "steps.h"

static uint64_t steps, die_at;
static bool only_in_bundle;

void steps_die_at(uint64_t number, bool in_bundle)
{
    die_at = number;
    only_in_bundle = in_bundle;
}

void steps_end(void)
{
    if (die_at)
        raise(SIGKILL);
}

void step(bool in_bundle)
{
    if ((in_bundle || !only_in_bundle) && ++steps == die_at)
        raise(SIGKILL);
}
