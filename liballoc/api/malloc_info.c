/*
 * malloc_info.c - the reporting and tuning half of glibc's malloc family.
 *
 * glibc's words describe glibc's heap (arenas, fast bins, a top chunk). They are filled so that the sums which
 * programs make of them hold: arena + hblkhd is what is mapped, uordblks + hblkhd what is in use, and
 * arena == uordblks + fordblks. Huge blocks are counted inside arena and uordblks, so hblkhd is 0.
 *
 * Every figure is taken before the first character is written: stdio may allocate, and no lock may be held then.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <malloc.h>
#include <stdio.h>

#include <liballoc/source.h>
#include <liballoc/stats.h>

#include "base/util.h"

static struct la_stats take_stats(void)
{
    struct la_stats stats = { .struct_size = sizeof(stats) };

    la_process_stats(&stats);
    /* Threads that allocate meanwhile make a snapshot inexact; nobody should see a negative rest. */
    stats.mapped = MAX(stats.mapped, stats.allocated);
    return stats;
}

LA_API struct mallinfo2 mallinfo2(void)
{
    struct la_stats stats = take_stats();

    return (struct mallinfo2){
        .arena = stats.mapped,
        .hblks = stats.huge_blocks,
        .uordblks = stats.allocated,
        .fordblks = stats.mapped - stats.allocated,
    };
}

static int int_or_max(size_t n)
{
    return n > INT_MAX ? INT_MAX : (int)n;
}

/* The old form has ints: what does not fit reads as INT_MAX, where glibc's wraps around. */
LA_API struct mallinfo mallinfo(void)
{
    struct mallinfo2 wide = mallinfo2();

    return (struct mallinfo){
        .arena = int_or_max(wide.arena),
        .hblks = int_or_max(wide.hblks),
        .uordblks = int_or_max(wide.uordblks),
        .fordblks = int_or_max(wide.fordblks),
    };
}

/*
 * The names are accepted, so that programs which insist on success work, and change nothing: they tune mechanisms that
 * are not here. Fast bins, arenas, the top chunk and the mmap threshold have no counterpart; what is kept and what goes
 * back is decided by policy.c; wrong frees are LIBALLOC_MISUSE's, not M_CHECK_ACTION's; M_PERTURB would cost the fast path.
 */
LA_API int mallopt(int parameter, int value)
{
    static const int known[] = {
        M_MXFAST, M_NLBLKS, M_GRAIN, M_KEEP, M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX,
        M_CHECK_ACTION, M_PERTURB, M_ARENA_TEST, M_ARENA_MAX,
    };

    (void)value;
    for (size_t i = 0; i < ARRAY_SIZE(known); i++)
        if (known[i] == parameter)
            return 1;
    return 0;
}

/* @keep is bytes at the end of glibc's heap; ours has no end. */
LA_API int malloc_trim(size_t keep)
{
    (void)keep;
    return la_source_trim(NULL) > 0;
}

LA_API void malloc_stats(void)
{
    struct la_stats stats = take_stats();

    fprintf(stderr,
            "Total (all chains):\n"
            "system bytes     = %10" PRIu64 "\n"
            "in use bytes     = %10" PRIu64 "\n"
            "cached bytes     = %10" PRIu64 "\n"
            "mmap regions     = %10" PRIu64 "\n",
            stats.mapped, stats.allocated, stats.cached, stats.huge_blocks);
}

/* glibc's document, with the elements that have a meaning here; one heap, the process. */
LA_API int malloc_info(int options, FILE *file)
{
    struct la_stats stats;

    if (options != 0)
        return EINVAL;
    stats = take_stats();
    fprintf(file,
            "<malloc version=\"1\">\n"
            "<heap nr=\"0\">\n"
            "<sizes>\n"
            "</sizes>\n"
            "<total type=\"fast\" count=\"0\" size=\"0\"/>\n"
            "<total type=\"rest\" count=\"%" PRIu64 "\" size=\"%" PRIu64 "\"/>\n"
            "<system type=\"current\" size=\"%" PRIu64 "\"/>\n"
            "<aspace type=\"total\" size=\"%" PRIu64 "\"/>\n"
            "</heap>\n"
            "<total type=\"fast\" count=\"0\" size=\"0\"/>\n"
            "<total type=\"rest\" count=\"%" PRIu64 "\" size=\"%" PRIu64 "\"/>\n"
            "<total type=\"mmap\" count=\"%" PRIu64 "\" size=\"0\"/>\n"
            "<system type=\"current\" size=\"%" PRIu64 "\"/>\n"
            "<aspace type=\"total\" size=\"%" PRIu64 "\"/>\n"
            "</malloc>\n",
            stats.macro_blocks, stats.cached, stats.mapped, stats.mapped, stats.macro_blocks, stats.cached,
            stats.huge_blocks, stats.mapped, stats.mapped);
    return 0;
}
