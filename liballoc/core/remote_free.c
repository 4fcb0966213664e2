#include "core/remote_free.h"

#include "base/lock.h"
#include "core/misuse.h"
#include "core/region_map.h"
#include "core/source.h"

/* Push @head .. @tail, already linked, on @owner's queue. */
static void push(struct la_chain *owner, void *head, void **tail_link)
{
    void *old = atomic_load_explicit(&owner->remote, memory_order_relaxed);

    do {
        *tail_link = old;
        /* Release: publishes the links. Pairs with the acquire in remote_take_all(). */
    } while (!atomic_compare_exchange_weak_explicit(&owner->remote, &old, head, memory_order_seq_cst, memory_order_relaxed));
    /*
     * The owner may have ended since its page was read. Sequentially consistent on both sides: either this load
     * sees dead, or source_bury_chain() sees the queue.
     */
    if (owner->kind == CHAIN_ORPHAN || atomic_load_explicit(&owner->dead, memory_order_seq_cst))
        source_note_dead_push(owner->source);
}

void remote_free_now(struct la_page *page, void *block)
{
    struct la_chain *owner = atomic_load_explicit(&page->chain, memory_order_relaxed);

    *page_words(page, block) = la_queue_mark();
    push(owner, block, page_link(page, block));
}

/* With signals held: a jump between the two would leave a batch that is in the queue already. */
static void batch_push(struct la_remote_batch *batch)
{
    if (!batch->head)
        return;
    signals_hold();
    push(batch->owner, batch->head, batch->tail);
    *batch = (struct la_remote_batch){ 0 };
    signals_release();
}

void remote_free(struct la_chain *me, struct la_page *page, void *block)
{
    struct la_chain *owner = atomic_load_explicit(&page->chain, memory_order_relaxed);
    struct la_remote_batch *batch = &me->batches[((uintptr_t)owner >> 12) % REMOTE_BATCHES];
    void **link = page_link(page, block);

    *page_words(page, block) = la_queue_mark();
    if (owner->kind != CHAIN_THREAD || page->kind != PAGE_SMALL) {
        /* A full user buffer, or much memory, must not wait in a batch. */
        push(owner, block, link);
        return;
    }
    if (batch->owner != owner || !batch->head) {
        batch_push(batch);
        batch->owner = owner;
        batch->tail = link;
    }
    *link = batch->head;
    /* A batch is what hangs on its head, in order whenever a handler jumps away. */
    atomic_signal_fence(memory_order_release);
    batch->head = block;
    if (++batch->count >= REMOTE_BATCH_MAX)
        batch_push(batch);
}

void remote_flush(struct la_chain *me)
{
    for (unsigned i = 0; i < REMOTE_BATCHES; i++)
        batch_push(&me->batches[i]);
}

void *remote_take_all(struct la_chain *chain)
{
    if (!atomic_load_explicit(&chain->remote, memory_order_relaxed))
        return NULL;
    /* Acquire: pairs with the release in push(). */
    return atomic_exchange_explicit(&chain->remote, NULL, memory_order_acquire);
}

bool remote_begin_drain(struct la_chain *chain)
{
    void *head = atomic_load_explicit(&chain->remote, memory_order_relaxed);

    if (unlikely(chain->draining))
        return true;
    do {
        if (!head)
            return false;
        chain->draining = head;
        atomic_signal_fence(memory_order_release);
        /* Acquire: pairs with the release in push(). */
    } while (!atomic_compare_exchange_weak_explicit(&chain->remote, &head, NULL, memory_order_acquire, memory_order_relaxed));
    return true;
}

void *remote_drain(struct la_chain *chain, struct la_page **page)
{
    void *block = chain->draining;

    if (!block)
        return NULL;
    *page = remote_page_of(block);
    chain->draining = *page ? remote_next(*page, block) : NULL;
    /* It is in nobody's hands but ours from here on: what a jump may cost. */
    atomic_signal_fence(memory_order_release);
    return *page ? block : NULL;
}

void remote_repair(struct la_chain *chain)
{
    void *block = chain->draining ? atomic_load_explicit(&chain->remote, memory_order_acquire) : NULL;

    while (block && block != chain->draining) {
        struct la_page *page = region_page(block);

        block = page ? remote_next(page, block) : NULL;
    }
    if (block)
        chain->draining = NULL;
}

/* The link of a block of 8 bytes is in the place of the mark. */
static bool looks_queued(const struct la_page *page, const void *block)
{
    if (!page || (page->kind != PAGE_SMALL && page->kind != PAGE_LARGE))
        return false;
    if (page->kind == PAGE_LARGE)
        return (uintptr_t)block == page->start && page_block_is_queued(page, block);
    return page_is_block_start(page, block) && !page_block_is_marked(page, block) &&
           page_block_is_queued(page, block) == (page->block_size > 8);
}

struct la_page *remote_page_of(void *block)
{
    struct la_page *page = region_page(block);

    if (likely(looks_queued(page, block)))
        return page;
    misuse_report(block, "was freed twice, or written to after it was freed: found in a remote free queue, the rest of which is lost");
    return NULL;
}
