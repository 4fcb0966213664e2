/*
 * meta.h - memory for the engine's own structures: works before libc does, never calls malloc.
 *
 * Sizes are rounded to powers of two from 64 bytes on; freed ones are kept by size for the next taker. Zeroed.
 */
#ifndef CORE_META_H
#define CORE_META_H

#include "base/util.h"

void *la_meta_alloc(size_t size);
void la_meta_free(void *p, size_t size);

void meta_fork_prepare(void);
void meta_fork_done(bool child);

#endif
