/* limbo_test.c - a block is not handed out again before its token is complete, and none is lost. */
#include "engine.h"

#include <sched.h>
#include <stdatomic.h>

#include <liballoc/limbo.h>

enum { BUFFER = 1 << 20, BLOCKS = 400 };

struct fixture {
    struct la_limbo *limbo;
    struct la_chain *chain;
    uint64_t counter;
    struct misuse_record misuse;
    char buffer[BUFFER];
};

static int setup(void **state)
{
    static struct fixture f;

    f.counter = 0;
    record_misuse(&f.misuse);
    assert_int_equal(la_limbo_create(&f.limbo), 0);
    assert_int_equal(la_chain_create_in(f.buffer, sizeof(f.buffer), LA_CHAIN_MT, &f.chain), 0);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(la_limbo_destroy(f->limbo), 0);
    assert_chain_is_sound(f->chain);
    assert_int_equal(la_chain_destroy(f->chain), 0);
    return 0;
}

static uint64_t live(const struct fixture *f)
{
    struct la_stats stats = { .struct_size = sizeof(stats) };

    assert_int_equal(la_chain_stats(f->chain, &stats), 0);
    return stats.blocks;
}

static void free_after(struct fixture *f, void *block, uint64_t value)
{
    assert_int_equal(la_free_after(f->limbo, block, la_token_counter(&f->counter, value)), 0);
}

static void block_comes_back_when_its_token_is_complete_and_not_before(void **state)
{
    struct fixture *f = *state;
    char *block = la_chain_alloc(f->chain, 1000);

    memset(block, 7, 1000);
    free_after(f, block, 1);
    for (int i = 0; i < 500; i++) {
        char *other = la_chain_alloc(f->chain, 1000);

        assert_true(other && other != block);
        memset(other, 1, 1000);
        la_free(other);
        assert_int_equal(la_limbo_poll(f->limbo, 0), 0);
    }
    for (int i = 0; i < 1000; i++)
        assert_int_equal(block[i], 7);      /* not a byte: a device reads it */
    assert_int_equal(la_limbo_pending(f->limbo), 1);
    f->counter = 1;
    assert_int_equal(la_limbo_poll(f->limbo, 1), 1);
    assert_int_equal(la_limbo_pending(f->limbo), 0);
    assert_int_equal(live(f), 0);
}

static void tokens_complete_in_any_order(void **state)
{
    struct fixture *f = *state;
    static uint64_t done[BLOCKS];
    void *blocks[BLOCKS];

    memset(done, 0, sizeof(done));
    for (unsigned i = 0; i < BLOCKS; i++) {
        assert_non_null(blocks[i] = la_chain_alloc(f->chain, 64));
        assert_int_equal(la_free_after(f->limbo, blocks[i], la_token_counter(&done[i], 1)), 0);
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        assert_int_equal(la_limbo_pending(f->limbo), BLOCKS - i);
        done[(size_t)i * 171 % BLOCKS] = 1;
        assert_int_equal(la_limbo_poll(f->limbo, 0), 1);
        assert_int_equal(live(f), BLOCKS - i - 1);
    }
}

/* Also of a call that only adds: with every block that comes, some of those whose turn it is are looked at. */
static void adding_frees_what_is_complete_with_bounded_work(void **state)
{
    struct fixture *f = *state;

    for (uint64_t n = 1; n <= 3000; n++) {
        void *block = la_chain_alloc(f->chain, 1000);

        assert_non_null(block);     /* the buffer holds a third of them */
        free_after(f, block, n);
        f->counter = n;
    }
    assert_true(la_limbo_pending(f->limbo) < 10);
}

struct slow {
    unsigned asked;
    int answer;
};

static int ask(void *object, uint64_t value)
{
    struct slow *slow = object;

    (void)value;
    slow->asked++;
    return slow->answer;
}

static const struct la_token_ops slow_ops = { .struct_size = sizeof(slow_ops), .name = "slow", .is_complete = ask };

static void blocks_of_one_token_share_a_question(void **state)
{
    struct fixture *f = *state;
    struct slow slow = { 0 };
    struct la_token token = { .ops = &slow_ops, .object = &slow };

    for (unsigned i = 0; i < 50; i++)
        assert_int_equal(la_free_after(f->limbo, la_chain_alloc(f->chain, 100), token), 0);
    assert_int_equal(slow.asked, 0);
    assert_int_equal(la_limbo_poll(f->limbo, 0), 0);
    assert_int_equal(slow.asked, 1);
    slow.answer = 1;
    assert_int_equal(la_limbo_poll(f->limbo, 0), 50);
    assert_int_equal(slow.asked, 2);
}

static void token_that_cannot_tell_keeps_its_block(void **state)
{
    struct fixture *f = *state;
    struct slow lost = { .answer = -EIO };

    assert_int_equal(la_free_after(f->limbo, la_chain_alloc(f->chain, 100), (struct la_token){ .ops = &slow_ops, .object = &lost }), 0);
    free_after(f, la_chain_alloc(f->chain, 100), 1);
    assert_int_equal(la_limbo_poll(f->limbo, 0), -EIO);
    f->counter = 1;
    assert_int_equal(la_limbo_poll(f->limbo, 0), 1);    /* the other is not held up */
    assert_int_equal(la_limbo_destroy(f->limbo), -EBUSY);
    assert_non_null(strstr(la_last_error(), "1 block is in flight"));
    assert_non_null(strstr(la_last_error(), "slow"));
    assert_int_equal(la_limbo_pending(f->limbo), 1);
    assert_int_equal(la_limbo_forget(f->limbo), 1);
    assert_int_equal(live(f), 1);
}

