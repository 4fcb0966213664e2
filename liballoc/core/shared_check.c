/*
 * shared_check.c - every invariant of a shared heap, from its words alone; and a walk over its blocks.
 *
 *   F1  the header says what it said when it was formatted
 *   F2  an owner word has a known state, names a lane that exists, or the head of the run it belongs to
 *   F3  page words: known kinds, classes and lengths; pages do not overlap or leave their macro block
 *   F4  state words of two pages do not overlap and lie in slices of words
 *   F5  a word that is HELD or IN_DOUBT names a lane that is lent
 *   F6  an intent has a known operation and points into the heap
 *   F7  a root points to a live block, to memory in the heap, or nowhere
 *   F8  a queue that a root points to is sound (Q1 to Q4 of queue.c)
 *   F9  what a lane holds would be found after its death (trail.h)
 */
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "base/error.h"
#include "base/fmt.h"
#include "core/macroblock.h"
#include "core/page.h"
#include "core/queue.h"
#include "core/shared_block.h"
#include "core/shared_format.h"
#include "core/shared_heap.h"
#include "core/size_class.h"
#include "core/trail.h"

struct fsck {
    struct la_heap *heap;
    void (*report)(void *user, const char *line);
    void *user;
    struct la_fsck counts;
    void (*block)(struct fsck *fsck, const struct block_ref *ref, word_t w);
    void (*each)(void *user, void *block, size_t size, bool held);
    long walked;
};

static void finding(struct fsck *fsck, const char *format, ...) PRINTF_LIKE(2, 3);

static void finding(struct fsck *fsck, const char *format, ...)
{
    char line[200];
    va_list args;

    fsck->counts.errors++;
    if (!fsck->report)
        return;
    va_start(args, format);
    la_vformat(line, sizeof(line), format, args);
    va_end(args);
    fsck->report(fsck->user, line);
}

static bool lane_is_lent(struct la_heap *heap, unsigned number)
{
    return number > 0 && number < HEAP_LANES && (uint32_t)atomic_load(&heap->lane_table[number].owner) != 0;
}

/* ---- blocks ---- */

static void check_held(struct fsck *fsck, const struct block_ref *ref, word_t w)
{
    if (!lane_is_lent(fsck->heap, word_lane(w)))
        finding(fsck, "block %p: word %#x names lane %u, which nobody has (F5)", (void *)ref->start, w, word_lane(w));
    /* A trail that leads elsewhere by now is no trail of this word: it must be the same still. */
    else if (!trail_leads_to(fsck->heap, word_lane(w), ref) && atomic_load(ref->word) == w)
        finding(fsck, "block %p: held by lane %u, and no trail leads to it (F9)", (void *)ref->start, word_lane(w));
}

static void check_block(struct fsck *fsck, const struct block_ref *ref, word_t w)
{
    enum word_state state = word_state(w, ref->epoch);

    fsck->counts.blocks[state]++;
    fsck->counts.bytes[state] += ref->size;
    if (state == WORD_HELD || state == WORD_IN_DOUBT)
        check_held(fsck, ref, w);
}

static void walk_block(struct fsck *fsck, const struct block_ref *ref, word_t w)
{
    enum word_state state = word_state(w, ref->epoch);

    if (state == WORD_FREE)
        return;
    fsck->walked++;
    if (fsck->each)
        fsck->each(fsck->user, ref->start, ref->size, state != WORD_HEAP);
}

/* ---- pages ---- */

struct layout {
    uint32_t covered;       /* slices in pages or words */
    uint32_t words;         /* slices of words */
    uint64_t granules[SLICES_PER_MACRO * GRANULES_PER_SLICE / 64];
};

static bool words_are_sane(struct fsck *fsck, uint32_t macro, unsigned slice, slice_t page, struct layout *layout)
{
    size_t capacity = slice_count(page) * SLICE_SIZE / class_size(slice_class(page));
    unsigned n = (unsigned)((capacity + WORDS_PER_GRANULE - 1) / WORDS_PER_GRANULE), first = slice_words(page);

    for (unsigned g = first; g < first + n; g++) {
        if (g / GRANULES_PER_SLICE >= SLICES_PER_MACRO || !(layout->words & (1u << g / GRANULES_PER_SLICE))) {
            finding(fsck, "macro block %u slice %u: state words at granule %u, which is no slice of words (F4)", macro, slice, g);
            return false;
        }
        if (layout->granules[g / 64] >> g % 64 & 1) {
            finding(fsck, "macro block %u slice %u: shares state words with another page (F4)", macro, slice);
            return false;
        }
        layout->granules[g / 64] |= 1ull << g % 64;
    }
    return true;
}

