#include "../support/shared.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>

#include "core/lane.h"
#include "core/publish.h"
#include "core/queue.h"
#include "core/trail.h"

struct item {
    uint64_t producer, number;
};

static struct la_queue *make(struct shared *s, size_t capacity)
{
    struct la_queue *queue;

    assert_int_equal(la_queue_create(s->heap, "queue", capacity, &queue), 0);
    return queue;
}

static struct item *held_item(struct la_heap *heap, uint64_t number)
{
    struct item *item = la_heap_hold(heap, sizeof(*item));

    if (!item)
        abort();
    *item = (struct item){ .number = number };
    return item;
}

static void push_number(struct la_heap *heap, struct la_queue *queue, uint64_t number)
{
    if (la_queue_push(heap, queue, held_item(heap, number), LA_TRY) != 0)
        abort();
}

/* What is popped is freed. -1: nothing there. */
static int64_t pop_number(struct la_heap *heap, struct la_queue *queue)
{
    void *block;
    int64_t number;

    if (la_queue_pop(heap, queue, LA_TRY, &block) != 0)
        return -1;
    number = (int64_t)((struct item *)block)->number;
    la_free(block);
    return number;
}

static uint64_t length_of(struct la_heap *heap, struct la_queue *queue)
{
    struct la_queue_info info = { .struct_size = sizeof(info) };

    assert_int_equal(la_queue_info(heap, queue, &info), 0);
    return info.length;
}

static void objects_come_out_in_the_order_they_went_in(void **state)
{
    struct shared *s = *state;
    struct la_queue *queue = make(s, 5);

    for (uint64_t round = 0; round < 2000; round++) {
        for (uint64_t i = 0; i < 1 + round % 5; i++)
            push_number(s->heap, queue, round * 10 + i);
        assert_int_equal(length_of(s->heap, queue), 1 + round % 5);
        for (uint64_t i = 0; i < 1 + round % 5; i++)
            assert_int_equal(pop_number(s->heap, queue), round * 10 + i);
        assert_int_equal(pop_number(s->heap, queue), -1);
    }
    assert_int_equal(shared_count(s).blocks[HEAP], 1);      /* the queue */
}

static void a_queue_takes_exactly_its_capacity(void **state)
{
    static const size_t capacities[] = { 1, 2, 3, 7, 8, 100 };
    struct shared *s = *state;

    for (unsigned c = 0; c < sizeof(capacities) / sizeof(*capacities); c++) {
        struct la_queue *queue = make(s, capacities[c]);
        void *more = held_item(s->heap, 0);

        for (int turn = 0; turn < 3; turn++) {
            for (size_t i = 0; i < capacities[c]; i++)
                push_number(s->heap, queue, i);
            assert_int_equal(la_queue_push(s->heap, queue, more, LA_TRY), -EAGAIN);
            assert_int_equal(la_queue_walk(s->heap, queue, NULL, NULL), capacities[c]);
            for (size_t i = 0; i < capacities[c]; i++)
                assert_int_equal(pop_number(s->heap, queue), i);
        }
        la_free(more);
        assert_int_equal(la_queue_destroy(s->heap, queue), 0);
        assert_int_equal(shared_count(s).blocks[HEAP], 0);
    }
}

static void a_block_is_the_heaps_while_it_is_queued_and_the_consumers_then(void **state)
{
    struct shared *s = *state;
    struct la_queue *queue = make(s, 4);
    void *block = la_heap_hold(s->heap, 3 << 20), *popped;

    assert_int_equal(shared_count(s).blocks[HELD], 1);
    assert_int_equal(la_queue_push(s->heap, queue, block, LA_TRY), 0);
    assert_int_equal(shared_count(s).blocks[HELD], 0);
    assert_int_equal(shared_count(s).blocks[HEAP], 2);
    assert_int_equal(la_queue_push(s->heap, queue, block, LA_TRY), -EINVAL);
    assert_int_equal(la_queue_pop(s->heap, queue, LA_TRY, &popped), 0);
    assert_ptr_equal(popped, block);
    assert_int_equal(shared_count(s).blocks[HELD], 1);
    assert_int_equal(la_queue_push(s->heap, queue, block, LA_TRY), 0);
    assert_int_equal(la_queue_pop(s->heap, queue, LA_TRY, &popped), 0);
    la_free(popped);
}

