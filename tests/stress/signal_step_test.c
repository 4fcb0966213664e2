/*
 * A signal after every instruction: the trap flag of x86 brings SIGTRAP after each one, and its handler allocates and frees, or jumps
 * out of the allocation with siglongjmp() and never comes back. Random signals would hit few of the narrow windows.
 *
 * For each pair of an operation and something that a handler does: once with the handler after every instruction, then from the same
 * start with one after instruction 0, 1, 2 ... Afterwards no block was handed out twice, every block has its content, nothing was reported
 * as misuse, the chain passes its check, and at most one block is gone.
 *
 * Where signals are held (base/lock.h) no handler would run, so the test's does nothing there either. Stepping through a restartable sequence would
 * never end, as each step begins it anew: the thread leaves rseq(2), and the handler does what the kernel does, but only when it acts.
 *
 * Long operations are not stopped at every instruction by default, but at some, evenly spread: LA_SIGNAL_STEPS=all stops at all of
 * them (minutes), LA_SIGNAL_STEPS=N at N per pair. LA_SIGNAL_ONLY=TEXT runs the operations with TEXT in their names.
 */
#include "../unit/engine.h"

#include <limits.h>
#include <linux/rseq.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "core/chain.h"
#include "core/lane.h"
#include "core/macroblock.h"
#include "core/pool.h"
#include "core/region_map.h"
#include "core/remote_free.h"
#include "core/restartable.h"
#include "core/shared_pool.h"
#include "core/size_class.h"
#include "core/thread.h"

enum { MAX_LIVE = 4096, SMALL = 200, SELDOM = 1500, LARGE = 100000, HUGE = 5000000, TRAP_FLAG = 0x100 };
/* After each of so many instructions; a handler that went on would keep the operation from ever getting a block. */
enum { LONGEST = 300 };

static const char *where = "start";     /* for messages: what is being tested */
static long where_at;

__attribute__((format(printf, 1, 2))) static _Noreturn void broken(const char *format, ...)
{
    char text[400];
    va_list args;
    int n = snprintf(text, sizeof(text), "%s, instruction %ld: ", where, where_at);

    va_start(args, format);
    n += vsnprintf(text + n, sizeof(text) - (size_t)n, format, args);
    va_end(args);
    text[MIN((size_t)n, sizeof(text) - 1)] = '\n';
    if (write(2, text, MIN((size_t)n + 1, sizeof(text))) < 0)
        _exit(2);
    _exit(1);
}

static void misuse_was_reported(void *user, const void *pointer, const char *text)
{
    (void)user;
    (void)pointer;
    broken("false report of misuse: %s", text);
}

/* ---- blocks that are in use ---- */

static struct live {
    unsigned char *block;
    size_t size;
    unsigned char fill;
} live[MAX_LIVE];
static unsigned lives;
static unsigned char next_fill;

static void add(void *block, size_t size)
{
    unsigned char *b = block;

    if (lives == MAX_LIVE)
        broken("the test's table is full");
    for (unsigned i = 0; i < lives; i++)
        if (b < live[i].block + live[i].size && live[i].block < b + size)
            broken("block %p of %zu bytes is in use already: %p of %zu bytes", block, size, (void *)live[i].block, live[i].size);
    live[lives++] = (struct live){ b, size, ++next_fill };
    b[0] = b[size / 2] = b[size - 1] = next_fill;
    if (size <= 256)
        memset(b, next_fill, size);
}

static void *take_from(struct la_chain *chain, size_t size)
{
    void *block = chain ? la_chain_alloc(chain, size) : la_malloc(size);

    if (block)
        add(block, size);
    else if (!chain)
        broken("no memory for %zu bytes", size);
    return block;
}

static void *take(size_t size)
{
    return take_from(NULL, size);
}

