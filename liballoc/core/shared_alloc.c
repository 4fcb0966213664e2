/*
 * shared_alloc.c - allocate and free in a shared heap, by the calling thread's lane. The usual cases are in shared_fast.h.
 */
#include "core/lane.h"
#include "core/shared.h"

#include <errno.h>

#include "base/error.h"
#include "core/misuse.h"
#include "core/page.h"
#include "core/pool.h"
#include "core/shared_fast.h"
#include "core/shared_macro.h"
#include "core/shared_pool.h"
#include "core/shared_run.h"
#include "core/trail.h"

/* ---- allocate ---- */

/* Before the lane holds a block of its own macro blocks. */
static void mark(struct lane *lane, const void *block, enum la_policy policy)
{
    if (policy == LA_HELD && trail_mark(lane->heap, block))
        lane->has_marks = true;
}

/* The one store that allocates; false: somebody has the block already. */
static bool commit(struct lane *lane, _Atomic(word_t) *word, unsigned epoch, enum la_policy policy)
{
    /* Acquire: see block_release(). */
    word_t w = atomic_load_explicit(word, memory_order_acquire);

    if (unlikely(word_state(w, epoch) != WORD_FREE))
        return false;
    atomic_store_explicit(word, policy == LA_HELD ? word_make(word_generation(w), epoch, WORD_HELD, lane->number)
                                                  : word_make(word_generation(w), epoch, WORD_HEAP, 0),
                          memory_order_release);
    return true;
}

static void *alloc_small(struct lane *lane, unsigned c, enum la_policy policy)
{
    void *block;

    /* An entry whose word is in use was listed twice: harmless, as only words decide. See bin_release(). */
    while ((block = pool_alloc_small(&lane->chain, c))) {
        mark(lane, block, policy);
        if (word_claim(lane_page_word(lane_page_of(&lane->chain, block), block), lane_holder_bits(lane, policy)))
            return block;
    }
    return NULL;
}

static unsigned class_for(size_t size, size_t alignment)
{
    unsigned c = MAX(class_of(MAX(size, alignment)), 1u);

    while (alignment > 16 && c < SMALL_CLASSES && class_size(c) % alignment != 0)
        c++;
    return c;
}

static void *alloc_run(struct lane *lane, size_t size, size_t alignment, enum la_policy policy)
{
    struct block_ref ref;
    void *block;

    if (size > (SLICES_PER_MACRO - 1) * SLICE_SIZE || alignment > MACRO_SIZE / 2) {
        if (alignment > MACRO_SIZE)
            return NULL;
        block = run_take(lane, size);
        if (!block) {
            lane_trim(&lane->chain);
            block = run_take(lane, size);
        }
        if (!block)
            lane_starves(lane);
        if (block && policy == LA_KEEP && block_find(lane->heap, block, &ref)) {
            word_t w = atomic_load_explicit(ref.word, memory_order_relaxed);
            atomic_store_explicit(ref.word, word_make(word_generation(w), 0, WORD_HEAP, 0), memory_order_release);
        }
        return block;
    }
    block = pool_alloc_large(&lane->chain, size, MAX(alignment, (size_t)16));
    if (!block || !block_find(lane->heap, block, &ref))
        return NULL;
    mark(lane, block, policy);
    return commit(lane, ref.word, ref.epoch, policy) ? block : NULL;
}

void *shared_alloc(struct la_chain *face, size_t size, size_t alignment)
{
    struct la_heap *heap = face->owner_data;
    struct lane *lane = heap_lane(heap);
    unsigned c = SMALL_CLASSES;
    struct slow_path slow;
    void *block;

    if (unlikely(!lane))
        return NULL;
    if (size > PTRDIFF_MAX || alignment > heap->size)
        return NULL;
    if (MAX(size, alignment) <= SMALL_MAX)
        c = class_for(size, alignment);
    lane_enter(lane, &slow);
    block = c < SMALL_CLASSES ? alloc_small(lane, c, face->policy) : alloc_run(lane, MAX(size, (size_t)1), alignment, face->policy);
    lane_leave(lane, &slow);
    return block;
}

void *shared_alloc_fast(struct la_chain *face, size_t size)
{
    struct la_heap *heap = face->owner_data;

    size = MAX(size, (size_t)9);    /* class 0 is not for shared heaps */
    return face->policy == LA_KEEP ? lane_alloc_fast(heap, size, LA_KEEP) : lane_alloc_fast(heap, size, LA_HELD);
}

/* ---- free ---- */

static void refuse(const struct block_ref *ref, const void *block, word_t w)
{
    static const char *const states[] = { "was freed already", "changed hands while it was freed", "is being published", "was freed twice at once" };

    misuse_report(block, "%s: block of %zu bytes in heap %s, generation %u", states[word_state(w, ref->epoch)], ref->size,
                  ref->heap->header->name, word_generation(w));
}

/* @w -> FREE; false: it is no longer @w. @ours: we hold the block. */
static inline bool release(const struct block_ref *ref, bool ours, word_t w)
{
    if (!ours)
        return block_release(ref, w);
    /* Ours alone: one store. */
    atomic_store_explicit(ref->word, word_make(word_generation(w) + 1, ref->epoch, WORD_FREE, 0), memory_order_release);
    return true;
}

