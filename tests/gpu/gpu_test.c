/*
 * gpu_test.c - all that segments do with a GPU, on the one that is there; exit status 77 and the reason when there is none.
 *
 *     gpu_test [--quick] >results.md         docs/gpu.md says what the figures mean
 *
 * Against the fake runtime (tests/fake/cudart.c) it runs too, and says so: then its checks hold for the library, and its figures for nothing.
 */
#include <errno.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <liballoc/liballoc.h>
#include <segments/cuda.h>
#include <segments/find.h>
#include <segments/verbs.h>

#include "add.ptx.h"
#include "card.h"
#include "device.h"

#define MIB ((size_t)1 << 20)

enum { SKIP = 77, BLOCKS = 64 };

extern char **environ;

static bool quick;
static unsigned failures;

/* ---- what is found ---- */

static void __attribute__((format(printf, 2, 3))) check(bool kept, const char *format, ...)
{
    va_list args;

    failures += !kept;
    fputs(kept ? "- ok: " : "- FAILED: ", stdout);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf(kept ? "\n" : " (%s)\n", la_last_error());
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* ---- what is looked at ---- */

struct stack {
    struct seg_registrar *registrar;
    struct seg_supply *supply;
    struct la_chain *chain;
};

/* Chain, supply, registrar over @list or @choice; false: cannot be had here, said why. */
static bool build(struct stack *s, const char *list, const struct seg_choice *choice)
{
    struct seg_supply_config config = { .struct_size = sizeof(config), .list = list, .choices = choice, .choice_count = choice != NULL };

    *s = (struct stack){ 0 };
    if (seg_registrar_cuda(SEG_CUDA_PORTABLE | SEG_CUDA_MAPPED, &s->registrar) == 0) {
        config.registrars[0] = s->registrar;
        if (seg_supply_create(&config, &s->supply) == 0 && la_chain_create(seg_supply_source(s->supply), LA_CHAIN_MT, &s->chain) == 0)
            return true;
    }
    printf("- left out: %s: %s\n", list ? list : "parts", la_last_error());
    return false;
}

static bool end(const struct stack *s)
{
    return la_chain_destroy(s->chain) == 0 && seg_supply_destroy(s->supply) == 0 && seg_registrar_destroy(s->registrar) == 0;
}

static void tear_down(const struct stack *s)
{
    check(end(s), "chain, supply and registrar end");
}

static void flags_reach_the_driver(void)
{
    static const struct {
        const char *list;
        unsigned flags;
    } kinds[] = { { "cuda-host", 0 }, { "cuda-host:portable", 1 }, { "cuda-host:mapped", 2 }, { "cuda-host:wc", 4 }, { "cuda-host:portable+mapped+wc", 7 } };

    puts("\n## cudaHostAlloc flags\n");
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        struct seg_supply_config config = { .struct_size = sizeof(config), .list = kinds[i].list };
        struct seg_supply *supply = NULL;
        struct la_range range = { 0 };
        unsigned flags = 0;

        if (seg_supply_create(&config, &supply) < 0 || seg_supply_acquire(supply, MIB, MIB, &range) < 0) {
            check(false, "%s", kinds[i].list);
            continue;
        }
        gpu.cudaHostGetFlags(&flags, range.base);
        /* A driver may add what it always does (portable, mapped). */
        check((flags & kinds[i].flags) == kinds[i].flags, "%s: flags asked for %#x, cudaHostGetFlags says %#x", kinds[i].list, kinds[i].flags, flags);
        check(seg_cuda_memory(range.base) == SEG_CUDA_HOST && seg_cuda_memory((char *)range.base + range.size / 2) == SEG_CUDA_HOST &&
                  seg_cuda_memory((char *)range.base + range.size - 1) == SEG_CUDA_HOST,
              "its first, middle and last byte are pinned memory of the host");
        check(seg_supply_release(supply, range) == 0 && seg_supply_destroy(supply) == 0, "it goes back");
    }
    check(seg_cuda_memory(&failures) == SEG_CUDA_PAGEABLE, "memory of nobody's is unknown to the driver");
}

