/*
 * registered.c - an object whose key a peer can be told: from a chain over registered memory, and in the ways of programs that have none. Runs in
 * the guest (tests/guest), on a device of software; there ratios mean something, nanoseconds do not.
 *
 *   chain        la_chain_alloc(), seg_key_of()
 *   each         malloc(), ibv_reg_mr() for each object
 *   cache        malloc(), and a cache of registrations as network stacks have it: whole pages, looked up by address, the oldest of 1,024 goes
 *   one region   posix_memalign() and one ibv_reg_mr(), in slots of the largest size: what the program has to write itself, and pays in memory
 */
#include "bench.h"

#include <infiniband/verbs.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <liballoc/liballoc.h>
#include <segments/find.h>
#include <segments/verbs.h>

enum { LIVE = 1000, LARGEST = 64 << 10, SMALLEST = 64, PAGE = 4096, REGIONS = 1024, ROUNDS = 5,
       ACCESS = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE };

static struct ibv_pd *domain;
static volatile uint32_t told;          /* the key, for a peer */

static void need(bool condition, const char *what)
{
    if (!condition) {
        fprintf(stderr, "bench-registered: %s: %s\n", what, la_last_error());
        exit(EXIT_FAILURE);
    }
}

static struct ibv_mr *register_range(void *at, size_t size)
{
    struct ibv_mr *mr = ibv_reg_mr(domain, at, size, ACCESS);

    need(mr != NULL, "ibv_reg_mr");
    return mr;
}

/* An object, and what its way has to remember of it. */
struct object {
    void *at;
    struct ibv_mr *mr;
};

/* ---- chain ---- */

static struct seg_registrar *registrar;
static struct la_chain *chain;
static struct seg_supply *supply;

static void open_chain(void)
{
    struct seg_supply_config config = { .struct_size = sizeof(config), .list = "anon" };

    need(seg_registrar_verbs(domain, ACCESS, 0, &registrar) == 0, "registrar");
    config.registrars[0] = registrar;
    need(seg_supply_create(&config, &supply) == 0 && la_chain_create(seg_supply_source(supply), 0, &chain) == 0, "chain");
}

static void close_chain(void)
{
    need(la_chain_destroy(chain) == 0 && seg_supply_destroy(supply) == 0 && seg_registrar_destroy(registrar) == 0, "end of the chain");
}

static void get_from_chain(struct object *o, size_t size)
{
    struct seg_key_here key;

    o->at = la_chain_alloc(chain, size);
    need(o->at && seg_key_of(o->at, registrar, &key) == 0, "chain");
    told = (uint32_t)key.remote;
}

static void give_to_chain(struct object *o)
{
    la_free(o->at);
}

/* ---- each ---- */

static void get_each(struct object *o, size_t size)
{
    o->at = malloc(size);
    o->mr = register_range(o->at, size);
    told = o->mr->rkey;
}

static void give_each(struct object *o)
{
    ibv_dereg_mr(o->mr);
    free(o->at);
}

/* ---- cache ---- */

struct region {
    uintptr_t begin, end;
    uint64_t used;              /* tick of the last hit */
    struct ibv_mr *mr;
};

static struct region regions[REGIONS];      /* by begin */
static unsigned region_count;
static uint64_t tick;
static pthread_mutex_t cache_lock = PTHREAD_MUTEX_INITIALIZER;

