/*
 * queue.c - a bounded queue of objects, for many producers and consumers that may be killed at any instruction.
 *
 * The queue is one block of the heap: two counters and a ring of slots. Position p, counted from 0 without end, is slot p % count; count is a
 * power of two and at least capacity + 1, so that the slot behind a full queue is empty.
 *
 *     slot    EMPTY     | 0 0 | position 62 |                         position p may be filled, and no other one of this slot
 *             CLOSED    | 0 1 | position 62 |                         nothing is ever pushed here or behind
 *             FULL      | 1 | round 9 | generation 12 | block 42 |    block: offset / 16; round: of the position
 *     head    no position before it holds an object    } they may lag behind what the slots say by one step;
 *     tail    every position before it was filled      } who meets that, advances them
 *
 * Pushing b, of generation g, by lane L:                        Popping b, of generation g, from position p, by lane L:
 *     1  intent = { QUEUE_PUSH, slot, b, g, FULL(b, g) }            1  intent = { QUEUE_POP, slot, b, g, FULL(b, g), EMPTY(p + count) }
 *     2  word[b]: HELD by L -> IN_DOUBT by L                        2  word[b]: HEAP, g -> HELD by L, g + 1       compare-and-swap
 *     3  slot: EMPTY(tail) -> FULL(b, g)   compare-and-swap         3  slot: FULL(b, g) -> EMPTY(p + count)       compare-and-swap
 *     4  word[b]: IN_DOUBT by L -> HEAP                             4  head: p -> p + 1                           compare-and-swap
 *     5  tail: p -> p + 1                                           5  intent ends
 *     6  intent ends
 *
 * A push happens at its step 3, a pop at its step 2. A slot is never claimed before it is filled, and nobody owns anything between two steps
 * that others need: whoever finds a slot FULL at tail does step 5 of the push, whoever finds a slot at head whose block has another
 * generation than the slot says does steps 3 and 4 of the pop. So the stopped and the dead are in nobody's way. The names b, g tell one stay in
 * the queue from all others (a block is pushed by its holder, and gets a new generation whenever it begins to be held), therefore step 2 of
 * the pop needs no mark on the slot as la_take() does: if the word has not changed, b is still at p, and p still the first.
 *
 * Recovery of a push is that of la_publish(): a block left in doubt is in the queue exactly if the slot says so, as whoever clears a slot has
 * changed the word before. Recovery of a pop does step 3 if step 2 has happened: a slot must not name a block that is free again.
 *
 * That positions are counters which everybody may advance, and that a slot's empty word carries its round, so that a slow producer cannot fill
 * a slot of an older round, is from P. Tsigas and Y. Zhang (SPAA 2001) and R. Colvin and L. Groves (ICECCS 2005); they take an object by
 * replacing its slot, we by the block's own word, as that says who holds it.
 *
 * Sleeping. A futex word per direction: | sequence 31 | somebody may sleep 1 |. A sleeper sets the bit, tries once more, and sleeps on that very
 * value; who fills or clears a slot looks at the bit afterwards. The waker may die or stop between its store and its wake-up, and so may the one
 * that it woke: therefore nobody sleeps longer than LOOK_AGAIN_MS without a look at the slots. (Waking by the recoverer would not
 * help against a process that is stopped.)
 *
 *   Q1  the header is what la_queue_create() wrote, and the slots lie in the block
 *   Q2  head <= tail + 1, tail <= head + capacity
 *   Q3  from head on, the slots are: FULL ..., CLOSED or nothing, EMPTY ..., each of its position; that at head may be EMPTY of the next round
 *   Q4  what is FULL names a block that is HEAP or IN_DOUBT and of that generation; that at head may be HELD, of the next
 */
#include "core/queue.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include <liballoc/error.h>

#include "base/error.h"
#include "base/futex.h"
#include "core/lane.h"
#include "core/publish.h"
#include "core/shared_format.h"
#include "core/trail.h"

#define QUEUE_MAGIC 0x65756575716cull   /* "lqueue" */
enum { LOOK_AGAIN_MS = 50, MAX_SHIFT = 21 };

/* A queue of the calling process's heap, verified. */
struct ring {
    struct la_heap *heap;
    struct la_queue *queue;
    unsigned shift;
    uint64_t count, capacity;
};

/* ---- slots ---- */

