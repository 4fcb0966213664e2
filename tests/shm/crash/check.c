/*
 * check.c - recover an image, and compare what is there with the model.
 *
 *   C1  recovery succeeds; doing it again changes no byte
 *   C2  la_heap_fsck() finds nothing; nothing is held or in doubt but by peers that live
 *   C3  every live block is known to the model, every LIVE and PEER_HELD block is live (with the size it had), none is listed twice
 *   C4  the bytes of live blocks are what their owner wrote
 *   C5  a block that is LINKED is live exactly when the roots lead to it, through links or a queue, and no link leads to a block that is not
 *       live; what is in a queue is there once
 *   C6  the heap can be used: blocks of all kinds are allocated, none of them live already; published, taken, freed; then C2 and C3 again
 *       and the free slices are all there
 *   C7  when the peers die as well, what they held is free
 *   C8  of an operation with a number it is known whether it has happened, from its recovery on
 *
 * A checker is allowed to crash or to hang: whoever started it counts that as a finding.
 */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_WALKED = MAX_TRACKED + 64 };

struct seen {
    uintptr_t block;
    size_t size;
    bool held;
};

struct check {
    struct actor actor;
    struct verdict *verdict;        /* shared; the rest of the stage is a copy, as survivors add to the model */
    const struct scenario *scenario;
    unsigned flags;
    int peer_lock[MAX_PEERS];       /* descriptions that hold the certificates of peers that live */
    struct seen *seen;
    unsigned seen_count;
    uint8_t *reached;               /* by index of tracked */
    bool outcome_is_known;
};

static void bad(struct check *c, const char *format, ...) __attribute__((format(printf, 2, 3), noreturn));

static void bad(struct check *c, const char *format, ...)
{
    struct verdict *verdict = c->verdict;
    va_list args;

    va_start(args, format);
    vsnprintf(verdict->text, sizeof(verdict->text), format, args);
    va_end(args);
    verdict->bad = 1;
    _exit(1);
}

/* ---- peers and attaching ---- */

static int open_heap(struct check *c)
{
    int fd = open(c->actor.stage->path, O_RDWR | O_CLOEXEC);

    if (fd < 0)
        stage_fail("cannot open image %s", c->actor.stage->path);
    return fd;
}

static void attach(struct check *c)
{
    unsigned flags = c->flags & CHECK_AT_ATTACH ? 0 : LA_HEAP_NO_RECOVER;
    int r = la_heap_attach_fd(open_heap(c), flags, &c->actor.heap);

    if (r == -EINVAL && c->scenario->flags & UNFORMATTED)
        _exit(0);       /* not a heap yet, and nobody takes it for one */
    if (r < 0)
        bad(c, "cannot attach: %s", la_last_error());
}

/* ---- C2 ---- */

static void report_line(void *user, const char *line)
{
    struct check *c = user;

    snprintf(c->verdict->text, sizeof(c->verdict->text), "fsck: %s", line);
}

static struct la_fsck fsck(struct check *c, const char *when)
{
    struct la_fsck counts = { .struct_size = sizeof(counts) };
    int errors = la_heap_fsck(c->actor.heap, report_line, c, &counts);
    char line[200];

    memcpy(line, c->verdict->text, sizeof(line));
    if (errors != 0)
        bad(c, "%s: %d errors, %.190s", when, errors, line);
    return counts;
}

/* ---- C3 to C5 ---- */

static void see(void *user, void *block, size_t size, bool held)
{
    struct check *c = user;

    if (c->seen_count < MAX_WALKED)
        c->seen[c->seen_count++] = (struct seen){ (uintptr_t)block, size, held };
}

static int by_block(const void *a, const void *b)
{
    const struct seen *x = a, *y = b;

    return (x->block > y->block) - (x->block < y->block);
}

static const struct seen *find_seen(const struct check *c, uintptr_t block)
{
    struct seen key = { .block = block };

    return bsearch(&key, c->seen, c->seen_count, sizeof(key), by_block);
}

static void walk(struct check *c, const char *when)
{
    c->seen_count = 0;
    if (la_heap_walk(c->actor.heap, see, c) != (long)c->seen_count)
        bad(c, "%s: %u live blocks and more", when, c->seen_count);
    qsort(c->seen, c->seen_count, sizeof(*c->seen), by_block);
    for (unsigned i = 1; i < c->seen_count; i++)
        if (c->seen[i].block < c->seen[i - 1].block + c->seen[i - 1].size)
            bad(c, "%s: blocks %#lx and %#lx overlap", when, c->seen[i - 1].block, c->seen[i].block);
}

static uintptr_t address_of(const struct check *c, const struct tracked *t)
{
    return c->actor.stage->address + t->offset;
}

