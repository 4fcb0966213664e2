/*
 * shared_heap.c - attach, detach; what threads and fork do to heaps.
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
 * Locking: table_lock for the table of heaps. heaps[] is read without a lock by free().
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
#include "core/lane.h"
#include "core/meta.h"
#include "core/misuse.h"
#include "core/region_map.h"
#include "core/shared_fast.h"
#include "core/shared_format.h"
#include "core/source.h"
#include "core/thread.h"
#include "os/certificate.h"
#include "os/huge_pages.h"
#include "os/os.h"

static struct la_lock table_lock = LOCK_INIT(RANK_HEAP);
static _Atomic(struct la_heap *) heaps[MAX_HEAPS];
static uint32_t next_serial;

/* ---- attach ---- */

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
    unsigned place = MAX_HEAPS;
    int r;

    if (fstat(fd, &st) < 0)
        r = la_fail(-errno, "cannot look at descriptor %d (errno %d): is it open?", fd, errno);
    else if ((r = find_place(&st, &place)) == 0)
        r = heap_read_header(fd, &h);
    if (r < 0) {
        close_fd(&fd);
        return r;
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

int heap_check_flags(unsigned flags)
{
    if (flags & ~(unsigned)(LA_HEAP_NO_RECOVER | LA_HEAP_FORK_REPORT | LA_HEAP_READ_ONLY | LA_HEAP_DUMP))
        return la_fail(-EINVAL, "heap flags %#x are unknown", flags);
    return 0;
}

int la_heap_attach_fd(int fd, unsigned flags, struct la_heap **ret)
{
    int r = heap_check_flags(flags);

    if (r < 0) {
        close(fd);
        return r;
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

int heap_check_attached(const struct la_heap *heap)
{
    for (unsigned i = 0; i < MAX_HEAPS; i++)
        if (atomic_load_explicit(&heaps[i], memory_order_relaxed) == heap)
            return 0;
    return la_fail(-ECHILD, "heap %p is not attached in this process: a child of fork() attaches by itself, and uses what that gives it", (const void *)heap);
}

/* A slot's owner is alive: it is us, or its byte is locked by another description. */
bool heap_process_is_alive(struct la_heap *heap, unsigned slot)
{
    return slot == heap->process || certificate_is_held(heap->fd, slot) > 0;
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
    lanes_release(heap);
}

int la_heap_detach(struct la_heap *heap)
{
    struct la_obituary obituary;

    if (!heap)
        return 0;
    if (heap_check_attached(heap) < 0)
        return -ECHILD;
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
        misuse_report(heap->base, "fork() while shared heap %s is the default chain of the thread: the child falls back to private memory; use "
                      "posix_spawn(), or put the previous chain back first", heap->header->name);
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
    lanes_forget_all();
    for (unsigned i = 0; i < MAX_HEAPS; i++) {
        struct la_heap *heap = atomic_load(&heaps[i]);

        if (!heap)
            continue;
        lock_reset(&heap->lock);
        forget(heap);
        free_heap(heap);
    }
}

/* ---- threads ---- */

/* Its lanes go back to their heaps, with their pages, for the next thread of the process. */
static void thread_ends(void)
{
    for (unsigned i = 0; i < MAX_HEAPS; i++) {
        struct la_heap *heap = atomic_load(&heaps[i]);

        if (heap)
            lane_give_back(heap);
    }
    la_tls_lane.serial = 0;
}

/* The thread has jumped out of a call that was at work on one of its lanes. */
static void slow_path_is_gone(void)
{
    for (unsigned i = 0; i < MAX_HEAPS; i++) {
        struct la_heap *heap = atomic_load(&heaps[i]);

        if (heap)
            lane_begin_anew(heap);
    }
}

static const struct thread_hooks heap_hooks = {
    .thread_ends = thread_ends, .slow_path_is_gone = slow_path_is_gone, .fork_prepare = fork_prepare, .fork_parent = fork_parent, .fork_child = fork_child,
};
