#include "os/nodes.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "os/os.h"
#include "os/sysfile.h"

#define FOLDER "/sys/devices/system/node/"

enum { TEXT_SIZE = 4096 };

/* The last number of "0", "0-3" or "0,2-3". */
static unsigned count_nodes(void)
{
    char text[TEXT_SIZE];
    size_t last;

    if (!os_read_text(FOLDER "possible", text, sizeof(text)))
        return 1;
    for (char *c = text + strlen(text); c > text && (c[-1] < '0' || c[-1] > '9'); c--)
        c[-1] = '\0';
    last = strlen(text);
    while (last > 0 && text[last - 1] >= '0' && text[last - 1] <= '9')
        last--;
    last = os_number_after(text + last, "");
    return last < UINT16_MAX ? (unsigned)last + 1 : 1;
}

unsigned os_node_count(void)
{
    static _Atomic(unsigned) cached;
    unsigned count = atomic_load_explicit(&cached, memory_order_relaxed);

    if (unlikely(count == 0)) {
        count = count_nodes();
        atomic_store_explicit(&cached, count, memory_order_relaxed);
    }
    return count;
}

unsigned os_node_here(void)
{
    int saved = errno;
    unsigned cpu, node;

    if (getcpu(&cpu, &node) < 0)
        node = 0;
    errno = saved;
    return node;
}

/* ---- what a node can give ---- */

/*
 * A zone's line by line, as /proc/zoneinfo has it. Free pages below the mark, and those protected for other uses, are not given to programs: the
 * mark is a tenth of a small node (transparent huge pages raise it), and the protection most of the first 4 GiB of a large machine.
 */
struct look {
    unsigned node;
    bool here;              /* the lines are about that node */
    size_t free, mark;      /* of the zone, pages */
    size_t sum;             /* of the node */
};

/* The largest of "(0, 3019, 8395)". */
static size_t largest_of(const char *list)
{
    size_t largest = 0;

    for (const char *c = list + 1; c; c = strchr(c, ',') ? strchr(c, ',') + 1 : NULL) {
        size_t number = os_number_after(c, "");

        largest = MAX(largest, number == SIZE_MAX ? 0 : number);
    }
    return largest;
}

static void look_at_line(struct look *look, const char *line)
{
    size_t number;

    line += strspn(line, " ");
    if ((number = os_number_after(line, "Node ")) != SIZE_MAX) {
        look->here = number == look->node;
    } else if (!look->here) {
        return;
    } else if ((number = os_number_after(line, "pages free ")) != SIZE_MAX) {
        look->free = number;
    } else if ((number = os_number_after(line, "high ")) != SIZE_MAX) {
        look->mark = number;
    } else if (strncmp(line, "protection: ", strlen("protection: ")) == 0) {
        look->mark += largest_of(strchr(line, ' ') + 1);
        look->sum += look->free - MIN(look->free, look->mark);
    } else if ((number = os_number_after(line, "nr_inactive_file ")) != SIZE_MAX) {
        look->sum += number / 2;        /* page cache; as in MemAvailable, not all of it can go */
    }
}

/* The file is longer than any buffer of ours on a machine with many processors. */
static void look_at_lines(struct look *look, int fd)
{
    char text[TEXT_SIZE];
    size_t length = 0;
    ssize_t n;

    while ((n = read(fd, text + length, sizeof(text) - 1 - length)) > 0) {
        char *line = text, *end;

        length += (size_t)n;
        text[length] = '\0';
        for (; (end = strchr(line, '\n')); line = end + 1) {
            *end = '\0';
            look_at_line(look, line);
        }
        length -= (size_t)(line - text);
        memmove(text, line, length);
    }
}

size_t os_node_headroom(unsigned node)
{
    struct look look = { .node = node };
    int saved = errno;
    CLEANUP(close_fd) int fd = open("/proc/zoneinfo", O_RDONLY | O_CLOEXEC);

    if (fd >= 0)
        look_at_lines(&look, fd);
    errno = saved;
    return fd < 0 ? SIZE_MAX : look.sum * os_page_size();
}
