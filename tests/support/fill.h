/*
 * fill.h - a shared heap, filled to its limit and emptied again.
 */
#ifndef SUPPORT_FILL_H
#define SUPPORT_FILL_H

#include <string.h>

#include <liballoc/liballoc.h>

/* Chain of blocks, so that all can be freed again. Return: how many. */
static inline unsigned fill(struct la_heap *heap, size_t size, void ***list)
{
    unsigned n = 0;

    for (void **b; (b = la_heap_alloc(heap, size)) != NULL; n++) {
        memset(b, 0x5a, size);
        *b = *list;
        *list = b;
    }
    return n;
}

static inline void free_all(void **list)
{
    for (void *next; list; list = next) {
        next = *list;
        la_free(list);
    }
}

#endif
