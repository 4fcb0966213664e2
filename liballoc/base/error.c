#include "base/error.h"

#include <stdarg.h>
#include <string.h>

#include <liballoc/error.h>

#include "base/fmt.h"

/* One line per thread: 256 bytes hold a path and a sentence. */
static __thread char last_text[sizeof(((struct error_kept *)NULL)->text)];
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

void error_clear(void)
{
    last_text[0] = '\0';
    last_code = 0;
}

void error_keep(struct error_kept *kept)
{
    kept->code = last_code;
    memcpy(kept->text, last_text, sizeof(kept->text));
}

void error_tell_again(const struct error_kept *kept)
{
    la_fail(kept->code, "%s", kept->text);
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
