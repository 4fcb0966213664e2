#include "core/shared_format.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "os/headroom.h"
#include "os/huge_pages.h"
#include "os/os.h"

bool heap_geometry(uint64_t size, struct heap_header *h)
{
    uint64_t at = align_up(sizeof(*h), 4096);
    uint64_t macros = size / MACRO_SIZE;

    if (size < LA_HEAP_MIN_SIZE || size > (uint64_t)1 << 46)
        return false;
    h->size = size;
    h->processes_at = at;
    at += LA_HEAP_MAX_PROCESSES * sizeof(struct heap_process);
    h->lanes_at = at;
    at += HEAP_LANES * sizeof(struct heap_lane);
    h->roots_at = at;
    at += LA_HEAP_MAX_ROOTS * sizeof(struct heap_root);
    h->notices_at = at;
    at = align_up(at + HEAP_NOTICES * sizeof(struct heap_notice), 4096);
    h->trail_at = at;
    at += HEAP_LANES * sizeof(struct heap_trail);
    h->macros_at = at;
    at = align_up(at + macros * sizeof(struct heap_macro), 4096);
    h->slices_at = at;
    at += macros * SLICES_PER_MACRO * sizeof(struct heap_slice);
    h->marks_at = at;
    at += macros * SLICES_PER_MACRO;
    h->payload_at = align_up(at, MACRO_SIZE);
    h->macro_count = (uint32_t)((size - h->payload_at) / MACRO_SIZE);
    return h->payload_at + 2 * MACRO_SIZE <= size;
}

static bool name_is_valid(const char *name)
{
    size_t length = name ? strlen(name) : 0;

    if (length == 0 || length > LA_HEAP_NAME_MAX || name[0] == '.' || name[0] == '-')
        return false;
    return strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == length;
}

int heap_check_name(const char *name)
{
    if (!name_is_valid(name))
        return la_fail(-EINVAL, "name \"%.*s\": use 1 to %d of A-Z a-z 0-9 . _ -, the first no . or -", 80, name ? name : "(null)",
                       LA_HEAP_NAME_MAX);
    return 0;
}

/* Through a mapping: a file of huge pages cannot be written to. */
static int write_header(int fd, const struct heap_header *h, size_t page)
{
    size_t size = align_up(sizeof(*h), page);
    struct heap_header *to = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);

    if (to == MAP_FAILED)
        return la_fail(-errno, "cannot map the heap's header (errno %d)", errno);
    memcpy((void *)to, h, sizeof(*h));
    __atomic_store_n(&to->magic, HEAP_MAGIC, __ATOMIC_RELEASE);
    munmap(to, size);
    return 0;
}

/* Whatever is touched without a claim is committed here: a full /dev/shm or an empty pool is an error now, not SIGBUS later. */
static int commit_header(int fd, uint64_t size, size_t page)
{
    /* As if from a pool: so little is not worth a look at the headroom. */
    int r = os_commit_file(fd, 0, size, true);
    char text[POOL_TEXT_SIZE];

    if (r == -ENOSPC && page > os_page_size())
        return la_fail(r, "cannot commit %lu bytes for the heap's header: %s", size, os_pool_explain(page, size, text));
    return r < 0 ? la_fail(r, "cannot commit %lu bytes for the heap's header (errno %d): is /dev/shm full?", size, -r) : 0;
}

int la_heap_format(int fd, size_t size, uintptr_t address, const char *name)
{
    struct heap_header h = { .layout_version = HEAP_LAYOUT_VERSION, .word_bits = 64, .layout_hash = HEAP_LAYOUT_HASH,
                             .address = address, .id = os_random() };
    size_t page = os_file_page(fd), unit = MAX(page, MACRO_SIZE);
    int r = heap_check_name(name);

    if (r < 0)
        return r;
    size = align_up(size, unit);
    if (!heap_geometry(size, &h))
        return la_fail(-EINVAL, "a heap of %zu bytes: at least %zu are needed", size, LA_HEAP_MIN_SIZE);
    if (address == 0 || address % unit)
        return la_fail(-EINVAL, "heap address %#lx is no multiple of %zu MiB: get it from la_vspace_claim_aligned()", address, unit / MiB);
    strcpy(h.name, name);
    if (ftruncate(fd, (off_t)size) < 0)
        return la_fail(-errno, "cannot make the heap's file %zu bytes long (errno %d)", size, errno);
    r = commit_header(fd, h.trail_at, page);
    return r < 0 ? r : write_header(fd, &h, page);
}

/* What is no heap at all. */
static int read_magic(int fd, const struct stat *st, struct heap_header *h)
{
    ssize_t n;

    if (!S_ISREG(st->st_mode))
        return la_fail(-EINVAL, "descriptor %d is of a %s: a shared heap is a file", fd, S_ISDIR(st->st_mode) ? "folder" : "device, pipe or socket");
    if (st->st_size == 0)
        return la_fail(-EINVAL, "the file is empty: la_heap_format() makes a shared heap of it");
    n = pread(fd, h, sizeof(*h), 0);
    if (n < 0)
        return la_fail(-errno, "cannot read the heap's file (errno %d)", errno);
    if (n != sizeof(*h))
        return la_fail(-EINVAL, "the file is no shared heap: %ld bytes are too few", (long)st->st_size);
    return h->magic == HEAP_MAGIC ? 0 : la_fail(-EINVAL, "the file is no shared heap: its first bytes are not a heap's");
}

int heap_read_header(int fd, struct heap_header *h)
{
    struct heap_header expected = { 0 };
    struct stat st;
    int r = fstat(fd, &st) < 0 ? la_fail(-errno, "cannot look at the heap's file (errno %d)", errno) : read_magic(fd, &st, h);

    if (r < 0)
        return r;
    if (h->layout_version != HEAP_LAYOUT_VERSION || h->layout_hash != HEAP_LAYOUT_HASH || h->word_bits != 64)
        return la_fail(-EPROTO, "heap %.*s has layout version %u (hash %#lx), this library needs %u (%#lx): use the same version of "
                                "liballoc in all processes", LA_HEAP_NAME_MAX, h->name, h->layout_version, h->layout_hash,
                       (unsigned)HEAP_LAYOUT_VERSION, HEAP_LAYOUT_HASH);
    if ((uint64_t)st.st_size != h->size)
        return la_fail(-EINVAL, "heap %.*s is truncated: %ld of %lu bytes", LA_HEAP_NAME_MAX, h->name, (long)st.st_size, h->size);
    if (!heap_geometry(h->size, &expected) || h->payload_at != expected.payload_at || h->lanes_at != expected.lanes_at ||
        h->processes_at != expected.processes_at || h->roots_at != expected.roots_at || h->notices_at != expected.notices_at ||
        h->trail_at != expected.trail_at || h->macros_at != expected.macros_at || h->slices_at != expected.slices_at ||
        h->marks_at != expected.marks_at || h->macro_count != expected.macro_count || memchr(h->name, 0, sizeof(h->name)) == NULL)
        return la_fail(-EINVAL, "the heap's header contradicts itself: the file is damaged");
    return 0;
}