static void a_bundle_goes_through_whole(void **state)
{
    struct shared *s = *state;
    struct la_queue *queue = make(s, 1);
    struct la_bundle *bundle;
    void **root, *part, *popped;

    push_number(s->heap, queue, 1);
    assert_int_equal(la_bundle_begin(s->heap, &bundle), 0);
    root = la_bundle_alloc(bundle, 100);
    part = *root = la_bundle_alloc(bundle, 5000);
    assert_int_equal(la_queue_push_bundle(queue, bundle, root, LA_TRY), -EAGAIN);
    assert_int_equal(pop_number(s->heap, queue), 1);
    assert_int_equal(la_queue_push_bundle(queue, bundle, root, LA_TRY), 0);
    assert_int_equal(shared_count(s).blocks[HELD], 0);
    assert_int_equal(shared_count(s).blocks[HEAP], 3);
    assert_int_equal(la_queue_pop(s->heap, queue, LA_TRY, &popped), 0);
    assert_ptr_equal(popped, root);
    la_free(part);
    la_free(popped);
}

/* ---- deaths ---- */

static void die_holding(struct la_heap *heap)
{
    struct la_queue *queue;
    void *block;

    if (la_queue_open(heap, "queue", &queue) < 0)
        _exit(97);
    push_number(heap, queue, 7);
    held_item(heap, 8);
    push_number(heap, queue, 9);
    la_queue_pop(heap, queue, LA_TRY, &block);
}

static void what_the_dead_had_popped_or_not_pushed_is_free_and_the_rest_is_there(void **state)
{
    struct shared *s = *state;
    struct la_queue *queue = make(s, 4);

    push_number(s->heap, queue, 6);
    shared_kill_after(s, die_holding);
    assert_int_equal(la_heap_recover(s->heap, NULL, NULL), 1);
    assert_int_equal(shared_count(s).blocks[HELD], 0);
    assert_int_equal(pop_number(s->heap, queue), 7);
    assert_int_equal(pop_number(s->heap, queue), 9);
    assert_int_equal(pop_number(s->heap, queue), -1);
    assert_int_equal(shared_count(s).blocks[HEAP], 1);
}

static void a_producer_that_stopped_before_it_moved_the_tail_is_helped(void **state)
{
    struct shared *s = *state;
    struct la_queue *queue = make(s, 4);

    push_number(s->heap, queue, 1);
    atomic_fetch_sub(&queue->tail, 1);
    push_number(s->heap, queue, 2);
    atomic_fetch_sub(&queue->tail, 1);
    assert_int_equal(pop_number(s->heap, queue), 1);
    assert_int_equal(pop_number(s->heap, queue), 2);
    assert_int_equal(pop_number(s->heap, queue), -1);
    assert_int_equal(length_of(s->heap, queue), 0);
    push_number(s->heap, queue, 3);
    assert_int_equal(atomic_load(&queue->tail), 3);
    assert_int_equal(pop_number(s->heap, queue), 3);
}

/* Steps 1 and 2 of a pop by another lane, which then stands still. */
static void *take_and_stop(void *argument)
{
    struct la_queue *queue = argument;
    struct la_heap *heap = heap_around(queue);
    uint64_t slot = atomic_load(&queue->slot[atomic_load(&queue->head)]);
    char *block = heap->base + ((slot & (((uint64_t)1 << 42) - 1)) << 4);

    struct block_ref ref;

    if (!block_find(heap, block, &ref))
        return NULL;
    trail_note(heap_lane(heap), &ref);
    atomic_store(ref.word, word_make((slot >> 42 & 0xfff) + 1, ref.epoch, WORD_HELD, heap_lane(heap)->number));
    return block;
}

static void a_consumer_that_stopped_before_it_cleared_the_slot_is_helped(void **state)
{
    struct shared *s = *state;
    struct la_queue *queue = make(s, 2);
    void *taken = NULL;
    pthread_t thread;

    for (int consumer = 0; consumer < 2; consumer++) {
        push_number(s->heap, queue, 1);
        push_number(s->heap, queue, 2);
        assert_int_equal(pthread_create(&thread, NULL, take_and_stop, queue), 0);
        assert_int_equal(pthread_join(thread, &taken), 0);
        assert_int_equal(((struct item *)taken)->number, 1);
        assert_int_equal(la_queue_walk(s->heap, queue, NULL, NULL), 1);
        shared_count(s);                        /* sound */
        if (consumer)
            push_number(s->heap, queue, 3);     /* there is room */
        assert_int_equal(pop_number(s->heap, queue), 2);
        assert_int_equal(pop_number(s->heap, queue), consumer ? 3 : -1);
        la_free(taken);
    }
}

