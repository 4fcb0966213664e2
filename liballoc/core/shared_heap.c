/*
 * shared_heap.c - format, attach, detach; lanes for threads; fork.
 *
 * Attaching: map the file at the address in its header, take the certificate byte of a process slot (which also says that its last
 * owner is dead: what it left is recovered first), and enter the heap in the table. Everything else is done on demand.
 *
 * The certificate (R12) is an open-file-description lock on one byte of the file, held through a description that only this process
 * has and through which it maps: the kernel drops it when the last descriptor and mapping are gone.
 *
 * Fork: the mapping is MADV_DONTFORK and the child closes the descriptor, so that a child neither acts as its parent nor keeps
 * the parent's certificate alive. The heap is not attached in the child.
 *
 * Locking: table_lock for the table of heaps; heap->lock for its lanes. heaps[] is read without a lock by free().
 */
#include "core/shared_heap.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <liballoc/default.h>
#include <liballoc/vspace.h>

#include <liballoc/error.h>

#include "base/error.h"
#include "base/fmt.h"
#include "core/chain.h"
#include "core/meta.h"
#include "core/misuse.h"
#include "core/region_map.h"
#include "core/shared_block.h"
#include "core/shared_fast.h"
#include "core/shared_pool.h"
#include "core/source.h"
#include "core/thread.h"
#include "core/trail.h"
#include "os/certificate.h"
#include "os/headroom.h"
#include "os/huge_pages.h"
#include "os/os.h"

static struct la_lock table_lock = LOCK_INIT(RANK_HEAP);
static _Atomic(struct la_heap *) heaps[MAX_HEAPS];
static uint32_t next_serial;

__thread struct thread_lane la_tls_lanes[MAX_HEAPS];
/* No lane at first, nor NULL: that is what pages have that are nobody's. Aligned like one. */
__thread struct thread_lane la_tls_lane = { .lane = (struct lane *)_Alignof(struct lane) };

/* ---- geometry and format ---- */

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

/* ---- attach ---- */

