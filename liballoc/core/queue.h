/*
 * queue.h - what recovery and the checker need of queues; queue.c tells the protocol.
 */
#ifndef CORE_QUEUE_H
#define CORE_QUEUE_H

#include <liballoc/queue.h>

#include "core/shared_block.h"

struct la_queue {
    uint64_t magic;
    uint64_t link;                          /* offset of the root that leads here */
    uint32_t capacity;
    uint32_t shift;                         /* 1 << shift slots */
    _Alignas(64) _Atomic(uint64_t) head;    /* consumers, and who helps them */
    la_word emptied;                        /* producers sleep here */
    _Alignas(64) _Atomic(uint64_t) tail;    /* producers, and who helps them */
    la_word filled;                         /* consumers sleep here */
    _Alignas(64) _Atomic(uint64_t) slot[];
};

_Static_assert(sizeof(struct la_queue) == 192, "three cache lines before the slots");

/* Finish or undo the push or pop of a dead lane. Return: it happened. */
bool queue_resolve_intent(struct la_heap *heap, struct heap_lane *lane, unsigned number);

/* Invariants Q1 to Q4 of the queue in @block; NULL: they hold, or the block is no queue. Else what is wrong. */
const char *queue_check(struct la_heap *heap, void *block);

#endif
