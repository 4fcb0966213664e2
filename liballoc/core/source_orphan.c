/*
 * source_orphan.c - blocks that are freed to nobody: of ended threads, whose chains wait for the next one, and of abandoned macro blocks.
 */
#include "core/source_parts.h"

#include "core/macroblock.h"
#include "core/page.h"
#include "core/region_map.h"
#include "core/remote_free.h"
#include "core/segment.h"

void source_note_dead_push(struct la_source *source)
{
    atomic_store_explicit(&source->dead_hint, 1, memory_order_relaxed);
}

/* A page of an abandoned macro block got blocks back; under source->lock. */
static void orphan_page_freed(struct la_source *source, struct la_page *page)
{
    struct la_macro *m = page->macro;
    unsigned at = (unsigned)(page - macro_page(m, 0));

    if (page->used > 0)
        return;
    if (segment_is_direct(m->segment))
        region_clear(slice_address(m->segment, page), page->slices);
    page->kind = PAGE_NONE;
    m->free_slices |= bits_run(at, page->slices);
    if (m->free_slices == m->all_slices) {
        macro_list_drop(&source_node_of(source, m)->abandoned, m);
        source_free_push(source, m);
    }
}

static void orphan_free(struct la_source *source, void *block, struct la_page *page)
{
    if (page->kind == PAGE_SMALL) {
        *page_words(page, block) = la_free_mark;    /* in a queue, the link of an 8 byte block took its place */
        page_put(page, block);
    } else {
        page->used = 0;
        source_count_large(source->orphan, page, -1);
    }
    orphan_page_freed(source, page);
}

/* Takes one queue; what belongs to living chains is forwarded after the lock is given. Under source->lock. */
static void *sort_queue(struct la_source *source, struct la_chain *from, void *others)
{
    for (void *block = remote_take_all(from), *next; block; block = next) {
        struct la_page *page = remote_page_of(block);

        if (unlikely(!page))
            break;
        next = remote_next(page, block);
        if (atomic_load_explicit(&page->chain, memory_order_relaxed) == source->orphan && page->kind != PAGE_HUGE) {
            orphan_free(source, block, page);
        } else {
            *page_link(page, block) = others;
            others = block;
        }
    }
    return others;
}

void source_collect(struct la_source *source)
{
    void *others = NULL;

    if (!atomic_exchange_explicit(&source->dead_hint, 0, memory_order_relaxed))
        return;
    signals_hold();     /* what is sorted is in no other place */
    lock_take(&source->lock);
    others = sort_queue(source, source->orphan, others);
    for (struct la_chain *c = source->dead; c; c = c->owner_data)
        others = sort_queue(source, c, others);
    source_apply_policy(source);
    lock_give(&source->lock);
    while (others) {
        struct la_page *page = region_page(others);
        void *next = *page_link(page, others);
        remote_free_now(page, others);
        others = next;
    }
    signals_release();
}

void source_bury_chain(struct la_source *source, struct la_chain *chain)
{
    lock_take(&source->lock);
    chain->owner_data = source->dead;
    source->dead = chain;
    /* Release: a pusher that sees dead also sees the chain on the list. Pairs with the load in remote_push(). */
    atomic_store_explicit(&chain->dead, 1, memory_order_seq_cst);
    if (atomic_load_explicit(&chain->remote, memory_order_seq_cst))
        source_note_dead_push(source);
    lock_give(&source->lock);
}

struct la_chain *source_exhume_chain(struct la_source *source)
{
    struct la_chain *chain;

    lock_take(&source->lock);
    chain = source->dead;
    if (chain) {
        source->dead = chain->owner_data;
        chain->owner_data = NULL;
        atomic_store_explicit(&chain->dead, 0, memory_order_relaxed);
    }
    lock_give(&source->lock);
    return chain;
}