/* -1: unknown. */
static int find_tracked(const struct check *c, uintptr_t block)
{
    const struct stage *stage = c->actor.stage;

    for (uint32_t i = 0; i < stage->tracked_count; i++)
        if (address_of(c, &stage->tracked[i]) == block)
            return (int)i;
    return -1;
}

/* Model entries in the order of their addresses, so that all of them are found in one pass over the walk. */
static int by_offset(const void *a, const void *b)
{
    const struct tracked *x = a, *y = b;

    return (x->offset > y->offset) - (x->offset < y->offset);
}

static void check_live_blocks_are_known(struct check *c, const char *when)
{
    const struct stage *stage = c->actor.stage;
    uint32_t at = 0;

    for (unsigned i = 0; i < c->seen_count; i++) {
        while (at < stage->tracked_count && address_of(c, &stage->tracked[at]) < c->seen[i].block)
            at++;
        if (at == stage->tracked_count || address_of(c, &stage->tracked[at]) != c->seen[i].block)
            bad(c, "%s: block %#lx of %zu bytes is %s, the model knows of none", when, c->seen[i].block, c->seen[i].size,
                c->seen[i].held ? "held" : "live");
    }
}

static void check_tracked(struct check *c, const struct tracked *t, const char *when)
{
    const struct seen *seen = find_seen(c, address_of(c, t));

    if (!seen && (t->fate == LIVE || t->fate == PEER_HELD || t->fate == LEFT))
        bad(c, "%s: block %#lx of %lu bytes is lost", when, address_of(c, t), t->size);
    if (!seen)
        return;
    if (seen->held != (t->fate == PEER_HELD || t->fate == EITHER_LEFT || (t->fate == LEFT && !c->reached[t - c->actor.stage->tracked])))
        bad(c, "%s: block %#lx of %lu bytes is %s", when, address_of(c, t), t->size, seen->held ? "held" : "no longer held");
    if (seen->size < t->size)
        bad(c, "%s: block %#lx of %lu bytes has only %zu", when, address_of(c, t), t->size, seen->size);
    if (!stage_is_whole(c->actor.stage, t))
        bad(c, "%s: bytes of block %#lx (%lu bytes) were overwritten", when, address_of(c, t), t->size);
}

static void follow(struct check *c, uintptr_t value, const char *from)
{
    while (value) {
        int i = find_tracked(c, value);
        struct object *object = (struct object *)value;

        if (value >> 48)
            bad(c, "%s holds the mark %#lx of a take that nobody finishes", from, value);
        if (!find_seen(c, value))
            bad(c, "%s leads to %#lx, which is no live block", from, value);
        if (i < 0 || c->actor.stage->tracked[i].filled < sizeof(*object))
            bad(c, "%s leads to %#lx, which is no object", from, value);
        if (c->reached[i])
            return;
        c->reached[i] = 1;
        follow(c, (uintptr_t)atomic_load(&object->part), "a part");
        value = (uintptr_t)atomic_load(&object->next);
        from = "a link";
    }
}

static void follow_queued(void *user, void *block)
{
    struct check *c = user;
    int i = find_tracked(c, (uintptr_t)block);

    if (i >= 0 && c->reached[i])
        bad(c, "block %p is in a queue, and somewhere else or twice", block);
    follow(c, (uintptr_t)block, "a queue");
}

/* false: @root leads to none. */
static bool follow_queue(struct check *c, const char *name, la_link *root)
{
    struct la_queue *queue = atomic_load(root);
    int i = find_tracked(c, (uintptr_t)queue);

    if (!queue || (uintptr_t)queue >> 48 || la_queue_open(c->actor.heap, name, &queue) < 0)
        return false;
    if (i < 0)
        bad(c, "%s leads to a queue at %p, the model knows of none", name, (void *)queue);
    c->reached[i] = 1;
    la_queue_walk(c->actor.heap, queue, follow_queued, c);
    return true;
}

static void follow_roots(struct check *c)
{
    const char *name;
    la_link *root;

    memset(c->reached, 0, MAX_TRACKED);
    for (unsigned i = 0; la_heap_root_at(c->actor.heap, i, &name, &root) == 0; i++) {
        if (!name[0])
            bad(c, "root %u has no name", i);
        if (!follow_queue(c, name, root))
            follow(c, (uintptr_t)atomic_load(root), name);
    }
}