static void a_damaged_queue_is_quarantined_not_followed(void **state)
{
    struct shared *s = *state;
    struct la_queue *queue = make(s, 2);
    uint64_t good = atomic_load(&queue->slot[0]);
    void *block;

    atomic_store(&queue->slot[0], 12345);
    assert_int_equal(la_queue_pop(s->heap, queue, LA_TRY, &block), -EUCLEAN);
    assert_int_equal(la_heap_fsck(s->heap, NULL, NULL, NULL), 1);
    atomic_store(&queue->slot[0], good);
    assert_int_equal(la_heap_fsck(s->heap, NULL, NULL, NULL), 0);
    queue->shift = 20;
    assert_int_equal(la_queue_pop(s->heap, queue, LA_TRY, &block), -EINVAL);
    assert_int_equal(la_heap_fsck(s->heap, NULL, NULL, NULL), 1);
    queue->shift = 2;
    atomic_store(&queue->head, 5);
    assert_int_equal(la_heap_fsck(s->heap, NULL, NULL, NULL), 1);
    assert_int_equal(la_queue_pop(s->heap, queue, LA_TRY, &block), -EUCLEAN);
    atomic_store(&queue->head, 0);
}

/* ---- waiting ---- */

struct call {
    pthread_t thread;
    struct la_heap *heap;
    struct la_queue *queue;
    int64_t timeout;
    int r;
    uint64_t number;
    _Atomic(pid_t) tid;
};

static void *pop_in_thread(void *argument)
{
    struct call *call = argument;
    void *block;

    atomic_store(&call->tid, gettid());
    call->r = la_queue_pop(call->heap, call->queue, call->timeout, &block);
    if (call->r == 0) {
        call->number = ((struct item *)block)->number;
        la_free(block);
    }
    return NULL;
}

static void *push_in_thread(void *argument)
{
    struct call *call = argument;
    void *block = held_item(call->heap, call->number);

    call->r = la_queue_push(call->heap, call->queue, block, call->timeout);
    if (call->r != 0)
        la_free(block);
    return NULL;
}

static void start(struct call *call, struct shared *s, struct la_queue *queue, void *(*run)(void *))
{
    *call = (struct call){ .heap = s->heap, .queue = queue, .timeout = LA_FOREVER, .r = 1, .number = 42 };
    assert_int_equal(pthread_create(&call->thread, NULL, run, call), 0);
}

/* The thread said that it is about to sleep. */
static void wait_for_sleeper(la_word *word)
{
    while (!(atomic_load(word) & 1))
        sched_yield();
}

/* The kernel says so. */
static void wait_until_asleep(struct call *call)
{
    char path[64], state = 'R';

    while (atomic_load(&call->tid) == 0)
        sched_yield();
    snprintf(path, sizeof(path), "/proc/self/task/%d/stat", atomic_load(&call->tid));
    while (state != 'S') {
        FILE *file = fopen(path, "r");

        assert_non_null(file);
        assert_int_equal(fscanf(file, "%*d (%*[^)]) %c", &state), 1);
        fclose(file);
        sched_yield();
    }
}

static void a_consumer_sleeps_until_something_is_pushed(void **state)
{
    struct shared *s = *state;
    struct la_queue *queue = make(s, 2);
    struct call call;

    start(&call, s, queue, pop_in_thread);
    wait_for_sleeper(&queue->filled);
    push_number(s->heap, queue, 17);
    pthread_join(call.thread, NULL);
    assert_int_equal(call.r, 0);
    assert_int_equal(call.number, 17);
}

static void a_producer_sleeps_until_there_is_room(void **state)
{
    struct shared *s = *state;
    struct la_queue *queue = make(s, 1);
    struct call call;

    push_number(s->heap, queue, 1);
    start(&call, s, queue, push_in_thread);
    wait_for_sleeper(&queue->emptied);
    assert_int_equal(pop_number(s->heap, queue), 1);
    pthread_join(call.thread, NULL);
    assert_int_equal(call.r, 0);
    assert_int_equal(pop_number(s->heap, queue), 42);
}

/* The waker died between its store and its wake-up: nobody wakes the sleeper. */
static void a_sleeper_looks_for_itself_when_nobody_wakes_it(void **state)
{
    struct shared *s = *state;
    struct la_queue *queue = make(s, 2);
    struct call call;

    start(&call, s, queue, pop_in_thread);
    wait_for_sleeper(&queue->filled);
    wait_until_asleep(&call);
    /* Without the bit the push sees no sleeper. */
    atomic_fetch_and(&queue->filled, ~1u);
    push_number(s->heap, queue, 5);
    pthread_join(call.thread, NULL);
    assert_int_equal(call.number, 5);
}

