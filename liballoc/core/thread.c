/*
 * thread.c - one chain per thread: birth, default switch, end, fork.
 *
 * la_tls_default is what malloc serves from, la_tls_own the thread's own chain. Both start as la_chain_none, whose bins
 * are empty, so that the fast path needs no test for "first call". A thread that ends hands its macro blocks to the
 * source (R6) and buries its chain; the next new thread digs it out.
 *
 * After fork the child has one thread. The locks were taken by the forking thread before fork(), so what they protect is
 * consistent; chains of threads that do not exist in the child keep their blocks valid and are simply never used again.
 */
#include "core/thread.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>

#include <liballoc/default.h>

#include "base/error.h"
#include "core/chain.h"
#include "core/huge.h"
#include "core/meta.h"
#include "core/pool.h"
#include "core/region_map.h"
#include "core/repair.h"
#include "core/restartable.h"
#include "core/source.h"
#include "os/inherit.h"
#include "os/os.h"
#include "os/vspace.h"

struct la_chain la_chain_none = {
    .fast = { [0 ... BIN_CLASSES - 1] = { la_closed_stack, la_closed_stack } },
    .bins = la_chain_none.fast,
    .kind = CHAIN_NONE,
};
__thread struct la_chain *la_tls_default = &la_chain_none;
__thread struct la_chain *la_tls_own;
__thread struct slow_path *la_tls_slow;
__thread struct la_chain *la_tls_closed, *la_tls_work;

static struct la_lock chains_lock = LOCK_INIT(RANK_THREADS);
static struct la_list chains = LIST_INIT(chains);
static pthread_key_t end_key;
static bool end_key_made;       /* by the constructor; before it there is only the main thread */
static _Atomic(const struct thread_hooks *) hooks;

/* ---- registry ---- */

void chains_add(struct la_chain *chain)
{
    lock_take(&chains_lock);
    list_add(&chains, &chain->all);
    lock_give(&chains_lock);
}

void chains_remove(struct la_chain *chain)
{
    lock_take(&chains_lock);
    list_remove(&chain->all);
    lock_give(&chains_lock);
}

void chains_each(void (*visit)(struct la_chain *chain, void *arg), void *arg)
{
    lock_take(&chains_lock);
    list_for_each(node, &chains)
        visit(list_entry(node, struct la_chain, all), arg);
    lock_give(&chains_lock);
}

struct la_chain *chain_new(enum la_chain_kind kind, struct la_source *source, bool with_bins)
{
    size_t size = align_up(sizeof(struct la_chain), 64) + (with_bins ? pool_bins_bytes(false) : 0);
    struct la_chain *chain = la_meta_alloc(size);

    if (!chain)
        return NULL;
    chain_init(chain, kind, source, with_bins ? (char *)chain + align_up(sizeof(*chain), 64) : NULL);
    chain->meta = chain;
    chain->meta_size = size;
    return chain;
}

void chain_delete(struct la_chain *chain)
{
    chains_remove(chain);
    pool_bins_release(chain);
    la_meta_free(chain->meta, chain->meta_size);
}

/* ---- slow paths that a jump has left ---- */

static bool is_on_signal_stack(void)
{
    stack_t stack;

    return sigaltstack(NULL, &stack) < 0 || (stack.ss_flags & SS_ONSTACK);
}

/* It was, but may be on a stack that is gone. */
static bool is_mapped(const void *address)
{
    unsigned char resident;
    size_t page = os_page_size();

    return mincore((void *)align_down((uintptr_t)address, page), page, &resident) == 0 || errno != ENOMEM;
}

/* Token overwritten: the frame has been left. Still there: calls since may just not have come that deep, or not have written there. */
__attribute__((no_sanitize("address"))) static bool token_is_there(const struct slow_path *slow)
{
    if (!is_mapped(slow) || !is_mapped(slow + 1))
        return false;
    for (unsigned i = 0; i < ARRAY_SIZE(slow->token); i++)
        if (*(const volatile uintptr_t *)&slow->token[i] != slow_token(slow))
            return false;
    return true;
}

/* Deeper in the stack than the slow path. */
__attribute__((no_sanitize("address"))) static bool is_below(const void *frame, const struct slow_path *slow)
{
    return (const char *)frame < (const char *)*(const void *const volatile *)&slow->frame;
}

/* The thread's default chain as it was, but for what has been chosen since. */
static void open_default(void)
{
    if (la_tls_default == &la_chain_none && la_tls_closed)
        la_tls_default = la_tls_closed;
}

