/* A shared heap of liballoc, by name, without the daemon. */
#include <stdio.h>
#include <stdlib.h>

#include <liballoc/error.h>
#include <liballoc/heap.h>

static struct la_heap *heap;

static void backend_check(int result)
{
    if (result < 0) {
        fprintf(stderr, "shared heap: %s\n", la_last_error());
        exit(2);
    }
}

static void backend_create(const char *name, size_t bytes)
{
    backend_check(la_heap_create(name, bytes, 0, &heap));
}

static void backend_attach(const char *name)
{
    backend_check(la_heap_attach(name, 0, &heap));
}

static void backend_remove(const char *name)
{
    backend_check(la_heap_remove(name));
}

static inline void *shared_alloc(size_t size)
{
    return la_heap_alloc(heap, size);
}

static inline void shared_free(void *block)
{
    la_free(block);
}

static inline uint64_t shared_word(void *block)
{
    return (uintptr_t)block;
}

static inline void *shared_block(uint64_t word)
{
    return (void *)(uintptr_t)word;
}
