/*
 * source.c - the keeper of macro blocks.
 *
 * A source holds segments and hands their macro blocks to chains. Blocks of ended threads stay live in abandoned macro
 * blocks, owned by the source's orphan chain, until a thread that needs their size class adopts the whole macro block (R6).
 * Free macro blocks are kept resident or purged as policy.c decides.
 *
 * I1  m->state tells the list: FREE on free_dirty or free_clean, ABANDONED on abandoned, OWNED, RUN and RETIRED on none of the source's.
 * I2  dirty_bytes is the sum of macro_bytes() over free_dirty of all nodes.
 * I3  The pages of an abandoned macro block have chain == orphan and fast_chain == NULL.
 * I4  Free and abandoned macro blocks are on the lists of their segment's node: the one it was asked for.
 *
 * Locking: everything under source->lock, but the call to ops.acquire, which runs under source->grow_lock alone: one source's slow driver
 * (a registration takes seconds) holds up nobody who grows another.
 */
#include "core/source_parts.h"

#include <assert.h>

#include "core/huge.h"
#include "core/macroblock.h"
#include "core/page.h"
#include "core/policy.h"
#include "core/pool.h"
#include "os/os.h"

void source_free_push(struct la_source *source, struct la_macro *m)
{
    m->state = MACRO_FREE;
    m->chain = NULL;
    if (!m->dirty) {
        macro_list_push(&source_node_of(source, m)->free_clean, m);
        return;
    }
    m->freed_at = os_now_ms();
    source->dirty_bytes += macro_bytes(m);
    macro_list_push(&source_node_of(source, m)->free_dirty, m);
}

void source_free_drop(struct la_source *source, struct la_macro *m)
{
    if (m->dirty) {
        source->dirty_bytes -= macro_bytes(m);
        macro_list_drop(&source_node_of(source, m)->free_dirty, m);
    } else {
        macro_list_drop(&source_node_of(source, m)->free_clean, m);
    }
}

/* ---- purge ---- */

static bool purge_macro(struct la_source *source, struct la_macro *m)
{
    struct la_range range = { (void *)macro_address(m), macro_bytes(m) };
    uintptr_t page = os_page_size(), from, to;

    if (!source->ops.purge)
        return false;
    from = align_up((uintptr_t)range.base, page);
    to = align_down((uintptr_t)range.base + range.size, page);
    if (to <= from || source->ops.purge(source->self, (struct la_range){ (void *)from, to - from }) < 0)
        return false;
    source_free_drop(source, m);
    m->dirty = 0;
    source_free_push(source, m);
    return true;
}

/* Of the macro blocks that may be resident the one that has been free for longest: the last of some list. NULL: none. */
static struct la_macro *oldest_dirty(struct la_source *source)
{
    struct la_macro *oldest = NULL;

    for (unsigned i = 0; i < source->node_count; i++) {
        struct la_macro *m = source->nodes[i].free_dirty;

        while (m && m->next)
            m = m->next;
        if (m && (!oldest || m->freed_at < oldest->freed_at))
            oldest = m;
    }
    return oldest;
}

void source_apply_policy(struct la_source *source)
{
    for (int i = 0; i < 4 && source->dirty_bytes > 0; i++) {
        struct la_macro *oldest = oldest_dirty(source);
        struct policy_input in;

        in = (struct policy_input){ .cached = source->dirty_bytes, .mapped = source->mapped,
                                    .age_ms = os_now_ms() - oldest->freed_at };
        if (policy_keeps(&in) || !purge_macro(source, oldest))
            return;
    }
}

static size_t trim_node(struct la_source *source, struct la_source_node *node)
{
    size_t given = 0;

    for (struct la_macro *m = node->free_dirty, *next; m; m = next) {
        size_t bytes = macro_bytes(m);
        next = m->next;
        if (purge_macro(source, m))
            given += bytes;
    }
    return given;
}

size_t source_purge_free(struct la_source *source)
{
    size_t given = 0;

    for (unsigned i = 0; i < source->node_count; i++)
        given += trim_node(source, &source->nodes[i]);
    return given;
}

size_t la_source_trim(struct la_source *source)
{
    size_t given;

    if (!source)
        source = &la_default_source;
    pool_trim_own();
    source_collect(source);
    lock_take(&source->lock);
    given = source_purge_free(source);
    lock_give(&source->lock);
    if (source == &la_default_source)
        given += huge_trim();
    return given;
}

/* ---- macro blocks ---- */

typedef void page_visitor(struct la_page *page, void *arg);

static void each_page(struct la_macro *m, page_visitor *visit, void *arg)
{
    for (unsigned i = 0; i < SLICES_PER_MACRO; i++) {
        struct la_page *page;

        if (!(m->all_slices & (1u << i)) || (m->free_slices & (1u << i)))
            continue;
        page = macro_page(m, i);
        if (page->kind == PAGE_NONE)
            continue;
        visit(page, arg);
    }
}

static void hand_over(struct la_page *page, void *arg)
{
    struct la_chain *to = arg;

    if (page->kind == PAGE_LARGE) {
        source_count_large(atomic_load_explicit(&page->chain, memory_order_relaxed), page, -1);
        source_count_large(to, page, 1);
    }
    page->listed = 0;
    page->next = page->prev = NULL;
    atomic_store_explicit(&page->chain, to, memory_order_relaxed);
    if (to->kind == CHAIN_ORPHAN)
        atomic_store_explicit(&page->fast_chain, NULL, memory_order_relaxed);
    else
        page_open_to_fast_path(page, to);
    if (to->kind != CHAIN_ORPHAN && page->kind == PAGE_SMALL && page_has_free(page))
        pool_list_page(to, page);
}

