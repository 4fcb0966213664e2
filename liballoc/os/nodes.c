#include "os/nodes.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "base/fmt.h"
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

/* "Node 1 MemFree:  4711 kB" */
static size_t node_number(const char *text, unsigned node, const char *word)
{
    char key[48];
    size_t kib;

    la_format(key, sizeof(key), "Node %u %s:", node, word);
    kib = os_number_after(text, key);
    return kib == SIZE_MAX ? 0 : kib * KiB;
}

size_t os_node_headroom(unsigned node)
{
    char path[64], text[TEXT_SIZE];
    size_t free, reserve;

    la_format(path, sizeof(path), FOLDER "node%u/meminfo", node);
    if (!os_read_text(path, text, sizeof(text)))
        return access(FOLDER "possible", F_OK) == 0 ? 0 : SIZE_MAX;
    free = node_number(text, node, "MemFree") + node_number(text, node, "Inactive(file)");
    /* What the kernel keeps back (its watermarks are not told per node): about this much. */
    reserve = MIN(node_number(text, node, "MemTotal") / 64, 256 * MiB);
    return free - MIN(free, reserve);
}
