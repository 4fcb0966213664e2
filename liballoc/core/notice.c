/*
 * notice.c - obituaries and outcomes of operations: a ring in the heap, and who looks them up.
 *
 * Notice number n is entry n % 256. The entry's word says whose it is:   | round 18 | who 13 | incarnation 32 | complete 1 |
 *     round   n / 256: an entry of an older round may be used again
 *     who     a process slot (obituary), or 256 + a lane (outcome)
 * Posting, by who recovers it:
 *     1  the entry at header->notices: an older round's, complete -> ours, not complete      compare-and-swap
 *     2  header->notices: n -> n + 1, by us or by whoever finds the entry taken
 *     3  the data, then the word: complete
 * A recoverer that begins again finds its entry by who and incarnation, writes the same data once more, or sees that it is complete: each death is told once.
 * Entries whose writer is still in there after 256 others are passed over, by readers after 128: nobody waits for a recoverer that is stopped.
 *
 * Outcomes are posted before their lane is free, and a lane's fields say the same until it is lent again: so they are looked up in the lanes first.
 */
#include "core/notice.h"

#include <errno.h>
#include <string.h>

#include <liballoc/error.h>

#include "base/error.h"
#include "core/lane.h"

enum { ROUND_BITS = 18, WHO_LANE = LA_HEAP_MAX_PROCESSES, MAX_TRIES = 4 * HEAP_NOTICES };

#define COMPLETE ((uint64_t)1)

struct notice {
    uint64_t operation, happened;       /* happened: its number, or that of one before it */
    uint64_t blocks, bytes, left_blocks, left_bytes;
    uint32_t lanes, published, undone, heir;    /* heir: 1 + index of its root */
    int32_t pid;
    char command[16];
};

_Static_assert(sizeof(struct notice) <= NOTICE_WORDS * sizeof(uint64_t), "fits");

/* ---- entries ---- */

static uint64_t round_of(uint64_t number)
{
    return number / HEAP_NOTICES & ((1u << ROUND_BITS) - 1);
}

static uint64_t word_of(uint64_t number, unsigned who, uint32_t incarnation)
{
    return round_of(number) << 46 | (uint64_t)who << 33 | (uint64_t)incarnation << 1;
}

static unsigned word_who(uint64_t word)
{
    return word >> 33 & 0x1fff;
}

static uint64_t identity(uint64_t word)
{
    return word << ROUND_BITS >> ROUND_BITS & ~COMPLETE;
}

_Static_assert(WHO_LANE + HEAP_LANES <= 1 << 13, "slots and lanes");

/* Release, each: the word that says that the data is not complete comes before. */
static void write_data(struct heap_notice *entry, const struct notice *notice)
{
    uint64_t data[NOTICE_WORDS] = { 0 };

    memcpy(data, notice, sizeof(*notice));
    for (unsigned i = 0; i < NOTICE_WORDS; i++)
        if (atomic_load_explicit(&entry->data[i], memory_order_relaxed) != data[i])
            atomic_store_explicit(&entry->data[i], data[i], memory_order_release);
}

/* false: the entry was used again meanwhile. Acquire, each: the second look at the word comes after. */
static bool read_data(struct heap_notice *entry, uint64_t word, struct notice *ret)
{
    uint64_t data[NOTICE_WORDS];

    for (unsigned i = 0; i < NOTICE_WORDS; i++)
        data[i] = atomic_load_explicit(&entry->data[i], memory_order_acquire);
    memcpy(ret, data, sizeof(*ret));
    return atomic_load_explicit(&entry->word, memory_order_acquire) == word;
}

/* ---- posting ---- */

static struct heap_notice *find(struct la_heap *heap, unsigned who, uint32_t incarnation)
{
    uint64_t wanted = word_of(0, who, incarnation);

    for (unsigned i = 0; i < HEAP_NOTICES; i++) {
        uint64_t word = atomic_load_explicit(&heap->notices[i].word, memory_order_acquire);

        if (word && identity(word) == wanted)
            return &heap->notices[i];
    }
    return NULL;
}

/* NULL: all entries are being written, or were damaged. */
static struct heap_notice *claim(struct la_heap *heap, unsigned who, uint32_t incarnation)
{
    _Atomic(uint64_t) *notices = &heap->header->notices;

    for (unsigned tries = 0; tries < MAX_TRIES; tries++) {
        uint64_t number = atomic_load_explicit(notices, memory_order_acquire);
        struct heap_notice *entry = &heap->notices[number % HEAP_NOTICES];
        uint64_t word = atomic_load_explicit(&entry->word, memory_order_acquire);
        bool ours;

        if (atomic_load_explicit(notices, memory_order_relaxed) != number)
            continue;
        /* Taken already; or its writer has been in there for a whole round. */
        ours = (!word || (word & COMPLETE && word >> 46 != round_of(number))) &&
               atomic_compare_exchange_strong(&entry->word, &word, word_of(number, who, incarnation));
        atomic_compare_exchange_strong(notices, &number, number + 1);
        if (ours)
            return entry;
    }
    return NULL;
}