static bool is_ours(const struct block_ref *ref, const struct lane *lane, word_t w)
{
    return lane && word_state(w, ref->epoch) == WORD_HELD && word_lane(w) == lane->number;
}

/* In a page of another lane, whose thread is told; false: the word is no longer @w. */
static inline __attribute__((always_inline)) bool free_abroad(const struct block_ref *ref, const struct lane *lane, bool ours, word_t w)
{
    bool noted = trail_free_begin(ref->heap, lane, ref->start), freed = release(ref, ours, w);

    if (likely(freed))
        block_hint(ref);
    trail_free_end(lane, noted);
    return freed;
}

/* @nested: in a signal handler, while our own lane may be at work on its pages. */
static void free_found(const struct block_ref *ref, struct lane *lane, void *block, bool nested)
{
    word_t w = atomic_load_explicit(ref->word, memory_order_relaxed);
    enum word_state state = word_state(w, ref->epoch);
    struct slow_path slow;
    struct la_page *page;

    if (unlikely(state == WORD_FREE || state == WORD_IN_DOUBT)) {
        refuse(ref, block, w);
        return;
    }
    if (unlikely(owner_state(atomic_load_explicit(&ref->heap->macros[ref->macro].owner, memory_order_relaxed)) == OWNER_RUN)) {
        if (!lane)
            lane = heap_lane(ref->heap);
        if (lane && atomic_compare_exchange_strong_explicit(ref->word, &w, word_make(word_generation(w) + 1, ref->epoch, WORD_HELD, lane->number),
                                                            memory_order_acq_rel, memory_order_relaxed))
            run_dismantle(ref, lane->number);
        else
            refuse(ref, block, w);
        return;
    }
    page = &ref->heap->segment.pages[(size_t)ref->macro * SLICES_PER_MACRO + ref->slice];
    if (!lane || nested || page->kind == PAGE_NONE || atomic_load_explicit(&page->chain, memory_order_relaxed) != &lane->chain) {
        if (unlikely(!free_abroad(ref, lane, is_ours(ref, lane, w), w)))
            refuse(ref, block, atomic_load_explicit(ref->word, memory_order_relaxed));
        return;
    }
    if (unlikely(!release(ref, is_ours(ref, lane, w), w))) {
        refuse(ref, block, atomic_load_explicit(ref->word, memory_order_relaxed));
        return;
    }
    lane_enter(lane, &slow);
    pool_free(&lane->chain, page, block);
    lane_give_surplus(&lane->chain);
    lane_leave(lane, &slow);
}

bool shared_free_fast(const struct la_page *page, void *block)
{
    struct la_heap *heap = page->kind == PAGE_SHARED ? container_of(page, struct la_heap, page)
                                                     : container_of(page->macro->segment, struct la_heap, segment);
    const struct lane *lane;
    struct block_ref ref;
    word_t w, meaning;

    if (!block_find_small(heap, block, &ref))
        return false;
    /* The line comes once, to be written; not to be read first. */
    prefetch_to_write((void *)ref.word);
    lane = heap_lane_if_any(heap);
    w = atomic_load_explicit(ref.word, memory_order_relaxed);
    meaning = w & WORD_MEANING_MASK;
    if (likely(meaning == word_make(0, ref.epoch, WORD_HEAP, 0)))
        return free_abroad(&ref, lane, false, w);
    /* Taken before. What is ours altogether belongs into our bin. */
    return lane && meaning == word_make(0, ref.epoch, WORD_HELD, lane->number) && !macro_is_of_lane(heap, ref.macro, lane->number) &&
           free_abroad(&ref, lane, true, w);
}

bool shared_free(void *block, bool nested)
{
    struct la_heap *heap = heap_around(block);
    struct block_ref ref;

    if (!heap)
        return false;
    if (heap->flags & LA_HEAP_READ_ONLY)
        misuse_report(block, "is in heap %s, which is attached for reading only", heap->header->name);
    else if (!block_find(heap, block, &ref))
        misuse_report(block, "is in no live block of heap %s", heap->header->name);
    else if (ref.start != block)
        misuse_report(block, "is %zu bytes into a block of %zu bytes at %p in heap %s", (size_t)((char *)block - ref.start),
                      ref.size, (void *)ref.start, heap->header->name);
    else
        free_found(&ref, heap_lane_if_any(heap), block, nested);
    return true;
}

size_t shared_usable_size(const void *block)
{
    struct la_heap *heap = heap_around(block);
    struct block_ref ref;

    if (!heap || !block_find(heap, block, &ref) || ref.start != block)
        return 0;
    return word_state(atomic_load_explicit(ref.word, memory_order_relaxed), ref.epoch) == WORD_FREE ? 0 : ref.size;
}

bool shared_owner(const void *address, struct la_owner *ret)
{
    struct la_heap *heap = heap_around(address);
    struct block_ref ref;

    if (!heap)
        return false;
    ret->shared = true;
    ret->chain = &heap->face[LA_KEEP];
    ret->chain_name = heap->header->name;
    ret->segment_base = heap->base;
    ret->segment_size = heap->size;
    if (block_find(heap, address, &ref)) {
        ret->block = ref.start;
        ret->block_size = ref.size;
        ret->live = word_state(atomic_load_explicit(ref.word, memory_order_relaxed), ref.epoch) != WORD_FREE;
    }
    return true;
}
