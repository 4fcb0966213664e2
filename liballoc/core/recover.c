/*
 * recover.c - what a dead process held is free again (R12), or left to its heir.
 *
 * The caller holds the certificate byte of the process slot: the process is gone, and nobody else recovers it. Every step can be done
 * again from the start, so a recoverer may die as well:
 *   1  finish or undo the intent of each of its lanes
 *   2  free every block whose word names one of its lanes; tell the owners of the pages. With an heir: let it stay HELD by that lane.
 *      trail.h says where to look
 *   3  its macro blocks become abandoned: whoever needs memory adopts them
 *   4  post what became of its operations, and its obituary (notice.c)
 *   5  its lanes, then its process slot are free; lanes that still hold something are left to the heir (heir.c)
 * Step 1 must come first: the blocks of a bundle that was not published are found through its record, which step 2 frees.
 */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "core/notice.h"
#include "core/publish.h"
#include "core/shared_block.h"
#include "core/shared_macro.h"
#include "core/shared_run.h"
#include "core/trail.h"
#include "os/certificate.h"
#include "os/os.h"

struct dead {
    struct la_heap *heap;
    unsigned slot;
    struct la_obituary *obituary;
    uint32_t heir;                          /* as in struct heap_process */
    bool everywhere;                        /* look at every block: the trail does not lead to all */
    uint64_t leaves[HEAP_LANES / 64];       /* lanes that hold something for it */
};

static bool lane_is_dead(const struct dead *dead, unsigned number)
{
    return number > 0 && number < HEAP_LANES &&
           (uint32_t)atomic_load_explicit(&dead->heap->lane_table[number].owner, memory_order_relaxed) == dead->slot + 1;
}

static void count_freed(const struct dead *dead, size_t bytes)
{
    dead->obituary->blocks++;
    dead->obituary->bytes += bytes;
}

/* The macro block is some living lane's; the dead's own are about to be abandoned, and looked through by whoever adopts them. */
static bool owner_lives(const struct dead *dead, uint32_t macro)
{
    uint64_t owner = atomic_load_explicit(&dead->heap->macros[macro].owner, memory_order_relaxed);

    return owner_state(owner) == OWNER_LANE && !lane_is_dead(dead, owner_lane(owner));
}

static bool is_held_by_dead(const struct dead *dead, const struct block_ref *ref, word_t w)
{
    enum word_state state = word_state(w, ref->epoch);

    return (state == WORD_HELD || state == WORD_IN_DOUBT) && lane_is_dead(dead, word_lane(w));
}

/* It stays as it is; what was in doubt is held, as it was not published (step 1). */
static void leave_to_heir(struct dead *dead, const struct block_ref *ref, word_t w)
{
    word_t held = word_make(word_generation(w), ref->epoch, WORD_HELD, word_lane(w));

    if (w != held && !atomic_compare_exchange_strong(ref->word, &w, held))
        return;
    dead->leaves[word_lane(w) / 64] |= 1ull << word_lane(w) % 64;
    dead->obituary->left_blocks++;
    dead->obituary->left_bytes += ref->size;
}

/*
 * Free one block if a dead lane has it. One that is free already may have been freed by the dead just before it could tell the owner of the
 * page: told again, as the owner would not look there while it lives, and one more look does no harm.
 */
static void reclaim_word(struct dead *dead, struct block_ref *ref, word_t w)
{
    if (word_state(w, ref->epoch) == WORD_FREE && owner_lives(dead, ref->macro))
        block_hint(ref);
    if (!is_held_by_dead(dead, ref, w))
        return;
    if (dead->heir && !bundle_is_record(ref)) {
        leave_to_heir(dead, ref, w);
    } else if (block_release(ref, w)) {
        count_freed(dead, ref->size);
        block_hint(ref);
    }
}

/* A block of several macro blocks that a dead lane held, allocated half or was taking apart. */
static void reclaim_run(struct dead *dead, struct block_ref *ref, word_t w)
{
    if (!is_held_by_dead(dead, ref, w))
        return;
    if (dead->heir && run_is_whole(ref)) {
        leave_to_heir(dead, ref, w);
        return;
    }
    count_freed(dead, ref->size);
    run_dismantle(ref, word_lane(w));
}

