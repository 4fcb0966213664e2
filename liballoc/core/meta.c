#include "core/meta.h"

#include <string.h>

#include "base/lock.h"
#include "os/os.h"

enum { MIN_SHIFT = 6, MAX_SHIFT = 22, CHUNK = 256 << 10 };

struct free_node {
    struct free_node *next;
};

static struct la_lock meta_lock = LOCK_INIT(RANK_META);
static struct free_node *free_nodes[MAX_SHIFT + 1];
static char *chunk_at, *chunk_end;

static unsigned shift_of(size_t size)
{
    unsigned shift = size <= ((size_t)1 << MIN_SHIFT) ? MIN_SHIFT : 64 - (unsigned)__builtin_clzll(size - 1);
    return shift;
}

static void *bump(size_t size)
{
    void *p;

    if (size > CHUNK / 4)
        return os_map(align_up(size, os_page_size()));
    if ((size_t)(chunk_end - chunk_at) < size) {
        char *chunk = os_map(CHUNK);
        if (!chunk)
            return NULL;
        chunk_at = chunk;
        chunk_end = chunk + CHUNK;
    }
    p = chunk_at;
    chunk_at += size;
    return p;
}

void *la_meta_alloc(size_t size)
{
    unsigned shift = shift_of(size);
    struct free_node *p;

    if (shift > MAX_SHIFT)
        return os_map(align_up(size, os_page_size()));
    lock_take(&meta_lock);
    p = free_nodes[shift];
    if (p)
        free_nodes[shift] = p->next;
    lock_give(&meta_lock);
    if (p)
        return memset(p, 0, (size_t)1 << shift);
    lock_take(&meta_lock);
    p = bump((size_t)1 << shift);
    lock_give(&meta_lock);
    return p;
}

void la_meta_free(void *p, size_t size)
{
    unsigned shift = shift_of(size);
    struct free_node *node = p;

    if (!p)
        return;
    if (shift > MAX_SHIFT) {
        os_unmap(p, align_up(size, os_page_size()));
        return;
    }
    lock_take(&meta_lock);
    node->next = free_nodes[shift];
    free_nodes[shift] = node;
    lock_give(&meta_lock);
}

void meta_fork_prepare(void)
{
    lock_take(&meta_lock);
}

void meta_fork_done(bool child)
{
    if (child)
        lock_reset(&meta_lock);
    else
        lock_give(&meta_lock);
}