static const char *const lists[] = { "anon", "thp", "memfd", "hugetlb:2M", "cuda-host:mapped", "cuda-host:mapped+wc", "cuda-device" };

/* ---- a kernel reads and writes blocks ---- */

static size_t words_of(unsigned i)
{
    return (size_t)4 << i % 14;         /* 16 bytes to 128 KiB */
}

static bool fill(const struct stack *s, void *block, uint32_t *copy, size_t words, uint32_t seed)
{
    struct seg_location location = { .struct_size = sizeof(location) };

    for (size_t i = 0; i < words; i++)
        copy[i] = seed + (uint32_t)i;
    if (seg_find(block, &location) < 0 || location.supply != s->supply)
        return false;
    if (!(location.capabilities & SEG_DEVICE_ONLY))
        memcpy(block, copy, words * 4);
    else if (gpu.cudaMemcpy(block, copy, words * 4, TO_DEVICE) != 0)
        return false;
    return true;
}

static bool has(void *block, uint32_t *copy, size_t words, uint32_t seed)
{
    struct seg_location location = { .struct_size = sizeof(location) };

    seg_find(block, &location);
    if (!(location.capabilities & SEG_DEVICE_ONLY))
        memcpy(copy, block, words * 4);
    else if (gpu.cudaMemcpy(copy, block, words * 4, FROM_DEVICE) != 0)
        return false;
    for (size_t i = 0; i < words; i++)
        if (copy[i] != seed + (uint32_t)i)
            return false;
    return true;
}

static void kernel_reads_and_writes_blocks(const char *list)
{
    uint32_t *copy = malloc(words_of(13) * 4);
    void *blocks[BLOCKS];
    struct seg_key_here key;
    unsigned good = 0, kept = 0;
    struct stack s;

    printf("\n## %s\n\n", list);
    if (!build(&s, list, NULL)) {
        free(copy);
        return;
    }
    /* An empty pool of huge pages is a machine's choice. */
    if (strncmp(list, "hugetlb", 7) == 0 && !la_chain_alloc(s.chain, 16)) {
        printf("- left out: %s\n", la_last_error());
        end(&s);
        free(copy);
        return;
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        blocks[i] = la_chain_alloc(s.chain, words_of(i) * 4);
        kept += blocks[i] && fill(&s, blocks[i], copy, words_of(i), i * 1000);
    }
    check(kept == BLOCKS, "%u blocks of 16 bytes to 128 KiB", kept);
    for (unsigned i = 0; i < BLOCKS && kept == BLOCKS; i++)
        good += seg_key_of(blocks[i], s.registrar, &key) == 0 && device_add(key.device, (uint32_t)words_of(i), 7) == 0;
    check(good == kept, "a kernel adds 7 to each word of %u blocks, at key.device", good);
    good = 0;
    for (unsigned i = 0; i < BLOCKS && kept == BLOCKS; i++)
        good += has(blocks[i], copy, words_of(i), i * 1000 + 7);
    check(good == kept, "%u blocks have what the kernel wrote, and no other byte", good);
    if (kept == BLOCKS) {
        check(strcmp(list, "cuda-device") == 0 ? seg_cuda_memory(blocks[0]) == SEG_CUDA_DEVICE : seg_cuda_memory(blocks[0]) == SEG_CUDA_HOST,
              "the driver calls it memory of kind %d", seg_cuda_memory(blocks[0]));
        printf("- address %p, device address %#llx\n", blocks[BLOCKS - 1], (unsigned long long)key.device);
    }
    for (unsigned i = 0; i < BLOCKS; i++)
        la_free(blocks[i]);
    tear_down(&s);
    free(copy);
}

