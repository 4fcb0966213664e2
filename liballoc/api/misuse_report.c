/*
 * misuse_report.c - a wrong free of an unmodified program: one line on standard error, then what LIBALLOC_MISUSE says.
 *
 * A program linked with -lalloc handles its own misuse through la_misuse_set(), and the engine never prints. A preloaded
 * program knows nothing of us, so here somebody must speak. The line is written by one system call from the pieces as
 * they are: nothing in it allocates or takes a lock, and lines of several threads do not mix.
 */
#include "api/misuse_report.h"

#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include <liballoc/error.h>

__thread const char *api_operation;

static struct iovec piece(const char *text, size_t length)
{
    return (struct iovec){ .iov_base = (void *)(uintptr_t)text, .iov_len = length };
}

static void write_line(const struct iovec *line, size_t pieces)
{
    ssize_t written = writev(STDERR_FILENO, line, (int)pieces);

    (void)written;      /* nobody is left to be told */
}

/* @text is "ADDRESS WHAT"; the line is "liballoc: OPERATION(ADDRESS): WHAT". Of a fork there is no address to tell. */
static void write_report(void *user, const void *pointer, const char *text)
{
    const char *operation = api_operation ? api_operation : "free";
    size_t address = strcspn(text, " ");
    const char *what = text + address;
    const struct iovec of_fork[] = { piece("liballoc:", 9), piece(what, strlen(what)), piece("\n", 1) };
    const struct iovec line[] = {
        piece("liballoc: ", 10), piece(operation, strlen(operation)), piece("(", 1), piece(text, address),
        piece("):", 2),          piece(what, strlen(what)),           piece("\n", 1),
    };

    (void)user;
    (void)pointer;
    if (strncmp(what, " fork() ", 8) == 0)
        write_line(of_fork, ARRAY_SIZE(of_fork));
    else
        write_line(line, ARRAY_SIZE(line));
}

static void tell_unknown(const char *name)
{
    static const char before[] = "liballoc: LIBALLOC_MISUSE=", after[] = " is unknown: use abort, report or ignore; abort is taken\n";
    const struct iovec line[] = { piece(before, sizeof(before) - 1), piece(name, strnlen(name, 40)), piece(after, sizeof(after) - 1) };

    write_line(line, ARRAY_SIZE(line));
}

static enum la_misuse_action action_named(const char *name)
{
    if (name && strcmp(name, "report") == 0)
        return LA_MISUSE_REPORT;
    if (name && strcmp(name, "ignore") == 0)
        return LA_MISUSE_IGNORE;
    if (name && name[0] && strcmp(name, "abort") != 0)
        tell_unknown(name);
    return LA_MISUSE_ABORT;
}

/* secure_getenv: who starts a set-user-ID program does not choose how it treats a damaged heap. */
__attribute__((constructor)) static void choose(void)
{
    la_misuse_set(action_named(secure_getenv("LIBALLOC_MISUSE")), write_report, NULL);
}
