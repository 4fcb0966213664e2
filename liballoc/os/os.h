/*
 * os.h - what the engine needs of the machine: anonymous memory, time, randomness. All keep errno.
 */
#ifndef OS_OS_H
#define OS_OS_H

#include "base/util.h"

/* Bytes; constant during a process. */
size_t os_page_size(void);

/* Zeroed, private, readable and writable, committed on first touch; NULL when the system refuses. */
void *os_map(size_t size);
/* The same, aligned to @alignment (a power of two above the page size). */
void *os_map_aligned(size_t size, size_t alignment);
void os_unmap(void *p, size_t size);

/*
 * Change a mapping's length, moving it to an address aligned to @alignment if it cannot stay. @accept is asked whether the
 * new address will do, before anything has moved; NULL: any. NULL: refused, the old mapping is untouched.
 */
void *os_remap(void *p, size_t old_size, size_t new_size, size_t alignment, bool (*accept)(void *target));

/* Give the pages back, keep the addresses; they read as zero afterwards. 0 or a negative errno. */
int os_purge(void *p, size_t size);

/* Map what is about to be read of a file at once, so that not each page is a fault; if the kernel can (Linux 5.14). @p: of a page. */
void os_populate(const void *p, size_t size);

/* Monotonic time in ms, cheap and coarse: for ages only. */
uint64_t os_now_ms(void);

/* Never fails: falls back to time and addresses. */
uint64_t os_random(void);

#endif
