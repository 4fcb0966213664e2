#include "os/huge_pages.h"

#include <fcntl.h>
#include <string.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <linux/magic.h>

#include "base/fmt.h"
#include "os/os.h"
#include "os/sysfile.h"

#define POOLS "/sys/kernel/mm/hugepages"

enum { PATH_SIZE = 96, MOUNTS_SIZE = 256 << 10, HUGE_SHIFT = 26 };       /* the last: MAP_HUGE_SHIFT, which old headers lack */

size_t os_file_page(int fd)
{
    struct statfs fs;

    return fstatfs(fd, &fs) == 0 && fs.f_type == HUGETLBFS_MAGIC ? (size_t)fs.f_bsize : os_page_size();
}

unsigned os_huge_flags(size_t page)
{
    return (unsigned)__builtin_ctzl(page) << HUGE_SHIFT;
}

bool os_pool_exists(size_t page)
{
    char path[PATH_SIZE];

    la_format(path, sizeof(path), POOLS "/hugepages-%zukB", page / KiB);
    return access(path, F_OK) == 0;
}

size_t os_pool_number(size_t page, const char *file)
{
    char path[PATH_SIZE];
    size_t number;

    la_format(path, sizeof(path), POOLS "/hugepages-%zukB/%s", page / KiB, file);
    number = os_read_number(path);
    return number == SIZE_MAX ? 0 : number;
}

size_t os_pool_free(size_t page)
{
    size_t all = os_pool_number(page, "free_hugepages"), promised = os_pool_number(page, "resv_hugepages");

    return all - MIN(all, promised);
}

/* The pool that sysctl is about. */
static bool is_default(size_t page)
{
    char text[4096];

    return os_read_text("/proc/meminfo", text, sizeof(text)) && os_number_after(text, "Hugepagesize:") == page / KiB;
}

const char *os_pool_explain(size_t page, uint64_t bytes, char text[POOL_TEXT_SIZE])
{
    size_t needed = (size_t)(bytes / page + (bytes % page != 0)), all = os_pool_number(page, "nr_hugepages"), free = os_pool_free(page);
    const char *unit = page >= GiB ? "GiB" : page >= MiB ? "MiB" : "KiB";
    size_t number = page / (page >= GiB ? GiB : page >= MiB ? MiB : KiB), length;

    if (!os_pool_exists(page)) {
        la_format(text, POOL_TEXT_SIZE, "this machine has no pool of pages of %zu %s", number, unit);
        return text;
    }
    length = la_format(text, POOL_TEXT_SIZE, "%zu page%s of %zu %s needed, %zu of %zu free: ", needed, needed == 1 ? "" : "s", number, unit, free, all);
    if (free >= needed)
        la_format(text + length, POOL_TEXT_SIZE - length, "try again, or see the control group's limit (hugetlb)");
    else if (is_default(page))
        la_format(text + length, POOL_TEXT_SIZE - length, "sysctl vm.nr_hugepages=%zu", all + needed - free);
    else
        la_format(text + length, POOL_TEXT_SIZE - length, "%zu into " POOLS "/hugepages-%zukB/nr_hugepages", all + needed - free, page / KiB);
    return text;
}

/* "none /dev/hugepages hugetlbfs rw,...": a path with a blank would have a backslash, and is left out. */
static bool read_mount(const char *line, struct huge_mount *ret)
{
    const char *path = strchr(line, ' '), *type = path ? strchr(path + 1, ' ') : NULL;
    size_t length = type ? (size_t)(type - path) - 1 : 0;
    struct statfs fs;

    if (!type || strncmp(type, " hugetlbfs ", 11) != 0 || length >= sizeof(ret->path) || memchr(path, '\\', length))
        return false;
    la_format(ret->path, sizeof(ret->path), "%.*s", (int)length, path + 1);
    if (statfs(ret->path, &fs) < 0 || fs.f_type != HUGETLBFS_MAGIC)
        return false;
    ret->page = (size_t)fs.f_bsize;
    return true;
}

/* The kernel gives some lines at a time. */
static void read_mounts(char text[MOUNTS_SIZE])
{
    CLEANUP(close_fd) int fd = open("/proc/self/mounts", O_RDONLY | O_CLOEXEC);
    size_t have = 0;
    ssize_t n;

    while (fd >= 0 && have < MOUNTS_SIZE - 1 && (n = read(fd, text + have, MOUNTS_SIZE - 1 - have)) > 0)
        have += (size_t)n;
    text[have] = '\0';
}

bool os_huge_mount(unsigned index, struct huge_mount *ret)
{
    char *text = os_map(MOUNTS_SIZE), *line = text;
    struct huge_mount mount;
    bool found = false;

    if (!text)
        return false;
    read_mounts(text);
    while (line && *line && !found) {
        found = read_mount(line, &mount) && index-- == 0;
        line = strchr(line, '\n');
        line = line ? line + 1 : NULL;
    }
    os_unmap(text, MOUNTS_SIZE);
    if (found)
        *ret = mount;
    return found;
}