static bool page_word_is_sane(struct fsck *fsck, uint32_t macro, unsigned slice, slice_t page, struct layout *layout)
{
    unsigned n = slice_count(page);

    if ((slice_kind(page) != SLICE_SMALL && slice_kind(page) != SLICE_LARGE) || n == 0 || slice + n > SLICES_PER_MACRO ||
        (slice_kind(page) == SLICE_SMALL && (slice_class(page) == 0 || slice_class(page) >= SMALL_CLASSES))) {
        finding(fsck, "macro block %u slice %u: page word %#lx makes no sense (F3)", macro, slice, page);
        return false;
    }
    if (layout->covered & bits_run(slice, n)) {
        finding(fsck, "macro block %u slice %u: page overlaps another (F3)", macro, slice);
        return false;
    }
    layout->covered |= bits_run(slice, n);
    return true;
}

static void visit_page(struct fsck *fsck, uint32_t macro, unsigned slice, slice_t page)
{
    struct block_ref ref;
    size_t n = block_first(fsck->heap, macro, slice, page, &ref);

    fsck->counts.pages++;
    if (n == 0)
        finding(fsck, "macro block %u slice %u: its blocks cannot be found (F3)", macro, slice);
    for (size_t i = 0; i < n; i++, ref.word++, ref.start += ref.size)
        fsck->block(fsck, &ref, atomic_load_explicit(ref.word, memory_order_relaxed));
}

static void check_pages(struct fsck *fsck, uint32_t macro)
{
    struct layout layout = { 0 };

    for (unsigned i = 0; i < SLICES_PER_MACRO; i++)
        if (slice_kind(atomic_load(&slice_of(fsck->heap, macro, i)->page)) == SLICE_WORDS)
            layout.words |= 1u << i;
    layout.covered = layout.words;
    for (unsigned i = 0; i < SLICES_PER_MACRO; i++) {
        slice_t page = atomic_load(&slice_of(fsck->heap, macro, i)->page);

        /* A continued slice without its page is what a death while a page was made leaves: free. */
        if (slice_kind(page) == SLICE_FREE || slice_kind(page) == SLICE_WORDS || slice_kind(page) == SLICE_CONTINUED)
            continue;
        if (page_word_is_sane(fsck, macro, i, page, &layout) &&
            (slice_kind(page) == SLICE_LARGE || words_are_sane(fsck, macro, i, page, &layout)))
            visit_page(fsck, macro, i, page);
    }
}

/* ---- macro blocks ---- */

static void check_run(struct fsck *fsck, uint32_t macro, uint64_t owner)
{
    uint32_t head = owner_head(owner);
    struct block_ref ref;

    if (head > macro || !block_find(fsck->heap, fsck->heap->payload + (size_t)macro * MACRO_SIZE, &ref) || ref.macro != head)
        finding(fsck, "macro block %u: part of a run that starts at %u, where none is (F2)", macro, head);
    else if (head == macro)
        fsck->block(fsck, &ref, atomic_load(ref.word));
}

static void check_macro(struct fsck *fsck, uint32_t macro)
{
    uint64_t owner = atomic_load(&fsck->heap->macros[macro].owner);

    if (owner_state(owner) == OWNER_NONE)
        return;
    fsck->counts.macro_blocks++;
    if (owner_state(owner) > OWNER_RUN) {
        finding(fsck, "macro block %u: owner word %#lx has an unknown state (F2)", macro, owner);
        return;
    }
    if ((owner_state(owner) == OWNER_LANE || owner_state(owner) == OWNER_CLAIMING) && !lane_is_lent(fsck->heap, owner_lane(owner)))
        finding(fsck, "macro block %u: belongs to lane %u, which nobody has (F2)", macro, owner_lane(owner));
    if (owner_state(owner) == OWNER_RUN)
        check_run(fsck, macro, owner);
    else if (owner_state(owner) != OWNER_CLAIMING)
        check_pages(fsck, macro);
}

/* ---- header, lanes, roots ---- */

