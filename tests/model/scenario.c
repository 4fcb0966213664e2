/*
 * scenario.c - programs for lanes, and what must be true of the heap while they run and are killed.
 *
 * One heap, one list head in it ("root"), up to three lanes. In the library's eyes each lane belongs to a process of its own (slots
 * 200, 201, 202), so that each can die alone; two more actors recover the dead, one after the other (or both at once, if the scenario says so), and may
 * be killed as well.
 *
 * A program is a string:
 *   +  (at the start) the lane has a held block in its hands     h  la_heap_hold()          f  la_free()
 *   p  la_push() to the root    t  la_take() from the root       k  la_keep(), then la_free()
 *   v  la_root_swap() in place of what the root points to, which is in its hands then    x  the same, and nothing in its place
 *   w  like v, but it tries once
 *   r  la_root_read(): the object is of the version that it was put there with
 *   s  la_publish() in place of what the root points to, which is freed when that went well
 *   *  (at the start) the lane has a bundle of a root and two more blocks                     b  la_bundle_publish() on top of the root
 *   P  la_queue_push() of what it has in its hands, if there is room                          G  la_queue_pop(), if there is something
 *   l  la_mutex_trylock(), and if it is ours: a step inside, la_mutex_unlock()
 *   L  (at the start) the lane is lent when it is needed first: maybe one that a dead process had
 *   .  nothing, but it may be killed there
 * scenario_heirs.c and scenario_notices.c have more. A letter whose block is not there (an empty list) does nothing.
 *
 * Checked after every step:
 *   M1  a state word changes only as shared_layout.h allows: who, from what to what; its generation moves with each free, take and inheriting
 *   M2  the root and every link on the list lead to blocks that are neither free, held nor in doubt, but for what the lane of a mark has
 *   M3  what la_take() and la_queue_pop() return was pushed, and not taken since; of one lane's pushes what another one pops is in their order
 * At every end (all lanes done or dead, the dead recovered):
 *   M4  each block is free, or on the list once, or in the hands of one living lane, who holds it, or left to an heir; a bundle's blocks go with their root
 *   M5  what was pushed and not taken is on the list; only the one operation in which a lane was killed may have happened or not
 *       and the root has the version of what it points to: as many as swaps have happened
 *       and what is in the queue is in the order in which each lane pushed it
 *   M6  no intent, no mark, no block in doubt is left; nothing was reported as misuse; la_heap_fsck() finds nothing
 * M8 to M10: scenario_heirs.c, scenario_notices.c. Over the whole graph of states:
 *   M7  nobody waits: from every state each lane alone, all others stopped, is done within a bounded number of its own steps
 */
#include "scenario.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <liballoc/error.h>
#include <liballoc/queue.h>

#include "base/error.h"
#include "core/shared.h"
#include "explore.h"
#include "scene.h"

enum { INNER = 2, CHAIN_LIMIT = 16, SOLO_LIMIT = 2000 };

struct node {
    la_link next;
    uint64_t id;
    uint64_t version;       /* of the root when the node was put there by la_root_swap(); 0: it was not */
    struct node *inner[INNER];
    uint64_t producer, order;   /* in the queue: whose push it was, and which one of its pushes */
};

const struct scenario *scene;
struct watched watched[MAX_WATCHED];
unsigned watched_count;

static struct la_heap *heap;
static la_link *root;
static struct la_mutex *mutex;
static struct la_queue *queue;
static struct la_bundle *bundle[LANES];

/* ---- blocks ---- */

struct watched *watched_at(const void *block)
{
    for (unsigned i = 0; i < watched_count; i++)
        if (watched[i].ref.start == block)
            return &watched[i];
    return NULL;
}

word_t word_now(const struct watched *w)
{
    return atomic_load_explicit(w->ref.word, memory_order_relaxed);
}

enum word_state state_now(const struct watched *w)
{
    return word_state(word_now(w), w->ref.epoch);
}

static const char *state_name(enum word_state state)
{
    static const char *const names[] = { "FREE", "HELD", "IN_DOUBT", "HEAP" };

    return names[state];
}

static void word_text(word_t w, unsigned epoch, char *text, size_t size)
{
    snprintf(text, size, "%s lane %u generation %u", state_name(word_state(w, epoch)), word_lane(w), word_generation(w));
}

unsigned block_number(const void *block)
{
    const struct watched *w = watched_at(block);

    return w ? (unsigned)(w - watched) : 999;
}