static void second_registration_is_refused(void)
{
    struct la_range range;
    struct stack s;

    puts("\n## registration\n");
    if (!build(&s, "anon", NULL))
        return;
    check(seg_supply_acquire(s.supply, 4 * MIB, 4 * MIB, &range) == 0, "4 MiB registered");
    check(gpu.cudaHostRegister(range.base, range.size, 0) == 712, "a second registration is error 712");
    gpu.cudaGetLastError();
    check(seg_supply_release(s.supply, range) == 0, "they go back: deregistered, then unmapped");
    tear_down(&s);
}

/* ---- a dmabuf of the GPU's memory, and a card that registers it ---- */

struct seen {
    int error;
    off_t size;         /* of the dmabuf */
    uint64_t offset;
};

static int look_at_dmabuf(void *user, enum seg_event event, const struct seg_extent *extent, const struct seg_key *keys, size_t key_count)
{
    struct seg_dmabuf dmabuf = { .struct_size = sizeof(dmabuf) };
    struct seen *seen = user;

    (void)keys, (void)key_count;
    if (event == SEG_GONE)
        return 0;
    seen->error = seg_dmabuf_of(extent, &dmabuf);
    if (seen->error == 0) {
        seen->size = lseek(dmabuf.fd, 0, SEEK_END);
        seen->offset = dmabuf.offset;
        close(dmabuf.fd);
    }
    return 0;
}

static void memory_is_exported(void)
{
    struct seen seen = { 0 };
    struct la_range range;
    struct stack s;

    if (!build(&s, "cuda-device", NULL))
        return;
    seg_supply_subscribe(s.supply, look_at_dmabuf, &seen);
    check(seg_supply_acquire(s.supply, 4 * MIB, 4 * MIB, &range) == 0 && seen.error == 0, "4 MiB are exported");
    check(seen.error == 0 && seen.offset + range.size <= (uint64_t)seen.size, "the dmabuf has %lld bytes, the memory begins at %llu", (long long)seen.size,
          (unsigned long long)seen.offset);
    check(seg_supply_release(s.supply, range) == 0, "the memory goes back; the descriptor was closed before");
    tear_down(&s);
}

/* No transfer: that takes a connection. Return: it was registered. */
static bool register_with(const struct card *card)
{
    struct seg_supply_config config = { .struct_size = sizeof(config), .list = "cuda-device" };
    struct seg_supply *supply = NULL;
    struct seg_key_here key = { 0 };
    struct la_range range;
    bool registered;

    if (seg_registrar_verbs(card->domain, SEG_VERBS_LOCAL_WRITE | SEG_VERBS_REMOTE_READ | SEG_VERBS_REMOTE_WRITE, 0, &config.registrars[0]) < 0)
        return false;
    registered = seg_supply_create(&config, &supply) == 0 && seg_supply_acquire(supply, 4 * MIB, 4 * MIB, &range) == 0;
    if (!registered)
        printf("- left out: %s: %s\n", card->name, la_last_error());
    if (registered) {
        bool found = seg_key_of((char *)range.base + MIB, config.registrars[0], &key) == 0 && key.bytes == range.size - MIB;

        check(found, "%s registers it: lkey %#llx, rkey %#llx", card->name, (unsigned long long)key.local, (unsigned long long)key.remote);
        check(seg_supply_release(supply, range) == 0, "deregistered, then freed");
    }
    check(seg_supply_destroy(supply) == 0 && seg_registrar_destroy(config.registrars[0]) == 0, "supply and registrar end");
    return registered;
}

static void memory_is_registered_with_cards(void)
{
    int takers = seg_verbs_dmabuf(), registered = 0;
    struct card card;

    if (takers < 0)
        printf("- no card by a dmabuf: %s\n", la_last_error());
    if (seg_verbs_peer_memory() < 0)
        printf("- no card by the address: %s\n", la_last_error());
    for (int i = 0; card_open(i, &card) == 0; i++) {
        registered += register_with(&card);
        card_close(&card);
    }
    check(registered >= takers, "%d cards register memory of the GPU, %d take a dmabuf", registered, takers > 0 ? takers : 0);
}

