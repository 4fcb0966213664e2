/*
 * source_parts.h - what the parts of a source share: source.c (macro blocks), source_grow.c, source_nodes.c, source_run.c, source_orphan.c,
 * source_create.c. Others use core/source.h. Under source->lock where nothing else is said.
 */
#ifndef CORE_SOURCE_PARTS_H
#define CORE_SOURCE_PARTS_H

#include "core/source.h"

/* ---- lists ---- */

static inline void macro_list_push(struct la_macro **head, struct la_macro *m)
{
    m->prev = NULL;
    m->next = *head;
    if (*head)
        (*head)->prev = m;
    *head = m;
}

static inline void macro_list_drop(struct la_macro **head, struct la_macro *m)
{
    if (m->prev)
        m->prev->next = m->next;
    else
        *head = m->next;
    if (m->next)
        m->next->prev = m->prev;
    m->next = m->prev = NULL;
}

static inline struct la_source_node *source_node_of(struct la_source *source, const struct la_macro *m)
{
    return &source->nodes[m->segment->node];
}

/* @m is free from now on, with its memory or (not dirty) without; and the reverse. */
void source_free_push(struct la_source *source, struct la_macro *m);
void source_free_drop(struct la_source *source, struct la_macro *m);

/* A large block is counted by its owner, also by the orphan. */
static inline void source_count_large(struct la_chain *owner, const struct la_page *page, int blocks)
{
    owner->large_live += (uint64_t)blocks;
    owner->large_bytes += (uint64_t)blocks * ((uint64_t)page->slices << page->macro->segment->slice_shift);
}

/* ---- memory of what is free ---- */

/* Give the oldest back until the policy is content; at most a few, so that no free waits long. */
void source_apply_policy(struct la_source *source);
/* Give all back. Return: bytes. */
size_t source_purge_free(struct la_source *source);

/* ---- growth ---- */

/* What the owner of a user's source is asked for first; twice as much each time. */
enum { SMALLEST_SEGMENT = 4 << 20 };

void source_add_segment(struct la_source *source, struct la_segment *segment, unsigned node);
/* Ask the owner of the memory for a segment with room for @payload bytes on @node. Called without source->lock. false: there is none (reported). */
bool source_grow(struct la_source *source, unsigned node, size_t payload);

/* ---- nodes ---- */

/* How many nodes a source with @ops tells apart. */
unsigned source_nodes_of(const struct la_source_ops *ops);
/* NULL: no memory. One node needs none. */
struct la_source_node *source_make_nodes(struct la_source *source, unsigned count);
/* From now on there are @count of them, if there is memory for them; those that are there keep what they have. */
void source_add_nodes(struct la_source *source, unsigned count);
/* Where @chain draws from: asked once per macro block, so that a thread that has moved draws from its new node. Called without the lock. */
unsigned source_node_for(struct la_source *source, const struct la_chain *chain);

#endif
