/*
 * thread_test.c - one chain per thread: default switch, birth, end, fork.
 *
 * The ancestor had no fork handler, leaked the chain of every thread that ended, and had no guard around its switch.
 */
#include "engine.h"

#include <stdatomic.h>

#include "child.h"
#include "core/region_map.h"
#include "core/source.h"
#include "core/thread.h"
#include "os/os.h"

static struct la_chain *chain_of(const void *block)
{
    struct la_owner o = { .struct_size = sizeof(o) };

    return la_owner_of(block, &o) == 0 ? o.chain : NULL;
}

static struct la_chain *new_chain(unsigned flags)
{
    struct la_chain *chain = NULL;

    assert_int_equal(la_chain_create(NULL, flags, &chain), 0);
    return chain;
}

static struct la_chain *chain_of_malloc(void)
{
    void *block = la_malloc(50);
    struct la_chain *chain = chain_of(block);

    la_free(block);
    return chain;
}

/* ---- default chain ---- */

static void switch_returns_the_previous_default(void **state)
{
    struct la_chain *a = new_chain(0), *b = new_chain(LA_CHAIN_MT), *back;

    (void)state;
    assert_null(la_default_get());
    assert_null(la_default_set(a));
    assert_ptr_equal(la_default_get(), a);
    assert_ptr_equal(chain_of_malloc(), a);
    assert_ptr_equal(la_default_set(b), a);
    assert_ptr_equal(chain_of_malloc(), b);
    assert_ptr_equal(la_default_set(a), b);
    assert_ptr_equal(chain_of_malloc(), a);
    assert_ptr_equal(la_default_set(NULL), a);
    back = chain_of_malloc();
    assert_ptr_equal(back, la_tls_own);
    assert_int_equal(la_chain_destroy(a), 0);
    assert_int_equal(la_chain_destroy(b), 0);
}

static void own_chain_as_default_is_the_usual_state(void **state)
{
    (void)state;
    la_free(la_malloc(1));
    assert_null(la_default_set(la_tls_own));
    assert_null(la_default_get());
    assert_ptr_equal(la_tls_default, la_tls_own);
}

static void every_call_follows_the_default(void **state)
{
    struct la_chain *chain = new_chain(0);
    void *blocks[5];

    (void)state;
    la_default_set(chain);
    blocks[0] = la_calloc(3, 100);
    blocks[1] = la_realloc(NULL, 100000);
    blocks[2] = la_aligned_alloc(256, 1000);
    blocks[3] = la_malloc(5 * MiB);
    blocks[4] = la_realloc(la_malloc(10), 3000);
    la_default_set(NULL);
    for (unsigned i = 0; i < 5; i++) {
        assert_ptr_equal(chain_of(blocks[i]), chain);
        la_free(blocks[i]);
    }
    assert_chain_is_sound(chain);
    assert_int_equal(la_chain_destroy(chain), 0);
}

static void block_is_freed_into_its_chain_whatever_the_default_is(void **state)
{
    struct la_chain *chain = new_chain(0);
    void *mine = la_malloc(70), *theirs = la_chain_alloc(chain, 70);
    struct la_stats stats = { .struct_size = sizeof(stats) };

    (void)state;
    la_free(theirs);
    LA_WITH_CHAIN(chain) {
        la_free(mine);
        assert_ptr_not_equal(la_malloc(70), mine);
    }
    assert_ptr_equal(la_malloc(70), mine);
    la_free(mine);
    assert_int_equal(la_chain_reset(chain), 0);
    la_chain_stats(chain, &stats);
    assert_int_equal(stats.blocks, 0);
    assert_int_equal(la_chain_destroy(chain), 0);
    assert_heap_is_sound();
}

static int leave_by_return(struct la_chain *chain)
{
    LA_WITH_CHAIN(chain) {
        if (la_default_get() == chain)
            return 1;
    }
    return 2;
}

static void scope_restores_the_default_however_it_is_left(void **state)
{
    struct la_chain *a = new_chain(0), *b = new_chain(0);
    unsigned runs = 0;

    (void)state;
    LA_WITH_CHAIN(a)
        assert_ptr_equal(la_default_get(), a);
    assert_null(la_default_get());

    LA_WITH_CHAIN(a) {
        runs++;
        LA_WITH_CHAIN(b) {
            assert_ptr_equal(chain_of_malloc(), b);
            break;
        }
        assert_ptr_equal(la_default_get(), a);
        LA_WITH_CHAIN(NULL)
            assert_ptr_equal(chain_of_malloc(), la_tls_own);
        assert_ptr_equal(la_default_get(), a);
    }
    assert_int_equal(runs, 1);
    assert_null(la_default_get());

    assert_int_equal(leave_by_return(a), 1);
    assert_null(la_default_get());

    LA_WITH_CHAIN(b) {
        goto out;
    }
out:
    assert_null(la_default_get());
    LA_WITH_CHAIN(b)
        continue;
    assert_null(la_default_get());
    assert_int_equal(la_chain_destroy(a), 0);
    assert_int_equal(la_chain_destroy(b), 0);
}