static void counters_wrap(void **state)
{
    struct fixture *f = *state;

    f->counter = UINT64_MAX - 1;
    free_after(f, la_chain_alloc(f->chain, 100), 3);
    assert_int_equal(la_limbo_poll(f->limbo, 0), 0);
    f->counter = 3;
    assert_int_equal(la_limbo_poll(f->limbo, 0), 1);
}

static void wrong_arguments_are_refused(void **state)
{
    struct fixture *f = *state;
    struct la_token token = la_token_counter(&f->counter, 0);
    char *block = la_chain_alloc(f->chain, 100);
    int foreign;

    assert_int_equal(la_free_after(f->limbo, NULL, token), 0);
    assert_int_equal(la_free_after(f->limbo, &foreign, token), -EINVAL);
    assert_int_equal(la_free_after(f->limbo, block + 8, token), -EINVAL);
    assert_int_equal(la_free_after(f->limbo, block, (struct la_token){ 0 }), -EINVAL);
    assert_int_equal(la_limbo_pending(f->limbo), 0);
    free_after(f, block, 0);
    free_after(f, block, 0);            /* a double free all the same */
    la_limbo_poll(f->limbo, 0);
    assert_reported_once(&f->misuse, block);
}

/* ---- threads ---- */

enum { WRITERS = 3, ROUNDS = 4000, FRAME = 64 };

/* A device that reads each buffer some time after it was posted; what it finds must be what was posted. */
struct device {
    struct fixture *f;
    struct post {
        _Atomic(char *) buffer;         /* NULL: nothing posted here */
        char content;
        uint64_t done;
    } posts[WRITERS][16];
    _Atomic(bool) stop;
    unsigned wrong;
};

static void *run_device(void *arg)
{
    struct device *d = arg;

    for (unsigned turn = 0; !atomic_load(&d->stop); turn++) {
        struct post *post = &d->posts[turn % WRITERS][turn / WRITERS * 7 % 16];
        char *buffer = atomic_load_explicit(&post->buffer, memory_order_acquire);

        if (!buffer)
            continue;
        for (int i = 0; i < FRAME; i++)
            d->wrong += buffer[i] != post->content;
        atomic_store_explicit(&post->buffer, NULL, memory_order_relaxed);
        __atomic_store_n(&post->done, post->done + 1, __ATOMIC_RELEASE);
    }
    return NULL;
}

struct writer {
    struct device *device;
    unsigned number;
};

static void *run_writer(void *arg)
{
    struct writer *w = arg;
    struct device *d = w->device;
    uint64_t posted[16] = { 0 };

    for (unsigned i = 0; i < ROUNDS; i++) {
        struct post *post = &d->posts[w->number][i % 16];
        char *buffer;

        while (__atomic_load_n(&post->done, __ATOMIC_ACQUIRE) < posted[i % 16])
            sched_yield();
        while ((buffer = la_chain_alloc(d->f->chain, FRAME)) == NULL)
            la_limbo_poll(d->f->limbo, 0);
        post->content = (char)(i * 31 + w->number);
        memset(buffer, post->content, FRAME);
        atomic_store_explicit(&post->buffer, buffer, memory_order_release);
        assert_int_equal(la_free_after(d->f->limbo, buffer, la_token_counter(&post->done, ++posted[i % 16])), 0);
    }
    return NULL;
}

static void no_thread_gets_a_block_that_a_device_reads(void **state)
{
    static struct device device;
    struct writer writers[WRITERS];
    pthread_t threads[WRITERS], reader;
    struct fixture *f = *state;

    memset(&device, 0, sizeof(device));
    device.f = f;
    assert_int_equal(pthread_create(&reader, NULL, run_device, &device), 0);
    for (unsigned i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){ &device, i };
        assert_int_equal(pthread_create(&threads[i], NULL, run_writer, &writers[i]), 0);
    }
    for (unsigned i = 0; i < WRITERS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    while (la_limbo_pending(f->limbo) > 0 && la_limbo_poll(f->limbo, 0) >= 0)
        sched_yield();
    atomic_store(&device.stop, true);
    assert_int_equal(pthread_join(reader, NULL), 0);
    assert_int_equal(device.wrong, 0);
    assert_int_equal(f->misuse.count, 0);
    assert_int_equal(live(f), 0);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(block_comes_back_when_its_token_is_complete_and_not_before),
        TEST(tokens_complete_in_any_order),
        TEST(adding_frees_what_is_complete_with_bounded_work),
        TEST(blocks_of_one_token_share_a_question),
        TEST(token_that_cannot_tell_keeps_its_block),
        TEST(counters_wrap),
        TEST(wrong_arguments_are_refused),
        TEST(no_thread_gets_a_block_that_a_device_reads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