#define FULL_BIT ((uint64_t)1 << 63)
#define CLOSED_BIT ((uint64_t)1 << 62)
enum { BLOCK_BITS = 42, ROUND_BITS = 9, BLOCK_SHIFT = 4 };

_Static_assert(BLOCK_BITS + WORD_GENERATION_BITS + ROUND_BITS == 63, "a full slot");

static uint64_t empty_at(uint64_t position)
{
    return position;
}

static uint64_t closed_at(uint64_t position)
{
    return position | CLOSED_BIT;
}

static uint64_t full_at(const struct ring *ring, uint64_t position, uint64_t offset, unsigned generation)
{
    uint64_t round = position >> ring->shift & ((1u << ROUND_BITS) - 1);

    return FULL_BIT | round << (BLOCK_BITS + WORD_GENERATION_BITS) | (uint64_t)generation << BLOCK_BITS | offset >> BLOCK_SHIFT;
}

static uint64_t full_offset(uint64_t slot)
{
    return (slot & (((uint64_t)1 << BLOCK_BITS) - 1)) << BLOCK_SHIFT;
}

static unsigned full_generation(uint64_t slot)
{
    return slot >> BLOCK_BITS & ((1u << WORD_GENERATION_BITS) - 1);
}

/* FULL, of @position. */
static bool is_full_at(const struct ring *ring, uint64_t slot, uint64_t position)
{
    return slot == full_at(ring, position, full_offset(slot), full_generation(slot));
}

static _Atomic(uint64_t) *slot_at(const struct ring *ring, uint64_t position)
{
    return &ring->queue->slot[position & (ring->count - 1)];
}

/* Positions grow, but a counter may be read late: by how much @a is ahead of @b. */
static int64_t ahead(uint64_t a, uint64_t b)
{
    return (int64_t)(a - b);
}

/* The block of a FULL slot is still in the queue: its word is of the slot's generation. false: it was popped. */
static bool block_is_there(struct la_heap *heap, uint64_t slot, struct block_ref *ref)
{
    enum word_state state;
    word_t w;

    if (!block_find(heap, heap->base + full_offset(slot), ref) || ref->start != heap->base + full_offset(slot))
        return false;
    w = atomic_load_explicit(ref->word, memory_order_acquire);
    state = word_state(w, ref->epoch);
    return word_generation(w) == full_generation(slot) && (state == WORD_HEAP || state == WORD_IN_DOUBT);
}

/* Steps 3 and 4 of a pop, by anybody. Release: what was read of the slot's block comes before its next use. */
static void clear_slot(const struct ring *ring, uint64_t position, uint64_t seen)
{
    atomic_compare_exchange_strong(slot_at(ring, position), &seen, empty_at(position + ring->count));
}

static void advance(_Atomic(uint64_t) *counter, uint64_t position)
{
    atomic_compare_exchange_strong(counter, &position, position + 1);
}

/* ---- the first and the last position ---- */

enum look { LOOK_AGAIN, LOOK_OBJECT, LOOK_EMPTY, LOOK_CLOSED, LOOK_DAMAGED };

/* What is at head, position *@position. Popped objects are passed over, for whoever popped them. */
static enum look look_at_head(const struct ring *ring, uint64_t *position, uint64_t *seen, struct block_ref *ref)
{
    struct la_queue *queue = ring->queue;
    uint64_t h = atomic_load_explicit(&queue->head, memory_order_acquire);
    /* Acquire: pairs with step 3 of a push; the block's word is that of step 2 or later, and its bytes are the producer's. */
    uint64_t slot = atomic_load_explicit(slot_at(ring, h), memory_order_acquire);

    if (atomic_load_explicit(&queue->head, memory_order_relaxed) != h)
        return LOOK_AGAIN;
    *position = h;
    *seen = slot;
    if (slot == empty_at(h))
        return LOOK_EMPTY;
    if (slot == closed_at(h))
        return LOOK_CLOSED;
    if (is_full_at(ring, slot, h)) {
        if (block_is_there(ring->heap, slot, ref))
            return LOOK_OBJECT;
        clear_slot(ring, h, slot);
    } else if (slot != empty_at(h + ring->count)) {
        return LOOK_DAMAGED;
    }
    advance(&queue->head, h);
    return LOOK_AGAIN;
}