static int read_header(int fd, struct heap_header *h)
{
    struct heap_header expected = { 0 };
    struct stat st;

    if (fstat(fd, &st) < 0)
        return la_fail(-errno, "cannot look at the heap's file (errno %d)", errno);
    if (pread(fd, h, sizeof(*h), 0) != sizeof(*h) || h->magic != HEAP_MAGIC)
        return la_fail(-EINVAL, "the file is no shared heap: its first bytes are not a heap's");
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

static void set_pointers(struct la_heap *heap, const struct heap_header *h)
{
    heap->base = (char *)(uintptr_t)h->address;
    heap->size = h->size;
    heap->header = (struct heap_header *)heap->base;
    heap->processes = (struct heap_process *)(heap->base + h->processes_at);
    heap->lane_table = (struct heap_lane *)(heap->base + h->lanes_at);
    heap->roots = (struct heap_root *)(heap->base + h->roots_at);
    heap->notices = (struct heap_notice *)(heap->base + h->notices_at);
    heap->trail = (struct heap_trail *)(heap->base + h->trail_at);
    heap->macros = (struct heap_macro *)(heap->base + h->macros_at);
    heap->slices = (struct heap_slice *)(heap->base + h->slices_at);
    heap->marks = (_Atomic(uint8_t) *)(heap->base + h->marks_at);
    heap->payload = heap->base + h->payload_at;
    heap->marks_of_addresses = (_Atomic(uint8_t) *)((uintptr_t)heap->marks - ((uintptr_t)heap->payload >> SLICE_SHIFT));
    heap->macro_count = h->macro_count;
}

/* Descriptors for every macro block and slice: address space, touched as macro blocks become ours. */
static bool make_view(struct la_heap *heap)
{
    size_t macros = heap->macro_count * sizeof(struct la_macro), slices = (size_t)heap->macro_count * SLICES_PER_MACRO;

    macros = align_up(macros, 4096);
    heap->view_size = macros + slices * sizeof(struct la_page);
    heap->view = os_map(heap->view_size);
    if (!heap->view)
        return false;
    heap->segment = (struct la_segment){ .base = (uintptr_t)heap->base, .size = heap->size, .first = (uintptr_t)heap->payload,
        .usable = heap->macro_count * MACRO_SIZE, .slice_shift = SLICE_SHIFT, .slice_count = (uint32_t)slices,
        .macro_count = heap->macro_count, .macros = heap->view, .pages = (struct la_page *)((char *)heap->view + macros) };
    return true;
}

static void make_faces(struct la_heap *heap)
{
    for (int policy = LA_KEEP; policy <= LA_HELD; policy++) {
        struct la_chain *face = &heap->face[policy];

        chain_init(face, CHAIN_HEAP, &la_default_source, NULL);
        face->policy = (uint8_t)policy;
        face->owner_data = heap;
        la_format(face->name, sizeof(face->name), "%s", heap->header->name);
    }
    heap->page.kind = PAGE_SHARED;
}

static void read_name(struct heap_process *process)
{
    CLEANUP(close_fd) int fd = open("/proc/self/comm", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, process->command, sizeof(process->command) - 1);

    process->command[n > 0 ? n - (process->command[n - 1] == '\n') : 0] = '\0';
}

static void name_process(struct heap_process *process)
{
    pid_t pid = getpid();

    /* The process has the name of its main thread, which need not read a file for it. */
    if (pid != gettid() || prctl(PR_GET_NAME, process->command) < 0)
        read_name(process);
    atomic_store(&process->pid, (int32_t)pid);
}

/* Take a slot by its certificate byte. Whoever gets the byte knows that nobody else lives in the slot. */
static int take_process_slot(struct la_heap *heap)
{
    for (unsigned i = 0; i < LA_HEAP_MAX_PROCESSES; i++) {
        struct heap_process *process = &heap->processes[i];
        uint64_t state;

        if (certificate_hold(heap->fd, i) < 0)
            continue;
        state = atomic_load(&process->state);
        if ((state & UINT32_MAX) != PROCESS_FREE) {
            struct la_obituary obituary;

            if (heap->flags & LA_HEAP_NO_RECOVER) {
                certificate_release(heap->fd, i);
                continue;
            }
            heap_recover_process(heap, i, &obituary);
            state = atomic_load(&process->state);
        }
        heap->process = i;
        name_process(process);
        atomic_store(&process->heir, 0);
        atomic_store(&process->trail_lost, 0);
        atomic_store(&process->state, ((state >> 32) + 1) << 32 | PROCESS_ATTACHED);
        return 0;
    }
    return la_fail(-EUSERS, "heap %s: all %d process slots are in use", heap->header->name, LA_HEAP_MAX_PROCESSES);
}

static int take_place(struct la_heap *heap)
{
    if (!(heap->flags & LA_HEAP_READ_ONLY))
        return take_process_slot(heap);
    heap->process = READERS_SLOT;
    return certificate_share(heap->fd, READERS_SLOT);
}

static int find_place(const struct stat *st, unsigned *ret)
{
    *ret = MAX_HEAPS;
    for (unsigned i = 0; i < MAX_HEAPS; i++) {
        struct la_heap *heap = atomic_load(&heaps[i]);

        if (!heap)
            *ret = MIN(*ret, i);
        else if (heap->device == st->st_dev && heap->inode == st->st_ino)
            return la_fail(-EALREADY, "heap %s is attached in this process already: use that one", heap->header->name);
    }
    if (*ret == MAX_HEAPS)
        return la_fail(-EMFILE, "%d heaps are attached: detach one first", MAX_HEAPS);
    return 0;
}

static void free_heap(struct la_heap *heap)
{
    if (heap->view)
        os_unmap(heap->view, heap->view_size);
    if (heap->base)
        la_munmap((uintptr_t)heap->base, heap->size);
    close_fd(&heap->fd);
    la_meta_free(heap, sizeof(*heap));
}

static int map_heap(struct la_heap *heap, const struct heap_header *h)
{
    bool reader = heap->flags & LA_HEAP_READ_ONLY;
    int r = la_mmap(h->address, h->size, reader ? PROT_READ : PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, heap->fd, 0);

    if (r < 0)
        return r;
    set_pointers(heap, h);
    madvise(heap->base, heap->size, MADV_DONTFORK);
    madvise(heap->base, heap->size, heap->flags & LA_HEAP_DUMP ? MADV_DODUMP : MADV_DONTDUMP);
    /* A reader has no lanes. */
    if (!reader && !make_view(heap))
        return la_fail(-ENOMEM, "no address space for the view of heap %s", h->name);
    make_faces(heap);
    return 0;
}

static int attach_locked(int fd, unsigned flags, struct la_heap **ret)
{
    struct heap_header h;
    struct stat st;
    struct la_heap *heap;
    unsigned place;
    int r;

    if (fstat(fd, &st) < 0 || (r = find_place(&st, &place)) < 0 || (r = read_header(fd, &h)) < 0) {
        close(fd);
        return la_last_error_code();
    }
    heap = la_meta_alloc(sizeof(*heap));
    if (!heap) {
        close(fd);
        return la_fail(-ENOMEM, "no memory to attach heap %s", h.name);
    }
    *heap = (struct la_heap){ .fd = fd, .flags = flags, .index = place, .serial = ++next_serial, .page_size = os_file_page(fd),
                              .device = st.st_dev, .inode = st.st_ino, .lock = LOCK_INIT(RANK_THREADS),
                              .recovering = LOCK_INIT(RANK_HEAP) };
    r = map_heap(heap, &h);
    if (r == 0)
        r = take_place(heap);
    if (r < 0) {
        free_heap(heap);
        return r;
    }
    atomic_store(&heaps[place], heap);
    *ret = heap;
    return 0;
}

static const struct thread_hooks heap_hooks;

int la_heap_attach_fd(int fd, unsigned flags, struct la_heap **ret)
{
    int r;

    if (flags & ~(unsigned)(LA_HEAP_NO_RECOVER | LA_HEAP_FORK_REPORT | LA_HEAP_READ_ONLY | LA_HEAP_DUMP)) {
        close(fd);
        return la_fail(-EINVAL, "heap flags %#x are unknown", flags);
    }
    thread_set_hooks(&heap_hooks);
    lock_take(&table_lock);
    r = attach_locked(fd, flags, ret);
    lock_give(&table_lock);
    return r;
}

int la_heap_descriptor(uint64_t id)
{
    int fd = -ENOENT;

    lock_take(&table_lock);
    for (unsigned i = 0; i < MAX_HEAPS && fd == -ENOENT; i++) {
        struct la_heap *heap = atomic_load(&heaps[i]);

        if (heap && heap->header->id == id) {
            fd = fcntl(heap->fd, F_DUPFD_CLOEXEC, 3);
            fd = fd < 0 ? -errno : fd;
        }
    }
    lock_give(&table_lock);
    return fd >= 0 ? fd : la_fail(fd, "heap %#lx is not attached here, or its descriptor cannot be copied (errno %d)", (unsigned long)id, -fd);
}

/* ---- looking up ---- */

struct la_heap *heap_around(const void *address)
{
    struct la_page *page = region_page(address);

    if (page && page->kind == PAGE_SHARED)
        return container_of(page, struct la_heap, page);
    if (page && page->kind == PAGE_LANE)
        return container_of(page->macro->segment, struct la_heap, segment);
    for (unsigned i = 0; i < MAX_HEAPS; i++) {
        struct la_heap *heap = atomic_load_explicit(&heaps[i], memory_order_acquire);

        if (heap && (uintptr_t)address - (uintptr_t)heap->base < heap->size) {
            /* From now on two loads find it. Not with a reader: free() must not take the short way to a store. */
            if (!(heap->flags & LA_HEAP_READ_ONLY))
                region_set(align_down((uintptr_t)address, SLICE_SIZE), 1, &heap->page);
            return heap;
        }
    }
    return NULL;
}

bool heap_link_is_valid(const struct la_heap *heap, const void *link)
{
    const char *p = link;

    if ((uintptr_t)p % sizeof(void *))
        return false;
    return heap_contains(heap, p) ||
           (p >= (const char *)heap->roots && p < (const char *)(heap->roots + LA_HEAP_MAX_ROOTS));
}

void heap_quarantine(struct la_heap *heap, const char *what)
{
    if (!(heap->flags & LA_HEAP_READ_ONLY))
        atomic_store(&heap->header->quarantined, 1);
    la_fail(-EUCLEAN, "heap %s is quarantined: %s", heap->header->name, what);
}

int la_heap_quarantine(struct la_heap *heap, bool on)
{
    if (heap_is_read_only(heap))
        return -EROFS;
    atomic_store(&heap->header->quarantined, on);
    return 0;
}

bool heap_is_huge(const struct la_heap *heap)
{
    return heap->page_size > os_page_size();
}

bool heap_is_read_only(const struct la_heap *heap)
{
    if (!(heap->flags & LA_HEAP_READ_ONLY))
        return false;
    la_fail(-EROFS, "heap %s is attached for reading only: nothing can be changed in it here", heap->header->name);
    return true;
}

struct la_chain *la_heap_chain(struct la_heap *heap, enum la_policy policy)
{
    return &heap->face[policy == LA_HELD];
}

static NOINLINE void *alloc_slow(struct la_heap *heap, size_t size, enum la_policy policy)
{
    return la_chain_alloc(&heap->face[policy], size);
}

FAST_PATH void *la_heap_alloc(struct la_heap *heap, size_t size)
{
    void *block = lane_alloc_fast(heap, size, LA_KEEP);

    return likely(block != NULL) ? block : alloc_slow(heap, size, LA_KEEP);
}

FAST_PATH void *la_heap_hold(struct la_heap *heap, size_t size)
{
    void *block = lane_alloc_fast(heap, size, LA_HELD);

    return likely(block != NULL) ? block : alloc_slow(heap, size, LA_HELD);
}

/* ---- lanes ---- */

/* Before it is lent. Release: whoever sees it lent finds it. */
static void count_lane(struct la_heap *heap, uint32_t number)
{
    uint32_t lanes = atomic_load_explicit(&heap->header->lanes, memory_order_relaxed);

    while (lanes <= number &&
           !atomic_compare_exchange_weak_explicit(&heap->header->lanes, &lanes, number + 1, memory_order_release, memory_order_relaxed))
        ;
}

static struct lane *new_lane(struct la_heap *heap)
{
    size_t size = sizeof(struct lane) + pool_bins_bytes(true);
    struct lane *lane = la_meta_alloc(size);

    if (!lane)
        return NULL;
    for (unsigned i = 1; i < HEAP_LANES; i++) {
        struct heap_lane *entry = &heap->lane_table[i];
        uint64_t free = atomic_load_explicit(&entry->owner, memory_order_relaxed);

        if ((free & UINT32_MAX) != 0)
            continue;
        lane->incarnation = (uint32_t)(free >> 32) + 1;
        count_lane(heap, i);
        if (!atomic_compare_exchange_strong(&entry->owner, &free, (uint64_t)lane->incarnation << 32 | (heap->process + 1)))
            continue;
        /* What the last one had to say is in the notices, see recover.c. In this order: la_heap_outcome() reads them the other way round. */
        atomic_store_explicit(&entry->operation, 0, memory_order_release);
        atomic_store_explicit(&entry->happened, 0, memory_order_release);
        lane->heap = heap;
        lane->number = i;
        chain_init(&lane->chain, CHAIN_LANE, &la_default_source, NULL);
        lane->chain.ops = &lane_pool_ops;
        lane->chain.owner_data = lane;
        lane->chain.words = lane->words;
        pool_bins_open(&lane->chain, lane->bins);
        trail_open(lane);
        return lane;
    }
    la_meta_free(lane, size);
    la_fail(-EUSERS, "heap %s: all %d lanes are in use; a thread gives its lane back when it ends", heap->header->name, LA_HEAP_MAX_LANES);
    return NULL;
}

static struct lane *idle_lane(struct la_heap *heap)
{
    struct lane *lane = heap->lanes;

    while (lane && !lane->idle)
        lane = lane->next;
    return lane;
}

static NOINLINE struct lane *lend_lane(struct la_heap *heap)
{
    struct lane *lane;

    if (heap_is_read_only(heap))
        return NULL;
    lock_take(&heap->lock);
    lane = idle_lane(heap);
    if (!lane) {
        lane = new_lane(heap);
        if (lane) {
            lane->next = heap->lanes;
            heap->lanes = lane;
        }
    }
    if (lane)
        lane->idle = false;
    lock_give(&heap->lock);
    if (!lane)
        return NULL;
    /* Of the thread that had it before; and what that one's restarts have left is yet to be found. */
    atomic_store_explicit(&heap->lane_table[lane->number].operation, 0, memory_order_release);
    lane->restarts_seen = la_tls_restarts - 1;
    la_tls_lanes[heap->index].lane = lane;
    la_tls_lanes[heap->index].serial = heap->serial;
    atomic_store_explicit(&lane->chain.user, thread_self(), memory_order_relaxed);
    thread_watch_end();
    return lane;
}

struct lane *heap_lane(struct la_heap *heap)
{
    struct lane *lane = heap_lane_if_any(heap);

    return likely(lane != NULL) ? lane : lend_lane(heap);
}

/* The thread's lanes go back to their heaps, with their pages, for the next thread of the process. */
static void thread_ends(void)
{
    for (unsigned i = 0; i < MAX_HEAPS; i++) {
        struct la_heap *heap = atomic_load(&heaps[i]);
        struct lane *lane = heap ? heap_lane_if_any(heap) : NULL;

        if (!lane)
            continue;
        if (lane->bundle)
            la_bundle_abort(lane->bundle);
        atomic_store_explicit(&lane->chain.user, NULL, memory_order_relaxed);
        lock_take(&heap->lock);
        lane->idle = true;
        lock_give(&heap->lock);
        la_tls_lanes[i].lane = NULL;
    }
    la_tls_lane.serial = 0;
}

/* The thread has jumped out of a call that was at work on one of its lanes: words say what there is. */
static void slow_path_is_gone(void)
{
    for (unsigned i = 0; i < MAX_HEAPS; i++) {
        struct la_heap *heap = atomic_load(&heaps[i]);
        struct lane *lane = heap ? heap_lane_if_any(heap) : NULL;

        if (!lane || atomic_load_explicit(&lane->chain.user, memory_order_relaxed))
            continue;
        lane_rebuild(lane);
        atomic_store_explicit(&lane->chain.user, thread_self(), memory_order_relaxed);
    }
}

/* ---- detach ---- */

static void forget(struct la_heap *heap)
{
    /* A reader has no view, and is in no region map. */
    uint32_t macros = heap->view ? heap->macro_count : 0;

    atomic_store(&heaps[heap->index], NULL);
    for (uint32_t i = 0; i < macros; i++)
        for (unsigned s = 0; s < SLICES_PER_MACRO; s++) {
            uintptr_t address = (uintptr_t)heap->payload + i * MACRO_SIZE + s * SLICE_SIZE;
            const struct la_page *page = region_entry((void *)address);
            if (page == &heap->page || (page >= heap->segment.pages && page < heap->segment.pages + heap->segment.slice_count))
                region_clear(address, 1);
        }
    for (struct lane *lane = heap->lanes, *next; lane; lane = next) {
        next = lane->next;
        pool_bins_release(&lane->chain);
        la_meta_free(lane, sizeof(*lane) + pool_bins_bytes(true));
    }
}

int la_heap_detach(struct la_heap *heap)
{
    struct la_obituary obituary;

    if (!heap)
        return 0;
    for (int i = 0; i < 2; i++)
        if (atomic_load(&heap->face[i].default_users) > 0)
            return la_fail(-EBUSY, "heap %s is the default chain of a thread: put the previous one back first", heap->header->name);
    lock_take(&table_lock);
    /* The same as at our death; the certificate is still ours, so nobody else does it. */
    if (!(heap->flags & LA_HEAP_READ_ONLY))
        heap_recover_process(heap, heap->process, &obituary);
    forget(heap);
    free_heap(heap);
    lock_give(&table_lock);
    return 0;
}

/* ---- fork ---- */

static void fork_prepare(void)
{
    const struct la_chain *chain = la_tls_default;
    const struct la_heap *heap = chain->kind == CHAIN_HEAP ? chain->owner_data : NULL;

    if (heap && (heap->flags & LA_HEAP_FORK_REPORT))
        misuse_report(heap->base, "is shared heap %s, the default chain of a thread that forks: the child falls back to private memory; "
                      "use posix_spawn(), or put the previous chain back first", heap->header->name);
    lock_take(&table_lock);
}

static void fork_parent(void)
{
    lock_give(&table_lock);
}

/* The mappings are not in the child (MADV_DONTFORK): close our copies of the certificates and put the reservation back. */
static void fork_child(void)
{
    lock_reset(&table_lock);
    if (la_tls_default->kind == CHAIN_HEAP)
        la_tls_default = la_tls_own ? la_tls_own : &la_chain_none;
    memset(la_tls_lanes, 0, sizeof(la_tls_lanes));
    la_tls_lane.serial = 0;
    for (unsigned i = 0; i < MAX_HEAPS; i++) {
        struct la_heap *heap = atomic_load(&heaps[i]);

        if (!heap)
            continue;
        lock_reset(&heap->lock);
        forget(heap);
        free_heap(heap);
    }
}

static const struct thread_hooks heap_hooks = {
    .thread_ends = thread_ends, .slow_path_is_gone = slow_path_is_gone, .fork_prepare = fork_prepare, .fork_parent = fork_parent, .fork_child = fork_child,
};

/* ---- information ---- */

/* A slot's owner is alive: it is us, or its byte is locked by another description. */
bool heap_process_is_alive(struct la_heap *heap, unsigned slot)
{
    return slot == heap->process || certificate_is_held(heap->fd, slot) > 0;
}

static uint32_t count_lanes(struct la_heap *heap, int64_t process)
{
    uint32_t n = 0;

    for (unsigned i = 1; i < heap_lanes(heap); i++) {
        uint32_t owner = (uint32_t)atomic_load_explicit(&heap->lane_table[i].owner, memory_order_relaxed);
        n += owner != 0 && (process < 0 || owner == process + 1);
    }
    return n;
}

void heap_copy_command(char to[16], const char from[16])
{
    unsigned i = 0;

    for (; i < 15 && from[i]; i++)
        to[i] = from[i] < ' ' || from[i] > '~' ? '?' : from[i];
    memset(to + i, 0, 16 - i);
}

static struct la_heap_process describe_process(struct la_heap *heap, unsigned slot)
{
    const struct heap_process *process = &heap->processes[slot];
    struct la_heap_process ret = { .slot = slot, .pid = atomic_load(&process->pid), .lanes = count_lanes(heap, slot),
                                   .alive = heap_process_is_alive(heap, slot), .self = slot == heap->process };

    heap_copy_command(ret.command, process->command);
    return ret;
}

int la_heap_holder(struct la_heap *heap, const void *address, struct la_heap_process *ret)
{
    struct block_ref block;
    uint32_t slot;
    word_t word;

    if (!heap_contains(heap, address))
        return la_fail(-EINVAL, "%p is not in heap %s", address, heap->header->name);
    if (!block_find(heap, address, &block))
        return la_fail(-ENOENT, "%p is in no block", address);
    word = atomic_load(block.word);
    if (word_state(word, block.epoch) != WORD_HELD && word_state(word, block.epoch) != WORD_IN_DOUBT)
        return la_fail(-ENOENT, "nobody holds the block around %p", address);
    /* The lane may be on its way to another process, and the word is anybody's work. */
    slot = (uint32_t)atomic_load(&heap->lane_table[word_lane(word)].owner) - 1;
    if (slot >= LA_HEAP_MAX_PROCESSES)
        return la_fail(-ENOENT, "the block around %p is held by lane %u, which no process has", address, word_lane(word));
    *ret = describe_process(heap, slot);
    return 0;
}

int la_heap_processes(struct la_heap *heap, struct la_heap_process *ret, size_t max)
{
    size_t n = 0;

    for (unsigned i = 0; i < LA_HEAP_MAX_PROCESSES; i++) {
        struct heap_process *process = &heap->processes[i];

        if ((uint32_t)atomic_load(&process->state) == PROCESS_FREE)
            continue;
        if (n < max)
            ret[n] = describe_process(heap, i);
        n++;
    }
    return (int)n;
}

/* A huge page may hold parts of the tables, or many macro blocks: how many there are, the kernel says. */
static uint64_t committed_bytes(const struct la_heap *heap)
{
    struct stat st;

    if (heap_is_huge(heap) && fstat(heap->fd, &st) == 0)
        return (uint64_t)st.st_blocks * 512;
    return atomic_load(&heap->header->committed) + heap->header->trail_at;
}

int la_heap_info(struct la_heap *heap, struct la_heap_info *ret)
{
    struct heap_header *h = heap->header;
    struct la_heap_info info = { .id = h->id, .address = (uintptr_t)heap->base, .size = heap->size };
    uint32_t rows = heap_rows(heap);
    size_t size = ret ? ret->struct_size : 0;

    if (size < offsetof(struct la_heap_info, id) || size > 4 * sizeof(info))
        return la_fail(-EINVAL, "set struct_size to sizeof(struct la_heap_info) before the call");
    memcpy(info.name, h->name, sizeof(info.name));
    info.committed = committed_bytes(heap);
    info.page_size = heap->page_size;
    info.macro_blocks = heap->macro_count;
    for (uint32_t i = 0; i < rows; i++)
        info.macro_blocks_used += owner_state(atomic_load_explicit(&heap->macros[i].owner, memory_order_relaxed)) != OWNER_NONE;
    info.processes = (uint32_t)la_heap_processes(heap, NULL, 0);
    info.lanes = count_lanes(heap, -1);
    info.recovered_processes = atomic_load(&h->recovered_processes);
    info.recovered_blocks = atomic_load(&h->recovered_blocks);
    info.recovered_bytes = atomic_load(&h->recovered_bytes);
    info.readers = certificate_is_held(heap->fd, READERS_SLOT) > 0;
    info.quarantined = atomic_load(&h->quarantined) != 0;
    memset(ret, 0, size);
    memcpy(ret, &info, MIN(size, sizeof(info)));
    ret->struct_size = size;
    return 0;
}

/* ---- roots ---- */

static uint64_t root_hash(const char *name)
{
    uint64_t hash = 0xcbf29ce484222325;     /* FNV-1a */

    for (; *name; name++)
        hash = (hash ^ (unsigned char)*name) * 0x100000001b3;
    return hash & ~3ull;
}

static int find_root(struct la_heap *heap, const char *name, la_link **ret)
{
    const char *found;

    for (unsigned i = 0; la_heap_root_at(heap, i, &found, ret) == 0; i++)
        if (strncmp(found, name, LA_HEAP_NAME_MAX + 1) == 0)
            return 0;
    return la_fail(-ENOENT, "heap %s has no root \"%s\", and is attached for reading only", heap->header->name, name);
}

/*
 * Everybody walks the table in the same order and claims the first free entry with the hash of the name, so two who name the same
 * root at once meet in one entry; either finishes what the other may have died in.
 */
int la_heap_root(struct la_heap *heap, const char *name, la_link **ret)
{
    uint64_t hash;
    int r = heap_check_name(name);

    if (r < 0)
        return r;
    if (heap->flags & LA_HEAP_READ_ONLY)
        return find_root(heap, name, ret);
    hash = root_hash(name);
    for (unsigned i = 0; i < LA_HEAP_MAX_ROOTS; i++) {
        struct heap_root *root = &heap->roots[i];
        uint64_t state = ROOT_FREE;

        atomic_compare_exchange_strong(&root->state, &state, hash | ROOT_NAMING);
        if (state == ROOT_FREE || state == (hash | ROOT_NAMING)) {
            strncpy(root->name, name, sizeof(root->name) - 1);
            atomic_store_explicit(&root->state, hash | ROOT_NAMED, memory_order_release);
        } else if (state != (hash | ROOT_NAMED) || strncmp(root->name, name, sizeof(root->name)) != 0) {
            continue;
        }
        *ret = (la_link *)&root->value;
        return 0;
    }
    return la_fail(-ENOSPC, "heap %s: all %d roots are named", heap->header->name, LA_HEAP_MAX_ROOTS);
}

int la_heap_root_at(struct la_heap *heap, unsigned index, const char **name, la_link **ret)
{
    for (unsigned i = 0; i < LA_HEAP_MAX_ROOTS; i++) {
        struct heap_root *root = &heap->roots[i];

        if ((atomic_load_explicit(&root->state, memory_order_acquire) & 3) == ROOT_NAMED && index-- == 0) {
            *name = root->name;
            *ret = (la_link *)&root->value;
            return 0;
        }
    }
    return -ENOENT;
}
