/*
 * default.h - the calling thread's default chain: what malloc, new and la_malloc() serve from.
 *
 * Idea of the MPC allocator: unmodified code allocates inside a chosen segment while the switch is on.
 */
#ifndef LIBALLOC_DEFAULT_H
#define LIBALLOC_DEFAULT_H

#include <liballoc/chain.h>

LA_BEGIN_DECLS

/**
 * la_default_set() - serve the calling thread's malloc from @chain
 * @chain: the new default; NULL: the thread's own private chain
 *
 * Threads: acts on the calling thread only; a thread that it creates starts with its own private chain.
 * While a chain is anybody's default, la_chain_destroy() answers -EBUSY.
 *
 * Return: the previous default, to be given back to la_default_set(); NULL stands for the thread's own
 * chain. Refused switches (a chain over memory that is a device's only; see la_last_error()) leave the default as it was and return it.
 */
LA_API struct la_chain *la_default_set(struct la_chain *chain);

/** la_default_get() - the calling thread's default chain, NULL for its own private one */
LA_API struct la_chain *la_default_get(void);

LA_API void la_default_restore_(struct la_chain **previous);

/*
 * LA_WITH_CHAIN(chain) statement - run one statement with @chain as default. The previous default comes
 * back however the statement is left (break, return, goto; in C++ also by an exception), longjmp excepted.
 */
#define LA_WITH_CHAIN(chain) LA_WITH_CHAIN_AT_(chain, __LINE__)

/* Names that carry the line: nested scopes do not shadow each other. */
#define LA_WITH_CHAIN_AT_(chain, line) LA_WITH_CHAIN_LINE_(chain, line)
#define LA_WITH_CHAIN_LINE_(chain, line) LA_WITH_CHAIN_NAMED_(chain, la_previous_##line##_, la_once_##line##_)
#define LA_WITH_CHAIN_NAMED_(chain, previous, once)                                                    \
    for (struct la_chain *previous __attribute__((cleanup(la_default_restore_), unused)) =             \
             la_default_set(chain), *once = (struct la_chain *)1;                                      \
         once; once = NULL)

LA_END_DECLS
#endif
