#include "segments/budget.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/error.h"
#include "os/headroom.h"
#include "segments/registrar_state.h"

enum { STATUS_SIZE = 4096, CAP_IPC_LOCK_BIT = 14 };

static void read_status(char *text)
{
    CLEANUP(close_fd) int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, STATUS_SIZE - 1);

    text[MAX(n, 0)] = '\0';
}

/* The number behind "KEY:" at the start of a line, 0: not there. */
static uint64_t status_number(const char *status, const char *key, unsigned base)
{
    const char *c = strstr(status, key);
    uint64_t number = 0;

    if (!c)
        return 0;
    c += strlen(key);
    for (c += strspn(c, " \t"); ; c++) {
        unsigned digit = *c >= '0' && *c <= '9' ? (unsigned)(*c - '0') : *c >= 'a' && *c <= 'f' ? (unsigned)(*c - 'a') + 10 : 99;

        if (digit >= base)
            return number;
        number = number * base + digit;
    }
}

static int check_memlock(const struct seg_registrar *registrar, size_t bytes)
{
    bool locks = registrar->ops.flags & SEG_REGISTRAR_LOCKS;
    char status[STATUS_SIZE];
    struct rlimit limit;
    size_t used;

    if (!(registrar->ops.flags & (SEG_REGISTRAR_LOCKS | SEG_REGISTRAR_PINS)))
        return 0;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY)
        return 0;
    read_status(status);
    if (status_number(status, "\nCapEff:", 16) >> CAP_IPC_LOCK_BIT & 1)
        return 0;
    used = (size_t)status_number(status, locks ? "\nVmLck:" : "\nVmPin:", 10) * KiB;
    if (bytes <= limit.rlim_cur - MIN(used, (size_t)limit.rlim_cur))
        return 0;
    return la_fail(-EDQUOT, "%s of %zu bytes: RLIMIT_MEMLOCK is %zu, %zu used; raise it (ulimit -l, LimitMEMLOCK=) or give CAP_IPC_LOCK",
                   registrar->ops.name, bytes, (size_t)limit.rlim_cur, used);
}

int budget_check_pinning(const struct seg_registrar *registrar, size_t bytes, unsigned times, bool fresh)
{
    size_t left;
    int r;

    if (!registrar_pins(registrar))
        return 0;
    /* An overflow is more than any limit. */
    r = check_memlock(registrar, bytes > SIZE_MAX / times ? SIZE_MAX : bytes * times);
    if (r < 0 || !fresh)
        return r;
    left = os_headroom();
    return bytes <= left ? 0 : la_fail(-ENOMEM, "%s of %zu bytes: machine or control group have %zu left (memory.max)",
                                       registrar->ops.name, bytes, left);
}