static void a_timeout_ends_the_wait_and_the_block_is_still_held(void **state)
{
    struct shared *s = *state;
    struct la_queue *queue = make(s, 1);
    void *block = held_item(s->heap, 2), *none = NULL;

    assert_int_equal(la_queue_pop(s->heap, queue, 2000000, &none), -ETIMEDOUT);
    assert_non_null(strstr(la_last_error(), "was empty for 2000000 ns"));
    assert_null(none);
    push_number(s->heap, queue, 1);
    assert_int_equal(la_queue_push(s->heap, queue, block, 2000000), -ETIMEDOUT);
    assert_non_null(strstr(la_last_error(), "was full for 2000000 ns"));
    assert_int_equal(shared_count(s).blocks[HELD], 1);
    la_free(block);
}

static void a_negative_timeout_is_refused_with_its_value(void **state)
{
    struct shared *s = *state;
    struct la_queue *queue;
    struct la_bundle *bundle;
    void *block = la_heap_hold(s->heap, 64), *none = NULL;

    assert_int_equal(la_queue_create(s->heap, "q", 1, &queue), 0);
    assert_int_equal(la_queue_pop(s->heap, queue, -5, &none), -EINVAL);
    assert_non_null(strstr(la_last_error(), "-5 nanoseconds"));
    assert_int_equal(la_queue_push(s->heap, queue, block, INT64_MIN), -EINVAL);
    assert_int_equal(la_bundle_begin(s->heap, &bundle), 0);
    assert_int_equal(la_queue_push_bundle(queue, bundle, la_bundle_alloc(bundle, 64), -2), -EINVAL);
    la_bundle_abort(bundle);
    assert_int_equal(shared_count(s).blocks[HELD], 1);
    la_free(block);
    assert_int_equal(la_queue_destroy(s->heap, queue), 0);
}

static void closing_wakes_everybody_and_keeps_what_is_queued(void **state)
{
    struct shared *s = *state;
    struct la_queue *queue = make(s, 2);
    void *block = held_item(s->heap, 3);
    struct call calls[2];

    start(&calls[0], s, queue, pop_in_thread);
    wait_for_sleeper(&queue->filled);
    start(&calls[1], s, queue, pop_in_thread);
    assert_int_equal(la_queue_close(s->heap, queue), 0);
    for (int i = 0; i < 2; i++) {
        pthread_join(calls[i].thread, NULL);
        assert_int_equal(calls[i].r, -EPIPE);
    }
    assert_int_equal(la_queue_push(s->heap, queue, block, LA_FOREVER), -EPIPE);
    assert_int_equal(la_queue_destroy(s->heap, queue), 0);

    queue = make(s, 2);
    push_number(s->heap, queue, 1);
    push_number(s->heap, queue, 2);
    start(&calls[0], s, queue, push_in_thread);
    wait_for_sleeper(&queue->emptied);
    assert_int_equal(la_queue_close(s->heap, queue), 0);    /* also when it is full */
    assert_int_equal(la_queue_close(s->heap, queue), 0);
    pthread_join(calls[0].thread, NULL);
    assert_int_equal(calls[0].r, -EPIPE);
    assert_int_equal(la_queue_push(s->heap, queue, block, LA_TRY), -EPIPE);
    assert_int_equal(la_queue_destroy(s->heap, queue), -ENOTEMPTY);
    assert_int_equal(pop_number(s->heap, queue), 1);
    assert_int_equal(pop_number(s->heap, queue), 2);
    assert_int_equal(la_queue_pop(s->heap, queue, LA_FOREVER, &block), -EPIPE);
    la_free(block);
}

/* ---- many ---- */

enum { PRODUCERS = 2, CONSUMERS = 2, EACH = 20000 };

static struct la_heap *many_heap;
static struct la_queue *many_queue;
static _Atomic(uint64_t) popped_count, popped_sum;

static void *produce(void *argument)
{
    for (uint64_t i = 1; i <= EACH; i++) {
        struct item *item = held_item(many_heap, i);

        item->producer = (uintptr_t)argument;
        if (la_queue_push(many_heap, many_queue, item, LA_FOREVER) != 0)
            abort();
    }
    return NULL;
}

