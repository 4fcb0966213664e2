/*
 * vspace_registry.h - who has which addresses of the arena: claims of one user on one machine.
 *
 * la_vspace_claim() and la_vspace_unclaim() are in <liballoc/vspace.h>.
 */
#ifndef OS_VSPACE_REGISTRY_H
#define OS_VSPACE_REGISTRY_H

#include <liballoc/vspace.h>

#include "base/util.h"

/*
 * Drop the claims that nobody needs any more.
 * @still_used: asked once per claim, with no lock held; NULL: vspace_claim_has_file()
 *
 * Claims younger than a minute are left alone: their file may be about to appear.
 * Return: number of claims dropped, or a negative errno.
 */
int vspace_sweep(bool (*still_used)(const char *name, uintptr_t address, void *user), void *user);

/* The same with another age in seconds. */
int vspace_sweep_older(uint64_t age, bool (*still_used)(const char *name, uintptr_t address, void *user), void *user);

/*
 * The rule for claims named after a file: "/PATH" is used while PATH exists, "/PATH#INODE" while it exists and is that file.
 * Other names are always used. @address and @user are ignored.
 */
bool vspace_claim_has_file(const char *name, uintptr_t address, void *user);

/* The claim with exactly that name. Return: 0, -ENOENT, or an errno of the registry file. */
int vspace_find_claim(const char *name, uintptr_t *address, size_t *size);

/* Called by vspace_fork_*(). */
void vspace_registry_fork_prepare(void);
void vspace_registry_fork_done(bool child);

#endif