/* What is at tail; LOOK_OBJECT: as many objects as it takes. */
static enum look look_at_tail(const struct ring *ring, uint64_t *position)
{
    struct la_queue *queue = ring->queue;
    uint64_t t = atomic_load_explicit(&queue->tail, memory_order_acquire), h;
    uint64_t slot = atomic_load_explicit(slot_at(ring, t), memory_order_acquire), seen;
    struct block_ref ref;

    if (atomic_load_explicit(&queue->tail, memory_order_relaxed) != t)
        return LOOK_AGAIN;
    *position = t;
    if (slot == closed_at(t))
        return LOOK_CLOSED;
    if (is_full_at(ring, slot, t) || slot == empty_at(t + ring->count)) {
        advance(&queue->tail, t);
        return LOOK_AGAIN;
    }
    if (slot != empty_at(t))
        return LOOK_DAMAGED;
    h = atomic_load_explicit(&queue->head, memory_order_acquire);
    if (ahead(t, h) < (int64_t)ring->capacity)
        return LOOK_EMPTY;
    /* Full, but for objects that were popped by somebody who did not come to say so. */
    switch (look_at_head(ring, &h, &seen, &ref)) {
    case LOOK_AGAIN:
        return LOOK_AGAIN;
    case LOOK_OBJECT:
        return ahead(t, h) >= (int64_t)ring->capacity ? LOOK_OBJECT : LOOK_AGAIN;
    default:
        /* Nothing at head, but tail was further on before. */
        return ahead(t, h) > 0 ? LOOK_DAMAGED : LOOK_AGAIN;
    }
}

static int damaged(const struct ring *ring)
{
    heap_quarantine(ring->heap, "a slot of a queue makes no sense");
    return -EUCLEAN;
}

static int closed(const struct ring *ring)
{
    return la_fail(-EPIPE, "queue %p of heap %s is closed", (void *)ring->queue, ring->heap->header->name);
}

/* ---- one try ---- */

/* Steps 1 to 5 of a push at @position; false: somebody was faster, the block is held again. */
static bool fill_slot(const struct ring *ring, struct lane *lane, uint64_t position, const struct block_ref *ref, uint64_t record)
{
    struct la_heap *heap = ring->heap;
    _Atomic(uint64_t) *slot = slot_at(ring, position);
    word_t held = atomic_load_explicit(ref->word, memory_order_relaxed);
    word_t in_doubt = word_make(word_generation(held), ref->epoch, WORD_IN_DOUBT, lane->number);
    uint64_t full = full_at(ring, position, heap_offset(heap, ref->start), word_generation(held)), seen = empty_at(position);

    intent_begin(heap, lane->number, INTENT_QUEUE_PUSH, slot, (uintptr_t)ref->start, record, full, word_generation(held));
    atomic_store_explicit(ref->word, in_doubt, memory_order_release);
    bundle_keep(heap, record, lane->number);
    /* Release: what the block holds, and its word, come before the slot. */
    if (!atomic_compare_exchange_strong(slot, &seen, full)) {
        bundle_hold(heap, record, lane->number);
        atomic_store_explicit(ref->word, held, memory_order_release);
        intent_end(&heap->lane_table[lane->number]);
        return false;
    }
    /* Already popped by another lane, or even freed: all the same. */
    atomic_compare_exchange_strong(ref->word, &in_doubt, word_make(word_generation(held), ref->epoch, WORD_HEAP, 0));
    advance(&ring->queue->tail, position);
    intent_succeed(&heap->lane_table[lane->number]);
    return true;
}

static int try_push(const struct ring *ring, struct lane *lane, const struct block_ref *ref, uint64_t record)
{
    uint64_t position;

    for (;;)
        switch (look_at_tail(ring, &position)) {
        case LOOK_EMPTY:
            if (fill_slot(ring, lane, position, ref, record))
                return 0;
            break;
        case LOOK_OBJECT:
            return -EAGAIN;
        case LOOK_CLOSED:
            return closed(ring);
        case LOOK_DAMAGED:
            return damaged(ring);
        case LOOK_AGAIN:
            break;
        }
}

