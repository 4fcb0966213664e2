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
#include "core/source.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "core/huge.h"
#include "core/macroblock.h"
#include "core/meta.h"
#include "core/page.h"
#include "core/policy.h"
#include "core/pool.h"
#include "core/region_map.h"
#include "core/remote_free.h"
#include "core/segment.h"
#include "os/nodes.h"
#include "os/os.h"

enum { FIRST_SEGMENT = 64 << 20, SMALLEST_SEGMENT = 4 << 20, LARGEST_SEGMENT = 1 << 30 };

/*
 * With its part of the region map: were that refused later, when memory is short, a free macro block that cannot be entered
 * would stand in the way of those that can.
 */
static void *map_segment(size_t size)
{
    void *p = os_map_aligned(size, size >= 32 * MiB ? MACRO_SIZE : SLICE_SIZE);

    if (p && !region_reserve((uintptr_t)p, size)) {
        os_unmap(p, size);
        p = NULL;
    }
    return p;
}

static int anon_acquire(void *self, size_t min, size_t wanted, struct la_range *ret)
{
    (void)self;
    for (size_t size = wanted; size >= min; size = MAX(size / 2, min)) {
        void *p = map_segment(size);

        /* Before the least is refused, what was kept of huge blocks has to go. */
        if (!p && size == min && huge_trim() > 0)
            p = map_segment(size);
        if (p) {
            *ret = (struct la_range){ .base = p, .size = size };
            return 0;
        }
        if (size == min)
            break;
    }
    return la_fail(-ENOMEM, "the system refuses %zu bytes: RLIMIT_AS, overcommit or memory is exhausted", min);
}

static void anon_release(void *self, struct la_range range)
{
    (void)self;
    os_unmap(range.base, range.size);
}

static int anon_purge(void *self, struct la_range range)
{
    (void)self;
    return os_purge(range.base, range.size);
}

static struct la_chain default_orphan = { .bins = default_orphan.fast, .kind = CHAIN_ORPHAN, .source = &la_default_source };

struct la_source la_default_source = {
    .lock = LOCK_INIT(RANK_SOURCE),
    .grow_lock = LOCK_INIT(RANK_GROW),
    .ops = { .struct_size = sizeof(struct la_source_ops), .name = "anonymous memory", .acquire = anon_acquire,
             .release = anon_release, .purge = anon_purge },
    .nodes = &la_default_source.all_nodes,
    .all_nodes = { .next_segment = FIRST_SEGMENT },
    .node_count = 1,
    .orphan = &default_orphan,
};

/* ---- lists of the source ---- */

static void list_push(struct la_macro **head, struct la_macro *m)
{
    m->prev = NULL;
    m->next = *head;
    if (*head)
        (*head)->prev = m;
    *head = m;
}

static void list_drop(struct la_macro **head, struct la_macro *m)
{
    if (m->prev)
        m->prev->next = m->next;
    else
        *head = m->next;
    if (m->next)
        m->next->prev = m->prev;
    m->next = m->prev = NULL;
}

static struct la_source_node *node_of(struct la_source *source, const struct la_macro *m)
{
    return &source->nodes[m->segment->node];
}

static void free_push(struct la_source *source, struct la_macro *m)
{
    m->state = MACRO_FREE;
    m->chain = NULL;
    if (!m->dirty) {
        list_push(&node_of(source, m)->free_clean, m);
        return;
    }
    m->freed_at = os_now_ms();
    source->dirty_bytes += macro_bytes(m);
    list_push(&node_of(source, m)->free_dirty, m);
}

