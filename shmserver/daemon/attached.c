#include "shmserver/daemon/attached.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/error.h"
#include "shmserver/daemon/view.h"

static bool is_in_table(struct segment *segment, pid_t pid)
{
    struct la_heap_process processes[LA_HEAP_MAX_PROCESSES];
    int n = view_processes(segment, processes);

    for (int i = 0; i < n; i++)
        if (processes[i].alive && processes[i].pid == pid)
            return true;
    return false;
}

/* "55d0c0000000-55d0c0021000 rw-s 00000000 00:01 1234   /memfd:..." */
static bool is_of_file(const char *line, const struct stat *file)
{
    unsigned major, minor;
    unsigned long inode;

    return sscanf(line, "%*s %*s %*s %x:%x %lu", &major, &minor, &inode) == 3 && makedev(major, minor) == file->st_dev && inode == file->st_ino;
}

static bool has_mapped(pid_t pid, const struct memfile *file)
{
    char path[32], *line = NULL;
    bool found = false;
    size_t size = 0;
    struct stat st;
    FILE *maps;

    snprintf(path, sizeof(path), "/proc/%d/maps", pid);
    maps = fstat(file->fd, &st) == 0 ? fopen(path, "re") : NULL;
    while (maps && !found && getline(&line, &size, maps) >= 0)
        found = is_of_file(line, &st);
    free(line);
    if (maps)
        fclose(maps);
    return found;
}

/* Then what was read of /proc/PID was read of this process, and of no later one with its number. */
static bool is_alive(const struct identity *id)
{
    struct pollfd ended = { .fd = id->pidfd, .events = POLLIN };

    return poll(&ended, 1, 0) == 0;
}

static int identify(const struct segment *segment, pid_t pid, struct identity *ret)
{
    int r = identity_of(pid, ret);

    if (r < 0)
        return r;
    if (has_mapped(pid, &segment->file) && is_alive(ret))
        return 0;
    identity_deinit(ret);
    return la_fail(-EPERM, "process %d has no connection, and user %u, whose shmserver this is, cannot see whether it is the one that is attached to heap %s: "
                           "end it by kill(1)", pid, geteuid(), segment->name);
}

int attached_find(struct registry *registry, pid_t pid, struct identity *ret)
{
    for (struct segment *segment = registry_after(registry, 0); segment; segment = registry_after(registry, segment->serial))
        if (pid != getpid() && is_in_table(segment, pid))
            return identify(segment, pid, ret);
    return la_fail(-ESRCH, "process %d has no connection to this shmserver and is attached to none of its heaps: `shms clients` shows who is", pid);
}