/* All blocks of the pages that the lanes have at the start. */
static void watch_page(uint32_t macro, unsigned slice)
{
    slice_t page = atomic_load(&heap->slices[macro * SLICES_PER_MACRO + slice].page);
    char *start = heap->payload + (size_t)macro * MACRO_SIZE + slice * SLICE_SIZE;
    struct block_ref ref;
    size_t n;

    if (slice_kind(page) != SLICE_SMALL || !block_find(heap, start, &ref))
        return;
    n = slice_count(page) * SLICE_SIZE / ref.size;
    for (size_t i = 0; i < n; i++, ref.start += ref.size, ref.word++)
        if (ref.start != (char *)mutex && ref.start != (char *)queue && watched_count < MAX_WATCHED &&
            (ref.size >= NODE_SIZE || word_state(atomic_load(ref.word), ref.epoch) != WORD_FREE))
            watched[watched_count++].ref = ref;
}

static void watch_blocks(void)
{
    watched_count = 0;
    for (uint32_t m = 0; m < heap->macro_count; m++)
        for (unsigned s = 0; owner_state(atomic_load(&heap->macros[m].owner)) != OWNER_NONE && s < SLICES_PER_MACRO; s++)
            watch_page(m, s);
}

/* ---- the books ---- */

unsigned lane_number(int actor)
{
    const struct lane *lane = actor == machine_current ? heap_lane_if_any(heap) : me(actor)->lane;

    return lane ? lane->number : 0;
}

static void *top(int actor)
{
    return me(actor)->hands ? me(actor)->hand[me(actor)->hands - 1] : NULL;
}

void put_in_hand(int actor, void *block)
{
    struct actor *a = me(actor);

    if (a->hands == HANDS)
        violate("scenario: more than %d blocks in the hands of %s", HANDS, actor_name(actor));
    else
        a->hand[a->hands++] = block;
}

void put_alone_in_hand(int actor, void *block)
{
    struct node *node = block;

    node->inner[0] = node->inner[1] = NULL;
    node->version = 0;
    put_in_hand(actor, node);
}

static void *drop_from_hand(int actor)
{
    struct actor *a = me(actor);
    void *block = top(actor);

    if (block)
        a->hand[--a->hands] = NULL;
    return block;
}

/* An id that no object on the list has; lanes have 16 each, the first objects the last 16. */
static uint64_t fresh_id(int actor)
{
    for (unsigned id = 16u * (unsigned)actor; id < 16u * (unsigned)actor + 16; id++)
        if (!(world.outside >> id & 1))
            return id;
    violate("scenario: more than 16 objects of %s on the list", actor_name(actor));
    return 0;
}

static void book_pushing(int actor, struct node *node)
{
    node->id = fresh_id(actor);
    me(actor)->id = (uint8_t)node->id;
    world.outside |= 1ull << node->id;
}

static void book_pushed(int actor)
{
    me(actor)->id = NO_ID;
    me(actor)->doing = DOING_NOTHING;
}

static void book_unpushed(int actor, struct node *node)
{
    world.outside &= ~(1ull << node->id);
    node->version = 0;
    book_pushed(actor);
}

static void book_taken(int actor, const struct node *node)
{
    if (node->id >= IDS || !(world.outside >> node->id & 1))
        violate("%s took object %" PRIu64 ", which is not on the list: taken twice, or never pushed (M3)", actor_name(actor), node->id);
    else
        world.outside &= ~(1ull << node->id);
}

/* ---- programs ---- */

static void do_hold(int actor)
{
    struct node *node = shared_alloc(&heap->face[LA_HELD], NODE_SIZE, 0);

    if (!node) {
        violate("%s got no memory: %s", actor_name(actor), la_last_error());
        return;
    }
    node->inner[0] = node->inner[1] = NULL;
    node->version = 0;
    put_in_hand(actor, node);
}

static void do_push(int actor)
{
    struct node *node = top(actor);
    int r;

    if (!node)
        return;
    me(actor)->doing = DOING_PUSH;
    node->version = 0;
    book_pushing(actor, node);
    r = la_push(heap, root, node, offsetof(struct node, next));
    if (r < 0)
        violate("%s: la_push() returned %d: %s", actor_name(actor), r, la_last_error());
    drop_from_hand(actor);
    book_pushed(actor);
}

static void do_take(int actor)
{
    struct node *node;

    me(actor)->doing = DOING_TAKE;
    la_fail(0, "%s", "");
    node = la_take(heap, root, offsetof(struct node, next));
    if (node) {
        book_taken(actor, node);
        put_in_hand(actor, node);
    } else if (la_last_error_code() < 0) {
        violate("%s: la_take() failed: %s", actor_name(actor), la_last_error());
    }
    me(actor)->doing = DOING_NOTHING;
}

