/*
 * heir.c - what the dead held is kept for whoever comes in their place.
 *
 * Nothing is moved at a death: the blocks stay HELD by the lane they were held by, and the lane's owner becomes LANE_LEFT and the index of the root
 * that names the heir (recover.c). That is one store per lane, and it can be done again.
 *
 * Inheriting is a walk over all blocks: a word that is HELD by such a lane, g -> HELD by ours, g + 1, by one compare-and-swap. The lane's owner is looked at
 * after the word: if it is the same as at the beginning of the walk, the word was the dead's, as nobody else gets the lane before; if the block goes
 * elsewhere between the two, its generation moves. After a walk the lanes that were left at its beginning hold nothing, as nobody gives them
 * anything: they are free.
 */
#include <errno.h>

#include <liballoc/error.h>

#include "base/error.h"
#include "core/lane.h"
#include "core/trail.h"

enum { LANES_AT_ONCE = 64 };

struct estate {
    struct la_heap *heap;
    struct lane *lane;
    void (*each)(void *user, void *block, size_t size);
    void *user;
    long count;
    unsigned next;              /* lane where to look for more */
    unsigned lanes;
    unsigned number[LANES_AT_ONCE];
    uint64_t owner[LANES_AT_ONCE];
};

/* -EINVAL, -ENOSPC, -EROFS, or the index of the root. */
static int root_index(struct la_heap *heap, const char *name)
{
    la_link *root;
    int r;

    if (heap_is_read_only(heap))
        return -EROFS;
    r = la_heap_root(heap, name, &root);
    return r < 0 ? r : (int)(container_of((_Atomic(uintptr_t) *)root, struct heap_root, value) - heap->roots);
}

int la_heap_set_heir(struct la_heap *heap, const char *name)
{
    int index = name ? root_index(heap, name) : -1;

    if (name && index < 0)
        return index;
    if (heap_is_read_only(heap))
        return -EROFS;
    atomic_store(&heap->processes[heap->process].heir, (uint32_t)(index + 1));
    return 0;
}

/* Lanes that are left to the heir, at most as many as fit. */
static void find_lanes(struct estate *estate, uint32_t heir)
{
    estate->lanes = 0;
    for (; estate->next < heap_lanes(estate->heap) && estate->lanes < LANES_AT_ONCE; estate->next++) {
        uint64_t owner = atomic_load_explicit(&estate->heap->lane_table[estate->next].owner, memory_order_acquire);

        if ((uint32_t)owner != (LANE_LEFT | heir))
            continue;
        estate->number[estate->lanes] = estate->next;
        estate->owner[estate->lanes++] = owner;
    }
}

static bool is_left(const struct estate *estate, unsigned lane)
{
    for (unsigned i = 0; i < estate->lanes; i++)
        if (estate->number[i] == lane)
            /* Acquire: after the word, see the head. */
            return atomic_load_explicit(&estate->heap->lane_table[lane].owner, memory_order_acquire) == estate->owner[i];
    return false;
}

static void inherit(void *user, struct block_ref *ref)
{
    struct estate *estate = user;
    word_t w = atomic_load_explicit(ref->word, memory_order_acquire);

    if (word_state(w, ref->epoch) != WORD_HELD || !is_left(estate, word_lane(w)))
        return;
    if (!estate->each) {
        estate->count++;
        return;
    }
    trail_note(estate->lane, ref);
    if (atomic_compare_exchange_strong(ref->word, &w, word_make(word_generation(w) + 1, ref->epoch, WORD_HELD, estate->lane->number))) {
        estate->count++;
        estate->each(estate->user, ref->start, ref->size);
    }
}

static void free_lanes(const struct estate *estate)
{
    for (unsigned i = 0; i < estate->lanes; i++) {
        uint64_t owner = estate->owner[i];

        atomic_compare_exchange_strong(&estate->heap->lane_table[estate->number[i]].owner, &owner, owner >> 32 << 32);
    }
}

long la_heap_inherit(struct la_heap *heap, const char *name, void (*each)(void *user, void *block, size_t size), void *user)
{
    struct estate estate = { .heap = heap, .each = each, .user = user, .next = 1 };
    int heir = root_index(heap, name);

    if (heir < 0)
        return heir;
    estate.lane = heap_lane(heap);
    if (!estate.lane)
        return la_last_error_code();
    do {
        find_lanes(&estate, (uint32_t)heir);
        if (estate.lanes)
            block_each(heap, inherit, NULL, &estate);
        if (each)
            free_lanes(&estate);
    } while (estate.next < heap_lanes(heap));
    return estate.count;
}
