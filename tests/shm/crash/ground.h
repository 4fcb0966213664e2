/*
 * ground.h - the heap of a scenario and its peers.
 */
#ifndef CRASH_GROUND_H
#define CRASH_GROUND_H

#include <sys/types.h>

#include "scenario.h"

/* A process that ends with this one; 0 in the child. */
pid_t ground_fork(void);
/* The end of a victim. */
void ground_die(void);

/* A new heap for @scenario, and an empty model. Return: descriptor of its file. */
int ground_make_heap(struct stage *stage, const struct scenario *scenario);
/* Let stage->path lead to @fd of this process. */
void ground_set_path(struct stage *stage, int fd);

/* One after the other, each until it has done its part. */
void ground_start_peers(struct stage *stage, const struct scenario *scenario, pid_t pids[MAX_PEERS]);
/* Kill those that live. */
void ground_end_peers(const struct stage *stage, const pid_t *pids, unsigned count);
/* Let a peer that lives run the scenario's resume(), to its end. Return: its status, stage->verdict.text says more. */
int ground_resume_peer(pid_t pid);

#endif
