/*
 * scenarios.c - what is done to a shared heap, one small step of a user each.
 *
 * Sizes: 16 and 200 B share a page of one slice, 20,000 B one of several; 100,000 B is a run of slices, 3,000,000 B of macro blocks.
 */
#include "scenario.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { SMALL = 64, RUN_HEAP = 24 << 20, RUN = 3000000, LARGE = 100000 };

#define NEXT offsetof(struct object, next)
#define PART offsetof(struct object, part)

static void *keep(struct actor *a, size_t size, enum fate fate)
{
    return stage_fill(a, la_heap_alloc(a->heap, size), size, fate);
}

static void *hold(struct actor *a, size_t size)
{
    void *block = la_heap_hold(a->heap, size);

    if (!block)
        stage_fail("cannot hold %zu bytes", size);
    return block;
}

/* A live object that @link leads to. */
static struct object *link_object(struct actor *a, la_link *link, size_t size, enum fate fate)
{
    struct object *object = stage_fill(a, hold(a, size), size, fate);

    if (la_push(a->heap, link, object, NEXT) < 0)
        stage_fail("push");
    return object;
}

/* ---- allocate ---- */

/* Neighbours that must stay as they are, and a page and bin for each size in use. */
static void neighbours(struct actor *a)
{
    static const size_t sizes[] = { 16, SMALL, 200, 20000, LARGE };

    for (unsigned i = 0; i < 2 * sizeof(sizes) / sizeof(*sizes); i++)
        keep(a, sizes[i / 2], LIVE);
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
        la_free(hold(a, sizes[i]));
}

static void alloc_kept(struct actor *a, size_t size)
{
    void *block = la_heap_alloc(a->heap, size);

    stage_track(a, block, size, EITHER);
}

static void alloc_16(struct actor *a) { alloc_kept(a, 16); }
static void alloc_64(struct actor *a) { alloc_kept(a, SMALL); }
static void alloc_20000(struct actor *a) { alloc_kept(a, 20000); }
static void alloc_large(struct actor *a) { alloc_kept(a, LARGE); }
static void alloc_run(struct actor *a) { alloc_kept(a, RUN); }
static void hold_64(struct actor *a) { hold(a, SMALL); }
static void hold_20000(struct actor *a) { hold(a, 20000); }
static void hold_large(struct actor *a) { hold(a, LARGE); }
static void hold_run(struct actor *a) { hold(a, RUN); }

/* ---- free ---- */

static void keep_16(struct actor *a) { neighbours(a); a->stage->note[0] = (uintptr_t)keep(a, 16, EITHER); }
static void keep_64(struct actor *a) { neighbours(a); a->stage->note[0] = (uintptr_t)keep(a, SMALL, EITHER); }
static void keep_20000(struct actor *a) { neighbours(a); a->stage->note[0] = (uintptr_t)keep(a, 20000, EITHER); }
static void keep_large(struct actor *a) { neighbours(a); a->stage->note[0] = (uintptr_t)keep(a, LARGE, EITHER); }
static void keep_run(struct actor *a) { neighbours(a); a->stage->note[0] = (uintptr_t)keep(a, RUN, EITHER); }
static void prepare_hold_64(struct actor *a) { neighbours(a); a->stage->note[0] = (uintptr_t)hold(a, SMALL); }
static void prepare_hold_large(struct actor *a) { neighbours(a); a->stage->note[0] = (uintptr_t)hold(a, LARGE); }
static void prepare_hold_run(struct actor *a) { neighbours(a); a->stage->note[0] = (uintptr_t)hold(a, RUN); }
static void free_noted(struct actor *a) { la_free((void *)a->stage->note[0]); }

/* ---- publish and take ---- */

static void publish_ground(struct actor *a)
{
    neighbours(a);
    a->stage->note[0] = (uintptr_t)stage_root(a, "root");
    a->stage->note[1] = (uintptr_t)stage_fill(a, hold(a, 200), 200, LINKED);
}

static void publish_over_ground(struct actor *a)
{
    publish_ground(a);
    /* What is replaced is the user's to free: it stays. */
    link_object(a, (la_link *)a->stage->note[0], 200, LIVE);
}

static void push_ground(struct actor *a)
{
    publish_ground(a);
    link_object(a, (la_link *)a->stage->note[0], 200, LINKED);
}

