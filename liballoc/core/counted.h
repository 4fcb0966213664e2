/*
 * counted.h - chains that count every call (LA_CHAIN_STATS).
 *
 * The fast path counts nothing, so it must not serve them: their bins are hidden as those of thread-safe chains are. What was asked for
 * stands in the last 8 bytes of each block, so that free() in any thread knows what to take off.
 */
#ifndef CORE_COUNTED_H
#define CORE_COUNTED_H

#include "core/types.h"

enum { COUNTED_TAIL = sizeof(uint64_t) };

/* Bytes of a block of @chain that are not its user's. */
static inline size_t counted_tail(const struct la_chain *chain)
{
    return unlikely(chain && (chain->flags & LA_CHAIN_STATS)) ? COUNTED_TAIL : 0;
}

/* @block of @size bytes is handed out; it comes back; its size changes. Each does nothing for other chains. */
void counted_out(struct la_chain *chain, void *block, size_t size);
void counted_back(struct la_chain *chain, const struct la_page *page, const void *block);
void counted_resized(struct la_chain *chain, const struct la_page *page, void *block, uint64_t old_size, size_t size);

/* What was asked for; 0 for other chains. */
uint64_t counted_size(const struct la_chain *chain, const struct la_page *page, const void *block);

#endif