static void reclaim(void *user, struct block_ref *ref)
{
    struct dead *dead = user;
    word_t w = atomic_load_explicit(ref->word, memory_order_acquire);

    if (owner_state(atomic_load_explicit(&dead->heap->macros[ref->macro].owner, memory_order_relaxed)) == OWNER_RUN)
        reclaim_run(dead, ref, w);
    else
        reclaim_word(dead, ref, w);
}

/*
 * reclaim() would do nothing for any word of the row: all are HEAP, or free where no living owner need be told. So it is with nearly all words of a
 * large heap, which are read here as fast as memory gives them, without a branch.
 */
static bool row_is_settled(void *user, const struct block_ref *ref)
{
    const word_t of_heap = word_make(0, ref->epoch, WORD_HEAP, 0), meaning = word_make(0, ~0u, (enum word_state)3, 0);
    word_t not_heap = 0, not_free_or_heap = 0;

    for (unsigned i = 0; i < BLOCK_ROW; i++) {
        word_t w = atomic_load_explicit(&ref->word[i], memory_order_relaxed);

        not_heap |= (w ^ of_heap) & meaning;
        not_free_or_heap |= w ^ w >> 1;         /* bit 12: the two bits of the state differ */
    }
    if (owner_lives(user, ref->macro))
        return !not_heap;
    return !(not_free_or_heap & word_make(0, 0, (enum word_state)1, 0));
}

/* The dead lane was making a block of several macro blocks here, or taking one apart: its page must not outlast it. */
static void forget_run(struct la_heap *heap, uint32_t macro)
{
    struct heap_slice *slice = &heap->slices[(size_t)macro * SLICES_PER_MACRO];
    uint64_t run = atomic_load_explicit(&slice->run, memory_order_relaxed);

    if (slice_kind(atomic_load_explicit(&slice->page, memory_order_relaxed)) != SLICE_HUGE)
        return;
    atomic_store_explicit(&slice->page, slice_make(SLICE_FREE, 0, 0, 0, 0), memory_order_release);
    atomic_store_explicit(&slice->run, (uint64_t)word_make(word_generation((word_t)(run >> 32)) + 1, 0, WORD_FREE, 0) << 32, memory_order_release);
}

/* Slices in which the dead may hold blocks of their own making; what they have of others: trail_each(). */
static uint32_t where_to_look(const struct dead *dead, uint32_t macro)
{
    uint64_t owner = atomic_load_explicit(&dead->heap->macros[macro].owner, memory_order_relaxed);

    if (dead->everywhere)
        return UINT32_MAX;
    return owner_state(owner) == OWNER_LANE && lane_is_dead(dead, owner_lane(owner)) ? trail_marks(dead->heap, macro) : 0;
}

static void free_blocks(struct dead *dead)
{
    struct la_heap *heap = dead->heap;
    uint32_t rows = heap_rows(heap);

    /* In one call, not by a fault for every third of them. */
    os_populate(heap->macros, rows * sizeof(struct heap_macro));
    for (uint32_t i = 0; i < rows; i++)
        block_each_in(heap, i, where_to_look(dead, i), reclaim, row_is_settled, dead);
    for (unsigned i = 1; i < heap_lanes(heap) && !dead->everywhere; i++)
        if (lane_is_dead(dead, i))
            trail_each(heap, i, reclaim, dead);
    for (uint32_t i = 0; i < rows; i++) {
        uint64_t owner = atomic_load_explicit(&heap->macros[i].owner, memory_order_acquire);

        if (!lane_is_dead(dead, owner_lane(owner)))
            continue;
        if (owner_state(owner) == OWNER_CLAIMING) {
            forget_run(heap, i);
            macro_set_owner(heap, i, owner_make(OWNER_NONE, 0));
        } else if (owner_state(owner) == OWNER_LANE) {
            macro_set_owner(heap, i, owner_make(OWNER_ABANDONED, 0));
        }
    }
    /* Also when there was none to abandon: the recoverer before us may have died between the two. Release: pairs with adopt(). */
    atomic_fetch_add_explicit(&heap->header->abandoned, 1, memory_order_release);
}

