/*
 * dump.c - a readable picture of the process's chains, without allocating.
 */
#include <errno.h>
#include <stdarg.h>
#include <unistd.h>

#include <liballoc/stats.h>

#include "base/fmt.h"
#include "core/macroblock.h"
#include "core/page.h"
#include "core/pool.h"
#include "core/size_class.h"
#include "core/source.h"
#include "core/thread.h"

struct dump {
    int fd;
    int error;
};

static void line(struct dump *dump, const char *format, ...) PRINTF_LIKE(2, 3);

static void line(struct dump *dump, const char *format, ...)
{
    char text[200];
    va_list args;
    size_t length;

    va_start(args, format);
    length = la_vformat(text, sizeof(text), format, args);
    va_end(args);
    length = MIN(length, sizeof(text) - 1);
    if (!dump->error && write(dump->fd, text, length) < 0)
        dump->error = -errno;
}

static const char *kind_name(const struct la_chain *chain)
{
    static const char *const names[] = { "none", "thread", "user", "orphan", "heap", "lane" };

    return names[chain->kind];
}

static void dump_class(struct dump *dump, const struct la_chain *chain, unsigned c)
{
    uint64_t pages = 0, used = 0, capacity = 0;

    for (struct la_macro *m = chain->macros; m; m = m->chain_next)
        for (unsigned i = 0; i < SLICES_PER_MACRO; i++) {
            const struct la_page *page = macro_page(m, i);

            if (!(m->all_slices & ~m->free_slices & (1u << i)) || page->kind != PAGE_SMALL || page->size_class != c)
                continue;
            pages++;
            used += page->used;
            capacity += page->capacity;
        }
    if (pages)
        line(dump, "  %7zu B: %5lu pages, %8lu of %8lu blocks out, %5u in the bin\n", class_size(c), pages, used, capacity,
             pool_bin_count(chain, c));
}

/* large_live counts those in bins, too. */
static uint64_t live_large(const struct la_chain *chain)
{
    uint64_t n = chain->large_live;

    for (unsigned c = SMALL_CLASSES; c < BIN_CLASSES; c++)
        n -= MIN((uint64_t)pool_bin_count(chain, c), n);
    return n;
}

static void dump_chain(struct la_chain *chain, void *arg)
{
    struct dump *dump = arg;
    struct la_stats s = { .struct_size = sizeof(s) };

    line(dump, "chain %p %s %s%s\n", (void *)chain, kind_name(chain), chain->name,
         atomic_load(&chain->dead) ? " (ended)" : "");
    if (chain->kind == CHAIN_HEAP || chain->kind == CHAIN_LANE || la_chain_stats(chain, &s) < 0)
        return;
    line(dump, "  %lu macro blocks, %lu live blocks, %lu bytes, %lu cached, %lu large, %lu huge\n", s.macro_blocks,
         s.blocks, s.allocated, s.cached, live_large(chain), s.huge_blocks);
    for (unsigned c = 0; c < SMALL_CLASSES; c++)
        dump_class(dump, chain, c);
    for (unsigned c = SMALL_CLASSES; c < BIN_CLASSES; c++)
        if (pool_bin_count(chain, c) > 0)
            line(dump, "  %7zu B: %5u in the bin\n", class_size(c), pool_bin_count(chain, c));
}

int la_dump(int fd)
{
    struct dump dump = { .fd = fd };
    struct la_source *source = &la_default_source;
    unsigned abandoned = 0;

    chains_each(dump_chain, &dump);
    lock_take(&source->lock);
    for (unsigned i = 0; i < source->node_count; i++)
        for (struct la_macro *m = source->nodes[i].abandoned; m; m = m->next)
            abandoned++;
    lock_give(&source->lock);
    line(&dump, "source %s: %zu bytes mapped, %zu free and kept, %u macro blocks abandoned\n", source->ops.name,
         source->mapped, source->dirty_bytes, abandoned);
    return dump.error;
}
