/*
 * nodes.h - NUMA: memory for each node apart, and where pages lie.
 *
 *     struct seg_supply_config config = { .struct_size = sizeof(config), .list = "hugetlb:2M,thp,anon", .per_node = true };
 *
 *     if (seg_supply_create(&config, &supply) == 0 && la_chain_create(seg_supply_source(supply), 0, &chain) == 0)
 *         la_chain_alloc(chain, 1000);            -- on the node that this thread runs on
 *
 * A chain over such a supply draws each macro block (2 MiB) from the node that its thread runs on at that moment; what is free goes to chains of
 * the same node first. la_chain_pin() (liballoc/chain.h) holds a chain to one node. Malloc by LIBALLOC_SOURCE does the same for every thread.
 *
 * config.numa says how hard:
 *
 *     mode                        when the node is full
 *     SEG_NUMA_PREFER (default)   the kernel takes pages of the nearest other node
 *     SEG_NUMA_BIND               NULL with the reason; extents are committed at once, as only that is sure to fail by an error
 *
 * and .nodes which nodes take part (0: all). Threads on others get what those have: bound, of the nearest; preferred, of the first. On a machine
 * with one node nothing is different from a supply without per_node. By raw system calls, no libnuma.
 */
#ifndef SEGMENTS_NODES_H
#define SEGMENTS_NODES_H

#include <segments/supply.h>

LA_BEGIN_DECLS

/** seg_node_count() - NUMA nodes of this machine are 0 to this - 1, LA_NODES_MAX at most; not all need have memory */
LA_API unsigned seg_node_count(void);

struct seg_node_info {
    size_t struct_size;     /* in */
    size_t bytes, segments; /* of extents that are out and were asked for this node */
    size_t bound;           /* bytes of them that lie there and nowhere else; the rest as the kernel found room */
    size_t available;       /* bytes of small pages that the node can still give, to everybody; SIZE_MAX: not known */
    size_t huge_available;  /* bytes of free 2 MiB pages of its pool */
};

/**
 * seg_supply_node_info() - what a supply with per_node has for one node
 * @supply: NULL: malloc's, see seg_supply_default()
 *
 * Return: 0, -EINVAL (struct_size, no such node, no per_node), -ENOENT (NULL, and there is no default one), -EDEADLK.
 */
LA_API int seg_supply_node_info(struct seg_supply *supply, unsigned node, struct seg_node_info *ret);

/**
 * seg_pages_on_nodes() - where do the pages of a range lie now? Asks the kernel (move_pages(2)), about 1 ms for 10,000 pages
 * @bytes: [LA_NODES_MAX], set to the bytes on each node; what is missing to the size of @range is in memory nowhere yet
 *
 * Return: 0, -EINVAL, -ENOTSUP (the kernel or a sandbox has no move_pages()).
 */
LA_API int seg_pages_on_nodes(struct la_range range, size_t *bytes);

LA_END_DECLS
#endif
