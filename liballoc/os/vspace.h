/* vspace.h (os) - what the library itself needs beyond <liballoc/vspace.h>. */
#ifndef OS_VSPACE_H
#define OS_VSPACE_H

#include <liballoc/vspace.h>

#include "base/util.h"

/*
 * Drop claims of the registry that nobody needs: @still_used answers for each. Called by la_vspace_claim() itself for names that are
 * paths (embedded heaps): a file that is gone needs no address once nobody has it mapped.
 */
int vspace_sweep(bool (*still_used)(void *arg, const char *name, uintptr_t address), void *arg);

/* In the child of a fork the table of mappings is a copy; mappings that were not inherited are forgotten by la_munmap(). */
void vspace_fork_prepare(void);
void vspace_fork_done(bool child);

#endif
