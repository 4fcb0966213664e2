/*
 * publish.c - hand blocks over through any pointer-sized word of the heap: publish, take, bundles.
 *
 * Publishing b through link, by lane L (DESIGN, R11):
 *     1  intent = { PUBLISH, link, b, generation of b }, with the next sequence number of L
 *     2  word[b]: HELD by L -> IN_DOUBT by L
 *     3  link: expected -> mark of L and the sequence      compare-and-swap; from now on the publish has happened
 *     4  word[b]: IN_DOUBT by L -> HEAP
 *     5  link: mark -> b
 *     6  intent ends
 * Taking b from link, by lane L:
 *     1  intent = { TAKE, link, b, generation g of b, where in b the replacement lies }, with the next sequence number
 *     2  link: b -> mark of L and the sequence             compare-and-swap
 *     3  word[b]: HEAP, g -> HELD by L, g + 1              from now on the take has happened
 *     4  link: mark -> replacement
 *     5  intent ends
 *
 * Nobody waits at a mark: whoever meets it, and recovery, does the next steps for L, from L's intent. A mark is used once: the sequence
 * has 51 bits. So "the link still has this mark" proves that the intent's fields, read before, are those of this very operation, and a
 * helper that slept finds the mark gone, however long it was. (With the block's address in the mark and 4 bits of sequence, a helper that
 * slept through 16 operations of L undid a take that had happened.)
 *
 * A link without a mark points to a block that is not in doubt. So recovery can decide: word[b] IN_DOUBT and the link not marked says
 * never published. (Settling the old block before pushing upon it is not enough: between the look and the compare-and-swap another lane
 * may take it and publish it again, and be killed; and settling a block whose lane is killed before step 3 loses it.)
 *
 * While link is marked nobody changes it otherwise, and b's own link word stands still (users change links inside a published block only
 * under a lock), so the replacement is the right one: there is no ABA of list heads. If b was freed and reused between 1 and 2, its
 * generation is not g: then everybody takes the mark back.
 *
 * A bundle is published by its root in the same way. The intent also names the bundle's record, a list of the other blocks, which go from
 * HELD to HEAP between 2 and 3: whoever finds the root finds all of them ready to be freed or taken. If step 3 fails they become HELD
 * again; if the lane dies before it, recovery does that.
 */
#include <errno.h>

#include <liballoc/error.h>

#include "base/error.h"
#include "core/lane.h"
#include "core/meta.h"
#include "core/publish.h"
#include "core/queue.h"
#include "core/root_swap.h"
#include "core/shared_block.h"
#include "core/trail.h"

#define MARK_SEQUENCE_MASK (((uint64_t)1 << MARK_LANE_SHIFT) - 1)

static uintptr_t mark_of(unsigned lane, uint64_t sequence)
{
    return MARK | (uint64_t)lane << MARK_LANE_SHIFT | (sequence & MARK_SEQUENCE_MASK);
}

_Static_assert(HEAP_LANES == 1 << 12 && sizeof(uintptr_t) == 8, "a lane and 51 bits of sequence are 63 bits");

/* ---- intents ---- */

/* Release, each field: who reads one of this intent also sees that the mark of the one before is gone (see intent_read()). */
uintptr_t intent_begin(struct la_heap *heap, unsigned number, enum intent_op op, const void *link, uintptr_t block, uint64_t record,
                       uint64_t next_offset, unsigned generation)
{
    struct heap_lane *lane = &heap->lane_table[number];
    uint64_t sequence = atomic_load_explicit(&lane->sequence, memory_order_relaxed) + 1;

    atomic_store_explicit(&lane->sequence, sequence, memory_order_release);
    atomic_store_explicit(&lane->link, heap_offset(heap, link), memory_order_release);
    atomic_store_explicit(&lane->block, heap_offset(heap, (void *)block), memory_order_release);
    atomic_store_explicit(&lane->record, record, memory_order_release);
    atomic_store_explicit(&lane->next_offset, next_offset, memory_order_release);
    atomic_store_explicit(&lane->generation, generation, memory_order_release);
    atomic_store_explicit(&lane->op, op, memory_order_release);
    return mark_of(number, sequence);
}

