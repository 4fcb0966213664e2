/*
 * check.c - the equations of core/types.h, as code.
 */
#include <stdarg.h>

#include <liballoc/stats.h>

#include "base/fmt.h"
#include "core/macroblock.h"
#include "core/page.h"
#include "core/pool.h"
#include "core/region_map.h"
#include "core/size_class.h"
#include "core/source.h"
#include "core/thread.h"

struct check {
    void (*report)(void *user, const char *line);
    void *user;
    unsigned findings;
    const struct la_chain *only_own;    /* bins and lists of other threads' chains move while we look */
};

static void finding(struct check *check, const char *format, ...) PRINTF_LIKE(2, 3);

static void finding(struct check *check, const char *format, ...)
{
    char line[200];
    va_list args;

    check->findings++;
    if (!check->report)
        return;
    va_start(args, format);
    la_vformat(line, sizeof(line), format, args);
    va_end(args);
    check->report(check->user, line);
}

static void check_small(struct check *check, const struct la_chain *chain, struct la_page *page)
{
    const char *wrong = page_check(page);

    if (wrong)
        finding(check, "page %p: %s", (void *)page->start, wrong);
    if (page_has_free(page) != (page->listed == 1))
        finding(check, "page %p: has free blocks %d, listed %d (E2)", (void *)page->start, page_has_free(page), page->listed);
    if (atomic_load_explicit(&page->chain, memory_order_relaxed) != chain)
        finding(check, "page %p: belongs to another chain than its macro block (E6)", (void *)page->start);
}

static void check_macro(struct check *check, const struct la_chain *chain, struct la_macro *m)
{
    uint32_t seen = m->free_slices;

    for (unsigned i = 0; i < SLICES_PER_MACRO; i++) {
        struct la_page *page = macro_page(m, i);

        if (!(m->all_slices & (1u << i)) || page->kind == PAGE_NONE)
            continue;
        if (seen & bits_run(i, page->slices))
            finding(check, "macro block %p: slice %u is in two places (E3)", (void *)macro_address(m), i);
        seen |= bits_run(i, page->slices);
        if (segment_is_direct(m->segment) && region_page((void *)slice_address(m->segment, page)) != page)
            finding(check, "page %p: not in the region map (E5)", (void *)page->start);
        if (page->kind == PAGE_SMALL)
            check_small(check, chain, page);
    }
    if (seen != m->all_slices)
        finding(check, "macro block %p: slices %#x are neither free nor in a page (E3)", (void *)macro_address(m),
                m->all_slices & ~seen);
    if (bits_longest_run(m->free_slices) != m->run)
        finding(check, "macro block %p: longest run %u, listed under %u (E4)", (void *)macro_address(m),
                bits_longest_run(m->free_slices), m->run);
}

static bool is_of_class(const struct la_page *page, unsigned c, const void *block)
{
    if (!page || page->size_class != c)
        return false;
    return c < SMALL_CLASSES ? page->kind == PAGE_SMALL && page_is_block_start(page, block)
                             : page->kind == PAGE_LARGE && page->start == (uintptr_t)block;
}

static void check_bin(struct check *check, const struct la_chain *chain, unsigned c)
{
    for (unsigned i = pool_bin_count(chain, c); i > 0; i--) {
        void *block = chain->rooms[c].base[i];

        if (!is_of_class(region_page(block), c, block))
            finding(check, "bin %u: %p is no block of %zu bytes", c, block, class_size(c));
    }
}

static void check_chain(struct la_chain *chain, void *arg)
{
    struct check *check = arg;
    bool mt = chain->flags & LA_CHAIN_MT;

    if (source_is_lost(chain->source) || (check->only_own && chain != check->only_own && !mt))
        return;
    if (mt && !lock_take_patiently(&chain->lock)) {
        finding(check, "chain %p has been locked for a second: a handler has jumped out of a call on it", (void *)chain);
        return;
    }
    for (struct la_macro *m = chain->macros; m; m = m->chain_next)
        check_macro(check, chain, m);
    for (unsigned c = 0; c < BIN_CLASSES; c++)
        check_bin(check, chain, c);
    if (mt)
        lock_give(&chain->lock);
}

unsigned la_chain_check(struct la_chain *chain, void (*report)(void *user, const char *line), void *user)
{
    struct check check = { .report = report, .user = user };

    if (!chain)
        chain = la_tls_own;
    if (chain && chain->kind != CHAIN_HEAP && chain->kind != CHAIN_LANE)
        check_chain(chain, &check);
    return check.findings;
}

/* Return: bytes of the macro blocks on @list. */
static size_t check_free(struct check *check, const struct la_source *source, unsigned node, struct la_macro *list)
{
    size_t bytes = 0;

    for (struct la_macro *m = list; m; m = m->next) {
        bytes += macro_bytes(m);
        if (m->state != MACRO_FREE || m->segment->node != node)
            finding(check, "source %s: macro block %p of node %u in state %d is free on node %u", source->ops.name, (void *)macro_address(m),
                    m->segment->node, m->state, node);
    }
    return bytes;
}

static void check_abandoned(struct check *check, const struct la_source *source, unsigned node)
{
    for (struct la_macro *m = source->nodes[node].abandoned; m; m = m->next)
        if (m->state != MACRO_ABANDONED || m->chain != source->orphan || m->segment->node != node)
            finding(check, "macro block %p: on the abandoned list of node %u, but in state %d", (void *)macro_address(m), node, m->state);
}

static void check_source(struct check *check, struct la_source *source)
{
    size_t dirty = 0;

    lock_take(&source->lock);
    for (unsigned i = 0; i < source->node_count; i++) {
        dirty += check_free(check, source, i, source->nodes[i].free_dirty);
        check_free(check, source, i, source->nodes[i].free_clean);
        check_abandoned(check, source, i);
    }
    if (dirty != source->dirty_bytes)
        finding(check, "source %s: %zu bytes cached, counted %zu", source->ops.name, dirty, source->dirty_bytes);
    lock_give(&source->lock);
}

unsigned la_heap_check(void (*report)(void *user, const char *line), void *user)
{
    struct check check = { .report = report, .user = user, .only_own = la_tls_own ? la_tls_own : &la_chain_none };

    chains_each(check_chain, &check);
    check_source(&check, &la_default_source);
    return check.findings;
}
