/*
 * service.h - what is in the heap of the example service, and what each state of it means to whoever comes after a kill.
 *
 * Producers issue numbered orders, consumers work them off, the supervisor collects what is done. A producer or consumer may be killed at any
 * instruction; the supervisor starts another one in its place. No order gets lost and none counts twice:
 *
 *   - An order lies in a slot of its producer's desk: it is published there by one store, and taken from there when it is done.
 *   - The slot's word says what has become of it. Whoever works on an order has claimed it in that word, with a number that no other worker ever
 *     has; of a worker that is dead for certain the supervisor takes the claim back.
 *   - The queue only says that there is something to do. A ticket in it is a hint: one too many is thrown away, one that went down with its holder is
 *     written again. So it does not matter at which instruction anybody dies.
 *
 * What a dead process held (an order not yet published, a ticket popped) is freed by the daemon.
 */
#ifndef EXAMPLE_SERVICE_H
#define EXAMPLE_SERVICE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <liballoc/liballoc.h>
#include <shmserver/client.h>

enum { PRODUCERS_MAX = 16, CONSUMERS_MAX = 16, SLOTS = 64, TICKETS = 4096 };

struct order {
    uint64_t number;            /* 1, 2, 3, ... of its producer */
    uint32_t producer, amount;
    uint64_t price;             /* the consumer's work */
};

/* Word of a slot: | number of the order 40 | worker 24 |. All zero: nothing there, or not yet to be worked on. */
enum { WORKER_BITS = 24, OPEN = 0, DONE = (1 << WORKER_BITS) - 1 };

static inline uint64_t slot_word(uint64_t number, uint32_t worker)
{
    return number << WORKER_BITS | worker;
}

struct slot {
    la_link order;
    _Atomic(uint64_t) word;     /* producer: 0 -> open; consumers: open -> claimed -> done; supervisor: claimed -> open, done -> 0 */
};

struct desk {
    _Atomic(uint64_t) issued;   /* number of the last order; stored when it is in its slot, before it is open */
    struct slot slots[SLOTS];   /* order n in slot n % SLOTS */
};

struct office {
    _Atomic(bool) closing;      /* no more orders */
    uint32_t producers;
    struct desk desks[PRODUCERS_MAX];
};

struct ticket {
    uint32_t producer;
    uint64_t number;
};

struct place {
    struct shms_client *client;
    struct la_heap *heap;
    struct office *office;      /* root "office" */
    struct la_queue *tickets;   /* root "tickets" */
};

/* Prints what went wrong, with la_last_error(), and ends the process. */
_Noreturn void fail(const char *what);

static inline struct slot *slot_of(struct office *office, uint32_t producer, uint64_t number)
{
    return &office->desks[producer].slots[number % SLOTS];
}

/* What an order is, and what the work on it comes to: known to all, so that the audit can count again. */
uint32_t order_amount(uint32_t producer, uint64_t number);
uint64_t order_price(uint32_t amount);

/* Say that there is something to do. false: the queue is full (with LA_TRY) or closed. */
bool write_ticket(struct place *place, uint32_t producer, uint64_t number, int64_t timeout);

/* They return the exit status of their process. */
int produce(struct place *place, uint32_t producer);
int consume(struct place *place, uint32_t worker);

/* ---- the supervisor's work ---- */

struct books {
    uint64_t next[PRODUCERS_MAX];       /* order to be collected */
    uint64_t collected, wrong;
};

void books_begin(struct books *books);
/* Take what is done. Return: number of orders. */
unsigned long collect(struct place *place, struct books *books);
/* Nothing is claimed by that worker any more, which is dead for certain. */
void take_claims_back(struct place *place, uint32_t worker);
/* A ticket for every order that is open. false: the queue is full, do it again. */
bool write_tickets_again(struct place *place);
/* Everything that was issued is collected. */
bool all_collected(const struct place *place, const struct books *books);
/* Prints what there is to say; @blocks: live ones before the first order. Return: whether nothing was lost, twice or left over. */
bool audit(struct place *place, const struct books *books, long blocks);

#endif
