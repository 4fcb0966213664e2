/*
 * check.h - is a crash image sound?
 */
#ifndef CRASH_CHECK_H
#define CRASH_CHECK_H

#include "scenario.h"

enum check_flags {
    CHECK_AT_ATTACH = 1u << 0,  /* let la_heap_attach() do the recovery */
    CHECK_SURVIVOR = 1u << 1,   /* the scenario's survive() comes before it */
    CHECK_CAPACITY = 1u << 2,   /* count what can still be allocated */
    CHECK_PEERS_DIE = 1u << 3,  /* then the peers die, too */
};

/*
 * Recover the heap in stage->path, check it against the model, recover again, use it, check again. In a process that never
 * attached a heap and that ends afterwards. The answer is stage->verdict; on a finding the process may end in here.
 */
void check_image(struct stage *stage, const struct scenario *scenario, unsigned flags);

#endif