void intent_succeed(struct heap_lane *lane)
{
    uint64_t operation = atomic_load_explicit(&lane->operation, memory_order_relaxed);

    if (operation)
        atomic_store_explicit(&lane->happened, operation, memory_order_release);
    intent_end(lane);
}

void intent_end(struct heap_lane *lane)
{
    atomic_store_explicit(&lane->op, INTENT_NONE, memory_order_release);
}

struct intent intent_read(const struct la_heap *heap, unsigned number)
{
    struct heap_lane *lane = &heap->lane_table[number];

    /* Acquire: pairs with intent_begin(); the caller looks at the link afterwards. */
    return (struct intent){
        .op = (enum intent_op)atomic_load_explicit(&lane->op, memory_order_acquire),
        .lane = number,
        .generation = atomic_load_explicit(&lane->generation, memory_order_acquire),
        .block = atomic_load_explicit(&lane->block, memory_order_acquire),
        .record = atomic_load_explicit(&lane->record, memory_order_acquire),
        .next_offset = atomic_load_explicit(&lane->next_offset, memory_order_acquire),
        .mark = mark_of(number, atomic_load_explicit(&lane->sequence, memory_order_acquire)),
    };
}

/* ---- the steps that anybody may do ---- */

/* false: there is no such block. */
static bool finish_publish(struct la_heap *heap, la_link *link, const struct intent *intent)
{
    uintptr_t seen = intent->mark;
    struct block_ref ref;
    word_t in_doubt;

    if (!block_find(heap, heap->base + intent->block, &ref))
        return false;
    in_doubt = word_make(intent->generation, ref.epoch, WORD_IN_DOUBT, intent->lane);
    /* Each fails when somebody was faster. Release: what the block holds comes before the link, also when a helper stores it. */
    atomic_compare_exchange_strong(ref.word, &in_doubt, word_make(intent->generation, ref.epoch, WORD_HEAP, 0));
    atomic_compare_exchange_strong(link_bits(link), &seen, (uintptr_t)ref.start);
    return true;
}

/* There is a link word at @offset of the block; offsets are the caller's, or another lane's. */
static bool has_word(const struct block_ref *ref, uint64_t offset)
{
    return offset % sizeof(uintptr_t) == 0 && offset < ref->size && ref->size - offset >= sizeof(uintptr_t);
}

/* What replaces the block in the link; false: the block is not what the intent says, the heap has been damaged. */
static bool replacement(struct la_heap *heap, const struct intent *intent, uintptr_t *ret)
{
    struct block_ref ref;

    *ret = 0;
    if (intent->next_offset == LA_NO_NEXT)
        return true;
    if (!block_find(heap, heap->base + intent->block, &ref) || !has_word(&ref, intent->next_offset))
        return false;
    *ret = (uintptr_t)la_load(heap, (la_link *)(ref.start + intent->next_offset));
    return true;
}

/* Step 3 of a take, and of a swap. */
bool intent_take_block(struct la_heap *heap, const struct intent *intent)
{
    struct block_ref ref;
    word_t w, taken;

    if (!block_find(heap, heap->base + intent->block, &ref) || ref.start != heap->base + intent->block)
        return false;
    w = word_make(intent->generation, ref.epoch, WORD_HEAP, 0);
    taken = word_make(intent->generation + 1, ref.epoch, WORD_HELD, intent->lane);
    return atomic_compare_exchange_strong(ref.word, &w, taken) || w == taken;
}

static bool finish_take(struct la_heap *heap, la_link *link, const struct intent *intent)
{
    uintptr_t block = (uintptr_t)heap->base + intent->block, next, seen = intent->mark;
    bool taken = intent_take_block(heap, intent) && replacement(heap, intent, &next);

    /* Fails when somebody was faster: they stored the same. */
    atomic_compare_exchange_strong(link_bits(link), &seen, taken ? next : block);
    return taken;
}

/* What is marked by @intent; false: the intent is damaged. */
static bool finish(struct la_heap *heap, la_link *link, const struct intent *intent)
{
    switch (intent->op) {
    case INTENT_TAKE:
        finish_take(heap, link, intent);
        return true;
    case INTENT_PUBLISH:
        return finish_publish(heap, link, intent) || !is_marked_still(link, intent->mark);
    case INTENT_SWAP:
        return swap_finish(heap, link, intent) || !is_marked_still(link, intent->mark);
    default:
        return false;
    }
}

