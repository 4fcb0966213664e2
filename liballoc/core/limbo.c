/*
 * limbo.c - blocks that are free but for a device that still uses them.
 *
 * Nothing is kept in the blocks. They are noted in batches, up to 59 of one token each, so that a token is asked once for all of them.
 *
 *     open   the batch that grows, while the same token comes again
 *     ring   the others, linked in a ring of which the last is known: next after it is the one that waits for its turn longest
 *     spare  an empty batch
 *
 * Each is taken whole by an exchange with NULL and put back by a compare-and-swap; in between it is the taker's alone. So no lock is held while a
 * driver is asked, nobody waits, and a thread that finds a place empty goes on with less: a batch of its own, or nothing to poll.
 *
 * I1  pending is at least the sum of the batches' counts, and their sum when nobody is in a call.
 * I2  A block is in one batch, or was given to la_free().
 */
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>

#include <liballoc/chain.h>
#include <liballoc/limbo.h>

#include "base/error.h"
#include "core/meta.h"

enum { BATCH_BYTES = 512, POLLED_BY_FREE = 2 };
#define BATCH_BLOCKS ((BATCH_BYTES - sizeof(struct la_token) - 2 * sizeof(void *)) / sizeof(void *))

struct batch {
    struct batch *next;
    struct la_token token;
    size_t count;
    void *block[BATCH_BLOCKS];
};

_Static_assert(sizeof(struct batch) <= BATCH_BYTES, "a power of two, as the metadata allocator has them");

typedef _Atomic(struct batch *) place_t;

struct la_limbo {
    place_t open, ring, spare;
    _Atomic(size_t) pending;
};

/* Acquire and release: what is in a batch goes with it from thread to thread. */
static struct batch *take(place_t *place)
{
    return atomic_load_explicit(place, memory_order_relaxed) ? atomic_exchange_explicit(place, NULL, memory_order_acquire) : NULL;
}

static bool put(place_t *place, struct batch *batch)
{
    struct batch *none = NULL;

    return atomic_compare_exchange_strong_explicit(place, &none, batch, memory_order_release, memory_order_relaxed);
}

/* ---- rings: known by their last, NULL when empty ---- */

/* @b behind @a. */
static struct batch *join(struct batch *a, struct batch *b)
{
    struct batch *first;

    if (!a || !b)
        return a ? a : b;
    first = b->next;
    b->next = a->next;
    a->next = first;
    return b;
}

/* *@last becomes NULL with the only one. */
static struct batch *shift(struct batch **last)
{
    struct batch *first = (*last)->next;

    if (first == *last)
        *last = NULL;
    else
        (*last)->next = first->next;
    first->next = first;
    return first;
}

/* Others may have begun a ring meanwhile: it is taken and joined. */
static void put_ring(struct la_limbo *limbo, struct batch *last)
{
    while (last && !put(&limbo->ring, last)) {
        struct batch *other = take(&limbo->ring);

        last = join(last, other);
    }
}

/* ---- batches ---- */

static struct batch *new_batch(struct la_limbo *limbo, struct la_token token)
{
    struct batch *batch = take(&limbo->spare);

    if (!batch)
        batch = la_meta_alloc(sizeof(*batch));
    if (batch)
        *batch = (struct batch){ .next = batch, .token = token };
    return batch;
}

static void drop_batch(struct la_limbo *limbo, struct batch *batch)
{
    if (!put(&limbo->spare, batch))
        la_meta_free(batch, sizeof(*batch));
}

static bool is_same(struct la_token a, struct la_token b)
{
    return a.ops == b.ops && a.object == b.object && a.value == b.value;
}

static int ask(struct la_token token)
{
    return token.ops->is_complete(token.object, token.value);
}

/* Frees the batch's blocks if that can be done; *@freed grows. false: it is still the caller's. */
static bool settle(struct la_limbo *limbo, struct batch *batch, long *freed, int *error)
{
    int r = ask(batch->token);

    if (r <= 0) {
        if (r < 0)
            *error = r;
        return false;
    }
    for (size_t i = 0; i < batch->count; i++)
        la_free(batch->block[i]);
    *freed += (long)batch->count;
    atomic_fetch_sub_explicit(&limbo->pending, batch->count, memory_order_release);
    drop_batch(limbo, batch);
    return true;
}

static void poll_open(struct la_limbo *limbo, long *freed, int *error)
{
    struct batch *batch = take(&limbo->open);

    if (batch && !settle(limbo, batch, freed, error) && !put(&limbo->open, batch))
        put_ring(limbo, batch);
}

