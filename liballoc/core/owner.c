/*
 * owner.c - what is known of any address.
 */
#include <errno.h>
#include <string.h>

#include <liballoc/chain.h>

#include "base/error.h"
#include "core/huge.h"
#include "core/macroblock.h"
#include "core/page.h"
#include "core/pool.h"
#include "core/region_map.h"
#include "core/shared.h"

static void fill_small(struct la_owner *o, struct la_page *page, const struct la_chain *chain, uintptr_t address)
{
    size_t index = (address - page->start) / page->block_size;
    void *block = (void *)(page->start + index * page->block_size);

    if (address < page->start || index >= page->capacity)
        return;
    o->block = block;
    o->block_size = page->block_size;
    o->live = index < page->bump;
    if (source_is_lost(page->macro->segment->source))
        return;
    /* Only the owner may look into its lists. */
    if (o->live && (page_block_is_marked(page, block) || page_block_is_queued(page, block) || *page_words(page, block) == ~la_free_mark))
        o->live = chain == la_tls_own && !pool_bin_holds(chain, page->size_class, block) && !page_block_is_free(page, block);
}

/* The same. */
static bool large_is_live(const struct la_page *page, const struct la_chain *chain)
{
    const void *block = (const void *)page->start;

    if (source_is_lost(page->macro->segment->source) || (!page_block_is_marked(page, block) && !page_block_is_queued(page, block)))
        return true;
    return chain == la_tls_own && !page_block_is_queued(page, block) && !pool_bin_holds(chain, page->size_class, block);
}

static void fill(struct la_owner *o, struct la_page *page, uintptr_t address)
{
    struct la_chain *chain = atomic_load_explicit(&page->chain, memory_order_relaxed);

    if (chain && chain->kind != CHAIN_ORPHAN) {
        o->chain = chain;
        o->chain_name = chain->name;
    }
    if (page->kind == PAGE_SMALL) {
        fill_small(o, page, chain, address);
    } else if (address - page->start < page->large_size) {
        o->block = (void *)page->start;
        o->block_size = page->large_size;
        o->live = page->kind != PAGE_LARGE || large_is_live(page, chain);
    }
    o->segment_base = page->macro ? (void *)page->macro->segment->base : page->mapping;
    o->segment_size = page->macro ? page->macro->segment->size : page->mapping_size;
}

int la_owner_of(const void *address, struct la_owner *ret)
{
    struct la_owner o = { .chain_name = "" };
    struct la_page *page;
    size_t size;

    if (!ret || ret->struct_size < offsetof(struct la_owner, chain_name) || ret->struct_size > 4 * sizeof(*ret))
        return la_fail(-EINVAL, "set struct_size to sizeof(struct la_owner) before the call");
    size = ret->struct_size;
    page = region_page(address);
    if (!page)
        page = huge_around(address);
    if (page && !page_is_shared(page))
        fill(&o, page, (uintptr_t)address);
    else if (!shared_owner(address, &o))
        return la_fail(-ENOENT, "%p is not memory of liballoc", address);
    memset(ret, 0, size);
    memcpy(ret, &o, MIN(size, sizeof(o)));
    ret->struct_size = size;
    return 0;
}
