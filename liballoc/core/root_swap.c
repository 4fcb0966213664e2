/*
 * root_swap.c - roots with a version: replace what a root points to if nobody has since it was read, and hold what was there.
 *
 * A swap takes the old block a and publishes the new one b under one mark (publish.c). Swapping a for b at root R of version v, by lane L; a or b may be
 * missing, not both:
 *     1  intent = { SWAP, R, a, generation of a; b, generation of b, v }
 *     2  word[b]: HELD by L -> IN_DOUBT by L
 *     3  R: a -> mark of L and the sequence                     compare-and-swap
 *     4  if the version is v: word[a]: HEAP, g -> HELD by L, g + 1      from now on the swap has happened (if there is no a: by 3 with version v)
 *     5  word[b]: IN_DOUBT by L -> HEAP
 *     6  version: v -> v + 1                                    compare-and-swap
 *     7  R: mark -> b; if 4 was refused, 5 and 6 are left out, and R: mark -> a
 *     8  intent ends
 *
 * Anybody may do 4 to 7. All come to the same decision: only step 6 changes a version, so it stands still while R has the mark of a swap that has not
 * happened, and a word of generation g is left once. What tells that it has happened, when the version says v + 1, and when the mark is gone:
 *     a is HELD by L, g + 1: it stays so until 8, as only L or its recoverer lets go of it
 *     without a: b is no longer in doubt, of its generation
 * A look at these words counts only if R had the mark afterwards: else they may speak of a later operation of L.
 *
 * Readers see the swap at 7. Between 6 and 7 they take one off the version, as they see a.
 *
 * la_publish(), la_take() and la_push() work on roots, too, but do not count.
 */
#include "core/root_swap.h"

#include <errno.h>

#include <liballoc/error.h>

#include "base/error.h"
#include "core/lane.h"
#include "core/trail.h"

/* The root that a link is; NULL: it is none. */
static struct heap_root *root_of(struct la_heap *heap, const la_link *link)
{
    size_t offset = (size_t)((const char *)link - (const char *)heap->roots);

    if (offset >= LA_HEAP_MAX_ROOTS * sizeof(struct heap_root) || offset % sizeof(struct heap_root) != offsetof(struct heap_root, value))
        return NULL;
    return &heap->roots[offset / sizeof(struct heap_root)];
}

/* The new block; copied from the heap. */
struct operands {
    uint64_t other, version;
    unsigned generation;
};

static struct operands read_operands(const struct la_heap *heap, const struct intent *intent)
{
    struct heap_lane *lane = &heap->lane_table[intent->lane];

    /* Acquire: the caller looks at the link afterwards. */
    return (struct operands){ atomic_load_explicit(&lane->other, memory_order_acquire), atomic_load_explicit(&lane->version, memory_order_acquire),
                              atomic_load_explicit(&lane->other_generation, memory_order_acquire) };
}

/* Before the rest of the intent, which makes them valid. */
static void write_operands(struct heap_lane *lane, const struct operands *operands)
{
    atomic_store_explicit(&lane->other, operands->other, memory_order_release);
    atomic_store_explicit(&lane->version, operands->version, memory_order_release);
    atomic_store_explicit(&lane->other_generation, operands->generation, memory_order_release);
}

/* ---- the steps that anybody may do ---- */

static bool find_block(struct la_heap *heap, uint64_t offset, struct block_ref *ref)
{
    return offset < heap->size && block_find(heap, heap->base + offset, ref) && ref->start == heap->base + offset;
}

/* What the words say of it; see the head. */
static bool has_happened(struct la_heap *heap, const struct intent *intent, const struct operands *operands)
{
    struct block_ref ref;
    word_t w;

    if (intent->block)
        return find_block(heap, intent->block, &ref) &&
               atomic_load(ref.word) == word_make(intent->generation + 1, ref.epoch, WORD_HELD, intent->lane);
    /* Freed since, with its page: it was there to be taken. */
    if (!find_block(heap, operands->other, &ref))
        return true;
    w = atomic_load(ref.word);
    return word_generation(w) != operands->generation || word_state(w, ref.epoch) == WORD_HEAP;
}

