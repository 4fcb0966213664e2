#include "core/macroblock.h"

#include <assert.h>

#include "core/region_map.h"

/* The sum of the powers of two that fit behind each other. */
unsigned bits_longest_run(uint32_t bits)
{
    uint32_t runs[5] = { bits }, starts;        /* [i]: bit j: the 2^i bits from j on are set */
    unsigned n = 0;

    if (bits == UINT32_MAX)
        return 32;
    for (unsigned i = 1; i < 5; i++)
        runs[i] = runs[i - 1] & runs[i - 1] >> (1u << (i - 1));
    starts = UINT32_MAX;
    for (unsigned i = 5; i-- > 0;) {
        uint32_t longer = starts & runs[i] >> n;

        if (longer) {
            starts = longer;
            n += 1u << i;
        }
    }
    return n;
}

/* Bit i of the result: bits i .. i + n - 1 are all set. Doubling: the run known so far is combined with itself. */
static uint32_t run_starts(uint32_t bits, unsigned n)
{
    unsigned have = 1;

    while (have < n && bits) {
        unsigned step = MIN(have, n - have);
        bits &= bits >> step;
        have += step;
    }
    return bits;
}

static const uint32_t multiples_of[6] = { 0xffffffff, 0x55555555, 0x11111111, 0x01010101, 0x00010001, 0x00000001 };

int bits_find_run(uint32_t bits, unsigned n, unsigned step)
{
    uint32_t starts = run_starts(bits, n) & multiples_of[__builtin_ctz(step)];

    return starts ? __builtin_ctz(starts) : -1;
}

static void unlist(struct la_chain *chain, struct la_macro *m)
{
    if (m->run == 0)
        return;
    if (m->prev)
        m->prev->next = m->next;
    else
        chain->by_run[m->run] = m->next;
    if (m->next)
        m->next->prev = m->prev;
    if (!chain->by_run[m->run])
        chain->run_mask &= ~(1ull << m->run);
    m->next = m->prev = NULL;
    m->run = 0;
}

/* Put @m on the list of its longest run. */
static void relist(struct la_chain *chain, struct la_macro *m)
{
    unsigned run = bits_longest_run(m->free_slices);

    if (run == m->run)
        return;
    unlist(chain, m);
    if (run == 0)
        return;
    m->run = (uint8_t)run;
    m->prev = NULL;
    m->next = chain->by_run[run];
    if (m->next)
        m->next->prev = m;
    chain->by_run[run] = m;
    chain->run_mask |= 1ull << run;
}

void macro_list_anew(struct la_chain *chain, struct la_macro *m)
{
    m->run = 0;
    m->next = m->prev = NULL;
    relist(chain, m);
}

void macro_join(struct la_chain *chain, struct la_macro *m)
{
    m->chain = chain;
    m->run = 0;
    m->next = m->prev = NULL;
    m->chain_prev = NULL;
    m->chain_next = chain->macros;
    if (chain->macros)
        chain->macros->chain_prev = m;
    chain->macros = m;
    chain->macro_count++;
    relist(chain, m);
}

void macro_leave(struct la_chain *chain, struct la_macro *m)
{
    unlist(chain, m);
    if (m->chain_prev)
        m->chain_prev->chain_next = m->chain_next;
    else
        chain->macros = m->chain_next;
    if (m->chain_next)
        m->chain_next->chain_prev = m->chain_prev;
    m->chain_next = m->chain_prev = NULL;
    chain->macro_count--;
}

static struct la_page *take_from(struct la_chain *chain, struct la_macro *m, unsigned at, unsigned n)
{
    struct la_page *page = macro_page(m, at);

    m->free_slices &= ~bits_run(at, n);
    m->dirty = 1;
    relist(chain, m);
    page->macro = m;
    page->slices = (uint16_t)n;
    return page;
}

struct la_page *slices_take(struct la_chain *chain, unsigned n, unsigned step)
{
    /* Best fit first: the shortest run that is long enough. */
    for (uint64_t mask = chain->run_mask >> n << n; mask; mask &= mask - 1)
        for (struct la_macro *m = chain->by_run[__builtin_ctzll(mask)]; m; m = m->next) {
            int at = bits_find_run(m->free_slices, n, step);
            if (at >= 0)
                return take_from(chain, m, (unsigned)at, n);
        }
    return NULL;
}

void slices_give(struct la_chain *chain, struct la_page *page)
{
    struct la_macro *m = page->macro;
    unsigned at = (unsigned)(page - macro_page(m, 0));

    assert((m->free_slices & bits_run(at, page->slices)) == 0);
    atomic_store_explicit(&page->fast_chain, NULL, memory_order_relaxed);
    page->kind = PAGE_NONE;
    m->free_slices |= bits_run(at, page->slices);
    relist(chain, m);
}

bool slices_resize(struct la_chain *chain, struct la_page *page, unsigned n)
{
    struct la_macro *m = page->macro;
    unsigned at = (unsigned)(page - macro_page(m, 0));
    unsigned old = page->slices;
    uintptr_t address = slice_address(m->segment, page);

    if (at + n > SLICES_PER_MACRO)
        return false;
    if (n > old) {
        uint32_t more = bits_run(at + old, n - old);

        if ((m->free_slices & more) != more)
            return false;
        if (segment_is_direct(m->segment) && !region_set(address + old * SLICE_SIZE, n - old, page))
            return false;
        m->free_slices &= ~more;
    } else if (n < old) {
        if (segment_is_direct(m->segment))
            region_clear(address + n * SLICE_SIZE, old - n);
        m->free_slices |= bits_run(at + n, old - n);
    }
    page->slices = (uint16_t)n;
    relist(chain, m);
    return true;
}
