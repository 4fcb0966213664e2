/* chain.h (core) - what chains of every kind share. The public face is liballoc/chain.h. */
#ifndef CORE_CHAIN_H
#define CORE_CHAIN_H

#include "core/types.h"

/* @bins_memory: pool_bins_bytes() long, or NULL for none. */
void chain_init(struct la_chain *chain, enum la_chain_kind kind, struct la_source *source, void *bins_memory);

/* Take every macro block and huge block from @chain; its blocks are gone. */
void chain_drop_memory(struct la_chain *chain);

/* In a child of fork() that does not have its memory: nothing is in it, nothing can be had from it, it can be destroyed. */
void chain_lose(struct la_chain *chain);

/* Slow paths of alloc.c; any chain, locks if it must. */
void *chain_alloc(struct la_chain *chain, size_t size, bool *zeroed);
void *chain_alloc_aligned(struct la_chain *chain, size_t alignment, size_t size);

#endif
