/*
 * explore.h - depth first through every schedule of a scenario. States that were seen are not entered again (by a 64-bit hash of all
 * that changes), so what is explored is a graph; a schedule is a path in it.
 */
#ifndef MODEL_EXPLORE_H
#define MODEL_EXPLORE_H

#include "machine.h"

/* What the explorer asks of a scenario. Checks call violate(). */
struct rules {
    actor_program *program;
    bool (*can_step)(int actor);
    bool (*can_kill)(int actor);
    void (*kill)(int actor);
    void (*after_step)(int actor);      /* after every step, kill or flush: what changed was allowed to */
    void (*check_state)(void);          /* in every new state */
    void (*check_end)(void);            /* in every state where nobody can go on */
    bool store_buffers;
    unsigned solo_limit;                /* steps a lane may need to finish alone, from any state; 0: not checked */
};

struct findings {
    unsigned long states, edges, ends;
    double schedules;           /* paths from the first state to an end */
    unsigned stops, rounds, depth;
    unsigned longest_alone;     /* steps a lane needed to finish with all others stopped, at most */
    size_t image_bytes;
    bool complete;              /* false: too many states */
    bool violated;
    bool misled;                /* by images that lacked something: the search was begun again */
};

/* At most @max_states. A violation is printed with its schedule unless @quiet. */
struct findings explore(const struct rules *rules, unsigned long max_states, bool quiet);

#endif
