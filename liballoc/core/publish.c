/*
 * publish.c - hand blocks over through any pointer-sized word of the heap: publish, take, bundles.
 *
 * Publishing b through link, by lane L (DESIGN, R11):
 *     1  intent = { PUBLISH, link, b, generation of b }
 *     2  word[b]: HELD by L -> IN_DOUBT by L
 *     3  link: expected -> b                           compare-and-swap; before it, what link points to is settled
 *     4  word[b]: IN_DOUBT by L -> HEAP                compare-and-swap: another lane may have settled it
 *     5  intent ends
 * Settling b: word[b]: IN_DOUBT -> HEAP. Whoever replaces a link settles what it points to first. So when recovery finds word[b] IN_DOUBT,
 * nobody has replaced the link since: link == b says published, else not. (Without settling, "link != b" could mean that
 * another lane pushed on top, and a reachable block would be freed.)
 *
 * Taking b from link, by lane L:
 *     1  intent = { TAKE, link, b, generation g of b, where in b the replacement lies }
 *     2  link: b -> b marked with L and the intent's sequence in the upper 16 bits   compare-and-swap
 *     3  word[b]: HEAP, g -> HELD by L, g + 1          from now on the take has happened
 *     4  link: marked b -> replacement
 *     5  intent ends
 * Nobody waits at a mark: whoever meets it, and recovery, does steps 3 and 4 for L, from L's intent. While link is marked nobody
 * changes it otherwise, and b's own link word stands still (users change links inside a published block only under a lock), so the
 * replacement is the right one: there is no ABA of list heads. If b was freed and reused between 1 and 2, its generation is not g: then
 * everybody takes the mark back. A late helper can do no harm: step 3 wants generation g, step 4 the mark of this very intent (of the last
 * 16 by the lane).
 *
 * A bundle is published by its root in the same way; the intent also names the bundle's record, a list of the other blocks, which are
 * HELD until after step 4 and become HEAP one by one. If the lane dies in between, recovery goes on from the record.
 */
#include <errno.h>

#include <liballoc/error.h>

#include "base/error.h"
#include "core/meta.h"
#include "core/publish.h"
#include "core/queue.h"
#include "core/shared_block.h"
#include "core/shared_heap.h"

/* A marked link: | sequence 4 | lane 12 | address 48 |. */
enum { MARK_SHIFT = 48, MARK_SEQUENCES = 16 };
#define ADDRESS_MASK (((uintptr_t)1 << MARK_SHIFT) - 1)

static bool is_marked(uintptr_t value)
{
    return value >> MARK_SHIFT != 0;
}

static unsigned mark_lane(uintptr_t value)
{
    return value >> MARK_SHIFT & (HEAP_LANES - 1);
}

static uintptr_t marked(uintptr_t block, unsigned lane, uint32_t sequence)
{
    return block | (uintptr_t)(sequence % MARK_SEQUENCES * HEAP_LANES + lane) << MARK_SHIFT;
}

_Static_assert(HEAP_LANES == 1 << 12, "a lane and four bits of sequence are 16 bits");

static _Atomic(uintptr_t) *bits(la_link *link)
{
    return (_Atomic(uintptr_t) *)link;
}

/* ---- intents ---- */

void intent_begin(struct la_heap *heap, struct heap_lane *lane, enum intent_op op, const void *link, uintptr_t block,
                  uint64_t record, uint64_t next_offset, unsigned generation)
{
    atomic_store_explicit(&lane->sequence, atomic_load_explicit(&lane->sequence, memory_order_relaxed) + 1, memory_order_relaxed);
    atomic_store_explicit(&lane->link, heap_offset(heap, link), memory_order_relaxed);
    atomic_store_explicit(&lane->block, heap_offset(heap, (void *)block), memory_order_relaxed);
    atomic_store_explicit(&lane->record, record, memory_order_relaxed);
    atomic_store_explicit(&lane->next_offset, next_offset, memory_order_relaxed);
    atomic_store_explicit(&lane->generation, generation, memory_order_relaxed);
    /* Release: a helper that meets our mark reads these fields; compilers keep the order for recovery. */
    atomic_store_explicit(&lane->op, op, memory_order_release);
}