static void do_queue_push(int actor)
{
    struct node *node = top(actor);
    int r;

    if (!node)
        return;
    me(actor)->doing = DOING_PUSH;
    node->producer = (uint64_t)actor;
    node->order = world.pushes[actor] + 1u;
    book_pushing(actor, node);
    r = la_queue_push(heap, queue, node, LA_TRY);
    if (r == -EAGAIN) {
        book_unpushed(actor, node);
        return;
    }
    if (r < 0)
        violate("%s: la_queue_push() returned %d: %s", actor_name(actor), r, la_last_error());
    world.pushes[actor]++;
    drop_from_hand(actor);
    book_pushed(actor);
}

static void do_queue_pop(int actor)
{
    struct node *node;
    void *block;
    int r;

    me(actor)->doing = DOING_TAKE;
    r = la_queue_pop(heap, queue, LA_TRY, &block);
    if (r == 0) {
        node = block;
        book_taken(actor, node);
        put_in_hand(actor, node);
        if (node->producer < LANES && node->order <= world.popped[actor][node->producer])
            violate("%s popped push %" PRIu64 " of L%" PRIu64 " after a later one (M3)", actor_name(actor), node->order, node->producer + 1);
        else if (node->producer < LANES)
            world.popped[actor][node->producer] = (uint8_t)node->order;
    } else if (r != -EAGAIN) {
        violate("%s: la_queue_pop() returned %d: %s", actor_name(actor), r, la_last_error());
    }
    me(actor)->doing = DOING_NOTHING;
}

static void do_free(int actor)
{
    struct node *node = top(actor);

    for (unsigned i = 0; node && i < INNER; i++)
        if (node->inner[i])
            la_free(node->inner[i]);
    if (node)
        la_free(node);
    drop_from_hand(actor);
}

static void do_keep(int actor)
{
    void *block = top(actor);

    if (block && la_keep(heap, block) < 0)
        violate("%s: la_keep(): %s", actor_name(actor), la_last_error());
    do_free(actor);
}

/* Replaces what the root points to, as a new version of a table does. The old one is ours then, in state HEAP. */
static void do_swap(int actor)
{
    struct node *node = top(actor), *old = NULL;
    int r = -EAGAIN;

    if (!node)
        return;
    node->next = NULL;
    me(actor)->doing = DOING_SWAP;
    book_pushing(actor, node);
    while (r == -EAGAIN) {
        old = la_load(heap, root);
        r = la_publish(heap, root, old, node);
    }
    if (r < 0)
        violate("%s: la_publish() returned %d: %s", actor_name(actor), r, la_last_error());
    drop_from_hand(actor);
    if (old) {
        book_taken(actor, old);
        put_in_hand(actor, old);
        do_free(actor);
    }
    book_pushed(actor);
}

/* Of the same instant, as no step of another lane comes between the last look of la_root_read() and ours. */
static struct node *read_root(int actor, uint64_t *version)
{
    void *value;
    struct node *node;

    if (la_root_read(heap, root, &value, version) < 0)
        violate("%s: la_root_read(): %s", actor_name(actor), la_last_error());
    node = value;
    if (node && node->version && node->version != *version)
        violate("%s read version %" PRIu64 " of the root with the object of version %" PRIu64 " (M5)", actor_name(actor), *version, node->version);
    return node;
}

static void do_read(int actor)
{
    uint64_t version;

    read_root(actor, &version);
}

/* @node NULL: nothing comes in the place of what is there. */
static void exchange(int actor, struct node *node, bool once)
{
    uint64_t version;
    void *old = NULL;
    int r;

    me(actor)->doing = DOING_EXCHANGE;
    if (node) {
        node->next = NULL;
        book_pushing(actor, node);
    }
    do {
        read_root(actor, &version);
        if (node)
            node->version = version + 1;
        r = la_root_swap(heap, root, version, node, &old);
    } while (r == -EAGAIN && !once);
    if (r == -EAGAIN) {
        book_unpushed(actor, node);
        return;
    }
    if (r < 0)
        violate("%s: la_root_swap() returned %d: %s", actor_name(actor), r, la_last_error());
    if (node)
        drop_from_hand(actor);
    if (old) {
        book_taken(actor, old);
        put_in_hand(actor, old);
    }
    world.exchanged += old || node;
    book_pushed(actor);
}

static void do_exchange(int actor, bool once)
{
    if (top(actor))
        exchange(actor, top(actor), once);
}

static void do_bundle(int actor)
{
    struct node *node = top(actor);
    int r = -EAGAIN;

    me(actor)->doing = DOING_PUSH;
    book_pushing(actor, node);
    while (r == -EAGAIN) {
        struct node *old = la_load(heap, root);

        node->next = old;
        r = la_bundle_publish(bundle[actor], root, old, node);
    }
    if (r < 0)
        violate("%s: la_bundle_publish() returned %d: %s", actor_name(actor), r, la_last_error());
    drop_from_hand(actor);
    book_pushed(actor);
}

