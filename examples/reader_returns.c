/*
 * reader_returns.c - consumers that may only read the data, and still give objects back when they have done with them.
 *
 * Two heaps. "data" is written by the producer alone; consumers attach it with LA_HEAP_READ_ONLY, so nothing they do can harm it. "control" is small
 * and everybody writes it: two queues of tickets, each ticket the address of one object in data. A consumer pops a ticket, reads the object, and pushes
 * the ticket into the other queue; the producer frees the object then. A consumer that is killed cannot take objects with it: the heir of the ticket
 * that it held is the producer.
 *
 * The first process is the producer, and starts this program again as consumers (by exec: nothing is inherited).
 */
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <liballoc/liballoc.h>

enum { OBJECTS = 2000, CONSUMERS = 3, CAPACITY = 32, DIES_AT = 10 };

struct record {
    int number;
    char text[100];
};

struct ticket {
    const struct record *record;    /* in data: the same address in every process */
    bool read;
};

/* What a process has to do with the two heaps. */
struct market {
    struct la_heap *data, *control;
    struct la_queue *wanted, *returned;
};

extern char **environ;

static int fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, la_last_error());
    return EXIT_FAILURE;
}

/* ---- consumers ---- */

static int consume(struct market *m, bool dies)
{
    void *block;

    for (int n = 0; la_queue_pop(m->control, m->wanted, LA_FOREVER, &block) == 0; n++) {
        struct ticket *ticket = block;

        if (dies && n == DIES_AT)
            raise(SIGKILL);                                     /* with a ticket in its hands */
        if (atoi(ticket->record->text) != ticket->record->number)
            return fail("the record is wrong");
        ticket->read = true;
        if (la_queue_push(m->control, m->returned, ticket, LA_FOREVER) < 0)
            return fail("return");
    }
    return EXIT_SUCCESS;
}

/* reader_returns DATA CONTROL ROLE */
static int be_consumer(char **argv)
{
    struct market m;

    if (la_heap_attach(argv[1], LA_HEAP_READ_ONLY, &m.data) < 0 || la_heap_attach(argv[2], 0, &m.control) < 0 ||
        la_heap_set_heir(m.control, "producer") < 0 ||          /* what we hold when we die is the producer's */
        la_queue_open(m.control, "wanted", &m.wanted) < 0 || la_queue_open(m.control, "returned", &m.returned) < 0)
        return fail("consumer");
    return consume(&m, strcmp(argv[3], "dies") == 0);
}

/* ---- the producer ---- */

struct books {
    struct market *market;
    int read, unread;
};

static void take_back(struct books *books, struct ticket *ticket)
{
    if (ticket->read)
        books->read++;
    else
        books->unread++;
    la_free((void *)ticket->record);
    la_free(ticket);
}

static void inherit_ticket(void *user, void *block, size_t size)
{
    (void)size;
    take_back(user, block);
}

static int sell(struct market *m, int number)
{
    struct record *record = la_heap_alloc(m->data, sizeof(*record));
    struct ticket *ticket = la_heap_hold(m->control, sizeof(*ticket));

    if (!record || !ticket)
        return fail("no room");
    record->number = number;
    snprintf(record->text, sizeof(record->text), "%d", number);
    *ticket = (struct ticket){ .record = record };
    return la_queue_push(m->control, m->wanted, ticket, LA_FOREVER) < 0 ? fail("push") : EXIT_SUCCESS;
}

static void take_back_what_is_there(struct books *books)
{
    void *block;

    while (la_queue_pop(books->market->control, books->market->returned, LA_TRY, &block) == 0)
        take_back(books, block);
}

static int produce(struct books *books)
{
    for (int i = 0; i < OBJECTS; i++) {
        if (sell(books->market, i) != EXIT_SUCCESS)
            return EXIT_FAILURE;
        take_back_what_is_there(books);
    }
    la_queue_close(books->market->control, books->market->wanted);      /* no more will come: consumers finish what is there */
    return EXIT_SUCCESS;
}

/* Takes back until all of them have ended; one more pop than there are tickets, as long as somebody may wait for room in the queue. */
static int wait_for(struct books *books, const pid_t *consumers)
{
    int status, bad = 0;

    for (int i = 0; i < CONSUMERS; i++) {
        pid_t ended;

        while ((ended = waitpid(consumers[i], &status, WNOHANG)) == 0) {
            void *block;

            if (la_queue_pop(books->market->control, books->market->returned, 10000000, &block) == 0)
                take_back(books, block);
        }
        /* The first one dies, unless the others are so fast that it never gets so far. */
        bad |= ended != consumers[i] || (status != 0 && !(i == 0 && WIFSIGNALED(status)));
    }
    take_back_what_is_there(books);
    la_heap_recover(books->market->control, NULL, NULL);
    la_heap_inherit(books->market->control, "producer", inherit_ticket, books);
    return bad;
}

static long live_blocks(struct la_heap *heap)
{
    return la_heap_walk(heap, NULL, NULL);
}

int main(int argc, char **argv)
{
    char data[64], control[64], *roles[CONSUMERS] = { "dies", "lives", "lives" };
    pid_t consumers[CONSUMERS];
    struct market m;
    struct books books = { .market = &m };
    int bad;

    if (argc == 4)
        return be_consumer(argv);
    snprintf(data, sizeof(data), "example-data-%d", (int)getpid());
    snprintf(control, sizeof(control), "example-control-%d", (int)getpid());
    if (la_heap_create(data, 64 << 20, 0, &m.data) < 0 || la_heap_create(control, 8 << 20, 0, &m.control) < 0 ||
        la_queue_create(m.control, "wanted", CAPACITY, &m.wanted) < 0 || la_queue_create(m.control, "returned", CAPACITY, &m.returned) < 0)
        return fail("heaps");
    for (int i = 0; i < CONSUMERS; i++)
        if (posix_spawn(&consumers[i], "/proc/self/exe", NULL, NULL, (char *[]){ argv[0], data, control, roles[i], NULL }, environ) != 0)
            return fail("spawn");
    bad = produce(&books) | wait_for(&books, consumers);
    bad |= books.read + books.unread != OBJECTS || books.unread > 1 || live_blocks(m.data) != 0;
    printf("%s: %d objects read and given back, %d inherited from the dead, %ld left\n", bad ? "FAILED" : "ok", books.read, books.unread,
           live_blocks(m.data));
    bad |= la_queue_destroy(m.control, m.wanted) < 0 || la_queue_destroy(m.control, m.returned) < 0;
    la_heap_detach(m.data);
    la_heap_detach(m.control);
    la_heap_remove(data);
    la_heap_remove(control);
    return bad ? EXIT_FAILURE : EXIT_SUCCESS;
}
