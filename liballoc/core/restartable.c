#include "core/restartable.h"

__thread uint32_t la_tls_restarts;

#if RESTARTABLE

/* Of glibc from 2.35 on. */
extern const ptrdiff_t __rseq_offset __attribute__((weak));
extern const unsigned int __rseq_size __attribute__((weak));

/* In place of a struct rseq, where there is none: the store into it does no harm. */
static __thread char no_rseq[32];

/*
 * malloc() is called before any constructor, and where no_rseq lies is then known to the loader only: until restartable_init() the store
 * goes to bytes 128 to 135 of the thread control block, which glibc keeps unused on this machine for the sake of its size.
 */
ptrdiff_t la_rseq_offset = 128 - 8;

void restartable_init(void)
{
    if (&__rseq_size && &__rseq_offset && __rseq_size > 0)
        la_rseq_offset = __rseq_offset;
    else
        la_rseq_offset = no_rseq - (char *)__builtin_thread_pointer();
}

#else

void restartable_init(void)
{
}

#endif
