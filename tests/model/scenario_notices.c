/*
 * scenario_notices.c - what is told of the dead: outcomes of operations with a number, obituaries.
 *
 *   n  la_heap_operation(): what follows, one p, t, P or G, has the next number of this lane
 *   o  la_heap_outcome() of the first number of L1       O  of its second one
 *   a  la_heap_obituary(): the next one
 *   N  posts the obituary of somebody else, as one who recovers him does. Its lane must not be mortal
 * The ring of notices has MODEL_NOTICES entries, and so comes round. Some notices of others may be there at the start (struct scenario).
 *
 *   M9   la_heap_outcome() says what was true at some moment of the call. What is true is checked after every step, by a call in which nobody else moves: an
 *        operation is unknown, then under way, then it has happened; or it has not, if its process has died. It is forgotten when its lane has a
 *        later one. At the end it is what has become of the operation
 *   M10  each death is told to every reader once, as it was posted; or it is counted among those that the reader was told it has lost, or was passed over, as
 *        it was being written for too long
 */
#include "scene.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <liballoc/error.h>

#include "core/lane.h"
#include "core/notice.h"

enum { SLOT_OF_OTHERS = 7 };

enum answer { NOT_KNOWN, UNDER_WAY, HAS_NOT, HAS };

static const char *const answers[] = { "not known", "under way", "has not happened", "has happened" };

/* Letters n of each lane. */
static unsigned operations[LANES];

/* ---- outcomes ---- */

static uint64_t number_of(int lane, unsigned operation)
{
    return 1 + (uint64_t)lane * OPERATIONS + operation;
}

static enum answer outcome(int lane, unsigned operation)
{
    int r = la_heap_outcome(machine_heap, number_of(lane, operation));

    switch (r) {
    case -ENOENT: return NOT_KNOWN;
    case -EINPROGRESS: return UNDER_WAY;
    case 0: return HAS_NOT;
    case 1: return HAS;
    default: violate("la_heap_outcome() returned %d: %s", r, la_last_error()); return NOT_KNOWN;
    }
}

/* Operation 0, 1 ... of the lane, which may have begun at least one more. */
static bool has_begun_more(int lane, unsigned operation)
{
    return world.begun[lane] + world.beginning[lane] > operation + 1u;
}

static bool may_become(int lane, unsigned operation, enum answer old, enum answer new)
{
    switch (old) {
    case NOT_KNOWN: return new == UNDER_WAY;
    case UNDER_WAY: return new == HAS || (new == HAS_NOT && me(lane)->state == ACTOR_DEAD) || (new == NOT_KNOWN && has_begun_more(lane, operation));
    case HAS: return new == NOT_KNOWN && operation + 1 < operations[lane] && outcome(lane, operation + 1) == HAS;
    case HAS_NOT: return false;
    }
    return false;
}

static void check_operation(int lane, unsigned operation)
{
    enum answer old = (enum answer)world.answer[lane][operation], now = outcome(lane, operation);

    if (now == old)
        return;
    if (!may_become(lane, operation, old, now))
        violate("operation %u of %s was %s, and is %s (M9)", operation + 1, actor_name(lane), answers[old], answers[now]);
    world.answer[lane][operation] = (uint8_t)now;
    for (int i = 0; i < LANES; i++)
        if (world.asks[i] == number_of(lane, operation))
            world.answers[i] |= (uint8_t)(1 << now);
}

static void do_ask(int actor, unsigned operation)
{
    enum answer answer;

    world.asks[actor] = (uint8_t)number_of(0, operation);
    world.answers[actor] = (uint8_t)(1 << world.answer[0][operation]);
    answer = outcome(0, operation);
    if (!(world.answers[actor] >> answer & 1))
        violate("%s is told that operation %u of L1 is %s, which it was at no moment (M9)", actor_name(actor), operation + 1, answers[answer]);
    world.asks[actor] = world.answers[actor] = 0;
}

static void do_number(int actor)
{
    world.beginning[actor] = 1;
    if (la_heap_operation(machine_heap, number_of(actor, world.begun[actor])) < 0)
        violate("la_heap_operation(): %s", la_last_error());
    world.beginning[actor] = 0;
    world.begun[actor]++;
}

