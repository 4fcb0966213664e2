/*
 * holes.h - a page that somebody has punched out of a heap is no end of the daemon.
 *
 * Who may write into a heap may also punch holes into its file, and take the last huge page of the pool. Whoever touches the hole then gets SIGBUS: the daemon,
 * which looks into everybody's heaps, would die of it, and each one after it as well. So it has a handler, which puts zeros of its own where the
 * page was; the look goes on, at a heap that makes no sense, which the engine bears, and is the last one at this heap.
 */
#ifndef DAEMON_HOLES_H
#define DAEMON_HOLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Before any heap is looked into. */
void holes_install(void);

/* A heap is about to be mapped there. false: as many as can be are watched. */
bool holes_watch(uintptr_t address, size_t size, size_t page_size);
/* Something of it was not there. */
bool holes_found(uintptr_t address);
void holes_forget(uintptr_t address);

#endif
