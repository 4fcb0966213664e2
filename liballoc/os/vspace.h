/*
 * vspace.h (os) - the arena underneath <liballoc/vspace.h>, for the registry, recovery and fork.
 */
#ifndef OS_VSPACE_H
#define OS_VSPACE_H

#include <liballoc/vspace.h>

#include "base/util.h"
#include "os/range_table.h"

/* A range of addresses that was measured to be free of every kind of program. */
struct vspace_range {
    const char *name;
    uintptr_t base;
    size_t size;
};

enum { VSPACE_WIDE, VSPACE_NARROW, VSPACE_ARENAS };

extern HIDDEN const struct vspace_range vspace_ranges[VSPACE_ARENAS];

/* Which arena new claims of this process lie in. Return: its index, or -EINVAL (LIBALLOC_VSPACE has another word). */
int vspace_default(void);

/* The arena around [address, address + size), -1: none holds it whole. */
int vspace_find(uintptr_t address, size_t size);

/* A copy of the ranges that la_mmap() has mapped in this process. Return: 0, -ENOMEM. */
int vspace_copy_mapped(struct range_table *ret);

/*
 * The lock of the table of mappings, which also guards the tables of segments/: few and seldom changed, so one lock that is
 * prepared for fork serves all. No call of vspace or of the user between the two.
 */
void vspace_lock(void);
void vspace_unlock(void);

/* Around fork(): no fork in the middle of a change or while the registry is locked. Call after all lower ranks. */
void vspace_fork_prepare(void);
void vspace_fork_done(bool child);

#endif