static void *consume(void *argument)
{
    uint64_t last[PRODUCERS] = { 0 };
    void *block;

    while (la_queue_pop(many_heap, many_queue, LA_FOREVER, &block) == 0) {
        struct item *item = block;

        if (item->number <= last[item->producer])
            *(bool *)argument = true;
        last[item->producer] = item->number;
        atomic_fetch_add(&popped_count, 1);
        atomic_fetch_add(&popped_sum, item->number);
        la_free(item);
    }
    return NULL;
}

static void each_object_of_many_producers_is_popped_once_in_their_order(void **state)
{
    struct shared *s = *state;
    pthread_t producers[PRODUCERS], consumers[CONSUMERS];
    bool disorder[CONSUMERS] = { false };

    many_heap = s->heap;
    many_queue = make(s, 8);
    for (uintptr_t i = 0; i < PRODUCERS; i++)
        pthread_create(&producers[i], NULL, produce, (void *)i);
    for (int i = 0; i < CONSUMERS; i++)
        pthread_create(&consumers[i], NULL, consume, &disorder[i]);
    for (int i = 0; i < PRODUCERS; i++)
        pthread_join(producers[i], NULL);
    assert_int_equal(la_queue_close(s->heap, many_queue), 0);
    for (int i = 0; i < CONSUMERS; i++) {
        pthread_join(consumers[i], NULL);
        assert_false(disorder[i]);
    }
    assert_int_equal(popped_count, PRODUCERS * EACH);
    assert_int_equal(popped_sum, (uint64_t)PRODUCERS * EACH * (EACH + 1) / 2);
    assert_int_equal(shared_count(s).blocks[HELD], 0);
    assert_int_equal(shared_count(s).blocks[HEAP], 1);
}

static int answer_in_other_process(struct la_heap *heap)
{
    struct la_queue *questions, *answers;
    void *block;

    if (la_queue_open(heap, "queue", &questions) < 0 || la_queue_open(heap, "answers", &answers) < 0)
        return 1;
    while (la_queue_pop(heap, questions, LA_FOREVER, &block) == 0) {
        ((struct item *)block)->number += 1;
        if (la_queue_push(heap, answers, block, LA_FOREVER) != 0)
            return 2;
    }
    return 0;
}

static void another_process_pops_what_this_one_pushed(void **state)
{
    struct shared *s = *state;
    struct la_queue *questions = make(s, 100), *answers;

    assert_int_equal(la_queue_create(s->heap, "answers", 100, &answers), 0);
    for (uint64_t i = 0; i < 100; i++)
        push_number(s->heap, questions, i);
    assert_int_equal(la_queue_close(s->heap, questions), 0);
    assert_int_equal(shared_run(s, answer_in_other_process), 0);
    for (uint64_t i = 0; i < 100; i++)
        assert_int_equal(pop_number(s->heap, answers), i + 1);
}

/* ---- misuse ---- */

static void create_and_open_refuse_what_cannot_be(void **state)
{
    struct shared *s = *state;
    struct la_queue *queue = NULL;

    assert_int_equal(la_queue_create(s->heap, "queue", 0, &queue), -EINVAL);
    assert_int_equal(la_queue_create(s->heap, "queue", LA_QUEUE_MAX_CAPACITY + 1, &queue), -EINVAL);
    assert_int_equal(la_queue_create(s->heap, "no/name", 1, &queue), -EINVAL);
    assert_int_equal(la_queue_open(s->heap, "no/name", &queue), -EINVAL);
    assert_int_equal(la_queue_open(s->heap, "queue", &queue), -ENOENT);
    assert_null(queue);
    make(s, 1);
    assert_int_equal(la_queue_create(s->heap, "queue", 1, &queue), -EEXIST);
    assert_int_equal(shared_count(s).blocks[HELD], 0);
    assert_int_equal(la_publish(s->heap, shared_root(s->heap, "other"), NULL, la_heap_hold(s->heap, 500)), 0);
    assert_int_equal(la_queue_open(s->heap, "other", &queue), -EINVAL);
    assert_null(queue);
}

