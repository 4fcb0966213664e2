/*
 * world.h - a daemon inside of the fuzzer's process: its real server, without a program around it.
 *
 * It has one heap, "a", of user USER_A. What clients could bring along lies ready beside it: descriptors of many kinds, among them the file of
 * a heap "old" that an earlier daemon has made. Every input begins in the same state: world_reset() makes a new daemon only if the last input has
 * changed what this one knows, and aborts if a descriptor is left over.
 */
#ifndef TESTS_FUZZ_WORLD_H
#define TESTS_FUZZ_WORLD_H

#include "shmserver/daemon/server.h"

/* USER_A and USER_B are in the group that may use the daemon, the stranger is not. */
enum world_user { USER_ROOT, USER_A, USER_B, USER_STRANGER, USERS };
enum { UID_A = 1001, UID_B = 1002, UID_STRANGER = 1003, GID_ALLOWED = 5001, GID_STRANGER = 5002, HEAP_SIZE = 8 << 20 };

/* Kinds of descriptors that a client may send. */
enum world_fd {
    FD_NULL, FD_PIPE, FD_SOCKET, FD_FOLDER, FD_DAEMON_SOCKET,
    FD_MEMFD,           /* not sealed, no label */
    FD_SEALED,          /* sealed as a heap's file, no label */
    FD_LABELLED,        /* sealed, labelled, private; no heap in it */
    FD_WRONG_LABEL,     /* the same, with a label that says nonsense */
    FD_HEAP,            /* the daemon's own */
    FD_HEAP_READ_ONLY,
    FD_OLD,             /* of a heap that this daemon does not know, and an earlier one has made */
    FD_OLD_OPEN_MODE,   /* the same, open to other users: not as we make it */
    FD_KINDS
};

struct world {
    struct server server;
    int fds[FD_KINDS];
    uint64_t heap_id, old_id;
    uint64_t old_size;
    uintptr_t old_address;
};

extern struct world world;

/* Once: descriptors, no daemon yet. */
void world_prepare(void);
/* The same, and the first daemon. */
void world_init(void);

/* At the beginning of an input, and at its end: abort if a descriptor is left over. (Between two, libFuzzer may open some of its own.) */
void world_note_descriptors(void);
void world_check_descriptors(void);

/* Options that a daemon of this world is started with. */
extern const struct server_options world_options;

/* A daemon with what is left in @inherited, beside a listening socket. Return: as server_init(). */
int world_start(struct named_fds *inherited);

/* Whatever the input has done, the next one finds the first state. */
void world_reset(void);

/* One end of a connection of that user, as the kernel sees it; the other end goes to the daemon. Return: -1: refused. */
int world_connect(enum world_user user, int type, int *daemon_end);

/* The file that an earlier daemon has made, for a daemon that inherits it. */
int world_copy_old(void);

#endif
