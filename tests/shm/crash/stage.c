#include "stage.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "os/certificate.h"

#include "trace.h"

void stage_fail(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fputs("scenario failed: ", stderr);
    vfprintf(stderr, format, args);
    fprintf(stderr, " (last error of the library: %s)\n", la_last_error());
    va_end(args);
    _exit(3);
}

static uint64_t offset_of(const struct actor *a, const void *block)
{
    return (uint64_t)((uintptr_t)block - a->stage->address);
}

static uint64_t magic_of(uint64_t offset)
{
    return (offset + 1) * 0x9e3779b97f4a7c15u;
}

static struct tracked *find(struct actor *a, const void *block)
{
    struct stage *stage = a->stage;

    for (uint32_t i = 0; i < stage->tracked_count; i++)
        if (stage->tracked[i].offset == offset_of(a, block))
            return &stage->tracked[i];
    return NULL;
}

static struct tracked *track(struct actor *a, void *block, size_t size, enum fate fate)
{
    struct stage *stage = a->stage;
    struct tracked *t = find(a, block);

    if (!block)
        stage_fail("no block of %zu bytes", size);
    if (t) {
        /* The memory of a block that the operation freed, used again: one entry has to do for both. */
        t->fate = t->fate == fate ? fate : EITHER;
        t->size = size < t->size ? size : t->size;
        return t;
    }
    if (stage->tracked_count == MAX_TRACKED)
        stage_fail("more than %d blocks", MAX_TRACKED);
    t = &stage->tracked[stage->tracked_count++];
    *t = (struct tracked){ .offset = offset_of(a, block), .size = size, .fate = fate };
    return t;
}

void *stage_track(struct actor *a, void *block, size_t size, enum fate fate)
{
    track(a, block, size, fate);
    return block;
}

void stage_made(struct actor *a, void *block, size_t size)
{
    struct stage *stage = a->stage;

    if (!block || stage->made_count == MAX_MADE)
        stage_fail("no block of %zu bytes, or no room to note it", size);
    stage->made[stage->made_count].block = (uintptr_t)block;
    stage->made[stage->made_count++].size = size;
}

void stage_track_made(struct actor *a)
{
    for (; a->stage->made_count > 0; a->stage->made_count--) {
        uint32_t last = a->stage->made_count - 1;

        stage_track(a, (void *)a->stage->made[last].block, a->stage->made[last].size, EITHER);
    }
}

static uint64_t *last_word(void *block, size_t size)
{
    return (uint64_t *)((char *)block + (size - 8) / 8 * 8);
}

void *stage_fill(struct actor *a, void *block, size_t size, enum fate fate)
{
    struct tracked *t = track(a, block, size, fate);

    if (size >= sizeof(struct object))
        memset(block, 0, sizeof(struct object));
    *last_word(block, size) = ~magic_of(t->offset);
    if (last_word(block, size) != block)
        *(uint64_t *)block = magic_of(t->offset);
    t->filled = (uint32_t)size;
    return block;
}

bool stage_is_whole(const struct stage *stage, const struct tracked *t)
{
    void *block = (void *)(stage->address + t->offset);

    if (!t->filled)
        return true;
    if (*last_word(block, t->filled) != ~magic_of(t->offset))
        return false;
    return last_word(block, t->filled) == block || *(uint64_t *)block == magic_of(t->offset);
}

void stage_forget(struct actor *a, void *block)
{
    struct tracked *t = find(a, block);

    if (!t)
        stage_fail("%p is not tracked", block);
    *t = a->stage->tracked[--a->stage->tracked_count];
}

void stage_change(struct actor *a, void *block, enum fate fate)
{
    struct tracked *t = find(a, block);

    if (!t)
        stage_fail("%p is not tracked", block);
    t->fate = fate;
}

void stage_attach(struct actor *a, unsigned flags)
{
    int fd = open(a->stage->path, O_RDWR | O_CLOEXEC);

    if (fd < 0 || la_heap_attach_fd(fd, flags, &a->heap) < 0)
        stage_fail("cannot attach %s", a->stage->path);
}

void stage_play_peers(const struct stage *stage, int descriptors[MAX_PEERS])
{
    for (unsigned i = 0; i < stage->peers; i++) {
        descriptors[i] = open(stage->path, O_RDWR | O_CLOEXEC);
        if (descriptors[i] < 0 || certificate_hold(descriptors[i], stage->peer_slot[i]) < 0)
            stage_fail("cannot play peer %u", i);
    }
}

void stage_die_when(struct actor *a, bool (*now)(void *), void *user)
{
    int fd = open(a->stage->path, O_RDWR | O_CLOEXEC);

    if (fd < 0)
        stage_fail("cannot open %s", a->stage->path);
    trace_die_when(now, user, fd, a->stage->heap_size, a->stage->address);
}

la_link *stage_root(struct actor *a, const char *name)
{
    la_link *root;

    if (la_heap_root(a->heap, name, &root) < 0)
        stage_fail("no root %s", name);
    return root;
}