static void push_refuses_blocks_that_the_thread_does_not_hold(void **state)
{
    struct shared *s = *state;
    struct la_queue *queue = make(s, 4);
    char *held = la_heap_hold(s->heap, 64), *kept = la_heap_alloc(s->heap, 64), *private = la_malloc(64);

    assert_int_equal(la_queue_push(s->heap, queue, kept, LA_TRY), -EINVAL);
    assert_int_equal(la_queue_push(s->heap, queue, held + 16, LA_TRY), -EINVAL);
    assert_int_equal(la_queue_push(s->heap, queue, private, LA_TRY), -EINVAL);
    assert_int_equal(la_queue_push(s->heap, queue, NULL, LA_TRY), -EINVAL);
    assert_int_equal(la_queue_push(s->heap, (struct la_queue *)kept, held, LA_TRY), -EINVAL);
    assert_int_equal(la_queue_push(s->heap, (struct la_queue *)private, held, LA_TRY), -EINVAL);
    assert_int_equal(length_of(s->heap, queue), 0);
    la_free(held);
    la_free(kept);
    la_free(private);
}

static void a_destroyed_queue_is_refused(void **state)
{
    struct shared *s = *state;
    struct la_queue *queue = make(s, 4), *again = NULL;
    struct la_queue_info info = { .struct_size = sizeof(info) };
    void *block = held_item(s->heap, 1);

    assert_int_equal(la_queue_destroy(s->heap, queue), 0);
    assert_int_equal(la_queue_push(s->heap, queue, block, LA_TRY), -EINVAL);
    assert_int_equal(la_queue_pop(s->heap, queue, LA_TRY, &block), -EINVAL);
    assert_int_equal(la_queue_close(s->heap, queue), -EINVAL);
    assert_int_equal(la_queue_destroy(s->heap, queue), -EINVAL);
    assert_int_equal(la_queue_info(s->heap, queue, &info), -EINVAL);
    assert_int_equal(la_queue_open(s->heap, "queue", &again), -ENOENT);
    assert_int_equal(la_queue_create(s->heap, "queue", 4, &again), 0);
    la_free(block);
}

static int use_as_reader(const char *name)
{
    struct la_queue_info info = { .struct_size = sizeof(info) };
    struct la_queue *queue;
    struct la_heap *heap;
    void *block;

    if (la_heap_attach(name, LA_HEAP_READ_ONLY, &heap) < 0 || la_queue_open(heap, "queue", &queue) < 0)
        return 1;
    if (la_queue_push(heap, queue, queue, LA_TRY) != -EROFS || la_queue_pop(heap, queue, LA_TRY, &block) != -EROFS ||
        la_queue_close(heap, queue) != -EROFS || la_queue_destroy(heap, queue) != -EROFS ||
        la_queue_create(heap, "new", 1, &queue) != -EROFS)
        return 2;
    if (la_queue_info(heap, queue, &info) < 0 || info.length != 2 || info.capacity != 4 || info.pushed != 3 || info.popped != 1 ||
        la_queue_walk(heap, queue, NULL, NULL) != 2)
        return 3;
    return 0;
}

static void a_reader_may_look_but_not_touch(void **state)
{
    struct shared *s = *state;
    struct la_queue *queue = make(s, 4);
    int status;
    pid_t pid;

    for (int i = 0; i < 3; i++)
        push_number(s->heap, queue, 1);
    assert_int_equal(pop_number(s->heap, queue), 1);
    pid = fork();
    if (pid == 0)
        _exit(use_as_reader(s->name));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        shared_test(objects_come_out_in_the_order_they_went_in),
        shared_test(a_queue_takes_exactly_its_capacity),
        shared_test(a_block_is_the_heaps_while_it_is_queued_and_the_consumers_then),
        shared_test(a_bundle_goes_through_whole),
        shared_test(what_the_dead_had_popped_or_not_pushed_is_free_and_the_rest_is_there),
        shared_test(a_producer_that_stopped_before_it_moved_the_tail_is_helped),
        shared_test(a_consumer_that_stopped_before_it_cleared_the_slot_is_helped),
        shared_test(a_damaged_queue_is_quarantined_not_followed),
        shared_test(a_consumer_sleeps_until_something_is_pushed),
        shared_test(a_producer_sleeps_until_there_is_room),
        shared_test(a_sleeper_looks_for_itself_when_nobody_wakes_it),
        shared_test(a_timeout_ends_the_wait_and_the_block_is_still_held),
        shared_test(a_negative_timeout_is_refused_with_its_value),
        shared_test(closing_wakes_everybody_and_keeps_what_is_queued),
        shared_test(each_object_of_many_producers_is_popped_once_in_their_order),
        shared_test(another_process_pops_what_this_one_pushed),
        shared_test(create_and_open_refuse_what_cannot_be),
        shared_test(push_refuses_blocks_that_the_thread_does_not_hold),
        shared_test(a_destroyed_queue_is_refused),
        shared_test(a_reader_may_look_but_not_touch),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