struct wish {
    unsigned c;
    bool met;
};

static void look_for_class(struct la_page *page, void *arg)
{
    struct wish *wish = arg;

    if (page->kind == PAGE_SMALL && page->size_class == wish->c && page_has_free(page))
        wish->met = true;
}

static bool macro_serves(struct la_macro *m, unsigned c, unsigned slices)
{
    struct wish wish = { .c = c };

    if (bits_longest_run(m->free_slices) >= slices)
        return true;
    each_page(m, look_for_class, &wish);
    return wish.met;
}

static struct la_macro *pick_abandoned(struct la_source_node *node, unsigned c, unsigned slices)
{
    int looked = 0;

    /* Bounded: a long list of full macro blocks must not be searched at every refill. */
    for (struct la_macro *m = node->abandoned; m && looked < 16; m = m->next, looked++)
        if (macro_serves(m, c, slices)) {
            macro_list_drop(&node->abandoned, m);
            return m;
        }
    return NULL;
}

static struct la_macro *pick_free(const struct la_source_node *node, unsigned slices)
{
    for (struct la_macro *m = node->free_dirty ? node->free_dirty : node->free_clean; m; m = m->next)
        if ((unsigned)__builtin_popcount(m->all_slices) >= slices)
            return m;
    if (node->free_dirty)
        for (struct la_macro *m = node->free_clean; m; m = m->next)
            if ((unsigned)__builtin_popcount(m->all_slices) >= slices)
                return m;
    return NULL;
}

static void take_free(struct la_source *source, struct la_chain *chain, struct la_macro *m)
{
    source_free_drop(source, m);
    m->state = MACRO_OWNED;
    m->free_slices = m->all_slices;
    macro_join(chain, m);
}

/* What a growing thread will need next, while the lock is held: of what is resident already, a quarter of what it has, no more than it may keep. */
static void take_ahead(struct la_source *source, struct la_source_node *node, struct la_chain *chain)
{
    enum { MOST = 3 };
    unsigned n = chain->kind == CHAIN_THREAD ? MIN(chain->macro_count / 4, (unsigned)MOST) : 0;

    for (; n > 0 && node->free_dirty && node->free_dirty->all_slices == UINT32_MAX; n--)
        take_free(source, chain, node->free_dirty);
}

/* Under the lock. */
static bool take_on_node(struct la_source *source, unsigned node, struct la_chain *chain, unsigned c, unsigned slices)
{
    struct la_macro *m = pick_abandoned(&source->nodes[node], c, slices);

    if (m) {
        m->state = MACRO_OWNED;
        macro_join(chain, m);
        each_page(m, hand_over, chain);
        return true;
    }
    m = pick_free(&source->nodes[node], slices);
    if (!m)
        return false;
    take_free(source, chain, m);
    take_ahead(source, &source->nodes[node], chain);
    return true;
}

static bool take_one(struct la_source *source, unsigned node, struct la_chain *chain, unsigned c, unsigned slices)
{
    bool ok;

    lock_take(&source->lock);
    ok = take_on_node(source, node, chain, c, slices);
    lock_give(&source->lock);
    return ok;
}

/* @node can give nothing more. Others are asked for what they have free, not to grow: that is the owner's choice, who knows what is near. */
static bool take_elsewhere(struct la_source *source, unsigned node, struct la_chain *chain, unsigned c, unsigned slices)
{
    unsigned count = source->ops.strict ? 1 : source->node_count;
    bool ok = false;

    for (unsigned i = 1; i < count && !ok; i++)
        ok = take_one(source, (node + i) % count, chain, c, slices);
    return ok;
}

bool source_take_macro(struct la_source *source, struct la_chain *chain, unsigned c, unsigned slices)
{
    unsigned node = source_node_for(source, chain);

    if (atomic_load_explicit(&source->dead_hint, memory_order_relaxed))
        source_collect(source);
    for (int tries = 0; tries < 2; tries++) {
        if (take_one(source, node, chain, c, slices))
            return true;
        if (!source_grow(source, node, MACRO_SIZE))
            return take_elsewhere(source, node, chain, c, slices);
    }
    return take_one(source, node, chain, c, slices);
}

void source_give_macro(struct la_source *source, struct la_chain *chain, struct la_macro *m)
{
    assert(m->free_slices == m->all_slices);
    lock_take(&source->lock);
    macro_leave(chain, m);
    source_free_push(source, m);
    source_apply_policy(source);
    lock_give(&source->lock);
}

void source_abandon_macro(struct la_source *source, struct la_chain *chain, struct la_macro *m)
{
    lock_take(&source->lock);
    macro_leave(chain, m);
    m->state = MACRO_ABANDONED;
    m->chain = source->orphan;
    each_page(m, hand_over, source->orphan);
    macro_list_push(&source_node_of(source, m)->abandoned, m);
    lock_give(&source->lock);
}

/* ---- fork ---- */

void source_fork_prepare(struct la_source *source)
{
    if (source->forking)
        return;
    lock_take_peer(&source->lock);
    source->forking = true;
}

void source_fork_done(struct la_source *source, bool child)
{
    if (!source->forking)
        return;
    source->forking = false;
    if (child) {
        lock_reset(&source->lock);
        lock_reset(&source->grow_lock);     /* not taken for the fork: whoever grows may be long in a driver */
    } else {
        lock_give(&source->lock);
    }
}
