#include "core/lane.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "core/chain.h"
#include "core/meta.h"
#include "core/restartable.h"
#include "core/shared_pool.h"
#include "core/source.h"
#include "core/trail.h"

__thread struct thread_lane la_tls_lanes[MAX_HEAPS];
/* No lane at first, nor NULL: that is what pages have that are nobody's. Aligned like one. */
__thread struct thread_lane la_tls_lane = { .lane = (struct lane *)_Alignof(struct lane) };

static size_t lane_bytes(void)
{
    return sizeof(struct lane) + pool_bins_bytes(true);
}

/* Before it is lent. Release: whoever sees it lent finds it. */
static void count_lane(struct la_heap *heap, uint32_t number)
{
    uint32_t lanes = atomic_load_explicit(&heap->header->lanes, memory_order_relaxed);

    while (lanes <= number &&
           !atomic_compare_exchange_weak_explicit(&heap->header->lanes, &lanes, number + 1, memory_order_release, memory_order_relaxed))
        ;
}

static struct lane *new_lane(struct la_heap *heap)
{
    struct lane *lane = la_meta_alloc(lane_bytes());

    if (!lane)
        return NULL;
    for (unsigned i = 1; i < HEAP_LANES; i++) {
        struct heap_lane *entry = &heap->lane_table[i];
        uint64_t free = atomic_load_explicit(&entry->owner, memory_order_relaxed);

        if ((free & UINT32_MAX) != 0)
            continue;
        lane->incarnation = (uint32_t)(free >> 32) + 1;
        count_lane(heap, i);
        if (!atomic_compare_exchange_strong(&entry->owner, &free, (uint64_t)lane->incarnation << 32 | (heap->process + 1)))
            continue;
        /* What the last one had to say is in the notices, see recover.c. */
        atomic_store_explicit(&entry->operation, 0, memory_order_release);
        atomic_store_explicit(&entry->happened, 0, memory_order_release);
        lane->heap = heap;
        lane->number = i;
        chain_init(&lane->chain, CHAIN_LANE, &la_default_source, NULL);
        lane->chain.ops = &lane_pool_ops;
        lane->chain.owner_data = lane;
        lane->chain.words = lane->words;
        pool_bins_open(&lane->chain, lane->bins);
        trail_open(lane);
        return lane;
    }
    la_meta_free(lane, lane_bytes());
    la_fail(-EUSERS, "heap %s: all %d lanes are in use; a process keeps those of its ended threads until it detaches", heap->header->name,
            LA_HEAP_MAX_LANES);
    return NULL;
}

static struct lane *idle_lane(struct la_heap *heap)
{
    struct lane *lane = heap->lanes;

    while (lane && !lane->idle)
        lane = lane->next;
    return lane;
}

static NOINLINE struct lane *lend_lane(struct la_heap *heap)
{
    struct lane *lane;

    if (heap_is_read_only(heap))
        return NULL;
    lock_take(&heap->lock);
    lane = idle_lane(heap);
    if (!lane) {
        lane = new_lane(heap);
        if (lane) {
            lane->next = heap->lanes;
            heap->lanes = lane;
        }
    }
    if (lane)
        lane->idle = false;
    lock_give(&heap->lock);
    if (!lane)
        return NULL;
    /* Of the thread that had it before; and what that one's restarts have left is yet to be found. */
    atomic_store_explicit(&heap->lane_table[lane->number].operation, 0, memory_order_release);
    lane->restarts_seen = la_tls_restarts - 1;
    la_tls_lanes[heap->index].lane = lane;
    la_tls_lanes[heap->index].serial = heap->serial;
    atomic_store_explicit(&lane->chain.user, thread_self(), memory_order_relaxed);
    thread_watch_end();
    return lane;
}

struct lane *heap_lane(struct la_heap *heap)
{
    struct lane *lane = heap_lane_if_any(heap);

    return likely(lane != NULL) ? lane : lend_lane(heap);
}

/*
 * What the thread has not in use is for all, as its lane may wait long for the next thread. Not where that is a look at many pages that are full, for each
 * of many short threads that have the lane in turn.
 */
static void give_memory_back(struct lane *lane)
{
    enum { FEW_MACROS = 8 };
    struct slow_path slow;

    lane_enter(lane, &slow);
    if (lane->chain.macro_count <= FEW_MACROS)
        lane_trim(&lane->chain);
    lane_leave(lane, &slow);
}

void lane_give_back(struct la_heap *heap)
{
    struct lane *lane = heap_lane_if_any(heap);

    if (!lane)
        return;
    if (lane->bundle)
        la_bundle_abort(lane->bundle);
    give_memory_back(lane);
    atomic_store_explicit(&lane->chain.user, NULL, memory_order_relaxed);
    lock_take(&heap->lock);
    lane->idle = true;
    lock_give(&heap->lock);
    la_tls_lanes[heap->index].lane = NULL;
}

void lane_begin_anew(struct la_heap *heap)
{
    struct lane *lane = heap_lane_if_any(heap);

    if (!lane || atomic_load_explicit(&lane->chain.user, memory_order_relaxed))
        return;
    lane_rebuild(lane);
    atomic_store_explicit(&lane->chain.user, thread_self(), memory_order_relaxed);
}

void lanes_forget_all(void)
{
    memset(la_tls_lanes, 0, sizeof(la_tls_lanes));
    la_tls_lane.serial = 0;
}

void lanes_release(struct la_heap *heap)
{
    for (struct lane *lane = heap->lanes, *next; lane; lane = next) {
        next = lane->next;
        pool_bins_release(&lane->chain);
        la_meta_free(lane, lane_bytes());
    }
}