/* No longer the test's: about to be freed or resized. */
static void *forget(unsigned i)
{
    struct live l = live[i];

    for (size_t at = 0; at < (l.size <= 256 ? l.size : 1); at++)
        if (l.block[at] != l.fill)
            broken("block %p of %zu bytes was overwritten at %zu", (void *)l.block, l.size, at);
    if (l.block[l.size / 2] != l.fill || l.block[l.size - 1] != l.fill)
        broken("block %p of %zu bytes was overwritten", (void *)l.block, l.size);
    live[i] = live[--lives];
    return l.block;
}

static void drop_down_to(unsigned n)
{
    while (lives > n)
        la_free(forget(lives - 1));
}

/* ---- chains ---- */

static struct la_chain *user_chain, *mt_chain, *buffer_chain;   /* with bins; with a lock; without bins */
static struct la_heap *heap;
static struct la_chain *heap_chain;
static _Alignas(64) char buffer[128 << 10];

static void flush(struct la_chain *chain)
{
    struct slow_path slow;
    const char *what = NULL;

    slow_begin(&slow);
    slow_work_on(chain);
    pool_flush_all(chain);
    slow_end(&slow);
    if (la_chain_check(chain, print_finding, &what) > 0)
        broken("the chain does not pass its check");
}

static uint64_t blocks_of(const struct la_chain *chain)
{
    uint64_t n = chain->large_live + atomic_load(&chain->huge_live);

    for (struct la_macro *m = chain->macros; m; m = m->chain_next)
        for (unsigned i = 0; i < SLICES_PER_MACRO; i++)
            if (m->all_slices & ~m->free_slices & (1u << i) && macro_page(m, i)->kind == PAGE_SMALL)
                n += macro_page(m, i)->used;
    return n;
}

static uint32_t macros_of_heap;     /* in use after everything free was given back */

static uint64_t blocks_of_heap(void)
{
    struct la_fsck found = { .struct_size = sizeof(found) };
    struct la_heap_info info = { .struct_size = sizeof(info) };
    struct lane *lane = heap_lane(heap);
    const char *what = NULL;
    struct slow_path slow;

    lane_enter(lane, &slow);
    lane_trim(&lane->chain);
    lane_leave(lane, &slow);
    la_heap_info(heap, &info);
    macros_of_heap = info.macro_blocks_used;
    if (la_heap_fsck(heap, print_finding, &what, &found) != 0)
        broken("the heap does not pass its check");
    return found.blocks[1] + found.blocks[2] + found.blocks[3];
}

static uint64_t all_blocks(void)
{
    struct la_chain *chains[] = { la_tls_own, user_chain, mt_chain, buffer_chain };
    uint64_t n = blocks_of_heap();

    for (unsigned i = 0; i < ARRAY_SIZE(chains); i++) {
        flush(chains[i]);
        n += blocks_of(chains[i]);
    }
    return n;
}

/* ---- another thread: goes on while we jump about, and owns blocks that we free ---- */

static sem_t ask, answered;
static void *foreign[100];
static bool end_other;

static void *other_thread(void *arg)
{
    (void)arg;
    for (sem_wait(&ask); !end_other; sem_post(&answered), sem_wait(&ask)) {
        static const size_t sizes[] = { SMALL, 3000, LARGE, HUGE };

        for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++)
            la_free(la_malloc(sizes[i]));
        la_free(la_chain_alloc(mt_chain, SMALL));
        la_free(la_chain_alloc(heap_chain, SMALL));
        for (unsigned i = 0; i < ARRAY_SIZE(foreign); i++)
            if (!foreign[i])
                foreign[i] = la_malloc(SMALL);
    }
    return NULL;
}

static void run_other_thread(void)
{
    sem_post(&ask);
    while (sem_wait(&answered) < 0)
        ;
}

/* ---- operations ---- */

static void *volatile victim;
static void *volatile result;
static size_t volatile result_size;
static struct la_chain *volatile chain;

