#include "shmserver/daemon/named_fds.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"

enum { FIRST_PASSED = 3 };

int named_fds_add(struct named_fds *fds, const char *name, int fd)
{
    struct named_fd *list;

    if (strlen(name) > NAMED_FD_NAME_MAX || strchr(name, ':')) {
        close_fd(&fd);
        return la_fail(-EINVAL, "\"%.80s\" is no name of a descriptor", name);
    }
    list = realloc(fds->list, (fds->count + 1) * sizeof(*list));
    if (!list) {
        close_fd(&fd);
        return la_fail(-ENOMEM, "shmserver is out of memory");
    }
    fds->list = list;
    list[fds->count].fd = fd;
    snprintf(list[fds->count].name, sizeof(list->name), "%s", name);
    fds->count++;
    return 0;
}

static void forget(struct named_fds *fds, size_t at)
{
    fds->count--;
    memmove(&fds->list[at], &fds->list[at + 1], (fds->count - at) * sizeof(*fds->list));
}

int named_fds_take_at(struct named_fds *fds, size_t at)
{
    int fd = fds->list[at].fd;

    forget(fds, at);
    return fd;
}

int named_fds_take(struct named_fds *fds, const char *name)
{
    for (size_t i = 0; i < fds->count; i++)
        if (strcmp(fds->list[i].name, name) == 0)
            return named_fds_take_at(fds, i);
    return -1;
}

void named_fds_drop(struct named_fds *fds, const char *name)
{
    for (size_t i = fds->count; i-- > 0;)
        if (strcmp(fds->list[i].name, name) == 0) {
            close_fd(&fds->list[i].fd);
            forget(fds, i);
        }
}

void named_fds_close(struct named_fds *fds)
{
    for (size_t i = 0; i < fds->count; i++)
        close_fd(&fds->list[i].fd);
    free(fds->list);
    *fds = (struct named_fds){ 0 };
}

/* ---- taking over ---- */

/* The next name of the list, "unknown" past its end; a longer one than ours is a stranger's, and cut. */
static const char *next_name(const char *names, char ret[NAMED_FD_NAME_MAX + 1])
{
    size_t length = strcspn(names, ":");

    if (length == 0)
        strcpy(ret, "unknown");
    else
        snprintf(ret, NAMED_FD_NAME_MAX + 1, "%.*s", (int)length, names);
    return names + length + (names[length] == ':');
}

bool named_fds_are_there(void)
{
    const char *pid = getenv("LISTEN_PID");

    return pid && strtol(pid, NULL, 10) == getpid();
}

int named_fds_inherit(struct named_fds *ret)
{
    const char *text = getenv("LISTEN_FDS"), *names = getenv("LISTEN_FDNAMES");
    long count = text && named_fds_are_there() ? strtol(text, NULL, 10) : 0;
    int r = 0;

    *ret = (struct named_fds){ 0 };
    for (int fd = FIRST_PASSED; fd < FIRST_PASSED + count && r == 0; fd++) {
        char name[NAMED_FD_NAME_MAX + 1];

        names = next_name(names ? names : "", name);
        /* Not open: the variable lies. */
        if (fcntl(fd, F_SETFD, FD_CLOEXEC) == 0)
            r = named_fds_add(ret, name, fd);
    }
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    return r;
}

/* ---- handing over ---- */

static int set_variables(const struct named_fds *fds)
{
    size_t size = fds->count * (NAMED_FD_NAME_MAX + 1) + 1, used = 0;
    char *names = calloc(1, size), number[16];
    int r = 0;

    if (!names)
        return la_fail(-ENOMEM, "shmserver is out of memory");
    for (size_t i = 0; i < fds->count; i++)
        used += (size_t)snprintf(names + used, size - used, "%s%s", i ? ":" : "", fds->list[i].name);
    snprintf(number, sizeof(number), "%zu", fds->count);
    if (setenv("LISTEN_FDNAMES", names, 1) < 0 || setenv("LISTEN_FDS", number, 1) < 0)
        r = la_fail(-ENOMEM, "shmserver is out of memory");
    snprintf(number, sizeof(number), "%d", getpid());
    if (r == 0 && setenv("LISTEN_PID", number, 1) < 0)
        r = la_fail(-ENOMEM, "shmserver is out of memory");
    free(names);
    return r;
}

/* Out of the way of the numbers that they are to get, as those may be in use among themselves. */
static int copy_above(const struct named_fds *fds, int *copies)
{
    for (size_t i = 0; i < fds->count; i++) {
        copies[i] = fcntl(fds->list[i].fd, F_DUPFD_CLOEXEC, FIRST_PASSED + (int)fds->count);
        if (copies[i] < 0) {
            int r = la_fail(-errno, "cannot hand descriptor %s over (errno %d)", fds->list[i].name, errno);

            while (i-- > 0)
                close_fd(&copies[i]);
            return r;
        }
    }
    return 0;
}

int named_fds_pass(const struct named_fds *fds)
{
    int *copies = calloc(fds->count + 1, sizeof(*copies)), r;

    if (!copies)
        return la_fail(-ENOMEM, "shmserver is out of memory");
    r = set_variables(fds);
    if (r == 0)
        r = copy_above(fds, copies);
    for (size_t i = 0; i < fds->count && r == 0; i++) {
        dup2(copies[i], FIRST_PASSED + (int)i);
        close_fd(&copies[i]);
    }
    free(copies);
    return r;
}
