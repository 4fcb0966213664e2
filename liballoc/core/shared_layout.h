/*
 * shared_layout.h - what lies in a shared heap's file. Everything is an index or an offset (R2), every change is one store of
 * one word (R11).
 *
 *   0        struct heap_header         identity, geometry, counters
 *            struct heap_process [256]  one per attached process
 *            struct heap_lane [4096]    one per thread that works in the heap; number 0 is never used
 *            struct heap_root [256]     named pointer words
 *            struct heap_notice [256]   what became of the dead: a ring, notice.c
 *            struct heap_trail [4096]   what a lane has in macro blocks of others: trail.h
 *   tables   struct heap_macro [n]      who owns a macro block, where in it others freed blocks
 *            struct heap_slice [32 n]   what a page is
 *            byte [32 n]                where the owner of the macro block holds blocks: trail.h
 *   payload  macro blocks of 2 MiB; slice 0 of each holds the state words of its small blocks
 *
 * State word of a block (R10), 32 bits:   | generation 12 | epoch 6 | state 2 | lane 12 |
 *   generation: changes whenever the block is freed or taken; tells a stale reader
 *   epoch:      of the page when the word was written; another one than the page's means free (la_heap_reset())
 * Blocks of whole slices have 64 bits: the same in the upper half, the length in bytes / 4096 below.
 *
 * Who may store: a word that is FREE: the owner of the macro block. HELD or IN_DOUBT by a lane: that lane; others only by
 * compare-and-swap. HEAP: anybody, by compare-and-swap; blocks of a bundle whose root was not published yet: its lane.
 */
#ifndef CORE_SHARED_LAYOUT_H
#define CORE_SHARED_LAYOUT_H

#include <stdatomic.h>

#include <liballoc/heap.h>

#include "core/types.h"

#define HEAP_MAGIC 0x70616568616cull    /* "laheap" */
enum { HEAP_LAYOUT_VERSION = 5, HEAP_LANES = LA_HEAP_MAX_LANES + 1 };

enum word_state { WORD_FREE = 0, WORD_HELD = 1, WORD_IN_DOUBT = 2, WORD_HEAP = 3 };

typedef uint32_t word_t;

#define WORD_LANE_BITS 12
#define WORD_EPOCH_BITS 6
#define WORD_GENERATION_BITS 12

static inline word_t word_make(unsigned generation, unsigned epoch, enum word_state state, unsigned lane)
{
    return (generation & ((1u << WORD_GENERATION_BITS) - 1)) << 20 | (epoch & ((1u << WORD_EPOCH_BITS) - 1)) << 14 |
           (unsigned)state << 12 | lane;
}

static inline unsigned word_generation(word_t w)
{
    return w >> 20;
}

static inline unsigned word_epoch(word_t w)
{
    return w >> 14 & ((1u << WORD_EPOCH_BITS) - 1);
}

static inline unsigned word_lane(word_t w)
{
    return w & ((1u << WORD_LANE_BITS) - 1);
}

/* The state as a page of @epoch means it. */
static inline enum word_state word_state(word_t w, unsigned epoch)
{
    return word_epoch(w) == epoch ? (enum word_state)(w >> 12 & 3) : WORD_FREE;
}

/* What a page is: one word, so that it comes and goes by one store. */
enum slice_kind { SLICE_FREE = 0, SLICE_SMALL, SLICE_LARGE, SLICE_HUGE, SLICE_WORDS, SLICE_CONTINUED };

/* | kind 4 | class 8 | slices 8 | epoch 6 | - 6 | words: granule 16 | - 16 |; CONTINUED: slices is the distance to the head */
typedef uint64_t slice_t;

static inline slice_t slice_make(enum slice_kind kind, unsigned size_class, unsigned slices, unsigned epoch, unsigned words)
{
    return (slice_t)kind << 60 | (slice_t)size_class << 52 | (slice_t)slices << 44 | (slice_t)epoch << 38 | (slice_t)words << 16;
}