static void default_chain_cannot_be_destroyed(void **state)
{
    struct la_chain *chain = new_chain(0);

    (void)state;
    la_default_set(chain);
    la_default_set(chain);      /* twice is once */
    assert_int_equal(la_chain_destroy(chain), -EBUSY);
    assert_non_null(la_malloc(100));
    la_default_set(NULL);
    assert_int_equal(la_chain_destroy(chain), 0);
}

struct other {
    struct la_chain *chain, *seen, *own;
    pthread_barrier_t in, out;
};

static void *use_as_default(void *arg)
{
    struct other *o = arg;

    o->seen = la_default_get();
    o->own = chain_of_malloc();
    la_default_set(o->chain);
    pthread_barrier_wait(&o->in);
    pthread_barrier_wait(&o->out);
    return NULL;        /* without giving it back */
}

static void default_of_another_thread_is_held_until_that_thread_ends(void **state)
{
    struct other o = { .chain = new_chain(LA_CHAIN_MT) };
    pthread_t thread;

    (void)state;
    pthread_barrier_init(&o.in, NULL, 2);
    pthread_barrier_init(&o.out, NULL, 2);
    la_default_set(o.chain);
    assert_int_equal(pthread_create(&thread, NULL, use_as_default, &o), 0);
    pthread_barrier_wait(&o.in);
    la_default_set(NULL);
    assert_int_equal(la_chain_destroy(o.chain), -EBUSY);
    assert_non_null(strstr(la_last_error(), "of 1 thread: "));
    pthread_barrier_wait(&o.out);
    pthread_join(thread, NULL);
    assert_null(o.seen);                            /* it did not inherit our default */
    assert_non_null(o.own);
    assert_ptr_not_equal(o.own, o.chain);
    assert_ptr_not_equal(o.own, la_tls_own);
    assert_int_equal(la_chain_destroy(o.chain), 0);
}

static void set_default_first(void *arg)
{
    la_default_set(arg);        /* this thread never has a chain of its own */
    if (chain_of_malloc() != arg)
        abort();
}

static void thread_that_only_has_a_default_gives_it_back_at_its_end(void **state)
{
    struct la_chain *chain = new_chain(LA_CHAIN_MT);

    (void)state;
    in_other_thread(set_default_first, chain);
    assert_int_equal(la_chain_destroy(chain), 0);
}

/* ---- birth and end ---- */

static void count_one(struct la_chain *chain, void *arg)
{
    (void)chain;
    ++*(unsigned *)arg;
}

static unsigned chain_count(void)
{
    unsigned n = 0;

    chains_each(count_one, &n);
    return n;
}

static void allocate_a_little(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < 100; i++)
        la_free(la_malloc(i * 50));
}

/* Regression of the ancestor: each ended thread left its chain, and one version died after some 1,200 threads. */
static void ended_threads_leave_nothing_behind(void **state)
{
    unsigned chains;
    size_t mapped;

    (void)state;
    in_other_thread(allocate_a_little, NULL);
    chains = chain_count();
    mapped = la_source_default()->mapped;
    for (unsigned i = 0; i < 4000; i++)
        in_other_thread(allocate_a_little, NULL);
    assert_int_equal(chain_count(), chains);
    assert_int_equal(la_source_default()->mapped, mapped);
    assert_heap_is_sound();
}

static pthread_key_t late_key;

static void allocate_late(void *block)
{
    la_free(block);
    la_free(la_malloc(300));
    la_free(la_malloc(3 * MiB));
}

static void set_late_key(void *arg)
{
    (void)arg;
    pthread_setspecific(late_key, la_malloc(100));
}

static void destructors_of_thread_data_may_still_allocate(void **state)
{
    unsigned chains;

    (void)state;
    /* Made after the engine's key, so its destructor runs when the thread's chain is gone. */
    assert_int_equal(pthread_key_create(&late_key, allocate_late), 0);
    in_other_thread(set_late_key, NULL);
    chains = chain_count();
    for (unsigned i = 0; i < 100; i++)
        in_other_thread(set_late_key, NULL);
    assert_int_equal(chain_count(), chains);
    pthread_key_delete(late_key);
    la_source_trim(NULL);
    assert_heap_is_sound();
}