/* HEAP or IN_DOUBT of @generation -> HELD by @lane, of the next; false: not of that generation, or in no state to be taken. */
static bool take_block(const struct block_ref *ref, unsigned lane, unsigned generation)
{
    word_t w = atomic_load_explicit(ref->word, memory_order_acquire), taken = word_make(generation + 1, ref->epoch, WORD_HELD, lane);

    while (word_generation(w) == generation && (word_state(w, ref->epoch) == WORD_HEAP || word_state(w, ref->epoch) == WORD_IN_DOUBT))
        if (atomic_compare_exchange_weak(ref->word, &w, taken))
            return true;
    return false;
}

/* All steps of a pop; false: somebody was faster. */
static bool take_first(const struct ring *ring, struct lane *lane, uint64_t position, uint64_t seen, const struct block_ref *ref)
{
    struct la_heap *heap = ring->heap;
    bool taken;

    trail_note(lane, ref);
    intent_begin(heap, lane->number, INTENT_QUEUE_POP, slot_at(ring, position), (uintptr_t)ref->start, empty_at(position + ring->count), seen,
                 full_generation(seen));
    taken = take_block(ref, lane->number, full_generation(seen));
    clear_slot(ring, position, seen);
    advance(&ring->queue->head, position);
    if (taken)
        intent_succeed(&heap->lane_table[lane->number]);
    else
        intent_end(&heap->lane_table[lane->number]);
    return taken;
}

static int try_pop(const struct ring *ring, struct lane *lane, void **ret)
{
    uint64_t position, seen;
    struct block_ref ref;

    for (;;)
        switch (look_at_head(ring, &position, &seen, &ref)) {
        case LOOK_EMPTY:
            return -EAGAIN;
        case LOOK_OBJECT:
            if (take_first(ring, lane, position, seen, &ref)) {
                *ret = ref.start;
                return 0;
            }
            break;
        case LOOK_CLOSED:
            return closed(ring);
        case LOOK_DAMAGED:
            return damaged(ring);
        case LOOK_AGAIN:
            break;
        }
}

/* ---- waiting ---- */

enum { SLEEPERS = 1, NEXT_SEQUENCE = 2, SPINS = 200 };

static void relax(void)
{
#if defined __x86_64__
    __builtin_ia32_pause();
#elif defined __aarch64__
    __asm__ volatile("yield");
#endif
}

static int64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Somebody may sleep on @word until what we have just done to a slot. */
static void wake(la_word *word)
{
    uint32_t seen, next;

    /* The slot before the bit, as prepare_to_sleep() has the bit before the slot. */
    atomic_thread_fence(memory_order_seq_cst);
    seen = atomic_load_explicit(word, memory_order_relaxed);
    if (!(seen & SLEEPERS))
        return;
    /* Who is about to sleep on the old value does not. */
    next = seen + NEXT_SEQUENCE;
    atomic_compare_exchange_strong(word, &seen, next);
    if (futex_wake(word, 1, FUTEX_OF_ALL) > 0)
        return;
    /* Nobody did; but somebody may have begun to since. */
    if (atomic_compare_exchange_strong(word, &next, next & ~(uint32_t)SLEEPERS))
        futex_wake(word, INT32_MAX, FUTEX_OF_ALL);
}

static uint32_t prepare_to_sleep(la_word *word)
{
    uint32_t value = atomic_fetch_or(word, SLEEPERS) | SLEEPERS;

    atomic_thread_fence(memory_order_seq_cst);
    return value;
}

/* false: @deadline has passed; 0: there is none. */
static bool sleep_on(la_word *word, uint32_t value, int64_t deadline)
{
    int64_t left = (int64_t)LOOK_AGAIN_MS * 1000000;
    struct timespec timeout = { 0 };

    if (deadline) {
        int64_t until = deadline - now();

        if (until <= 0)
            return false;
        left = MIN(left, until);
    }
    timeout.tv_nsec = left;
    futex_wait(word, value, &timeout, FUTEX_OF_ALL);
    return true;
}

static int64_t deadline_of(int64_t timeout)
{
    int64_t begin;

    if (timeout < 0)
        return 0;
    begin = now();
    return timeout > INT64_MAX - begin ? 0 : begin + timeout;
}

/* What a push or a pop needs; ret: NULL for a push. */
struct call {
    const struct ring *ring;
    struct lane *lane;
    const struct block_ref *ref;
    uint64_t record;
    void **ret;
};