/* The first region that begins behind @at. */
static unsigned behind(uintptr_t at)
{
    unsigned low = 0, high = region_count;

    while (low < high) {
        unsigned middle = (low + high) / 2;

        if (regions[middle].begin <= at)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void drop_region(unsigned i)
{
    ibv_dereg_mr(regions[i].mr);
    memmove(&regions[i], &regions[i + 1], (--region_count - i) * sizeof(regions[0]));
}

static void drop_oldest(void)
{
    unsigned oldest = 0;

    for (unsigned i = 1; i < region_count; i++)
        if (regions[i].used < regions[oldest].used)
            oldest = i;
    drop_region(oldest);
}

/* As large as what it overlaps, so that no byte is in two regions. */
static struct region *enter_region(uintptr_t begin, uintptr_t end)
{
    unsigned i;

    while ((i = behind(end - 1)) > 0 && regions[i - 1].end > begin) {
        begin = regions[i - 1].begin < begin ? regions[i - 1].begin : begin;
        end = regions[i - 1].end > end ? regions[i - 1].end : end;
        drop_region(i - 1);
    }
    if (region_count == REGIONS)
        drop_oldest();
    i = behind(begin);
    memmove(&regions[i + 1], &regions[i], (region_count++ - i) * sizeof(regions[0]));
    regions[i] = (struct region){ begin, end, 0, register_range((void *)begin, end - begin) };
    return &regions[i];
}

static uint32_t look_up(uintptr_t at, size_t size)
{
    struct region *region;
    unsigned i;
    uint32_t key;

    pthread_mutex_lock(&cache_lock);
    i = behind(at);
    region = i > 0 && regions[i - 1].end >= at + size ? &regions[i - 1]
                                                      : enter_region(at / PAGE * PAGE, (at + size + PAGE - 1) / PAGE * PAGE);
    region->used = ++tick;
    key = region->mr->rkey;
    pthread_mutex_unlock(&cache_lock);
    return key;
}

static void get_cached(struct object *o, size_t size)
{
    o->at = malloc(size);
    told = look_up((uintptr_t)o->at, size);
}

/* The heap may unmap what it is given: a real cache has to hear of that, by hooks that are not measured here. */
static void give_cached(struct object *o)
{
    free(o->at);
}

static void close_cache(void)
{
    while (region_count > 0)
        drop_region(region_count - 1);
}

/* ---- one region ---- */

static struct ibv_mr *pool;
static void *slots[LIVE + 1];
static unsigned free_slots;

static void open_pool(void)
{
    char *memory;

    need(posix_memalign((void **)&memory, PAGE, (size_t)(LIVE + 1) * LARGEST) == 0, "posix_memalign");
    pool = register_range(memory, (size_t)(LIVE + 1) * LARGEST);
    for (free_slots = 0; free_slots <= LIVE; free_slots++)
        slots[free_slots] = memory + (size_t)free_slots * LARGEST;
}

static void close_pool(void)
{
    void *memory = pool->addr;

    ibv_dereg_mr(pool);
    free(memory);
}

static void get_slot(struct object *o, size_t size)
{
    (void)size;
    o->at = slots[--free_slots];
    told = pool->rkey;
}

static void give_slot(struct object *o)
{
    slots[free_slots++] = o->at;
}

/* ---- all of them ---- */

static void nothing(void)
{
}

static const struct way {
    const char *name;
    void (*open)(void);
    void (*get)(struct object *, size_t size);
    void (*give)(struct object *);
    void (*close)(void);
} ways[] = {
    { "chain", open_chain, get_from_chain, give_to_chain, close_chain },
    { "each", nothing, get_each, give_each, nothing },
    { "cache", nothing, get_cached, give_cached, close_cache },
    { "one region", open_pool, get_slot, give_slot, close_pool },
};
enum { WAYS = sizeof(ways) / sizeof(ways[0]) };

static const struct way *way;
static size_t pair_size;
static uint32_t sizes[BENCH_SIZES];
static struct object live[LIVE];

static void work_on_pairs(struct bench_worker *worker, unsigned long operations)
{
    struct object object;

    (void)worker;
    while (operations-- > 0) {
        way->get(&object, pair_size);
        bench_touch(object.at);
        way->give(&object);
    }
}

/* The first object may make the memory of all others: how many are measured is not to be judged by it. */
static void warm_up(struct bench_worker *worker)
{
    work_on_pairs(worker, 10);
}

static void fill(struct bench_worker *worker)
{
    (void)worker;
    for (unsigned i = 0; i < LIVE; i++)
        way->get(&live[i], sizes[i]);
}

static void churn(struct bench_worker *worker, unsigned long operations)
{
    while (operations-- > 0) {
        uint64_t random = bench_random(&worker->random);
        struct object *o = &live[random % LIVE];

        way->give(o);
        way->get(o, sizes[random >> 32 & (BENCH_SIZES - 1)]);
        bench_touch(o->at);
    }
}

static size_t pinned_kib(void)
{
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    size_t kib = 0;

    while (file && fgets(line, sizeof(line), file))
        if (sscanf(line, "VmPin: %zu", &kib) == 1)
            break;
    if (file)
        fclose(file);
    return kib;
}

static size_t pinned;           /* KiB, with all that was live */

static void empty(struct bench_worker *worker)
{
    (void)worker;
    pinned = pinned_kib();
    for (unsigned i = 0; i < LIVE; i++)
        way->give(&live[i]);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *values)
{
    qsort(values, ROUNDS, sizeof(values[0]), compare);
    return values[ROUNDS / 2];
}

/* All ways in turn, in each round: what else runs on the host takes time from the guest's processors, and the guest cannot tell. */
static void measure(const char *question, const struct bench_case *c)
{
    double ns[WAYS][ROUNDS], chain_ns;

    for (unsigned round = 0; round < ROUNDS; round++)
        for (unsigned i = 0; i < WAYS; i++) {
            way = &ways[i];
            way->open();
            ns[i][round] = bench_measure(c);
            way->close();
            if (round == 0 && c->end)
                bench_print((double)pinned, "%s, %s, KiB pinned", question, way->name);
        }
    chain_ns = median(ns[0]);
    bench_print(chain_ns, "%s, %s", question, ways[0].name);
    for (unsigned i = 1; i < WAYS; i++) {
        double other = median(ns[i]);

        bench_print(other, "%s, %s", question, ways[i].name);
        bench_print(other / chain_ns, "%s, %s over chain", question, ways[i].name);
    }
}

static struct ibv_pd *open_first_device(void)
{
    struct ibv_device **list = ibv_get_device_list(NULL);
    struct ibv_context *context = list && list[0] ? ibv_open_device(list[0]) : NULL;

    need(context != NULL, "ibv_open_device");
    ibv_free_device_list(list);
    return ibv_alloc_pd(context);
}

int main(void)
{
    static const size_t pair_sizes[] = { 64, 4096, 65536 };
    struct bench_case pairs = { .workers = 1, .begin = warm_up, .work = work_on_pairs };
    struct bench_case churning = { .workers = 1, .begin = fill, .work = churn, .end = empty };

    need(seg_verbs_available() > 0, "no device");
    domain = open_first_device();
    need(domain != NULL, "ibv_alloc_pd");
    for (size_t i = 0; i < sizeof(pair_sizes) / sizeof(pair_sizes[0]); i++) {
        char question[64];

        pair_size = pair_sizes[i];
        snprintf(question, sizeof(question), "registered pair %zu B", pair_size);
        measure(question, &pairs);
    }
    bench_log_uniform_sizes(sizes, SMALLEST, LARGEST);
    measure("registered churn 64 B to 64 KiB", &churning);
    return EXIT_SUCCESS;
}
