/*
 * scenario.h - one scenario: programs for up to three lanes, who may be killed. scenario.c has the letters and the rules.
 */
#ifndef MODEL_SCENARIO_H
#define MODEL_SCENARIO_H

#include "explore.h"

struct scenario {
    const char *name;
    const char *program[LANES];
    const char *mortal;         /* numbers of the lanes that may be killed, "123" */
    unsigned lanes, listed;     /* objects on the list at the start */
    unsigned char kills, recoverer_kills;
    uint8_t left;               /* blocks that one who died before the start has left to the heir */
    uint8_t told;               /* obituaries of others that are there at the start */
    uint8_t queue;              /* its capacity; 0: there is none. The objects at the start are in it */
    bool store_buffers;
    bool recoverers_meet;       /* two recover at the same time, of different processes */
    bool bundles;               /* HEAP may become HELD again */
    bool deep;                  /* only when asked for */
};

struct findings scenario_run(const struct scenario *scenario, unsigned long max_states, bool quiet);

#endif