static int attempt(const struct call *call)
{
    return call->ret ? try_pop(call->ring, call->lane, call->ret) : try_push(call->ring, call->lane, call->ref, call->record);
}

/* Half of a hand-over between two processes that both run is over sooner than a system call. */
static int spin(const struct call *call)
{
    int r = -EAGAIN;

    for (unsigned i = 0; i < SPINS && r == -EAGAIN; i++) {
        relax();
        r = attempt(call);
    }
    return r;
}

static int wait_for(const struct call *call, la_word *word, int64_t timeout)
{
    int64_t deadline = deadline_of(timeout);
    int r = spin(call);

    while (r == -EAGAIN) {
        uint32_t value = prepare_to_sleep(word);

        r = attempt(call);
        if (r == -EAGAIN && !sleep_on(word, value, deadline))
            return la_fail(-ETIMEDOUT, "queue %p of heap %s was %s for %ld ns", (const void *)call->ring->queue, call->ring->heap->header->name,
                           call->ret ? "empty" : "full", (long)timeout);
    }
    return r;
}

static int push(const struct ring *ring, struct lane *lane, const struct block_ref *ref, uint64_t record, int64_t timeout)
{
    struct call call = { ring, lane, ref, record, NULL };
    int r = attempt(&call);

    if (r == -EAGAIN && timeout != LA_TRY)
        r = wait_for(&call, &ring->queue->emptied, timeout);
    if (r == 0)
        wake(&ring->queue->filled);
    return r;
}

static int pop(const struct ring *ring, struct lane *lane, int64_t timeout, void **ret)
{
    struct call call = { ring, lane, NULL, 0, ret };
    int r = attempt(&call);

    if (r == -EAGAIN && timeout != LA_TRY)
        r = wait_for(&call, &ring->queue->filled, timeout);
    if (r == 0)
        wake(&ring->queue->emptied);
    return r;
}

/* ---- the queue from its address ---- */

/* Nothing of it is believed before it was looked at: another process may have written there. */
static bool open_ring(struct la_heap *heap, const struct la_queue *queue, struct ring *ring)
{
    struct block_ref ref;

    if ((uintptr_t)queue % _Alignof(struct la_queue) || !block_find(heap, queue, &ref) || ref.start != (const char *)queue ||
        ref.size < sizeof(*queue) || queue->magic != QUEUE_MAGIC ||
        word_state(atomic_load_explicit(ref.word, memory_order_relaxed), ref.epoch) == WORD_FREE)
        return false;
    *ring = (struct ring){ .heap = heap, .queue = (struct la_queue *)ref.start, .shift = queue->shift, .capacity = queue->capacity };
    ring->count = (uint64_t)1 << (ring->shift & 63);
    return ring->shift <= MAX_SHIFT && ring->capacity > 0 && ring->capacity < ring->count &&
           sizeof(*queue) + ring->count * sizeof(queue->slot[0]) <= ref.size;
}

static int find_ring(struct la_heap *heap, const struct la_queue *queue, struct ring *ring)
{
    if (!open_ring(heap, queue, ring))
        return la_fail(-EINVAL, "%p is no queue of heap %s: get it from la_queue_open(); was it destroyed?", (const void *)queue,
                       heap->header->name);
    return 0;
}

/* The same for a call that changes it: the thread's lane, too. */
static int begin(struct la_heap *heap, struct la_queue *queue, struct ring *ring, struct lane **lane)
{
    *lane = heap_lane(heap);
    return *lane ? find_ring(heap, queue, ring) : la_last_error_code();
}

/* Also where nobody would wait: a wrong time is found at the first call. */
static int check_timeout(int64_t timeout)
{
    if (unlikely(timeout < LA_FOREVER))
        return la_fail(-EINVAL, "a timeout of %ld nanoseconds: use LA_TRY, LA_FOREVER or more than 0", (long)timeout);
    return 0;
}

int la_queue_push(struct la_heap *heap, struct la_queue *queue, void *block, int64_t timeout)
{
    struct block_ref ref;
    struct lane *lane;
    struct ring ring;
    int r = begin(heap, queue, &ring, &lane);

    if (r == 0)
        r = check_timeout(timeout);
    if (r == 0)
        r = find_held(heap, lane, block, &ref);
    if (r == 0)
        r = push(&ring, lane, &ref, 0, timeout);
    return r;
}