static void post(struct la_heap *heap, unsigned who, uint32_t incarnation, const struct notice *notice)
{
    struct heap_notice *entry = find(heap, who, incarnation);
    uint64_t word;

    if (!entry)
        entry = claim(heap, who, incarnation);
    if (!entry)
        return;
    word = atomic_load_explicit(&entry->word, memory_order_relaxed);
    if (word & COMPLETE)
        return;
    write_data(entry, notice);
    /* Release: pairs with read_data(). */
    atomic_compare_exchange_strong(&entry->word, &word, word | COMPLETE);
}

void notice_post_obituary(struct la_heap *heap, uint32_t incarnation, const struct la_obituary *o)
{
    struct notice notice = { .operation = o->operation, .happened = o->happened ? o->operation : 0, .blocks = o->blocks, .bytes = o->bytes,
                             .left_blocks = o->left_blocks, .left_bytes = o->left_bytes, .lanes = o->lanes, .published = o->published,
                             .undone = o->undone, .pid = o->pid };

    notice.heir = atomic_load(&heap->processes[o->slot].heir);
    memcpy(notice.command, o->command, sizeof(notice.command));
    post(heap, o->slot, incarnation, &notice);
}

void notice_post_outcome(struct la_heap *heap, unsigned lane, uint32_t incarnation, uint64_t operation, uint64_t happened)
{
    post(heap, WHO_LANE + lane, incarnation, &(struct notice){ .operation = operation, .happened = happened });
}

/* ---- looking them up ---- */

static struct la_obituary obituary_of(struct la_heap *heap, uint64_t word, const struct notice *n)
{
    struct la_obituary ret = { .slot = word_who(word), .pid = n->pid, .lanes = n->lanes, .blocks = n->blocks, .bytes = n->bytes,
                               .published = n->published, .undone = n->undone, .left_blocks = n->left_blocks, .left_bytes = n->left_bytes,
                               .operation = n->operation, .happened = n->operation && n->happened == n->operation };

    heap_copy_command(ret.command, n->command);
    if (n->heir && n->heir <= LA_HEAP_MAX_ROOTS)
        memcpy(ret.heir, heap->roots[n->heir - 1].name, LA_HEAP_NAME_MAX);
    return ret;
}

int la_heap_obituary(struct la_heap *heap, uint64_t *number, struct la_obituary *ret)
{
    uint64_t end = atomic_load_explicit(&heap->header->notices, memory_order_acquire);

    if (end > HEAP_NOTICES && *number < end - HEAP_NOTICES) {
        *number = end - HEAP_NOTICES;
        return -EOVERFLOW;
    }
    for (; *number < end; ++*number) {
        struct heap_notice *entry = &heap->notices[*number % HEAP_NOTICES];
        uint64_t word = atomic_load_explicit(&entry->word, memory_order_acquire);
        struct notice notice;

        if (word >> 46 != round_of(*number) || word_who(word) >= WHO_LANE)
            continue;
        if (!(word & COMPLETE) && end - *number <= HEAP_NOTICES / 2)
            return -ENOENT;
        if (!(word & COMPLETE) || !read_data(entry, word, &notice))
            continue;
        ++*number;
        *ret = obituary_of(heap, word, &notice);
        return 0;
    }
    return -ENOENT;
}

int la_heap_operation(struct la_heap *heap, uint64_t number)
{
    struct lane *lane = heap_lane(heap);

    if (!lane)
        return la_last_error_code();
    /* One store: what happened before stays known. */
    atomic_store_explicit(&heap->lane_table[lane->number].operation, number, memory_order_release);
    return 0;
}

/* As la_heap_outcome(); -ENOENT: this lane does not know. */
static int ask_lane(struct heap_lane *lane, uint64_t number)
{
    /* Acquire, in this order: see new_lane() and lane_resolve_intent(). */
    bool is_lent = (uint32_t)atomic_load_explicit(&lane->owner, memory_order_acquire) - 1 < LA_HEAP_MAX_PROCESSES;

    if (atomic_load_explicit(&lane->happened, memory_order_acquire) == number)
        return 1;
    if (atomic_load_explicit(&lane->operation, memory_order_acquire) != number)
        return -ENOENT;
    return is_lent ? -EINPROGRESS : 0;
}

static int ask_notice(struct heap_notice *entry, uint64_t number)
{
    uint64_t word = atomic_load_explicit(&entry->word, memory_order_acquire);
    struct notice notice;

    if (!(word & COMPLETE) || word_who(word) < WHO_LANE || !read_data(entry, word, &notice))
        return -ENOENT;
    return notice.happened == number ? 1 : notice.operation == number ? 0 : -ENOENT;
}

int la_heap_outcome(struct la_heap *heap, uint64_t number)
{
    int r = -ENOENT;

    if (number == 0)
        return la_fail(-EINVAL, "operation 0 is that of operations without a number: give it another one with la_heap_operation()");
    for (unsigned i = 1; i < heap_lanes(heap) && r == -ENOENT; i++)
        r = ask_lane(&heap->lane_table[i], number);
    for (unsigned i = 0; i < HEAP_NOTICES && r == -ENOENT; i++)
        r = ask_notice(&heap->notices[i], number);
    return r;
}
