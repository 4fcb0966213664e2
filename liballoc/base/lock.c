#include "base/lock.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>

#include "base/futex.h"

#ifndef NDEBUG
/* Bit r: the calling thread holds a lock of rank r; how many more than one. */
static __thread unsigned held, peers[RANK_COUNT];

static void rank_push(uint8_t rank, bool peer)
{
    assert(rank > 0 && rank < RANK_COUNT && "lock not initialised");
    assert(held >> (rank + peer) == 0 && "locks are taken in rising rank");
    /* Not remembered: a jump may leave it taken, and a handler may come while it is held. */
    if (rank == RANK_CHAIN)
        return;
    if (held & (1u << rank))
        peers[rank]++;
    held |= 1u << rank;
}

static void rank_forget(uint8_t rank)
{
    if (peers[rank] > 0)
        peers[rank]--;
    else
        held &= ~(1u << rank);
}

static void rank_pop(uint8_t rank)
{
    assert(rank == RANK_CHAIN || held & (1u << rank));
    rank_forget(rank);
}
#else
#define rank_push(rank, peer) ((void)(rank), (void)(peer))
#define rank_forget(rank) ((void)(rank))
#define rank_pop(rank) ((void)(rank))
#endif

enum { CONTENDED = 1 };
/* A fixed bound, generous: who holds a chain's lock for so long has been stopped, or has jumped out of the call that took it. */
enum { PATIENCE_MS = 1000 };

static __thread uint32_t self;      /* twice the thread's number in the kernel, once it was asked for */

static uint32_t my_name(void)
{
    if (unlikely(self == 0))
        self = (uint32_t)syscall(SYS_gettid) << 1;
    return self;
}

/* ---- signals ---- */

static __thread unsigned holds;
static __thread uint64_t mask_before;       /* of the kernel: 64 signals */

static void set_mask(int how, const uint64_t *mask, uint64_t *before)
{
    int saved = errno;

    syscall(SYS_rt_sigprocmask, how, mask, before, sizeof(*mask));
    errno = saved;
}

void signals_hold(void)
{
    static const uint64_t synchronous = 1ull << (SIGSEGV - 1) | 1ull << (SIGBUS - 1) | 1ull << (SIGILL - 1) | 1ull << (SIGFPE - 1) |
                                        1ull << (SIGTRAP - 1) | 1ull << (SIGSYS - 1);
    const uint64_t others = ~synchronous;
    uint64_t before;

    /* Counted once they are held: a handler that comes before that may jump away. */
    if (holds == 0) {
        set_mask(SIG_BLOCK, &others, &before);
        mask_before = before;
    }
    holds++;
}

void signals_release(void)
{
    if (--holds == 0)
        set_mask(SIG_SETMASK, &mask_before, NULL);
}

void lock_child(void)
{
    self = 0;
    if (holds > 0)
        set_mask(SIG_SETMASK, &mask_before, NULL);
    holds = 0;
}

static bool holds_signals(const struct la_lock *lock)
{
    return lock->rank != RANK_CHAIN;
}

/* ---- locks ---- */

/* The word says that somebody may sleep; false: it has changed. */
static bool is_contended(struct la_lock *lock, uint32_t seen)
{
    return seen & CONTENDED || atomic_compare_exchange_strong_explicit(&lock->word, &seen, seen | CONTENDED, memory_order_relaxed,
                                                                       memory_order_relaxed);
}

/* @patience NULL: for ever. false: it has run out. */
static bool wait_for(struct la_lock *lock, const struct timespec *patience)
{
    for (;;) {
        uint32_t seen = 0;

        /* Acquire: pairs with the release in lock_give(). Others may sleep as well. */
        if (atomic_compare_exchange_strong_explicit(&lock->word, &seen, my_name() | CONTENDED, memory_order_acquire, memory_order_relaxed))
            return true;
        if (is_contended(lock, seen) && futex_wait(&lock->word, seen | CONTENDED, patience, FUTEX_OF_PROCESS) == -ETIMEDOUT)
            return false;
    }
}

static bool take(struct la_lock *lock, const struct timespec *patience)
{
    uint32_t seen = 0;

    /* Acquire: pairs with the release in lock_give(). */
    return likely(atomic_compare_exchange_strong_explicit(&lock->word, &seen, my_name(), memory_order_acquire, memory_order_relaxed)) ||
           wait_for(lock, patience);
}

static void take_ranked(struct la_lock *lock, bool peer)
{
    if (holds_signals(lock))
        signals_hold();
    rank_push(lock->rank, peer);
    take(lock, NULL);
}

void lock_take(struct la_lock *lock)
{
    take_ranked(lock, false);
}

void lock_take_peer(struct la_lock *lock)
{
    take_ranked(lock, true);
}

bool lock_take_patiently(struct la_lock *lock)
{
    static const struct timespec patience = { .tv_sec = PATIENCE_MS / 1000, .tv_nsec = PATIENCE_MS % 1000 * 1000000l };

    assert(!holds_signals(lock));
    rank_push(lock->rank, false);
    return take(lock, &patience);
}

bool lock_is_mine(const struct la_lock *lock)
{
    return (atomic_load_explicit(&lock->word, memory_order_relaxed) & ~(uint32_t)CONTENDED) == my_name();
}

void lock_give(struct la_lock *lock)
{
    rank_pop(lock->rank);
    if (atomic_exchange_explicit(&lock->word, 0, memory_order_release) & CONTENDED)
        futex_wake(&lock->word, 1, FUTEX_OF_PROCESS);
    if (holds_signals(lock))
        signals_release();
}

void lock_reset(struct la_lock *lock)
{
    rank_forget(lock->rank);
    atomic_store_explicit(&lock->word, 0, memory_order_relaxed);
}
