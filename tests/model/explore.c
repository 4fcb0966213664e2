/*
 * explore.c - see explore.h.
 */
#include "explore.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WALKS = 40, WALK_LIMIT = 20000, VERIFY_EVERY = 64, NONE = UINT32_MAX, MAX_FANOUT = ACTORS * (2 + STORES) };

/* What can happen next: an actor steps, is killed, or one of its stores becomes visible. */
enum action_kind { STEP, KILL, FLUSH };

struct action {
    uint8_t kind, actor, store;
};

struct node {
    uint64_t hash;
    double schedules;
    uint32_t parent;
    uint32_t alone[ACTORS];     /* the state after a step of that actor; NONE: it cannot step */
    struct action by;           /* from the parent */
    bool open;                  /* on the path that is being explored */
};

/* One state of the path from the start to where we are. */
struct level {
    struct image *image;
    uint32_t node;
    unsigned next, count;
    struct action action[MAX_FANOUT];
};

static const struct rules *rules;
static struct node *nodes;
static uint32_t *table;
static uint32_t node_count, node_room;
static size_t table_size;
static struct level *path;
static size_t path_length, path_room;
static struct findings found;

/* ---- actions ---- */

static unsigned list_actions(struct action *to)
{
    unsigned n = 0;

    for (uint8_t i = 0; i < ACTORS; i++) {
        if (rules->can_step(i))
            to[n++] = (struct action){ STEP, i, 0 };
        for (uint8_t s = 0; rules->store_buffers && s < STORES; s++)
            if (machine_can_flush(i, s))
                to[n++] = (struct action){ FLUSH, i, s };
        if (rules->can_kill(i))
            to[n++] = (struct action){ KILL, i, 0 };
    }
    return n;
}

static void perform(struct action action)
{
    if (action.kind == STEP) {
        machine_step(action.actor, rules->program);
    } else if (action.kind == FLUSH) {
        machine_flush(action.actor, action.store);
    } else {
        if (machine_log)
            printf("    %s  is killed\n", actor_name(action.actor));
        rules->kill(action.actor);
    }
    rules->after_step(action.actor);
}

/* ---- states ---- */

static bool make_room(unsigned long max_states)
{
    uint32_t *bigger;

    if (node_count >= max_states)
        return false;
    if (node_count == node_room) {
        node_room = node_room ? 2 * node_room : 1 << 14;
        nodes = realloc(nodes, node_room * sizeof(*nodes));
    }
    if (2 * (size_t)node_count + 2 <= table_size)
        return nodes != NULL;
    table_size = table_size ? 2 * table_size : 1 << 15;
    bigger = malloc(table_size * sizeof(*bigger));
    if (!bigger || !nodes)
        abort();
    memset(bigger, 0xff, table_size * sizeof(*bigger));
    for (uint32_t n = 0; n < node_count; n++) {
        size_t i = nodes[n].hash & (table_size - 1);

        while (bigger[i] != NONE)
            i = (i + 1) & (table_size - 1);
        bigger[i] = n;
    }
    free(table);
    table = bigger;
    return true;
}

/* The node of the present state; *is_new: it was not there. */
static uint32_t enter(uint32_t parent, struct action by, bool *is_new)
{
    uint64_t hash = machine_hash();
    size_t i = hash & (table_size - 1);

    for (; table[i] != NONE; i = (i + 1) & (table_size - 1))
        if (nodes[table[i]].hash == hash) {
            *is_new = false;
            return table[i];
        }
    table[i] = node_count;
    nodes[node_count] = (struct node){ .hash = hash, .parent = parent, .by = by };
    memset(nodes[node_count].alone, 0xff, sizeof(nodes[0].alone));
    *is_new = true;
    return node_count++;
}

static void push_level(uint32_t node)
{
    struct level *level;

    if (path_length == path_room) {
        path_room = path_room ? 2 * path_room : 1024;
        path = realloc(path, path_room * sizeof(*path));
        if (!path)
            abort();
    }
    level = &path[path_length++];
    *level = (struct level){ .image = image_take(), .node = node };
    level->count = list_actions(level->action);
    nodes[node].open = true;
    if (level->count == 0) {
        found.ends++;
        nodes[node].schedules = 1;
        rules->check_end();
        if (found.ends % VERIFY_EVERY == 0)
            machine_verify_images();
    }
    found.depth = path_length > found.depth ? (unsigned)path_length : found.depth;
}

static void pop_level(void)
{
    struct level *level = &path[--path_length];

    nodes[level->node].open = false;
    if (path_length)
        nodes[path[path_length - 1].node].schedules += nodes[level->node].schedules;
    image_free(level->image);
}

/* ---- a violation ---- */

/* False: the action is not possible here. Since it was found an address was learnt to matter, so the steps are others. */
static bool perform_again(struct action action)
{
    if (action.kind == STEP ? !rules->can_step(action.actor) :
        action.kind == KILL ? !rules->can_kill(action.actor) : !machine_can_flush(action.actor, action.store))
        return false;
    perform(action);
    return true;
}

static bool replay(uint32_t node)
{
    return nodes[node].parent == NONE || (replay(nodes[node].parent) && perform_again(nodes[node].by));
}

/* The way to @node, then @last, then (@alone >= 0) that actor alone for a while; the checks say what they said before. */
static void play(uint32_t node, const struct action *last, int alone)
{
    struct action action[MAX_FANOUT];

    machine_reset();
    if (!replay(node) || (last && !perform_again(*last)))
        return;
    for (int i = 0; alone >= 0 && i < 40 && rules->can_step(alone); i++)
        machine_step(alone, rules->program);
    if (!violation[0])
        rules->check_state();
    if (!violation[0] && list_actions(action) == 0)
        rules->check_end();
}

