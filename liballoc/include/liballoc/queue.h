/*
 * queue.h - a bounded queue of objects in a shared heap, for any number of producers and consumers in any number of processes.
 *
 * An object is a block that its producer holds. la_queue_push() gives it to the heap, la_queue_pop() gives it to the consumer, who holds it
 * then; each object is popped once, in the order of the pushes. Whoever is killed, at any instruction, loses nothing of others, and nobody
 * waits for the dead or the stopped: a producer's object is either in the queue, or freed by recovery; what a consumer had popped and not
 * published is freed by recovery (la_heap_recover()).
 *
 * Threads: any number, on every call but la_queue_destroy(). @queue is an address in the heap, the same in all processes.
 */
#ifndef LIBALLOC_QUEUE_H
#define LIBALLOC_QUEUE_H

#include <liballoc/heap.h>

LA_BEGIN_DECLS

struct la_queue;                                /* in the heap; opaque */

#define LA_QUEUE_MAX_CAPACITY ((size_t)1 << 20) /* objects */

/* Timeouts are relative, in nanoseconds; negative ones but LA_FOREVER are -EINVAL. */
#define LA_TRY ((int64_t)0)                     /* never wait: -EAGAIN instead */
#define LA_FOREVER ((int64_t)-1)

/**
 * la_queue_create() - make a queue that everybody finds as root @name
 * @name:     see LA_HEAP_NAME_MAX; a root that is NULL (la_heap_root())
 * @capacity: objects that it takes, 1 to LA_QUEUE_MAX_CAPACITY; 8 bytes each
 * @ret:      set on success, untouched on failure
 *
 * Return: 0, -EINVAL (name, capacity), -EEXIST (the root is in use: la_queue_open()), -ENOSPC (no root left), -ENOMEM, -EROFS.
 */
LA_API int la_queue_create(struct la_heap *heap, const char *name, size_t capacity, struct la_queue **ret);

/** la_queue_open() - find the queue at root @name; Return: 0, -ENOENT (the root is NULL or new), -EINVAL (something else is there). */
LA_API int la_queue_open(struct la_heap *heap, const char *name, struct la_queue **ret);

/**
 * la_queue_push() - put @block at the end of the queue
 * @block:   held by the calling thread (la_heap_hold(), la_take(), la_queue_pop()); from the instant it is in the queue the heap's
 * @timeout: how long to wait while the queue is full; LA_TRY, LA_FOREVER
 *
 * Return: 0; -EAGAIN (full, LA_TRY), -ETIMEDOUT, -EPIPE (la_queue_close()): @block is still held; -EINVAL (@block is not held by this
 * thread, @queue is no queue of @heap or was destroyed, @timeout), -EROFS.
 */
LA_API int la_queue_push(struct la_heap *heap, struct la_queue *queue, void *block, int64_t timeout);

/** la_queue_push_bundle() - la_queue_push() of @root, which makes every block of @bundle outlive the process; ends the bundle when it
 *  returns 0, leaves it open otherwise */
LA_API int la_queue_push_bundle(struct la_queue *queue, struct la_bundle *bundle, void *root, int64_t timeout);

/**
 * la_queue_pop() - take the oldest object
 * @timeout: how long to wait while the queue is empty; LA_TRY, LA_FOREVER
 * @ret:     set to the block, held by the calling thread: publish, push or free it. Of a bundle only the root is held, its other blocks
 *           are the heap's
 *
 * Return: 0, -EAGAIN (empty, LA_TRY), -ETIMEDOUT, -EPIPE (closed, and nothing is left), -EINVAL (no queue, @timeout), -EROFS.
 */
LA_API int la_queue_pop(struct la_heap *heap, struct la_queue *queue, int64_t timeout, void **ret);

/**
 * la_queue_close() - no object comes after those that are in the queue now
 *
 * Pushes return -EPIPE from now on, also those that wait; pops as soon as the queue is empty. There is no way back. Return: 0, also when
 * it was closed already; -EINVAL, -EROFS.
 */
LA_API int la_queue_close(struct la_heap *heap, struct la_queue *queue);

/**
 * la_queue_destroy() - close the queue and free it; its root is NULL again
 *
 * Nobody may be in a call on it, or call again: calls that come later are refused while its memory is not in use for something else.
 * Return: 0, -ENOTEMPTY (it is closed, but holds objects: pop and free them first, as only you know what they lead to), -EINVAL, -EROFS.
 */
LA_API int la_queue_destroy(struct la_heap *heap, struct la_queue *queue);

struct la_queue_info {
    size_t struct_size;         /* in: sizeof(struct la_queue_info) of the caller */
    uint64_t capacity;
    uint64_t length;            /* objects in it; exact when nobody else is at work on it */
    uint64_t pushed, popped;    /* since its creation; exact in the same case */
    bool closed;
};

/** la_queue_info() - also in a heap attached for reading only; Return: 0, -EINVAL. */
LA_API int la_queue_info(struct la_heap *heap, struct la_queue *queue, struct la_queue_info *ret);

/** la_queue_walk() - call @each for every object, the oldest first; exact when nobody else is at work on the queue, else what was there at
 *  some time. Return: number of objects, or -EINVAL. */
LA_API long la_queue_walk(struct la_heap *heap, struct la_queue *queue, void (*each)(void *user, void *block), void *user);

LA_END_DECLS
#endif
