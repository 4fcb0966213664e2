#include "core/trail.h"

#include "core/lane.h"
#include "core/macroblock.h"
#include "core/shared_fast.h"
#include "core/shared_macro.h"

enum {
    TRIES = 4,                  /* entries that are looked at for one that can be used again */
    EARNED_PER_BLOCK = 4,       /* words that are looked at for each block that is allocated */
    MOST_EARNED = 16384,
    COST_OF_MACRO = 32,         /* of looking at the marks of a macro block, in words */
    COST_OF_PAGE = 48,          /* so that a lane that fills pages of 4 KiB blocks, 16 each, keeps up */
};

void trail_lose(struct la_heap *heap)
{
    _Atomic(uint32_t) *lost = &heap->processes[heap->process].trail_lost;

    if (!atomic_load_explicit(lost, memory_order_relaxed))
        atomic_store_explicit(lost, 1, memory_order_release);
}

bool trail_is_lost(const struct la_heap *heap, unsigned process)
{
    return atomic_load(&heap->processes[process].trail_lost) != 0;
}

/* ---- the row ---- */

void trail_open(struct lane *lane)
{
    struct heap_lane *entry = &lane->heap->lane_table[lane->number];
    struct heap_trail *row = &lane->heap->trail[lane->number];

    if (!macro_commit_trail(lane->heap, lane->number))
        return;
    for (unsigned i = 0; i < TRAIL_ENTRIES; i++)
        atomic_store_explicit(&row->block[i], 0, memory_order_relaxed);
    atomic_store_explicit(&entry->freeing, 0, memory_order_relaxed);
    atomic_store_explicit(&entry->has_row, 1, memory_order_release);
    lane->trail = row;
}

/* Whatever the epoch of its page: at worst an entry stays too long. The word may be payload by now, which is as good. */
static bool is_still_held(const struct lane *lane, _Atomic(word_t) *word)
{
    word_t w = word ? atomic_load_explicit(word, memory_order_relaxed) : 0;
    enum word_state state = word_state(w, word_epoch(w));

    return word_lane(w) == lane->number && (state == WORD_HELD || state == WORD_IN_DOUBT);
}

static void write_entry(struct lane *lane, const struct block_ref *ref)
{
    for (unsigned n = 0; lane->trail && n < TRIES; n++) {
        unsigned i = (lane->trail_at + n) % TRAIL_ENTRIES;

        if (is_still_held(lane, lane->trail_word[i]))
            continue;
        lane->trail_at = i;
        lane->trail_word[i] = ref->word;
        atomic_store_explicit(&lane->trail->block[i], heap_offset(lane->heap, ref->start), memory_order_release);
        return;
    }
    trail_lose(lane->heap);
}

void trail_note(struct lane *lane, const struct block_ref *ref)
{
    /* It stays ours while we hold the block. */
    if (!macro_is_of_lane(lane->heap, ref->macro, lane->number))
        write_entry(lane, ref);
    else if (trail_mark(lane->heap, ref->start))
        lane->has_marks = true;
}

/* ---- wiping marks off ---- */

/* A block of @words is held by @lane, or in doubt. Not atomic, by vectors: words of ours change by our own hand only, or from IN_DOUBT to HEAP. */
__attribute__((no_sanitize("thread"))) static bool any_held(const _Atomic(word_t) *words, size_t n, unsigned epoch, unsigned lane)
{
    typedef int32_t four __attribute__((vector_size(16), aligned(4), may_alias));
    typedef uint64_t two __attribute__((vector_size(16)));
    const int32_t held = (int32_t)word_make(0, epoch, WORD_HELD, lane), in_doubt = (int32_t)word_make(0, epoch, WORD_IN_DOUBT, lane);
    size_t i = 0;

    for (; i + 8 <= n; i += 8) {
        four a = *(const four *)&words[i] & WORD_MEANING_MASK, b = *(const four *)&words[i + 4] & WORD_MEANING_MASK;
        two found = (two)((a == held) | (a == in_doubt) | (b == held) | (b == in_doubt));

        if (found[0] | found[1])
            return true;
    }
    for (; i < n; i++) {
        int32_t w = (int32_t)atomic_load_explicit(&words[i], memory_order_relaxed) & WORD_MEANING_MASK;

        if (w == held || w == in_doubt)
            return true;
    }
    return false;
}

static bool page_is_held(const struct lane *lane, const struct la_macro *m, unsigned at)
{
    const struct la_page *page = macro_page(m, at);
    struct heap_slice *slice = slice_of(lane->heap, m->index, at);
    unsigned epoch = slice_epoch(atomic_load_explicit(&slice->page, memory_order_relaxed));

    if (page->kind == PAGE_LARGE)
        return any_held(run_word(slice), 1, epoch, lane->number);
    return page->kind == PAGE_LANE && any_held(lane_page_words(page), page->capacity, epoch, lane->number);
}

/* The slice where the page around slice @at begins; one of no page is its own. */
static unsigned head_of(const struct la_macro *m, unsigned at)
{
    unsigned head = at;

    while (head > 0 && macro_page(m, head)->kind == PAGE_NONE)
        head--;
    return macro_page(m, head)->kind != PAGE_NONE && at - head < macro_page(m, head)->slices ? head : at;
}

/*
 * The marks of one page. A signal handler that holds a block of it meanwhile marks the slice as it finds it, MARK_DOUBTED, and keeps it so: as long as
 * it may be wiped off it says that something is held.
 */