/* Step 4. */
static bool decide(struct la_heap *heap, struct heap_root *root, const struct intent *intent, const struct operands *operands)
{
    /* Acquire, as is_marked_still(): the version is read before the link. */
    if (atomic_load_explicit(&root->version, memory_order_acquire) != operands->version)
        return has_happened(heap, intent, operands);
    return !intent->block || intent_take_block(heap, intent);
}

bool swap_finish(struct la_heap *heap, la_link *link, const struct intent *intent)
{
    struct operands operands = read_operands(heap, intent);
    uintptr_t seen = intent->mark, next = intent->block ? (uintptr_t)heap->base + intent->block : 0;
    struct heap_root *root = root_of(heap, link);
    struct block_ref ref = { 0 };
    bool happened;

    if (!is_marked_still(link, intent->mark))
        return true;
    if (!root || (operands.other && !find_block(heap, operands.other, &ref)))
        return false;
    happened = decide(heap, root, intent, &operands);
    if (!is_marked_still(link, intent->mark))
        return true;
    /* Each fails when somebody was faster. */
    if (happened) {
        word_t in_doubt = word_make(operands.generation, ref.epoch, WORD_IN_DOUBT, intent->lane);
        uint64_t version = operands.version;

        if (operands.other)
            atomic_compare_exchange_strong(ref.word, &in_doubt, word_make(operands.generation, ref.epoch, WORD_HEAP, 0));
        atomic_compare_exchange_strong(&root->version, &version, version + 1);
        next = (uintptr_t)ref.start;
    }
    atomic_compare_exchange_strong(link_bits(link), &seen, next);
    return true;
}

bool swap_resolve_intent(struct la_heap *heap, la_link *link, const struct intent *intent)
{
    struct operands operands = read_operands(heap, intent);

    if (is_marked_still(link, intent->mark) && !swap_finish(heap, link, intent))
        link_is_damaged(heap);
    if (has_happened(heap, intent, &operands))
        return true;
    bundle_hold(heap, intent->record, intent->lane);
    return false;
}

/* ---- swap ---- */

/* A swap of the calling thread. block: { 0 } without a new one. */
struct swap {
    struct la_heap *heap;
    struct lane *lane;
    la_link *link;
    struct heap_root *root;
    uint64_t version, record;
    struct block_ref block;
    word_t held;                /* of block */
};

/* One try with the old block @old; -EAGAIN: somebody else was faster. */
static int try_swap(const struct swap *swap, uintptr_t old)
{
    struct la_heap *heap = swap->heap;
    struct heap_lane *lane = &heap->lane_table[swap->lane->number];
    struct operands operands = { swap->block.start ? heap_offset(heap, swap->block.start) : 0, swap->version, word_generation(swap->held) };
    uintptr_t seen = old, mark;
    struct block_ref ref = { 0 };
    struct intent intent;
    bool happened = false;
    int r = 0;

    if (old && (!block_find(heap, (void *)old, &ref) || (uintptr_t)ref.start != old)) {
        if (atomic_load_explicit(link_bits(swap->link), memory_order_acquire) != old)
            return -EAGAIN;
        return la_fail(-EINVAL, "root %.*s holds %#lx, which is no block of heap %s", LA_HEAP_NAME_MAX, swap->root->name, old, heap->header->name);
    }
    if (old)
        trail_note(swap->lane, &ref);
    write_operands(lane, &operands);
    mark = intent_begin(heap, swap->lane->number, INTENT_SWAP, swap->link, old ? old : (uintptr_t)heap->base, swap->record, 0,
                        old ? word_generation(atomic_load_explicit(ref.word, memory_order_acquire)) : 0);
    if (swap->block.start)
        atomic_store_explicit(swap->block.word, word_make(operands.generation, swap->block.epoch, WORD_IN_DOUBT, swap->lane->number), memory_order_release);
    bundle_keep(heap, swap->record, swap->lane->number);
    if (atomic_compare_exchange_strong(link_bits(swap->link), &seen, mark)) {
        intent = intent_read(heap, swap->lane->number);
        swap_finish(heap, swap->link, &intent);
        happened = has_happened(heap, &intent, &operands);
        /* Still what it was, but in no state to be taken: it will be no other. */
        if (!happened && old && word_generation(atomic_load_explicit(ref.word, memory_order_acquire)) == intent.generation &&
            atomic_load_explicit(&swap->root->version, memory_order_acquire) == swap->version)
            r = la_fail(-EINVAL, "block %#lx cannot be taken from root %.*s: it is free or held by another process", old, LA_HEAP_NAME_MAX, swap->root->name);
    } else if (is_marked(seen) && link_help(heap, swap->link, seen) < 0) {
        r = la_last_error_code();
    }
    if (happened) {
        intent_succeed(lane);
        return 0;
    }
    bundle_hold(heap, swap->record, swap->lane->number);
    if (swap->block.start)
        atomic_store_explicit(swap->block.word, swap->held, memory_order_release);
    intent_end(lane);
    return r < 0 ? r : -EAGAIN;
}

