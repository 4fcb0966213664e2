/*
 * notice.h - what recovery has to say of the dead, in the heap for everybody.
 */
#ifndef CORE_NOTICE_H
#define CORE_NOTICE_H

#include "core/shared_heap.h"

/* Once for each @incarnation of the process slot or lane, however often it is called. The caller recovers it. */
void notice_post_obituary(struct la_heap *heap, uint32_t incarnation, const struct la_obituary *obituary);
void notice_post_outcome(struct la_heap *heap, unsigned lane, uint32_t incarnation, uint64_t operation, uint64_t happened);

#endif