static void do_lock(int actor)
{
    int r = la_mutex_trylock(heap, mutex);

    if (r == -EBUSY)
        return;
    if (r != 0 && r != -EOWNERDEAD)
        violate("%s: la_mutex_trylock() returned %d: %s", actor_name(actor), r, la_last_error());
    for (int i = 0; i < LANES; i++)
        if (i != actor && world.inside == i + 1 && world.actor[i].state != ACTOR_DEAD)
            violate("%s and %s are inside the mutex", actor_name(actor), actor_name(i));
    if ((r == -EOWNERDEAD) != (world.inside != 0))
        violate("%s got the mutex with %d although %s", actor_name(actor), r, world.inside ? "its holder died inside" : "nobody died inside");
    world.inside = (uint8_t)(actor + 1);
    machine_pause();
    if (la_mutex_unlock(heap, mutex) < 0)
        violate("%s: la_mutex_unlock(): %s", actor_name(actor), la_last_error());
    world.inside = 0;
}

static void run_letter(int actor, char letter)
{
    unsigned hands = me(actor)->hands;

    if (heir_run_letter(actor, letter) || notice_run_letter(actor, letter))
        return;
    switch (letter) {
    case 'h': do_hold(actor); break;
    case 'p': do_push(actor); break;
    case 't': do_take(actor); break;
    case 'f': do_free(actor); break;
    case 'k': do_keep(actor); break;
    case 's': do_swap(actor); break;
    case 'b': do_bundle(actor); break;
    case 'v': do_exchange(actor, false); break;
    case 'w': do_exchange(actor, true); break;
    case 'x': exchange(actor, NULL, false); break;
    case 'r': do_read(actor); break;
    case 'P': do_queue_push(actor); break;
    case 'G': do_queue_pop(actor); break;
    case 'l': do_lock(actor); break;
    case '.': machine_pause(); break;
    default: break;     /* + and * were done at the start */
    }
    if (strchr("ptPG", letter) && me(actor)->hands != hands)
        notice_operation_happened(actor);
}

/* ---- death and recovery ---- */

/* And nobody has its certificate byte. */
static bool slot_waits(unsigned lane)
{
    return world.actor[lane].state == ACTOR_DEAD && !world.recovered_by[lane] &&
           (uint32_t)atomic_load(&heap->processes[FIRST_SLOT + lane].state) != PROCESS_FREE;
}

static bool somebody_waits(void)
{
    for (unsigned i = 0; i < scene->lanes; i++)
        if (slot_waits(i))
            return true;
    return false;
}

/* Each with the certificate byte of its slot, which is the recoverer's until it is done or killed. */
static void recover(int actor)
{
    for (unsigned i = 0; i < scene->lanes; i++)
        if (slot_waits(i)) {
            struct la_obituary obituary;

            world.recovered_by[i] = (uint8_t)(actor + 1);
            /* Else what the other one does would never be learnt. */
            if (scene->recoverers_meet)
                machine_pause();
            heap_recover_process(heap, FIRST_SLOT + i, &obituary);
            world.recovered_by[i] = 0;
        }
}

bool model_process_is_alive(struct la_heap *of, unsigned slot)
{
    (void)of;
    return slot - FIRST_SLOT < LANES && world.actor[slot - FIRST_SLOT].state != ACTOR_DEAD;
}

static void program(int actor)
{
    if (actor >= LANES) {
        recover(actor);
        return;
    }
    for (const char *p = scene->program[actor]; *p; p++) {
        run_letter(actor, *p);
        if (violation[0])
            return;
    }
}

/* ---- who can do what ---- */

static bool can_step(int actor)
{
    const struct actor *a = me(actor);

    if (a->state == ACTOR_RUNNING)
        return true;
    if (a->state != ACTOR_IDLE)
        return false;
    if (actor < LANES)
        return (unsigned)actor < scene->lanes;
    /* The second one only when the first was killed, or is at work. */
    return somebody_waits() && (actor == LANES || world.actor[actor - 1].state == ACTOR_DEAD ||
                                (scene->recoverers_meet && world.actor[actor - 1].state == ACTOR_RUNNING));
}

static bool can_kill(int actor)
{
    if (me(actor)->state != ACTOR_RUNNING)
        return false;
    return actor < LANES ? world.kills > 0 && strchr(scene->mortal, '1' + actor) : world.recoverer_kills > 0;
}

