/*
 * scenario_heirs.c - what the dead held is left to their heir, and inherited by several at the same time, who may be killed over it.
 *
 *   H  (at the start) the process has an heir     e  la_heap_set_heir(): from now on
 *   i  la_heap_inherit(): what was left comes into its hands     c  the same, but it only counts
 * Before the start one more process may have died, and left some blocks (struct scenario).
 *
 *   M8  what a process with an heir held at its death stays held by its lane, and the lane left to the heir, until a living lane gets the block, once, with
 *       the next generation; that lane is its only owner then, and leaves it, or has it freed, at its own death
 */
#include "scene.h"

#include <stdlib.h>
#include <string.h>

#include <liballoc/error.h>

#include "core/lane.h"

static const char heir_name[] = "heir";

static bool lane_is_left(unsigned lane)
{
    return lane < HEAP_LANES && (uint32_t)atomic_load(&machine_heap->lane_table[lane].owner) & LANE_LEFT;
}

bool heir_has_left(const struct watched *w)
{
    return state_now(w) == WORD_HELD && lane_is_left(word_lane(word_now(w)));
}

/* ---- the estate: blocks of the dead that nobody has inherited yet ---- */

static bool is_in_estate(unsigned n)
{
    return world.estate[n / 64] >> n % 64 & 1;
}

static void put_into_estate(unsigned n, bool is_in)
{
    world.estate[n / 64] = (world.estate[n / 64] & ~(1ull << n % 64)) | (uint64_t)is_in << n % 64;
}

void heir_begin_books(void)
{
    for (unsigned n = 0; n < watched_count; n++)
        put_into_estate(n, heir_has_left(&watched[n]));
}

static bool process_has_heir(unsigned slot)
{
    return slot < LA_HEAP_MAX_PROCESSES && atomic_load(&machine_heap->processes[slot].heir) != 0;
}

void heir_note_kill(int actor)
{
    unsigned lane = lane_number(actor);

    for (unsigned n = 0; lane && n < watched_count; n++) {
        const struct watched *w = &watched[n];
        enum word_state state = state_now(w);

        /* Smaller ones are records of bundles, which are left to nobody. */
        if (word_lane(word_now(w)) == lane && (state == WORD_HELD || state == WORD_IN_DOUBT))
            put_into_estate(n, process_has_heir(FIRST_SLOT + (unsigned)actor) && w->ref.size >= NODE_SIZE);
    }
}

/* Inherited; or in doubt, and found to be published. */
void heir_note_change(unsigned n, word_t from, word_t to)
{
    enum word_state state = word_state(to, watched[n].ref.epoch);

    if (state == WORD_HEAP || (state == WORD_HELD && word_lane(to) != word_lane(from)))
        put_into_estate(n, false);
}

bool heir_may_change(int actor, word_t from, word_t to, unsigned epoch)
{
    enum word_state old = word_state(from, epoch);
    unsigned lane = word_lane(from);

    if (word_state(to, epoch) != WORD_HELD)
        return false;
    /* What was in doubt and not published is left as held. */
    if (old == WORD_IN_DOUBT && actor >= LANES)
        return word_generation(to) == word_generation(from) && word_lane(to) == lane &&
               process_has_heir((uint32_t)atomic_load(&machine_heap->lane_table[lane].owner) - 1);
    return old == WORD_HELD && actor < LANES && word_generation(to) != word_generation(from) && word_lane(to) == lane_number(actor) && lane_is_left(lane);
}

void heir_check_end(void)
{
    long left = 0;

    for (unsigned n = 0; n < watched_count; n++) {
        left += heir_has_left(&watched[n]);
        if (is_in_estate(n) && !heir_has_left(&watched[n]))
            violate("b%u was left to the heir, who has not got it, and it is there no more (M8)", n);
    }
    use_lane(machine_heap->lanes);
    if (la_heap_inherit(machine_heap, heir_name, NULL, NULL) != left)
        violate("the heir does not find the %ld blocks that were left (M8)", left);
    use_lane(NULL);
}

/* ---- letters ---- */

struct inheriting {
    int actor;
    long count;
};

static void take_over(void *user, void *block, size_t size)
{
    struct inheriting *inheriting = user;
    const struct watched *w = watched_at(block);
    int actor = inheriting->actor;

    inheriting->count++;
    if (!w || size < NODE_SIZE) {
        violate("%s inherits %p of %zu bytes, which no program had (M8)", actor_name(actor), block, size);
        return;
    }
    if (state_now(w) != WORD_HELD || word_lane(word_now(w)) != lane_number(actor))
        violate("%s inherits b%u, which it does not hold (M8)", actor_name(actor), block_number(block));
    for (int i = 0; i < LANES; i++)
        for (unsigned h = 0; me(i)->state != ACTOR_DEAD && h < me(i)->hands; h++)
            if (me(i)->hand[h] == block)
                violate("%s inherits b%u, which is in the hands of %s (M8)", actor_name(actor), block_number(block), actor_name(i));
    put_alone_in_hand(actor, block);
}

static void do_inherit(int actor)
{
    struct inheriting inheriting = { .actor = actor };
    long r = la_heap_inherit(machine_heap, heir_name, take_over, &inheriting);

    if (r != inheriting.count)
        violate("%s: la_heap_inherit() returned %ld after %ld blocks: %s", actor_name(actor), r, inheriting.count, la_last_error());
}

static void do_count(int actor)
{
    long r = la_heap_inherit(machine_heap, heir_name, NULL, NULL);

    if (r < 0)
        violate("%s: la_heap_inherit() returned %ld: %s", actor_name(actor), r, la_last_error());
}

static void set_heir(void)
{
    if (la_heap_set_heir(machine_heap, heir_name) < 0)
        violate("la_heap_set_heir(): %s", la_last_error());
}

bool heir_run_letter(int actor, char letter)
{
    switch (letter) {
    case 'i': do_inherit(actor); return true;
    case 'c': do_count(actor); return true;
    case 'e': set_heir(); return true;
    case 'H': return true;      /* was done at the start */
    default: return false;
    }
}

/* ---- setting up ---- */

static void set_heir_of(unsigned slot)
{
    unsigned process = machine_heap->process;

    machine_heap->process = slot;
    set_heir();
    machine_heap->process = process;
}

void heir_begin(int actor)
{
    if (strchr(scene->program[actor], 'H'))
        set_heir_of(FIRST_SLOT + (unsigned)actor);
}

void heir_set_up(void)
{
    struct la_obituary obituary;
    struct lane *lane;
    la_link *root;

    if (la_heap_root(machine_heap, heir_name, &root) < 0)
        abort();
    if (!scene->left)
        return;
    use_lane(NULL);
    lane = heap_lane(machine_heap);
    for (unsigned i = 0; i < scene->left; i++)
        memset(la_heap_hold(machine_heap, NODE_SIZE), 0, NODE_SIZE);
    atomic_store(&machine_heap->processes[SLOT_BEFORE].state, 1ull << 32 | PROCESS_ATTACHED);
    atomic_store(&machine_heap->lane_table[lane->number].owner, (uint64_t)lane->incarnation << 32 | (SLOT_BEFORE + 1));
    set_heir_of(SLOT_BEFORE);
    heap_recover_process(machine_heap, SLOT_BEFORE, &obituary);
    if (obituary.left_blocks != scene->left)
        abort();
}