void notice_operation_happened(int actor)
{
    if (world.begun[actor])
        world.happened[actor] |= (uint8_t)(1 << (world.begun[actor] - 1));
}

/* The last operation of a lane, as the lists and hands say. */
static bool has_happened(int lane, uint64_t listed)
{
    const struct actor *a = me(lane);
    uint64_t pushing = 0;

    if (a->state != ACTOR_DEAD || a->doing == DOING_NOTHING)
        return world.happened[lane] >> (world.begun[lane] - 1) & 1;
    for (int i = 0; i < (int)scene->lanes; i++)
        pushing |= me(i)->id < IDS ? 1ull << me(i)->id : 0;
    /* What was pushed is listed, or was taken since. What was taken is listed no more. */
    if (a->doing == DOING_PUSH)
        return a->id < IDS && (listed | ~world.outside) >> a->id & 1;
    return (world.outside & ~listed & ~pushing) != 0;
}

static void check_outcome_at_end(int lane, uint64_t listed)
{
    bool dead = me(lane)->state == ACTOR_DEAD, others = false, happened = has_happened(lane, listed);
    enum answer answer = outcome(lane, world.begun[lane] - 1u), expected = happened ? HAS : dead ? HAS_NOT : UNDER_WAY;

    for (int i = 0; i < LANES; i++)
        others |= i != lane && me(i)->state == ACTOR_DEAD && me(i)->doing != DOING_NOTHING;
    /* Killed when the next one began: that one may be the lane's last. Or another one was killed in an operation: it is not known which of them took it. */
    if ((world.beginning[lane] && !happened) || (others && me(lane)->doing != DOING_NOTHING))
        return;
    if (answer != expected)
        violate("operation %u of %s %s, but is %s (M9)", world.begun[lane], actor_name(lane), happened ? "has happened" : "has not happened", answers[answer]);
}

/* ---- obituaries ---- */

static uint64_t notices_end(void)
{
    return atomic_load(&machine_heap->header->notices);
}

static void post_other(void)
{
    struct la_obituary obituary = { .slot = SLOT_OF_OTHERS };

    world.posted++;
    obituary.blocks = obituary.bytes = world.posted;
    notice_post_obituary(machine_heap, world.posted, &obituary);
}

/* Entries that are being written while many others are posted: readers need not wait for them. */
static void note_slow_ones(void)
{
    uint64_t end = notices_end();

    for (uint64_t n = end > MODEL_NOTICES ? end - MODEL_NOTICES : 0; n + MODEL_NOTICES / 2 < end && n < 64; n++) {
        uint64_t word = atomic_load(&machine_heap->notices[n % MODEL_NOTICES].word);

        /* Of this number, not of the one that comes after it in the same entry. */
        if (!(word & 1) && word >> 46 == n / MODEL_NOTICES)
            world.slow |= 1ull << n;
    }
}

void notice_check_step(void)
{
    for (int i = 0; i < LANES; i++)
        for (unsigned k = 0; k < operations[i]; k++)
            check_operation(i, k);
    note_slow_ones();
}

static void read_other(struct subscriber *s, const struct la_obituary *o)
{
    if (o->blocks == 0 || o->blocks > world.posted || o->bytes != o->blocks || o->pid)
        violate("an obituary of %lu blocks, %lu bytes and pid %d was posted by nobody (M10)", o->blocks, o->bytes, o->pid);
    else if (s->others >> o->blocks & 1)
        violate("the obituary of others %lu is read twice (M10)", o->blocks);
    else
        s->others |= (uint16_t)(1 << o->blocks);
}