static void another_device_reaches_the_memory(void)
{
    puts("\n## dmabuf\n");
    if (seg_cuda_dmabuf(0) == 0)
        memory_is_exported();
    else
        printf("- left out: %s\n", la_last_error());
    memory_is_registered_with_cards();
}

/* ---- deferred free ---- */

static void block_in_flight_is_not_handed_out(void)
{
    enum { ROUNDS = 200 };
    struct la_limbo *limbo;
    unsigned early = 0, queued = 0;
    struct stack s;
    double until;

    puts("\n## deferred free\n");
    if (!build(&s, "cuda-device", NULL) || la_limbo_create(&limbo) < 0)
        return;
    for (int i = 0; i < ROUNDS; i++) {
        void *block = la_chain_alloc(s.chain, MIB), *event = NULL;
        struct la_token token;

        if (!block || gpu.cudaEventCreateWithFlags(&event, 2) != 0)
            break;
        for (int n = 0; n < 20; n++)
            device_start_add((uintptr_t)block, MIB / 4, 1);
        gpu.cudaEventRecord(event, NULL);
        if (seg_cuda_token(event, &token) < 0 || la_free_after(limbo, block, token) < 0)
            break;
        queued++;
        early += la_limbo_pending(limbo) == 0;
    }
    check(queued == ROUNDS, "%u blocks of 1 MiB freed while kernels were writing to them, up to %zu in flight at the end", queued, la_limbo_pending(limbo));
    for (until = now() + 60e9; la_limbo_pending(limbo) > 0 && now() < until;)
        if (la_limbo_poll(limbo, 0) < 0)
            break;
    check(la_limbo_pending(limbo) == 0 && gpu.cudaDeviceSynchronize() == 0, "all came back");
    check(la_limbo_destroy(limbo) == 0, "the limbo is empty");
    printf("- %u were complete at once\n", early);
    tear_down(&s);
}

/* ---- two processes, one segment, a registration in each ---- */

static bool open_shared(int fd, size_t size, struct seg_segment **segment)
{
    struct seg_request request = { .struct_size = sizeof(request), .kind = SEG_MEMFD, .wanted_size = size, .fd = fd,
                                   .flags = fd >= 0 ? SEG_IMPORT : 0 };

    return seg_open(&request, segment) == 0;
}

/* Registers all of the segment and adds @number to its first megabyte, by the device. */
static bool add_to_shared(struct seg_segment *segment, struct stack *s, struct la_range *range, uint32_t number)
{
    struct seg_choice choice = { .ops = seg_source_parts(), .user = segment };
    struct seg_key_here key;

    return build(s, NULL, &choice) && seg_supply_acquire(s->supply, 4 * MIB, 4 * MIB, range) == 0 &&
           seg_key_of(range->base, s->registrar, &key) == 0 && device_add(key.device, MIB / 4, number) == 0;
}

/*
 * The other process: gpu_test peer DESCRIPTOR. It registers the memory as a buffer of its own: to release a part of the file would punch it out
 * for both.
 */
static int peer(const char *descriptor)
{
    struct seg_request request = { .struct_size = sizeof(request), .kind = SEG_USER };
    struct seg_info info = { .struct_size = sizeof(info) };
    struct seg_segment *segment, *buffer;
    struct la_range range;
    struct stack s;
    bool added;

    if (!open_shared(atoi(descriptor), 0, &segment) || seg_info(segment, &info) < 0)
        return 2;
    request.buffer = info.base;
    request.wanted_size = info.size;
    if (seg_open(&request, &buffer) < 0)
        return 2;
    added = add_to_shared(buffer, &s, &range, 100);
    if (!added)
        printf("- the other process: %s\n", la_last_error());
    return added && seg_supply_release(s.supply, range) == 0 && end(&s) && seg_close(buffer) == 0 && seg_close(segment) == 0 ? EXIT_SUCCESS : 3;
}

