/*
 * stage.h - what the processes of one scenario share: where its heap is, and which blocks its model knows.
 *
 * A scenario runs in processes of its own: peers that prepare the ground, the victim that is traced, and for each image a fresh checker.
 * All of them are forks of processes that never attached a heap, and see this one struct through shared memory.
 */
#ifndef CRASH_STAGE_H
#define CRASH_STAGE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <liballoc/liballoc.h>

enum { MAX_TRACKED = 20000, MAX_MADE = 128, MAX_PEERS = 4, NOTES = 16, STAGE_OPERATION = 7 };

/* What may become of a block by the death of the victim, after recovery. Whatever no entry names must be free. */
enum fate {
    LIVE,       /* outlives everything, and nobody touches its bytes */
    EITHER,     /* the operation allocates or frees it: live before or after */
    LINKED,     /* live exactly while the roots lead to it */
    PEER_HELD,  /* held by a peer that is alive, or by the checker */
    LEFT,       /* live; the roots lead to it, or the dead have left it to an heir */
    EITHER_LEFT,    /* left to an heir, or free */
};

struct tracked {
    uint64_t offset, size;
    uint32_t fate;
    uint32_t filled;        /* bytes written by fill(), 0: none; at least sizeof(struct object): its links are followed */
};

/* What a checker found in one image. */
struct verdict {
    uint32_t bad;
    uint32_t dead;          /* processes recovered */
    bool happened;          /* la_heap_outcome(), if the operation has a number */
    uint64_t live;          /* bit i: the i-th of the blocks that are EITHER or LINKED is live */
    uint64_t capacity;      /* how many slices could still be allocated; only if asked for */
    char text[300];
};

struct stage {
    size_t heap_size;
    uintptr_t address;
    char path[64];                  /* opened anew by each process: a description of its own */
    uint32_t peers;                 /* that ran */
    uint32_t peer_slot[MAX_PEERS];
    bool peers_alive;
    _Atomic(uint32_t) arrived;      /* peers that have done their part */
    bool finished;                  /* the victim was not killed before the end */
    uintptr_t note[NOTES];          /* of the scenario */
    uint32_t made_count;
    struct { uintptr_t block; uint64_t size; } made[MAX_MADE];
    struct verdict verdict;
    uint32_t tracked_count;
    struct tracked tracked[MAX_TRACKED];    /* last: checkers copy what is used */
};

/* One process of a scenario. */
struct actor {
    struct stage *stage;
    struct la_heap *heap;           /* NULL: not attached yet */
    const char *wrong;              /* checkers: set by an audit */
};

/* A block with links, for everything that is reached from roots. */
struct object {
    uint64_t magic;
    la_link next;
    la_link part;
    struct la_mutex mutex;
    uint32_t number;
};

void *stage_track(struct actor *a, void *block, size_t size, enum fate fate);
/* A block that the operation allocated, EITHER: cheap while it is traced, tracked by stage_track_made() afterwards. */
void stage_made(struct actor *a, void *block, size_t size);
void stage_track_made(struct actor *a);
/* The same as stage_track(), and its bytes are written, to be verified in each image. */
void *stage_fill(struct actor *a, void *block, size_t size, enum fate fate);
void stage_forget(struct actor *a, void *block);
/* From here on the block has another fate. */
void stage_change(struct actor *a, void *block, enum fate fate);
bool stage_is_whole(const struct stage *stage, const struct tracked *t);

void stage_attach(struct actor *a, unsigned flags);
/* A scenario cannot go on: reported as such, never as a finding. */
void stage_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* Hold the certificates of the peers, as if they lived; @descriptors: to be closed when they die. */
void stage_play_peers(const struct stage *stage, int descriptors[MAX_PEERS]);

/* Die at the first store after which @now() is true. */
void stage_die_when(struct actor *a, bool (*now)(void *), void *user);

la_link *stage_root(struct actor *a, const char *name);

#endif