static void publish_noted(struct actor *a)
{
    la_link *link = (la_link *)a->stage->note[0];

    if (la_publish(a->heap, link, la_load(a->heap, link), (void *)a->stage->note[1]) != 0)
        stage_fail("publish");
}

static void push_noted(struct actor *a)
{
    if (la_push(a->heap, (la_link *)a->stage->note[0], (void *)a->stage->note[1], NEXT) != 0)
        stage_fail("push");
}

/* Somebody else pushes on the same link before the dead one is recovered. */
static void survivor_pushes(struct actor *a)
{
    link_object(a, (la_link *)a->stage->note[0], 200, LINKED);
}

static void take_ground(struct actor *a)
{
    la_link *root;

    neighbours(a);
    root = stage_root(a, "root");
    a->stage->note[0] = (uintptr_t)root;
    link_object(a, root, 200, LINKED);
    link_object(a, root, 200, LINKED);
}

static void take_last_ground(struct actor *a)
{
    la_link *root;

    neighbours(a);
    root = stage_root(a, "root");
    a->stage->note[0] = (uintptr_t)root;
    link_object(a, root, 200, LINKED);
}

static void take_noted(struct actor *a)
{
    if (!la_take(a->heap, (la_link *)a->stage->note[0], NEXT))
        stage_fail("take");
}

static void take_no_next(struct actor *a)
{
    if (!la_take(a->heap, (la_link *)a->stage->note[0], LA_NO_NEXT))
        stage_fail("take");
}

static void survivor_takes(struct actor *a)
{
    void *block = la_take(a->heap, (la_link *)a->stage->note[0], NEXT);

    la_free(block);
}

static void take_and_free(struct actor *a)
{
    la_free(la_take(a->heap, (la_link *)a->stage->note[0], NEXT));
}

/* ---- the list ---- */

const struct scenario scenarios[] = {
    { "alloc-first-ever", 0, .act = alloc_64 },
    { "alloc-16", 0, .prepare = neighbours, .act = alloc_16 },
    { "alloc-64", 0, .prepare = neighbours, .act = alloc_64 },
    { "alloc-20000", 0, .prepare = neighbours, .act = alloc_20000 },
    { "alloc-large", 0, .prepare = neighbours, .act = alloc_large },
    { "alloc-run", 0, RUN_HEAP, .prepare = neighbours, .act = alloc_run },
    { "hold-64", SAME_AFTER, .prepare = neighbours, .act = hold_64 },
    { "hold-20000", SAME_AFTER, .prepare = neighbours, .act = hold_20000 },
    { "hold-large", SAME_AFTER, .prepare = neighbours, .act = hold_large },
    { "hold-run", SAME_AFTER | RECOVER_TRACED, RUN_HEAP, .prepare = neighbours, .act = hold_run },
    { "free-16", 0, .prepare = keep_16, .act = free_noted },
    { "free-64", 0, .prepare = keep_64, .act = free_noted },
    { "free-20000", 0, .prepare = keep_20000, .act = free_noted },
    { "free-large", 0, .prepare = keep_large, .act = free_noted },
    { "free-run", RECOVER_TRACED, RUN_HEAP, .prepare = keep_run, .act = free_noted },
    { "free-held-64", SAME_AFTER, .prepare = prepare_hold_64, .act = free_noted },
    { "free-held-large", SAME_AFTER, .prepare = prepare_hold_large, .act = free_noted },
    { "free-held-run", SAME_AFTER | RECOVER_TRACED, RUN_HEAP, .prepare = prepare_hold_run, .act = free_noted },
    { "publish", RECOVER_TRACED, .prepare = publish_ground, .act = publish_noted, .survive = survivor_pushes },
    { "publish-over", RECOVER_TRACED, .prepare = publish_over_ground, .act = publish_noted, .survive = survivor_pushes },
    { "push", RECOVER_TRACED, .prepare = push_ground, .act = push_noted, .survive = survivor_takes },
    { "take", RECOVER_TRACED, .prepare = take_ground, .act = take_noted, .survive = survivor_takes },
    { "take-last", 0, .prepare = take_last_ground, .act = take_noted, .survive = survivor_pushes },
    { "take-no-next", 0, .prepare = take_last_ground, .act = take_no_next, .survive = survivor_pushes },
    { "take-free", 0, .prepare = take_ground, .act = take_and_free, .survive = survivor_takes },
};

const unsigned scenario_count = sizeof(scenarios) / sizeof(*scenarios);
