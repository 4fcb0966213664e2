/*
 * Random work on chains of every kind, with the content of every block checked: no block is handed out twice, none
 * overlaps, and the equations of core/types.h hold afterwards. One program, so that the sanitizers see all of it.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <liballoc/liballoc.h>

#include "../support/random.h"

enum { SLOTS = 2000, ROUNDS = 60000 };

struct slot {
    unsigned char *block;
    size_t size;
    unsigned char fill;
};

/* Log-uniform: every power of two is as likely as the next. */
static size_t random_size(uint64_t *state, unsigned max_shift)
{
    unsigned shift = (unsigned)(next_random(state) % max_shift);

    return (next_random(state) & (((size_t)1 << shift) - 1)) + 1;
}

/* Big blocks are checked at both ends and in between, small ones whole. */
static void fill(struct slot *s)
{
    size_t step = s->size > 4096 ? s->size / 64 : 1;

    for (size_t i = 0; i < s->size; i += step)
        s->block[i] = s->fill;
    s->block[s->size - 1] = s->fill;
}

static void verify(const struct slot *s)
{
    size_t step = s->size > 4096 ? s->size / 64 : 1;

    for (size_t i = 0; i < s->size; i += step)
        if (s->block[i] != s->fill)
            abort();
    if (s->block[s->size - 1] != s->fill)
        abort();
}

static void churn(struct la_chain *chain, uint64_t seed, unsigned max_shift, unsigned rounds)
{
    struct slot *slots = calloc(SLOTS, sizeof(*slots));
    uint64_t state = seed * 0x9e3779b97f4a7c15 + 1;

    for (unsigned i = 0; i < rounds; i++) {
        struct slot *s = &slots[next_random(&state) % SLOTS];
        unsigned what = next_random(&state) % 8;

        if (s->block && what == 0) {
            size_t size = random_size(&state, max_shift);
            unsigned char *moved = chain ? la_chain_realloc(chain, s->block, size) : la_realloc(s->block, size);
            size_t same = size < s->size ? size : s->size;

            if (!moved)
                continue;
            if (moved[0] != s->fill || (s->size <= 4096 && moved[same - 1] != s->fill))
                abort();
            *s = (struct slot){ moved, size, s->fill };
            fill(s);
            continue;
        }
        if (s->block) {
            verify(s);
            la_free(s->block);
            s->block = NULL;
            continue;
        }
        s->size = random_size(&state, max_shift);
        s->fill = (unsigned char)next_random(&state);
        if (what == 1) {
            size_t alignment = (size_t)1 << next_random(&state) % 14;
            s->block = chain ? la_chain_aligned_alloc(chain, alignment, s->size) : la_aligned_alloc(alignment, s->size);
            if ((uintptr_t)s->block % alignment)
                abort();
        } else if (what == 2) {
            s->block = chain ? la_chain_calloc(chain, 1, s->size) : la_calloc(1, s->size);
            for (size_t j = 0; s->block && j < s->size; j += s->size > 4096 ? 509 : 1)
                if (s->block[j])
                    abort();
        } else {
            s->block = chain ? la_chain_alloc(chain, s->size) : la_malloc(s->size);
        }
        if (s->block)
            fill(s);
    }
    for (unsigned i = 0; i < SLOTS; i++)
        if (slots[i].block) {
            verify(&slots[i]);
            la_free(slots[i].block);
        }
    free(slots);
}

static void print_finding(void *user, const char *line)
{
    (void)user;
    print_error("%s\n", line);
}

static void private_chain_stays_sound_under_random_work(void **state)
{
    (void)state;
    churn(NULL, 1, 23, ROUNDS);
    assert_int_equal(la_heap_check(print_finding, NULL), 0);
    assert_int_equal(la_misuse_count(), 0);
}

static void chain_over_a_buffer_stays_sound_at_every_size(void **state)
{
    static const size_t sizes[] = { 16384, 50000, 1 << 20, (2 << 20) + 12345, 40 << 20 };

    (void)state;
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        unsigned char *memory = malloc(sizes[i] + 64);
        struct la_chain *chain;

        assert_int_equal(la_chain_create_in(memory + 1 + i, sizes[i], 0, &chain), 0);
        churn(chain, i + 1, 12 + 2 * i, ROUNDS / 4);
        assert_int_equal(la_chain_check(chain, print_finding, NULL), 0);
        assert_int_equal(la_chain_destroy(chain), 0);
        free(memory);
    }
    assert_int_equal(la_misuse_count(), 0);
}

struct job {
    struct la_chain *chain;
    uint64_t seed;
};

static void *churn_thread(void *arg)
{
    struct job *job = arg;

    churn(job->chain, job->seed, 18, ROUNDS / 4);
    return NULL;
}

