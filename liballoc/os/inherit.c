#include "os/inherit.h"

#include <errno.h>
#include <sys/mman.h>

#include "os/range_table.h"
#include "os/vspace.h"

static struct range_table forbidden;    /* under vspace_lock() */

int inherit_forbid(void *base, size_t size)
{
    uintptr_t start = (uintptr_t)base;
    int r;

    /* Both or none for a fork in another thread. */
    vspace_lock();
    r = range_insert(&forbidden, start, start + size, 0);
    if (r == 0 && madvise(base, size, MADV_DONTFORK) < 0) {
        r = -errno;
        range_remove(&forbidden, start, start + size);
    }
    vspace_unlock();
    return r;
}

void inherit_allow(void *base, size_t size)
{
    vspace_lock();
    /* Refused for a driver's own mappings, which go with their release. */
    if (range_remove(&forbidden, (uintptr_t)base, (uintptr_t)base + size))
        (void)madvise(base, size, MADV_DOFORK);
    vspace_unlock();
}

bool inherit_is_forbidden(const void *p)
{
    return range_find(&forbidden, (uintptr_t)p, (uintptr_t)p + 1) != NULL;
}

void inherit_enter_child(void)
{
    for (size_t i = 0; i < forbidden.count; i++) {
        const struct range_entry *e = &forbidden.entries[i];

        /* What is there after all (a driver's mapping) stays. */
        mmap((void *)e->start, e->end - e->start, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    }
    range_clear(&forbidden);
}