int link_is_damaged(struct la_heap *heap)
{
    heap_quarantine(heap, "a link has a mark that no lane has left");
    return la_last_error_code();
}

int link_help(struct la_heap *heap, la_link *link, uintptr_t mark)
{
    struct intent intent = intent_read(heap, mark_lane(mark));

    if (!is_marked_still(link, mark))
        return 0;
    /* So the intent that was read is the mark's. */
    if (intent.mark != mark || !finish(heap, link, &intent))
        return link_is_damaged(heap);
    return 0;
}

void *la_load(struct la_heap *heap, la_link *link)
{
    for (;;) {
        /* Acquire: pairs with the release of the publisher's compare-and-swap. */
        uintptr_t value = atomic_load_explicit(link_bits(link), memory_order_acquire);
        uint64_t block;

        if (likely(!is_marked(value)))
            return (void *)value;
        /* Being published: it is there. Being taken or swapped: it still is. */
        block = atomic_load_explicit(&heap->lane_table[mark_lane(value)].block, memory_order_acquire);
        if (atomic_load_explicit(link_bits(link), memory_order_acquire) == value)
            return block && block < heap->size ? heap->base + block : NULL;
    }
}

/* ---- publish ---- */

int find_held(struct la_heap *heap, struct lane *lane, const void *block, struct block_ref *ref)
{
    word_t w;

    if (!block_find(heap, block, ref) || ref->start != block)
        return la_fail(-EINVAL, "%p is no block of heap %s", block, heap->header->name);
    w = atomic_load_explicit(ref->word, memory_order_relaxed);
    if (word_state(w, ref->epoch) != WORD_HELD || word_lane(w) != lane->number)
        return la_fail(-EINVAL, "block %p is not held by this thread: get it from la_heap_hold() or la_take()", block);
    return 0;
}

static int check_link(struct la_heap *heap, const void *link)
{
    if (!heap_link_is_valid(heap, link))
        return la_fail(-EINVAL, "link %p is no pointer-sized, aligned word of heap %s", link, heap->header->name);
    return 0;
}

typedef void entry_visitor(struct la_heap *heap, _Atomic(uint64_t) *entry, unsigned lane);
static void each_entry(struct la_heap *heap, uint64_t offset, unsigned lane, entry_visitor *visit);
static entry_visitor keep_entry, hold_entry;

/* Step 3: replaces @expected, and only that. Bounded: each round somebody else's operation was finished. */
static int swing(struct la_heap *heap, la_link *link, uintptr_t expected, uintptr_t mark)
{
    for (;;) {
        uintptr_t seen = expected;
        int r;

        /* Release: what the block holds comes before the link; acquire: what the old block holds, before ours is freed. */
        if (atomic_compare_exchange_strong_explicit(link_bits(link), &seen, mark, memory_order_acq_rel, memory_order_acquire))
            return 0;
        if (!is_marked(seen))
            return -EAGAIN;
        r = link_help(heap, link, seen);
        if (r < 0)
            return r;
    }
}

static int publish(struct la_heap *heap, struct lane *lane, la_link *link, uintptr_t expected, struct block_ref *ref, uint64_t record)
{
    word_t held = atomic_load_explicit(ref->word, memory_order_relaxed);
    struct intent intent = { .op = INTENT_PUBLISH, .lane = lane->number, .generation = word_generation(held),
                             .block = heap_offset(heap, ref->start) };
    int r;

    intent.mark = intent_begin(heap, lane->number, INTENT_PUBLISH, link, (uintptr_t)ref->start, record, 0, intent.generation);
    atomic_store_explicit(ref->word, word_make(intent.generation, ref->epoch, WORD_IN_DOUBT, lane->number), memory_order_release);
    each_entry(heap, record, lane->number, keep_entry);
    r = swing(heap, link, expected, intent.mark);
    if (r == 0) {
        finish_publish(heap, link, &intent);
        intent_succeed(&heap->lane_table[lane->number]);
    } else {
        each_entry(heap, record, lane->number, hold_entry);
        atomic_store_explicit(ref->word, held, memory_order_release);
        intent_end(&heap->lane_table[lane->number]);
    }
    return r;
}

