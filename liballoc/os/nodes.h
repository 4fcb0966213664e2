/*
 * nodes.h - the machine's NUMA nodes. By raw system calls and /sys, no libnuma; a machine that tells nothing of nodes has one.
 */
#ifndef OS_NODES_H
#define OS_NODES_H

#include "base/util.h"

/* Nodes are 0 to this - 1; not all of them need have memory, or be there yet. Constant during a process. */
unsigned os_node_count(void);

/* Of the processor that the calling thread runs on: it may be on another one at the next instruction. */
unsigned os_node_here(void);

/*
 * Bytes of small pages that @node can give before the kernel kills for them: free ones and some page cache. SIZE_MAX: not known;
 * 0: no such node. A snapshot, for refusing what is hopeless.
 */
size_t os_node_headroom(unsigned node);

#endif
