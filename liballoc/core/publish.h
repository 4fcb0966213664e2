/*
 * publish.h - the steps of publish and take that queues and swaps of roots take, too (queue.c, root_swap.c).
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
/* Nothing was done; and: it happened, which stays known (outcome.c). */
void intent_end(struct heap_lane *lane);
void intent_succeed(struct heap_lane *lane);

/* What a lane is about to do, copied from the heap. */
struct intent {
    enum intent_op op;
    unsigned lane, generation;
    uint64_t block, record, next_offset;
    uintptr_t mark;
};

struct intent intent_read(const struct la_heap *heap, unsigned number);

/* ---- links and their marks ---- */

/* A marked link: | 1 | lane 12 | sequence 51 |. */
enum { MARK_LANE_SHIFT = 51 };
#define MARK ((uint64_t)1 << 63)

static inline bool is_marked(uintptr_t value)
{
    return value & MARK;
}

static inline unsigned mark_lane(uintptr_t value)
{
    return value >> MARK_LANE_SHIFT & (HEAP_LANES - 1);
}

static inline _Atomic(uintptr_t) *link_bits(la_link *link)
{
    return (_Atomic(uintptr_t) *)link;
}

/* Acquire: pairs with the release of whoever removed the mark. */
static inline bool is_marked_still(la_link *link, uintptr_t mark)
{
    return atomic_load_explicit(link_bits(link), memory_order_acquire) == mark;
}

/* @link was seen to have @mark: do what its lane would do next. 0: the mark is gone; -EUCLEAN: no lane has left it. */
int link_help(struct la_heap *heap, la_link *link, uintptr_t mark);
/* No lane has left the mark that a link has. Return: -EUCLEAN. */
int link_is_damaged(struct la_heap *heap);

/* HEAP, of the intent's generation -> HELD by its lane, of the next, by whoever is first; false: it is not of that generation, or in no state to be taken. */
bool intent_take_block(struct la_heap *heap, const struct intent *intent);

/* A held block of the calling thread's lane, from its address. 0, or -EINVAL with its reason. */
int find_held(struct la_heap *heap, struct lane *lane, const void *block, struct block_ref *ref);

/* Offset of the bundle's record for the intent, 0: it has none. */
uint64_t bundle_record(const struct la_bundle *bundle);
/* The block is such a record, of a bundle that is or was. */
bool bundle_is_record(const struct block_ref *ref);
/* Its blocks outlive @lane, before its root can be found; and not, as the root was not published after all. Of 0: nothing. */
void bundle_keep(struct la_heap *heap, uint64_t record, unsigned lane);
void bundle_hold(struct la_heap *heap, uint64_t record, unsigned lane);
/* It is published or given up: its record goes, and the lane may begin another. */
void bundle_end(struct la_bundle *bundle);

#endif