/* Each once at most: the ring that is built of those that stay is joined in the end. How many tokens were asked. */
static unsigned poll_ring(struct la_limbo *limbo, unsigned tokens, long *freed, int *error)
{
    struct batch *last = take(&limbo->ring), *kept = NULL;
    unsigned asked = 0;

    for (; last && asked < tokens; asked++) {
        struct batch *batch = shift(&last);

        if (!settle(limbo, batch, freed, error))
            kept = join(kept, batch);
    }
    put_ring(limbo, join(last, kept));
    return asked;
}

/* ---- public ---- */

static int counter_is_complete(void *object, uint64_t value)
{
    /* Acquire: pairs with the release of whoever has seen the completion. */
    return (int64_t)(__atomic_load_n((const uint64_t *)object, __ATOMIC_ACQUIRE) - value) >= 0;
}

struct la_token la_token_counter(const uint64_t *counter, uint64_t value)
{
    static const struct la_token_ops ops = { .struct_size = sizeof(ops), .name = "counter", .is_complete = counter_is_complete };

    return (struct la_token){ .ops = &ops, .object = (void *)(uintptr_t)counter, .value = value };
}

int la_limbo_create(struct la_limbo **ret)
{
    struct la_limbo *limbo = la_meta_alloc(sizeof(*limbo));

    if (!limbo)
        return la_fail(-ENOMEM, "no memory for a limbo");
    *ret = limbo;
    return 0;
}

/* The batch that @block goes to, the caller's alone; NULL: out of memory. */
static struct batch *batch_for(struct la_limbo *limbo, struct la_token token)
{
    struct batch *batch = take(&limbo->open);

    if (batch && is_same(batch->token, token) && batch->count < BATCH_BLOCKS)
        return batch;
    put_ring(limbo, batch);
    return new_batch(limbo, token);
}

int la_free_after(struct la_limbo *limbo, void *block, struct la_token token)
{
    struct batch *batch;
    long freed = 0;
    int error;

    if (!block)
        return 0;
    if (!token.ops || token.ops->struct_size < sizeof(*token.ops) || !token.ops->is_complete)
        return la_fail(-EINVAL, "a token needs operations with struct_size and is_complete()");
    if (la_usable_size(block) == 0)
        return la_fail(-EINVAL, "%p is the start of no live block of liballoc", block);
    batch = batch_for(limbo, token);
    if (!batch)
        return la_fail(-ENOMEM, "no memory to note a block that is in flight");
    batch->block[batch->count++] = block;
    atomic_fetch_add_explicit(&limbo->pending, 1, memory_order_relaxed);
    if (!put(&limbo->open, batch))
        put_ring(limbo, batch);
    poll_ring(limbo, POLLED_BY_FREE, &freed, &error);
    return 0;
}

long la_limbo_poll(struct la_limbo *limbo, unsigned tokens)
{
    unsigned most = tokens ? tokens : UINT_MAX;
    long freed = 0;
    int error = 0;

    if (poll_ring(limbo, most, &freed, &error) < most)
        poll_open(limbo, &freed, &error);
    return freed ? freed : error;
}

size_t la_limbo_pending(const struct la_limbo *limbo)
{
    return atomic_load_explicit(&limbo->pending, memory_order_acquire);
}

/* All batches that nobody has in hand, in one ring. */
static struct batch *take_all(struct la_limbo *limbo)
{
    struct batch *last = take(&limbo->ring);

    return join(last, take(&limbo->open));
}

int la_limbo_destroy(struct la_limbo *limbo)
{
    struct batch *left;

    if (!limbo)
        return 0;
    la_limbo_poll(limbo, 0);
    left = take_all(limbo);
    if (left || la_limbo_pending(limbo) > 0) {
        const char *name = left && left->token.ops->name ? left->token.ops->name : "token";

        put_ring(limbo, left);
        return la_limbo_pending(limbo) == 1 ? la_fail(-EBUSY, "1 block is in flight, by a %s: poll until it has come back", name)
                                            : la_fail(-EBUSY, "%zu blocks are in flight, the last one by a %s: poll until they have come back",
                                                      la_limbo_pending(limbo), name);
    }
    la_meta_free(take(&limbo->spare), sizeof(struct batch));
    la_meta_free(limbo, sizeof(*limbo));
    return 0;
}

size_t la_limbo_forget(struct la_limbo *limbo)
{
    struct batch *last = take_all(limbo);
    size_t count = 0;

    while (last) {
        struct batch *batch = shift(&last);

        count += batch->count;
        drop_batch(limbo, batch);
    }
    atomic_fetch_sub_explicit(&limbo->pending, count, memory_order_relaxed);
    return count;
}
