/*
 * notice.c - obituaries and outcomes of operations: a ring in the heap, and who looks them up.
 *
 * Notice number n is entry n % 256. The entry's word says whose it is:   | round 18 | who 13 | incarnation 32 | complete 1 |
 *     round   n / 256: an entry of an older round may be used again
 *     who     a process slot (obituary), or 256 + a lane (outcome)
 * Posting, by who recovers it:
 *     1  the entry at header->notices: an older round's, complete -> ours, not complete      compare-and-swap
 *     2  header->notices: n -> n + 1, by us, by whoever finds the entry taken, or by who begins again
 *     3  the data, then the word: complete
 * A recoverer that begins again finds its entry by who and incarnation, and does 2 and 3 once more, or sees that it is complete: each death is told once. An
 * entry that is not complete stays its own; one that is may be anybody's at the next look.
 * Entries whose writer is still in there after 256 others are passed over, by readers after 128: nobody waits for a recoverer that is stopped.
 *
 * Outcomes are posted before their lane forgets them and is free: so they are looked up in the lanes first. What is under way there may be decided in the
 * notices already, which are right: whoever was told so once is told so again.
 */
#include "core/notice.h"

#include <errno.h>
#include <string.h>

#include <liballoc/error.h>

#include "base/error.h"
#include "core/lane.h"

enum { ROUND_BITS = 18, ROUND_SHIFT = 64 - ROUND_BITS, ROUND_MASK = (1 << ROUND_BITS) - 1, WHO_LANE = LA_HEAP_MAX_PROCESSES, MAX_TRIES = 4 * HEAP_NOTICES };

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
    return number / HEAP_NOTICES & ROUND_MASK;
}

static uint64_t word_round(uint64_t word)
{
    return word >> ROUND_SHIFT;
}

static uint64_t word_of(uint64_t number, unsigned who, uint32_t incarnation)
{
    return round_of(number) << ROUND_SHIFT | (uint64_t)who << 33 | (uint64_t)incarnation << 1;
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

/* *word: as it was found. */
static struct heap_notice *find(struct la_heap *heap, unsigned who, uint32_t incarnation, uint64_t *word)
{
    uint64_t wanted = word_of(0, who, incarnation);

    for (unsigned i = 0; i < HEAP_NOTICES; i++) {
        *word = atomic_load_explicit(&heap->notices[i].word, memory_order_acquire);
        if (*word && identity(*word) == wanted)
            return &heap->notices[i];
    }
    return NULL;
}

/* The recoverer before us, who claimed the entry, may have died before step 2. */
static void count_found(struct la_heap *heap, const struct heap_notice *entry, uint64_t word)
{
    uint64_t number = atomic_load_explicit(&heap->header->notices, memory_order_acquire);

    if (entry == &heap->notices[number % HEAP_NOTICES] && word_round(word) == round_of(number))
        atomic_compare_exchange_strong(&heap->header->notices, &number, number + 1);
}

/* NULL: all entries are being written, or were damaged. *ret: its word. */
static struct heap_notice *claim(struct la_heap *heap, unsigned who, uint32_t incarnation, uint64_t *ret)
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
        *ret = word_of(number, who, incarnation);
        ours = (!word || (word & COMPLETE && word_round(word) != round_of(number))) && atomic_compare_exchange_strong(&entry->word, &word, *ret);
        atomic_compare_exchange_strong(notices, &number, number + 1);
        if (ours)
            return entry;
    }
    return NULL;
}

static void post(struct la_heap *heap, unsigned who, uint32_t incarnation, const struct notice *notice)
{
    uint64_t word;
    struct heap_notice *entry = find(heap, who, incarnation, &word);

    /* Others may use it by now. */
    if (entry && word & COMPLETE)
        return;
    if (entry)
        count_found(heap, entry, word);
    else
        entry = claim(heap, who, incarnation, &word);
    if (!entry)
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

    heap_copy_text(ret.command, n->command, sizeof(ret.command));
    if (n->heir && n->heir <= LA_HEAP_MAX_ROOTS)
        heap_copy_text(ret.heir, heap->roots[n->heir - 1].name, sizeof(ret.heir));
    return ret;
}

