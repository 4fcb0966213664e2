/*
 * policy.h - keep, or give back? The whole decision, over plain inputs.
 *
 * "Why free when we have memory? But be aggressive when it is needed." A page fault costs as much as 300 pairs of malloc and
 * free, so free memory is kept until it is more than a share of what lives, or old.
 */
#ifndef CORE_POLICY_H
#define CORE_POLICY_H

#include "base/util.h"

struct policy_input {
    size_t cached;          /* bytes free and maybe resident, in one source */
    size_t mapped;          /* bytes the source has mapped */
    uint64_t age_ms;        /* since the oldest cached piece was freed */
};

bool policy_keeps(const struct policy_input *in);

#endif
