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

#include "core/lane.h"
#include "core/trail.h"
#include "core/queue.h"

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
    stage_made(a, la_heap_alloc(a->heap, size), size);
}

static void alloc_16(struct actor *a) { alloc_kept(a, 16); }
static void alloc_64(struct actor *a) { alloc_kept(a, SMALL); }
static void alloc_20000(struct actor *a) { alloc_kept(a, 20000); }
static void alloc_large(struct actor *a) { alloc_kept(a, LARGE); }
static void alloc_run(struct actor *a) { alloc_kept(a, RUN); }
static void hold_64(struct actor *a) { hold(a, SMALL); }

/* Nothing of the page was held before. */
static void keep_two(struct actor *a)
{
    keep(a, SMALL, LIVE);
    keep(a, SMALL, LIVE);
}

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

/* ---- marks ---- */

/* What it held has gone, the page is to be looked at; and what it still holds is in another page. */
static void earn_a_wipe(struct actor *a)
{
    struct lane *lane = heap_lane(a->heap);

    neighbours(a);
    hold(a, SMALL);
    la_free(hold(a, 200));
    lane->earned = 16384;       /* for all of them */
}

static void wipe(struct actor *a)
{
    trail_wipe(heap_lane(a->heap));
    hold(a, 200);
}

/* What it has beside what it holds: pages of two sizes that are nobody's any more, and marks of them. */
static void leave_free_pages(struct actor *a)
{
    neighbours(a);
    hold(a, SMALL);
    la_free(hold(a, 1000));
    la_free(hold(a, 9000));
}

static void end_thread(struct actor *a)
{
    lane_give_back(a->heap);
}

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

