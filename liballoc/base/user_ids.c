#include "base/user_ids.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#define ALL_IDS 4294967295u /* 0 to 2^32 - 2 */
#define OVERFLOW_ID 65534u  /* where nobody has set another one */

/* The beginning of a small file of the kernel's; "" when it cannot be read. */
static void read_text(const char *path, char *text, size_t size)
{
    CLEANUP(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, size - 1);

    text[n > 0 ? n : 0] = '\0';
}

/*
 * Lines of "first here, first outside, how many". Of a map that is longer than this only the beginning is added up, so it counts as one with gaps;
 * so does one that cannot be read. A namespace inside can map all ids only if those around it do.
 */
static bool all_are_mapped(const char *path)
{
    char text[512], *at = text;
    uint64_t sum = 0;

    read_text(path, text, sizeof(text));
    while (*at) {
        char *end;

        strtoul(at, &at, 10);
        strtoul(at, &at, 10);
        sum += strtoul(at, &end, 10);
        if (end == at || *end != '\n')
            return false;
        at = end + 1;
    }
    return sum == ALL_IDS;
}

static unsigned long overflow_id(const char *path)
{
    char text[16];

    read_text(path, text, sizeof(text));
    return text[0] ? strtoul(text, NULL, 10) : OVERFLOW_ID;
}

/* Read each time, as another namespace may be entered, and a new one gets its map after it was entered; the map only for one id of many. */
bool user_id_is_certain(uid_t uid)
{
    return uid != overflow_id("/proc/sys/kernel/overflowuid") || all_are_mapped("/proc/self/uid_map");
}

bool group_id_is_certain(gid_t gid)
{
    return gid != overflow_id("/proc/sys/kernel/overflowgid") || all_are_mapped("/proc/self/gid_map");
}

/* The kernel lets the owner change the mode, compares his real number, and knows no right in a namespace over files of users that it does not map. */
bool file_is_own(int fd, const struct stat *st)
{
    return st->st_uid == geteuid() && (user_id_is_certain(st->st_uid) || fchmod(fd, st->st_mode & 07777) == 0);
}
