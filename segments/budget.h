/*
 * budget.h - limits that are looked at before a driver is called: a driver says ENOMEM, we say which limit, how much is needed, and the remedy.
 */
#ifndef SEGMENTS_BUDGET_H
#define SEGMENTS_BUDGET_H

#include <segments/registrar.h>

#include "base/util.h"

/*
 * May @bytes more be locked or pinned (RLIMIT_MEMLOCK, machine, control group)? @times: by how many registrars of its kind, this one included:
 * the system counts what devices pin for each of them. @fresh: they are not in memory yet.
 * Return: 0, -EDQUOT, -ENOMEM.
 */
int budget_check_pinning(const struct seg_registrar *registrar, size_t bytes, unsigned times, bool fresh);

#endif
