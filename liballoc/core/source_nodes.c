/*
 * source_nodes.c - the NUMA nodes that a source tells apart, and which of them a chain draws from.
 */
#include "core/source_parts.h"

#include <string.h>

#include "core/meta.h"
#include "os/nodes.h"

unsigned source_nodes_of(const struct la_source_ops *ops)
{
    if (!ops->acquire_on)
        return 1;
    return ops->nodes ? ops->nodes : MIN(os_node_count(), (unsigned)LA_NODES_MAX);
}

struct la_source_node *source_make_nodes(struct la_source *source, unsigned count)
{
    struct la_source_node *nodes = count == 1 ? &source->all_nodes : la_meta_alloc(count * sizeof(*nodes));

    for (unsigned i = 0; nodes && i < count; i++)
        nodes[i] = (struct la_source_node){ .next_segment = SMALLEST_SEGMENT };
    return nodes;
}

void source_add_nodes(struct la_source *source, unsigned count)
{
    unsigned before = source->node_count;
    struct la_source_node *nodes = count > before ? source_make_nodes(source, count) : NULL;

    if (!nodes)
        return;
    memcpy(nodes, source->nodes, before * sizeof(*nodes));
    source->nodes = nodes;
    source->node_count = count;
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
        source_add_nodes(source, count);
    atomic_store_explicit(&source->knows_nodes, true, memory_order_release);
    lock_give(&source->lock);
}

unsigned source_node_for(struct la_source *source, const struct la_chain *chain)
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