/* What it left in pieces is put in order. No handler comes in between, none jumps. */
static void slow_path_is_gone(void)
{
    const struct thread_hooks *h = atomic_load(&hooks);
    struct la_chain *chain = la_tls_work;
    bool locks = chain && (chain->flags & LA_CHAIN_MT);

    signals_hold();
    if (chain && (!locks || lock_is_mine(&chain->lock))) {
        chain_repair(chain);
        if (locks)
            lock_give(&chain->lock);
    }
    if (h)
        h->slow_path_is_gone();
    la_tls_work = NULL;
    open_default();
    la_tls_slow = NULL;
    signals_release();
}

/*
 * Frames of a handler lie below those of what it interrupted (the stack grows down), unless it has a stack of its own. So a call from above the
 * frame of the slow path, or from where it was, shows that this is gone, and so does a frame that has been overwritten. Else there is no telling,
 * and the call is treated as a handler's.
 */
bool slow_path_is_alive(const void *frame)
{
    int saved = errno;
    bool alive = token_is_there(la_tls_slow) && (is_below(frame, la_tls_slow) || is_on_signal_stack());

    if (!alive)
        slow_path_is_gone();
    errno = saved;
    return alive;
}

/* ---- threads ---- */

/* Runs as a destructor of thread-specific data: other destructors may still allocate afterwards, and get a new chain. */
static void thread_ends(void *arg)
{
    const struct thread_hooks *h = atomic_load(&hooks);
    struct la_chain *chain;
    struct slow_path slow;

    (void)arg;
    /* The thread's stack has been left for good. */
    if (la_tls_slow)
        slow_path_is_gone();
    chain = la_tls_own;
    if (la_tls_default != &la_chain_none && la_tls_default != chain)
        la_default_set(NULL);
    la_tls_own = NULL;
    la_tls_default = &la_chain_none;
    if (h)
        h->thread_ends();
    if (!chain)
        return;
    slow_begin(&slow);
    pool_flush_all(chain);
    huge_orphan(chain);
    while (chain->macros)
        source_abandon_macro(chain->source, chain, chain->macros);
    source_bury_chain(chain->source, chain);
    slow_end(&slow);
}

void thread_watch_end(void)
{
    int saved = errno;

    /* May allocate: the chain is in place by now. */
    if (end_key_made)
        pthread_setspecific(end_key, &la_chain_none);
    errno = saved;
}

static struct la_chain *new_thread_chain(void)
{
    struct la_chain *chain = chain_new(CHAIN_THREAD, &la_default_source, true);

    if (chain)
        chains_add(chain);
    return chain;
}

static struct la_chain *make_own_chain(void)
{
    struct la_chain *chain = source_exhume_chain(&la_default_source);

    if (!chain)
        chain = new_thread_chain();
    if (!chain)
        return NULL;
    memset(chain->avail, 0, sizeof(chain->avail));
    la_tls_own = chain;
    if (la_tls_default == &la_chain_none)
        la_tls_default = chain;
    thread_watch_end();
    return chain;
}

struct la_chain *thread_own_chain(void)
{
    return likely(la_tls_own != NULL) ? la_tls_own : make_own_chain();
}

/* ---- default chain ---- */

/* In a handler that interrupted a slow path: what will be open after it. */
static struct la_chain **default_place(void)
{
    return thread_is_in_slow_path() ? &la_tls_closed : &la_tls_default;
}

struct la_chain *la_default_get(void)
{
    struct la_chain *chain = *default_place();

    return chain == &la_chain_none || chain == la_tls_own ? NULL : chain;
}

static void leave_default(struct la_chain *chain)
{
    if (chain != &la_chain_none && chain != la_tls_own)
        atomic_fetch_sub_explicit(&chain->default_users, 1, memory_order_release);
}

struct la_chain *la_default_set(struct la_chain *chain)
{
    struct la_chain *previous = la_default_get(), **place = default_place();

    if (chain && chain_is_device_only(chain)) {
        la_fail(-EINVAL, "chain %p cannot be a default: programs write to what malloc() gives, and its memory is the device's only", (void *)chain);
        return previous;
    }
    if (chain && chain == la_tls_own)
        chain = NULL;
    if (chain)
        atomic_fetch_add_explicit(&chain->default_users, 1, memory_order_relaxed);
    leave_default(*place);
    *place = chain ? chain : la_tls_own ? la_tls_own : &la_chain_none;
    if (chain && !la_tls_own)
        thread_watch_end();     /* so that the count goes down when the thread ends */
    return previous;
}

void la_default_restore_(struct la_chain **previous)
{
    la_default_set(*previous);
}

/* ---- fork ---- */