int la_publish(struct la_heap *heap, la_link *link, void *expected, void *block)
{
    struct lane *lane = heap_lane(heap);
    struct block_ref ref;
    int r;

    if (!lane)
        return la_last_error_code();
    r = check_link(heap, link);
    if (r == 0)
        r = find_held(heap, lane, block, &ref);
    if (r == 0)
        r = publish(heap, lane, link, (uintptr_t)expected, &ref, 0);
    return r;
}

int la_push(struct la_heap *heap, la_link *head, void *block, size_t next_offset)
{
    size_t size = la_usable_size(block);
    int r;

    if (next_offset % sizeof(void *) || next_offset >= size || size - next_offset < sizeof(void *))
        return la_fail(-EINVAL, "next_offset %zu does not lie in the block of %zu bytes", next_offset, size);
    do {
        void *old = la_load(heap, head);

        atomic_store_explicit((_Atomic(uintptr_t) *)((char *)block + next_offset), (uintptr_t)old, memory_order_relaxed);
        r = la_publish(heap, head, old, block);
    } while (r == -EAGAIN);
    return r;
}

int la_keep(struct la_heap *heap, void *block)
{
    struct lane *lane = heap_lane(heap);
    struct block_ref ref;
    int r;

    if (!lane)
        return la_last_error_code();
    r = find_held(heap, lane, block, &ref);
    if (r == 0)
        atomic_store_explicit(ref.word, word_make(word_generation(atomic_load_explicit(ref.word, memory_order_relaxed)), ref.epoch, WORD_HEAP, 0),
                              memory_order_release);
    return r;
}

/* ---- take ---- */

/* One try; -EAGAIN: somebody else was faster. */
static int try_take(struct la_heap *heap, struct lane *lane, la_link *link, uintptr_t block, uint64_t next_offset)
{
    struct intent intent = { .op = INTENT_TAKE, .lane = lane->number, .block = heap_offset(heap, (void *)block), .next_offset = next_offset };
    uintptr_t seen = block;
    struct block_ref ref;
    bool taken;

    if (!block_find(heap, (void *)block, &ref) || (uintptr_t)ref.start != block) {
        /* It may have been taken and freed, with its page, since the link was read. */
        if (atomic_load_explicit(link_bits(link), memory_order_acquire) != block)
            return -EAGAIN;
        return la_fail(-EUCLEAN, "link %p points to %#lx, which is no block of heap %s", (void *)link, block, heap->header->name);
    }
    if (next_offset != LA_NO_NEXT && !has_word(&ref, next_offset))
        return la_fail(-EINVAL, "next_offset %zu does not lie in the block of %zu bytes", (size_t)next_offset, ref.size);
    intent.generation = word_generation(atomic_load_explicit(ref.word, memory_order_acquire));
    trail_note(lane, &ref);
    intent.mark = intent_begin(heap, lane->number, INTENT_TAKE, link, block, 0, next_offset, intent.generation);
    if (!atomic_compare_exchange_strong(link_bits(link), &seen, intent.mark)) {
        intent_end(&heap->lane_table[lane->number]);
        return is_marked(seen) && link_help(heap, link, seen) < 0 ? la_last_error_code() : -EAGAIN;
    }
    taken = finish_take(heap, link, &intent);
    if (taken) {
        intent_succeed(&heap->lane_table[lane->number]);
        return 0;
    }
    intent_end(&heap->lane_table[lane->number]);
    if (word_generation(atomic_load_explicit(ref.word, memory_order_acquire)) != intent.generation)
        return -EAGAIN;
    return la_fail(-EINVAL, "block %#lx cannot be taken: it is free or held by another process", block);
}

