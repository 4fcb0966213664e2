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
 * What lane @number is about to do; the last store makes it valid. The meaning of @record and @next_offset is the operation's (shared_layout.h).
 * Return: the mark of this intent, for links.
 */
uintptr_t intent_begin(struct la_heap *heap, unsigned number, enum intent_op op, const void *link, uintptr_t block, uint64_t record,
                       uint64_t next_offset, unsigned generation);
void intent_end(struct heap_lane *lane);

/* A held block of the calling thread's lane, from its address. 0, or -EINVAL with its reason. */
int find_held(struct la_heap *heap, struct lane *lane, const void *block, struct block_ref *ref);

/* Offset of the bundle's record for the intent, 0: it has none. */
uint64_t bundle_record(const struct la_bundle *bundle);
/* Its blocks outlive @lane, before its root can be found; and not, as the root was not published after all. Of 0: nothing. */
void bundle_keep(struct la_heap *heap, uint64_t record, unsigned lane);
void bundle_hold(struct la_heap *heap, uint64_t record, unsigned lane);
/* It is published or given up: its record goes, and the lane may begin another. */
void bundle_end(struct la_bundle *bundle);

#endif