int la_queue_push_bundle(struct la_queue *queue, struct la_bundle *bundle, void *root, int64_t timeout)
{
    struct block_ref ref;
    struct ring ring;
    int r = find_ring(bundle->heap, queue, &ring);

    if (r == 0)
        r = check_timeout(timeout);
    if (r == 0)
        r = find_held(bundle->heap, bundle->lane, root, &ref);
    if (r == 0)
        r = push(&ring, bundle->lane, &ref, bundle_record(bundle), timeout);
    if (r == 0)
        bundle_end(bundle);
    return r;
}

int la_queue_pop(struct la_heap *heap, struct la_queue *queue, int64_t timeout, void **ret)
{
    struct lane *lane;
    struct ring ring;
    int r = begin(heap, queue, &ring, &lane);

    if (r == 0)
        r = check_timeout(timeout);
    return r < 0 ? r : pop(&ring, lane, timeout, ret);
}

/* ---- create, open, close, destroy ---- */

static void init(struct la_queue *queue, uint64_t link, size_t capacity, unsigned shift)
{
    *queue = (struct la_queue){ .magic = QUEUE_MAGIC, .link = link, .capacity = (uint32_t)capacity, .shift = shift };
    for (uint64_t i = 0; i < (uint64_t)1 << shift; i++)
        atomic_store_explicit(&queue->slot[i], empty_at(i), memory_order_relaxed);
}

int la_queue_create(struct la_heap *heap, const char *name, size_t capacity, struct la_queue **ret)
{
    struct la_queue *queue;
    unsigned shift = 1;
    la_link *root;
    int r;

    if (heap_is_read_only(heap))
        return -EROFS;
    if (capacity == 0 || capacity > LA_QUEUE_MAX_CAPACITY)
        return la_fail(-EINVAL, "a queue of %zu objects: 1 to %zu are possible", capacity, LA_QUEUE_MAX_CAPACITY);
    r = la_heap_root(heap, name, &root);
    if (r < 0)
        return r;
    while ((size_t)1 << shift <= capacity)
        shift++;
    queue = la_chain_aligned_alloc(la_heap_chain(heap, LA_HELD), 64, sizeof(*queue) + sizeof(queue->slot[0]) * ((size_t)1 << shift));
    if (!queue)
        return la_fail(-ENOMEM, "heap %s has no room for a queue of %zu objects", heap->header->name, capacity);
    init(queue, heap_offset(heap, root), capacity, shift);
    r = la_publish(heap, root, NULL, queue);
    if (r < 0) {
        la_free(queue);
        return r == -EAGAIN ? la_fail(-EEXIST, "root \"%s\" of heap %s is in use: open the queue with la_queue_open()", name,
                                      heap->header->name) : r;
    }
    *ret = queue;
    return 0;
}

/* NULL: no such root. */
static la_link *find_root(struct la_heap *heap, const char *name)
{
    const char *found;
    la_link *root;

    for (unsigned i = 0; la_heap_root_at(heap, i, &found, &root) == 0; i++)
        if (strncmp(found, name, LA_HEAP_NAME_MAX + 1) == 0)
            return root;
    return NULL;
}

int la_queue_open(struct la_heap *heap, const char *name, struct la_queue **ret)
{
    int r = heap_check_name(name);
    la_link *root = r < 0 ? NULL : find_root(heap, name);
    struct la_queue *queue = root ? la_load(heap, root) : NULL;
    struct ring ring;

    if (r < 0)
        return r;
    if (!queue)
        return la_fail(-ENOENT, "heap %s has no queue \"%s\": make it with la_queue_create()", heap->header->name, name);
    r = find_ring(heap, queue, &ring);
    if (r == 0)
        *ret = queue;
    return r;
}

/* The first position that was not filled holds the word that says so: no producer comes past it. */
static int close_ring(const struct ring *ring)
{
    for (;;) {
        uint64_t position, seen;
        enum look look = look_at_tail(ring, &position);

        if (look == LOOK_CLOSED)
            return 0;
        if (look == LOOK_DAMAGED)
            return damaged(ring);
        seen = empty_at(position);
        /* Also behind the last object of a full queue: there is a slot more than it takes. */
        if (look != LOOK_AGAIN && atomic_compare_exchange_strong(slot_at(ring, position), &seen, closed_at(position)))
            return 0;
    }
}