void *la_take(struct la_heap *heap, la_link *link, size_t next_offset)
{
    struct lane *lane = heap_lane(heap);
    int r;

    if (!lane || check_link(heap, link) < 0)
        return NULL;
    do {
        uintptr_t block = atomic_load_explicit(link_bits(link), memory_order_acquire);

        if (!block) {
            /* Not a failure, as the caller can see. */
            error_clear();
            return NULL;
        }
        if (is_marked(block)) {
            r = link_help(heap, link, block) < 0 ? la_last_error_code() : -EAGAIN;
            continue;
        }
        r = try_take(heap, lane, link, block, next_offset);
        if (r == 0)
            return (void *)block;
    } while (r == -EAGAIN);
    return NULL;
}

/* ---- bundles ---- */

/* In the heap: the blocks of a bundle, in chunks. count is stored after the entry. */
enum { RECORD_ENTRIES = 59, ENTRY_SHIFT = 48 };

#define RECORD_TAG 0x647263656c646e62u      /* "bndlecrd" */

struct record {
    _Atomic(uint64_t) tag;                      /* RECORD_TAG ^ offset: it is left to no heir */
    _Atomic(uint64_t) next;                     /* offset of the record made before this one */
    _Atomic(uint64_t) count;
    _Atomic(uint64_t) entry[RECORD_ENTRIES];    /* | kept 1 | generation 15 | offset of a block 48 | */
};

/* The bundle made it HEAP, and must take that back when its root is not published. */
#define ENTRY_KEPT ((uint64_t)1 << 63)

static struct record *record_at(struct la_heap *heap, uint64_t offset)
{
    struct block_ref ref;

    if (!offset || offset >= heap->size || !block_find(heap, heap->base + offset, &ref) || ref.start != heap->base + offset || ref.size < sizeof(struct record))
        return NULL;
    return (struct record *)ref.start;
}

int la_bundle_begin(struct la_heap *heap, struct la_bundle **ret)
{
    struct lane *lane = heap_lane(heap);
    struct la_bundle *bundle;

    if (!lane)
        return la_last_error_code();
    if (lane->bundle)
        return la_fail(-EBUSY, "a bundle is open on this thread: publish or abort it first");
    bundle = la_meta_alloc(sizeof(*bundle));
    if (!bundle)
        return la_fail(-ENOMEM, "no memory for a bundle");
    *bundle = (struct la_bundle){ .heap = heap, .lane = lane };
    lane->bundle = bundle;
    *ret = bundle;
    return 0;
}

/* A record with room, made if need be. */
static struct record *record_with_room(struct la_bundle *bundle)
{
    struct record *record = bundle->record;

    if (record && atomic_load_explicit(&record->count, memory_order_relaxed) < RECORD_ENTRIES)
        return record;
    record = la_heap_hold(bundle->heap, sizeof(*record));
    if (!record)
        return NULL;
    atomic_store_explicit(&record->tag, RECORD_TAG ^ heap_offset(bundle->heap, record), memory_order_relaxed);
    atomic_store_explicit(&record->next, bundle->record ? heap_offset(bundle->heap, bundle->record) : 0, memory_order_relaxed);
    atomic_store_explicit(&record->count, 0, memory_order_release);
    bundle->record = record;
    return record;
}

void *la_bundle_alloc(struct la_bundle *bundle, size_t size)
{
    struct record *record = record_with_room(bundle);
    void *block = record ? la_heap_hold(bundle->heap, size) : NULL;
    struct block_ref ref;
    uint64_t count, entry;

    if (!block || !block_find(bundle->heap, block, &ref))
        return NULL;
    entry = (uint64_t)word_generation(atomic_load_explicit(ref.word, memory_order_relaxed)) << ENTRY_SHIFT | heap_offset(bundle->heap, block);
    /* Others can write it: what is checked is what is used. */
    count = atomic_load_explicit(&record->count, memory_order_relaxed);
    if (unlikely(count >= RECORD_ENTRIES)) {
        heap_quarantine(bundle->heap, "the record of a bundle was overwritten");
        return NULL;
    }
    atomic_store_explicit(&record->entry[count], entry, memory_order_relaxed);
    atomic_store_explicit(&record->count, count + 1, memory_order_release);
    return block;
}

/*
 * Bounded: a damaged list ends where it leaves the heap or comes back to where it was (after 1, 2, 4 ... steps the place is noted, so that a ring
 * is found within three times its length: R. Brent, 1980).
 */