static void do_alloc(void) { result = la_malloc(result_size); }
static void do_chain_alloc(void) { result = la_chain_alloc(chain, result_size); }
static void do_free(void) { la_free(victim); }
static void do_realloc(void) { result = la_realloc(victim, result_size); }
static void do_calloc(void) { result = la_calloc(1, result_size); }
static void do_aligned(void) { result = la_aligned_alloc(256, result_size); }

static void empty_bin(size_t size, unsigned n)
{
    struct slow_path slow;

    slow_begin(&slow);
    while (pool_bin_count(la_tls_own, class_of(size)) > n)
        add(pool_alloc_small(la_tls_own, class_of(size)), size);
    slow_end(&slow);
}

/* @n entries in the bin of the class of @size, and none in the others. */
static void fill_bin(size_t size, unsigned n)
{
    static void *blocks[4096];

    flush(la_tls_own);
    for (unsigned i = 0; i < n; i++)
        blocks[i] = la_malloc(size);
    for (unsigned i = n; i-- > 0;)
        la_free(blocks[i]);
    empty_bin(size, n);
}

static void to_free(size_t size)
{
    take(size);
    victim = forget(lives - 1);
}

static void fast_alloc(void) { fill_bin(SMALL, 5); result_size = SMALL; }
static void fast_alloc_of_last(void) { fill_bin(SMALL, 1); result_size = SMALL; }
static void medium_alloc(void) { fill_bin(3000, 5); result_size = 3000; }
static void alloc_8(void) { fill_bin(8, 3); result_size = 8; }
static void refill(void) { fill_bin(SMALL, 40); flush(la_tls_own); result_size = SMALL; }
static void fast_free(void) { fill_bin(SMALL, 5); to_free(SMALL); }
static void free_to_empty(void) { fill_bin(SMALL, 1); to_free(SMALL); }
static void free_8(void) { fill_bin(8, 3); to_free(8); }

/* A class of its own, whose bin stays as small as it was made. */
static void full_bin(void)
{
    struct la_bin_room *room = &la_tls_own->rooms[class_of(SELDOM)];
    unsigned before = lives;

    to_free(SELDOM);
    fill_bin(SELDOM, 0);
    before = lives;
    for (unsigned i = 0; i < room->capacity; i++)
        take(SELDOM);
    empty_bin(SELDOM, 0);
    room->refills = 0;      /* flush, do not grow */
    for (unsigned i = 0; i < room->capacity; i++)
        la_free(forget(before));
}

static void first_of_class(void)
{
    static size_t size = 4000;

    size = size < 30000 ? size + 100 : 4000;
    flush(la_tls_own);
    result_size = size;
}

static void remote_frees_to_take_in(void)
{
    fill_bin(SMALL, 0);
    for (unsigned i = 0; i < 5; i++)
        take(SMALL);
    for (unsigned i = 0; i < 5; i++) {
        void *block = forget(lives - 1);
        remote_free_now(region_page(block), block);
    }
    empty_bin(SMALL, 0);
    result_size = SMALL;
}

static void large_alloc(void) { flush(la_tls_own); result_size = LARGE; }
static void large_free(void) { flush(la_tls_own); to_free(LARGE); }

static void fill_large_bin(unsigned n)
{
    unsigned before = lives;

    flush(la_tls_own);
    for (unsigned i = 0; i < n; i++)
        take(LARGE);
    drop_down_to(before);
}

static void large_binned(void) { fill_large_bin(3); result_size = LARGE; }
static void large_last(void) { fill_large_bin(1); result_size = LARGE; }
static void large_moved(void) { fill_large_bin(3); result_size = 2 * SLICE_SIZE; }     /* has to start further to the front */

static void large_full_bin(void)
{
    struct la_bin_room *room = &la_tls_own->rooms[class_of_run(2)];

    to_free(LARGE);
    fill_large_bin(room->capacity);
    room->refills = 0;      /* flush, do not grow */
}