int la_queue_close(struct la_heap *heap, struct la_queue *queue)
{
    struct lane *lane;
    struct ring ring;
    int r = begin(heap, queue, &ring, &lane);

    if (r == 0)
        r = close_ring(&ring);
    if (r < 0)
        return r;
    for (int i = 0; i < 2; i++) {
        la_word *word = i ? &queue->filled : &queue->emptied;

        atomic_fetch_add(word, NEXT_SEQUENCE);
        futex_wake(word, INT32_MAX, FUTEX_OF_ALL);
    }
    return 0;
}

static int no_root(const struct la_heap *heap, const struct la_queue *queue)
{
    return la_fail(-EINVAL, "no root leads to queue %p of heap %s", (const void *)queue, heap->header->name);
}

int la_queue_destroy(struct la_heap *heap, struct la_queue *queue)
{
    int r = la_queue_close(heap, queue);
    struct block_ref ref;
    struct ring ring;
    uint64_t position, seen;
    enum look look;
    la_link *root;

    if (r < 0 || (r = find_ring(heap, queue, &ring)) < 0)
        return r;
    while ((look = look_at_head(&ring, &position, &seen, &ref)) == LOOK_AGAIN)
        ;
    if (look != LOOK_CLOSED)
        return la_fail(-ENOTEMPTY, "queue %p of heap %s holds objects: pop and free them first", (void *)queue, heap->header->name);
    root = (la_link *)(heap->base + queue->link);
    if (queue->link >= heap->size || !heap_link_is_valid(heap, root) || la_load(heap, root) != queue)
        return no_root(heap, queue);
    if (la_take(heap, root, LA_NO_NEXT) != queue)
        return la_last_error_code() ? la_last_error_code() : no_root(heap, queue);
    queue->magic = 0;
    la_free(queue);
    return 0;
}

/* ---- looking ---- */

int la_queue_info(struct la_heap *heap, struct la_queue *queue, struct la_queue_info *ret)
{
    struct la_queue_info info = { 0 };
    size_t size = ret ? ret->struct_size : 0;
    uint64_t tail, head;
    struct ring ring = { 0 };
    int r = find_ring(heap, queue, &ring);

    if (r < 0)
        return r;
    if (size < offsetof(struct la_queue_info, length) || size > 4 * sizeof(info))
        return la_fail(-EINVAL, "set struct_size to sizeof(struct la_queue_info) before the call");
    head = atomic_load_explicit(&queue->head, memory_order_acquire);
    tail = atomic_load_explicit(&queue->tail, memory_order_acquire);
    info.capacity = ring.capacity;
    info.pushed = tail;
    info.popped = ahead(head, tail) > 0 ? tail : head;
    info.length = info.pushed - info.popped;
    info.closed = atomic_load_explicit(slot_at(&ring, tail), memory_order_relaxed) == closed_at(tail);
    memset(ret, 0, size);
    memcpy(ret, &info, MIN(size, sizeof(info)));
    ret->struct_size = size;
    return 0;
}

long la_queue_walk(struct la_heap *heap, struct la_queue *queue, void (*each)(void *user, void *block), void *user)
{
    struct block_ref ref;
    struct ring ring;
    long n = 0;
    uint64_t p;
    int r = find_ring(heap, queue, &ring);

    if (r < 0)
        return r;
    p = atomic_load_explicit(&queue->head, memory_order_acquire);
    for (uint64_t i = 0; i < ring.count; i++, p++) {
        uint64_t slot = atomic_load_explicit(slot_at(&ring, p), memory_order_acquire);

        if (slot == empty_at(p) || slot == closed_at(p))
            break;
        if (!is_full_at(&ring, slot, p) || !block_is_there(heap, slot, &ref))
            continue;
        n++;
        if (each)
            each(user, ref.start);
    }
    return n;
}

/* Q4 of one slot. */
static bool block_is_sound(struct la_heap *heap, uint64_t slot, bool first)
{
    struct block_ref ref;
    word_t w;

    if (block_is_there(heap, slot, &ref))
        return true;
    if (!first || !block_find(heap, heap->base + full_offset(slot), &ref))
        return false;
    w = atomic_load(ref.word);
    return word_state(w, ref.epoch) == WORD_HELD && word_generation(w) == ((full_generation(slot) + 1) & ((1u << WORD_GENERATION_BITS) - 1));
}

