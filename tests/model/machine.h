/*
 * machine.h - the machine that the model runs on: lanes as coroutines over one real heap, stopped before every access that another
 * one could notice, and able to go back to any earlier state.
 *
 *   actor      a coroutine: a lane that runs a program, or a process that recovers the dead
 *   access     every atomic access to the heap comes here through hooks.h. It stops the actor only where the order matters: before a load of
 *              what another actor stores in some execution, and a store to what another one uses (all other accesses commute with everything
 *              that others do). Who uses what is learnt; a new use means that what was explored so far may be incomplete
 *              (machine_has_learnt()).
 *   world      everything that is not in the heap and changes while actors run
 *   image      a copy of the state: the lines of memory that change (learnt, too, and verified), the world, the stacks in use
 */
#ifndef MODEL_MACHINE_H
#define MODEL_MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/lane.h"

enum { LANES = 3, RECOVERERS = 2, ACTORS = LANES + RECOVERERS, HANDS = 4, STORES = 10, IDS = 64, NO_ID = IDS,
       MAX_WATCHED = 96 };

enum actor_state { ACTOR_IDLE = 0, ACTOR_RUNNING, ACTOR_DONE, ACTOR_DEAD };

/* What a lane of the scenario is in the middle of, for the books of scenario.c. */
enum doing { DOING_NOTHING = 0, DOING_PUSH, DOING_TAKE, DOING_SWAP, DOING_EXCHANGE };

/* Operations with a number that one lane may begin, see scenario_notices.c. */
enum { OPERATIONS = 2 };

/* A store that the others do not see yet. */
struct pending_store {
    volatile void *at;
    uint64_t value;
    uint8_t size;
    bool release;
};

struct actor {
    void *sp;                   /* of the stack when not running */
    struct lane *lane;          /* of the library; NULL: a recoverer, or a lane that is not lent yet */
    uint32_t slot;              /* of its process; 0: that of the test */
    uint8_t state;              /* enum actor_state */
    uint8_t doing;              /* enum doing */
    struct slow_path *slow;     /* la_tls_slow */
    uint8_t id;                 /* of the object being pushed */
    uint8_t hands;
    uint8_t stores;
    void *hand[HANDS];          /* blocks in the program's hands */
    struct pending_store store[STORES];
};

struct world {
    struct actor actor[ACTORS];
    uint64_t outside;           /* ids of objects pushed and not taken; NO_ID has none */
    uint64_t meta[16];          /* memory of model_meta_alloc() */
    uint8_t kills, recoverer_kills;     /* that may still happen */
    uint8_t exchanged;          /* la_root_swap() returned 0 */
    uint8_t pushes[LANES];      /* into the queue, by lane */
    uint8_t popped[LANES][LANES];   /* by lane: the last one of each lane's pushes that it got */
    uint8_t inside;             /* 1 + the lane that has the mutex */
    uint8_t recovered_by[LANES];    /* 1 + the recoverer that has the certificate byte of this lane's process */
    uint8_t lent;               /* the memory of the lane that is lent while actors run is in use */
    /* scenario_heirs.c: blocks that the dead held and left, by bits */
    uint64_t estate[(MAX_WATCHED + 63) / 64];
    /* scenario_notices.c: operations begun by each lane, at which one it may be, which have happened, what was answered last */
    uint8_t begun[LANES], beginning[LANES], happened[LANES], answer[LANES][OPERATIONS];
    uint8_t asks[LANES], answers[LANES];        /* what a lane asks for, and the answers that were true meanwhile */
    uint8_t posted;             /* obituaries of others */
    uint64_t slow;              /* notices that readers may pass over, by bits */
    struct subscriber {
        uint64_t number;        /* where to go on */
        uint16_t others;        /* that it has read, by bits */
        uint8_t dead;           /* lanes whose obituary it has read, by bits */
        uint8_t lost;           /* how many it was told it has lost */
    } subscriber[LANES];
};

extern struct world world;
extern struct la_heap *machine_heap;

/* The actor that runs now; -1: the test itself, whose accesses are ordinary ones. */
extern int machine_current;

/*
 * With store buffers: stores other than seq_cst ones become visible later, relaxed ones in any order. Without: sequential consistency.
 * recoverers_meet: there may be two at the same time, of different processes; without, the second one comes when the first was killed.
 */
void machine_start(struct la_heap *heap, bool store_buffers, bool recoverers_meet);
void machine_stop(void);

/* The state as it is now is the one to begin from. */
void machine_set_initial(void);
/* Back to it, every byte. */
void machine_reset(void);

typedef void actor_program(int actor);

/* Let @actor run to its next stop; an idle one begins with @program. */
void machine_step(int actor, actor_program *program);
void machine_kill(int actor);
/* Called by a program: a stop without an access. */
void machine_pause(void);

bool machine_can_flush(int actor, unsigned store);
void machine_flush(int actor, unsigned store);

/* Stands in for heap_process_is_alive(), see hooks.h. */
bool model_process_is_alive(struct la_heap *heap, unsigned slot);

/* ---- images ---- */

struct image;

struct image *image_take(void);
void image_restore(const struct image *image);
void image_free(struct image *image);
/* Of the state as it is now. */
uint64_t machine_hash(void);

/* Compares all memory with the initial state: lines that changed and are not in images are added. Call it in any state. */
void machine_verify_images(void);
/* Something was learnt since the last call: images and stops were too few, explore again from the start. */
bool machine_has_learnt(void);
unsigned machine_stops(void);           /* addresses that matter */
size_t machine_image_bytes(void);

/* ---- reports ---- */

/* The first violation in a run counts. */
void violate(const char *format, ...) __attribute__((format(printf, 1, 2)));
extern char violation[512];

/* With a log: every access of a step is printed, with addresses named by @name. */
extern bool machine_log;
extern void (*machine_name)(const volatile void *at, char *text, size_t size);
/* Called at each change of four bytes of the heap by an actor. */
extern void (*machine_wrote)(int actor, const volatile void *at, uint32_t from, uint32_t to);
const char *actor_name(int actor);

#endif
