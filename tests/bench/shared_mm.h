/* OSSP mm: a list of free chunks under a file lock. Forked children share it, other processes cannot: one process here. */
#include <stdio.h>
#include <stdlib.h>

#include <mm.h>

#include "shared_one_process.h"

static MM *heap;

/* Else the file of its lock stays in /tmp. */
static void backend_end(void)
{
    mm_destroy(heap);
}

static void backend_create(const char *name, size_t bytes)
{
    size_t most = mm_maxsize();

    (void)name;
    heap = mm_create(bytes < most ? bytes : most, NULL);
    if (!heap) {
        fprintf(stderr, "shared_mm: %s\n", mm_error());
        exit(2);
    }
    atexit(backend_end);
}

static inline void *shared_alloc(size_t size)
{
    return mm_malloc(heap, size);
}

static inline void shared_free(void *block)
{
    mm_free(heap, block);
}
