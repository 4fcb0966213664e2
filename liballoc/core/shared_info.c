/*
 * shared_info.c - what a shared heap tells of itself: sizes, processes, who holds a block. Others write what is read here at the same time.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "core/shared_block.h"
#include "os/certificate.h"

static uint32_t count_lanes(struct la_heap *heap, int64_t process)
{
    uint32_t n = 0;

    for (unsigned i = 1; i < heap_lanes(heap); i++) {
        uint32_t owner = (uint32_t)atomic_load_explicit(&heap->lane_table[i].owner, memory_order_relaxed);
        n += owner != 0 && (process < 0 || owner == process + 1);
    }
    return n;
}

void heap_copy_text(char *to, const char *from, size_t size)
{
    size_t i = 0;

    for (; i < size - 1 && from[i]; i++)
        to[i] = from[i] < ' ' || from[i] > '~' ? '?' : from[i];
    memset(to + i, 0, size - i);
}

static struct la_heap_process describe_process(struct la_heap *heap, unsigned slot)
{
    const struct heap_process *process = &heap->processes[slot];
    struct la_heap_process ret = { .slot = slot, .pid = atomic_load(&process->pid), .lanes = count_lanes(heap, slot),
                                   .alive = heap_process_is_alive(heap, slot), .self = slot == heap->process };

    heap_copy_text(ret.command, process->command, sizeof(ret.command));
    return ret;
}

int la_heap_holder(struct la_heap *heap, const void *address, struct la_heap_process *ret)
{
    struct block_ref block;
    uint32_t slot;
    word_t word;

    if (!heap_contains(heap, address))
        return la_fail(-EINVAL, "%p is not in heap %s", address, heap->header->name);
    if (!block_find(heap, address, &block))
        return la_fail(-ENOENT, "%p is in no block", address);
    word = atomic_load(block.word);
    if (word_state(word, block.epoch) != WORD_HELD && word_state(word, block.epoch) != WORD_IN_DOUBT)
        return la_fail(-ENOENT, "nobody holds the block around %p", address);
    /* The lane may be on its way to another process, and the word is anybody's work. */
    slot = (uint32_t)atomic_load(&heap->lane_table[word_lane(word)].owner) - 1;
    if (slot >= LA_HEAP_MAX_PROCESSES)
        return la_fail(-ENOENT, "the block around %p is held by lane %u, which no process has", address, word_lane(word));
    *ret = describe_process(heap, slot);
    return 0;
}

int la_heap_processes(struct la_heap *heap, struct la_heap_process *ret, size_t max)
{
    size_t n = 0;

    if (heap_check_attached(heap) < 0)
        return -ECHILD;
    for (unsigned i = 0; i < LA_HEAP_MAX_PROCESSES; i++) {
        struct heap_process *process = &heap->processes[i];

        if ((uint32_t)atomic_load(&process->state) == PROCESS_FREE)
            continue;
        if (n < max)
            ret[n] = describe_process(heap, i);
        n++;
    }
    return (int)n;
}

/* A huge page may hold parts of the tables, or many macro blocks: how many there are, the kernel says. */
static uint64_t committed_bytes(const struct la_heap *heap)
{
    struct stat st;

    if (heap_is_huge(heap) && fstat(heap->fd, &st) == 0)
        return (uint64_t)st.st_blocks * 512;
    return atomic_load(&heap->header->committed) + heap->header->trail_at;
}

int la_heap_info(struct la_heap *heap, struct la_heap_info *ret)
{
    struct la_heap_info info = { 0 };
    size_t size = ret ? ret->struct_size : 0;
    struct heap_header *h;
    uint32_t rows;

    if (heap_check_attached(heap) < 0)
        return -ECHILD;
    if (size < offsetof(struct la_heap_info, id) || size > 4 * sizeof(info))
        return la_fail(-EINVAL, "set struct_size to sizeof(struct la_heap_info) before the call");
    h = heap->header;
    rows = heap_rows(heap);
    memcpy(info.name, h->name, sizeof(info.name));
    info.id = h->id;
    info.address = (uintptr_t)heap->base;
    info.size = heap->size;
    info.committed = committed_bytes(heap);
    info.page_size = heap->page_size;
    info.macro_blocks = heap->macro_count;
    for (uint32_t i = 0; i < rows; i++)
        info.macro_blocks_used += owner_state(atomic_load_explicit(&heap->macros[i].owner, memory_order_relaxed)) != OWNER_NONE;
    info.processes = (uint32_t)la_heap_processes(heap, NULL, 0);
    info.lanes = count_lanes(heap, -1);
    info.recovered_processes = atomic_load(&h->recovered_processes);
    info.recovered_blocks = atomic_load(&h->recovered_blocks);
    info.recovered_bytes = atomic_load(&h->recovered_bytes);
    info.readers = certificate_is_held(heap->fd, READERS_SLOT) > 0;
    info.quarantined = atomic_load(&h->quarantined) != 0;
    memset(ret, 0, size);
    memcpy(ret, &info, MIN(size, sizeof(info)));
    ret->struct_size = size;
    return 0;
}
