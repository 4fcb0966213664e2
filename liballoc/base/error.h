/*
 * error.h - the thread-local sentence behind every failure (la_last_error()).
 *
 * Formatting must not allocate: it is called inside malloc. fmt.c does the work.
 */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include "base/util.h"

/* Record "text" for the calling thread and return @code (negative errno), so that callers write: return la_fail(-EINVAL, ...). */
int la_fail(int code, const char *format, ...) PRINTF_LIKE(2, 3) COLD;

/* How often the calling thread has failed: tells whether a function of a user has left a sentence of its own. */
unsigned error_count(void);

#endif
