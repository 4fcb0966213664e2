/*
 * shared_run.h - blocks of several macro blocks in a shared heap.
 */
#ifndef CORE_SHARED_RUN_H
#define CORE_SHARED_RUN_H

#include "core/shared_block.h"

/* Held by @lane; NULL: no room (la_last_error()). */
void *run_take(struct lane *lane, size_t size);

/* Neither allocated half nor taken apart to any part. */
bool run_is_whole(const struct block_ref *ref);

/* The caller holds the block by its lane, or recovers the lane that did. Restartable: each macro block goes by its own word. */
void run_dismantle(const struct block_ref *ref, unsigned lane);

#endif