const char *queue_check(struct la_heap *heap, void *block)
{
    struct la_queue *queue = block;
    struct block_ref ref;
    struct ring ring;
    uint64_t head, tail;
    bool ended = false;

    /* Some other object: one that is not aligned as queues are must not be looked at as one. */
    if ((uintptr_t)block % _Alignof(struct la_queue) || !block_find(heap, block, &ref) || ref.size < sizeof(*queue) || queue->magic != QUEUE_MAGIC)
        return NULL;
    if (!open_ring(heap, queue, &ring))
        return "its header was overwritten (Q1)";
    head = atomic_load(&queue->head);
    tail = atomic_load(&queue->tail);
    if (ahead(head, tail) > 1 || ahead(tail, head) > (int64_t)ring.capacity)
        return "its counters contradict each other (Q2)";
    for (uint64_t p = head; p < head + ring.count; p++) {
        uint64_t slot = atomic_load(slot_at(&ring, p));

        if (p == head && slot == empty_at(p + ring.count))
            continue;
        if (!ended && is_full_at(&ring, slot, p)) {
            if (!block_is_sound(heap, slot, p == head))
                return "a slot names a block that is not the heap's (Q4)";
            continue;
        }
        if (slot != empty_at(p) && (ended || slot != closed_at(p)))
            return "a slot makes no sense (Q3)";
        ended = true;
    }
    return NULL;
}

/* ---- recovery ---- */

/* Did step 3 of a push happen? */
static bool was_pushed(struct la_heap *heap, const struct heap_lane *lane, unsigned number, const struct block_ref *ref)
{
    _Atomic(uint64_t) *slot = (_Atomic(uint64_t) *)(heap->base + atomic_load(&lane->link));

    for (;;) {
        word_t w = atomic_load(ref->word);

        /* Popped since, perhaps freed. */
        if (word_generation(w) != atomic_load(&lane->generation) || word_state(w, ref->epoch) == WORD_HEAP)
            return true;
        if (word_state(w, ref->epoch) != WORD_IN_DOUBT || word_lane(w) != number)
            return false;
        if (atomic_load(slot) == atomic_load(&lane->next_offset))
            return true;
        /* Not there; unless somebody popped it between our two looks, and then its word is another one. */
        if (atomic_load(ref->word) == w)
            return false;
    }
}

static bool resolve_push(struct la_heap *heap, struct heap_lane *lane, unsigned number)
{
    struct block_ref ref;
    word_t w;

    /* Freed since, with its page: it was popped. */
    if (!block_find(heap, heap->base + atomic_load(&lane->block), &ref))
        return true;
    if (!was_pushed(heap, lane, number, &ref)) {
        bundle_hold(heap, atomic_load(&lane->record), number);
        return false;
    }
    w = atomic_load(ref.word);
    /* Only what this lane left in doubt: another one may have popped the block and be pushing it again. */
    if (word_state(w, ref.epoch) == WORD_IN_DOUBT && word_lane(w) == number && word_generation(w) == atomic_load(&lane->generation))
        atomic_compare_exchange_strong(ref.word, &w, word_make(word_generation(w), ref.epoch, WORD_HEAP, 0));
    return true;
}

/* The block is still the dead lane's if it has taken it: it is freed with what else the lane held, after the slot has forgotten it. */
static bool resolve_pop(struct la_heap *heap, const struct heap_lane *lane, unsigned number)
{
    _Atomic(uint64_t) *slot = (_Atomic(uint64_t) *)(heap->base + atomic_load(&lane->link));
    uint64_t seen = atomic_load(&lane->next_offset);
    struct block_ref ref;

    if (!block_find(heap, heap->base + atomic_load(&lane->block), &ref) ||
        atomic_load(ref.word) != word_make(atomic_load(&lane->generation) + 1, ref.epoch, WORD_HELD, number))
        return false;
    atomic_compare_exchange_strong(slot, &seen, atomic_load(&lane->record));
    return true;
}

bool queue_resolve_intent(struct la_heap *heap, struct heap_lane *lane, unsigned number)
{
    return atomic_load(&lane->op) == INTENT_QUEUE_PUSH ? resolve_push(heap, lane, number) : resolve_pop(heap, lane, number);
}
