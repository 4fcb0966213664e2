#include "core/policy.h"

/* One program phase is long, a tight cycle short: what nobody wanted for this long is given back. */
#define OLD_MS 10000
/* Four 32 MiB blocks in a cycle, twice: below this, counting bytes is not worth a fault. */
#define SMALL_CACHE (256 * MiB)

bool policy_keeps(const struct policy_input *in)
{
    if (in->cached <= 4 * MiB)
        return true;
    if (in->age_ms > OLD_MS)
        return false;
    if (in->cached <= SMALL_CACHE)
        return true;
    return in->cached <= in->mapped / 4;
}
