/*
 * source.h (core) - macro blocks for chains: take, give, abandon, adopt. The public face is liballoc/source.h.
 */
#ifndef CORE_SOURCE_H
#define CORE_SOURCE_H

#include "core/types.h"

extern HIDDEN struct la_source la_default_source;

/* A source with one segment that never grows; @source is caller's memory. */
void source_init_fixed(struct la_source *source, struct la_segment *segment, struct la_chain *orphan);

/*
 * Give @chain a macro block: an abandoned one that has a free block of class @c (SMALL_CLASSES: of no class) or @slices
 * free slices in a row, else a free one, else a new one. Its pages with free blocks are on chain->avail afterwards.
 * Return: false: out of memory.
 */
bool source_take_macro(struct la_source *source, struct la_chain *chain, unsigned c, unsigned slices);

/* Take a wholly free macro block back from @chain. */
void source_give_macro(struct la_source *source, struct la_chain *chain, struct la_macro *m);

/* Take a macro block with live blocks from an ending chain; its pages go to the orphan. */
void source_abandon_macro(struct la_source *source, struct la_chain *chain, struct la_macro *m);

/*
 * A run of macro blocks for one huge block of @bytes at a multiple of @alignment; the head page of its first slice.
 * For sources other than the default one, whose huge blocks have mappings of their own (huge.c).
 */
struct la_page *source_take_run(struct la_source *source, const struct la_chain *chain, size_t bytes, size_t alignment);
void source_give_run(struct la_source *source, struct la_page *page);

/* Blocks freed into queues that no thread empties any more (the orphan's, dead chains') are sorted in. */
void source_collect(struct la_source *source);
void source_note_dead_push(struct la_source *source);

/* @chain ends: kept for its queue, and for the next thread. */
void source_bury_chain(struct la_source *source, struct la_chain *chain);
/* A chain to use again, or NULL; its queue may hold blocks. */
struct la_chain *source_exhume_chain(struct la_source *source);

/* Count @bytes mapped outside of its segments against the limit; false: it forbids them (reported). And the reverse, from anywhere. */
bool source_charge(struct la_source *source, size_t bytes);
void source_uncharge(struct la_source *source, size_t bytes);

void source_release_segments(struct la_source *source);

/* Around fork: once for every source in use, however many chains use it. */
void source_fork_prepare(struct la_source *source);
void source_fork_done(struct la_source *source, bool child);

#endif
