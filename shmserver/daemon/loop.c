#include "shmserver/daemon/loop.h"

#include <errno.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"

int loop_init(struct loop *loop)
{
    *loop = (struct loop){ .epoll = epoll_create1(EPOLL_CLOEXEC) };
    return loop->epoll < 0 ? la_fail(-errno, "cannot make an epoll descriptor (errno %d)", errno) : 0;
}

void loop_deinit(struct loop *loop)
{
    close_fd(&loop->epoll);
}

static int add(struct loop *loop, struct loop_source *source, uint32_t events)
{
    struct epoll_event event = { .events = events, .data.ptr = source };

    if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, source->fd, &event) < 0)
        return la_fail(-errno, "cannot watch descriptor %d (errno %d)", source->fd, errno);
    return 0;
}

int loop_add(struct loop *loop, struct loop_source *source)
{
    return add(loop, source, EPOLLIN);
}

int loop_add_writer(struct loop *loop, struct loop_source *source)
{
    return add(loop, source, EPOLLOUT);
}

void loop_remove(struct loop *loop, struct loop_source *source)
{
    if (source->fd < 0)
        return;
    epoll_ctl(loop->epoll, EPOLL_CTL_DEL, source->fd, NULL);
    /* Its owner may be freed next, so events of it that are still to be served are forgotten. */
    for (int i = 0; i < loop->count; i++)
        if (loop->batch[i].data.ptr == source)
            loop->batch[i].data.ptr = NULL;
}

void loop_expect(struct loop *loop)
{
    spin_begin(&loop->spin);
}

/* Return: as epoll_wait(). */
static int wait_for_events(struct loop *loop, int timeout_ms)
{
    while (timeout_ms != 0) {
        int n = epoll_wait(loop->epoll, loop->batch, LOOP_BATCH, 0);

        if (n != 0)
            return n;
        if (!spin_on(&loop->spin))
            break;
    }
    return epoll_wait(loop->epoll, loop->batch, LOOP_BATCH, timeout_ms);
}

int loop_turn(struct loop *loop, int timeout_ms)
{
    int n = wait_for_events(loop, timeout_ms);

    if (n < 0)
        return errno == EINTR ? 0 : la_fail(-errno, "cannot wait for events (errno %d)", errno);
    loop->count = n;
    for (int i = 0; i < n; i++) {
        struct loop_source *source = loop->batch[i].data.ptr;

        if (source)
            source->ready(source, loop->batch[i].events);
    }
    loop->count = 0;
    return 0;
}

uint64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}
