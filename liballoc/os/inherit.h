/*
 * inherit.h - memory that children of fork() do not get: what a device uses must not become copy-on-write (segments/growth.c).
 */
#ifndef OS_INHERIT_H
#define OS_INHERIT_H

#include "base/util.h"

/* Whole pages. Return: 0, a negative errno (not this memory, -EEXIST: forbidden already, in part, -ENOMEM). */
int inherit_forbid(void *base, size_t size);
/* Exactly what was forbidden; what never was does nothing. */
void inherit_allow(void *base, size_t size);

/* Under vspace_lock(), which fork() holds. */
bool inherit_is_forbidden(const void *p);

/*
 * In the child, when locks are reset. Where the memory was, nothing else comes to lie: addresses of the parent's blocks stay what they are, and a
 * touch is a signal.
 */
void inherit_enter_child(void);

#endif