static void kill_actor(int actor)
{
    if (actor < LANES) {
        world.kills--;
        machine_kill(actor);
        heir_note_kill(actor);
        return;
    }
    world.recoverer_kills--;
    for (unsigned i = 0; i < LANES; i++)
        if (world.recovered_by[i] == actor + 1)
            world.recovered_by[i] = 0;
    machine_kill(actor);
}

/* ---- M1: how a word may change ---- */

#define MARK ((uintptr_t)1 << 63)

static unsigned mark_lane(uintptr_t value)
{
    return value >> 51 & (HEAP_LANES - 1);
}

/* What was in doubt is settled while its lane's mark is there: it says that the block is published. In a queue the slot says so. */
static bool may_be_settled(unsigned lane)
{
    uintptr_t value = (uintptr_t)atomic_load_explicit(root, memory_order_relaxed);

    return scene->queue || (value & MARK && mark_lane(value) == lane);
}

static bool may_change(int actor, word_t from, word_t to, unsigned epoch)
{
    enum word_state old = word_state(from, epoch), new = word_state(to, epoch);
    unsigned moved = (word_generation(to) - word_generation(from)) & ((1u << WORD_GENERATION_BITS) - 1);
    unsigned lane = word_lane(from), mine = actor < LANES ? lane_number(actor) : 0;
    bool same_lane = lane == word_lane(to);

    if (moved > 1)
        return false;
    if (heir_may_change(actor, from, to, epoch))
        return true;
    if (moved == 1)     /* freed or taken */
        return new == WORD_FREE ? old != WORD_FREE : new == WORD_HELD && (old == WORD_HEAP || old == WORD_IN_DOUBT);
    switch (old) {
    case WORD_FREE: return (new == WORD_HELD && word_lane(to) == mine) || new == WORD_HEAP;
    case WORD_HELD: return (new == WORD_IN_DOUBT && same_lane && lane == mine) || new == WORD_HEAP;
    case WORD_IN_DOUBT: return (new == WORD_HELD && same_lane && lane == mine) || (new == WORD_HEAP && may_be_settled(lane));
    /* A bundle whose root was not published takes its blocks back; who publishes it, or recovers it, has it alone. */
    case WORD_HEAP: return new == WORD_HELD && scene->bundles && (word_lane(to) == mine || actor >= LANES);
    }
    return false;
}

static void check_word(int actor, const volatile void *at, uint32_t from, uint32_t to)
{
    for (unsigned i = 0; i < watched_count; i++) {
        const struct watched *w = &watched[i];
        char old[64], new[64];

        if (at != (const volatile void *)w->ref.word)
            continue;
        if (may_change(actor, from, to, w->ref.epoch)) {
            heir_note_change(i, from, to);
            continue;
        }
        word_text(from, w->ref.epoch, old, sizeof(old));
        word_text(to, w->ref.epoch, new, sizeof(new));
        violate("%s changed b%u from %s to %s (M1)", actor_name(actor), i, old, new);
    }
}

static void after_step(int actor)
{
    struct actor *a = me(actor);

    if (actor >= LANES && a->state == ACTOR_DONE && a->stores == 0)
        a->state = ACTOR_IDLE;
    notice_check_step();
}

/* ---- M2: links ---- */

/* The mark of a swap that finds nothing to be replaced. */
static bool is_mark_of_nothing(uintptr_t value)
{
    const struct heap_lane *lane = &heap->lane_table[mark_lane(value)];

    return value & MARK && atomic_load(&lane->op) == INTENT_SWAP && atomic_load(&lane->block) == 0;
}

/* Where a link leads, whose lane has marked it (0: nobody). */
static const struct watched *follow(uintptr_t value, unsigned *lane)
{
    *lane = value & MARK ? mark_lane(value) : 0;
    return watched_at(value & MARK ? heap->base + atomic_load(&heap->lane_table[*lane].block) : (char *)value);
}

/* Not marked: nobody holds or publishes it. Marked: the lane that marked it may. */
static bool may_be_linked(const struct watched *w, unsigned lane)
{
    switch (state_now(w)) {
    case WORD_FREE: return false;
    case WORD_HELD:
    case WORD_IN_DOUBT: return lane && word_lane(word_now(w)) == lane;
    case WORD_HEAP: return true;
    }
    return false;
}

