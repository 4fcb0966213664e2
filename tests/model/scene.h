/*
 * scene.h - what the files of a scenario have in common: the blocks that are followed, the books of each lane; what scenario.c asks of the others.
 */
#ifndef MODEL_SCENE_H
#define MODEL_SCENE_H

#include "core/shared_block.h"
#include "machine.h"
#include "scenario.h"

/* Process slots: of the lanes, then of the one who died before the start (scenario_heirs.c). */
enum { NODE_SIZE = 8000, FIRST_SLOT = 200, SLOT_BEFORE = FIRST_SLOT + LANES };

/* A block whose state word is followed. */
struct watched {
    struct block_ref ref;
};

extern const struct scenario *scene;
extern struct watched watched[MAX_WATCHED];
extern unsigned watched_count;

static inline struct actor *me(int actor)
{
    return &world.actor[actor];
}

/* The number of its lane in the heap, also within the step that lends it; 0: it has none. */
unsigned lane_number(int actor);
struct watched *watched_at(const void *block);
word_t word_now(const struct watched *w);
enum word_state state_now(const struct watched *w);
unsigned block_number(const void *block);
void put_in_hand(int actor, void *block);
/* Whatever it was, it is an object of its own now. */
void put_alone_in_hand(int actor, void *block);

/* From now on the calling thread has @lane; NULL: none. */
void use_lane(struct lane *lane);

/* ---- scenario_heirs.c ---- */

/* One who dies before the start leaves blocks to the heir. Before the lanes are made. */
void heir_set_up(void);
/* What the letters of @actor at the start say. Its process is there. */
void heir_begin(int actor);
/* Return: the letter is one of scenario_heirs.c. */
bool heir_run_letter(int actor, char letter);
/* What is left already. When the blocks are known. */
void heir_begin_books(void);
/* It is dead. */
void heir_note_kill(int actor);
/* The word of block @n has changed. */
void heir_note_change(unsigned n, word_t from, word_t to);
/* By inheriting, or by a recovery that leaves something (M1). */
bool heir_may_change(int actor, word_t from, word_t to, unsigned epoch);
bool heir_has_left(const struct watched *w);
void heir_check_end(void);

/* ---- scenario_notices.c ---- */

void notice_set_up(void);
bool notice_run_letter(int actor, char letter);
/* An operation has changed what is in its hands. */
void notice_operation_happened(int actor);
/* After each step, also of others. */
void notice_check_step(void);
/* @listed: ids of objects on the list, or in the queue. */
void notice_check_end(uint64_t listed);
bool notice_name(const char *at, char *text, size_t size);

#endif
