/*
 * loop.h - wait for descriptors (epoll, level-triggered) and call whoever waits for them.
 *
 * A source serves one event per turn (one message, one connection), so a busy peer waits for its turn like the others.
 * A source may remove and free itself or any other one in the middle of a turn.
 */
#ifndef DAEMON_LOOP_H
#define DAEMON_LOOP_H

#include <sys/epoll.h>

#include "base/util.h"
#include "shmserver/protocol/spin.h"

/* Embedded in whoever waits; the loop owns nothing. */
struct loop_source {
    int fd;
    void (*ready)(struct loop_source *source, uint32_t events);
};

enum { LOOP_BATCH = 64 };

struct loop {
    int epoll;
    int count;                              /* of events in the current batch */
    struct spin spin;
    struct epoll_event batch[LOOP_BATCH];
};

int loop_init(struct loop *loop);
void loop_deinit(struct loop *loop);

/* Call @source->ready when @source->fd is readable or has hung up. Return: 0 or a negative errno. */
int loop_add(struct loop *loop, struct loop_source *source);
/* The same, when it is writable or has hung up. */
int loop_add_writer(struct loop *loop, struct loop_source *source);
/* Before its descriptor is closed. A source that was not added is ignored. */
void loop_remove(struct loop *loop, struct loop_source *source);

/* The next event is likely to come at once: the next turns spin (spin.h) before they sleep. */
void loop_expect(struct loop *loop);

/* Wait at most @timeout_ms (-1: for ever) and serve what is ready. Return: 0 or a negative errno. */
int loop_turn(struct loop *loop, int timeout_ms);

/* Monotonic milliseconds. */
uint64_t now_ms(void);

#endif