static void each_entry(struct la_heap *heap, uint64_t offset, unsigned lane, entry_visitor *visit)
{
    const struct record *noted = NULL;
    uint64_t steps = 0, note_at = 1;

    for (struct record *record = record_at(heap, offset); record && record != noted; steps++) {
        uint64_t count = MIN(atomic_load_explicit(&record->count, memory_order_acquire), (uint64_t)RECORD_ENTRIES);

        for (uint64_t i = 0; i < count; i++)
            visit(heap, &record->entry[i], lane);
        if (steps == note_at) {
            noted = record;
            note_at *= 2;
        }
        record = record_at(heap, atomic_load_explicit(&record->next, memory_order_relaxed));
    }
}

/* The block of an entry, and its word when it is still the bundle's: of the generation that it was given out with. */
static bool find_entry(struct la_heap *heap, uint64_t entry, struct block_ref *ref, word_t *w)
{
    uint64_t block = entry & (((uint64_t)1 << ENTRY_SHIFT) - 1);

    if (block >= heap->size || !block_find(heap, heap->base + block, ref))
        return false;
    *w = atomic_load_explicit(ref->word, memory_order_relaxed);
    return word_generation(*w) == (entry & ~ENTRY_KEPT) >> ENTRY_SHIFT;
}

static bool is_held_by(word_t w, const struct block_ref *ref, unsigned lane)
{
    return word_state(w, ref->epoch) == WORD_HELD && word_lane(w) == lane;
}

/* HELD by @lane -> HEAP; anything else has gone its own way already. The flag comes first: it may stand without the change. */
static void keep_entry(struct la_heap *heap, _Atomic(uint64_t) *entry, unsigned lane)
{
    uint64_t value = atomic_load_explicit(entry, memory_order_relaxed);
    struct block_ref ref;
    word_t w;

    if (!find_entry(heap, value, &ref, &w) || !is_held_by(w, &ref, lane))
        return;
    atomic_store_explicit(entry, value | ENTRY_KEPT, memory_order_relaxed);
    atomic_store_explicit(ref.word, word_make(word_generation(w), ref.epoch, WORD_HEAP, 0), memory_order_release);
}

/* The way back, when the root was not published: nobody else has seen the block. */
static void hold_entry(struct la_heap *heap, _Atomic(uint64_t) *entry, unsigned lane)
{
    uint64_t value = atomic_load_explicit(entry, memory_order_relaxed);
    struct block_ref ref;
    word_t w;

    if (!(value & ENTRY_KEPT))
        return;
    if (find_entry(heap, value, &ref, &w) && word_state(w, ref.epoch) == WORD_HEAP) {
        trail_mark(heap, ref.start);
        atomic_store_explicit(ref.word, word_make(word_generation(w), ref.epoch, WORD_HELD, lane), memory_order_release);
    }
    atomic_store_explicit(entry, value & ~ENTRY_KEPT, memory_order_release);
}

static void free_entry(struct la_heap *heap, _Atomic(uint64_t) *entry, unsigned lane)
{
    struct block_ref ref;
    word_t w;

    if (find_entry(heap, atomic_load_explicit(entry, memory_order_relaxed), &ref, &w) && is_held_by(w, &ref, lane))
        la_free(ref.start);
}

static bool record_is_held(struct la_heap *heap, const struct record *record, unsigned lane)
{
    struct block_ref ref;

    return block_find(heap, record, &ref) && is_held_by(atomic_load_explicit(ref.word, memory_order_relaxed), &ref, lane);
}

/* Each is free then, so none is met twice. */
static void free_records(struct la_heap *heap, struct record *record, unsigned lane)
{
    while (record && record_is_held(heap, record, lane)) {
        uint64_t next = atomic_load_explicit(&record->next, memory_order_relaxed);

        la_free(record);
        record = record_at(heap, next);
    }
}

uint64_t bundle_record(const struct la_bundle *bundle)
{
    return bundle->record ? heap_offset(bundle->heap, bundle->record) : 0;
}

bool bundle_is_record(const struct block_ref *ref)
{
    const struct record *record = (const struct record *)ref->start;

    return ref->size >= sizeof(*record) &&
           atomic_load_explicit(&record->tag, memory_order_relaxed) == (RECORD_TAG ^ heap_offset(ref->heap, record));
}