static inline enum slice_kind slice_kind(slice_t s)
{
    return (enum slice_kind)(s >> 60);
}

static inline unsigned slice_class(slice_t s)
{
    return s >> 52 & 0xff;
}

static inline unsigned slice_count(slice_t s)
{
    return s >> 44 & 0xff;
}

static inline unsigned slice_epoch(slice_t s)
{
    return s >> 38 & 0x3f;
}

/* Where the page's state words lie in the macro block, in granules of 64 words. */
static inline unsigned slice_words(slice_t s)
{
    return s >> 16 & 0xffff;
}

enum { WORDS_PER_GRANULE = 64, GRANULES_PER_SLICE = (1 << SLICE_SHIFT) / (WORDS_PER_GRANULE * sizeof(word_t)) };

struct heap_slice {
    _Atomic(slice_t) page;
    _Atomic(uint64_t) run;      /* state word and length of a block of whole slices */
};

/*
 * Owner of a macro block: | head 32 | state 8 | lane 16 |.
 *   NONE -> CLAIMING by a lane -> LANE (its pages are that lane's) -> NONE, or ABANDONED by recovery -> LANE of an adopter
 *   NONE -> CLAIMING -> RUN: part of a block of several macro blocks; head: the first of them
 */
enum macro_owner_state { OWNER_NONE = 0, OWNER_CLAIMING, OWNER_LANE, OWNER_ABANDONED, OWNER_RUN };

static inline uint64_t owner_make(enum macro_owner_state state, unsigned lane)
{
    return (uint64_t)state << 16 | lane;
}

static inline uint64_t owner_run(uint32_t head)
{
    return (uint64_t)head << 32 | (uint64_t)OWNER_RUN << 16;
}

static inline uint32_t owner_head(uint64_t o)
{
    return (uint32_t)(o >> 32);
}

static inline enum macro_owner_state owner_state(uint64_t o)
{
    return (enum macro_owner_state)(o >> 16 & 0xff);
}

static inline unsigned owner_lane(uint64_t o)
{
    return o & 0xffff;
}

/*
 * Hints: one byte per 2 KiB of payload, set by whoever frees a block of another lane that begins there, cleared by the owner
 * before it looks at the state words. Bytes, so that setting one is a plain store; so fine that the owner of 32 byte blocks looks at one
 * line of state words, not at those of the whole page.
 */
enum { HINT_SHIFT = 11, HINTS_PER_SLICE = 1 << (SLICE_SHIFT - HINT_SHIFT), HINTS_PER_MACRO = HINTS_PER_SLICE * SLICES_PER_MACRO };

struct heap_macro {
    _Atomic(uint64_t) owner;
    _Atomic(uint32_t) committed;        /* its pages were allocated by fallocate() */
    uint8_t unused[52];
    _Atomic(uint8_t) hinted;            /* some byte of hint is set; set after it, cleared before */
    uint8_t unused_too[63];             /* a line that freers write, apart from the one they read */
    _Atomic(uint8_t) hint[HINTS_PER_MACRO];
};

_Static_assert(sizeof(struct heap_macro) == 128 + HINTS_PER_MACRO, "whole cache lines");

/* Process slot: | incarnation 32 | state 32 |. */
enum process_state { PROCESS_FREE = 0, PROCESS_ATTACHED = 1 };

struct heap_process {
    _Atomic(uint64_t) state;
    _Atomic(int32_t) pid;       /* for people */
    char command[16];
    _Atomic(uint32_t) heir;     /* 1 + index of the root that names it; 0: none */
    _Atomic(uint32_t) trail_lost;   /* trail.h */
    uint8_t unused[28];
};

_Static_assert(sizeof(struct heap_process) == 64, "one cache line");