/* Bounded: each round somebody else's operation was finished, and one that counts ends it. */
static int swap_root(const struct swap *swap, void **old)
{
    int r;

    do {
        uintptr_t seen = atomic_load_explicit(link_bits(swap->link), memory_order_acquire);

        if (is_marked(seen)) {
            r = link_help(swap->heap, swap->link, seen) < 0 ? la_last_error_code() : -EAGAIN;
            continue;
        }
        if (atomic_load_explicit(&swap->root->version, memory_order_acquire) != swap->version)
            return -EAGAIN;
        if (!seen && !swap->block.start) {
            *old = NULL;
            return 0;
        }
        r = try_swap(swap, seen);
        if (r == 0)
            *old = (void *)seen;
    } while (r == -EAGAIN);
    return r;
}

static int begin(struct swap *swap, struct la_heap *heap, la_link *root, uint64_t version, void *block)
{
    struct lane *lane = heap_lane(heap);
    int r;

    if (!lane)
        return la_last_error_code();
    *swap = (struct swap){ .heap = heap, .lane = lane, .link = root, .root = root_of(heap, root), .version = version };
    if (!swap->root)
        return la_fail(-EINVAL, "link %p is no root of heap %s: get it from la_heap_root()", (void *)root, heap->header->name);
    if (!block)
        return 0;
    r = find_held(heap, lane, block, &swap->block);
    if (r == 0)
        swap->held = atomic_load_explicit(swap->block.word, memory_order_relaxed);
    return r;
}

int la_root_swap(struct la_heap *heap, la_link *root, uint64_t version, void *block, void **old)
{
    struct swap swap;
    int r = begin(&swap, heap, root, version, block);

    return r < 0 ? r : swap_root(&swap, old);
}

int la_bundle_swap(struct la_bundle *bundle, la_link *root, uint64_t version, void *block, void **old)
{
    struct swap swap;
    int r = block ? begin(&swap, bundle->heap, root, version, block) : la_fail(-EINVAL, "a bundle is found by its root block: NULL is none");

    if (r < 0)
        return r;
    swap.record = bundle_record(bundle);
    r = swap_root(&swap, old);
    if (r == 0)
        bundle_end(bundle);
    return r;
}

/* ---- read ---- */

/* What the root with the mark of an operation still is; false: the mark has gone. */
static bool read_marked(struct la_heap *heap, struct heap_root *root, uintptr_t mark, void **value, uint64_t *version)
{
    struct intent intent = intent_read(heap, mark_lane(mark));
    struct operands operands = read_operands(heap, &intent);

    *version = atomic_load_explicit(&root->version, memory_order_acquire);
    if (intent.op == INTENT_SWAP && *version != operands.version && has_happened(heap, &intent, &operands))
        *version -= 1;
    *value = intent.block && intent.block < heap->size ? heap->base + intent.block : NULL;
    return is_marked_still((la_link *)&root->value, mark);
}

int la_root_read(struct la_heap *heap, la_link *link, void **value, uint64_t *version)
{
    struct heap_root *root = root_of(heap, link);

    if (!root)
        return la_fail(-EINVAL, "link %p is no root of heap %s: get it from la_heap_root()", (void *)link, heap->header->name);
    for (;;) {
        /* Acquire, all three: version, value, version. A value without a mark belongs to a version that was the same before and after. */
        uint64_t before = atomic_load_explicit(&root->version, memory_order_acquire);
        uintptr_t seen = atomic_load_explicit(&root->value, memory_order_acquire);

        if (is_marked(seen)) {
            if (read_marked(heap, root, seen, value, version))
                return 0;
        } else if (atomic_load_explicit(&root->version, memory_order_acquire) == before) {
            *value = (void *)seen;
            *version = before;
            return 0;
        }
    }
}
