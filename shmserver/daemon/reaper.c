#include "shmserver/daemon/reaper.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

#include "shmserver/daemon/log.h"
#include "shmserver/daemon/view.h"

/* The daemon before this one, which looked into the heap as we do: it never holds anything. Its end was in the log, and is no news of the heap. */
static bool was_a_daemon(const struct la_obituary *dead)
{
    char name[16] = "";

    prctl(PR_GET_NAME, name);
    return dead->blocks == 0 && dead->lanes == 0 && strncmp(dead->command, name, sizeof(name)) == 0;
}

static void log_obituary(const struct segment *segment, const struct la_obituary *dead)
{
    char left[128] = "";

    if (dead->heir[0])
        snprintf(left, sizeof(left), ", left %lu (%lu bytes) to %s", (unsigned long)dead->left_blocks, (unsigned long)dead->left_bytes, dead->heir);
    log_write(LOG_INFO, "heap %s: process %d (%.15s) died; freed %lu block%s of %lu bytes that it held%s, finished %u and undid %u of its steps",
              segment->name, dead->pid, dead->command, (unsigned long)dead->blocks, plural(dead->blocks), (unsigned long)dead->bytes,
              left, dead->published, dead->undone);
}

static void write_obituary(const struct segment *segment, const struct la_obituary *dead)
{
    struct shms_event event = { .kind = SHMS_EVENT_DIED, .pid = dead->pid, .uid = UINT32_MAX, .blocks = dead->blocks, .bytes = dead->bytes,
                                .published = dead->published, .undone = dead->undone, .operation = dead->operation, .happened = dead->happened,
                                .left_blocks = dead->left_blocks, .left_bytes = dead->left_bytes };

    memcpy(event.command, dead->command, sizeof(event.command));
    memcpy(event.heir, dead->heir, sizeof(event.heir));
    if (was_a_daemon(dead))
        return;
    if (segment->registry->events)
        events_add(segment->registry->events, &event, segment->name, segment->acl.owner);
    log_obituary(segment, dead);
}

/*
 * Whom we recovered, and whom another process: the heap has a notice of each. Bounded, as the count of notices is anybody's to write. Those from before
 * this daemon are no news: who wants to know reads the heap.
 */
static void read_obituaries(struct segment *segment, struct la_heap *heap, bool are_news)
{
    enum { MOST = 1024 };
    struct la_obituary dead;
    int r = 0;

    for (unsigned i = 0; i < MOST && r != -ENOENT; i++) {
        r = la_heap_obituary(heap, &segment->next_obituary, &dead);
        if (r == 0 && are_news)
            write_obituary(segment, &dead);
    }
}

static int recover(struct segment *segment)
{
    struct la_heap *heap;
    int n = view_open(segment, &heap);

    if (n < 0)
        return n;
    n = la_heap_recover(heap, NULL, NULL);
    read_obituaries(segment, heap, true);
    return n;
}

static void pass_over_obituaries(struct segment *segment)
{
    struct la_heap *heap;

    if (view_open(segment, &heap) == 0)
        read_obituaries(segment, heap, false);
}

/* Is there a reason to look again? */
static bool is_settled(struct segment *segment, int recovered)
{
    struct la_heap_process processes[LA_HEAP_MAX_PROCESSES];
    bool nobody = view_processes(segment, processes) == 0 && !view_has_readers(segment);

    if (recovered > 0)
        segment->unsettled -= MIN(segment->unsettled, (unsigned)recovered);
    if (nobody)
        segment->unsettled = 0;
    /* A removed segment waits for its last process, also for one that has no connection. */
    return segment->unsettled == 0 && (nobody || !segment->removed);
}

int reaper_look(struct segment *segment, uint64_t now)
{
    int recovered = recover(segment);

    if (is_settled(segment, recovered)) {
        segment->look_at = 0;
    } else {
        segment->delay_ms = MIN(MAX(segment->delay_ms * 2, 1u), REAPER_MAX_DELAY_MS);
        segment->look_at = now + segment->delay_ms;
    }
    registry_release(segment);
    return recovered;
}

void reaper_peer_went(struct segment *segment, uint64_t now)
{
    segment->unsettled++;
    segment->delay_ms = 0;
    reaper_look(segment, now);
}

void reaper_restored(struct segment *segment, uint64_t now)
{
    struct la_heap_process processes[LA_HEAP_MAX_PROCESSES];
    int n;

    segment->unsettled = 0;
    pass_over_obituaries(segment);
    if (!segment->sealed && recover(segment) < 0)
        return;
    n = view_processes(segment, processes);
    segment->unsettled = (unsigned)MAX(n, 0);
    segment->delay_ms = 0;
    reaper_look(segment, now);
}

void reaper_resumed(struct segment *segment)
{
    segment->unsettled -= MIN(segment->unsettled, 1u);
}

int reaper_run(struct registry *registry, uint64_t now)
{
    uint64_t next = 0;

    for (struct segment *segment = registry_after(registry, 0); segment;) {
        uint64_t serial = segment->serial;

        if (segment->look_at && segment->look_at <= now)
            reaper_look(segment, now);
        /* It may be gone. */
        segment = registry_after(registry, serial);
    }
    for (struct segment *segment = registry_after(registry, 0); segment; segment = registry_after(registry, segment->serial))
        if (segment->look_at && (!next || segment->look_at < next))
            next = segment->look_at;
    return !next ? -1 : next <= now ? 0 : (int)(next - now);
}
