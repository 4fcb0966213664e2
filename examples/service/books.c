/*
 * books.c - the supervisor's side: collecting what is done, helping after a death, and the audit.
 */
#include <inttypes.h>
#include <stdio.h>

#include "service.h"

void books_begin(struct books *books)
{
    *books = (struct books){ 0 };
    for (int p = 0; p < PRODUCERS_MAX; p++)
        books->next[p] = 1;
}

/* ---- collecting ---- */

static void enter(struct books *books, uint32_t producer, const struct order *order)
{
    if (order->producer != producer || order->number != books->next[producer] || order->amount != order_amount(producer, order->number) ||
        order->price != order_price(order->amount))
        books->wrong++;
    books->collected++;
}

static bool collect_one(struct place *place, struct books *books, uint32_t producer)
{
    uint64_t number = books->next[producer];
    struct slot *slot = slot_of(place->office, producer, number);
    struct order *order;

    if (atomic_load(&slot->word) != slot_word(number, DONE))
        return false;
    order = la_take(place->heap, &slot->order, LA_NO_NEXT);
    if (!order)
        fail("an order that is done is not there");
    enter(books, producer, order);
    la_free(order);
    books->next[producer]++;
    atomic_store(&slot->word, 0);
    return true;
}

unsigned long collect(struct place *place, struct books *books)
{
    unsigned long n = 0;

    for (uint32_t p = 0; p < place->office->producers; p++)
        while (collect_one(place, books, p))
            n++;
    return n;
}

bool all_collected(const struct place *place, const struct books *books)
{
    for (uint32_t p = 0; p < place->office->producers; p++)
        if (books->next[p] != atomic_load(&place->office->desks[p].issued) + 1)
            return false;
    return true;
}

/* ---- after a death ---- */

void take_claims_back(struct place *place, uint32_t worker)
{
    for (uint32_t p = 0; p < place->office->producers; p++)
        for (int i = 0; i < SLOTS; i++) {
            struct slot *slot = &place->office->desks[p].slots[i];
            uint64_t word = atomic_load(&slot->word);

            if (word && (word & DONE) == worker)
                atomic_store(&slot->word, word & ~(uint64_t)DONE);
        }
}

bool write_tickets_again(struct place *place)
{
    for (uint32_t p = 0; p < place->office->producers; p++)
        for (int i = 0; i < SLOTS; i++) {
            uint64_t word = atomic_load(&place->office->desks[p].slots[i].word);

            if (word && (word & DONE) == OPEN && !write_ticket(place, p, word >> WORKER_BITS, LA_TRY))
                return false;
        }
    return true;
}

/* ---- the audit ---- */

static void print_finding(void *user, const char *line)
{
    (void)user;
    printf("  %s\n", line);
}

bool audit(struct place *place, const struct books *books, long blocks)
{
    struct la_fsck fsck = { .struct_size = sizeof(fsck) };
    long left = la_heap_walk(place->heap, NULL, NULL) - blocks;
    int errors = la_heap_fsck(place->heap, print_finding, NULL, &fsck);
    uint64_t issued = 0;

    for (uint32_t p = 0; p < place->office->producers; p++)
        issued += atomic_load(&place->office->desks[p].issued);
    printf("audit: %" PRIu64 " orders issued, %" PRIu64 " collected, %" PRIu64 " of them wrong\n", issued, books->collected, books->wrong);
    printf("audit: %ld blocks left over, %d errors in the heap\n", left, errors);
    return issued == books->collected && books->wrong == 0 && left == 0 && errors == 0;
}