static void chain_of_an_ended_thread_serves_the_next_one(void **state)
{
    struct la_chain *chains[2];
    struct other o = { 0 };

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        pthread_t thread;

        o = (struct other){ 0 };
        pthread_barrier_init(&o.in, NULL, 1);
        pthread_barrier_init(&o.out, NULL, 1);
        assert_int_equal(pthread_create(&thread, NULL, use_as_default, &o), 0);
        pthread_join(thread, NULL);
        chains[i] = o.own;
    }
    assert_ptr_equal(chains[0], chains[1]);
}

/* ---- fork ---- */

static void use_every_path(void *arg)
{
    void *blocks[300];
    struct la_chain *chain = NULL;

    (void)arg;
    alarm(60);      /* a lock that nobody will give any more */
    for (unsigned i = 0; i < 300; i++) {
        blocks[i] = la_malloc(i * i + 1);
        CHECK(blocks[i] != NULL);
        memset(blocks[i], 1, i * i + 1);
    }
    for (unsigned i = 0; i < 300; i++)
        la_free(blocks[i]);
    blocks[0] = la_malloc(5 * MiB);
    blocks[0] = la_realloc(blocks[0], 9 * MiB);
    CHECK(blocks[0] != NULL);
    la_free(blocks[0]);
    CHECK(la_chain_create(NULL, LA_CHAIN_MT, &chain) == 0);
    CHECK(la_chain_alloc(chain, 100) != NULL);
    CHECK(la_chain_destroy(chain) == 0);
    la_source_trim(NULL);
    CHECK(la_chain_check(NULL, print_finding, NULL) == 0);
}

static atomic_bool stop;
static struct la_chain *shared_chain;

static void *work(void *arg)
{
    unsigned me = (unsigned)(uintptr_t)arg;

    for (unsigned i = 0; !atomic_load(&stop); i++) {
        void *block = la_malloc((i * 37 + me) % 60000);
        void *shared = la_chain_alloc(shared_chain, i % 3000);
        struct la_chain *chain;

        la_free(block);
        la_free(shared);
        if (i % 16 == 0)
            la_free(la_malloc(3 * MiB + i % 5 * MiB));
        if (i % 64 == 0 && la_chain_create(NULL, me & 1, &chain) == 0)
            la_chain_destroy(chain);
        if (i % 128 == 0 && !EMULATED)
            la_source_trim(NULL);
    }
    return NULL;
}