enum intent_op { INTENT_NONE = 0, INTENT_PUBLISH, INTENT_TAKE, INTENT_QUEUE_PUSH, INTENT_QUEUE_POP, INTENT_SWAP, INTENT_LAST = INTENT_SWAP };

/*
 * A lane. All fields but owner are written by the lane alone, and read by whoever recovers it or helps it.
 *   owner: | incarnation 32 | process slot + 1, 32 |; 0 in the lower half: free; LANE_LEFT | index of a root: what it holds is left to the heir that the
 *          root names, the lane is nobody's (heir.c)
 */
#define LANE_LEFT 0x80000000u

struct heap_lane {
    _Atomic(uint64_t) owner;
    _Atomic(uint32_t) op;               /* enum intent_op; stored last when an intent begins, first when it ends */
    _Atomic(uint32_t) generation;       /* of the block when the intent began */
    _Atomic(uint64_t) sequence;         /* of intents; never goes back, also when the lane is lent to somebody else */
    _Atomic(uint64_t) link;             /* offset of the word */
    _Atomic(uint64_t) block;            /* offset of the block; swap: of the old one, 0: there is none */
    _Atomic(uint64_t) record;           /* bundle: offset of its first record, else 0; queue pop: what the slot will hold */
    _Atomic(uint64_t) next_offset;      /* take: where in the block the replacement lies, or LA_NO_NEXT; queue: the slot's word with the block */
    /* Swap: the new block, 0: none; and the version that the root must have. */
    _Atomic(uint64_t) other;
    _Atomic(uint64_t) version;
    _Atomic(uint32_t) other_generation;
    _Atomic(uint32_t) has_row;          /* in the table of struct heap_trail; never taken back */
    /* Numbers that the user gives to operations; 0: none. */
    _Atomic(uint64_t) operation;        /* what is begun from now on has this number */
    _Atomic(uint64_t) happened;         /* the last one that happened; stored before its intent ends */
    _Atomic(uint64_t) freeing;          /* offset of a block of others that it frees; 0: none */
    uint8_t unused[24];
};

_Static_assert(sizeof(struct heap_lane) == 128, "two cache lines: neighbours do not share one");

/* See trail.h. In the table of marks, one per slice: its owner holds a block there; it is looking whether it still does. */
enum { MARK_NONE = 0, MARK_HELD, MARK_DOUBTED };

enum { TRAIL_ENTRIES = 32 };

/* Offsets of blocks; 0: none. */
struct heap_trail {
    _Atomic(uint64_t) block[TRAIL_ENTRIES];
};

enum root_state { ROOT_FREE = 0, ROOT_NAMING, ROOT_NAMED };

/* Roots are named in the order of the table and never unnamed. state: | hash of the name 62 | enum root_state 2 |. */
struct heap_root {
    _Atomic(uint64_t) state;
    _Atomic(uintptr_t) value;
    _Atomic(uint64_t) version;          /* swaps that happened; changes only while value has the mark of one */
    char name[LA_HEAP_NAME_MAX + 1];
    uint8_t unused[40];
};

_Static_assert(sizeof(struct heap_root) == 128, "two cache lines");

enum { HEAP_NOTICES = 256, NOTICE_WORDS = 15 };

/* word: notice.c. The rest is of the notice that it names, once that is complete. */
struct heap_notice {
    _Atomic(uint64_t) word;
    _Atomic(uint64_t) data[NOTICE_WORDS];
};

_Static_assert(sizeof(struct heap_notice) == 128, "two cache lines");

