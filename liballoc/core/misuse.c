#include "core/misuse.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <liballoc/error.h>

#include "base/error.h"
#include "base/fmt.h"

/* Written by la_misuse_set() only, before or between misuses: a report may see the old choice. */
static _Atomic(int) action = LA_MISUSE_REPORT;
static _Atomic(la_misuse_handler *) handler;
static _Atomic(void *) handler_user;
static _Atomic(unsigned long) count;

void misuse_report(const void *pointer, const char *what, ...)
{
    char text[200];
    va_list args;
    size_t length;
    int saved = errno;
    int act = atomic_load(&action);
    la_misuse_handler *call = atomic_load(&handler);

    atomic_fetch_add_explicit(&count, 1, memory_order_relaxed);
    if (act == LA_MISUSE_IGNORE)
        return;
    length = la_format(text, sizeof(text), "%p ", pointer);
    va_start(args, what);
    la_vformat(text + length, sizeof(text) - length, what, args);
    va_end(args);
    la_fail(-EINVAL, "%s", text);
    if (call)
        call(atomic_load(&handler_user), pointer, text);
    if (act == LA_MISUSE_ABORT)
        abort();
    errno = saved;
}

int la_misuse_set(enum la_misuse_action chosen, la_misuse_handler *call, void *user)
{
    if (chosen < LA_MISUSE_ABORT || chosen > LA_MISUSE_IGNORE)
        return la_fail(-EINVAL, "misuse action %d is unknown: use one of enum la_misuse_action", (int)chosen);
    atomic_store(&handler_user, user);
    atomic_store(&handler, call);
    atomic_store(&action, chosen);
    return 0;
}

unsigned long la_misuse_count(void)
{
    return atomic_load_explicit(&count, memory_order_relaxed);
}
