/*
 * source_report.c - LIBALLOC_SOURCE names memory that cannot be had: one line on standard error, and malloc goes on with what it has.
 *
 * The library has read the variable when it was loaded, which is before this. It never prints; but a preloaded program cannot ask.
 */
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include <liballoc/error.h>

__attribute__((constructor)) static void report(void)
{
    static const char variable[] = "LIBALLOC_SOURCE=", rest[] = "; malloc uses anonymous memory\n", name[] = "liballoc: ";
    const char *text = la_last_error();
    const struct iovec line[] = {
        { (void *)(uintptr_t)name, sizeof(name) - 1 },
        { (void *)(uintptr_t)text, strlen(text) },
        { (void *)(uintptr_t)rest, sizeof(rest) - 1 },
    };
    ssize_t written;

    if (strncmp(text, variable, sizeof(variable) - 1) != 0)
        return;
    written = writev(STDERR_FILENO, line, sizeof(line) / sizeof(line[0]));
    (void)written;      /* nobody is left to be told */
}
