/*
 * source_create.c - a user's operations become a source, or the default one; a user's buffer does; and a source ends.
 */
#include "core/source_parts.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "base/error.h"
#include "core/meta.h"
#include "core/segment.h"

struct la_source *la_source_default(void)
{
    return &la_default_source;
}

static void retire_node(struct la_source *source, const struct la_source_node *node)
{
    while (node->free_dirty || node->free_clean) {
        struct la_macro *m = node->free_dirty ? node->free_dirty : node->free_clean;

        source_free_drop(source, m);
        m->state = MACRO_RETIRED;
    }
}

/* Free macro blocks of the old kind are not handed out any more: their addresses stay, their memory goes. Under the lock. */
static void retire_free(struct la_source *source)
{
    source_purge_free(source);
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
    source_add_nodes(source, source_nodes_of(ops));
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

void source_init_fixed(struct la_source *source, struct la_segment *segment, struct la_chain *orphan)
{
    *source = (struct la_source){ .lock = LOCK_INIT(RANK_SOURCE), .fixed = true, .knows_nodes = true, .orphan = orphan,
                                  .nodes = &source->all_nodes, .node_count = 1,
                                  .ops = { .struct_size = sizeof(struct la_source_ops), .name = "user buffer" } };
    *orphan = (struct la_chain){ .kind = CHAIN_ORPHAN, .source = source };
    orphan->bins = orphan->fast;
    source_add_segment(source, segment, 0);
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
                                      .node_count = source_nodes_of(&copy), .knows_nodes = true, .orphan = la_meta_alloc(sizeof(*source->orphan)),
                                      .forks = la_forks };
        source->nodes = source_make_nodes(source, source->node_count);
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