static void large_remote_frees(void)
{
    flush(la_tls_own);
    for (unsigned i = 0; i < 3; i++) {
        void *block;

        to_free(LARGE);
        block = victim;
        region_page(block)->used = 0;   /* claimed, as free() does */
        remote_free_now(region_page(block), block);
    }
    result_size = LARGE;
}
static void large_grow(void) { to_free(LARGE); result_size = 3 * LARGE; }
static void huge_alloc_it(void) { result_size = HUGE; }
static void huge_free_it(void) { to_free(HUGE); }
static void huge_grow(void) { to_free(HUGE); result_size = 3 * HUGE; }
static void small_grow(void) { fill_bin(SMALL, 5); to_free(SMALL); result_size = 900; }

static void foreign_free(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(foreign); i++)
        if (foreign[i]) {
            victim = foreign[i];
            foreign[i] = NULL;
            return;
        }
    run_other_thread();
    foreign_free();
}

static void in_chain(struct la_chain *c, size_t size)
{
    chain = c;
    result_size = size;
}

static void of_chain(struct la_chain *c, size_t size)
{
    take_from(c, size);
    victim = forget(lives - 1);
}

static void user_alloc(void) { in_chain(user_chain, SMALL); }
static void user_large(void) { in_chain(user_chain, LARGE); }
static void user_free(void) { of_chain(user_chain, SMALL); }
static void mt_alloc(void) { in_chain(mt_chain, SMALL); }
static void mt_large(void) { in_chain(mt_chain, LARGE); }
static void mt_free(void) { of_chain(mt_chain, SMALL); }
static void mt_free_large(void) { of_chain(mt_chain, LARGE); }
static void buffer_alloc(void) { in_chain(buffer_chain, SMALL); }
static void buffer_first(void) { flush(buffer_chain); in_chain(buffer_chain, 700); }
static void buffer_free(void) { of_chain(buffer_chain, SMALL); }

static void shared_alloc_it(void) { in_chain(heap_chain, SMALL); }
static void shared_large(void) { in_chain(heap_chain, LARGE); }
static void shared_run(void) { in_chain(heap_chain, HUGE); }
static void shared_free_it(void) { of_chain(heap_chain, SMALL); }
static void shared_free_large(void) { of_chain(heap_chain, LARGE); }
static void shared_free_run(void) { of_chain(heap_chain, HUGE); }

/* The bin of a class that nobody else uses is empty after some more each time. */
static void shared_refill(void)
{
    unsigned c = class_of(SELDOM);
    struct lane *lane = heap_lane(heap);

    while (pool_bin_count(&lane->chain, c) > 0)
        take_from(heap_chain, SELDOM);
    in_chain(heap_chain, SELDOM);
}

