/*
 * worker.c - producers and consumers: the processes that may be killed.
 */
#include <errno.h>
#include <time.h>

#include "service.h"

uint32_t order_amount(uint32_t producer, uint64_t number)
{
    return 1 + (uint32_t)((number * 2654435761u + producer * 40503u) % 1000);
}

/* Some work, so that a kill meets it in the middle. */
uint64_t order_price(uint32_t amount)
{
    uint64_t price = amount;

    for (int i = 0; i < 1000; i++)
        price = price * 6364136223846793005u + 1442695040888963407u;
    return price;
}

bool write_ticket(struct place *place, uint32_t producer, uint64_t number, int64_t timeout)
{
    struct ticket *ticket = la_heap_hold(place->heap, sizeof(*ticket));

    if (!ticket)
        fail("no room for a ticket");
    *ticket = (struct ticket){ producer, number };
    if (la_queue_push(place->heap, place->tickets, ticket, timeout) == 0)
        return true;
    la_free(ticket);
    return false;
}

/* ---- producers ---- */

static void take_a_break(void)
{
    nanosleep(&(struct timespec){ .tv_nsec = 200000 }, NULL);
}

static struct order *new_order(struct place *place, uint32_t producer, uint64_t number)
{
    struct order *order = la_heap_hold(place->heap, sizeof(*order));    /* ours: freed if we die before it is published */

    if (!order)
        fail("no room for an order");
    *order = (struct order){ .number = number, .producer = producer, .amount = order_amount(producer, number) };
    return order;
}

/* From "in its slot" to "to be worked on". Each step may have been done by the producer before us. */
static void open_order(struct place *place, uint32_t producer, uint64_t number)
{
    struct slot *slot = slot_of(place->office, producer, number);

    atomic_store(&place->office->desks[producer].issued, number);
    /* In this order: an order that is collected goes first, its word afterwards. */
    if (atomic_load(&slot->word) == 0 && la_load(place->heap, &slot->order))
        atomic_store(&slot->word, slot_word(number, OPEN));
    write_ticket(place, producer, number, LA_FOREVER);
}

/* The one whose place we take may have been killed before that one was open, or had its ticket. */
static void finish_the_last(struct place *place, uint32_t producer)
{
    uint64_t last = atomic_load(&place->office->desks[producer].issued);

    if (last > 0)
        open_order(place, producer, last);
}

static void put_in_slot(struct place *place, struct slot *slot, struct order *order)
{
    int r = la_publish(place->heap, &slot->order, NULL, order);

    if (r == -EAGAIN)
        la_free(order);     /* the producer before us had put it there when he was killed */
    else if (r < 0)
        fail("publish");
}

int produce(struct place *place, uint32_t producer)
{
    struct desk *desk = &place->office->desks[producer];

    finish_the_last(place, producer);
    while (!atomic_load(&place->office->closing)) {
        uint64_t number = atomic_load(&desk->issued) + 1;
        struct slot *slot = slot_of(place->office, producer, number);

        if (atomic_load(&slot->word) != 0) {    /* the order SLOTS before it is not collected yet */
            take_a_break();
            continue;
        }
        put_in_slot(place, slot, new_order(place, producer, number));
        open_order(place, producer, number);
    }
    return 0;
}

/* ---- consumers ---- */

static void work_on(struct place *place, const struct ticket *ticket, uint32_t worker)
{
    struct slot *slot = slot_of(place->office, ticket->producer, ticket->number);
    uint64_t open = slot_word(ticket->number, OPEN);
    struct order *order;

    /* Somebody else has it, or had it, unless this works. */
    if (!atomic_compare_exchange_strong(&slot->word, &open, slot_word(ticket->number, worker)))
        return;
    order = la_load(place->heap, &slot->order);     /* nobody takes it before it is done */
    order->price = order_price(order->amount);
    atomic_store(&slot->word, slot_word(ticket->number, DONE));
}

int consume(struct place *place, uint32_t worker)
{
    void *block;

    while (la_queue_pop(place->heap, place->tickets, LA_FOREVER, &block) == 0) {
        const struct ticket ticket = *(struct ticket *)block;

        la_free(block);
        work_on(place, &ticket, worker);
    }
    return 0;
}
