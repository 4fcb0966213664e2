/*
 * scenario.h - the operations whose every instruction is a possible death.
 */
#ifndef CRASH_SCENARIO_H
#define CRASH_SCENARIO_H

#include "stage.h"

enum scenario_flags {
    SAME_AFTER = 1u << 0,       /* after recovery nobody can tell whether the operation was done (HELD blocks) */
    ATTACHES = 1u << 1,         /* the victim begins without the heap */
    NEEDS_STEPS = 1u << 2,      /* the kernel writes into the heap or maps it: see trace.c */
    KEEPS_DEAD = 1u << 3,       /* the victim does not recover dead peers when it attaches */
    RECOVER_TRACED = 1u << 4,   /* default run: the recovery of each image is traced, too */
    STORES_ONLY = 1u << 9,      /* also in the full run, and its recovery is not traced: other scenarios have the same parts one by one */
    LONG = 1u << 8,             /* full run only, unless asked for by name */
    COMPARED = 1u << 7,         /* default run: traced in both modes, see trace.c */
    UNEVEN = 1u << 5,           /* what is live goes up and down in its course: memory is reused in it, or a block lives twice */
    NUMBERED = 1u << 10,        /* the operation has number STAGE_OPERATION: its outcome must be known */
    UNFORMATTED = 1u << 6,      /* the file is empty when the victim begins */
};

struct scenario {
    const char *name;
    unsigned flags;
    size_t heap_size;               /* 0: the smallest */
    /* In other processes, before the victim attaches; they stay alive during the operation, or are killed. */
    void (*peers[MAX_PEERS])(struct actor *);
    bool peers_die;
    /* In the victim: what comes before, and the operation itself. */
    void (*prepare)(struct actor *);
    void (*act)(struct actor *);
    /* In a checker, before recovery: what a process that did not die may do at that moment. Images are checked with and without. */
    void (*survive)(struct actor *);
    /*
     * In the first peer, which lives: when the victim has died after each of its stores in turn, and was recovered by a third process. What
     * is wrong, or NULL.
     */
    const char *(*resume)(struct actor *);
    /* In a checker, after recovery: what the model cannot say. Sets a->wrong. */
    void (*audit)(struct actor *);
};

extern const struct scenario scenarios[];
extern const unsigned scenario_count;

#endif