/* What its lanes have to say about operations with a number; the obituary has one of them. */
static void post_outcomes(const struct dead *dead)
{
    for (unsigned i = 1; i < heap_lanes(dead->heap); i++) {
        struct heap_lane *lane = &dead->heap->lane_table[i];
        uint64_t operation = atomic_load(&lane->operation);

        if (!lane_is_dead(dead, i) || !operation)
            continue;
        notice_post_outcome(dead->heap, i, (uint32_t)(atomic_load(&lane->owner) >> 32), operation, atomic_load(&lane->happened));
        dead->obituary->operation = operation;
        dead->obituary->happened = atomic_load(&lane->happened) == operation;
    }
}

static void free_lanes(const struct dead *dead)
{
    for (unsigned i = 1; i < heap_lanes(dead->heap); i++) {
        struct heap_lane *lane = &dead->heap->lane_table[i];
        uint64_t incarnation = atomic_load(&lane->owner) >> 32 << 32;

        if (!lane_is_dead(dead, i))
            continue;
        /* The notices have it. Whoever is lent the lane, and dies before it gives numbers of its own, has begun nothing. */
        atomic_store(&lane->operation, 0);
        atomic_store(&lane->owner, dead->leaves[i / 64] >> i % 64 & 1 ? incarnation | LANE_LEFT | (dead->heir - 1) : incarnation);
    }
}

/* The root that names its heir; 0: it has none. */
static uint32_t heir_of(struct la_heap *heap, const struct heap_process *process, struct la_obituary *obituary)
{
    uint32_t heir = atomic_load(&process->heir);

    if (heir == 0 || heir > LA_HEAP_MAX_ROOTS)
        return 0;
    memcpy(obituary->heir, heap->roots[heir - 1].name, LA_HEAP_NAME_MAX);
    return heir;
}

void heap_recover_process(struct la_heap *heap, unsigned slot, struct la_obituary *obituary)
{
    struct heap_process *process = &heap->processes[slot];
    struct dead dead = { .heap = heap, .slot = slot, .obituary = obituary };
    uint64_t state = atomic_load(&process->state);

    *obituary = (struct la_obituary){ .slot = slot, .pid = atomic_load(&process->pid) };
    heap_copy_text(obituary->command, process->command, sizeof(obituary->command));
    dead.heir = heir_of(heap, process, obituary);
    /* Lanes that leave something are found by it, also by a second recoverer who finds macro blocks abandoned already. */
    dead.everywhere = dead.heir || trail_is_lost(heap, slot);
    for (unsigned i = 1; i < heap_lanes(heap); i++)
        if (lane_is_dead(&dead, i)) {
            obituary->lanes++;
            lane_resolve_intent(heap, &heap->lane_table[i], i, obituary);
        }
    if (obituary->lanes) {
        free_blocks(&dead);
        post_outcomes(&dead);
    }
    /* Not of ourselves, who detach. */
    if (slot != heap->process)
        notice_post_obituary(heap, (uint32_t)(state >> 32), obituary);
    free_lanes(&dead);
    atomic_fetch_add(&heap->header->recovered_blocks, obituary->blocks);
    atomic_fetch_add(&heap->header->recovered_bytes, obituary->bytes);
    if (slot != heap->process)
        atomic_fetch_add(&heap->header->recovered_processes, 1);
    atomic_store(&process->state, state >> 32 << 32 | PROCESS_FREE);
}

int la_heap_recover(struct la_heap *heap, void (*each)(void *user, const struct la_obituary *), void *user)
{
    int found = 0;

    if (heap_check_attached(heap) < 0)
        return -ECHILD;
    if (heap_is_read_only(heap))
        return -EROFS;
    /* Threads of one process share the description that locks the bytes: they take turns. */
    lock_take(&heap->recovering);
    for (unsigned i = 0; i < LA_HEAP_MAX_PROCESSES; i++) {
        struct la_obituary obituary;

        if (i == heap->process || (uint32_t)atomic_load(&heap->processes[i].state) == PROCESS_FREE ||
            certificate_hold(heap->fd, i) < 0)
            continue;
        /* The byte is ours now; look again, somebody may have been faster. */
        if ((uint32_t)atomic_load(&heap->processes[i].state) != PROCESS_FREE) {
            heap_recover_process(heap, i, &obituary);
            found++;
            if (each)
                each(user, &obituary);
        }
        certificate_release(heap->fd, i);
    }
    lock_give(&heap->recovering);
    return found;
}