uint32_t la_forks;

void thread_set_hooks(const struct thread_hooks *h)
{
    atomic_store(&hooks, h);
}

/* A lock that is ours is that of a call which a handler has interrupted: it will be given in both processes. */
static void lock_chain(struct la_chain *chain)
{
    if (!(chain->flags & LA_CHAIN_MT) || lock_is_mine(&chain->lock))
        return;
    chain->forking = lock_take_patiently(&chain->lock) ? FORK_LOCKED : FORK_IN_PIECES;
}

/* Not by its flags: they may have been set meanwhile, by a thread that is making the chain. */
static void unlock_chain(struct la_chain *chain, bool child)
{
    uint8_t forking = chain->forking;

    chain->forking = FORK_UNLOCKED;
    if (child && forking == FORK_IN_PIECES)
        chain_repair(chain);    /* its thread, which left it so, is not in the child */
    if (child && forking != FORK_UNLOCKED)
        lock_reset(&chain->lock);
    else if (forking == FORK_LOCKED)
        lock_give(&chain->lock);
}

/*
 * Chains in buffers that the child will not have: apart, so that it has a list without them. A chain over a source survives with its descriptors,
 * but its memory may be gone (source_is_lost()).
 */
static struct la_list kept_chains = LIST_INIT(kept_chains);
static bool default_is_kept;

static void move_chain(struct la_list *node, struct la_list *to)
{
    list_remove(node);
    list_add(to, node);
}

static void keep_chains(void)
{
    default_is_kept = la_default_get() && inherit_is_forbidden(la_default_get());
    for (struct la_list *node = chains.next, *next; node != &chains; node = next) {
        struct la_chain *chain = list_entry(node, struct la_chain, all);

        next = node->next;
        if (!chain->segment || !inherit_is_forbidden(chain))
            continue;
        /* Nobody could give them in the child, and there they protect nothing. */
        unlock_chain(chain, false);
        source_fork_done(chain->source, false);
        move_chain(node, &kept_chains);
    }
}

static void bring_chains_back(void)
{
    while (!list_is_empty(&kept_chains))
        move_chain(kept_chains.next, &chains);
}

/* No fast path may serve a chain without its memory, nor anything look for lists in it. The default chain may be one of either kind. */
static void lose_chains(void)
{
    struct la_chain *chain = la_default_get();

    la_forks++;
    list_init(&kept_chains);
    if (default_is_kept)
        *default_place() = la_tls_own ? la_tls_own : &la_chain_none;
    else if (chain && source_is_lost(chain->source))
        la_default_set(NULL);
    list_for_each(node, &chains) {
        chain = list_entry(node, struct la_chain, all);
        if (source_is_lost(chain->source))
            chain_lose(chain);
    }
}

static void fork_prepare(void)
{
    const struct thread_hooks *h = atomic_load(&hooks);

    (void)thread_is_in_slow_path();     /* if it is gone, its lock is given */
    if (h)
        h->fork_prepare();
    lock_take(&chains_lock);
    list_for_each(node, &chains)
        lock_chain(list_entry(node, struct la_chain, all));
    source_fork_prepare(&la_default_source);
    list_for_each(node, &chains)
        source_fork_prepare(list_entry(node, struct la_chain, all)->source);
    huge_fork_prepare();
    region_fork_prepare();
    meta_fork_prepare();
    vspace_fork_prepare();
    keep_chains();
}

static void fork_done(bool child)
{
    if (child)
        lose_chains();
    else
        bring_chains_back();
    vspace_fork_done(child);
    if (child)
        inherit_enter_child();
    meta_fork_done(child);
    region_fork_done(child);
    huge_fork_done(child);
    list_for_each(node, &chains)
        source_fork_done(list_entry(node, struct la_chain, all)->source, child);
    source_fork_done(&la_default_source, child);
    list_for_each(node, &chains)
        unlock_chain(list_entry(node, struct la_chain, all), child);
    if (child)
        lock_reset(&chains_lock);
    else
        lock_give(&chains_lock);
}

static void fork_parent(void)
{
    const struct thread_hooks *h = atomic_load(&hooks);

    fork_done(false);
    if (h)
        h->fork_parent();
}

static void fork_child(void)
{
    const struct thread_hooks *h = atomic_load(&hooks);

    fork_done(true);
    if (h)
        h->fork_child();
    lock_child();
}

__attribute__((constructor(101))) static void init(void)
{
    restartable_init();
    end_key_made = pthread_key_create(&end_key, thread_ends) == 0;
    pthread_atfork(fork_prepare, fork_parent, fork_child);
}
