/*
 * recover.c - what a dead process held is free again (R12).
 *
 * The caller holds the certificate byte of the process slot: the process is gone, and nobody else recovers it. Every step can be done
 * again from the start, so a recoverer may die as well:
 *   1  finish or undo the intent of each of its lanes
 *   2  free every block whose word names one of its lanes; tell the owners of the pages
 *   3  its macro blocks become abandoned: whoever needs memory adopts them
 *   4  its lanes, then its process slot are free
 * Step 1 must come first: the blocks of a bundle that was not published are found through its record, which step 2 frees.
 */
#include <errno.h>

#include "base/error.h"
#include "core/page.h"
#include "core/shared_heap.h"
#include "core/shared_macro.h"
#include "core/shared_run.h"
#include "os/certificate.h"

struct dead {
    struct la_heap *heap;
    unsigned slot;
    struct la_obituary *obituary;
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

/*
 * Free one block if a dead lane has it. One that is free already may have been freed by the dead just before it could tell the owner of the
 * page: told again, as the owner would not look there while it lives, and one more look does no harm.
 */
static void reclaim_word(const struct dead *dead, struct block_ref *ref)
{
    word_t w = atomic_load_explicit(ref->word, memory_order_relaxed);
    enum word_state state = word_state(w, ref->epoch);

    if (state == WORD_FREE && owner_lives(dead, ref->macro))
        block_hint(ref);
    if ((state != WORD_HELD && state != WORD_IN_DOUBT) || !lane_is_dead(dead, word_lane(w)))
        return;
    if (block_release(ref, w)) {
        count_freed(dead, ref->size);
        block_hint(ref);
    }
}

enum { ROW = 16 };

/*
 * reclaim_word() would do nothing for any word of the row: all are HEAP, or free where no living owner need be told. So it is with nearly all words of a
 * large heap, which are read here as fast as memory gives them, without a branch.
 */
static bool row_is_settled(const struct block_ref *ref, bool tell)
{
    const word_t of_heap = word_make(0, ref->epoch, WORD_HEAP, 0), meaning = word_make(0, ~0u, (enum word_state)3, 0);
    word_t not_heap = 0, not_free_or_heap = 0;

    for (unsigned i = 0; i < ROW; i++) {
        word_t w = atomic_load_explicit(&ref->word[i], memory_order_relaxed);

        not_heap |= (w ^ of_heap) & meaning;
        not_free_or_heap |= w ^ w >> 1;         /* bit 12: the two bits of the state differ */
    }
    return tell ? !not_heap : !(not_free_or_heap & word_make(0, 0, (enum word_state)1, 0));
}

/* Who adopts the page from now on looks at its words by himself. */
static void reclaim_page(const struct dead *dead, uint32_t macro, unsigned slice, slice_t page)
{
    const bool tell = owner_lives(dead, macro);
    struct block_ref ref;
    size_t n = block_first(dead->heap, macro, slice, page, &ref), row;

    if (n == 0)
        heap_quarantine(dead->heap, "a page word makes no sense");
    for (; n > 0; n -= row) {
        row = MIN(n, (size_t)ROW);
        if (row == ROW && row_is_settled(&ref, tell)) {
            ref.word += ROW;
            ref.start += ROW * ref.size;
            continue;
        }
        for (size_t i = 0; i < row; i++, ref.word++, ref.start += ref.size)
            reclaim_word(dead, &ref);
    }
}

static void reclaim_pages(const struct dead *dead, uint32_t macro)
{
    struct la_heap *heap = dead->heap;

    for (unsigned i = 0; i < SLICES_PER_MACRO; i++) {
        slice_t page = atomic_load_explicit(&heap->slices[(size_t)macro * SLICES_PER_MACRO + i].page, memory_order_acquire);

        if (slice_kind(page) == SLICE_SMALL || slice_kind(page) == SLICE_LARGE)
            reclaim_page(dead, macro, i, page);
    }
}

/* A block of several macro blocks that a dead lane held, allocated half or was taking apart. */
static void reclaim_run(const struct dead *dead, uint32_t macro, uint64_t owner)
{
    struct block_ref ref;
    word_t w;

    if (owner_head(owner) != macro || !block_find(dead->heap, dead->heap->payload + (size_t)macro * MACRO_SIZE, &ref))
        return;
    w = atomic_load_explicit(ref.word, memory_order_acquire);
    if (word_state(w, ref.epoch) == WORD_FREE || word_state(w, ref.epoch) == WORD_HEAP || !lane_is_dead(dead, word_lane(w)))
        return;
    count_freed(dead, ref.size);
    run_dismantle(&ref, word_lane(w));
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

static void free_blocks(const struct dead *dead)
{
    struct la_heap *heap = dead->heap;
    uint32_t rows = heap_rows(heap);

    for (uint32_t i = 0; i < rows; i++) {
        uint64_t owner = atomic_load_explicit(&heap->macros[i].owner, memory_order_acquire);

        if (owner_state(owner) == OWNER_LANE || owner_state(owner) == OWNER_ABANDONED)
            reclaim_pages(dead, i);
        else if (owner_state(owner) == OWNER_RUN)
            reclaim_run(dead, i, owner);
    }
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

void heap_recover_process(struct la_heap *heap, unsigned slot, struct la_obituary *obituary)
{
    struct heap_process *process = &heap->processes[slot];
    struct dead dead = { heap, slot, obituary };
    uint64_t state = atomic_load(&process->state);

    *obituary = (struct la_obituary){ .slot = slot, .pid = atomic_load(&process->pid) };
    heap_copy_command(obituary->command, process->command);
    for (unsigned i = 1; i < HEAP_LANES; i++)
        if (lane_is_dead(&dead, i)) {
            obituary->lanes++;
            lane_resolve_intent(heap, &heap->lane_table[i], i, obituary);
        }
    if (obituary->lanes)
        free_blocks(&dead);
    for (unsigned i = 1; i < HEAP_LANES; i++) {
        struct heap_lane *lane = &heap->lane_table[i];

        if (!lane_is_dead(&dead, i))
            continue;
        atomic_store(&lane->owner, atomic_load(&lane->owner) >> 32 << 32);
    }
    atomic_fetch_add(&heap->header->recovered_blocks, obituary->blocks);
    atomic_fetch_add(&heap->header->recovered_bytes, obituary->bytes);
    if (slot != heap->process)
        atomic_fetch_add(&heap->header->recovered_processes, 1);
    atomic_store(&process->state, state >> 32 << 32 | PROCESS_FREE);
}

int la_heap_recover(struct la_heap *heap, void (*each)(void *user, const struct la_obituary *), void *user)
{
    int found = 0;

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
