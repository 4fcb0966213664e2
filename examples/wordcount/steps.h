/*
 * steps.h - where a worker may be told to die.
 *
 * To see that a death at any point does no harm, a worker counts the steps of its work, and kills itself with
 * SIGKILL at a given one: no handler, no cleaning up, exactly as from outside, but at a point that a seed can repeat.
 */
#ifndef WORDCOUNT_STEPS_H
#define WORDCOUNT_STEPS_H

#include <stdbool.h>
#include <stdint.h>

/* Die at step @number, or with @in_bundle at that of the steps with an open bundle; 0: never. */
void steps_die_at(uint64_t number, bool in_bundle);
/* The worker's work is over before it came to step @number: die now. */
void steps_end(void);

/* @in_bundle: the worker has a bundle open, hundreds of blocks perhaps that nobody else knows of. */
void step(bool in_bundle);

#endif