static void check_dead(const struct la_obituary *o, int lane)
{
    unsigned begun = world.begun[lane];
    uint64_t maybe = world.beginning[lane] ? number_of(lane, begun) : 0, last = begun ? number_of(lane, begun - 1) : 0;

    if (me(lane)->state != ACTOR_DEAD || o->pid != (int32_t)o->slot || o->lanes > 1 || o->blocks > watched_count)
        violate("the obituary of %s has pid %d, %u lanes, %lu blocks (M10)", actor_name(lane), o->pid, o->lanes, o->blocks);
    if (!scene->bundles && (o->bytes != o->blocks * watched[0].ref.size || o->left_bytes != o->left_blocks * watched[0].ref.size))
        violate("the obituary of %s has %lu blocks of %lu bytes, %lu and %lu are left (M10)", actor_name(lane), o->blocks, o->bytes, o->left_blocks,
                o->left_bytes);
    if (o->operation != last && (!maybe || o->operation != maybe))
        violate("the obituary of %s speaks of operation number %lu, which was not its last one (M10)", actor_name(lane), o->operation);
    else if (o->operation && o->happened != (world.answer[lane][o->operation - number_of(lane, 0)] == HAS))
        violate("the obituary of %s does not say what became of its operation (M10)", actor_name(lane));
}

static void read_obituary(struct subscriber *s, const struct la_obituary *o)
{
    int lane = (int)o->slot - FIRST_SLOT;

    if (o->slot == SLOT_OF_OTHERS) {
        read_other(s, o);
    } else if (lane >= 0 && lane < LANES) {
        check_dead(o, lane);
        if (s->dead >> lane & 1)
            violate("the obituary of %s is read twice (M10)", actor_name(lane));
        s->dead |= (uint8_t)(1 << lane);
    } else if (o->slot != SLOT_BEFORE) {
        violate("an obituary of slot %u was posted by nobody (M10)", o->slot);
    }
}

/* false: there is no other one. */
static bool read_next(struct subscriber *s)
{
    uint64_t number = s->number;
    struct la_obituary obituary;
    int r = la_heap_obituary(machine_heap, &number, &obituary);

    if (r == 0)
        read_obituary(s, &obituary);
    else if (r == -EOVERFLOW && number > s->number)
        s->lost += (uint8_t)(number - s->number);
    else if (r != -ENOENT || number < s->number)
        violate("la_heap_obituary() returned %d, and number %lu after %lu", r, number, s->number);
    s->number = number;
    return r != -ENOENT && !violation[0];
}

/* At the end, what it has not read yet is read. */
static void check_subscriber(struct subscriber s)
{
    unsigned unread = 0;

    while (read_next(&s))
        ;
    for (unsigned i = 1; i <= world.posted; i++)
        unread += !(s.others >> i & 1);
    for (int i = 0; i < LANES; i++)
        unread += me(i)->state == ACTOR_DEAD && !(s.dead >> i & 1);
    if (unread > s.lost + (unsigned)__builtin_popcountll(world.slow))
        violate("%u obituaries were not told, %u of them known to be lost (M10)", unread, s.lost);
}

void notice_check_end(uint64_t listed)
{
    for (int i = 0; i < (int)scene->lanes && !violation[0]; i++) {
        if (world.begun[i])
            check_outcome_at_end(i, listed);
        if (strchr(scene->program[i], 'a') && me(i)->state != ACTOR_DEAD)
            check_subscriber(world.subscriber[i]);
    }
    if (!violation[0])
        check_subscriber((struct subscriber){ 0 });
}

/* ---- letters ---- */

bool notice_run_letter(int actor, char letter)
{
    switch (letter) {
    case 'n': do_number(actor); return true;
    case 'o': do_ask(actor, 0); return true;
    case 'O': do_ask(actor, 1); return true;
    case 'a': read_next(&world.subscriber[actor]); return true;
    case 'N': post_other(); return true;
    default: return false;
    }
}

void notice_set_up(void)
{
    for (int i = 0; i < LANES; i++) {
        operations[i] = 0;
        for (const char *p = scene->program[i]; p && *p; p++)
            operations[i] += *p == 'n';
    }
    for (unsigned i = 0; i < scene->told; i++)
        post_other();
}

bool notice_name(const char *at, char *text, size_t size)
{
    size_t offset = (size_t)(at - (const char *)machine_heap->notices);
    size_t entry = offset / sizeof(struct heap_notice), word = offset % sizeof(struct heap_notice) / 8;

    if (at == (const char *)&machine_heap->header->notices)
        snprintf(text, size, "notices");
    else if (entry < MODEL_NOTICES && word == 0)
        snprintf(text, size, "notice%zu", entry);
    else if (entry < MODEL_NOTICES)
        snprintf(text, size, "notice%zu.%zu", entry, word - 1);
    else
        return false;
    return true;
}
