/*
 * repair.c - what a jump out of a slow path leaves, and how it becomes a pool again.
 *
 * The slow paths run with signals open, as two system calls would cost more than most of them. So one may end in the middle. What
 * must not be in pieces then is changed with signals held (locks, the list of the chain's macro blocks, batches of remote frees, growing
 * bins). All the rest is thrown away and made again from this:
 *
 *   page->kind         a page exists from its store on, which comes last, until it is PAGE_NONE again
 *   page->mapping      out of band: it is one only while it has its shadow
 *   page->slices       what it takes of its macro block: free slices, chain->by_run and the region map follow
 *   page->bump         only blocks below it can be in use; moves when those it passes carry the mark
 *   the first word     of a block below it: free, if there is the mark of a bin or of a page's list (page.h). Blocks in remote free queues, in
 *                      other threads' batches, have another. What else a user may write there by chance is 2 in 2^64.
 *   page->free         of 8 byte blocks, whose link takes the place of the mark: in order after each store
 *   chain->draining    blocks taken from the remote free queue
 *   page->free_count   of a large page: it was being freed; the mark of a bin in its block's first word says the same
 *
 * Bins and pages' lists lose the order of their blocks, nothing else.
 */
#include "core/repair.h"

#include <string.h>

#include "core/macroblock.h"
#include "core/page.h"
#include "core/pool.h"
#include "core/region_map.h"
#include "core/remote_free.h"

/* Blocks of 8 bytes that are on the list get the mark, too. */
static void mark_list(struct la_page *page)
{
    void *block = page->free, *next;

    for (uint32_t n = 0; block && n < page->bump && page_is_block_start(page, block); n++, block = next) {
        next = *page_link(page, block);
        *page_words(page, block) = la_free_mark;
    }
}

/* Reads what other threads may be writing: their blocks have neither mark, before and after. */
__attribute__((no_sanitize("thread"))) static bool is_free(const uint64_t *first)
{
    return *(const volatile uint64_t *)first == la_free_mark || *(const volatile uint64_t *)first == ~la_free_mark;
}

static void sweep_page(struct la_page *page)
{
    if (page->block_size == 8)
        mark_list(page);
    page->free = NULL;
    page->free_count = 0;
    page->used = page->bump;
    /* Lowest address on top. */
    for (uint32_t i = page->bump; i-- > 0;) {
        void *block = (void *)(page->start + (size_t)i * page->block_size);
        uint64_t *first = page_words(page, block);

        if (!is_free(first))
            continue;
        *first = la_free_mark;
        page_put(page, block);
    }
}

static void repair_small(struct la_chain *chain, struct la_page *page)
{
    page_open_to_fast_path(page, chain);
    sweep_page(page);
    if (page_has_free(page))
        pool_list_page(chain, page);
}

/* false: it was being freed, or free, and is no page now. */
static bool repair_large(struct la_chain *chain, struct la_page *page, uintptr_t address)
{
    size_t total = (size_t)page->slices << page->macro->segment->slice_shift;

    if (page->free_count > 0 || is_free(page_words(page, (void *)page->start))) {
        page_shadow_drop(page);
        page->kind = PAGE_NONE;
        return false;
    }
    /* It may have been about to grow or to shrink. */
    page->large_size = total - (page->start - address);
    page_open_to_fast_path(page, chain);
    chain->large_live++;
    chain->large_bytes += total;
    return true;
}

/* false: there is no page. */
static bool repair_page(struct la_chain *chain, struct la_page *page)
{
    uintptr_t address;

    if (page->kind != PAGE_SMALL && page->kind != PAGE_LARGE)
        return false;
    /* It was being made or given back, and has no block. */
    if (chain_is_device_only(chain) && !page->mapping) {
        page->kind = PAGE_NONE;
        return false;
    }
    address = slice_address(page->macro->segment, page);
    page->listed = 0;
    if (page->kind == PAGE_LARGE && !repair_large(chain, page, address))
        return false;
    if (page->kind == PAGE_SMALL)
        repair_small(chain, page);
    /* Cannot fail: the segment's part of the map is there. */
    if (segment_is_direct(page->macro->segment))
        region_set(address, page->slices, page);
    return true;
}

static void repair_macro(struct la_chain *chain, struct la_macro *m)
{
    uint32_t free = m->all_slices;

    for (unsigned i = 0; i < SLICES_PER_MACRO; i++)
        if ((m->all_slices & (1u << i)) && repair_page(chain, macro_page(m, i)))
            free &= ~bits_run(i, macro_page(m, i)->slices);
    if (segment_is_direct(m->segment))
        for (unsigned i = 0; i < SLICES_PER_MACRO; i++)
            if (free & (1u << i))
                region_clear(slice_address(m->segment, macro_page(m, i)), 1);
    m->free_slices = free;
    macro_list_anew(chain, m);
}

void chain_repair(struct la_chain *chain)
{
    if (source_is_lost(chain->source))
        return;
    pool_bins_empty(chain);
    memset(chain->avail, 0, sizeof(chain->avail));
    memset(chain->by_run, 0, sizeof(chain->by_run));
    chain->run_mask = 0;
    chain->large_live = chain->large_bytes = 0;
    for (struct la_macro *m = chain->macros; m; m = m->chain_next)
        repair_macro(chain, m);
    remote_repair(chain);
}
