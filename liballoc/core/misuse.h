/* misuse.h - wrong frees: report, count, continue or abort as la_misuse_set() chose. */
#ifndef CORE_MISUSE_H
#define CORE_MISUSE_H

#include "base/util.h"

/* @what completes "ADDRESS ...": e.g. "is not the start of a block". */
void misuse_report(const void *pointer, const char *what, ...) PRINTF_LIKE(2, 3) COLD;

#endif
