/*
 * root_swap.h - the steps of a swap that anybody may do, for whoever meets its mark (publish.c) and for recovery.
 */
#ifndef CORE_ROOT_SWAP_H
#define CORE_ROOT_SWAP_H

#include "core/publish.h"

/* @link has the mark of a swap: do what its lane would do next. false: there is no such root or block, the heap is damaged. */
bool swap_finish(struct la_heap *heap, la_link *link, const struct intent *intent);

/* The swap of a dead lane: finish or undo it. Return: it happened. */
bool swap_resolve_intent(struct la_heap *heap, la_link *link, const struct intent *intent);

#endif