static void free_drop(struct la_source *source, struct la_macro *m)
{
    if (m->dirty) {
        source->dirty_bytes -= macro_bytes(m);
        list_drop(&node_of(source, m)->free_dirty, m);
    } else {
        list_drop(&node_of(source, m)->free_clean, m);
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
    free_drop(source, m);
    m->dirty = 0;
    free_push(source, m);
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

/* Give the oldest back until the policy is content; at most a few, so that no free waits long. */
static void apply_policy(struct la_source *source)
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

static size_t trim(struct la_source *source)
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
    given = trim(source);
    lock_give(&source->lock);
    if (source == &la_default_source)
        given += huge_trim();
    return given;
}

/* ---- growth ---- */

static void add_segment(struct la_source *source, struct la_segment *segment, unsigned node)
{
    segment->source = source;
    segment->node = node;
    segment->next = source->segments;
    source->segments = segment;
    source->mapped += segment->size;
    for (uint32_t i = segment->macro_count; i-- > 0;)
        free_push(source, &segment->macros[i]);
}

/* ---- limit ---- */

static size_t bytes_mapped(const struct la_source *source)
{
    return source->mapped + atomic_load_explicit(&source->outside, memory_order_relaxed);
}

/* Under the lock. */
static size_t bytes_left(const struct la_source *source)
{
    return source->limit ? source->limit - MIN(source->limit, bytes_mapped(source)) : SIZE_MAX;
}

static void fail_by_limit(const struct la_source *source)
{
    la_fail(-ENOMEM, "source limit of %zu bytes reached: raise it with la_source_limit() or free memory", source->limit);
}

static bool charge_once(struct la_source *source, size_t bytes)
{
    bool ok;

    lock_take(&source->lock);
    ok = bytes <= bytes_left(source);
    if (ok)
        atomic_fetch_add_explicit(&source->outside, bytes, memory_order_relaxed);
    lock_give(&source->lock);
    return ok;
}

bool source_charge(struct la_source *source, size_t bytes)
{
    /* Cached mappings count: they go first. */
    if (charge_once(source, bytes) || (huge_trim() > 0 && charge_once(source, bytes)))
        return true;
    fail_by_limit(source);
    return false;
}

void source_uncharge(struct la_source *source, size_t bytes)
{
    atomic_fetch_sub_explicit(&source->outside, bytes, memory_order_relaxed);
}

/* Descriptors in the memory would be in what the processor must not touch, or a child of fork() does not have. */
static bool is_apart(const struct la_source *source)
{
    return source->ops.flags;
}

static struct la_segment *lay_out(const struct la_source *source, struct la_range range)
{
    return is_apart(source) ? segment_init_apart(range.base, range.size)
                            : segment_init(range.base, range.size, source->ops.acquire == anon_acquire, 0, NULL);
}

/* What to ask for so that @payload bytes fit, within the limit; false: the limit forbids it. */
static bool plan_growth(struct la_source *source, unsigned node, size_t payload, size_t *min, size_t *wanted)
{
    bool ok;

    lock_take(&source->lock);
    *min = align_up(payload + segment_overhead(payload, is_apart(source)), SLICE_SIZE);
    *wanted = MAX(*min, MIN(source->nodes[node].next_segment, bytes_left(source)));
    ok = *min <= bytes_left(source);
    lock_give(&source->lock);
    return ok;
}

/* How many nodes a source with @ops tells apart. */
static unsigned nodes_of(const struct la_source_ops *ops)
{
    if (!ops->acquire_on)
        return 1;
    return ops->nodes ? ops->nodes : MIN(os_node_count(), (unsigned)LA_NODES_MAX);
}

/* NULL: no memory. One node needs none. */
static struct la_source_node *make_nodes(struct la_source *source, unsigned count)
{
    struct la_source_node *nodes = count == 1 ? &source->all_nodes : la_meta_alloc(count * sizeof(*nodes));

    for (unsigned i = 0; nodes && i < count; i++)
        nodes[i] = (struct la_source_node){ .next_segment = SMALLEST_SEGMENT };
    return nodes;
}

/* From now on there are @count of them, if there is memory for them; those that are there keep what they have. Under the lock. */
static void add_nodes(struct la_source *source, unsigned count)
{
    unsigned before = source->node_count;
    struct la_source_node *nodes = count > before ? make_nodes(source, count) : NULL;

    if (!nodes)
        return;
    memcpy(nodes, source->nodes, before * sizeof(*nodes));
    source->nodes = nodes;
    source->node_count = count;
}

static int ask_owner(struct la_source *source, unsigned node, size_t min, size_t wanted, struct la_range *ret)
{
    const struct la_source_ops *ops = &source->ops;

    if (!ops->acquire_on)
        return ops->acquire(source->self, min, wanted, ret);
    /* The default source may have told more of them apart before it was replaced. */
    return ops->acquire_on(source->self, node < nodes_of(ops) ? node : 0, min, wanted, ret);
}

/* A range as the source's owner gives it, laid out; NULL: none, or less than the least. */
static struct la_segment *acquire_segment(struct la_source *source, unsigned node, size_t min, size_t wanted)
{
    struct la_range range = { NULL, 0 };
    unsigned failures = error_count();
    struct la_segment *segment;
    int r = ask_owner(source, node, min, wanted, &range);

    if (r < 0) {
        /* Who knows more has said so: which limit it is, and the remedy. */
        if (error_count() == failures)
            la_fail(r, "source %s has no %zu bytes to give", source->ops.name, min);
        return NULL;
    }
    /* A shorter one would be cut into smaller slices, which only user buffers have. */
    segment = range.size < min ? NULL : lay_out(source, range);
    if (segment)
        return segment;
    if (range.size < min)
        la_fail(-ENOMEM, "source %s gave %zu bytes where at least %zu were asked for", source->ops.name, range.size, min);
    else
        la_fail(-ENOMEM, "no memory for the descriptors of %zu bytes of source %s", range.size, source->ops.name);
    if (source->ops.release)
        source->ops.release(source->self, range);
    return NULL;
}

/* Under source->grow_lock, so that two threads cannot pass the limit together. */
static bool grow_alone(struct la_source *source, unsigned node, size_t payload)
{
    struct la_segment *segment;
    size_t min, wanted;

    if (!plan_growth(source, node, payload, &min, &wanted) &&
        (source != &la_default_source || huge_trim() == 0 || !plan_growth(source, node, payload, &min, &wanted))) {
        fail_by_limit(source);
        return false;
    }
    segment = acquire_segment(source, node, min, wanted);
    if (!segment)
        return false;
    lock_take(&source->lock);
    add_segment(source, segment, node);
    source->nodes[node].next_segment = MIN(source->nodes[node].next_segment * 2, (size_t)LARGEST_SEGMENT);
    lock_give(&source->lock);
    return true;
}

/* Ask the owner of the memory for a segment with room for @payload bytes on @node. Called without source->lock. */
static bool grow(struct la_source *source, unsigned node, size_t payload)
{
    bool ok;

    if (source->fixed || payload > SIZE_MAX / 2)
        return false;
    lock_take(&source->grow_lock);
    ok = grow_alone(source, node, payload);
    lock_give(&source->grow_lock);
    return ok;
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

/* A large block is counted by its owner, also by the orphan. Under source->lock. */
static void count_large(struct la_chain *owner, const struct la_page *page, int blocks)
{
    owner->large_live += (uint64_t)blocks;
    owner->large_bytes += (uint64_t)blocks * ((uint64_t)page->slices << page->macro->segment->slice_shift);
}

static void hand_over(struct la_page *page, void *arg)
{
    struct la_chain *to = arg;

    if (page->kind == PAGE_LARGE) {
        count_large(atomic_load_explicit(&page->chain, memory_order_relaxed), page, -1);
        count_large(to, page, 1);
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
            list_drop(&node->abandoned, m);
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
    free_drop(source, m);
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

/*
 * The default source maps anonymous memory, which lies where it is touched first: on the node of the thread that asked for it. So it tells the machine's
 * nodes apart from its first macro block on (not before: the machine is asked), and what a thread leaves goes to others of the same node. Without memory for
 * that it does not.
 */
static NOINLINE void tell_nodes_apart(struct la_source *source)
{
    unsigned count = MIN(os_node_count(), (unsigned)LA_NODES_MAX);

    lock_take(&source->lock);
    if (!atomic_load_explicit(&source->knows_nodes, memory_order_relaxed))
        add_nodes(source, count);
    atomic_store_explicit(&source->knows_nodes, true, memory_order_release);
    lock_give(&source->lock);
}

/* Where @chain draws from: asked once per macro block, so that a thread that has moved draws from its new node. */
static unsigned node_for(struct la_source *source, const struct la_chain *chain)
{
    unsigned count, node;

    /* Acquire: pairs with tell_nodes_apart(). */
    if (unlikely(!atomic_load_explicit(&source->knows_nodes, memory_order_acquire)))
        tell_nodes_apart(source);
    count = source->node_count;
    if (likely(count == 1))
        return 0;
    node = chain->pinned ? chain->pinned - 1 : os_node_here();
    return node < count ? node : 0;
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
    unsigned node = node_for(source, chain);

    if (atomic_load_explicit(&source->dead_hint, memory_order_relaxed))
        source_collect(source);
    for (int tries = 0; tries < 2; tries++) {
        if (take_one(source, node, chain, c, slices))
            return true;
        if (!grow(source, node, MACRO_SIZE))
            return take_elsewhere(source, node, chain, c, slices);
    }
    return take_one(source, node, chain, c, slices);
}

void source_give_macro(struct la_source *source, struct la_chain *chain, struct la_macro *m)
{
    assert(m->free_slices == m->all_slices);
    lock_take(&source->lock);
    macro_leave(chain, m);
    free_push(source, m);
    apply_policy(source);
    lock_give(&source->lock);
}

void source_abandon_macro(struct la_source *source, struct la_chain *chain, struct la_macro *m)
{
    lock_take(&source->lock);
    macro_leave(chain, m);
    m->state = MACRO_ABANDONED;
    m->chain = source->orphan;
    each_page(m, hand_over, source->orphan);
    list_push(&node_of(source, m)->abandoned, m);
    lock_give(&source->lock);
}

/* ---- blocks freed to nobody ---- */

void source_note_dead_push(struct la_source *source)
{
    atomic_store_explicit(&source->dead_hint, 1, memory_order_relaxed);
}

/* A page of an abandoned macro block got blocks back; under source->lock. */
static void orphan_page_freed(struct la_source *source, struct la_page *page)
{
    struct la_macro *m = page->macro;
    unsigned at = (unsigned)(page - macro_page(m, 0));

    if (page->used > 0)
        return;
    if (segment_is_direct(m->segment))
        region_clear(slice_address(m->segment, page), page->slices);
    page->kind = PAGE_NONE;
    m->free_slices |= bits_run(at, page->slices);
    if (m->free_slices == m->all_slices) {
        list_drop(&node_of(source, m)->abandoned, m);
        free_push(source, m);
    }
}

static void orphan_free(struct la_source *source, void *block, struct la_page *page)
{
    if (page->kind == PAGE_SMALL) {
        *page_words(page, block) = la_free_mark;    /* in a queue, the link of an 8 byte block took its place */
        page_put(page, block);
    } else {
        page->used = 0;
        count_large(source->orphan, page, -1);
    }
    orphan_page_freed(source, page);
}

/* Takes one queue; what belongs to living chains is forwarded after the lock is given. Under source->lock. */
static void *sort_queue(struct la_source *source, struct la_chain *from, void *others)
{
    for (void *block = remote_take_all(from), *next; block; block = next) {
        struct la_page *page = remote_page_of(block);

        if (unlikely(!page))
            break;
        next = remote_next(page, block);
        if (atomic_load_explicit(&page->chain, memory_order_relaxed) == source->orphan && page->kind != PAGE_HUGE) {
            orphan_free(source, block, page);
        } else {
            *page_link(page, block) = others;
            others = block;
        }
    }
    return others;
}

void source_collect(struct la_source *source)
{
    void *others = NULL;

    if (!atomic_exchange_explicit(&source->dead_hint, 0, memory_order_relaxed))
        return;
    signals_hold();     /* what is sorted is in no other place */
    lock_take(&source->lock);
    others = sort_queue(source, source->orphan, others);
    for (struct la_chain *c = source->dead; c; c = c->owner_data)
        others = sort_queue(source, c, others);
    apply_policy(source);
    lock_give(&source->lock);
    while (others) {
        struct la_page *page = region_page(others);
        void *next = *page_link(page, others);
        remote_free_now(page, others);
        others = next;
    }
    signals_release();
}

void source_bury_chain(struct la_source *source, struct la_chain *chain)
{
    lock_take(&source->lock);
    chain->owner_data = source->dead;
    source->dead = chain;
    /* Release: a pusher that sees dead also sees the chain on the list. Pairs with the load in remote_push(). */
    atomic_store_explicit(&chain->dead, 1, memory_order_seq_cst);
    if (atomic_load_explicit(&chain->remote, memory_order_seq_cst))
        source_note_dead_push(source);
    lock_give(&source->lock);
}

struct la_chain *source_exhume_chain(struct la_source *source)
{
    struct la_chain *chain;

    lock_take(&source->lock);
    chain = source->dead;
    if (chain) {
        source->dead = chain->owner_data;
        chain->owner_data = NULL;
        atomic_store_explicit(&chain->dead, 0, memory_order_relaxed);
    }
    lock_give(&source->lock);
    return chain;
}

/* ---- runs of macro blocks ---- */

static bool run_fits(const struct la_segment *s, uint32_t at, uint32_t n)
{
    for (uint32_t i = at; i < at + n; i++)
        if (s->macros[i].state != MACRO_FREE)
            return false;
    return true;
}

/* The offset from macro block @at's start to the next multiple of @alignment. */
static size_t aligned_offset(const struct la_segment *s, uint32_t at, size_t alignment)
{
    uintptr_t address = macro_address(&s->macros[at]);

    return align_up(address, alignment) - address;
}

static bool find_run(const struct la_segment *s, size_t bytes, size_t alignment, uint32_t *at, uint32_t *n)
{
    size_t macro_size = (size_t)SLICES_PER_MACRO << s->slice_shift;

    for (uint32_t i = 0; i < s->macro_count; i++) {
        size_t need = aligned_offset(s, i, alignment) + bytes;
        size_t offset = (size_t)i * macro_size;

        if (need < bytes || offset + need > s->usable)
            continue;
        *n = (uint32_t)((need + macro_size - 1) / macro_size);
        if (i + *n <= s->macro_count && run_fits(s, i, *n)) {
            *at = i;
            return true;
        }
    }
    return false;
}

static struct la_page *claim_run(struct la_source *source, struct la_segment *s, uint32_t at, uint32_t n, size_t alignment)
{
    struct la_page *page = &s->pages[(size_t)at * SLICES_PER_MACRO];
    size_t total = 0;

    for (uint32_t i = at; i < at + n; i++) {
        struct la_macro *m = &s->macros[i];

        free_drop(source, m);
        m->state = MACRO_RUN;
        m->dirty = 1;
        total += macro_bytes(m);
    }
    page->kind = PAGE_HUGE;
    page->macro = &s->macros[at];
    page->slices = (uint16_t)MIN(n * SLICES_PER_MACRO, (uint32_t)UINT16_MAX);
    page->start = slice_address(s, page) + aligned_offset(s, at, alignment);
    page->mapping = (void *)slice_address(s, page);
    page->mapping_size = total;
    page->large_size = total - (page->start - (uintptr_t)page->mapping);
    return page;
}

static struct la_page *take_run_on(struct la_source *source, unsigned node, size_t bytes, size_t alignment)
{
    struct la_page *page = NULL;
    uint32_t at, n;

    lock_take(&source->lock);
    for (struct la_segment *s = source->segments; s && !page; s = s->next)
        if (s->node == node && find_run(s, bytes, alignment, &at, &n))
            page = claim_run(source, s, at, n, alignment);
    lock_give(&source->lock);
    return page;
}

static struct la_page *take_run_elsewhere(struct la_source *source, unsigned node, size_t bytes, size_t alignment)
{
    unsigned count = source->ops.strict ? 1 : source->node_count;
    struct la_page *page = NULL;

    for (unsigned i = 1; i < count && !page; i++)
        page = take_run_on(source, (node + i) % count, bytes, alignment);
    return page;
}

struct la_page *source_take_run(struct la_source *source, const struct la_chain *chain, size_t bytes, size_t alignment)
{
    unsigned node = node_for(source, chain);
    struct la_page *page = take_run_on(source, node, bytes, alignment);

    if (page || bytes + alignment < bytes)
        return page;
    if (!grow(source, node, bytes + (alignment > SLICE_SIZE ? alignment : 0)))
        return take_run_elsewhere(source, node, bytes, alignment);
    return take_run_on(source, node, bytes, alignment);
}

void source_give_run(struct la_source *source, struct la_page *page)
{
    struct la_macro *m = page->macro;
    size_t left = page->mapping_size;

    lock_take(&source->lock);
    page->kind = PAGE_NONE;
    while (left > 0) {
        left -= macro_bytes(m);
        m->free_slices = m->all_slices;
        free_push(source, m);
        m++;
    }
    apply_policy(source);
    lock_give(&source->lock);
}

/* ---- public ---- */

struct la_source *la_source_default(void)
{
    return &la_default_source;
}

static void retire_node(struct la_source *source, const struct la_source_node *node)
{
    while (node->free_dirty || node->free_clean) {
        struct la_macro *m = node->free_dirty ? node->free_dirty : node->free_clean;

        free_drop(source, m);
        m->state = MACRO_RETIRED;
    }
}

/* Free macro blocks of the old kind are not handed out any more: their addresses stay, their memory goes. Under the lock. */
static void retire_free(struct la_source *source)
{
    trim(source);
    for (unsigned i = 0; i < source->node_count; i++)
        retire_node(source, &source->nodes[i]);
}

/* *@copy: what the author's struct has, all else zero. */
static int read_ops(const struct la_source_ops *ops, struct la_source_ops *copy)
{
    *copy = (struct la_source_ops){ 0 };
    if (!ops || ops->struct_size < offsetof(struct la_source_ops, release) || ops->struct_size > 4 * sizeof(*ops) || !ops->acquire)
        return la_fail(-EINVAL, "source operations need struct_size = sizeof(struct la_source_ops) and an acquire function");
    memcpy(copy, ops, MIN(ops->struct_size, sizeof(*copy)));
    if (copy->flags & ~(unsigned)(LA_SOURCE_DEVICE_ONLY | LA_SOURCE_NOT_INHERITED))
        return la_fail(-EINVAL, "source flags %#x: only LA_SOURCE_DEVICE_ONLY and LA_SOURCE_NOT_INHERITED are known", copy->flags);
    if (copy->nodes > LA_NODES_MAX)
        return la_fail(-EINVAL, "a source of %u nodes: at most %d are told apart", copy->nodes, LA_NODES_MAX);
    return 0;
}

/* What is abandoned stays with its node. Without memory for more nodes they are not told apart. Under both locks. */
static void replace_default(struct la_source *source, const struct la_source_ops *ops, void *self)
{
    retire_free(source);
    source->ops = *ops;
    source->self = self;
    add_nodes(source, nodes_of(ops));
    atomic_store_explicit(&source->knows_nodes, true, memory_order_release);
    for (unsigned i = 0; i < source->node_count; i++)
        source->nodes[i].next_segment = SMALLEST_SEGMENT;
}

int la_source_default_set(const struct la_source_ops *ops, void *self)
{
    struct la_source *source = &la_default_source;
    struct la_source_ops copy;
    bool before;
    int r = read_ops(ops, &copy);

    if (r < 0)
        return r;
    if (copy.flags)
        return la_fail(-EINVAL, "source %s cannot be the default one: malloc's memory is written to, and a child of fork() needs it", copy.name);
    lock_take(&source->grow_lock);
    lock_take(&source->lock);
    before = atomic_exchange_explicit(&source->replaced, true, memory_order_relaxed);
    if (!before)
        replace_default(source, &copy, self);
    lock_give(&source->lock);
    lock_give(&source->grow_lock);
    return before ? la_fail(-EBUSY, "the default source has been set before") : 0;
}

int la_source_limit(struct la_source *source, size_t bytes)
{
    int r = 0;

    if (!source)
        source = &la_default_source;
    lock_take(&source->lock);
    if (bytes && bytes_mapped(source) > bytes)
        r = la_fail(-EINVAL, "source has %zu bytes mapped already, more than the limit of %zu", bytes_mapped(source), bytes);
    else
        source->limit = bytes;
    lock_give(&source->lock);
    return r;
}

void source_init_fixed(struct la_source *source, struct la_segment *segment, struct la_chain *orphan)
{
    *source = (struct la_source){ .lock = LOCK_INIT(RANK_SOURCE), .fixed = true, .knows_nodes = true, .orphan = orphan,
                                  .nodes = &source->all_nodes, .node_count = 1,
                                  .ops = { .struct_size = sizeof(struct la_source_ops), .name = "user buffer" } };
    *orphan = (struct la_chain){ .kind = CHAIN_ORPHAN, .source = source };
    orphan->bins = orphan->fast;
    add_segment(source, segment, 0);
}

static void free_source(struct la_source *source)
{
    if (source && source->nodes != &source->all_nodes)
        la_meta_free(source->nodes, source->node_count * sizeof(*source->nodes));
    if (source)
        la_meta_free(source->orphan, sizeof(*source->orphan));
    la_meta_free(source, sizeof(*source));
}

int la_source_create(const struct la_source_ops *ops, void *self, struct la_source **ret)
{
    struct la_source_ops copy;
    struct la_source *source;
    int r = read_ops(ops, &copy);

    if (r < 0)
        return r;
    source = la_meta_alloc(sizeof(*source));
    if (source) {
        *source = (struct la_source){ .lock = LOCK_INIT(RANK_SOURCE), .grow_lock = LOCK_INIT(RANK_GROW), .ops = copy, .self = self,
                                      .node_count = nodes_of(&copy), .knows_nodes = true, .orphan = la_meta_alloc(sizeof(*source->orphan)),
                                      .forks = la_forks };
        source->nodes = make_nodes(source, source->node_count);
    }
    if (!source || !source->orphan || !source->nodes) {
        free_source(source);
        return la_fail(-ENOMEM, "no memory for a source");
    }
    *source->orphan = (struct la_chain){ .kind = CHAIN_ORPHAN, .source = source };
    source->orphan->bins = source->orphan->fast;
    *ret = source;
    return 0;
}

void source_release_segments(struct la_source *source)
{
    struct la_segment *next;

    for (struct la_segment *s = source->segments; s; s = next) {
        struct la_range range = { (void *)s->base, s->size };

        next = s->next;
        segment_end(s);
        if (source->ops.release)
            source->ops.release(source->self, range);
    }
    source->segments = NULL;
}

int la_source_destroy(struct la_source *source)
{
    if (!source)
        return 0;
    if (source == &la_default_source || source->fixed)
        return la_fail(-EINVAL, "the default source and those of user buffers cannot be destroyed");
    if (source->users)
        return la_fail(-EBUSY, "%u chains still use this source: destroy them first", source->users);
    source_release_segments(source);
    free_source(source);
    return 0;
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
