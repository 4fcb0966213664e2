/*
 * publish.h - the steps of publish and take that the queue takes, too (queue.c).
 */
#ifndef CORE_PUBLISH_H
#define CORE_PUBLISH_H

#include "core/shared_block.h"

struct record;

struct la_bundle {
    struct la_heap *heap;
    struct lane *lane;
    struct record *record;      /* the latest */
};

/*
 * What the lane is about to do; the last store makes it valid. The meaning of @record and @next_offset is the operation's (shared_layout.h).
 */
void intent_begin(struct la_heap *heap, struct heap_lane *lane, enum intent_op op, const void *link, uintptr_t block,
                  uint64_t record, uint64_t next_offset, unsigned generation);
void intent_end(struct heap_lane *lane);

/* A held block of the calling thread's lane, from its address. 0, or -EINVAL with its reason. */
int find_held(struct la_heap *heap, struct lane *lane, const void *block, struct block_ref *ref);

/* HEAP or IN_DOUBT of @generation -> HELD by @lane, of the next; false: not of that generation, or in no state to be taken. */
bool take_word(struct la_heap *heap, uintptr_t block, unsigned lane, unsigned generation);

/* Offset of the bundle's record for the intent, 0: it has none. */
uint64_t bundle_record(const struct la_bundle *bundle);
/* Its root is reachable: the other blocks follow, the intent ends, and so does the bundle. */
void bundle_published(struct la_bundle *bundle);
/* The same for the record of a dead lane. */
void bundle_keep(struct la_heap *heap, uint64_t record, unsigned lane);

#endif
