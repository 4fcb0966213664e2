/*
 * shared_mutex.c - a mutex and a condition variable of one word each, for memory that processes share.
 *
 * Mutex word: | somebody may sleep 1 | incarnation 19 | lane 12 |; lane 0: unlocked. It names a lane, not a thread or process id, so it
 * means the same in every PID namespace; the incarnation tells a lane that was given to somebody else meanwhile. The kernel knows
 * nothing of the holder: a waiter wakes up now and then, and looks whether the holder's process still has its certificate.
 * (A robust pthread mutex stores TIDs and linked-list pointers in shared memory: wrong across PID namespaces, and a peer can make the
 * unlocker write anywhere.)
 */
#include <errno.h>

#include <liballoc/error.h>

#include "base/error.h"
#include "base/futex.h"
#include "core/lane.h"

#define WAITERS 0x80000000u
enum { INCARNATION_SHIFT = 12, INCARNATION_MASK = (1 << 19) - 1, LOOK_AGAIN_MS = 50 };

static uint32_t word_of(const struct lane *lane)
{
    return (lane->incarnation & INCARNATION_MASK) << INCARNATION_SHIFT | lane->number;
}

/* The lane that the word names is not what it was, or its process has lost its certificate. */
static bool holder_is_dead(struct la_heap *heap, uint32_t word)
{
    unsigned number = word & (HEAP_LANES - 1);
    uint64_t owner;
    uint32_t process;

    owner = atomic_load_explicit(&heap->lane_table[number].owner, memory_order_acquire);
    process = (uint32_t)owner;
    if (process == 0 || (owner >> 32 & INCARNATION_MASK) != (word >> INCARNATION_SHIFT & INCARNATION_MASK))
        return true;
    return process > LA_HEAP_MAX_PROCESSES || !heap_process_is_alive(heap, process - 1);
}

static int check(struct la_heap *heap, const void *word, struct lane **lane)
{
    if ((uintptr_t)word % sizeof(uint32_t) || !heap_contains(heap, word))
        return la_fail(-EINVAL, "%p is no aligned word of heap %s: put mutexes and conditions into blocks of the heap", word,
                       heap->header->name);
    *lane = heap_lane(heap);
    return *lane ? 0 : la_last_error_code();
}

/*
 * One try. @waiters: set the bit when we get it, as others may sleep. 0, -EOWNERDEAD (got it), -EDEADLK, -EBUSY with
 * *seen for the caller to wait on.
 */
static int try_lock(struct la_heap *heap, const struct lane *lane, la_word *word, uint32_t waiters, bool look, uint32_t *seen)
{
    uint32_t mine = word_of(lane) | waiters;
    int got = 0;

    *seen = 0;
    /* Acquire: pairs with the release of unlock. */
    if (atomic_compare_exchange_strong_explicit(word, seen, mine, memory_order_acquire, memory_order_relaxed))
        return 0;
    if ((*seen & ~WAITERS) == word_of(lane))
        return la_fail(-EDEADLK, "mutex %p is locked by this thread already", (void *)word);
    if (!look || !holder_is_dead(heap, *seen))
        return -EBUSY;
    got = -EOWNERDEAD;
    if (!atomic_compare_exchange_strong_explicit(word, seen, mine | (*seen & WAITERS), memory_order_acquire, memory_order_relaxed))
        return -EBUSY;
    return got;
}

int la_mutex_trylock(struct la_heap *heap, struct la_mutex *mutex)
{
    struct lane *lane;
    uint32_t seen;
    int r = check(heap, mutex, &lane);

    return r < 0 ? r : try_lock(heap, lane, &mutex->word, 0, true, &seen);
}

int la_mutex_lock(struct la_heap *heap, struct la_mutex *mutex)
{
    struct lane *lane;
    uint32_t seen, waiters = 0;
    bool look = false;
    int r = check(heap, mutex, &lane);

    if (r < 0)
        return r;
    for (;;) {
        struct timespec pause = { .tv_nsec = LOOK_AGAIN_MS * 1000000 };

        r = try_lock(heap, lane, &mutex->word, waiters, look, &seen);
        if (r != -EBUSY)
            return r;
        if (seen == 0)
            continue;
        if (!(seen & WAITERS) && !atomic_compare_exchange_strong(&mutex->word, &seen, seen | WAITERS))
            continue;
        waiters = WAITERS;
        /* Woken by unlock, or by time: then the holder may have died. */
        look = futex_wait(&mutex->word, seen | WAITERS, &pause, FUTEX_OF_ALL) == -ETIMEDOUT;
    }
}

int la_mutex_unlock(struct la_heap *heap, struct la_mutex *mutex)
{
    struct lane *lane;
    uint32_t seen;
    int r = check(heap, mutex, &lane);

    if (r < 0)
        return r;
    seen = atomic_load_explicit(&mutex->word, memory_order_relaxed);
    if ((seen & ~WAITERS) != word_of(lane))
        return la_fail(-EPERM, "mutex %p is not locked by this thread", (void *)mutex);
    if (atomic_exchange_explicit(&mutex->word, 0, memory_order_release) & WAITERS)
        futex_wake(&mutex->word, 1, FUTEX_OF_ALL);
    return 0;
}

int la_cond_wait(struct la_heap *heap, struct la_cond *cond, struct la_mutex *mutex, const struct timespec *timeout)
{
    /* Read under the mutex: a signal after our unlock changes it, and the futex does not sleep. */
    uint32_t sequence = atomic_load_explicit(&cond->sequence, memory_order_relaxed);
    int r, waited;

    /* The kernel refuses it, and a caller who tests the condition in a loop would spin. */
    if (timeout && (timeout->tv_sec < 0 || timeout->tv_nsec < 0 || timeout->tv_nsec > 999999999))
        return la_fail(-EINVAL, "a timeout of %ld s, %ld ns: no time to wait; for ever is NULL", (long)timeout->tv_sec, timeout->tv_nsec);
    r = la_mutex_unlock(heap, mutex);
    if (r < 0)
        return r;
    waited = futex_wait(&cond->sequence, sequence, timeout, FUTEX_OF_ALL);
    r = la_mutex_lock(heap, mutex);
    if (r == 0 && waited == -ETIMEDOUT)
        r = la_fail(-ETIMEDOUT, "condition %p: no signal within %ld s, %ld ns", (void *)cond, (long)timeout->tv_sec, timeout->tv_nsec);
    return r;
}

static int wake(struct la_heap *heap, struct la_cond *cond, int n)
{
    struct lane *lane;
    int r = check(heap, cond, &lane);

    if (r < 0)
        return r;
    atomic_fetch_add_explicit(&cond->sequence, 1, memory_order_release);
    futex_wake(&cond->sequence, n, FUTEX_OF_ALL);
    return 0;
}

int la_cond_signal(struct la_heap *heap, struct la_cond *cond)
{
    return wake(heap, cond, 1);
}

int la_cond_broadcast(struct la_heap *heap, struct la_cond *cond)
{
    return wake(heap, cond, INT32_MAX);
}
