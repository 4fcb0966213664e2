#include "core/segment.h"

#include <string.h>

#include "core/macroblock.h"
#include "os/os.h"

static unsigned slice_shift_for(size_t size)
{
    unsigned shift = MIN_SLICE_SHIFT;

    if (size >= MACRO_SIZE)
        return SLICE_SHIFT;
    while (((size_t)SLICES_PER_MACRO << shift) < size)
        shift++;
    return shift;
}

/* Where slice 0 starts when the header ends at @end: aligned to what users align to, as far as the size allows it. */
static uintptr_t payload_start(uintptr_t end, unsigned shift, size_t size)
{
    if (shift < SLICE_SHIFT)
        return align_up(end, MIN((size_t)1 << shift, (size_t)64));
    return align_up(end, size >= 32 * MiB ? MACRO_SIZE : SLICE_SIZE);
}

static void init_macros(struct la_segment *s)
{
    for (uint32_t i = 0; i < s->macro_count; i++) {
        struct la_macro *m = &s->macros[i];
        unsigned slices = MIN(s->slice_count - i * SLICES_PER_MACRO, (unsigned)SLICES_PER_MACRO);

        m->segment = s;
        m->index = i;
        m->all_slices = m->free_slices = bits_run(0, slices);
        m->state = MACRO_FREE;
    }
}

struct la_segment *segment_init(void *base, size_t size, bool zeroed, size_t extra, void **extra_at)
{
    uintptr_t at = align_up((uintptr_t)base, 64), end = (uintptr_t)base + size;
    struct la_segment *s = (struct la_segment *)at;
    unsigned shift = slice_shift_for(size);
    size_t slices = size >> shift, macros = (slices + SLICES_PER_MACRO - 1) / SLICES_PER_MACRO;
    uintptr_t pages_at, macros_at, extra_start, first;

    extra_start = align_up(at + sizeof(*s), 64);
    macros_at = align_up(extra_start + extra, 64);
    pages_at = align_up(macros_at + macros * sizeof(struct la_macro), 64);
    first = payload_start(pages_at + slices * sizeof(struct la_page), shift, size);
    if (end < (uintptr_t)base || first >= end || (end - first) >> shift == 0)
        return NULL;
    slices = MIN(slices, (end - first) >> shift);
    macros = (slices + SLICES_PER_MACRO - 1) / SLICES_PER_MACRO;
    memset((void *)at, 0, sizeof(*s));
    memset((void *)extra_start, 0, (zeroed ? pages_at : pages_at + slices * sizeof(struct la_page)) - extra_start);
    *s = (struct la_segment){ .base = (uintptr_t)base, .size = size, .first = first, .usable = slices << shift,
        .slice_shift = shift, .slice_count = (uint32_t)slices, .macro_count = (uint32_t)macros,
        .pages = (struct la_page *)pages_at, .macros = (struct la_macro *)macros_at };
    init_macros(s);
    if (extra_at)
        *extra_at = (void *)extra_start;
    return s;
}

/* Bytes of descriptors. */
static size_t header_bytes(size_t slices)
{
    size_t macros = (slices + SLICES_PER_MACRO - 1) / SLICES_PER_MACRO;

    return align_up(sizeof(struct la_segment), 64) + align_up(macros * sizeof(struct la_macro), 64) + slices * sizeof(struct la_page);
}

struct la_segment *segment_init_apart(void *base, size_t size)
{
    uintptr_t first = payload_start((uintptr_t)base, SLICE_SHIFT, size), end = (uintptr_t)base + size;
    size_t slices = end > first ? (end - first) >> SLICE_SHIFT : 0, macros = (slices + SLICES_PER_MACRO - 1) / SLICES_PER_MACRO;
    size_t apart = align_up(header_bytes(slices), os_page_size());
    struct la_segment *s = slices ? os_map(apart) : NULL;

    if (!s)
        return NULL;
    *s = (struct la_segment){ .base = (uintptr_t)base, .size = size, .first = first, .usable = slices << SLICE_SHIFT,
        .slice_shift = SLICE_SHIFT, .slice_count = (uint32_t)slices, .macro_count = (uint32_t)macros, .apart = apart };
    s->macros = (struct la_macro *)((char *)s + align_up(sizeof(*s), 64));
    s->pages = (struct la_page *)((char *)s->macros + align_up(macros * sizeof(struct la_macro), 64));
    init_macros(s);
    return s;
}

void segment_end(struct la_segment *s)
{
    if (s->apart)
        os_unmap(s, s->apart);
}

size_t segment_overhead(size_t payload, bool apart)
{
    size_t slices = payload / SLICE_SIZE + 2 * SLICES_PER_MACRO, macros = slices / SLICES_PER_MACRO + 1;

    if (apart)
        return MACRO_SIZE;      /* for the alignment of the first slice */
    return align_up(sizeof(struct la_segment) + slices * sizeof(struct la_page) + macros * sizeof(struct la_macro) + 4096,
                    SLICE_SIZE) + MACRO_SIZE;
}
