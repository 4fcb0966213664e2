#include "base/error.h"

#include <stdarg.h>

#include <liballoc/error.h>

#include "base/fmt.h"

/* One line per thread: 256 bytes hold a path and a sentence. */
static __thread char last_text[256];
static __thread int last_code;
static __thread unsigned failures;

int la_fail(int code, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    la_vformat(last_text, sizeof(last_text), format, args);
    va_end(args);
    last_code = code;
    failures++;
    return code;
}

unsigned error_count(void)
{
    return failures;
}

const char *la_last_error(void)
{
    return last_text;
}

int la_last_error_code(void)
{
    return last_code;
}
