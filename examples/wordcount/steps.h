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

/* Die at step @number, or at the next one that finds the worker holding blocks if @holding; 0: never. */
void steps_die_at(uint64_t number, bool holding);
/* The worker's work is over before it came to step @number: die now. */
void steps_end(void);

/* @holding: blocks of the heap belong to this process now, and would be free after its death. */
void step(bool holding);

#endif