/* 0; -EINPROGRESS: it is being written; -EOVERFLOW: the entry was used again; -ENOENT: it is none, or was passed over. */
static int read_obituary(struct la_heap *heap, uint64_t number, struct la_obituary *ret)
{
    struct heap_notice *entry = &heap->notices[number % HEAP_NOTICES];
    uint64_t word = atomic_load_explicit(&entry->word, memory_order_acquire);
    uint64_t ahead = (word_round(word) - round_of(number)) & ROUND_MASK;
    struct notice notice;

    if (ahead)
        return ahead <= ROUND_MASK / 2 ? -EOVERFLOW : -ENOENT;
    if (word_who(word) >= WHO_LANE)
        return -ENOENT;
    if (!(word & COMPLETE))
        return -EINPROGRESS;
    if (!read_data(entry, word, &notice))
        return -EOVERFLOW;
    *ret = obituary_of(heap, word, &notice);
    return 0;
}

int la_heap_obituary(struct la_heap *heap, uint64_t *number, struct la_obituary *ret)
{
    uint64_t end = atomic_load_explicit(&heap->header->notices, memory_order_acquire);

    if (end > HEAP_NOTICES && *number < end - HEAP_NOTICES) {
        *number = end - HEAP_NOTICES;
        return -EOVERFLOW;
    }
    for (; *number < end; ++*number) {
        int r = read_obituary(heap, *number, ret);

        if (r == -EINPROGRESS && end - *number <= HEAP_NOTICES / 2)
            return -ENOENT;
        /* Lost, though nobody may have counted yet the one that came in its place. */
        if (r == 0 || r == -EOVERFLOW) {
            ++*number;
            return r;
        }
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

/*
 * As la_heap_outcome(); -ENOENT: this lane does not know. What has happened is looked at before and after what is under way: in between the operation may
 * happen, and the next one begin. Acquire, in this order.
 */
static int ask_lane(struct heap_lane *lane, uint64_t number)
{
    bool happened = atomic_load_explicit(&lane->happened, memory_order_acquire) == number;
    bool under_way = atomic_load_explicit(&lane->operation, memory_order_acquire) == number;

    if (happened || atomic_load_explicit(&lane->happened, memory_order_acquire) == number)
        return 1;
    return under_way ? -EINPROGRESS : -ENOENT;
}

static int ask_notice(struct heap_notice *entry, uint64_t number)
{
    uint64_t word = atomic_load_explicit(&entry->word, memory_order_acquire);
    struct notice notice;

    if (!(word & COMPLETE) || word_who(word) < WHO_LANE || !read_data(entry, word, &notice))
        return -ENOENT;
    return notice.happened == number ? 1 : notice.operation == number ? 0 : -ENOENT;
}

static int ask_all(struct la_heap *heap, uint64_t number)
{
    int r = -ENOENT, told = -ENOENT;

    for (unsigned i = 1; i < heap_lanes(heap) && r == -ENOENT; i++)
        r = ask_lane(&heap->lane_table[i], number);
    for (unsigned i = 0; i < HEAP_NOTICES && r < 0 && told == -ENOENT; i++)
        told = ask_notice(&heap->notices[i], number);
    return told == -ENOENT ? r : told;
}

int la_heap_outcome(struct la_heap *heap, uint64_t number)
{
    int r;

    if (number == 0)
        return la_fail(-EINVAL, "operation 0 is that of operations without a number: give it another one with la_heap_operation()");
    r = ask_all(heap, number);
    if (r == -ENOENT)
        la_fail(r, "nobody in heap %s has operation %lu: it was not begun, or it is forgotten", heap->header->name, (unsigned long)number);
    return r;
}
