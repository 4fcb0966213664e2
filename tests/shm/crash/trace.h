/*
 * trace.h - run a piece of code instruction by instruction and log what each one does to a file.
 */
#ifndef CRASH_TRACE_H
#define CRASH_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { TRACE_PAGE = 4096 };

enum trace_mode {
    TRACE_STORES,       /* stop at the instructions that store into the heap only */
    TRACE_STEPS,        /* stop after every instruction */
};

/* One page of the file as instruction @step left it; step 0: as it was before. */
struct trace_change {
    uint64_t step;
    uintptr_t at;       /* address of the instruction */
    uint32_t page;
};

/* Shared by the traced process and the one that reads the log. Reserved address space; memory as it is used. */
struct trace {
    size_t file_size;
    uint32_t max_changes;
    char *pages;                    /* what the changes left, TRACE_PAGE bytes each */
    struct trace_change *changes;
    /* Written by the traced process. */
    uint32_t change_count;
    uint64_t steps;                 /* instructions stopped at */
    bool overflow;                  /* max_changes did not suffice */
    uintptr_t fault_at, fault_address;  /* it crashed: instruction and address */
};

/* NULL: out of memory. */
struct trace *trace_create(size_t file_size, uint32_t max_changes);
void trace_destroy(struct trace *trace);

/*
 * In the process to be traced, single-threaded: from here on, until trace_end(), changes of @file are logged. @base: where the process has
 * mapped it, or will map it by mmap() at this very address (@mapped: it has).
 */
void trace_begin(struct trace *trace, enum trace_mode mode, int file, uintptr_t base, bool mapped);
void trace_end(void);

/*
 * Without a log: kill the calling process at the first store into the heap after which @now() is true. For peers that have to die in
 * the middle of an operation.
 */
void trace_die_when(bool (*now)(void *), void *user, int file, size_t size, uintptr_t base);

#endif
