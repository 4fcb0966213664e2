/*
 * default_supply.c - malloc's memory by a list of sources: LIBALLOC_SOURCE="hugetlb:2M,thp,anon".
 *
 * Read once, before main(). What a process has allocated until then, in the loader and in constructors of other libraries, stays where
 * it is. A list that cannot be had changes nothing; la_last_error() begins with the variable's name then, and liballoc-malloc.so tells it.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <liballoc/error.h>
#include <segments/find.h>

#include "base/error.h"
#include "os/os.h"
#include "segments/supply_state.h"

static _Atomic(struct seg_supply *) default_supply;

static int acquire(void *self, size_t min, size_t wanted, struct la_range *ret)
{
    return seg_supply_acquire(self, min, wanted, ret);
}

/* Also asked about what was mapped before there was a supply. */
static int purge(void *self, struct la_range range)
{
    struct seg_location l = { .struct_size = sizeof(l) };
    struct seg_supply *s = self;

    if (s->registrar_count)
        return -ENOTSUP;
    if (seg_find(range.base, &l) == 0 && (l.capabilities & SEG_HUGE || !(l.capabilities & SEG_PURGE)))
        return -ENOTSUP;
    return os_purge(range.base, range.size);
}

static int check(const struct seg_supply *s)
{
    if (s->device_only || !s->inherited)
        return la_fail(-ENOTSUP, "supply %s gives memory that the processor must not touch, or that children of fork() do not have: not malloc's", s->name);
    for (unsigned i = 0; i < s->source_count; i++)
        if (s->sources[i].ops.can & SEG_SHARED)
            return la_fail(-ENOTSUP, "%s gives shared memory: after fork() parent and child would write to the same blocks",
                           s->sources[i].ops.name);
    return 0;
}

int seg_supply_make_default(struct seg_supply *s)
{
    struct la_source_ops ops = { .struct_size = sizeof(ops), .name = s->name, .acquire = acquire, .purge = purge };
    int r = check(s);

    if (r < 0)
        return r;
    supply_tell_nodes(s, &ops);
    r = la_source_default_set(&ops, s);
    if (r < 0)
        return r;
    s->is_default = true;
    /* Release: pairs with the acquire in seg_supply_default(). */
    atomic_store_explicit(&default_supply, s, memory_order_release);
    return 0;
}

struct seg_supply *seg_supply_default(void)
{
    return atomic_load_explicit(&default_supply, memory_order_acquire);
}

/* There is no way back once malloc is made of it, so that what gives nothing at all (an empty pool) must be known before. */
static int try_growth(struct seg_supply *s)
{
    size_t first = 2 * MiB + 64 * KiB;      /* a macro block and its descriptors: the least that malloc asks for */
    struct la_range range;
    int r = seg_supply_acquire(s, first, first, &range);

    return r < 0 ? r : seg_supply_release(s, range);
}

/* secure_getenv: who starts a set-user-ID program does not choose its memory. */
__attribute__((constructor)) static void choose(void)
{
    struct seg_supply_config config = { .struct_size = sizeof(config), .list = secure_getenv("LIBALLOC_SOURCE"), .per_node = true };
    struct seg_supply *supply = NULL;
    struct error_kept why;
    int r;

    if (!config.list || !config.list[0])
        return;
    r = seg_supply_create(&config, &supply);
    if (r == 0)
        r = check(supply);
    if (r == 0)
        r = try_growth(supply);
    if (r == 0)
        r = seg_supply_make_default(supply);
    if (r == 0)
        return;
    error_keep(&why);
    seg_supply_destroy(supply);
    la_fail(r, "LIBALLOC_SOURCE=%.40s: %s", config.list, why.text);
}