static const struct operation {
    const char *name;
    void (*prepare)(void);
    void (*run)(void);
} operations[] = {
    { "malloc, fast", fast_alloc, do_alloc },
    { "malloc, last of its bin", fast_alloc_of_last, do_alloc },
    { "malloc, medium", medium_alloc, do_alloc },
    { "malloc, 8 bytes", alloc_8, do_alloc },
    { "calloc", fast_alloc, do_calloc },
    { "free, fast", fast_free, do_free },
    { "free, into an empty bin", free_to_empty, do_free },
    { "free, 8 bytes", free_8, do_free },
    { "malloc, refill", refill, do_alloc },
    { "malloc, new page", first_of_class, do_alloc },
    { "malloc, remote frees", remote_frees_to_take_in, do_alloc },
    { "free, full bin", full_bin, do_free },
    { "aligned_alloc", fast_alloc, do_aligned },
    { "realloc, small", small_grow, do_realloc },
    { "large malloc", large_alloc, do_alloc },
    { "large malloc, fast", large_binned, do_alloc },
    { "large malloc, last of its bin", large_last, do_alloc },
    { "large malloc, moved to the front", large_moved, do_alloc },
    { "large malloc, remote frees", large_remote_frees, do_alloc },
    { "large calloc", large_binned, do_calloc },
    { "large free", large_free, do_free },
    { "large free, full bin", large_full_bin, do_free },
    { "large realloc", large_grow, do_realloc },
    { "huge malloc", huge_alloc_it, do_alloc },
    { "huge free", huge_free_it, do_free },
    { "huge realloc", huge_grow, do_realloc },
    { "free of another thread's", foreign_free, do_free },
    { "user chain, malloc", user_alloc, do_chain_alloc },
    { "user chain, large malloc", user_large, do_chain_alloc },
    { "user chain, free", user_free, do_free },
    { "thread-safe chain, malloc", mt_alloc, do_chain_alloc },
    { "thread-safe chain, large malloc", mt_large, do_chain_alloc },
    { "thread-safe chain, free", mt_free, do_free },
    { "thread-safe chain, large free", mt_free_large, do_free },
    { "buffer, malloc", buffer_alloc, do_chain_alloc },
    { "buffer, first of a class", buffer_first, do_chain_alloc },
    { "buffer, free", buffer_free, do_free },
    { "shared heap, malloc", shared_alloc_it, do_chain_alloc },
    { "shared heap, refill", shared_refill, do_chain_alloc },
    { "shared heap, large malloc", shared_large, do_chain_alloc },
    { "shared heap, malloc of several macro blocks", shared_run, do_chain_alloc },
    { "shared heap, free", shared_free_it, do_free },
    { "shared heap, large free", shared_free_large, do_free },
    { "shared heap, free of several macro blocks", shared_free_run, do_free },
};

/* ---- what handlers do ---- */

static void h_alloc(void)
{
    if (lives > 300)
        drop_down_to(250);      /* after every instruction of something long */
    take(SMALL);
}

static void h_pair(void) { take(SMALL); drop_down_to(lives - 1); }
static void h_free(void) { if (lives > 0) drop_down_to(lives - 1); }
static void h_free_many(void) { drop_down_to(lives > 30 ? lives - 30 : 0); }
static void h_eight(void) { take(8); take(8); drop_down_to(lives - 1); }

static void h_alloc_many(void)
{
    for (int i = 0; i < 30; i++)
        take(SMALL);
}

static void h_swap(void)
{
    h_free();
    take(SMALL);
    take(SELDOM);
    take(SELDOM);
    drop_down_to(lives - 1);
}

static void h_all_sizes(void)
{
    static const size_t sizes[] = { 3000, LARGE, SMALL, HUGE };

    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++)
        take(sizes[i]);
    drop_down_to(lives - ARRAY_SIZE(sizes));
}

static void h_chains(void)
{
    struct la_chain *chains[] = { user_chain, mt_chain, buffer_chain, heap_chain };
    unsigned before = lives;

    for (unsigned i = 0; i < ARRAY_SIZE(chains); i++)
        take_from(chains[i], SMALL);    /* NULL: it may be refused */
    drop_down_to(before);
}

static sigjmp_buf away;
static void h_jump(void) { siglongjmp(away, 1); }

static void h_pair_and_jump(void)
{
    h_pair();
    siglongjmp(away, 1);
}

static const struct reaction {
    const char *name;
    void (*act)(void);
    bool jumps;
    bool repeats;       /* may also run after every instruction of one operation */
} reactions[] = {
    { "allocates", h_alloc, false, true },
    { "allocates and frees", h_pair, false, true },
    { "frees", h_free, false, true },
    { "allocates 30", h_alloc_many, false, false },
    { "frees 30", h_free_many, false, false },
    { "frees and allocates", h_swap, false, true },
    { "uses 8 bytes", h_eight, false, true },
    { "uses all sizes", h_all_sizes, false, true },
    { "uses user chains", h_chains, false, true },
    { "jumps away", h_jump, true, false },
    { "allocates, frees and jumps away", h_pair_and_jump, true, false },
};

/* ---- stepping ---- */

static struct {
    volatile bool on;
    volatile long count;    /* instructions after which a handler could have run */
    long target;            /* act after this one; -1: after each */
    void (*act)(void);
} step;

