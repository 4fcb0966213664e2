/*
 * limbo.h - free a block now, use it again when a device is done with it.
 *
 * A buffer that a network card or a GPU still reads cannot be freed: the next allocation would get it and write to it. A limbo takes it together
 * with a token, which tells when the device is done, and frees it some time after that.
 *
 *     static uint64_t done;                           // grows by one with each completion that is polled
 *
 *     la_free_after(limbo, buffer, la_token_counter(&done, request->number));
 *
 * Nothing waits: a call looks at a few tokens of earlier blocks, and la_limbo_poll() at as many as it is told. Blocks of every chain may be given,
 * those of shared heaps and of memory that the processor must not touch, too; until its token is complete not a byte of a block is read or written.
 *
 * A handler that jumps out of a call (siglongjmp) may lose blocks that the call had in hand: they stay allocated. In a child of fork() what was in
 * flight stays so; la_limbo_forget().
 *
 * Threads: all calls but la_limbo_destroy() and la_limbo_forget() may be made from any thread at any time, on one limbo too; none waits for another.
 */
#ifndef LIBALLOC_LIMBO_H
#define LIBALLOC_LIMBO_H

#include <stddef.h>
#include <stdint.h>

#include <liballoc/visibility.h>

LA_BEGIN_DECLS

struct la_limbo;

/* A kind of token. The table and what .object points to must outlive the limbo's interest: until the block is free. */
struct la_token_ops {
    size_t struct_size;         /* sizeof(struct la_token_ops) of the author's header */
    const char *name;           /* for reports */
    /**
     * is_complete() - 1: nobody uses the block any more, for good; 0: not yet; a negative errno: it cannot be told, ask again
     *
     * Called from whichever thread polls, without a lock; must not wait. May call anything.
     */
    int (*is_complete)(void *object, uint64_t value);
};

struct la_token {
    const struct la_token_ops *ops;
    void *object;
    uint64_t value;
};

/**
 * la_token_counter() - complete when *@counter has reached @value
 * @counter: only ever grows (it may wrap); who stores to it has seen the completion, and stores with release
 *
 * A flag is a counter with the value 1. For CUDA events see segments/cuda.h; for anything else fill the table.
 */
LA_API struct la_token la_token_counter(const uint64_t *counter, uint64_t value);

/** la_limbo_create() - Return: 0, -ENOMEM */
LA_API int la_limbo_create(struct la_limbo **ret);

/**
 * la_free_after() - free @block once @token is complete
 * @block: a live block, the caller's no more when 0 is returned; NULL does nothing
 *
 * Blocks that come one after the other with the same token share the question whether it is complete.
 *
 * Return: 0, -EINVAL (@block is no live block, @token has no operations), -ENOMEM (the block is still the caller's).
 */
LA_API int la_free_after(struct la_limbo *limbo, void *block, struct la_token token);

/**
 * la_limbo_poll() - free what can be freed
 * @tokens: look at so many tokens at most, the longest not looked at first; 0: at all that there are
 *
 * When a chain has no memory left, poll and try again.
 *
 * Return: blocks freed; when there were none, the negative errno of a token that cannot tell.
 */
LA_API long la_limbo_poll(struct la_limbo *limbo, unsigned tokens);

/** la_limbo_pending() - blocks that are not free yet */
LA_API size_t la_limbo_pending(const struct la_limbo *limbo);

/**
 * la_limbo_destroy() - end a limbo that is empty, or gets empty by one poll
 * @limbo: NULL does nothing
 *
 * Before the chains of its blocks are destroyed. Does not wait: poll until nothing is pending, in a way that lets the device go on.
 *
 * Return: 0, -EBUSY (blocks are pending, la_last_error() says how many and on what).
 */
LA_API int la_limbo_destroy(struct la_limbo *limbo);

/** la_limbo_forget() - what is pending stays allocated for ever (the device is lost). Return: how many blocks */
LA_API size_t la_limbo_forget(struct la_limbo *limbo);

LA_END_DECLS
#endif
