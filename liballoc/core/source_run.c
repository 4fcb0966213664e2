/*
 * source_run.c - runs of macro blocks, for blocks that are larger than one.
 */
#include "core/source_parts.h"

#include "core/macroblock.h"

static bool run_fits(const struct la_segment *s, uint32_t at, uint32_t n)
{
    for (uint32_t i = at; i < at + n; i++)
        if (s->macros[i].state != MACRO_FREE)
            return false;
    return true;
}

/* The offset from macro block @at's start to the next multiple of @alignment. */
static size_t aligned_offset(const struct la_segment *s, uint32_t at, size_t alignment)
{
    uintptr_t address = macro_address(&s->macros[at]);

    return align_up(address, alignment) - address;
}

static bool find_run(const struct la_segment *s, size_t bytes, size_t alignment, uint32_t *at, uint32_t *n)
{
    size_t macro_size = (size_t)SLICES_PER_MACRO << s->slice_shift;

    for (uint32_t i = 0; i < s->macro_count; i++) {
        size_t need = aligned_offset(s, i, alignment) + bytes;
        size_t offset = (size_t)i * macro_size;

        if (need < bytes || offset + need > s->usable)
            continue;
        *n = (uint32_t)((need + macro_size - 1) / macro_size);
        if (i + *n <= s->macro_count && run_fits(s, i, *n)) {
            *at = i;
            return true;
        }
    }
    return false;
}

static struct la_page *claim_run(struct la_source *source, struct la_segment *s, uint32_t at, uint32_t n, size_t alignment)
{
    struct la_page *page = &s->pages[(size_t)at * SLICES_PER_MACRO];
    size_t total = 0;

    for (uint32_t i = at; i < at + n; i++) {
        struct la_macro *m = &s->macros[i];

        source_free_drop(source, m);
        m->state = MACRO_RUN;
        m->dirty = 1;
        total += macro_bytes(m);
    }
    page->kind = PAGE_HUGE;
    page->macro = &s->macros[at];
    page->slices = (uint16_t)MIN(n * SLICES_PER_MACRO, (uint32_t)UINT16_MAX);
    page->start = slice_address(s, page) + aligned_offset(s, at, alignment);
    page->mapping = (void *)slice_address(s, page);
    page->mapping_size = total;
    page->large_size = total - (page->start - (uintptr_t)page->mapping);
    return page;
}

static struct la_page *take_run_on(struct la_source *source, unsigned node, size_t bytes, size_t alignment)
{
    struct la_page *page = NULL;
    uint32_t at, n;

    lock_take(&source->lock);
    for (struct la_segment *s = source->segments; s && !page; s = s->next)
        if (s->node == node && find_run(s, bytes, alignment, &at, &n))
            page = claim_run(source, s, at, n, alignment);
    lock_give(&source->lock);
    return page;
}

static struct la_page *take_run_elsewhere(struct la_source *source, unsigned node, size_t bytes, size_t alignment)
{
    unsigned count = source->ops.strict ? 1 : source->node_count;
    struct la_page *page = NULL;

    for (unsigned i = 1; i < count && !page; i++)
        page = take_run_on(source, (node + i) % count, bytes, alignment);
    return page;
}

struct la_page *source_take_run(struct la_source *source, const struct la_chain *chain, size_t bytes, size_t alignment)
{
    unsigned node = source_node_for(source, chain);
    struct la_page *page = take_run_on(source, node, bytes, alignment);

    if (page || bytes + alignment < bytes)
        return page;
    if (!source_grow(source, node, bytes + (alignment > SLICE_SIZE ? alignment : 0)))
        return take_run_elsewhere(source, node, bytes, alignment);
    return take_run_on(source, node, bytes, alignment);
}

void source_give_run(struct la_source *source, struct la_page *page)
{
    struct la_macro *m = page->macro;
    size_t left = page->mapping_size;

    lock_take(&source->lock);
    page->kind = PAGE_NONE;
    while (left > 0) {
        left -= macro_bytes(m);
        m->free_slices = m->all_slices;
        source_free_push(source, m);
        m++;
    }
    source_apply_policy(source);
    lock_give(&source->lock);
}
