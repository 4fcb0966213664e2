#include "os/huge_pages.h"

#include <sys/statfs.h>
#include <unistd.h>

#include <linux/magic.h>

#include "base/fmt.h"
#include "os/os.h"
#include "os/sysfile.h"

#define POOLS "/sys/kernel/mm/hugepages"

enum { PATH_SIZE = 96, HUGE_SHIFT = 26 };       /* MAP_HUGE_SHIFT, which old headers lack */

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
    length = la_format(text, POOL_TEXT_SIZE, "%zu pages of %zu %s needed, %zu of %zu free: ", needed, number, unit, free, all);
    if (free >= needed)
        la_format(text + length, POOL_TEXT_SIZE - length, "try again, or see the control group's limit (hugetlb)");
    else if (is_default(page))
        la_format(text + length, POOL_TEXT_SIZE - length, "sysctl vm.nr_hugepages=%zu", all + needed - free);
    else
        la_format(text + length, POOL_TEXT_SIZE - length, "%zu into " POOLS "/hugepages-%zukB/nr_hugepages", all + needed - free, page / KiB);
    return text;
}
