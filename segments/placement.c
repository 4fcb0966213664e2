#include "segments/placement.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <liballoc/error.h>
#include <liballoc/vspace.h>

#include "base/error.h"
#include "base/fmt.h"
#include "os/huge_pages.h"
#include "os/os.h"
#include "os/sysfile.h"
#include "segments/numa.h"

/* ---- address ---- */

enum { PROTECTION = PROT_READ | PROT_WRITE };

/* Return: 0, or a negative errno with the reason in la_last_error(); nothing is left claimed. */
static int map_fixed(struct seg_segment *s, int flags, uintptr_t address, const char *claim_name)
{
    uintptr_t claim = 0;
    int r = 0;

    if (!address) {
        r = la_vspace_claim(s->size, claim_name, &claim);
        address = claim;
    }
    if (r == 0)
        r = la_mmap(address, s->size, PROTECTION, flags, s->fd, 0);
    if (r < 0) {
        if (claim)
            la_vspace_unclaim(claim);
        return r;
    }
    s->base = (char *)address;
    s->claim = claim;
    s->fixed = true;
    s->capabilities |= SEG_FIXED_ADDRESS;
    return 0;
}

/* At a multiple of 2 MiB where the size allows it: macro blocks and huge pages fit without waste. */
static int map_anywhere(struct seg_segment *s, int flags)
{
    size_t alignment = MAX(s->page_size, s->size >= SEG_HUGE_PAGE ? SEG_HUGE_PAGE : os_page_size()), length = s->size + alignment;
    char *room = length < s->size ? MAP_FAILED
                                  : mmap(NULL, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    char *base, *end;

    if (room == MAP_FAILED)
        return la_fail(-ENOMEM, "no %zu bytes of addresses for segment \"%s\" (ulimit -v?)", s->size, s->name);
    base = (char *)align_up((uintptr_t)room, alignment);
    end = base + s->size;
    if (mmap(base, s->size, PROTECTION, flags | MAP_FIXED, s->fd, 0) == MAP_FAILED) {
        int r = -errno;

        munmap(room, length);
        return la_fail(r, "cannot map %zu bytes for segment \"%s\" (errno %d)", s->size, s->name, -r);
    }
    if (base > room)
        munmap(room, (size_t)(base - room));
    if (end < room + length)
        munmap(end, (size_t)(room + length - end));
    s->base = base;
    return 0;
}

static int map_somewhere(struct seg_segment *s, const struct seg_request *request, int flags, uintptr_t address, const char *claim_name)
{
    int r;

    s->fixed = false;
    s->claim = 0;
    if (seg_wants(request, SEG_FIXED_ADDRESS)) {
        if (map_fixed(s, flags, address, claim_name) == 0)
            return 0;
        r = seg_miss(s, request, SEG_FIXED_ADDRESS, "no fixed address: %s", la_last_error());
        if (r < 0)
            return r;
    }
    return map_anywhere(s, flags);
}

int seg_map(struct seg_segment *s, const struct seg_request *request, int flags, uintptr_t address, const char *claim_name)
{
    int r = map_somewhere(s, request, flags, address, claim_name);

    /* Before anybody touches it, or finds it by name. */
    if (r == 0 && seg_wants(request, SEG_PLACED) && (r = seg_place(s, request)) < 0)
        seg_unmap(s);
    return r;
}

void seg_unmap(struct seg_segment *s)
{
    if (s->fixed)
        la_munmap((uintptr_t)s->base, s->size);
    else if (s->base)
        munmap(s->base, s->size);
    if (s->claim)
        la_vspace_unclaim(s->claim);
    s->base = NULL;
    s->fixed = false;
    s->claim = 0;
}

void seg_claim_name_of_process(char *name)
{
    la_format(name, LA_VSPACE_NAME_MAX + 1, "/proc/%d", (int)getpid());
}

/* ---- pages ---- */

size_t seg_huge_page(const struct seg_request *request)
{
    return request->page_size ? request->page_size : SEG_HUGE_PAGE;
}

static size_t pool_number_on(unsigned node, size_t page, const char *name)
{
    char path[96];
    size_t number;

    la_format(path, sizeof(path), "/sys/devices/system/node/node%u/hugepages/hugepages-%zukB/%s", node, page / KiB, name);
    number = os_read_number(path);
    return number == SIZE_MAX ? 0 : number;
}

/* The sum over the nodes that @numa allows. */
static size_t pool_sum(const struct seg_numa *numa, size_t page, const char *name)
{
    size_t sum = 0;

    if (numa->mode != SEG_NUMA_BIND)
        return os_pool_number(page, name);
    for (uint64_t left = numa->nodes; left; left &= left - 1)
        sum += pool_number_on((unsigned)__builtin_ctzll(left), page, name);
    return sum;
}

/* Some of the free ones are promised to mappings that have not touched them yet; on which node is not said. */
static size_t pool_free(const struct seg_numa *numa, size_t page)
{
    return MIN(pool_sum(numa, page, "free_hugepages"), os_pool_free(page));
}

size_t seg_huge_free(const struct seg_request *request)
{
    size_t page = seg_huge_page(request);

    return pool_free(&request->numa, page) * page;
}

int seg_huge_available(struct seg_segment *s, const struct seg_request *request, size_t size)
{
    size_t page = seg_huge_page(request), needed = size / page + (size % page != 0), free;
    char where[48] = "", remedy[64];
    int r;

    if (!is_power_of_2(page) || !os_pool_exists(page)) {
        r = seg_miss(s, request, SEG_HUGE, "pages of %zu KiB: this machine has no pool of them", page / KiB);
        return MIN(r, 0);
    }
    free = pool_free(&request->numa, page);
    if (free >= needed)
        return 1;
    if (request->numa.mode == SEG_NUMA_BIND)
        la_format(where, sizeof(where), " on NUMA nodes %#lx", (unsigned long)request->numa.nodes);
    if (where[0] || page != SEG_HUGE_PAGE)
        la_format(remedy, sizeof(remedy), "%s/hugepages-%zukB", where[0] ? "/sys/devices/system/node" : "/sys/kernel/mm/hugepages", page / KiB);
    else
        la_format(remedy, sizeof(remedy), "sysctl vm.nr_hugepages");
    r = seg_miss(s, request, SEG_HUGE, "%zu %s pages: %zu of %zu free%s, %zu needed (%s)", page >= GiB ? page / GiB : page / MiB,
                 page >= GiB ? "GiB" : "MiB", free, pool_sum(&request->numa, page, "nr_hugepages"), where, needed, remedy);
    return MIN(r, 0);
}

/* "always [madvise] never": the word in brackets says what is in force. */
static bool thp_is_enabled(bool shared, char *text, size_t size)
{
    os_read_text(shared ? "/sys/kernel/mm/transparent_hugepage/shmem_enabled" : "/sys/kernel/mm/transparent_hugepage/enabled", text, size);
    return text[0] && !strstr(text, "[never]") && !strstr(text, "[deny]");
}

int seg_advise_thp(struct seg_segment *s, const struct seg_request *request, bool shared)
{
    char text[64];

    if (!seg_wants(request, SEG_THP) && !(s->missed & SEG_HUGE))
        return 0;
    if (!thp_is_enabled(shared, text, sizeof(text)))
        return seg_miss(s, request, SEG_THP, "transparent huge pages: off (%s)", shared ? "shmem_enabled" : "transparent_hugepage/enabled");
    if (madvise(s->base, s->size, MADV_HUGEPAGE) < 0)
        return seg_miss(s, request, SEG_THP, "transparent huge pages: madvise errno %d", errno);
    s->capabilities |= SEG_THP;
    return 0;
}