void bundle_keep(struct la_heap *heap, uint64_t record, unsigned lane)
{
    each_entry(heap, record, lane, keep_entry);
}

void bundle_hold(struct la_heap *heap, uint64_t record, unsigned lane)
{
    each_entry(heap, record, lane, hold_entry);
}

void bundle_end(struct la_bundle *bundle)
{
    free_records(bundle->heap, bundle->record, bundle->lane->number);
    bundle->lane->bundle = NULL;
    la_meta_free(bundle, sizeof(*bundle));
}

int la_bundle_publish(struct la_bundle *bundle, la_link *link, void *expected, void *root)
{
    struct la_heap *heap = bundle->heap;
    struct lane *lane = bundle->lane;
    uint64_t record = bundle_record(bundle);
    struct block_ref ref;
    int r = check_link(heap, link);

    if (r == 0)
        r = find_held(heap, lane, root, &ref);
    if (r == 0)
        r = publish(heap, lane, link, (uintptr_t)expected, &ref, record);
    if (r == 0)
        bundle_end(bundle);
    return r;
}

void la_bundle_abort(struct la_bundle *bundle)
{
    if (!bundle)
        return;
    each_entry(bundle->heap, bundle_record(bundle), bundle->lane->number, free_entry);
    bundle_end(bundle);
}

/* ---- recovery ---- */

/*
 * Marked: published, and finished here. Else the block's word tells, read after the link: in doubt says that the mark was never there, as
 * whoever removed it settled the block before.
 */
static bool resolve_publish(struct la_heap *heap, la_link *link, const struct intent *intent)
{
    struct block_ref ref;
    word_t w;

    if (atomic_load(link_bits(link)) == intent->mark) {
        if (!finish_publish(heap, link, intent))
            link_is_damaged(heap);
        return true;
    }
    /* Freed, with its page, or of another generation: freed or taken since, so it was reachable. */
    if (!block_find(heap, heap->base + intent->block, &ref))
        return true;
    w = atomic_load(ref.word);
    if (word_generation(w) != intent->generation || word_state(w, ref.epoch) == WORD_HEAP)
        return true;
    each_entry(heap, intent->record, intent->lane, hold_entry);
    return false;
}

/* Marked: the take happens now, and the block is freed with what else the lane held. Then its word tells: the lane holds it, or never did. */
static bool resolve_take(struct la_heap *heap, la_link *link, const struct intent *intent)
{
    struct block_ref ref;

    if (atomic_load(link_bits(link)) == intent->mark)
        finish_take(heap, link, intent);
    return block_find(heap, heap->base + intent->block, &ref) &&
           atomic_load(ref.word) == word_make(intent->generation + 1, ref.epoch, WORD_HELD, intent->lane);
}

/* Return: the operation has happened. */
static bool resolve(struct la_heap *heap, la_link *link, const struct intent *intent)
{
    switch (intent->op) {
    case INTENT_PUBLISH:
        return resolve_publish(heap, link, intent);
    case INTENT_TAKE:
        return resolve_take(heap, link, intent);
    case INTENT_SWAP:
        return swap_resolve_intent(heap, link, intent);
    default:
        return queue_resolve_intent(heap, &heap->lane_table[intent->lane], intent->lane);
    }
}

void lane_resolve_intent(struct la_heap *heap, struct heap_lane *lane, unsigned number, struct la_obituary *obituary)
{
    struct intent intent = intent_read(heap, number);
    uint64_t offset = atomic_load(&lane->link);
    la_link *link = (la_link *)(heap->base + offset);

    if (intent.op == INTENT_NONE || intent.op > INTENT_LAST)
        return;
    if (offset >= heap->size || intent.block >= heap->size || !heap_link_is_valid(heap, link)) {
        heap_quarantine(heap, "a dead lane's intent points outside the heap");
        return;
    }
    /*
     * Resolved completely, or to be resolved again from the start: nothing of the lane is freed before the intent ends, so a second
     * recoverer finds the same.
     */
    if (resolve(heap, link, &intent)) {
        obituary->published++;
        intent_succeed(lane);
    } else {
        obituary->undone++;
        intent_end(lane);
    }
}
