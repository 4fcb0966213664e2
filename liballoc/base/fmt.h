/*
 * fmt.h - printf that never allocates and needs no locale.
 *
 * Knows %s %c %d %i %u %x %o %p %% with the lengths l, ll, z, a minimal field width, '0', '-' and %.*s.
 */
#ifndef BASE_FMT_H
#define BASE_FMT_H

#include <stdarg.h>

#include "base/util.h"

/* Write at most @size bytes with the ending NUL; returns the length the whole text would have. */
size_t la_format(char *out, size_t size, const char *format, ...) PRINTF_LIKE(3, 4);
size_t la_vformat(char *out, size_t size, const char *format, va_list args);

#endif
