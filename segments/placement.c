#include "segments/placement.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <liballoc/error.h>
#include <liballoc/vspace.h>

#include "base/error.h"
#include "base/fmt.h"
#include "os/os.h"
#include "segments/numa.h"

#ifndef MAP_HUGE_SHIFT
#define MAP_HUGE_SHIFT 26
#endif

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

/* The first bytes of a small file of the system; "" when it is not there. */
static void read_text(const char *path, char *text, size_t size)
{
    CLEANUP(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, size - 1);

    text[MAX(n, 0)] = '\0';
}

static size_t read_number(const char *path)
{
    char text[32];
    size_t number = 0;

    read_text(path, text, sizeof(text));
    for (const char *c = text; *c >= '0' && *c <= '9'; c++)
        number = number * 10 + (size_t)(*c - '0');
    return number;
}

size_t seg_huge_page(const struct seg_request *request)
{
    return request->page_size ? request->page_size : SEG_HUGE_PAGE;
}

unsigned seg_huge_flags(size_t page)
{
    return (unsigned)__builtin_ctzl(page) << MAP_HUGE_SHIFT;
}

static size_t pool_number(size_t page, const char *name)
{
    char path[96];

    la_format(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%zukB/%s", page / KiB, name);
    return read_number(path);
}

static bool pool_exists(size_t page)
{
    char path[96];

    la_format(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%zukB", page / KiB);
    return access(path, F_OK) == 0;
}

size_t seg_huge_free(size_t page)
{
    /* Some of the free ones are promised to mappings that have not touched them yet. */
    size_t free = pool_number(page, "free_hugepages"), reserved = pool_number(page, "resv_hugepages");

    return (free - MIN(free, reserved)) * page;
}

int seg_huge_available(struct seg_segment *s, const struct seg_request *request, size_t size)
{
    size_t page = seg_huge_page(request), needed = size / page + (size % page != 0), free;
    int r;

    if (!is_power_of_2(page) || !pool_exists(page)) {
        r = seg_miss(s, request, SEG_HUGE, "pages of %zu KiB: this machine has no such pool", page / KiB);
        return MIN(r, 0);
    }
    free = seg_huge_free(page) / page;
    if (free >= needed)
        return 1;
    r = seg_miss(s, request, SEG_HUGE, "%zu %s pages: %zu of %zu free, %zu needed (%s)", page >= GiB ? page / GiB : page / MiB,
                 page >= GiB ? "GiB" : "MiB", free, pool_number(page, "nr_hugepages"), needed,
                 page == SEG_HUGE_PAGE ? "sysctl vm.nr_hugepages" : "/sys/kernel/mm/hugepages");
    return MIN(r, 0);
}

/* "always [madvise] never": the word in brackets says what is in force. */
static bool thp_is_enabled(bool shared, char *text, size_t size)
{
    read_text(shared ? "/sys/kernel/mm/transparent_hugepage/shmem_enabled" : "/sys/kernel/mm/transparent_hugepage/enabled", text, size);
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