static int run_peer(int fd)
{
    char number[16];
    char *arguments[] = { "gpu_test", "peer", number, NULL };
    int copy = dup(fd), status = -1;
    pid_t pid;

    snprintf(number, sizeof(number), "%d", copy);
    if (posix_spawn(&pid, "/proc/self/exe", NULL, NULL, arguments, environ) == 0)
        waitpid(pid, &status, 0);
    close(copy);
    return status;
}

static void two_processes_register_one_segment(void)
{
    struct seg_info info = { .struct_size = sizeof(info) };
    struct seg_segment *segment;
    struct la_range range;
    uint32_t *words;
    struct stack s;
    size_t wrong = 0;

    puts("\n## one shared segment, two processes\n");
    if (!open_shared(-1, 4 * MIB, &segment) || seg_info(segment, &info) < 0) {
        check(false, "a memfd segment of 4 MiB");
        return;
    }
    check(add_to_shared(segment, &s, &range, 1), "registered here; a kernel has added 1");
    check(run_peer(info.fd) == 0, "registered there at the same time; its kernel has added 100; unregistered there");
    words = range.base;
    for (size_t i = 0; i < MIB / 4; i++)
        wrong += words[i] != 101;
    check(wrong == 0, "both are seen here (%zu words are wrong)", wrong);
    check(seg_cuda_memory(range.base) == SEG_CUDA_HOST, "it is still registered here");
    check(seg_supply_release(s.supply, range) == 0, "it goes back");
    tear_down(&s);
    seg_close(segment);
}

/* ---- fork ---- */

static void child_of_fork_is_left_alone(void)
{
    struct seg_location location = { .struct_size = sizeof(location) };
    struct stack s;
    int status = -1;
    char *block;
    pid_t pid;

    puts("\n## fork\n");
    if (!build(&s, "anon", NULL))
        return;
    block = la_chain_alloc(s.chain, 1000);
    memset(block, 3, 1000);
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        void *own = la_malloc(100);

        la_free(own);
        _exit(own && !la_chain_alloc(s.chain, 100) && la_last_error_code() == -ECHILD && seg_find(block, &location) == -ENOENT ? 0 : 1);
    }
    waitpid(pid, &status, 0);
    check(status == 0, "the child has its malloc, and no registered memory");
    check(block[999] == 3, "the parent has all");
    la_free(block);
    tear_down(&s);
}

/* ---- figures ---- */

static double gigabytes_per_second(void *to, const void *from, size_t size, int kind)
{
    int times = quick ? 2 : 20;
    double start;

    gpu.cudaMemcpy(to, from, size, kind);
    start = now();
    for (int i = 0; i < times; i++)
        gpu.cudaMemcpy(to, from, size, kind);
    return (double)size * times / (now() - start);
}

static void bandwidth(void)
{
    size_t size = (quick ? 1 : 256) * MIB;
    char *pageable = malloc(size);
    void *device = NULL;

    puts("\n## bandwidth, GB/s\n");
    printf("| %zu MiB in | to the device | from the device |\n|---|---|---|\n", size / MIB);
    if (!pageable || gpu.cudaMalloc(&device, size) != 0)
        return;
    memset(pageable, 1, size);
    printf("| malloc (pageable) | %.1f | %.1f |\n", gigabytes_per_second(device, pageable, size, TO_DEVICE),
           gigabytes_per_second(pageable, device, size, FROM_DEVICE));
    for (size_t i = 0; i + 1 < sizeof(lists) / sizeof(lists[0]); i++) {
        struct stack s;
        char *block;

        if (!build(&s, lists[i], NULL))
            continue;
        block = la_chain_alloc(s.chain, size);
        if (block) {
            memset(block, 1, size);
            printf("| %s | %.1f | %.1f |\n", lists[i], gigabytes_per_second(device, block, size, TO_DEVICE),
                   gigabytes_per_second(block, device, size, FROM_DEVICE));
        }
        la_free(block);
        failures += !end(&s);
    }
    gpu.cudaFree(device);
    free(pageable);
}

