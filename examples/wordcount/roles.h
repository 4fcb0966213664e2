/* roles.h - what a wordcount process can be. Each is started by exec() and knows the heap by its name only. */
#ifndef WORDCOUNT_ROLES_H
#define WORDCOUNT_ROLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How the coordinator kills one of its workers. */
enum kill_way {
    KILL_NONE,
    KILL_BUNDLE,        /* at a seeded step with an open bundle: many blocks in hand */
    KILL_STEP,          /* at any seeded step */
    KILL_TIME,          /* from outside, after a seeded time */
};

struct options {
    const char *heap, *socket;          /* socket: NULL: embedded heap */
    size_t heap_mib;                    /* 0: enough for the job */
    unsigned workers;
    uint64_t seed;
    enum kill_way kill;
    unsigned top;                       /* words to print; 0: all, in no order */
    uint32_t number;                    /* of this worker, from 1 */
    uint64_t die_at;                    /* steps.h */
    bool die_in_bundle;
};

/* Each returns the exit status. The coordinator reads the files' names, each with a NUL, from standard input. */
int run_coordinator(const struct options *options);
int run_worker(const struct options *options);
int run_reader(const struct options *options);
int run_summary(const struct options *options);
int run_remove(const struct options *options);

/* Print "wordcount: WHAT: REASON"; @code is the negative errno that a call returned. Return: EXIT_FAILURE. */
int complain(const char *what, int code);

#endif
