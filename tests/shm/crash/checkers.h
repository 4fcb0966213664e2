/*
 * checkers.h - give images to fresh processes.
 */
#ifndef CRASH_CHECKERS_H
#define CRASH_CHECKERS_H

#include "scenario.h"

/* Once, before the calling process takes much memory. */
void checkers_start(struct stage *stage);
void checkers_stop(void);

/* Check the heap at stage->path (flags: enum check_flags). Return: it is sound; else stage->verdict.text says what is not. */
bool checkers_check(struct stage *stage, const struct scenario *scenario, unsigned flags);

#endif