static void child_of_a_threaded_program_has_a_working_heap(void **state)
{
    pthread_t threads[3];

    (void)state;
    shared_chain = new_chain(LA_CHAIN_MT);
    atomic_store(&stop, false);
    for (unsigned i = 0; i < ARRAY_SIZE(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, (void *)(uintptr_t)i), 0);
    for (unsigned i = 0; i < (SANITIZED || EMULATED ? 10 : 40); i++)
        assert_int_equal(run_in_child(use_every_path, NULL), 0);
    atomic_store(&stop, true);
    for (unsigned i = 0; i < ARRAY_SIZE(threads); i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(la_chain_destroy(shared_chain), 0);
    la_source_trim(NULL);
    assert_heap_is_sound();
}

static void use_both(void *arg)
{
    struct la_chain **chains = arg;

    for (unsigned i = 0; i < 2; i++) {
        void *block = la_chain_alloc(chains[i], 100);
        CHECK(block != NULL);
        la_free(block);
        CHECK(la_chain_destroy(chains[i]) == 0);
    }
}

static void fork_takes_several_thread_safe_chains(void **state)
{
    static char memory[32 * KiB];
    struct la_chain *chains[2] = { new_chain(LA_CHAIN_MT) };

    (void)state;
    assert_int_equal(la_chain_create_in(memory, sizeof(memory), LA_CHAIN_MT, &chains[1]), 0);
    assert_int_equal(run_in_child(use_both, chains), 0);
    use_both(chains);
}

/* ---- a thread-safe chain whose user has jumped out of a call on it ---- */

struct left {
    struct la_chain *chain;
    void *block;
    _Atomic(int) stage;
};

/* As after a jump: it has the lock, and is busy with other things. */
static void *leave_locked(void *arg)
{
    struct left *l = arg;
    struct slow_path slow;

    slow_begin(&slow);
    slow_work_on(l->chain);
    lock_take_patiently(&l->chain->lock);
    atomic_store(&l->stage, 1);
    while (atomic_load(&l->stage) == 1)
        sched_yield();
    slow.token[0] = 0;     /* the frame is overwritten */
    la_free(la_malloc(64));
    atomic_store(&l->stage, 3);
    while (atomic_load(&l->stage) == 3)
        sched_yield();
    return NULL;
}

static void use_left_chain(void *arg)
{
    struct left *l = arg;
    void *block = la_chain_alloc(l->chain, 100);
    struct la_owner owner = { .struct_size = sizeof(owner) };

    CHECK(block);
    CHECK(la_owner_of(block, &owner) == 0 && owner.chain == l->chain);     /* not a mapping of its own: nothing is waited for */
    la_free(block);
}

static void lock_that_a_jump_has_left_hangs_nobody(void **state)
{
    struct la_owner owner = { .struct_size = sizeof(owner) };
    struct left l = { 0 };
    pthread_t thread;
    void *block;

    (void)state;
    assert_int_equal(la_chain_create(NULL, LA_CHAIN_MT, &l.chain), 0);
    l.block = la_chain_alloc(l.chain, 100);
    assert_int_equal(pthread_create(&thread, NULL, leave_locked, &l), 0);
    while (atomic_load(&l.stage) == 0)
        sched_yield();
    block = la_chain_alloc(l.chain, 100);
    assert_non_null(block);
    la_free(block);
    la_free(l.block);
    assert_int_equal(run_in_child(use_left_chain, &l), 0);
    /* The thread's next call, to any chain, gives it back. */
    atomic_store(&l.stage, 2);
    while (atomic_load(&l.stage) == 2)
        sched_yield();
    block = la_chain_alloc(l.chain, 100);
    assert_int_equal(la_owner_of(block, &owner), 0);
    assert_ptr_equal(owner.chain, l.chain);
    la_free(block);
    assert_heap_is_sound();
    atomic_store(&l.stage, 4);
    pthread_join(thread, NULL);
    assert_int_equal(la_chain_destroy(l.chain), 0);
}

/* What the child frees may belong to threads that do not exist there. */
static void free_foreign(void *arg)
{
    void **blocks = arg;

    for (unsigned i = 0; i < 100; i++)
        la_free(blocks[i]);
    use_every_path(NULL);
    CHECK(la_misuse_count() == 0);
}

struct holder {
    void *blocks[100];
    pthread_barrier_t in, out;
};

static void *hold_blocks(void *arg)
{
    struct holder *h = arg;

    for (unsigned i = 0; i < 100; i++)
        h->blocks[i] = la_malloc(200 + i * 1000);
    pthread_barrier_wait(&h->in);
    pthread_barrier_wait(&h->out);
    for (unsigned i = 0; i < 100; i++)
        la_free(h->blocks[i]);
    return NULL;
}

static void child_may_free_blocks_of_threads_it_does_not_have(void **state)
{
    struct holder h;
    pthread_t thread;

    (void)state;
    pthread_barrier_init(&h.in, NULL, 2);
    pthread_barrier_init(&h.out, NULL, 2);
    assert_int_equal(pthread_create(&thread, NULL, hold_blocks, &h), 0);
    pthread_barrier_wait(&h.in);
    assert_int_equal(run_in_child(free_foreign, h.blocks), 0);
    pthread_barrier_wait(&h.out);
    pthread_join(thread, NULL);
}

/* ---- fork while another thread is inside a source's acquire() ---- */

struct slow_source {
    pthread_barrier_t in, out;
    bool slow;
    struct la_source *source;
};

static int slow_acquire(void *self, size_t min, size_t wanted, struct la_range *ret)
{
    struct slow_source *s = self;

    (void)min;
    if (s->slow) {
        pthread_barrier_wait(&s->in);
        pthread_barrier_wait(&s->out);
    }
    *ret = (struct la_range){ os_map(wanted), wanted };
    return ret->base ? 0 : -ENOMEM;
}

static void slow_release(void *self, struct la_range range)
{
    (void)self;
    os_unmap(range.base, range.size);
}

static void *allocate_slowly(void *arg)
{
    struct slow_source *s = arg;
    struct la_chain *chain;

    if (la_chain_create(s->source, 0, &chain) < 0 || !la_chain_alloc(chain, 100) || la_chain_destroy(chain) < 0)
        abort();
    return NULL;
}

static void grow_here(void *arg)
{
    struct slow_source *s = arg;
    struct la_chain *chain = NULL;

    alarm(60);
    s->slow = false;
    CHECK(la_chain_create(s->source, 0, &chain) == 0);
    CHECK(la_chain_alloc(chain, 3 * MiB) != NULL);
    use_every_path(NULL);
}

static void child_does_not_wait_for_a_driver_call_of_its_parent(void **state)
{
    const struct la_source_ops ops = { .struct_size = sizeof(ops), .name = "slow", .acquire = slow_acquire,
                                       .release = slow_release };
    struct slow_source s = { .slow = true };
    pthread_t thread;

    (void)state;
    pthread_barrier_init(&s.in, NULL, 2);
    pthread_barrier_init(&s.out, NULL, 2);
    assert_int_equal(la_source_create(&ops, &s, &s.source), 0);
    assert_int_equal(pthread_create(&thread, NULL, allocate_slowly, &s), 0);
    pthread_barrier_wait(&s.in);
    assert_int_equal(run_in_child(grow_here, &s), 0);
    pthread_barrier_wait(&s.out);
    pthread_join(thread, NULL);
    assert_int_equal(la_source_destroy(s.source), 0);
}

/* ---- fork while another thread works on a source of the user's ---- */

/* Holds the source's lock nearly all the time: a fork that does not wait for it leaves it taken for ever in the child. */
static void *work_on_own_source(void *arg)
{
    struct la_source *source = arg;

    while (!atomic_load(&stop)) {
        lock_take(&source->lock);
        for (volatile unsigned i = 0; i < 20000; i++)
            ;
        lock_give(&source->lock);
    }
    return NULL;
}

static void allocate_from(void *arg)
{
    struct la_chain *chain = arg;
    void *blocks[8];

    alarm(60);
    for (unsigned i = 0; i < 8; i++)
        CHECK((blocks[i] = la_chain_alloc(chain, MiB)) != NULL);
    for (unsigned i = 0; i < 8; i++)
        la_free(blocks[i]);
    CHECK(la_chain_check(chain, print_finding, NULL) == 0);
}

static void child_may_use_a_source_that_another_thread_used(void **state)
{
    const struct la_source_ops ops = { .struct_size = sizeof(ops), .name = "quick", .acquire = slow_acquire,
                                       .release = slow_release };
    struct slow_source s = { .slow = false };
    struct la_chain *chain;
    pthread_t thread;

    (void)state;
    assert_int_equal(la_source_create(&ops, &s, &s.source), 0);
    assert_int_equal(la_chain_create(s.source, 0, &chain), 0);
    atomic_store(&stop, false);
    assert_int_equal(pthread_create(&thread, NULL, work_on_own_source, s.source), 0);
    for (unsigned i = 0; i < (SANITIZED || EMULATED ? 10 : 40); i++)
        assert_int_equal(run_in_child(allocate_from, chain), 0);
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    assert_int_equal(la_chain_destroy(chain), 0);
    assert_int_equal(la_source_destroy(s.source), 0);
}

static void check_default(void *arg)
{
    CHECK(la_default_get() == arg);
    CHECK(chain_of_malloc() == arg);
    la_default_set(NULL);
    CHECK(la_chain_destroy(arg) == 0);
}

static void child_keeps_the_default_chain_of_the_forking_thread(void **state)
{
    struct la_chain *chain = new_chain(0);

    (void)state;
    la_default_set(chain);
    assert_int_equal(run_in_child(check_default, chain), 0);
    la_default_set(NULL);
    assert_int_equal(la_chain_destroy(chain), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(switch_returns_the_previous_default),
        cmocka_unit_test(own_chain_as_default_is_the_usual_state),
        cmocka_unit_test(every_call_follows_the_default),
        cmocka_unit_test(block_is_freed_into_its_chain_whatever_the_default_is),
        cmocka_unit_test(scope_restores_the_default_however_it_is_left),
        cmocka_unit_test(default_chain_cannot_be_destroyed),
        cmocka_unit_test(default_of_another_thread_is_held_until_that_thread_ends),
        cmocka_unit_test(thread_that_only_has_a_default_gives_it_back_at_its_end),
        cmocka_unit_test(ended_threads_leave_nothing_behind),
        cmocka_unit_test(destructors_of_thread_data_may_still_allocate),
        cmocka_unit_test(chain_of_an_ended_thread_serves_the_next_one),
        cmocka_unit_test(child_of_a_threaded_program_has_a_working_heap),
        cmocka_unit_test(fork_takes_several_thread_safe_chains),
        cmocka_unit_test(lock_that_a_jump_has_left_hangs_nobody),
        cmocka_unit_test(child_may_free_blocks_of_threads_it_does_not_have),
        cmocka_unit_test(child_does_not_wait_for_a_driver_call_of_its_parent),
        cmocka_unit_test(child_may_use_a_source_that_another_thread_used),
        cmocka_unit_test(child_keeps_the_default_chain_of_the_forking_thread),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