static void run_threads(struct la_chain *chain, unsigned n)
{
    pthread_t threads[8];
    struct job jobs[8];

    for (unsigned i = 0; i < n; i++) {
        jobs[i] = (struct job){ chain, i + 100 };
        assert_int_equal(pthread_create(&threads[i], NULL, churn_thread, &jobs[i]), 0);
    }
    for (unsigned i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
}

static void threads_on_their_own_chains_stay_sound(void **state)
{
    (void)state;
    for (int round = 0; round < 3; round++)
        run_threads(NULL, 4);
    assert_int_equal(la_heap_check(print_finding, NULL), 0);
    assert_int_equal(la_misuse_count(), 0);
}

static void threads_on_one_thread_safe_chain_stay_sound(void **state)
{
    struct la_chain *chain;

    (void)state;
    assert_int_equal(la_chain_create(NULL, LA_CHAIN_MT, &chain), 0);
    run_threads(chain, 4);
    assert_int_equal(la_chain_check(chain, print_finding, NULL), 0);
    assert_int_equal(la_chain_destroy(chain), 0);
    assert_int_equal(la_misuse_count(), 0);
}

/* Blocks go round in a ring: each thread frees what its neighbour allocated. */
enum { RING = 4, PASSES = 20000, DEPTH = 64 };

static struct {
    pthread_mutex_t lock;
    struct slot slots[DEPTH];
} boxes[RING];

static void *ring_thread(void *arg)
{
    unsigned me = (unsigned)(uintptr_t)arg;
    uint64_t state = me + 7;

    for (unsigned i = 0; i < PASSES; i++) {
        struct slot mine = { .size = random_size(&state, 14), .fill = (unsigned char)i }, theirs;
        unsigned at = next_random(&state) % DEPTH;

        mine.block = la_malloc(mine.size);
        fill(&mine);
        pthread_mutex_lock(&boxes[(me + 1) % RING].lock);
        theirs = boxes[(me + 1) % RING].slots[at];
        boxes[(me + 1) % RING].slots[at] = mine;
        pthread_mutex_unlock(&boxes[(me + 1) % RING].lock);
        if (theirs.block) {
            verify(&theirs);
            la_free(theirs.block);
        }
    }
    return NULL;
}

static void blocks_freed_by_other_threads_come_back_whole(void **state)
{
    pthread_t threads[RING];

    (void)state;
    for (unsigned i = 0; i < RING; i++)
        pthread_mutex_init(&boxes[i].lock, NULL);
    for (int round = 0; round < 3; round++) {
        for (unsigned i = 0; i < RING; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, ring_thread, (void *)(uintptr_t)i), 0);
        for (unsigned i = 0; i < RING; i++)
            pthread_join(threads[i], NULL);
    }
    for (unsigned i = 0; i < RING; i++)
        for (unsigned j = 0; j < DEPTH; j++)
            la_free(boxes[i].slots[j].block);
    la_source_trim(NULL);
    assert_int_equal(la_heap_check(print_finding, NULL), 0);
    assert_int_equal(la_misuse_count(), 0);
}

static void *short_thread(void *arg)
{
    void **late = arg;

    for (unsigned i = 0; i < 100; i++)
        la_free(la_malloc(i * 50));
    *late = la_malloc(200 << 10);
    memset(*late, 1, 200 << 10);
    return NULL;
}

/* The ancestor leaked 101 MB here: ended threads kept their chains, late frees went to queues nobody emptied. */
static void many_short_threads_and_late_frees_do_not_grow_memory(void **state)
{
    struct la_stats stats = { .struct_size = sizeof(stats) };
    void *late[50];

    (void)state;
    for (unsigned i = 0; i < 4000; i++) {
        pthread_t thread;

        assert_int_equal(pthread_create(&thread, NULL, short_thread, &late[i % 50]), 0);
        pthread_join(thread, NULL);
        if (i % 50 == 49)
            for (unsigned j = 0; j < 50; j++)
                la_free(late[j]);
    }
    la_source_trim(NULL);
    assert_int_equal(la_process_stats(&stats), 0);
    assert_true(stats.mapped < 64u << 20);
    assert_int_equal(la_heap_check(print_finding, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(private_chain_stays_sound_under_random_work),
        cmocka_unit_test(chain_over_a_buffer_stays_sound_at_every_size),
        cmocka_unit_test(threads_on_their_own_chains_stay_sound),
        cmocka_unit_test(threads_on_one_thread_safe_chain_stay_sound),
        cmocka_unit_test(blocks_freed_by_other_threads_come_back_whole),
        cmocka_unit_test(many_short_threads_and_late_frees_do_not_grow_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