static void check_header(struct fsck *fsck)
{
    struct heap_header *h = fsck->heap->header, expected = { 0 };

    if (h->magic != HEAP_MAGIC || h->layout_hash != HEAP_LAYOUT_HASH || h->size != fsck->heap->size ||
        h->address != (uintptr_t)fsck->heap->base || !heap_geometry(fsck->heap->size, &expected) ||
        h->payload_at != expected.payload_at || h->macro_count != expected.macro_count)
        finding(fsck, "the header was overwritten (F1)");
    if (atomic_load(&h->rows) > fsck->heap->macro_count)
        finding(fsck, "%u rows of macro blocks, the heap has %u (F1)", atomic_load(&h->rows), fsck->heap->macro_count);
}

/* What an intent names lies in the heap. */
static bool intent_is_inside(const struct la_heap *heap, struct heap_lane *lane, uint32_t op)
{
    if (op == INTENT_NONE)
        return true;
    if (op == INTENT_SWAP && atomic_load(&lane->other) >= heap->size)
        return false;
    return op <= INTENT_LAST && atomic_load(&lane->link) < heap->size && atomic_load(&lane->block) < heap->size;
}

static void check_lane(struct fsck *fsck, unsigned number)
{
    struct heap_lane *lane = &fsck->heap->lane_table[number];
    uint32_t op = atomic_load(&lane->op), owner = (uint32_t)atomic_load(&lane->owner);

    if (!intent_is_inside(fsck->heap, lane, op))
        finding(fsck, "lane %u: intent %u points outside the heap (F6)", number, op);
    if (owner && number >= heap_lanes(fsck->heap))
        finding(fsck, "lane %u: lent, and beyond the %u that the header counts (F6)", number, heap_lanes(fsck->heap));
    if (owner > LA_HEAP_MAX_PROCESSES && owner - LANE_LEFT >= LA_HEAP_MAX_ROOTS)
        finding(fsck, "lane %u: belongs to process slot %u (F6)", number, owner - 1);
}

static void check_root(struct fsck *fsck, struct heap_root *root)
{
    uintptr_t value = (uintptr_t)la_load(fsck->heap, (la_link *)&root->value);
    struct block_ref ref;
    const char *wrong;

    if ((atomic_load(&root->state) & 3) != ROOT_NAMED || !value || !heap_contains(fsck->heap, (void *)value))
        return;     /* users may keep numbers in roots */
    if (!block_find(fsck->heap, (void *)value, &ref) || word_state(atomic_load(ref.word), ref.epoch) == WORD_FREE)
        finding(fsck, "root %.*s points to %p, which is no live block (F7)", LA_HEAP_NAME_MAX, root->name, (void *)value);
    else if ((wrong = queue_check(fsck->heap, (void *)value)) != NULL)
        finding(fsck, "queue %.*s at %p: %s (F8)", LA_HEAP_NAME_MAX, root->name, (void *)value, wrong);
}

static void visit_blocks(struct fsck *fsck)
{
    uint32_t rows = heap_rows(fsck->heap);

    for (uint32_t i = 0; i < rows; i++)
        check_macro(fsck, i);
}

int la_heap_fsck(struct la_heap *heap, void (*report)(void *user, const char *line), void *user, struct la_fsck *ret)
{
    struct fsck fsck = { .heap = heap, .report = report, .user = user, .block = check_block };
    size_t size = ret ? ret->struct_size : 0;

    if (heap_check_attached(heap) < 0)
        return -ECHILD;
    if (ret && (size < offsetof(struct la_fsck, pages) || size > 4 * sizeof(*ret)))
        return la_fail(-EINVAL, "set struct_size to sizeof(struct la_fsck) before the call");
    check_header(&fsck);
    visit_blocks(&fsck);
    for (unsigned i = 1; i < HEAP_LANES; i++)
        check_lane(&fsck, i);
    for (unsigned i = 0; i < LA_HEAP_MAX_ROOTS; i++)
        check_root(&fsck, &heap->roots[i]);
    if (ret) {
        memset(ret, 0, size);
        memcpy(ret, &fsck.counts, MIN(size, sizeof(fsck.counts)));
        ret->struct_size = size;
    }
    return (int)fsck.counts.errors;
}

long la_heap_walk(struct la_heap *heap, void (*each)(void *user, void *block, size_t size, bool held), void *user)
{
    struct fsck fsck = { .heap = heap, .user = user, .block = walk_block, .each = each };

    if (heap_check_attached(heap) < 0)
        return -ECHILD;
    visit_blocks(&fsck);
    return fsck.walked;
}
