#include "base/lock.h"

#include <assert.h>
#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef NDEBUG
/* Bit r: the calling thread holds a lock of rank r; how many more than one. */
static __thread unsigned held, peers[RANK_COUNT];

static void rank_push(uint8_t rank, bool peer)
{
    assert(rank > 0 && rank < RANK_COUNT && "lock not initialised");
    assert(held >> (rank + peer) == 0 && "locks are taken in rising rank");
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
    assert(held & (1u << rank));
    rank_forget(rank);
}
#else
#define rank_push(rank, peer) ((void)(rank), (void)(peer))
#define rank_forget(rank) ((void)(rank))
#define rank_pop(rank) ((void)(rank))
#endif

static void futex(_Atomic(uint32_t) *word, int operation, uint32_t value)
{
    int saved = errno;

    syscall(SYS_futex, word, operation | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
    errno = saved;
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

    if (holds++ == 0)
        set_mask(SIG_BLOCK, &others, &mask_before);
}

void signals_release(void)
{
    if (--holds == 0)
        set_mask(SIG_SETMASK, &mask_before, NULL);
}

void lock_child(void)
{
    if (holds > 0)
        set_mask(SIG_SETMASK, &mask_before, NULL);
    holds = 0;
}

static bool holds_signals(const struct la_lock *lock)
{
    return lock->rank != RANK_CHAIN;
}

/* ---- locks ---- */

static void take(struct la_lock *lock)
{
    uint32_t seen = 0;

    if (holds_signals(lock))
        signals_hold();
    /* Acquire: pairs with the release in lock_give(). */
    if (likely(atomic_compare_exchange_strong_explicit(&lock->word, &seen, 1, memory_order_acquire, memory_order_relaxed)))
        return;
    while (atomic_exchange_explicit(&lock->word, 2, memory_order_acquire) != 0)
        futex(&lock->word, FUTEX_WAIT, 2);
}

void lock_take(struct la_lock *lock)
{
    rank_push(lock->rank, false);
    take(lock);
}

void lock_take_peer(struct la_lock *lock)
{
    rank_push(lock->rank, true);
    take(lock);
}

void lock_give(struct la_lock *lock)
{
    rank_pop(lock->rank);
    if (atomic_exchange_explicit(&lock->word, 0, memory_order_release) == 2)
        futex(&lock->word, FUTEX_WAKE, 1);
    if (holds_signals(lock))
        signals_release();
}

void lock_reset(struct la_lock *lock)
{
    rank_forget(lock->rank);
    atomic_store_explicit(&lock->word, 0, memory_order_relaxed);
}