/* Somebody expects the block in another link, where it never was or no longer is. */
static void survivor_expects_it_elsewhere(struct actor *a)
{
    void *block = hold(a, 200);

    if (la_publish(a->heap, stage_root(a, "elsewhere"), (void *)a->stage->note[1], block) != -EAGAIN)
        stage_fail("publish over what is not expected");
    la_free(block);
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

/* ---- roots with a version ---- */

/* An object that knows in which version of the root it is to be. */
static void *of_version(struct actor *a, uint32_t version)
{
    struct object *object = stage_fill(a, hold(a, 200), 200, LINKED);

    object->number = version;
    return object;
}

static void swap_in(struct actor *a, void *block)
{
    la_link *root = (la_link *)a->stage->note[0];
    uint64_t version;
    void *value, *old;

    if (la_root_read(a->heap, root, &value, &version) < 0 || la_root_swap(a->heap, root, version, block, &old) != 0)
        stage_fail("swap");
    la_free(old);
}

/* Version 2; note[1] is held, for version 3. */
static void two_versions(struct actor *a)
{
    neighbours(a);
    a->stage->note[0] = (uintptr_t)stage_root(a, "root");
    for (uint32_t version = 1; version <= 2; version++)
        swap_in(a, of_version(a, version));
}

static void third_version(struct actor *a)
{
    neighbours(a);
    a->stage->note[1] = (uintptr_t)of_version(a, 3);
}

static void swap_ground(struct actor *a)
{
    two_versions(a);
    a->stage->note[1] = (uintptr_t)of_version(a, 3);
}

static void swap_first_ground(struct actor *a)
{
    neighbours(a);
    a->stage->note[0] = (uintptr_t)stage_root(a, "root");
    a->stage->note[1] = (uintptr_t)of_version(a, 1);
}

static void swap_noted(struct actor *a)
{
    uint64_t version;
    void *value, *old;

    if (la_root_read(a->heap, (la_link *)a->stage->note[0], &value, &version) < 0 ||
        la_root_swap(a->heap, (la_link *)a->stage->note[0], version, (void *)a->stage->note[1], &old) != 0)
        stage_fail("swap");
}

static void swap_and_free(struct actor *a) { swap_in(a, (void *)a->stage->note[1]); }
static void swap_out(struct actor *a) { swap_in(a, NULL); }

static void survivor_swaps(struct actor *a)
{
    la_link *root = (la_link *)a->stage->note[0];
    struct object *object = of_version(a, 0);
    uint64_t version;
    void *value, *old;
    int r;

    do {
        la_root_read(a->heap, root, &value, &version);
        object->number = (uint32_t)version + 1;
        r = la_root_swap(a->heap, root, version, object, &old);
    } while (r == -EAGAIN);
    if (r < 0)
        a->wrong = "a survivor's swap fails";
    la_free(old);
}

/* What the root points to is of its version, or there is nothing. */
static void version_fits(struct actor *a)
{
    struct object *object;
    uint64_t version;

    if (la_root_read(a->heap, (la_link *)a->stage->note[0], (void **)&object, &version) < 0 || (object && object->number != version))
        a->wrong = "the object is of another version than its root";
}

/* ---- pages and macro blocks ---- */

enum { PAGE_OF_20000 = 30 };        /* more than a page of that class has */

static void alloc_page(struct actor *a)
{
    for (int i = 0; i < PAGE_OF_20000; i++)
        alloc_kept(a, 20000);
}

static void two_pages(struct actor *a)
{
    neighbours(a);
    for (int i = 0; i < 2 * PAGE_OF_20000; i++)
        a->stage->note[0] = (uintptr_t)keep(a, 20000, i % PAGE_OF_20000 ? EITHER : LIVE);
}

/* Frees all but one or two blocks of the class, and makes the pool look at the pages. */
static void free_pages(struct actor *a)
{
    struct stage *stage = a->stage;
    uint32_t count = stage->tracked_count;

    for (uint32_t i = 0; i < count; i++)
        if (stage->tracked[i].fate == EITHER)
            la_free((void *)(stage->address + stage->tracked[i].offset));
    for (int i = 0; i < PAGE_OF_20000; i++)
        la_free(hold(a, 20000));
    alloc_kept(a, LARGE);
}

/* State words of a macro block's pages of 16 B fill a slice: the next page needs another one. */
static void fill_words(struct actor *a)
{
    neighbours(a);
    for (int i = 0; i < 4 * 4096; i++)
        stage_track(a, la_heap_alloc(a->heap, 16), 16, LIVE);
}

static void alloc_words(struct actor *a)
{
    for (int i = 0; i < 4; i++)
        alloc_kept(a, 16);
}

static void fill_macro(struct actor *a)
{
    keep(a, SMALL, LIVE);
    for (int i = 0; i < 15; i++)
        keep(a, LARGE, LIVE);
}

static void alloc_macro(struct actor *a)
{
    for (int i = 0; i < 3; i++)
        alloc_kept(a, LARGE);
    alloc_kept(a, 1000);
}

/* A macro block that had payload where it gets words. */
static void dirty_macro(struct actor *a)
{
    char *run = hold(a, RUN);

    neighbours(a);
    for (size_t i = 0; i < RUN; i += 1024)
        memcpy(run + i, &(uint32_t){ 0x3000 }, 4);      /* as a state word it would be a live block */
    la_free(run);
    fill_macro(a);
}

static void second_macro(struct actor *a)
{
    fill_macro(a);
    for (int i = 0; i < 4; i++)
        a->stage->note[i] = (uintptr_t)keep(a, LARGE, EITHER);
}

static void free_macro(struct actor *a)
{
    for (int i = 0; i < 4; i++)
        la_free((void *)a->stage->note[i]);
}

static void alloc_aligned(struct actor *a)
{
    stage_made(a, la_chain_aligned_alloc(la_heap_chain(a->heap, LA_KEEP), 4096, 5000), 5000);
}

static void reallocate(struct actor *a)
{
    size_t size = 3 * la_usable_size((void *)a->stage->note[0]);
    void *block = la_chain_realloc(la_heap_chain(a->heap, LA_KEEP), (void *)a->stage->note[0], size);

    stage_made(a, block, size);
    a->stage->note[1] = (uintptr_t)block;
}

static bool is_live(struct actor *a, uintptr_t block)
{
    return la_usable_size((void *)block) != 0 && a;
}

static void one_of_both(struct actor *a)
{
    if (!is_live(a, a->stage->note[0]) && !is_live(a, a->stage->note[1]))
        a->wrong = "the block was lost while it was reallocated";
}

/* ---- remote frees ---- */

static void *other_thread(void *argument)
{
    struct actor *a = argument;

    a->stage->note[0] = (uintptr_t)keep(a, (size_t)a->stage->note[1], EITHER);
    hold(a, SMALL);
    return NULL;
}

/* Another lane of the process, with one block to be freed by us. */
static void other_lane(struct actor *a, size_t size)
{
    pthread_t thread;

    neighbours(a);
    a->stage->note[1] = size;
    if (pthread_create(&thread, NULL, other_thread, a) != 0)
        stage_fail("no thread");
    pthread_join(thread, NULL);
}

static void other_lane_64(struct actor *a) { other_lane(a, SMALL); }
static void other_lane_large(struct actor *a) { other_lane(a, LARGE); }
static void other_lane_run(struct actor *a) { other_lane(a, RUN); }

static void peer(struct actor *a, size_t size)
{
    keep(a, SMALL, LIVE);
    a->stage->note[0] = (uintptr_t)keep(a, size, EITHER);
    a->stage->note[1] = size;
    stage_fill(a, hold(a, SMALL), SMALL, PEER_HELD);
    stage_fill(a, hold(a, LARGE), LARGE, PEER_HELD);
}

static void peer_64(struct actor *a) { peer(a, SMALL); }
static void peer_20000(struct actor *a) { peer(a, 20000); }
static void peer_large(struct actor *a) { peer(a, LARGE); }

static void peer_run(struct actor *a)
{
    peer(a, RUN);
    stage_fill(a, hold(a, RUN), RUN, PEER_HELD);
}

/* What was freed while its owner lives must be of use to the owner, before the heap is full. */
static const char *owner_gets_it_back(struct actor *a)
{
    void *wanted = (void *)a->stage->note[0], *block;
    size_t size = (size_t)a->stage->note[1];

    if (la_usable_size(wanted) != 0)
        return NULL;    /* it was not freed */
    do {
        block = la_heap_alloc(a->heap, size);
        /* Larger ones may be cut from the same memory elsewhere. */
        if (block && (uintptr_t)block <= (uintptr_t)wanted && (uintptr_t)wanted < (uintptr_t)block + size)
            return NULL;
    } while (block);
    return "the heap is full, but its owner never got the freed block back";
}

static void *hold_in_thread(void *argument)
{
    struct actor *a = argument;

    a->stage->note[0] = (uintptr_t)hold(a, SMALL);
    return NULL;
}

/* A block that another lane holds, to be freed by us. */
static void other_lane_holds(struct actor *a)
{
    pthread_t thread;

    neighbours(a);
    if (pthread_create(&thread, NULL, hold_in_thread, a) != 0)
        stage_fail("no thread");
    pthread_join(thread, NULL);
}

static void *free_in_thread(void *argument)
{
    struct actor *a = argument;

    for (int i = 0; i < 3; i++)
        la_free((void *)a->stage->note[i]);
    return NULL;
}

/* Our pages are full, but for what another lane has freed. */
static void freed_by_others(struct actor *a, size_t size)
{
    pthread_t thread;

    fill_macro(a);
    for (int i = 0; i < 3; i++)
        a->stage->note[i] = (uintptr_t)keep(a, size, LIVE);
    for (int i = 0; i < 3; i++)
        stage_forget(a, (void *)a->stage->note[i]);
    if (pthread_create(&thread, NULL, free_in_thread, a) != 0)
        stage_fail("no thread");
    pthread_join(thread, NULL);
}

static void freed_by_others_20000(struct actor *a) { freed_by_others(a, 20000); }
static void freed_by_others_large(struct actor *a) { freed_by_others(a, LARGE); }

/* ---- more of publish and take ---- */

static void keep_noted(struct actor *a)
{
    if (la_keep(a->heap, (void *)a->stage->note[0]) < 0)
        stage_fail("keep");
}

static void prepare_keep(struct actor *a)
{
    neighbours(a);
    a->stage->note[0] = (uintptr_t)stage_fill(a, hold(a, 200), 200, EITHER);
}

/* The link is in a block that another root leads to. */
static void publish_inner_ground(struct actor *a)
{
    struct object *outer;

    neighbours(a);
    outer = link_object(a, stage_root(a, "root"), 200, LINKED);
    a->stage->note[0] = (uintptr_t)&outer->part;
    a->stage->note[1] = (uintptr_t)stage_fill(a, hold(a, LARGE), LARGE, LINKED);
}

static void publish_run_ground(struct actor *a)
{
    neighbours(a);
    a->stage->note[0] = (uintptr_t)stage_root(a, "root");
    a->stage->note[1] = (uintptr_t)stage_fill(a, hold(a, RUN), RUN, LINKED);
}

static void take_run_ground(struct actor *a)
{
    neighbours(a);
    a->stage->note[0] = (uintptr_t)stage_root(a, "root");
    link_object(a, (la_link *)a->stage->note[0], RUN, LINKED);
}

static void publish_refused(struct actor *a)
{
    if (la_publish(a->heap, (la_link *)a->stage->note[0], NULL, (void *)a->stage->note[1]) != -EAGAIN)
        stage_fail("publish over what is not expected");
}

/* ---- bundles ---- */

static void build_bundle(struct actor *a, struct la_bundle **bundle, unsigned parts)
{
    struct object *root, *last;

    if (la_bundle_begin(a->heap, bundle) < 0)
        stage_fail("bundle");
    a->stage->note[1] = (uintptr_t)(root = last = stage_fill(a, la_bundle_alloc(*bundle, 200), 200, LINKED));
    for (unsigned i = 1; i < parts; i++) {
        size_t size = i == 2 ? LARGE : sizeof(struct object) + 16;
        struct object *part = stage_fill(a, la_bundle_alloc(*bundle, size), size, LINKED);

        atomic_store(&last->part, part);
        last = part;
    }
    atomic_store(&root->next, la_load(a->heap, (la_link *)a->stage->note[0]));
    a->stage->note[2] = (uintptr_t)*bundle;
}

static void end_bundle(struct actor *a)
{
    la_link *link = (la_link *)a->stage->note[0];

    if (la_bundle_publish((struct la_bundle *)a->stage->note[2], link, la_load(a->heap, link), (void *)a->stage->note[1]) != 0)
        stage_fail("bundle");
}

static void whole_bundle(struct actor *a)
{
    struct la_bundle *bundle;

    build_bundle(a, &bundle, 4);
    end_bundle(a);
}

static void prepare_bundle(struct actor *a, unsigned parts)
{
    struct la_bundle *bundle;

    neighbours(a);
    a->stage->note[0] = (uintptr_t)stage_root(a, "root");
    build_bundle(a, &bundle, parts);
}

static void bundle_of_4(struct actor *a) { prepare_bundle(a, 4); }
static void bundle_of_70(struct actor *a) { prepare_bundle(a, 70); }
static void abort_bundle(struct actor *a) { la_bundle_abort((struct la_bundle *)a->stage->note[2]); }

/* Somebody else was faster: all of it is the lane's as before. */
static void refused_bundle(struct actor *a)
{
    if (la_bundle_publish((struct la_bundle *)a->stage->note[2], (la_link *)a->stage->note[0], (void *)a->stage->note[1],
                          (void *)a->stage->note[1]) != -EAGAIN)
        stage_fail("a bundle was published over what is not there");
}

/* Takes an object of several blocks and frees all of them, the root last. */
static void survivor_takes_bundle(struct actor *a)
{
    struct object *root = la_take(a->heap, (la_link *)a->stage->note[0], NEXT), *part, *next;

    for (part = root ? la_load(a->heap, &root->part) : NULL; part; part = next) {
        next = la_load(a->heap, &part->part);
        la_free(part);
    }
    la_free(root);
}

/* Takes such an object and goes on holding it, while its publisher is recovered: none of its parts may be lost. */
static void survivor_holds_bundle(struct actor *a)
{
    struct object *root = la_take(a->heap, (la_link *)a->stage->note[0], NEXT), *part;

    if (!root)
        return;
    stage_change(a, root, PEER_HELD);
    for (part = la_load(a->heap, &root->part); part; part = la_load(a->heap, &part->part))
        stage_change(a, part, LIVE);
}

static void swap_bundle_ground(struct actor *a)
{
    struct la_bundle *bundle;

    swap_ground(a);
    la_free((void *)a->stage->note[1]);
    stage_forget(a, (void *)a->stage->note[1]);
    build_bundle(a, &bundle, 4);
    ((struct object *)a->stage->note[1])->number = 3;
    /* What it replaces goes. */
    atomic_store(&((struct object *)a->stage->note[1])->next, NULL);
}

static void swap_bundle(struct actor *a)
{
    void *old;

    if (la_bundle_swap((struct la_bundle *)a->stage->note[2], (la_link *)a->stage->note[0], 2, (void *)a->stage->note[1], &old) != 0)
        stage_fail("swap of a bundle");
}

static void bundle_over_ground(struct actor *a)
{
    struct la_bundle *bundle;

    push_ground(a);
    push_noted(a);
    build_bundle(a, &bundle, 4);
}

/* ---- peers that died in the middle ---- */

static bool link_is_marked(void *link)
{
    return (uintptr_t)atomic_load_explicit((la_link *)link, memory_order_relaxed) >> 48 != 0;
}

static bool link_is_set(void *link)
{
    return atomic_load_explicit((la_link *)link, memory_order_relaxed) != NULL;
}

/* The link names a stack of two, and the mark of a lane that is no more. */
static void dies_taking(struct actor *a)
{
    take_ground(a);
    stage_die_when(a, link_is_marked, (void *)a->stage->note[0]);
    take_noted(a);
}

/* The link leads to a block in doubt of a lane that is no more. */
static void dies_publishing(struct actor *a)
{
    publish_ground(a);
    stage_die_when(a, link_is_set, (void *)a->stage->note[0]);
    publish_noted(a);
}

static void dies_publishing_a_bundle(struct actor *a)
{
    bundle_of_4(a);
    stage_die_when(a, link_is_set, (void *)a->stage->note[0]);
    end_bundle(a);
}

static void dies_swapping(struct actor *a)
{
    swap_ground(a);
    stage_die_when(a, link_is_marked, (void *)a->stage->note[0]);
    swap_noted(a);
}

/* Its block is there, its version is counted, its mark is on the root. */
static bool version_is_counted(void *version)
{
    return atomic_load_explicit((_Atomic(uint64_t) *)version, memory_order_relaxed) == 1;
}

static void dies_swapping_late(struct actor *a)
{
    swap_first_ground(a);
    stage_die_when(a, version_is_counted, &container_of((_Atomic(uintptr_t) *)a->stage->note[0], struct heap_root, value)->version);
    swap_noted(a);
}

static void swap_after_the_dead(struct actor *a)
{
    struct object *object = (struct object *)a->stage->note[2];
    la_link *root = (la_link *)a->stage->note[0];
    uint64_t version;
    void *value, *old;

    if (la_root_read(a->heap, root, &value, &version) < 0 || la_root_swap(a->heap, root, version, object, &old) != -EAGAIN ||
        la_root_swap(a->heap, root, version + 1, object, &old) != 0)
        stage_fail("swap after the dead");
}

static void hold_for_swap(struct actor *a)
{
    uint64_t version;
    void *value;

    if (la_root_read(a->heap, (la_link *)a->stage->note[0], &value, &version) < 0)
        stage_fail("read");
    a->stage->note[2] = (uintptr_t)of_version(a, (uint32_t)version + 2);
}

/* ---- heirs ---- */

static void set_heir(struct actor *a)
{
    if (la_heap_set_heir(a->heap, "heir") < 0)
        stage_fail("heir");
}

static void publish_with_heir(struct actor *a)
{
    set_heir(a);
    publish_ground(a);
    stage_change(a, (void *)a->stage->note[1], LEFT);
    stage_fill(a, hold(a, LARGE), LARGE, LEFT);
    stage_fill(a, hold(a, 16), 16, LEFT);
}

static void survivor_takes_left(struct actor *a)
{
    void *block = la_take(a->heap, (la_link *)a->stage->note[0], NEXT);

    if (block)
        stage_change(a, block, PEER_HELD);
}

static void take_with_heir(struct actor *a)
{
    la_link *root;

    set_heir(a);
    root = stage_root(a, "root");
    a->stage->note[0] = (uintptr_t)root;
    link_object(a, root, 200, LEFT);
    link_object(a, root, 200, LEFT);
}

/* The blocks are left, the record of the bundle is not for the heir. */
static void bundle_with_heir(struct actor *a)
{
    struct object *part;

    set_heir(a);
    bundle_of_4(a);
    for (part = (struct object *)a->stage->note[1]; part; part = atomic_load(&part->part))
        stage_change(a, part, LEFT);
}

static void run_with_heir(struct actor *a)
{
    set_heir(a);
    a->stage->note[0] = (uintptr_t)stage_track(a, hold(a, RUN), RUN, EITHER_LEFT);
}

static void leave_much(struct actor *a, enum fate fate)
{
    static const size_t sizes[] = { 16, 200, 20000, LARGE, RUN };

    set_heir(a);
    for (unsigned i = 0; i < 2 * sizeof(sizes) / sizeof(*sizes) - 1; i++)
        stage_fill(a, hold(a, sizes[i / 2]), sizes[i / 2], fate);
}

static void leaves_much(struct actor *a) { leave_much(a, LEFT); }

/* The victim has no heir: what it inherits is free when it dies. */
static void nobody_inherits(struct actor *a)
{
    for (uint32_t i = 0; i < a->stage->tracked_count; i++)
        if (a->stage->tracked[i].fate == LEFT)
            a->stage->tracked[i].fate = EITHER_LEFT;
}

static void keep_holding(void *user, void *block, size_t size)
{
    (void)user;
    (void)block;
    (void)size;
}

static void inherit(struct actor *a)
{
    if (la_heap_inherit(a->heap, "heir", keep_holding, NULL) <= 0)
        stage_fail("inherit");
}

struct inheritance {
    struct actor *actor;
    uint32_t blocks;
};

static void is_expected(void *user, void *block, size_t size)
{
    struct inheritance *got = user;
    struct stage *stage = got->actor->stage;
    bool found = false;

    for (uint32_t i = 0; i < stage->tracked_count; i++)
        found = found || (stage->address + stage->tracked[i].offset == (uintptr_t)block && stage->tracked[i].size <= size &&
                          (stage->tracked[i].fate == LEFT || stage->tracked[i].fate == EITHER_LEFT));
    if (!found)
        got->actor->wrong = "an heir gets a block that was not left";
    got->blocks++;
}

static void count_held(void *user, void *block, size_t size, bool held)
{
    (void)block;
    (void)size;
    *(uint32_t *)user += held;
}

/* All that is held, and nothing is left to the next. */
static void heir_gets_it(struct actor *a)
{
    struct inheritance got = { .actor = a };
    uint32_t held = 0, mine = 0;

    la_heap_walk(a->heap, count_held, &held);
    for (uint32_t i = 0; i < a->stage->tracked_count; i++)
        mine += a->stage->tracked[i].fate == PEER_HELD;
    if (la_heap_inherit(a->heap, "heir", is_expected, &got) != got.blocks || got.blocks > held - mine || la_heap_inherit(a->heap, "heir", NULL, NULL) != 0)
        a->wrong = "an heir does not get what was left to it";
    /* Records of bundles are no block of the model, and gone now. */
    held = 0;
    la_heap_walk(a->heap, count_held, &held);
    if (held != got.blocks + mine)
        a->wrong = "something is held, but was not left to the heir";
}

static void hold_another(struct actor *a)
{
    a->stage->note[1] = (uintptr_t)stage_fill(a, hold(a, 200), 200, LINKED);
}

static void recover(struct actor *a)
{
    if (la_heap_recover(a->heap, NULL, NULL) <= 0)
        stage_fail("nobody to recover");
}

static void holds_much(struct actor *a)
{
    struct la_bundle *bundle;

    neighbours(a);
    for (int i = 0; i < 3; i++) {
        hold(a, 16);
        hold(a, 20000);
        hold(a, LARGE);
    }
    hold(a, RUN);
    a->stage->note[0] = (uintptr_t)stage_root(a, "root");
    link_object(a, (la_link *)a->stage->note[0], 200, LINKED);
    if (la_bundle_begin(a->heap, &bundle) < 0 || !la_bundle_alloc(bundle, 200) || !la_bundle_alloc(bundle, LARGE))
        stage_fail("bundle");
}

static void alloc_adopting(struct actor *a)
{
    alloc_kept(a, SMALL);
    alloc_kept(a, 20000);
    alloc_kept(a, LARGE);
}

/* ---- roots, attach, detach, reset ---- */

static void name_root(struct actor *a)
{
    a->stage->note[0] = (uintptr_t)stage_root(a, "a-new-root");
}

static void root_is_one(struct actor *a)
{
    la_link *root = stage_root(a, "a-new-root"), *again = stage_root(a, "a-new-root");

    if (root != again || atomic_load(root) != NULL || stage_root(a, "another") == root)
        a->wrong = "a root has not one place, or something in it";
}

static void attach(struct actor *a) { stage_attach(a, 0); }

static void detach(struct actor *a)
{
    if (la_heap_detach(a->heap) < 0)
        stage_fail("detach");
}

static void format(struct actor *a)
{
    const char *number = strrchr(a->stage->path, '/') + 1;
    int fd = 0;

    /* The descriptor was inherited. */
    while (*number)
        fd = fd * 10 + *number++ - '0';
    if (la_heap_format(fd, a->stage->heap_size, a->stage->address, "crash") < 0)
        stage_fail("format");
}

static void much_to_reset(struct actor *a)
{
    static const size_t sizes[] = { 16, 200, 20000, LARGE, RUN };
    la_link *root = stage_root(a, "root");

    for (unsigned i = 0; i < 2 * sizeof(sizes) / sizeof(*sizes); i++)
        keep(a, sizes[i / 2], EITHER);
    link_object(a, root, 200, EITHER);
    link_object(a, root, LARGE, EITHER);
}

static void reset(struct actor *a)
{
    if (la_heap_reset(a->heap) < 0)
        stage_fail("reset");
}

/* The epoch of the pages is about to come round to 0: their words have to be cleared. */
static void reset_often(struct actor *a)
{
    much_to_reset(a);
    for (int i = 0; i < 20; i++)
        keep(a, 16, EITHER);    /* with words that nobody writes again */
    for (int i = 0; i < 63; i++)
        reset(a);
    a->stage->tracked_count = 0;
    much_to_reset(a);
}

/* ---- mutex ---- */

static struct object *mutex_ground(struct actor *a)
{
    struct object *object = keep(a, sizeof(struct object) + 16, LIVE);

    a->stage->note[0] = (uintptr_t)object;
    return object;
}

static void prepare_lock(struct actor *a) { mutex_ground(a); }

static void lock(struct actor *a)
{
    int r = la_mutex_lock(a->heap, &((struct object *)a->stage->note[0])->mutex);

    if (r != 0 && r != -EOWNERDEAD)
        stage_fail("lock");
}

static void prepare_unlock(struct actor *a)
{
    mutex_ground(a);
    lock(a);
}

static void unlock(struct actor *a)
{
    if (la_mutex_unlock(a->heap, &((struct object *)a->stage->note[0])->mutex) < 0)
        stage_fail("unlock");
}

static void mutex_can_be_locked(struct actor *a)
{
    struct la_mutex *mutex = &((struct object *)a->stage->note[0])->mutex;
    bool was_locked = atomic_load(&mutex->word) != 0;

    if (la_mutex_lock(a->heap, mutex) != (was_locked ? -EOWNERDEAD : 0) || la_mutex_trylock(a->heap, mutex) != -EDEADLK ||
        la_mutex_unlock(a->heap, mutex) != 0 || la_mutex_lock(a->heap, mutex) != 0 || la_mutex_unlock(a->heap, mutex) != 0)
        a->wrong = "the mutex cannot be locked, or the next one is not told that its holder died";
}

/* ---- queue ---- */

enum { QUEUE_CAPACITY = 3, QUEUE_ROUND = 4 };   /* slots */

static struct la_queue *noted_queue(struct actor *a)
{
    return (struct la_queue *)a->stage->note[3];
}

static void *numbered(struct actor *a, uint32_t number)
{
    struct object *object = stage_fill(a, hold(a, 200), 200, LINKED);

    object->number = number;
    return object;
}

static void queue_push(struct actor *a, void *block)
{
    if (la_queue_push(a->heap, noted_queue(a), block, LA_TRY) != 0)
        stage_fail("queue push");
}

static void *queue_pop(struct actor *a)
{
    void *block;

    if (la_queue_pop(a->heap, noted_queue(a), LA_TRY, &block) != 0)
        stage_fail("queue pop");
    return block;
}

static void create_queue(struct actor *a)
{
    struct la_queue *queue;

    if (la_queue_create(a->heap, "queue", QUEUE_CAPACITY, &queue) < 0)
        stage_fail("queue");
    a->stage->note[3] = (uintptr_t)queue;
}

static void create_new_queue(struct actor *a)
{
    create_queue(a);
    stage_made(a, noted_queue(a), sizeof(struct la_queue));
}

/* With @n objects in it, beginning somewhere in the ring; note[1] is held and has the next number. */
static void filled_queue(struct actor *a, unsigned n, unsigned first)
{
    neighbours(a);
    create_queue(a);
    stage_track(a, noted_queue(a), sizeof(struct la_queue), LINKED);
    for (unsigned i = 0; i < first; i++) {
        queue_push(a, hold(a, 200));
        la_free(queue_pop(a));
    }
    for (uint32_t i = 0; i < n; i++)
        queue_push(a, numbered(a, i + 1));
}

static void queue_with(struct actor *a, unsigned n, unsigned first)
{
    filled_queue(a, n, first);
    a->stage->note[1] = (uintptr_t)numbered(a, n + 1);
}

static void queue_of_0(struct actor *a) { queue_with(a, 0, 0); }
static void queue_of_1(struct actor *a) { queue_with(a, 1, QUEUE_ROUND - 1); }
static void queue_of_2(struct actor *a) { queue_with(a, 2, QUEUE_ROUND + 1); }
static void queue_of_3(struct actor *a) { queue_with(a, 3, 2); }
static void peers_queue(struct actor *a) { filled_queue(a, 3, 2); }

static void push_noted_in_queue(struct actor *a) { queue_push(a, (void *)a->stage->note[1]); }
static void pop_from_queue(struct actor *a) { queue_pop(a); }
static void pop_and_free(struct actor *a) { la_free(queue_pop(a)); }

static void pop_and_push(struct actor *a)
{
    struct object *object = queue_pop(a);

    object->number = 100;
    queue_push(a, object);
}

static void survivor_pops(struct actor *a)
{
    void *block;

    if (la_queue_pop(a->heap, noted_queue(a), LA_TRY, &block) == 0)
        la_free(block);
}

/* As many as fit, also in the place that a dead one left half empty. */
static void survivor_fills_queue(struct actor *a)
{
    struct object *object = numbered(a, 50);

    while (la_queue_push(a->heap, noted_queue(a), object, LA_TRY) == 0)
        object = numbered(a, object->number + 1);
    la_free(object);
    stage_forget(a, object);
}

static void close_queue(struct actor *a)
{
    if (la_queue_close(a->heap, noted_queue(a)) < 0)
        stage_fail("queue close");
}

static void destroy_queue(struct actor *a)
{
    if (la_queue_destroy(a->heap, noted_queue(a)) < 0)
        stage_fail("queue destroy");
}

static void bundle_for_queue(struct actor *a)
{
    struct la_bundle *bundle;

    queue_with(a, 1, QUEUE_ROUND - 1);
    la_free((void *)a->stage->note[1]);
    stage_forget(a, (void *)a->stage->note[1]);
    a->stage->note[0] = (uintptr_t)stage_root(a, "root");
    build_bundle(a, &bundle, 4);
    ((struct object *)a->stage->note[1])->number = 2;
}

static void push_bundle(struct actor *a)
{
    if (la_queue_push_bundle(noted_queue(a), (struct la_bundle *)a->stage->note[2], (void *)a->stage->note[1], LA_TRY) != 0)
        stage_fail("queue push of a bundle");
}

/* Pops everything and goes on holding it, while its publisher is recovered: no part of a bundle may be lost. */
static void survivor_holds_popped(struct actor *a)
{
    struct object *root, *part;
    void *block;

    while (la_queue_pop(a->heap, noted_queue(a), LA_TRY, &block) == 0) {
        root = block;
        stage_change(a, root, PEER_HELD);
        for (part = la_load(a->heap, &root->part); part; part = la_load(a->heap, &part->part))
            stage_change(a, part, LIVE);
    }
}

/* The queue has no object of another, all in their order, and takes and gives as many as it should. What was in it, is in it afterwards. */
static void queue_works(struct actor *a)
{
    struct object *object[2 * QUEUE_CAPACITY];
    struct la_queue *queue;
    unsigned n = 0, in_it;
    uint32_t last = 0;
    void *block;

    if (la_queue_open(a->heap, "queue", &queue) < 0)
        return;
    for (; n < QUEUE_CAPACITY && la_queue_pop(a->heap, queue, LA_TRY, &block) == 0; n++) {
        object[n] = block;
        if (object[n]->number <= last)
            a->wrong = "objects come in another order";
        last = object[n]->number;
    }
    in_it = n;
    if (la_queue_pop(a->heap, queue, LA_TRY, &block) == 0)
        a->wrong = "more objects than the queue takes";
    for (unsigned round = 0; round < QUEUE_ROUND + 1 && !a->wrong; round++) {
        for (n = 0; n <= QUEUE_CAPACITY; n++) {
            int r = la_queue_push(a->heap, queue, block = la_heap_hold(a->heap, 200), LA_TRY);

            if (r == -EPIPE) {      /* closed, and it was empty before */
                la_free(block);
                for (unsigned i = 0; i < in_it; i++)
                    a->wrong = "what was in the closed queue cannot be put back";
                return;
            }
            if (r != (n < QUEUE_CAPACITY ? 0 : -EAGAIN))
                a->wrong = "the queue does not take as much as it should";
            if (r != 0)
                la_free(block);
        }
        for (n = 0; n < QUEUE_CAPACITY && !a->wrong; n++) {
            if (la_queue_pop(a->heap, queue, LA_TRY, &block) != 0)
                a->wrong = "the queue does not give back what it took";
            else
                la_free(block);
        }
    }
    for (unsigned i = 0; i < in_it; i++)
        if (la_queue_push(a->heap, queue, object[i], LA_TRY) != 0)
            a->wrong = "what was in the queue cannot be put back";
}

/* Closed or not, and nothing else. */
static void queue_is_closed_or_not(struct actor *a)
{
    struct la_queue *queue;
    void *block = la_heap_hold(a->heap, 200);
    int r;

    if (la_queue_open(a->heap, "queue", &queue) < 0) {
        la_free(block);
        return;
    }
    r = la_queue_push(a->heap, queue, block, LA_TRY);
    if (r != -EAGAIN && r != -EPIPE && r != 0)
        a->wrong = "a queue that was being closed is neither closed nor open";
    if (r == 0 && (la_queue_pop(a->heap, queue, LA_TRY, &block) != 0))
        a->wrong = "a queue that was being closed took something and does not give it";
    la_free(block);
}

/* Reached or free. */
static void queue_is_there_or_not(struct actor *a)
{
    struct la_queue *queue;

    if (la_queue_open(a->heap, "queue", &queue) < 0 && is_live(a, a->stage->note[3]))
        a->wrong = "a queue without a root";
    queue_works(a);
}

static bool slot_is_full(void *slot)
{
    return atomic_load((_Atomic(uint64_t) *)slot) >> 63;
}

/* The slot names the object, tail does not say so, and its producer is no more. */
static void dies_pushing(struct actor *a)
{
    queue_of_2(a);
    stage_die_when(a, slot_is_full, (void *)&noted_queue(a)->slot[atomic_load(&noted_queue(a)->tail) % QUEUE_ROUND]);
    push_noted_in_queue(a);
}

static void dies_pushing_a_bundle(struct actor *a)
{
    bundle_for_queue(a);
    stage_die_when(a, slot_is_full, (void *)&noted_queue(a)->slot[atomic_load(&noted_queue(a)->tail) % QUEUE_ROUND]);
    push_bundle(a);
}

static struct la_heap *dying;

static bool two_are_left(void *queue)
{
    return la_queue_walk(dying, queue, NULL, NULL) == 2;
}

/* A full queue, whose first slot names a block that its consumer took, who is no more. */
static void dies_popping(struct actor *a)
{
    queue_of_3(a);
    dying = a->heap;
    stage_die_when(a, two_are_left, noted_queue(a));
    pop_from_queue(a);
}

/* The producer stopped at tail is met by the push, not by the pop. */
static void make_room(struct actor *a)
{
    la_free(queue_pop(a));
    a->stage->note[1] = (uintptr_t)numbered(a, 20);
}

static void hold_for_queue(struct actor *a)
{
    a->stage->note[1] = (uintptr_t)numbered(a, 20);
}

/* ---- the list ---- */

const struct scenario scenarios[] = {
    { "alloc-first-ever", 0, .act = alloc_64 },
    { "alloc-16", 0, .prepare = neighbours, .act = alloc_16 },
    { "alloc-64", COMPARED, .prepare = neighbours, .act = alloc_64 },
    { "alloc-20000", 0, .prepare = neighbours, .act = alloc_20000 },
    { "alloc-large", COMPARED, .prepare = neighbours, .act = alloc_large },
    { "alloc-run", 0, RUN_HEAP, .prepare = neighbours, .act = alloc_run },
    { "alloc-aligned", 0, .prepare = neighbours, .act = alloc_aligned },
    { "alloc-page", 0, .prepare = neighbours, .act = alloc_page },
    { "alloc-words", 0, .prepare = fill_words, .act = alloc_words },
    { "alloc-macro", 0, .prepare = fill_macro, .act = alloc_macro },
    { "alloc-dirty-macro", 0, RUN_HEAP, .prepare = dirty_macro, .act = alloc_macro },
    { "hold-64", SAME_AFTER, .prepare = neighbours, .act = hold_64 },
    { "hold-first", SAME_AFTER, .prepare = keep_two, .act = hold_64 },
    { "hold-20000", SAME_AFTER, .prepare = neighbours, .act = hold_20000 },
    { "hold-large", SAME_AFTER, .prepare = neighbours, .act = hold_large },
    { "hold-run", SAME_AFTER | RECOVER_TRACED, RUN_HEAP, .prepare = neighbours, .act = hold_run },
    { "realloc", UNEVEN, .prepare = keep_64, .act = reallocate, .audit = one_of_both },
    { "realloc-large", UNEVEN, .prepare = keep_large, .act = reallocate, .audit = one_of_both },

    { "free-16", 0, .prepare = keep_16, .act = free_noted },
    { "free-64", 0, .prepare = keep_64, .act = free_noted },
    { "free-20000", 0, .prepare = keep_20000, .act = free_noted },
    { "free-large", COMPARED, .prepare = keep_large, .act = free_noted },
    { "free-run", RECOVER_TRACED, RUN_HEAP, .prepare = keep_run, .act = free_noted },
    { "free-held-64", SAME_AFTER, .prepare = prepare_hold_64, .act = free_noted },
    { "free-held-large", SAME_AFTER, .prepare = prepare_hold_large, .act = free_noted },
    { "free-held-run", SAME_AFTER | RECOVER_TRACED, RUN_HEAP, .prepare = prepare_hold_run, .act = free_noted },
    { "free-pages", UNEVEN, .prepare = two_pages, .act = free_pages },
    { "free-macro", 0, .prepare = second_macro, .act = free_macro },

    { "remote-lane-64", 0, .prepare = other_lane_64, .act = free_noted },
    { "remote-lane-held", SAME_AFTER, .prepare = other_lane_holds, .act = free_noted },
    { "remote-lane-large", 0, .prepare = other_lane_large, .act = free_noted },
    { "remote-lane-run", 0, RUN_HEAP, .prepare = other_lane_run, .act = free_noted },
    { "remote-peer-64", 0, 0, { peer_64 }, .prepare = neighbours, .act = free_noted, .resume = owner_gets_it_back },
    { "remote-peer-20000", 0, 0, { peer_20000 }, .prepare = neighbours, .act = free_noted, .resume = owner_gets_it_back },
    { "remote-peer-large", 0, 0, { peer_large }, .prepare = neighbours, .act = free_noted, .resume = owner_gets_it_back },
    { "remote-peer-run", RECOVER_TRACED, RUN_HEAP, { peer_run }, .prepare = neighbours, .act = free_noted, .resume = owner_gets_it_back },
    { "wipe", SAME_AFTER, .prepare = earn_a_wipe, .act = wipe },
    { "thread-ends", SAME_AFTER, .prepare = leave_free_pages, .act = end_thread },
    { "remote-sweep-20000", 0, .prepare = freed_by_others_20000, .act = alloc_page },
    { "remote-sweep-large", 0, .prepare = freed_by_others_large, .act = alloc_macro },

    { "publish", RECOVER_TRACED | COMPARED | NUMBERED, .prepare = publish_ground, .act = publish_noted, .survive = survivor_pushes },
    { "publish-expected-long-ago", 0, .prepare = publish_ground, .act = publish_noted, .survive = survivor_expects_it_elsewhere },
    { "publish-over", RECOVER_TRACED | NUMBERED, .prepare = publish_over_ground, .act = publish_noted, .survive = survivor_pushes },
    { "publish-inner", RECOVER_TRACED | NUMBERED, .prepare = publish_inner_ground, .act = publish_noted },
    { "publish-run", NUMBERED, RUN_HEAP, .prepare = publish_run_ground, .act = publish_noted, .survive = survivor_takes },
    { "publish-refused", SAME_AFTER, .prepare = publish_over_ground, .act = publish_refused },
    { "push", RECOVER_TRACED | COMPARED | NUMBERED, .prepare = push_ground, .act = push_noted, .survive = survivor_takes },
    { "keep", 0, .prepare = prepare_keep, .act = keep_noted },
    { "take", RECOVER_TRACED | COMPARED | NUMBERED, .prepare = take_ground, .act = take_noted, .survive = survivor_takes },
    { "take-last", NUMBERED, .prepare = take_last_ground, .act = take_noted, .survive = survivor_pushes },
    { "take-no-next", NUMBERED, .prepare = take_last_ground, .act = take_no_next, .survive = survivor_pushes },
    { "take-run", NUMBERED, RUN_HEAP, .prepare = take_run_ground, .act = take_and_free, .survive = survivor_takes },
    { "take-free", NUMBERED, .prepare = take_ground, .act = take_and_free, .survive = survivor_takes },

    { "take-peers", RECOVER_TRACED | NUMBERED, 0, { take_ground }, .prepare = neighbours, .act = take_noted, .survive = survivor_takes },
    { "take-peers-free", NUMBERED, 0, { take_ground }, .prepare = neighbours, .act = take_and_free, .survive = survivor_takes },

    { "swap", RECOVER_TRACED | COMPARED | NUMBERED, .prepare = swap_ground, .act = swap_noted, .survive = survivor_swaps, .audit = version_fits },
    { "swap-first", NUMBERED, .prepare = swap_first_ground, .act = swap_noted, .survive = survivor_swaps, .audit = version_fits },
    { "swap-free", NUMBERED, .prepare = swap_ground, .act = swap_and_free, .survive = survivor_takes, .audit = version_fits },
    { "swap-out", NUMBERED, .prepare = swap_ground, .act = swap_out, .survive = survivor_swaps, .audit = version_fits },
    { "swap-peers", RECOVER_TRACED | NUMBERED, 0, { two_versions }, .prepare = third_version, .act = swap_noted, .survive = survivor_swaps,
      .audit = version_fits },
    { "swap-bundle", RECOVER_TRACED | NUMBERED, .prepare = swap_bundle_ground, .act = swap_bundle, .survive = survivor_holds_bundle, .audit = version_fits },

    { "bundle", 0, .prepare = take_ground, .act = whole_bundle, .survive = survivor_pushes },
    { "bundle-publish", RECOVER_TRACED | NUMBERED, .prepare = bundle_of_4, .act = end_bundle, .survive = survivor_holds_bundle },
    { "bundle-publish-70", NUMBERED, .prepare = bundle_of_70, .act = end_bundle, .survive = survivor_takes_bundle },
    { "bundle-over", NUMBERED, .prepare = bundle_over_ground, .act = end_bundle, .survive = survivor_pushes },
    { "bundle-refused", SAME_AFTER | RECOVER_TRACED, .prepare = bundle_of_4, .act = refused_bundle },
    { "bundle-abort", SAME_AFTER, .prepare = bundle_of_4, .act = abort_bundle },

    { "dead-taker-take", KEEPS_DEAD | RECOVER_TRACED, 0, { dies_taking }, true, .act = take_noted, .survive = survivor_takes },
    { "dead-taker-push", KEEPS_DEAD | NUMBERED, 0, { dies_taking }, true, .prepare = hold_another, .act = push_noted, .survive = survivor_takes },
    { "dead-publisher-push", KEEPS_DEAD | RECOVER_TRACED | NUMBERED, 0, { dies_publishing }, true, .prepare = hold_another, .act = push_noted,
      .survive = survivor_pushes },
    { "dead-publisher-take", KEEPS_DEAD, 0, { dies_publishing }, true, .act = take_noted, .survive = survivor_pushes },
    { "dead-bundle-push", KEEPS_DEAD, 0, { dies_publishing_a_bundle }, true, .prepare = hold_another, .act = push_noted,
      .survive = survivor_pushes },

    { "dead-swapper-swap", KEEPS_DEAD, 0, { dies_swapping }, true, .prepare = hold_for_swap, .act = swap_after_the_dead,
      .survive = survivor_swaps, .audit = version_fits },
    { "dead-swapper-late", KEEPS_DEAD, 0, { dies_swapping_late }, true, .prepare = hold_for_swap, .act = swap_after_the_dead,
      .survive = survivor_swaps, .audit = version_fits },
    { "dead-swapper-take", KEEPS_DEAD, 0, { dies_swapping }, true, .act = take_noted, .survive = survivor_takes, .audit = version_fits },

    { "recover-swapper", KEEPS_DEAD | SAME_AFTER | RECOVER_TRACED, 0, { dies_swapping }, true, .act = recover, .survive = survivor_swaps,
      .audit = version_fits },
    { "recover-swapper-late", KEEPS_DEAD | SAME_AFTER, 0, { dies_swapping_late }, true, .act = recover, .survive = survivor_swaps, .audit = version_fits },
    { "recover-taker", KEEPS_DEAD | SAME_AFTER | RECOVER_TRACED, 0, { dies_taking }, true, .act = recover, .survive = survivor_takes },
    { "recover-publisher", KEEPS_DEAD | SAME_AFTER | RECOVER_TRACED, 0, { dies_publishing }, true, .act = recover, .survive = survivor_pushes },
    { "recover-bundle", KEEPS_DEAD | SAME_AFTER | RECOVER_TRACED, 0, { dies_publishing_a_bundle }, true, .act = recover,
      .survive = survivor_pushes },
    { "recover-holder", KEEPS_DEAD | SAME_AFTER, RUN_HEAP, { holds_much }, true, .act = recover, .survive = survivor_takes },
    { "recover-three", STORES_ONLY | KEEPS_DEAD | SAME_AFTER, RUN_HEAP, { holds_much, dies_taking, dies_taking }, true, .act = recover },
    { "adopt", 0, 0, { neighbours }, true, .act = alloc_adopting },

    { "heir-publish", NUMBERED, .prepare = publish_with_heir, .act = publish_noted, .survive = survivor_takes_left, .audit = heir_gets_it },
    { "heir-take", NUMBERED, .prepare = take_with_heir, .act = take_noted, .audit = heir_gets_it },
    { "heir-bundle", NUMBERED, .prepare = bundle_with_heir, .act = end_bundle, .audit = heir_gets_it },
    { "heir-free-run", 0, RUN_HEAP, .prepare = run_with_heir, .act = free_noted, .audit = heir_gets_it },
    { "heir-recover", KEEPS_DEAD | SAME_AFTER | RECOVER_TRACED, RUN_HEAP, { leaves_much }, true, .act = recover, .audit = heir_gets_it },
    { "inherit", 0, RUN_HEAP, { leaves_much }, true, .prepare = nobody_inherits, .act = inherit, .audit = heir_gets_it },
    { "inherit-and-leave", SAME_AFTER, RUN_HEAP, { leaves_much }, true, .prepare = set_heir, .act = inherit, .audit = heir_gets_it },
    { "set-heir", SAME_AFTER, .prepare = neighbours, .act = set_heir },

    { "queue-create", 0, .prepare = neighbours, .act = create_new_queue, .audit = queue_is_there_or_not },
    { "queue-push", RECOVER_TRACED | COMPARED | NUMBERED, .prepare = queue_of_0, .act = push_noted_in_queue, .survive = survivor_pops, .audit = queue_works },
    { "queue-push-last", RECOVER_TRACED | NUMBERED, .prepare = queue_of_2, .act = push_noted_in_queue, .survive = survivor_fills_queue, .audit = queue_works },
    { "queue-push-bundle", RECOVER_TRACED | NUMBERED, .prepare = bundle_for_queue, .act = push_bundle, .survive = survivor_holds_popped, .audit = queue_works },
    { "queue-pop", RECOVER_TRACED | COMPARED | NUMBERED, .prepare = queue_of_3, .act = pop_from_queue, .survive = survivor_pops, .audit = queue_works },
    { "queue-pop-peers", RECOVER_TRACED | NUMBERED, 0, { peers_queue }, .prepare = neighbours, .act = pop_from_queue, .survive = survivor_pops,
      .audit = queue_works },
    { "queue-pop-last", RECOVER_TRACED | NUMBERED, .prepare = queue_of_1, .act = pop_and_free, .survive = survivor_fills_queue, .audit = queue_works },
    { "queue-pop-push", UNEVEN | SAME_AFTER, .prepare = queue_of_2, .act = pop_and_push, .survive = survivor_holds_popped, .audit = queue_works },
    { "queue-close", SAME_AFTER, .prepare = queue_of_3, .act = close_queue, .audit = queue_is_closed_or_not },
    { "queue-destroy", 0, .prepare = queue_of_0, .act = destroy_queue, .audit = queue_is_closed_or_not },
    { "queue-dead-producer-push", KEEPS_DEAD, 0, { dies_pushing }, true, .prepare = make_room, .act = push_noted_in_queue,
      .survive = survivor_fills_queue, .audit = queue_works },
    { "queue-dead-producer-pop", KEEPS_DEAD, 0, { dies_pushing }, true, .act = pop_from_queue, .survive = survivor_pops, .audit = queue_works },
    { "queue-dead-consumer-push", KEEPS_DEAD, 0, { dies_popping }, true, .prepare = hold_for_queue, .act = push_noted_in_queue,
      .survive = survivor_pops, .audit = queue_works },
    { "queue-dead-consumer-pop", KEEPS_DEAD, 0, { dies_popping }, true, .act = pop_from_queue, .survive = survivor_fills_queue, .audit = queue_works },
    { "queue-recover-producer", KEEPS_DEAD | SAME_AFTER | RECOVER_TRACED, 0, { dies_pushing }, true, .act = recover, .survive = survivor_pops,
      .audit = queue_works },
    { "queue-recover-bundle", KEEPS_DEAD | SAME_AFTER | RECOVER_TRACED, 0, { dies_pushing_a_bundle }, true, .act = recover,
      .survive = survivor_holds_popped, .audit = queue_works },
    { "queue-recover-consumer", KEEPS_DEAD | SAME_AFTER | RECOVER_TRACED, 0, { dies_popping }, true, .act = recover,
      .survive = survivor_fills_queue, .audit = queue_works },

    { "root", SAME_AFTER, .act = name_root, .audit = root_is_one },
    { "attach", ATTACHES | NEEDS_STEPS | SAME_AFTER, .act = attach },
    { "attach-dead-slot", LONG | ATTACHES | NEEDS_STEPS | SAME_AFTER, RUN_HEAP, { holds_much }, true, .act = attach },
    { "detach", SAME_AFTER, RUN_HEAP, .prepare = holds_much, .act = detach },
    { "format", ATTACHES | NEEDS_STEPS | SAME_AFTER | UNFORMATTED, .act = format },
    { "reset", 0, RUN_HEAP, .prepare = much_to_reset, .act = reset },
    { "reset-wrap", 0, RUN_HEAP, .prepare = reset_often, .act = reset },

    { "mutex-lock", SAME_AFTER, .prepare = prepare_lock, .act = lock, .audit = mutex_can_be_locked },
    { "mutex-unlock", SAME_AFTER, .prepare = prepare_unlock, .act = unlock, .audit = mutex_can_be_locked },
    { "mutex-owner-dead", KEEPS_DEAD | SAME_AFTER, 0, { prepare_unlock }, true, .act = lock, .audit = mutex_can_be_locked },
};

const unsigned scenario_count = sizeof(scenarios) / sizeof(*scenarios);
