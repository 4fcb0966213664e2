/*
 * maps.h - what is mapped where in this process: /proc/self/maps, read without allocating.
 */
#ifndef OS_MAPS_H
#define OS_MAPS_H

#include "base/util.h"

struct map_entry {
    uintptr_t start, end;
    char permissions[5];
    char path[160];     /* "" for anonymous memory; cut if longer */
};

/*
 * Call @visit for every mapping that touches [start, end), in rising order, until it returns false.
 * Return: 0, or a negative errno when /proc is not there.
 */
int maps_each(uintptr_t start, uintptr_t end, bool (*visit)(void *arg, const struct map_entry *entry), void *arg);

#endif
