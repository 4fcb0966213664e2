#include "shmserver/daemon/events.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

void events_init(struct events *events, uint64_t before)
{
    events->before = events->last = before;
}

void events_add(struct events *events, const struct shms_event *event, const char *heap, uid_t owner)
{
    struct event *e = &events->ring[++events->last % EVENTS_MAX];

    *e = (struct event){ .public = *event, .owner = owner };
    e->public.struct_size = sizeof(e->public);
    e->public.serial = events->last;
    e->public.time = time(NULL);
    snprintf(e->public.heap, sizeof(e->public.heap), "%s", heap ? heap : "");
}

void events_add_deed(struct events *events, enum shms_event_kind kind, const struct identity *id, const char *heap, uid_t owner)
{
    struct shms_event event = { .kind = kind, .pid = id->pid, .uid = id->uid };

    memcpy(event.command, id->command, sizeof(event.command));
    events_add(events, &event, heap, owner);
}

const struct event *events_after(const struct events *events, uint64_t serial)
{
    uint64_t first = events->before + 1, oldest = events->last - events->before >= EVENTS_MAX ? events->last - EVENTS_MAX + 1 : first;

    return serial >= events->last || events->last == events->before ? NULL : &events->ring[MAX(serial + 1, oldest) % EVENTS_MAX];
}
