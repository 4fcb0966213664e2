#include "core/counted.h"

#include "core/region_map.h"

static uint64_t *tail_of(const struct la_page *page, const void *block)
{
    size_t bytes = page->kind == PAGE_SMALL ? page->block_size : page->large_size;

    return (uint64_t *)((uintptr_t)block + bytes - COUNTED_TAIL);
}

/* Not aligned: blocks of small buffers may end anywhere. */
static uint64_t read_tail(const struct la_page *page, const void *block)
{
    uint64_t size;

    __builtin_memcpy(&size, tail_of(page, block), sizeof(size));
    return size;
}

static void write_tail(const struct la_page *page, const void *block, uint64_t size)
{
    __builtin_memcpy(tail_of(page, block), &size, sizeof(size));
}

void counted_out(struct la_chain *chain, void *block, size_t size)
{
    if (!counted_tail(chain))
        return;
    write_tail(region_page(block), block, size);
    atomic_fetch_add_explicit(&chain->requested, size, memory_order_relaxed);
    atomic_fetch_add_explicit(&chain->counted_allocations, 1, memory_order_relaxed);
}

void counted_back(struct la_chain *chain, const struct la_page *page, const void *block)
{
    if (!counted_tail(chain))
        return;
    atomic_fetch_sub_explicit(&chain->requested, read_tail(page, block), memory_order_relaxed);
    atomic_fetch_add_explicit(&chain->counted_frees, 1, memory_order_relaxed);
}

uint64_t counted_size(const struct la_chain *chain, const struct la_page *page, const void *block)
{
    return counted_tail(chain) ? read_tail(page, block) : 0;
}

void counted_resized(struct la_chain *chain, const struct la_page *page, void *block, uint64_t old_size, size_t size)
{
    if (!counted_tail(chain))
        return;
    write_tail(page, block, size);
    atomic_fetch_add_explicit(&chain->requested, size - old_size, memory_order_relaxed);
}