static void registration_cost(void)
{
    static const char *const kinds[] = { "anon", "thp", "memfd", "hugetlb:2M" };
    size_t size = (quick ? 4 : 1024) * MIB;

    puts("\n## cost of an extent, ms (map, touch, register; and back)\n");
    printf("| %zu MiB of | acquire | release |\n|---|---|---|\n", size / MIB);
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        struct la_range range;
        double start, got;
        struct stack s;

        if (!build(&s, kinds[i], NULL))
            continue;
        start = now();
        if (seg_supply_acquire(s.supply, size, size, &range) == 0) {
            got = now();
            seg_supply_release(s.supply, range);
            printf("| %s | %.1f | %.1f |\n", kinds[i], (got - start) / 1e6, (now() - got) / 1e6);
        } else {
            printf("| %s | %s | |\n", kinds[i], la_last_error());
        }
        failures += !end(&s);
    }
}

static double chain_pair(struct la_chain *chain, size_t size, int times)
{
    double start = now();

    for (int i = 0; i < times; i++)
        la_free(la_chain_alloc(chain, size));
    return (now() - start) / times;
}

static double driver_pair(bool of_device, size_t size, int times)
{
    double start = now();

    for (int i = 0; i < times; i++) {
        void *p = NULL;

        if (of_device ? gpu.cudaMalloc(&p, size) == 0 : gpu.cudaHostAlloc(&p, size, 2) == 0)
            of_device ? gpu.cudaFree(p) : gpu.cudaFreeHost(p);
    }
    return (now() - start) / times;
}

static void object_cost(void)
{
    static const size_t sizes[] = { 256, 4096, 65536, 1 << 20 };
    int times = quick ? 20 : 1000;

    puts("\n## one object, ns for allocate and free\n");
    puts("| bytes | chain over cuda-host | cudaHostAlloc | chain over cuda-device | cudaMalloc |\n|---|---|---|---|---|");
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct stack host, device;

        if (!build(&host, "cuda-host:mapped", NULL) || !build(&device, "cuda-device", NULL))
            return;
        chain_pair(host.chain, sizes[i], 10);
        chain_pair(device.chain, sizes[i], 10);
        printf("| %zu | %.0f | %.0f | %.0f | %.0f |\n", sizes[i], chain_pair(host.chain, sizes[i], times * 100), driver_pair(false, sizes[i], times),
               chain_pair(device.chain, sizes[i], times * 100), driver_pair(true, sizes[i], times));
        failures += !end(&host) + !end(&device);
    }
}

/* ---- */

static bool open_device(void)
{
    const char *reason = "";

    if (seg_cuda_available() < 0)
        printf("skipped: %s\n", la_last_error());
    else if (device_open(&reason) < 0)
        printf("skipped: %s\n", reason);
    else
        return true;
    return false;
}

int main(int argc, char **argv)
{
    int runtime = 0, driver = 0;

    if (argc == 2 && strcmp(argv[1], "--kernel") == 0)
        return fputs(add_ptx, stdout) < 0;
    if (!open_device())
        return SKIP;
    if (argc == 3 && strcmp(argv[1], "peer") == 0)
        return peer(argv[2]);
    quick = argc > 1 && strcmp(argv[1], "--quick") == 0;
    gpu.cudaRuntimeGetVersion(&runtime);
    gpu.cudaDriverGetVersion(&driver);
    printf("# gpu_test\n\n%d devices; runtime %d, driver %d%s\n", seg_cuda_available(), runtime, driver,
           runtime ? "" : " (the fake runtime of the tests: no figure below means anything)");
    flags_reach_the_driver();
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
        kernel_reads_and_writes_blocks(lists[i]);
    second_registration_is_refused();
    another_device_reaches_the_memory();
    block_in_flight_is_not_handed_out();
    two_processes_register_one_segment();
    child_of_fork_is_left_alone();
    bandwidth();
    registration_cost();
    object_cost();
    printf("\n%u failed\n", failures);
    return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
