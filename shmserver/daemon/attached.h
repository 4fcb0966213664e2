/*
 * attached.h - a process that has one of our heaps but no connection to us.
 *
 * Its heap's table has its number; but whoever is attached may write into that table, and the number is that of the process's own PID namespace. So
 * the kernel must say that the process which we see under that number has the heap's file mapped; before nobody is harmed for what a table says.
 */
#ifndef DAEMON_ATTACHED_H
#define DAEMON_ATTACHED_H

#include "shmserver/daemon/identity.h"
#include "shmserver/daemon/registry.h"

/*
 * Return: 0 with the process in @ret, for identity_deinit(); -ESRCH (no table has it), -EPERM (it cannot be told with certainty who that is).
 */
int attached_find(struct registry *registry, pid_t pid, struct identity *ret);

#endif
