/*
 * repair.h - a chain after a jump out of a slow path (siglongjmp from a handler).
 */
#ifndef CORE_REPAIR_H
#define CORE_REPAIR_H

#include "core/types.h"

/*
 * Make the lists and counts of @chain again from what its blocks and pages say. At most the block in the hands of the call that was left is
 * lost. For its user, with signals held; touches every page of it.
 */
void chain_repair(struct la_chain *chain);

#endif