static void check_model(struct check *c, const char *when)
{
    struct stage *stage = c->actor.stage;
    unsigned bit = 0;

    walk(c, when);
    check_live_blocks_are_known(c, when);
    follow_roots(c);
    c->verdict->live = 0;
    for (uint32_t i = 0; i < stage->tracked_count; i++) {
        const struct tracked *t = &stage->tracked[i];
        bool live = find_seen(c, address_of(c, t)) != NULL;

        check_tracked(c, t, when);
        if (t->fate == LINKED && live != c->reached[i])
            bad(c, "%s: block %#lx of %lu bytes is %s", when, address_of(c, t), t->size, live ? "live, but nothing leads to it" : "linked, but free");
        if (t->fate == EITHER || t->fate == LINKED || t->fate == EITHER_LEFT)
            c->verdict->live |= (uint64_t)live << (bit++ % 64);
        else if (t->fate == LEFT)
            c->verdict->live |= (uint64_t)c->reached[i] << (bit++ % 64);
    }
}

/* ---- C1 ---- */

/* Of the bytes of the file. */
static uint64_t digest(struct check *c)
{
    const uint64_t *word = (const uint64_t *)c->actor.stage->address;
    off_t at = 0, end, size = (off_t)c->actor.stage->heap_size;
    int fd = open_heap(c);
    uint64_t sum = 0;

    while ((at = lseek(fd, at, SEEK_DATA)) >= 0 && at < size) {
        end = lseek(fd, at, SEEK_HOLE);
        for (; at < end; at += 8)
            if (word[at / 8])
                sum += (word[at / 8] ^ (uint64_t)at) * 0x9e3779b97f4a7c15u + (sum >> 29);
    }
    close(fd);
    return sum;
}

static void recover(struct check *c)
{
    int found = la_heap_recover(c->actor.heap, NULL, NULL), again;
    uint64_t before;

    if (found < 0)
        bad(c, "recovery: %s", la_last_error());
    c->verdict->dead = (uint32_t)found;
    before = digest(c);
    again = la_heap_recover(c->actor.heap, NULL, NULL);
    if (again != 0)
        bad(c, "recovered again: %d processes were still dead", again);
    if (digest(c) != before)
        bad(c, "recovered again: bytes changed");
}

/* ---- C6 ---- */

static void check_fresh(struct check *c, void *block, size_t size)
{
    for (unsigned i = 0; i < c->seen_count; i++)
        if ((uintptr_t)block < c->seen[i].block + c->seen[i].size && (uintptr_t)block + size > c->seen[i].block)
            bad(c, "in use: block %p of %zu bytes was handed out, but %#lx is live", block, size, c->seen[i].block);
}

static void use_blocks(struct check *c, void *(*alloc)(struct la_heap *, size_t))
{
    static const size_t sizes[] = { 16, 64, 200, 1024, 20000, 100000 };
    enum { KINDS = sizeof(sizes) / sizeof(*sizes), EACH = 3 };
    void *blocks[KINDS * EACH];

    for (unsigned i = 0; i < KINDS * EACH; i++) {
        size_t size = sizes[i % KINDS];

        blocks[i] = alloc(c->actor.heap, size);
        if (!blocks[i])
            continue;       /* full, perhaps: capacity is looked at elsewhere */
        check_fresh(c, blocks[i], size);
        for (unsigned j = 0; j < i; j++)
            if (blocks[j] && (char *)blocks[i] < (char *)blocks[j] + sizes[j % KINDS] && (char *)blocks[j] < (char *)blocks[i] + size)
                bad(c, "in use: blocks %p and %p overlap", blocks[i], blocks[j]);
        memset(blocks[i], 0x5a, size);
    }
    for (unsigned i = 0; i < KINDS * EACH; i++)
        la_free(blocks[i]);
}

static void use_links(struct check *c)
{
    la_link *root = stage_root(&c->actor, "used-by-checker");
    struct object *first = la_heap_hold(c->actor.heap, sizeof(*first)), *second = la_heap_hold(c->actor.heap, sizeof(*second));

    if (!first || !second) {
        la_free(first);
        la_free(second);
        return;
    }
    if (la_push(c->actor.heap, root, first, offsetof(struct object, next)) < 0 ||
        la_push(c->actor.heap, root, second, offsetof(struct object, next)) < 0)
        bad(c, "in use: push: %s", la_last_error());
    if (la_take(c->actor.heap, root, offsetof(struct object, next)) != second ||
        la_take(c->actor.heap, root, offsetof(struct object, next)) != first || la_load(c->actor.heap, root))
        bad(c, "in use: a stack of two does not come back: %s", la_last_error());
    la_free(first);
    la_free(second);
}

/*
 * Blocks of one slice until the heap is full. Each macro block has 32 slices, one of them for state words; what pages and runs do not
 * cover must be there.
 */