struct heap_header {
    uint64_t magic;             /* written last by la_heap_format() */
    uint32_t layout_version;
    uint32_t word_bits;         /* 64: pointers of both kinds are the same size in all processes */
    uint64_t layout_hash;       /* of the sizes and offsets of this file */
    uint64_t size;              /* of the file */
    uint64_t address;           /* where it is mapped */
    uint64_t id;
    char name[LA_HEAP_NAME_MAX + 1];
    uint32_t macro_count;
    uint32_t unused;
    uint64_t processes_at, lanes_at, roots_at, notices_at, trail_at, macros_at, slices_at, marks_at, payload_at;
    /* From here on it changes. Counters: anybody adds. */
    _Alignas(64) _Atomic(uint32_t) quarantined;
    _Atomic(uint32_t) next_macro;       /* where to look for a free one: a hint */
    _Atomic(uint32_t) abandoned;        /* grows when macro blocks begin to wait for an adopter */
    _Atomic(uint32_t) rows;             /* macro blocks whose rows in the tables are committed; only grows */
    _Atomic(uint32_t) lanes;            /* all that were ever lent have numbers below; only grows */
    _Atomic(uint32_t) starved;          /* grows when a lane gets no macro block: others look for what they can do without */
    _Atomic(uint64_t) committed;        /* bytes */
    _Atomic(uint64_t) recovered_processes, recovered_blocks, recovered_bytes;
    _Atomic(uint64_t) notices;          /* posted; the next one's number, or one before it */
};

/* Of everything that two libraries must have in common beside the version: sizes, places of fields, constants of the geometry. */
#define HASH_STEP(hash, number) (((hash) ^ (uint64_t)(number)) * 0x100000001b3u)
#define HASH_PLACE(hash, type, field) HASH_STEP(HASH_STEP(hash, offsetof(struct type, field)), sizeof(((struct type *)0)->field))
#define HASH_HEADER HASH_PLACE(HASH_PLACE(HASH_STEP(0xcbf29ce484222325u, sizeof(struct heap_header)), heap_header, lanes), heap_header, notices)
#define HASH_PROCESS HASH_PLACE(HASH_PLACE(HASH_STEP(HASH_HEADER, sizeof(struct heap_process)), heap_process, heir), heap_process, trail_lost)
#define HASH_LANE_1 HASH_PLACE(HASH_PLACE(HASH_STEP(HASH_PROCESS, sizeof(struct heap_lane)), heap_lane, op), heap_lane, sequence)
#define HASH_LANE_2 HASH_PLACE(HASH_PLACE(HASH_PLACE(HASH_LANE_1, heap_lane, next_offset), heap_lane, other), heap_lane, happened)
#define HASH_LANE HASH_STEP(HASH_PLACE(HASH_PLACE(HASH_LANE_2, heap_lane, has_row), heap_lane, freeing), sizeof(struct heap_trail))
#define HASH_ROOT HASH_PLACE(HASH_PLACE(HASH_STEP(HASH_LANE, sizeof(struct heap_root)), heap_root, version), heap_root, name)
#define HASH_MACRO HASH_PLACE(HASH_PLACE(HASH_STEP(HASH_ROOT, sizeof(struct heap_macro)), heap_macro, hinted), heap_macro, hint)
#define HASH_SLICE HASH_STEP(HASH_PLACE(HASH_STEP(HASH_MACRO, sizeof(struct heap_slice)), heap_slice, run), sizeof(struct heap_notice))
#define HASH_GEOMETRY HASH_STEP(HASH_STEP(HASH_STEP(HASH_SLICE, SMALL_CLASSES), SLICE_SHIFT), MACRO_SIZE)
#define HASH_TABLES HASH_STEP(HASH_STEP(HASH_STEP(HASH_GEOMETRY, HEAP_LANES), LA_HEAP_MAX_PROCESSES), LA_HEAP_MAX_ROOTS)
#define HASH_WORDS HASH_STEP(HASH_STEP(HASH_STEP(HASH_TABLES, WORD_GENERATION_BITS), WORD_EPOCH_BITS), WORD_LANE_BITS)
#define HEAP_LAYOUT_HASH HASH_STEP(HASH_STEP(HASH_STEP(HASH_WORDS, HEAP_NOTICES), INTENT_LAST), MARK_DOUBTED)

#endif
