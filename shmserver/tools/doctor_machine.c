#include "doctor.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "amount.h"

#define HUGE_FOLDER "/sys/kernel/mm/hugepages"

/* ---- pages ---- */

static uint64_t huge_number(const char *folder, const char *file)
{
    char path[320], text[32];

    snprintf(path, sizeof(path), HUGE_FOLDER "/%s/%s", folder, file);
    return doctor_read(path, text, sizeof(text)) ? strtoull(text, NULL, 10) : 0;
}

/* "2 MiB: 3 of 10 free", for each size that the kernel has. Return: pages that are free. */
static uint64_t describe_pools(char *text, size_t size)
{
    DIR *dir = opendir(HUGE_FOLDER);
    uint64_t free_pages = 0;
    size_t length = 0;

    for (const struct dirent *entry; dir && (entry = readdir(dir));) {
        char amount[AMOUNT_SIZE];
        uint64_t kib, all, unused;

        if (sscanf(entry->d_name, "hugepages-%" SCNu64 "kB", &kib) != 1 || length >= size)
            continue;
        all = huge_number(entry->d_name, "nr_hugepages");
        unused = huge_number(entry->d_name, "free_hugepages");
        free_pages += unused;
        length += (size_t)snprintf(text + length, size - length, "%s%s: %" PRIu64 " of %" PRIu64 " free", length ? ", " : "",
                                   amount_print(kib << 10, amount), unused, all);
    }
    if (dir)
        closedir(dir);
    if (!length)
        snprintf(text, size, "the kernel has none");
    return free_pages;
}

static struct finding check_huge_pages(void)
{
    char pools[120];

    if (describe_pools(pools, sizeof(pools)) > 0)
        return finding(GOOD, "%s", pools);
    return finding(LIMITED, "%s: segments that prefer huge pages get small ones (sysctl vm.nr_hugepages)", pools);
}

/* Of "always [madvise] never". */
static bool chosen_word(const char *path, char *ret, size_t size)
{
    char text[120], *begin, *end;

    if (!doctor_read(path, text, sizeof(text)) || !(begin = strchr(text, '[')) || !(end = strchr(begin, ']')))
        return false;
    *end = '\0';
    snprintf(ret, size, "%s", begin + 1);
    return true;
}

static struct finding check_thp(void)
{
    char private[16], shared[16] = "unknown";

    if (!chosen_word("/sys/kernel/mm/transparent_hugepage/enabled", private, sizeof(private)))
        return finding(LIMITED, "the kernel has none: private memory is made of small pages");
    chosen_word("/sys/kernel/mm/transparent_hugepage/shmem_enabled", shared, sizeof(shared));
    return finding(strcmp(private, "never") == 0 ? LIMITED : GOOD,
                   "%s for private memory, %s for shared heaps (/sys/kernel/mm/transparent_hugepage/enabled, shmem_enabled)", private, shared);
}

/* ---- limits ---- */

static struct finding check_memlock(void)
{
    struct rlimit limit;
    char amount[AMOUNT_SIZE];

    if (getrlimit(RLIMIT_MEMLOCK, &limit) < 0)
        return finding(BAD, "not known (errno %d)", errno);
    if (limit.rlim_cur == RLIM_INFINITY)
        return finding(GOOD, "not limited");
    return finding(LIMITED, "%s may be locked or registered with devices (ulimit -l), but by who has CAP_IPC_LOCK",
                   amount_print(limit.rlim_cur, amount));
}

/* Where the two generations of control groups say what a group may have; the name of the group follows @mark in /proc/self/cgroup. */
static const struct generation {
    const char *mark, *folder, *file;
} generations[] = {
    { "0::", "/sys/fs/cgroup", "memory.max" },
    { ":memory:", "/sys/fs/cgroup/memory", "memory.limit_in_bytes" },
};

static bool find_group(const struct generation *g, char *ret, size_t size)
{
    FILE *file = fopen("/proc/self/cgroup", "re");
    bool found = false;

    while (file && !found && fgets(ret, (int)size, file)) {
        char *at = strstr(ret, g->mark);

        found = at != NULL;
        if (found) {
            at[strcspn(at, "\n")] = '\0';
            memmove(ret, at + strlen(g->mark), strlen(at + strlen(g->mark)) + 1);
        }
    }
    if (file)
        fclose(file);
    return found;
}

/* What the first generation says when there is no limit is little less than 2^63. */
static const uint64_t no_limit = (uint64_t)1 << 60;

/* The least of the group and all above it, or no_limit; 0: none of it can be seen. */
static uint64_t group_limit(const struct generation *g, char *group)
{
    uint64_t least = 0;

    for (char *slash = group; slash; *slash = '\0') {
        char path[640], text[32];

        snprintf(path, sizeof(path), "%s%s/%s", g->folder, group, g->file);
        if (doctor_read(path, text, sizeof(text))) {
            uint64_t limit = isdigit((unsigned char)text[0]) ? strtoull(text, NULL, 10) : no_limit;

            least = least && least < limit ? least : limit;
        }
        slash = strrchr(group, '/');
        if (!slash)
            break;
    }
    return least;
}

static struct finding check_control_group(void)
{
    uint64_t least = 0;
    char group[512], amount[AMOUNT_SIZE];

    for (size_t i = 0; i < sizeof(generations) / sizeof(generations[0]); i++)
        if (find_group(&generations[i], group, sizeof(group))) {
            uint64_t limit = group_limit(&generations[i], group);

            least = least && (!limit || least < limit) ? least : limit;
        }
    if (least == 0)
        return finding(ABSENT, "none that limits memory can be seen from here (/sys/fs/cgroup)");
    if (least >= no_limit)
        return finding(GOOD, "memory is not limited");
    return finding(LIMITED, "memory is limited to %s: heaps count for who touches them first, and growth is refused beyond it",
                   amount_print(least, amount));
}

/* ---- nodes ---- */

static struct finding check_nodes(void)
{
    char online[64];

    if (!doctor_read("/sys/devices/system/node/online", online, sizeof(online)))
        return finding(ABSENT, "the kernel has no NUMA: all memory is one node");
    if (strcmp(online, "0") == 0)
        return finding(GOOD, "one node");
    return finding(GOOD, "nodes %s: see seg_request.numa", online);
}

const struct check doctor_machine[] = {
    { "huge pages", check_huge_pages }, { "transparent huge pages", check_thp }, { "locked memory", check_memlock },
    { "control group", check_control_group }, { "NUMA", check_nodes }, { 0 },
};