static void check_state(void)
{
    uintptr_t value = (uintptr_t)atomic_load_explicit(root, memory_order_relaxed);
    const char *from = "the root";

    for (unsigned i = 0; value && i < CHAIN_LIMIT; i++) {
        unsigned lane;
        const struct watched *w = follow(value, &lane);

        if (is_mark_of_nothing(value))
            return;
        if (!w) {
            violate("%s points to %#" PRIxPTR ", which is no block (M2)", from, value);
            return;
        }
        if (!may_be_linked(w, lane)) {
            char text[64];

            word_text(word_now(w), w->ref.epoch, text, sizeof(text));
            violate("%s points to b%u%s, which is %s (M2)", from, block_number(w->ref.start), lane ? " by a mark" : "", text);
            return;
        }
        value = (uintptr_t)atomic_load_explicit(&((struct node *)w->ref.start)->next, memory_order_relaxed);
        from = "a link on the list";
    }
}

/* ---- M4 to M6: what is left ---- */

struct count {
    uint8_t listed[MAX_WATCHED], in_hand[MAX_WATCHED];
    unsigned holder[MAX_WATCHED];   /* the number of the lane in whose hands it is */
    uint64_t ids;
    unsigned replaced;      /* blocks that a lane killed in a swap may have left without a link: theirs to lose */
};

static void count_block(const void *block, uint8_t *counts, const char *where)
{
    unsigned n = block_number(block);

    if (n >= watched_count)
        violate("%s: %p is no block (M4)", where, block);
    else if (counts[n]++)
        violate("%s: b%u is there twice (M4)", where, n);
}

static void count_node(const struct node *node, uint8_t *counts, const char *where)
{
    count_block(node, counts, where);
    for (unsigned i = 0; i < INNER && !violation[0]; i++)
        if (node->inner[i])
            count_block(node->inner[i], counts, where);
}

static void count_list(struct count *count)
{
    uintptr_t value = (uintptr_t)atomic_load(root);

    while (value && !violation[0]) {
        const struct node *node = (void *)value;

        if (value & MARK) {
            violate("the mark of lane %u is left on a link (M6)", mark_lane(value));
            return;
        }
        count_node(node, count->listed, "on the list");
        if (!violation[0]) {
            count->ids |= 1ull << node->id;
            value = (uintptr_t)node->next;
        }
    }
}

struct queued {
    struct count *count;
    uint64_t order[LANES];
};

static void count_queued(void *user, void *block)
{
    struct queued *queued = user;
    const struct node *node = block;

    count_node(node, queued->count->listed, "in the queue");
    if (violation[0])
        return;
    queued->count->ids |= 1ull << node->id;
    if (node->producer < LANES && node->order <= queued->order[node->producer])
        violate("push %" PRIu64 " of L%" PRIu64 " is in the queue behind a later one (M5)", node->order, node->producer + 1);
    else if (node->producer < LANES)
        queued->order[node->producer] = node->order;
}

static void count_queue(struct count *count)
{
    struct queued queued = { .count = count };

    if (queue && la_queue_walk(heap, queue, count_queued, &queued) < 0)
        violate("la_queue_walk(): %s", la_last_error());
}

static void check_block(unsigned n, struct count *count)
{
    const struct watched *w = &watched[n];
    enum word_state state = state_now(w);
    bool fine = false;
    char text[64];

    switch (state) {
    case WORD_FREE: fine = !count->listed[n] && !count->in_hand[n]; break;
    case WORD_HELD:
        fine = !count->listed[n] && (count->in_hand[n] ? word_lane(word_now(w)) == count->holder[n] : heir_has_left(w));
        break;
    case WORD_IN_DOUBT: break;
    case WORD_HEAP: fine = count->listed[n] + count->in_hand[n] == 1; break;
    }
    if (fine)
        return;
    if (state == WORD_HEAP && count->listed[n] + count->in_hand[n] == 0 && count->replaced) {
        count->replaced--;
        return;
    }
    word_text(word_now(w), w->ref.epoch, text, sizeof(text));
    violate("at the end b%u is %s, %s the list, in %s hands (M4)", n, text, count->listed[n] ? "on" : "not on",
            count->in_hand[n] ? "a lane's" : "nobody's");
}

static void check_ids(uint64_t listed)
{
    uint64_t maybe = 0;
    unsigned lost = 0, allowed = 0;

    for (int i = 0; i < LANES; i++) {
        const struct actor *a = me(i);

        if (a->state != ACTOR_DEAD)
            continue;
        if (a->id < IDS)
            maybe |= 1ull << a->id;
        if (a->doing == DOING_TAKE || a->doing == DOING_SWAP || a->doing == DOING_EXCHANGE)
            allowed++;
    }
    if (listed & ~world.outside)
        violate("objects %#" PRIx64 " are on the list, but were taken (M5)", listed & ~world.outside);
    lost = (unsigned)__builtin_popcountll(world.outside & ~listed & ~maybe);
    if (lost > allowed)
        violate("objects %#" PRIx64 " were pushed and not taken, but are not on the list (M5)", world.outside & ~listed & ~maybe);
}