void intent_end(struct heap_lane *lane)
{
    atomic_store_explicit(&lane->op, INTENT_NONE, memory_order_release);
}

/* ---- settle and help ---- */

/*
 * What @link points to is no longer in doubt, if that is @value. The word first, then the link: a caller may expect what was there long ago and
 * is being published elsewhere now. If it is here after its word was read, that word was about this link.
 */
static void settle(struct la_heap *heap, la_link *link, uintptr_t value)
{
    struct block_ref ref;
    word_t w;

    if (!value || !block_find(heap, (void *)value, &ref))
        return;
    w = atomic_load_explicit(ref.word, memory_order_acquire);
    if (word_state(w, ref.epoch) == WORD_IN_DOUBT && atomic_load_explicit(bits(link), memory_order_acquire) == value)
        atomic_compare_exchange_strong(ref.word, &w, word_make(word_generation(w), ref.epoch, WORD_HEAP, 0));
}

/* Step 4's new value; false: the block is not what the intent says, the heap has been damaged. */
static bool replacement(struct la_heap *heap, uintptr_t block, uint64_t next_offset, uintptr_t *ret)
{
    struct block_ref ref;

    *ret = 0;
    if (next_offset == LA_NO_NEXT)
        return true;
    if (!block_find(heap, (void *)block, &ref) || next_offset + sizeof(uintptr_t) > ref.size)
        return false;
    *ret = atomic_load_explicit((_Atomic(uintptr_t) *)(ref.start + next_offset), memory_order_acquire) & ADDRESS_MASK;
    return true;
}

bool take_word(struct la_heap *heap, uintptr_t block, unsigned lane, unsigned generation)
{
    struct block_ref ref;
    word_t w, taken;

    if (!block_find(heap, (void *)block, &ref) || (uintptr_t)ref.start != block)
        return false;
    taken = word_make(generation + 1, ref.epoch, WORD_HELD, lane);
    w = atomic_load_explicit(ref.word, memory_order_acquire);
    while (word_generation(w) == generation &&
           (word_state(w, ref.epoch) == WORD_HEAP || word_state(w, ref.epoch) == WORD_IN_DOUBT))
        if (atomic_compare_exchange_weak(ref.word, &w, taken))
            return true;
    return w == taken;
}

/* Steps 3 and 4 for the intent of @number, of sequence @sequence, whose mark on @link is @seen. */
static bool finish_take(struct la_heap *heap, la_link *link, uintptr_t seen, unsigned number, unsigned generation, uint64_t next_offset)
{
    uintptr_t block = seen & ADDRESS_MASK, next;
    bool taken = take_word(heap, block, number, generation) && replacement(heap, block, next_offset, &next);

    /* Fails when somebody was faster: they stored the same. */
    atomic_compare_exchange_strong(bits(link), &seen, taken ? next : block);
    return taken;
}

/* @link holds the marked value @seen: do what its lane would do next. */
static void help(struct la_heap *heap, la_link *link, uintptr_t seen)
{
    unsigned number = mark_lane(seen), generation;
    uintptr_t block = seen & ADDRESS_MASK;
    struct heap_lane *lane = &heap->lane_table[number];
    uint32_t sequence = atomic_load_explicit(&lane->sequence, memory_order_acquire);
    uint64_t next_offset = atomic_load_explicit(&lane->next_offset, memory_order_acquire);

    generation = atomic_load_explicit(&lane->generation, memory_order_acquire);
    /* The fields are of one intent, the one that left this mark: the sequence and the link are still the same after they were read. */
    if (atomic_load_explicit(&lane->op, memory_order_acquire) == INTENT_TAKE &&
        atomic_load_explicit(&lane->link, memory_order_acquire) == heap_offset(heap, link) &&
        atomic_load_explicit(&lane->block, memory_order_acquire) == heap_offset(heap, (void *)block) &&
        marked(block, number, sequence) == seen && atomic_load_explicit(bits(link), memory_order_acquire) == seen &&
        atomic_load_explicit(&lane->sequence, memory_order_acquire) == sequence)
        finish_take(heap, link, seen, number, generation, next_offset);
}