static void set_trap_flag(bool on)
{
    /* Over the red zone. */
    if (on)
        __asm__ volatile("lea -128(%%rsp), %%rsp; pushfq; orq %0, (%%rsp); popfq; lea 128(%%rsp), %%rsp" : : "i"(TRAP_FLAG) : "memory", "cc");
    else
        __asm__ volatile("lea -128(%%rsp), %%rsp; pushfq; andq %0, (%%rsp); popfq; lea 128(%%rsp), %%rsp" : : "i"(~TRAP_FLAG) : "memory", "cc");
}

/* What the kernel does when a signal is delivered inside of a restartable sequence. */
static void abort_sequence(ucontext_t *u)
{
    struct rseq *area = (struct rseq *)((char *)__builtin_thread_pointer() + la_rseq_offset);
    const struct rseq_cs *sequence = (const struct rseq_cs *)(uintptr_t)area->rseq_cs;
    greg_t *at = &u->uc_mcontext.gregs[REG_RIP];

    if (sequence && (uint64_t)*at - sequence->start_ip < sequence->post_commit_offset)
        *at = (greg_t)sequence->abort_ip;
    area->rseq_cs = 0;
}

static void leave_rseq(void)
{
    if (__rseq_size > 0)
        syscall(SYS_rseq, (char *)__builtin_thread_pointer() + __rseq_offset, 32, RSEQ_FLAG_UNREGISTER, RSEQ_SIG);
}

static void on_trap(int signal, siginfo_t *info, void *context)
{
    ucontext_t *u = context;
    long now;

    (void)signal;
    (void)info;
    if (!step.on)
        u->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
    if (!step.on || sigismember(&u->uc_sigmask, SIGUSR1))
        return;
    now = step.count++;
    if (step.target >= 0 && now != step.target)
        return;
    where_at = now;
    if (step.target >= 0 || now >= LONGEST) {
        u->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
        step.on = false;
    }
    abort_sequence(u);
    step.act();
}

/* False: the operation ended before. */
static bool run_stepped(const struct operation *o, const struct reaction *r, long target)
{
    step.count = 0;
    step.target = target;
    step.act = r->act;
    if (sigsetjmp(away, 1) == 0) {
        step.on = true;
        set_trap_flag(true);
        o->run();
        set_trap_flag(false);
        if (result)
            add(result, result_size);
    } else {
        set_trap_flag(false);
    }
    if (step.on || target < 0) {
        step.on = false;
        return target < 0;
    }
    return true;
}

/* Everything still works, here and elsewhere. */
static void go_on(void)
{
    unsigned before = lives;
    static const size_t sizes[] = { SMALL, 3000, LARGE, HUGE, 8 };

    for (unsigned i = 0; i < 40; i++)
        take(sizes[i % 37 < ARRAY_SIZE(sizes) ? i % 37 : 0]);
    for (struct la_chain *c[] = { user_chain, mt_chain, buffer_chain, heap_chain }, **p = c; p < c + ARRAY_SIZE(c); p++)
        if (!take_from(*p, SMALL))
            broken("a user chain has no more memory");
    drop_down_to(before);
    run_other_thread();
}

static uint64_t most_lost;

/* One operation, a handler after instruction @target; false: it has not so many. */
static bool try_at(const struct operation *o, const struct reaction *r, long target)
{
    uint64_t before, after;
    uint32_t macros;
    bool fired;

    drop_down_to(0);
    before = all_blocks();
    macros = macros_of_heap;
    for (int i = 0; i < 40; i++)
        take(SMALL);
    result = NULL;
    o->prepare();
    fired = run_stepped(o, r, target);
    where_at = target;
    if (r->jumps && fired)
        go_on();
    drop_down_to(0);
    if (o->prepare == foreign_free)
        run_other_thread();
    after = all_blocks();
    if (o->run == do_realloc && r->jumps)
        return fired;       /* whether the block moved before the jump, nobody can know */
    if (target >= 0 && after > before + 1)
        broken("%lu blocks are lost", (unsigned long)(after - before));
    if (target >= 0 && after <= before && macros_of_heap > macros)
        broken("no block is lost, but %u macro blocks of the heap", macros_of_heap - macros);
    if (target >= 0)
        most_lost = MAX(most_lost, after - MIN(before, after));
    return fired;
}