static void check_version(void)
{
    unsigned maybe = 0;
    uint64_t version;

    read_root(0, &version);
    for (int i = 0; i < LANES; i++)
        maybe += me(i)->state == ACTOR_DEAD && me(i)->doing == DOING_EXCHANGE;
    if (version < world.exchanged || version > world.exchanged + maybe)
        violate("the root has version %" PRIu64 " after %u swaps (M5)", version, world.exchanged);
}

static void print_finding(void *user, const char *line)
{
    (void)user;
    violate("fsck: %s (M6)", line);
}

static void check_intents(void)
{
    for (unsigned i = 0; i < scene->lanes; i++) {
        uint32_t op = atomic_load(&heap->lane_table[lane_number((int)i)].op);

        if (op != INTENT_NONE)
            violate("the intent %u of %s is left (M6)", op, actor_name((int)i));
    }
}

static void count_hands(struct count *count)
{
    for (int i = 0; i < (int)scene->lanes; i++)
        for (unsigned h = 0; me(i)->state != ACTOR_DEAD && h < me(i)->hands && !violation[0]; h++) {
            const struct node *node = me(i)->hand[h];

            count_node(node, count->in_hand, "in a lane's hands");
            if (violation[0])
                return;
            count->holder[block_number(node)] = lane_number(i);
            for (unsigned n = 0; n < INNER; n++)
                if (node->inner[n])
                    count->holder[block_number(node->inner[n])] = lane_number(i);
        }
}

static void check_end(void)
{
    struct count count = { 0 };

    count_list(&count);
    count_queue(&count);
    for (int i = 0; i < LANES; i++)
        count.replaced += me(i)->state == ACTOR_DEAD && me(i)->doing == DOING_SWAP;
    count_hands(&count);
    for (unsigned n = 0; n < watched_count && !violation[0]; n++)
        check_block(n, &count);
    if (violation[0])
        return;
    check_ids(count.ids);
    check_intents();
    check_version();
    heir_check_end();
    notice_check_end(count.ids);
    if (la_heap_fsck(heap, print_finding, NULL, NULL) != 0)
        violate("la_heap_fsck() failed (M6)");
    if (atomic_load(&heap->header->quarantined))
        violate("the heap is quarantined (M6)");
}

/* ---- names for the log ---- */

static bool name_lane_field(const char *at, char *text, size_t size)
{
    static const struct {
        size_t offset;
        const char *name;
    } fields[] = {
        { offsetof(struct heap_lane, owner), "owner" }, { offsetof(struct heap_lane, op), "op" },
        { offsetof(struct heap_lane, sequence), "sequence" }, { offsetof(struct heap_lane, link), "link" },
        { offsetof(struct heap_lane, block), "block" }, { offsetof(struct heap_lane, record), "record" },
        { offsetof(struct heap_lane, next_offset), "next_offset" }, { offsetof(struct heap_lane, generation), "generation" },
        { offsetof(struct heap_lane, other), "other" }, { offsetof(struct heap_lane, version), "version" },
        { offsetof(struct heap_lane, other_generation), "other_generation" }, { offsetof(struct heap_lane, happened), "happened" },
        { offsetof(struct heap_lane, operation), "operation" },
    };

    for (unsigned l = 1; l < heap_lanes(heap); l++)
        for (unsigned f = 0; f < sizeof(fields) / sizeof(*fields); f++)
            if (at == (char *)&heap->lane_table[l] + fields[f].offset) {
                snprintf(text, size, "lane%u.%s", l, fields[f].name);
                return true;
            }
    return false;
}

static bool name_block(const volatile void *at, char *text, size_t size)
{
    for (unsigned i = 0; i < watched_count; i++) {
        const struct block_ref *ref = &watched[i].ref;
        size_t offset = (size_t)((const char *)(uintptr_t)at - ref->start);

        if (at == (volatile void *)ref->word)
            snprintf(text, size, "word[b%u]", i);
        else if (offset == offsetof(struct node, next))
            snprintf(text, size, "b%u.next", i);
        else if (offset < ref->size)
            snprintf(text, size, "b%u+%zu", i, offset);
        else
            continue;
        return true;
    }
    return false;
}

static void name_address(const volatile void *at, char *text, size_t size)
{
    const char *p = (const char *)(uintptr_t)at;

    if (p == (char *)root)
        snprintf(text, size, "root");
    else if (p == (char *)mutex)
        snprintf(text, size, "mutex");
    else if (!name_lane_field(p, text, size) && !notice_name(p, text, size) && !name_block(at, text, size))
        snprintf(text, size, "heap+%#tx", p - heap->base);
}