void *la_load(struct la_heap *heap, la_link *link)
{
    (void)heap;
    /* Acquire: pairs with the release of the publisher's compare-and-swap. */
    return (void *)(atomic_load_explicit(bits(link), memory_order_acquire) & ADDRESS_MASK);
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

/* Steps 1 to 4. */
static int publish(struct la_heap *heap, struct lane *lane, la_link *link, uintptr_t expected, struct block_ref *ref, uint64_t record)
{
    struct heap_lane *mine = &heap->lane_table[lane->number];
    word_t held = atomic_load_explicit(ref->word, memory_order_relaxed);
    word_t in_doubt = word_make(word_generation(held), ref->epoch, WORD_IN_DOUBT, lane->number);
    uintptr_t seen = expected;

    intent_begin(heap, mine, INTENT_PUBLISH, link, (uintptr_t)ref->start, record, 0, word_generation(held));
    atomic_store_explicit(ref->word, in_doubt, memory_order_release);
    settle(heap, link, expected);
    /* Release: what the block holds comes before the link. */
    if (!atomic_compare_exchange_strong_explicit(bits(link), &seen, (uintptr_t)ref->start, memory_order_acq_rel, memory_order_acquire)) {
        atomic_store_explicit(ref->word, held, memory_order_release);
        intent_end(mine);
        if (is_marked(seen))
            help(heap, link, seen);
        return -EAGAIN;
    }
    /* Already settled, or even taken and freed by another lane: all the same. */
    atomic_compare_exchange_strong(ref->word, &in_doubt, word_make(word_generation(held), ref->epoch, WORD_HEAP, 0));
    return 0;
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
    if (r == 0)
        intent_end(&heap->lane_table[lane->number]);
    return r;
}

int la_push(struct la_heap *heap, la_link *head, void *block, size_t next_offset)
{
    size_t size = la_usable_size(block);
    int r;

    if (next_offset % sizeof(void *) || next_offset + sizeof(void *) > size)
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
    struct heap_lane *mine = &heap->lane_table[lane->number];
    uintptr_t seen = block, mark;
    struct block_ref ref;
    unsigned generation;
    bool taken;

    if (!block_find(heap, (void *)block, &ref) || (uintptr_t)ref.start != block) {
        /* It may have been taken and freed, with its page, since the link was read. */
        if (atomic_load_explicit(bits(link), memory_order_acquire) != block)
            return -EAGAIN;
        return la_fail(-EUCLEAN, "link %p points to %#lx, which is no block of heap %s", (void *)link, block, heap->header->name);
    }
    if (next_offset != LA_NO_NEXT && next_offset + sizeof(void *) > ref.size)
        return la_fail(-EINVAL, "next_offset %zu does not lie in the block of %zu bytes", (size_t)next_offset, ref.size);
    generation = word_generation(atomic_load_explicit(ref.word, memory_order_acquire));
    intent_begin(heap, mine, INTENT_TAKE, link, block, 0, next_offset, generation);
    mark = marked(block, lane->number, atomic_load_explicit(&mine->sequence, memory_order_relaxed));
    if (!atomic_compare_exchange_strong(bits(link), &seen, mark)) {
        intent_end(mine);
        if (is_marked(seen))
            help(heap, link, seen);
        return -EAGAIN;
    }
    taken = finish_take(heap, link, mark, lane->number, generation, next_offset);
    intent_end(mine);
    if (taken)
        return 0;
    if (word_generation(atomic_load_explicit(ref.word, memory_order_acquire)) != generation)
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
        uintptr_t block = atomic_load_explicit(bits(link), memory_order_acquire);

        if (!block)
            return NULL;
        if (is_marked(block)) {
            help(heap, link, block);
            r = -EAGAIN;
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
enum { RECORD_ENTRIES = 60 };

struct record {
    _Atomic(uint64_t) next;                     /* offset of the record made before this one */
    _Atomic(uint64_t) count;
    _Atomic(uint64_t) entry[RECORD_ENTRIES];    /* offsets of blocks */
};

static struct record *record_at(struct la_heap *heap, uint64_t offset)
{
    struct block_ref ref;

    if (!offset || !block_find(heap, heap->base + offset, &ref) || ref.start != heap->base + offset || ref.size < sizeof(struct record))
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
    atomic_store_explicit(&record->next, bundle->record ? heap_offset(bundle->heap, bundle->record) : 0, memory_order_relaxed);
    atomic_store_explicit(&record->count, 0, memory_order_release);
    bundle->record = record;
    return record;
}

void *la_bundle_alloc(struct la_bundle *bundle, size_t size)
{
    struct record *record = record_with_room(bundle);
    void *block = record ? la_heap_hold(bundle->heap, size) : NULL;
    uint64_t count;

    if (!block)
        return NULL;
    count = atomic_load_explicit(&record->count, memory_order_relaxed);
    atomic_store_explicit(&record->entry[count], heap_offset(bundle->heap, block), memory_order_relaxed);
    atomic_store_explicit(&record->count, count + 1, memory_order_release);
    return block;
}

typedef void entry_visitor(struct la_heap *heap, uint64_t block, unsigned lane);

/* Bounded: a damaged list ends where it leaves the heap, and records are visited at most once per macro block's worth. */
static void each_entry(struct la_heap *heap, uint64_t offset, unsigned lane, entry_visitor *visit)
{
    uint64_t limit = heap->size / sizeof(struct record);

    for (struct record *record = record_at(heap, offset); record && limit > 0; limit--) {
        uint64_t count = MIN(atomic_load_explicit(&record->count, memory_order_acquire), (uint64_t)RECORD_ENTRIES);

        for (uint64_t i = 0; i < count; i++)
            visit(heap, atomic_load_explicit(&record->entry[i], memory_order_relaxed), lane);
        record = record_at(heap, atomic_load_explicit(&record->next, memory_order_relaxed));
    }
}

/* HELD by @lane -> HEAP; anything else has gone its own way already. */
static void keep_entry(struct la_heap *heap, uint64_t block, unsigned lane)
{
    struct block_ref ref;
    word_t w;

    if (block >= heap->size || !block_find(heap, heap->base + block, &ref))
        return;
    w = atomic_load_explicit(ref.word, memory_order_relaxed);
    if (word_state(w, ref.epoch) == WORD_HELD && word_lane(w) == lane)
        atomic_compare_exchange_strong(ref.word, &w, word_make(word_generation(w), ref.epoch, WORD_HEAP, 0));
}

static void free_entry(struct la_heap *heap, uint64_t block, unsigned lane)
{
    struct block_ref ref;
    word_t w;

    if (block >= heap->size || !block_find(heap, heap->base + block, &ref))
        return;
    w = atomic_load_explicit(ref.word, memory_order_relaxed);
    if (word_state(w, ref.epoch) == WORD_HELD && word_lane(w) == lane)
        la_free(ref.start);
}

static void free_records(struct la_heap *heap, struct record *record)
{
    while (record) {
        uint64_t next = atomic_load_explicit(&record->next, memory_order_relaxed);

        la_free(record);
        record = record_at(heap, next);
    }
}

static void bundle_end(struct la_bundle *bundle)
{
    bundle->lane->bundle = NULL;
    la_meta_free(bundle, sizeof(*bundle));
}

uint64_t bundle_record(const struct la_bundle *bundle)
{
    return bundle->record ? heap_offset(bundle->heap, bundle->record) : 0;
}

void bundle_published(struct la_bundle *bundle)
{
    struct la_heap *heap = bundle->heap;
    struct lane *lane = bundle->lane;
    uint64_t record = bundle_record(bundle);

    each_entry(heap, record, lane->number, keep_entry);
    intent_end(&heap->lane_table[lane->number]);
    free_records(heap, bundle->record);
    bundle_end(bundle);
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
        bundle_published(bundle);
    return r;
}

void la_bundle_abort(struct la_bundle *bundle)
{
    if (!bundle)
        return;
    each_entry(bundle->heap, bundle_record(bundle), bundle->lane->number, free_entry);
    free_records(bundle->heap, bundle->record);
    bundle_end(bundle);
}

/* ---- recovery ---- */

void bundle_keep(struct la_heap *heap, uint64_t record, unsigned lane)
{
    each_entry(heap, record, lane, keep_entry);
}

/* Did step 3 of a publish happen? See the head of this file. */
static bool was_published(struct la_heap *heap, const struct heap_lane *lane, unsigned number, struct block_ref *ref)
{
    la_link *link = (la_link *)(heap->base + atomic_load(&lane->link));

    for (;;) {
        word_t w = atomic_load(ref->word);

        /* Freed or taken since: it was reachable. */
        if (word_generation(w) != atomic_load(&lane->generation))
            return true;
        if (word_state(w, ref->epoch) == WORD_HEAP)
            return true;
        if (word_state(w, ref->epoch) != WORD_IN_DOUBT || word_lane(w) != number)
            return false;
        if ((atomic_load(bits(link)) & ADDRESS_MASK) == (uintptr_t)ref->start)
            return true;
        /* Not there; unless somebody settled it and replaced the link between our two looks: then its word is another one. */
        if (atomic_load(ref->word) == w)
            return false;
    }
}

static bool resolve_publish(struct la_heap *heap, struct heap_lane *lane, unsigned number)
{
    struct block_ref ref;

    word_t w;

    if (!block_find(heap, heap->base + atomic_load(&lane->block), &ref) || !was_published(heap, lane, number, &ref))
        return false;
    w = atomic_load(ref.word);
    /* Only what this lane left in doubt: another one may be publishing the block again. */
    if (word_state(w, ref.epoch) == WORD_IN_DOUBT && word_lane(w) == number && word_generation(w) == atomic_load(&lane->generation))
        atomic_compare_exchange_strong(ref.word, &w, word_make(word_generation(w), ref.epoch, WORD_HEAP, 0));
    each_entry(heap, atomic_load(&lane->record), number, keep_entry);
    return true;
}

/* Marked: the take happens now, and the block is freed with what else the lane held. Not marked: it has happened, or never began. */
static bool resolve_take(struct la_heap *heap, struct heap_lane *lane, unsigned number)
{
    la_link *link = (la_link *)(heap->base + atomic_load(&lane->link));
    uintptr_t block = (uintptr_t)heap->base + atomic_load(&lane->block);
    uintptr_t mark = marked(block, number, atomic_load(&lane->sequence));

    if (atomic_load(bits(link)) != mark)
        return true;
    return finish_take(heap, link, mark, number, atomic_load(&lane->generation), atomic_load(&lane->next_offset));
}

void lane_resolve_intent(struct la_heap *heap, struct heap_lane *lane, unsigned number, struct la_obituary *obituary)
{
    uint32_t op = atomic_load_explicit(&lane->op, memory_order_acquire);
    uint64_t link = atomic_load(&lane->link), block = atomic_load(&lane->block);
    bool done;

    if (op == INTENT_NONE || op > INTENT_LAST)
        return;
    if (link >= heap->size || block >= heap->size || !heap_link_is_valid(heap, heap->base + link)) {
        heap_quarantine(heap, "a dead lane's intent points outside the heap");
        return;
    }
    done = op == INTENT_PUBLISH ? resolve_publish(heap, lane, number)
           : op == INTENT_TAKE  ? resolve_take(heap, lane, number)
                                : queue_resolve_intent(heap, lane, number);
    if (done)
        obituary->published++;
    else
        obituary->undone++;
    /*
     * Resolved completely, or to be resolved again from the start: nothing of the lane is freed before this store, so a second
     * recoverer finds the same.
     */
    intent_end(lane);
}
