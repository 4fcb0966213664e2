/*
 * source_grow.c - new memory for a source: from whom, how much, within which limit. The default source maps anonymous memory.
 */
#include "core/source_parts.h"

#include <errno.h>

#include "base/error.h"
#include "core/huge.h"
#include "core/region_map.h"
#include "core/segment.h"
#include "os/os.h"

enum { FIRST_SEGMENT = 64 << 20, LARGEST_SEGMENT = 1 << 30 };

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

/* ---- growth ---- */

void source_add_segment(struct la_source *source, struct la_segment *segment, unsigned node)
{
    segment->source = source;
    segment->node = node;
    segment->next = source->segments;
    source->segments = segment;
    source->mapped += segment->size;
    for (uint32_t i = segment->macro_count; i-- > 0;)
        source_free_push(source, &segment->macros[i]);
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

static int ask_owner(struct la_source *source, unsigned node, size_t min, size_t wanted, struct la_range *ret)
{
    const struct la_source_ops *ops = &source->ops;

    if (!ops->acquire_on)
        return ops->acquire(source->self, min, wanted, ret);
    /* The default source may have told more of them apart before it was replaced. */
    return ops->acquire_on(source->self, node < source_nodes_of(ops) ? node : 0, min, wanted, ret);
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
    source_add_segment(source, segment, node);
    source->nodes[node].next_segment = MIN(source->nodes[node].next_segment * 2, (size_t)LARGEST_SEGMENT);
    lock_give(&source->lock);
    return true;
}

bool source_grow(struct la_source *source, unsigned node, size_t payload)
{
    bool ok;

    if (source->fixed || payload > SIZE_MAX / 2)
        return false;
    lock_take(&source->grow_lock);
    ok = grow_alone(source, node, payload);
    lock_give(&source->grow_lock);
    return ok;
}