/* A violation counts if it is there again from the start: until all lines that change are known, images may be wrong. */
static void report(uint32_t node, const struct action *last, int alone, bool quiet)
{
    char first[sizeof(violation)];

    strcpy(first, violation);
    machine_verify_images();
    play(node, last, alone);
    if (!violation[0] && alone < 0) {
        found.misled = true;
        return;
    }
    found.violated = true;
    if (!quiet) {
        machine_log = true;
        play(node, last, alone);
        machine_log = false;
        printf("  VIOLATION: %s\n", first);
    }
}

/* ---- exploring ---- */

/* Does one action of the last level. */
static void advance(bool quiet)
{
    struct level *level = &path[path_length - 1];
    struct action action = level->action[level->next++];
    uint32_t from = level->node, to;
    bool is_new;

    image_restore(level->image);
    perform(action);
    found.edges++;
    if (violation[0]) {
        report(from, &action, -1, quiet);
        return;
    }
    to = enter(from, action, &is_new);
    if (action.kind == STEP)
        nodes[from].alone[action.actor] = to;
    if (!is_new) {
        nodes[from].schedules += nodes[to].schedules;
        return;
    }
    rules->check_state();
    push_level(to);
    if (violation[0])
        report(to, NULL, -1, quiet);
}

static void drop_path(void)
{
    while (path_length)
        pop_level();
}

/* True: every state was seen, or a violation was found. */
static bool search(unsigned long max_states, bool quiet)
{
    bool is_new;

    machine_reset();
    drop_path();
    node_count = 0;
    if (table)
        memset(table, 0xff, table_size * sizeof(*table));
    found = (struct findings){ .rounds = found.rounds + 1 };
    make_room(max_states);
    push_level(enter(NONE, (struct action){ 0 }, &is_new));
    while (path_length && !found.violated && !found.misled) {
        if (path[path_length - 1].next == path[path_length - 1].count) {
            pop_level();
            continue;
        }
        if (!make_room(max_states))
            return false;
        advance(quiet);
    }
    return true;
}

/* Random schedules, to learn which addresses and lines matter before the search begins. */
static void walk(uint64_t *seed)
{
    struct action action[MAX_FANOUT];

    machine_reset();
    for (unsigned i = 0; i < WALK_LIMIT; i++) {
        unsigned n = list_actions(action), chosen;

        if (n == 0)
            break;
        *seed = *seed * 6364136223846793005u + 1442695040888963407u;
        chosen = (unsigned)((*seed >> 33) % n);
        /* Rarely a kill: most of what there is to learn comes before it. */
        if (action[chosen].kind == KILL && (*seed >> 20) % 8)
            continue;
        perform(action[chosen]);
        violation[0] = '\0';    /* the search will find it again, by a way that can be told */
    }
    machine_verify_images();
}

/* ---- nobody waits ---- */

/*
 * From @node on @actor alone, until it is done: number of steps; 0 when it never is. Steps of different states are shared, so
 * the whole check costs one visit per state and actor. known[]: 1 + steps, or 0.
 */
static unsigned steps_alone(uint32_t node, int actor, uint32_t *known, uint32_t *trail)
{
    uint32_t length = 0, steps, n = node;

    for (; !known[n] && nodes[n].alone[actor] != NONE; n = nodes[n].alone[actor]) {
        if (nodes[n].open)
            return 0;       /* we were here: it goes round */
        nodes[n].open = true;
        trail[length++] = n;
    }
    if (!known[n])
        known[n] = 1;
    steps = known[n];
    while (length) {
        known[trail[--length]] = ++steps;
        nodes[trail[length]].open = false;
    }
    return known[node];
}

static void check_nobody_waits(bool quiet)
{
    uint32_t *known = malloc(node_count * sizeof(*known)), *trail = malloc(node_count * sizeof(*trail));

    if (!known || !trail)
        abort();
    for (int actor = 0; actor < ACTORS && !found.violated; actor++) {
        memset(known, 0, node_count * sizeof(*known));
        for (uint32_t n = 0; n < node_count && !found.violated; n++) {
            unsigned steps = steps_alone(n, actor, known, trail);

            if (steps != 0 && steps - 1 <= rules->solo_limit) {
                found.longest_alone = steps - 1 > found.longest_alone ? steps - 1 : found.longest_alone;
                continue;
            }
            violate("%s waits: with all others stopped it does not finish within %u steps", actor_name(actor), rules->solo_limit);
            report(n, NULL, actor, quiet);
        }
    }
    free(known);
    free(trail);
}

static void forget(void)
{
    drop_path();
    free(nodes);
    free(table);
    free(path);
    nodes = NULL;
    table = NULL;
    path = NULL;
    node_room = node_count = 0;
    table_size = path_room = 0;
}

struct findings explore(const struct rules *of, unsigned long max_states, bool quiet)
{
    uint64_t seed = 1;
    bool again;

    rules = of;
    found = (struct findings){ 0 };
    for (int i = 0; i < WALKS; i++)
        walk(&seed);
    do {
        machine_has_learnt();
        found.complete = search(max_states, quiet);
        machine_verify_images();    /* what is in no image shows now, as nothing puts it back */
        again = machine_has_learnt();
        if (found.misled && !again)
            abort();        /* the machine itself is wrong */
    } while (again && found.complete && !found.violated);
    found.states = node_count;
    found.schedules = node_count ? nodes[0].schedules : 0;
    found.stops = machine_stops();
    found.image_bytes = machine_image_bytes();
    if (found.complete && !found.violated && rules->solo_limit)
        check_nobody_waits(quiet);
    forget();
    return found;
}