static unsigned wipe_page(const struct lane *lane, const struct la_macro *m, unsigned head)
{
    _Atomic(uint8_t) *marks = &lane->heap->marks[(size_t)m->index * SLICES_PER_MACRO];
    const struct la_page *page = macro_page(m, head);
    unsigned end = head + (page->kind == PAGE_NONE ? 1 : page->slices);

    for (unsigned i = head; i < end; i++)
        if (atomic_load_explicit(&marks[i], memory_order_relaxed))
            atomic_store_explicit(&marks[i], MARK_DOUBTED, memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst);
    if (!page_is_held(lane, m, head))
        for (unsigned i = head; i < end; i++) {
            uint8_t doubted = MARK_DOUBTED;

            atomic_compare_exchange_strong_explicit(&marks[i], &doubted, MARK_NONE, memory_order_release, memory_order_relaxed);
        }
    return end;
}

void trail_earn(struct lane *lane, unsigned n)
{
    if (lane->has_marks)
        lane->earned = MIN(lane->earned + (int)n * EARNED_PER_BLOCK, MOST_EARNED);
}

/* Marks of the macro block from @at on, by slice; SLICES_PER_MACRO: none. */
static unsigned next_mark(const struct la_heap *heap, const struct la_macro *m, unsigned at)
{
    uint32_t marks = trail_marks(heap, m->index);

    marks = at < SLICES_PER_MACRO ? marks >> at << at : 0;
    return marks ? (unsigned)__builtin_ctz(marks) : SLICES_PER_MACRO;
}

void trail_wipe(struct lane *lane)
{
    struct la_heap *heap = lane->heap;
    struct la_chain *chain = &lane->chain;

    if (!lane->has_marks)
        return;
    while (lane->earned >= COST_OF_MACRO + COST_OF_PAGE && chain->macros) {
        struct la_macro *m = &heap->segment.macros[lane->wipe_macro];
        unsigned at;

        /* It may have been given back, and another thread be making its own view of it. */
        if (!macro_is_of_lane(heap, lane->wipe_macro, lane->number) || m->chain != chain) {
            m = chain->macros;
            lane->wipe_slice = 0;
        }
        lane->wipe_macro = m->index;
        lane->earned -= COST_OF_MACRO;
        at = next_mark(heap, m, lane->wipe_slice);
        if (at < SLICES_PER_MACRO) {
            lane->earned -= COST_OF_PAGE + (int)macro_page(m, head_of(m, at))->capacity;
            lane->wipe_slice = wipe_page(lane, m, head_of(m, at));
            lane->rounds_without = 0;
            continue;
        }
        lane->wipe_slice = 0;
        lane->wipe_macro = m->chain_next ? m->chain_next->index : chain->macros->index;
        /* Once round. */
        if (++lane->rounds_without > chain->macro_count) {
            lane->has_marks = false;
            lane->earned = 0;
            lane->rounds_without = 0;
            return;
        }
    }
}

void trail_forget(struct la_heap *heap, uint32_t macro)
{
    for (unsigned i = 0; i < SLICES_PER_MACRO; i++)
        atomic_store_explicit(&heap->marks[(size_t)macro * SLICES_PER_MACRO + i], MARK_NONE, memory_order_relaxed);
}

/* ---- recovery ---- */

uint32_t trail_marks(const struct la_heap *heap, uint32_t macro)
{
    const _Atomic(uint8_t) *marks = &heap->marks[(size_t)macro * SLICES_PER_MACRO];
    uint32_t mask = 0;

    for (unsigned i = 0; i < SLICES_PER_MACRO; i++)
        mask |= (uint32_t)(atomic_load_explicit(&marks[i], memory_order_relaxed) != MARK_NONE) << i;
    return mask;
}

/* Anything may stand there. */
static void visit_at(struct la_heap *heap, uint64_t offset, block_visitor *visit, void *user)
{
    struct block_ref ref;

    if (offset && offset < heap->size && block_find(heap, heap->base + offset, &ref))
        visit(user, &ref);
}

void trail_each(struct la_heap *heap, unsigned number, block_visitor *visit, void *user)
{
    struct heap_lane *entry = &heap->lane_table[number];

    if (!atomic_load(&entry->has_row))
        return;
    for (unsigned i = 0; i < TRAIL_ENTRIES; i++)
        visit_at(heap, atomic_load(&heap->trail[number].block[i]), visit, user);
    visit_at(heap, atomic_load(&entry->freeing), visit, user);
}

static bool is_marked_slice(const struct la_heap *heap, const struct block_ref *ref)
{
    return trail_marks(heap, ref->macro) >> ((size_t)(ref->start - slice_memory(heap, ref->macro, 0)) >> SLICE_SHIFT) & 1;
}

bool trail_leads_to(struct la_heap *heap, unsigned number, const struct block_ref *ref)
{
    uint64_t owner = atomic_load_explicit(&heap->macros[ref->macro].owner, memory_order_relaxed);
    uint32_t slot = (uint32_t)atomic_load(&heap->lane_table[number].owner) - 1;

    /* What is left to an heir is looked for everywhere. */
    if (slot >= LA_HEAP_MAX_PROCESSES || trail_is_lost(heap, slot) || atomic_load(&heap->processes[slot].heir) || owner_state(owner) == OWNER_RUN)
        return true;
    if (macro_is_of_lane(heap, ref->macro, number) && is_marked_slice(heap, ref))
        return true;
    for (unsigned i = 0; i < TRAIL_ENTRIES && atomic_load(&heap->lane_table[number].has_row); i++)
        if (atomic_load(&heap->trail[number].block[i]) == heap_offset(heap, ref->start))
            return true;
    return false;
}