/* ---- setting up ---- */

void use_lane(struct lane *lane)
{
    la_tls_lanes[heap->index] = (struct thread_lane){ .lane = lane, .serial = lane ? heap->serial : 0 };
}

static void give_bundle(int actor)
{
    struct node *node;

    if (la_bundle_begin(heap, &bundle[actor]) < 0)
        abort();
    node = la_bundle_alloc(bundle[actor], NODE_SIZE);
    for (unsigned i = 0; i < INNER; i++)
        node->inner[i] = la_bundle_alloc(bundle[actor], NODE_SIZE);
    put_in_hand(actor, node);
}

/* The lane's pages for every size that its program asks for exist before it begins. */
static void warm_up(void)
{
    void *node = shared_alloc(&heap->face[LA_HELD], NODE_SIZE, 0);

    la_free(node);
}

static void make_lane(int actor)
{
    const char *letters = scene->program[actor];

    me(actor)->id = NO_ID;
    if (strchr(letters, 'L'))
        return;
    use_lane(NULL);
    me(actor)->lane = heap_lane(heap);
    warm_up();
    for (; *letters; letters++) {
        if (*letters == '+')
            do_hold(actor);
        else if (*letters == '*')
            give_bundle(actor);
    }
}

static void make_queue(void)
{
    queue = NULL;
    if (!scene->queue)
        return;
    use_lane(me(0)->lane);
    if (la_queue_create(heap, "queue", scene->queue, &queue) < 0)
        abort();
}

static void make_list(void)
{
    for (unsigned i = 0; i < scene->listed; i++) {
        int owner = me((int)(i % scene->lanes))->lane ? (int)(i % scene->lanes) : 0;

        use_lane(me(owner)->lane);
        do_hold(owner);
        if (scene->queue)
            do_queue_push(owner);
        else
            do_push(owner);
    }
}

/* In the eyes of the library a process of its own. */
static void detach_lane(int actor)
{
    unsigned slot = FIRST_SLOT + (unsigned)actor;
    const struct lane *lane = me(actor)->lane;

    me(actor)->slot = slot;
    atomic_store(&heap->processes[slot].state, 1ull << 32 | PROCESS_ATTACHED);
    atomic_store(&heap->processes[slot].pid, (int32_t)slot);
    if (lane)
        atomic_store(&heap->lane_table[lane->number].owner, (uint64_t)lane->incarnation << 32 | (slot + 1));
    heir_begin(actor);
}

static void misused(void *user, const void *pointer, const char *text)
{
    (void)user;
    (void)pointer;
    violate("reported as misuse: %s (M6)", text);
}

static void set_up(void)
{
    char name[64];

    snprintf(name, sizeof(name), "model-%d", getpid());
    if (la_heap_create(name, (size_t)(scene->left ? 16 : 8) << 20, 0, &heap) < 0) {
        fprintf(stderr, "model: %s\n", la_last_error());
        exit(1);
    }
    la_heap_remove(name);
    la_misuse_set(LA_MISUSE_REPORT, misused, NULL);
    machine_name = name_address;
    machine_wrote = check_word;
    machine_start(heap, scene->store_buffers, scene->recoverers_meet);
    if (la_heap_root(heap, "root", &root) < 0)
        abort();
    heir_set_up();
    for (unsigned i = 0; i < scene->lanes; i++)
        make_lane((int)i);
    make_queue();
    make_list();
    /* As big as the others: recovery looks at every block of a page, and each look is a step. */
    mutex = la_heap_alloc(heap, NODE_SIZE);
    memset(mutex, 0, sizeof(*mutex));
    use_lane(NULL);
    for (unsigned i = 0; i < scene->lanes; i++)
        detach_lane((int)i);
    notice_set_up();
    watch_blocks();
    heir_begin_books();
    world.kills = scene->kills;
    world.recoverer_kills = scene->recoverer_kills;
    machine_set_initial();
}

static void tear_down(void)
{
    machine_stop();
    if (la_heap_detach(heap) < 0)
        abort();
}

struct findings scenario_run(const struct scenario *of, unsigned long max_states, bool quiet)
{
    struct rules rules = { .program = program, .can_step = can_step, .can_kill = can_kill, .kill = kill_actor,
        .after_step = after_step, .check_state = check_state, .check_end = check_end, .store_buffers = of->store_buffers,
        .solo_limit = of->store_buffers ? 0 : SOLO_LIMIT };
    struct findings findings;

    scene = of;
    set_up();
    findings = explore(&rules, max_states, quiet);
    tear_down();
    return findings;
}