static long points_wanted(void)
{
    const char *text = getenv("LA_SIGNAL_STEPS");

    return !text ? 0 : strcmp(text, "all") == 0 ? LONG_MAX : atol(text);
}

/* Spread over @length instructions; the more they are, the fewer: the time goes with the square. (A step takes 10 us.) */
static long stride_of(long length)
{
    enum { STEPS_PER_PAIR = 600 };
    long points = points_wanted();

    if (points == 0)
        points = 2 * STEPS_PER_PAIR / MAX(length, 1);
    return MAX(length / MAX(points, 1), 1);
}

static void try_pair(const struct operation *o, const struct reaction *r, long length, unsigned number)
{
    static char text[200];
    long stride = stride_of(length);

    snprintf(text, sizeof(text), "%s, handler %s", o->name, r->name);
    where = text;
    where_at = -1;
    drop_down_to(0);
    la_chain_reset(buffer_chain);   /* so small that the blocks which jumps cost would fill it */
    if (r->repeats)
        try_at(o, r, -1);
    for (long at = number % stride; try_at(o, r, at); at += stride)
        ;
}

static long length_of(const struct operation *o)
{
    static const struct operation *last;
    static long length;

    if (o != last)
        try_at(o, &reactions[0], LONG_MAX);
    length = o == last ? length : step.count;
    last = o;
    return length;
}

static void no_instruction_is_a_bad_one(void **state)
{
    const char *only = getenv("LA_SIGNAL_ONLY");

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(operations); i++) {
        if (getenv("LA_SIGNAL_VERBOSE"))
            print_message("%s: %ld instructions\n", operations[i].name, length_of(&operations[i]));
        for (unsigned j = 0; j < ARRAY_SIZE(reactions); j++)
            if (!only || strstr(operations[i].name, only))
                try_pair(&operations[i], &reactions[j], length_of(&operations[i]), i * 7 + j * 31);
    }
    print_message("at most %lu block lost\n", (unsigned long)most_lost);
}

/* ---- set-up ---- */

static pthread_t other;

static int setup(void **state)
{
    struct sigaction action = { .sa_sigaction = on_trap, .sa_flags = SA_SIGINFO | SA_NODEFER };
    char name[40];

    (void)state;
    leave_rseq();
    la_misuse_set(LA_MISUSE_REPORT, misuse_was_reported, NULL);
    la_free(la_malloc(1));
    assert_int_equal(la_chain_create(NULL, 0, &user_chain), 0);
    assert_int_equal(la_chain_create(NULL, LA_CHAIN_MT, &mt_chain), 0);
    assert_int_equal(la_chain_create_in(buffer, sizeof(buffer), 0, &buffer_chain), 0);
    snprintf(name, sizeof(name), "step-%d", (int)getpid());
    assert_int_equal(la_heap_create(name, 64 * MiB, 0, &heap), 0);
    assert_int_equal(la_heap_remove(name), 0);
    heap_chain = la_heap_chain(heap, LA_KEEP);
    la_default_set(NULL);
    sem_init(&ask, 0, 0);
    sem_init(&answered, 0, 0);
    assert_int_equal(pthread_create(&other, NULL, other_thread, NULL), 0);
    run_other_thread();
    return sigaction(SIGTRAP, &action, NULL);
}

static int teardown(void **state)
{
    (void)state;
    end_other = true;
    sem_post(&ask);
    pthread_join(other, NULL);
    return la_heap_detach(heap);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(no_instruction_is_a_bad_one) };

    return cmocka_run_group_tests(tests, setup, teardown);
}
