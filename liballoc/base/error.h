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

/* What failed first is what the user is told: kept while things are cleaned up, which may fail too. */
struct error_kept {
    int code;
    char text[256];
};
void error_keep(struct error_kept *kept);
void error_tell_again(const struct error_kept *kept);

/* Nothing has failed: for NULL that is an answer, where the caller tells it from a failure by la_last_error_code(). */
void error_clear(void);

/* How often the calling thread has failed: tells whether a function of a user has left a sentence of its own. */
unsigned error_count(void);

#endif