static void use_everything(struct check *c)
{
    enum { MAX = 4096, SLICE = 65536 };
    static void *blocks[MAX];
    struct la_fsck counts;
    struct la_heap_info info = { .struct_size = sizeof(info) };
    uint64_t covered = 3, n = 0, i;

    for (; n < MAX && (blocks[n] = la_heap_hold(c->actor.heap, SLICE - 4096)) != NULL; n++)
        check_fresh(c, blocks[n], SLICE - 4096);
    /* Now, as pages without live blocks have given way. */
    counts = fsck(c, "full");
    counts.bytes[1] -= n * SLICE;      /* held */
    covered += counts.pages - n;
    for (i = 0; i < 4; i++)
        covered += counts.bytes[i] / SLICE;
    for (i = 0; i < n; i++)
        la_free(blocks[i]);
    la_heap_info(c->actor.heap, &info);
    c->verdict->capacity = n;
    /* What is free in the macro blocks of a peer that lives is the peer's. */
    if (!c->actor.stage->peers_alive && n + covered < (uint64_t)info.macro_blocks * 31)
        bad(c, "room for %lu blocks of a slice, %lu slices are in use, of %u macro blocks: something leaks", n, covered, info.macro_blocks);
}

static void misused(void *user, const void *pointer, const char *text)
{
    (void)pointer;
    bad(user, "a free was refused: %s", text);
}

/* ---- the whole ---- */

static void check_recovered(struct check *c, const char *when)
{
    struct la_fsck counts = fsck(c, when);
    struct la_heap_info info = { .struct_size = sizeof(info) };

    la_heap_info(c->actor.heap, &info);
    if (info.quarantined)
        bad(c, "%s: the heap is quarantined", when);
    if (counts.blocks[2] != 0)
        bad(c, "%s: %lu blocks are in doubt", when, counts.blocks[2]);
    check_model(c, when);
}

static void check_outcome(struct check *c, const char *when)
{
    int r;

    if (!(c->scenario->flags & NUMBERED))
        return;
    r = la_heap_outcome(c->actor.heap, STAGE_OPERATION);
    if (r < 0 || (c->outcome_is_known && (r != 0) != c->verdict->happened))
        bad(c, "%s: it is not known whether the operation has happened, or something else than before (%d)", when, r);
    c->outcome_is_known = true;
    c->verdict->happened = r != 0;
}

static void sort_model(struct stage *stage)
{
    qsort(stage->tracked, stage->tracked_count, sizeof(*stage->tracked), by_offset);
}

static void bury_peers(struct check *c)
{
    struct stage *stage = c->actor.stage;

    for (unsigned i = 0; i < stage->peers; i++)
        close(c->peer_lock[i]);
    if (la_heap_recover(c->actor.heap, NULL, NULL) != (int)stage->peers)
        bad(c, "the peers died, but %u were not recovered", stage->peers);
    for (uint32_t i = 0; i < stage->tracked_count;)
        if (stage->tracked[i].fate == PEER_HELD)
            stage->tracked[i] = stage->tracked[--stage->tracked_count];
        else
            i++;
    sort_model(stage);
    check_recovered(c, "when the peers were dead");
}

/* Our own copy of what the model says. */
static struct stage *copy_stage(const struct stage *shared)
{
    size_t used = offsetof(struct stage, tracked) + shared->tracked_count * sizeof(struct tracked);
    struct stage *stage = calloc(1, sizeof(*stage));

    if (!stage)
        stage_fail("no memory");
    memcpy(stage, shared, used);
    return stage;
}

static void use_heap(struct check *c)
{
    use_blocks(c, la_heap_alloc);
    use_blocks(c, la_heap_hold);
    use_links(c);
    if (c->flags & CHECK_CAPACITY)
        use_everything(c);
}

void check_image(struct stage *shared, const struct scenario *scenario, unsigned flags)
{
    struct check check = { .verdict = &shared->verdict, .scenario = scenario, .flags = flags }, *c = &check;
    struct stage *stage = copy_stage(shared);

    *c->verdict = (struct verdict){ 0 };
    c->actor.stage = stage;
    c->seen = calloc(MAX_WALKED, sizeof(*c->seen));
    c->reached = calloc(MAX_TRACKED, 1);
    if (!c->seen || !c->reached)
        stage_fail("no memory");
    la_misuse_set(LA_MISUSE_REPORT, misused, c);
    if (stage->peers_alive)
        stage_play_peers(stage, c->peer_lock);
    attach(c);
    if (!(flags & CHECK_AT_ATTACH))
        fsck(c, "before recovery");
    if (flags & CHECK_SURVIVOR)
        scenario->survive(&c->actor);
    sort_model(stage);
    recover(c);
    check_recovered(c, "after recovery");
    check_outcome(c, "after recovery");
    if (scenario->audit)
        scenario->audit(&c->actor);
    if (c->actor.wrong)
        bad(c, "audit: %s", c->actor.wrong);
    use_heap(c);
    check_recovered(c, "after use");
    check_outcome(c, "after use");
    if (stage->peers_alive && flags & CHECK_PEERS_DIE)
        bury_peers(c);
    _exit(0);
}
