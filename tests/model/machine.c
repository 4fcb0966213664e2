/*
 * machine.c - see machine.h. One thread, one process: coroutines with stacks of their own at fixed addresses, so that a copy of a stack
 * can be put back and goes on.
 */
#include "machine.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/meta.h"
#include "core/pool.h"
#include "hooks.h"
#undef la_meta_alloc
#undef la_meta_free

enum { STACK_SIZE = 64 << 10, CLEARED = 4096, USES = 1 << 16, LINE = 64, MAX_REGIONS = 32, MAX_LINES = 4096 };

struct world world;
struct la_heap *machine_heap;
int machine_current = -1;
bool machine_log;
void (*machine_name)(const volatile void *at, char *text, size_t size);
void (*machine_wrote)(int actor, const volatile void *at, uint32_t from, uint32_t to);
char violation[512];

static bool buffers, recoverers_together;
static bool learnt;

static void *checked_alloc(size_t size)
{
    void *p = malloc(size);

    if (!p)
        abort();
    return p;
}

const char *actor_name(int actor)
{
    static const char *const names[ACTORS] = { "L1", "L2", "L3", "R1", "R2" };

    return actor < 0 ? "test" : names[actor];
}

void violate(const char *format, ...)
{
    va_list args;

    if (violation[0])
        return;
    va_start(args, format);
    vsnprintf(violation, sizeof(violation), format, args);
    va_end(args);
}

/* ---- coroutines ---- */

static _Alignas(4096) char stacks[ACTORS][STACK_SIZE];
static void *main_sp;
static actor_program *starting;

/* Saves what a function must preserve on the stack, and the stack pointer in *save; goes on where @load was saved. */
void machine_switch(void **save, void *load);
void machine_begin(void);

#if defined(__x86_64__)
__asm__(".text\n.globl machine_switch\n.type machine_switch, @function\n"
        "machine_switch:\n"
        "    push %rbp\n    push %rbx\n    push %r12\n    push %r13\n    push %r14\n    push %r15\n"
        "    mov %rsp, (%rdi)\n    mov %rsi, %rsp\n"
        "    pop %r15\n    pop %r14\n    pop %r13\n    pop %r12\n    pop %rbx\n    pop %rbp\n"
        "    ret\n.size machine_switch, . - machine_switch\n");
enum { FRAME_WORDS = 7, RETURN_WORD = 6, FRAME_SLACK = 1 };
#elif defined(__aarch64__)
__asm__(".text\n.globl machine_switch\n.type machine_switch, %function\n"
        "machine_switch:\n"
        "    sub sp, sp, #160\n"
        "    stp x19, x20, [sp]\n    stp x21, x22, [sp, #16]\n    stp x23, x24, [sp, #32]\n    stp x25, x26, [sp, #48]\n"
        "    stp x27, x28, [sp, #64]\n    stp x29, x30, [sp, #80]\n"
        "    stp d8, d9, [sp, #96]\n    stp d10, d11, [sp, #112]\n    stp d12, d13, [sp, #128]\n    stp d14, d15, [sp, #144]\n"
        "    mov x9, sp\n    str x9, [x0]\n    mov sp, x1\n"
        "    ldp x19, x20, [sp]\n    ldp x21, x22, [sp, #16]\n    ldp x23, x24, [sp, #32]\n    ldp x25, x26, [sp, #48]\n"
        "    ldp x27, x28, [sp, #64]\n    ldp x29, x30, [sp, #80]\n"
        "    ldp d8, d9, [sp, #96]\n    ldp d10, d11, [sp, #112]\n    ldp d12, d13, [sp, #128]\n    ldp d14, d15, [sp, #144]\n"
        "    add sp, sp, #160\n    ret\n.size machine_switch, . - machine_switch\n");
enum { FRAME_WORDS = 20, RETURN_WORD = 11, FRAME_SLACK = 0 };
#else
#error "machine_switch() is written for x86-64 and aarch64"
#endif

static void stop(void)
{
    struct actor *a = &world.actor[machine_current];

    machine_switch(&a->sp, main_sp);
}

void machine_pause(void)
{
    if (machine_current >= 0)
        stop();
}

void machine_begin(void)
{
    starting(machine_current);
    world.actor[machine_current].state = ACTOR_DONE;
    for (;;)
        stop();
}

static void prepare_stack(int actor)
{
    uintptr_t *top = (uintptr_t *)(stacks[actor] + STACK_SIZE) - FRAME_SLACK;

    memset(top - FRAME_WORDS - 8, 0, (FRAME_WORDS + 8 + FRAME_SLACK) * sizeof(*top));
    top[RETURN_WORD - FRAME_WORDS] = (uintptr_t)machine_begin;
    world.actor[actor].sp = top - FRAME_WORDS;
}

void machine_step(int actor, actor_program *program)
{
    struct actor *a = &world.actor[actor];
    struct thread_lane *mine = &la_tls_lanes[machine_heap->index];
    unsigned process = machine_heap->process;

    if (a->state == ACTOR_IDLE) {
        prepare_stack(actor);
        a->state = ACTOR_RUNNING;
        starting = program;
    }
    *mine = (struct thread_lane){ .lane = a->lane, .serial = machine_heap->serial };
    la_tls_slow = a->slow;
    if (a->slot)
        machine_heap->process = a->slot;
    machine_current = actor;
    /* What earlier calls left there would get into new frames, and make states that are the same look different. */
    memset((char *)a->sp - CLEARED, 0, CLEARED);
    machine_switch(&main_sp, a->sp);
    machine_current = -1;
    machine_heap->process = process;
    a->slow = la_tls_slow;
    if (actor < LANES)
        a->lane = mine->lane;       /* it may have been lent now */
    if (a->state == ACTOR_DONE)
        a->sp = NULL;
    la_tls_slow = NULL;
    *mine = (struct thread_lane){ 0 };
}

/* ---- which addresses matter ---- */

enum access { LOADS = 1, STORES_TO = 2, CHANGES = LOADS | STORES_TO };

/* Actors that used an address, as bits. */
struct use {
    uintptr_t at;
    uint8_t readers, writers;
    bool counted;
};

static struct use uses[USES];
static unsigned stops;

_Static_assert(USES == 1 << 16, "use_of() takes the upper 16 bits of a product");

static struct use *use_of(const volatile void *at)
{
    size_t i = ((uintptr_t)at * 0x9e3779b97f4a7c15u) >> 48;

    while (uses[i].at && uses[i].at != (uintptr_t)at)
        i = (i + 1) % USES;
    if (!uses[i].at)
        uses[i].at = (uintptr_t)at;
    return &uses[i];
}

static bool in_heap(const volatile void *at)
{
    return (uintptr_t)at - (uintptr_t)machine_heap->base < machine_heap->size;
}

/* Those whose stores may come between two steps of @actor: all others; but recoverers run one after the other, unless they meet. */
static uint8_t rivals(int actor)
{
    uint8_t all = (1u << ACTORS) - 1;

    return (uint8_t)(all & ~(actor >= LANES && !recoverers_together ? (unsigned)all << LANES : 1u << actor));
}

static void learn_use(struct use *use, enum access access)
{
    uint8_t me = (uint8_t)(1u << machine_current);

    if ((access & LOADS && !(use->readers & me)) || (access & STORES_TO && !(use->writers & me)))
        learnt = true;
    use->readers |= access & LOADS ? me : 0;
    use->writers |= access & STORES_TO ? me : 0;
}

/* True: the use of another actor may be earlier or later than this one, and somebody can tell. */
static bool note_use(const volatile void *at, enum access access)
{
    uint8_t others;
    struct use *use;

    if (!in_heap(at))
        return false;
    use = use_of(at);
    learn_use(use, access);
    others = use->writers & rivals(machine_current);
    /* Whether it was stored, is what a recoverer finds when the one before it was killed. */
    if (access & STORES_TO)
        others |= use->readers & (uint8_t)~(1u << machine_current);
    stops += others && !use->counted;
    use->counted |= others != 0;
    return others;
}

unsigned machine_stops(void)
{
    return stops;
}

/* ---- memory ---- */

static uint64_t read_memory(const volatile void *at, unsigned size)
{
    switch (size) {
    case 1: return *(const volatile uint8_t *)at;
    case 2: return *(const volatile uint16_t *)at;
    case 4: return *(const volatile uint32_t *)at;
    default: return *(const volatile uint64_t *)at;
    }
}

static void write_memory(volatile void *at, unsigned size, uint64_t value)
{
    switch (size) {
    case 1: *(volatile uint8_t *)at = (uint8_t)value; break;
    case 2: *(volatile uint16_t *)at = (uint16_t)value; break;
    case 4: *(volatile uint32_t *)at = (uint32_t)value; break;
    default: *(volatile uint64_t *)at = value; break;
    }
}

static void actor_writes(int actor, volatile void *at, unsigned size, uint64_t value)
{
    uint64_t before = read_memory(at, size);

    /* What opens a lane's fast paths (chain.user): all coroutines are one thread, so each would take the other's lane for its own. */
    if (size == sizeof(uintptr_t) && value == (uintptr_t)thread_self())
        value = 0;

    write_memory(at, size, value);
    if (actor >= 0 && size == sizeof(word_t) && before != value && in_heap(at))
        machine_wrote(actor, at, (uint32_t)before, (uint32_t)value);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

static void print_access(const char *place, const char *function, const char *what, const volatile void *at, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

static void print_access(const char *place, const char *function, const char *what, const volatile void *at, const char *format, ...)
{
    char name[64], where[96];
    va_list args;

    machine_name(at, name, sizeof(name));
    snprintf(where, sizeof(where), "%s %s()", base_name(place), function);
    printf("    %s  %-38s %-8s %-14s ", actor_name(machine_current), where, what, name);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
}

/* ---- stores that wait ---- */

static void drop_store(struct actor *a, unsigned i)
{
    memmove(&a->store[i], &a->store[i + 1], (a->stores - i - 1u) * sizeof(a->store[0]));
    a->stores--;
    memset(&a->store[a->stores], 0, sizeof(a->store[0]));
}

static void make_visible(struct actor *a, unsigned i)
{
    actor_writes((int)(a - world.actor), a->store[i].at, a->store[i].size, a->store[i].value);
    drop_store(a, i);
}

/* All, or (@at) those of one address. */
static void drain(struct actor *a, const volatile void *at)
{
    for (unsigned i = 0; i < a->stores;) {
        if (!at || a->store[i].at == at)
            make_visible(a, i);
        else
            i++;
    }
}

bool machine_can_flush(int actor, unsigned store)
{
    const struct actor *a = &world.actor[actor];

    if (store >= a->stores)
        return false;
    if (a->store[store].release)
        return store == 0;
    for (unsigned i = 0; i < store; i++)
        if (a->store[i].at == a->store[store].at)
            return false;
    return true;
}

void machine_flush(int actor, unsigned store)
{
    struct actor *a = &world.actor[actor];

    if (machine_log) {
        char name[64];

        machine_name(a->store[store].at, name, sizeof(name));
        printf("    %s  %-38s %-8s %-14s %#" PRIx64 "\n", actor_name(actor), "(its store becomes visible)", "", name, a->store[store].value);
    }
    make_visible(a, store);
}

/* A signal does not undo what a processor has retired: the stores of the dead become visible. */
void machine_kill(int actor)
{
    drain(&world.actor[actor], NULL);
    world.actor[actor].state = ACTOR_DEAD;
    world.actor[actor].sp = NULL;
}

static bool is_release(memory_order order)
{
    return order == memory_order_release || order == memory_order_acq_rel || order == memory_order_seq_cst;
}

/* ---- the hooks ---- */

static bool before(const volatile void *at, enum access access)
{
    bool matters;

    if (machine_current < 0)
        return false;
    matters = note_use(at, access);
    if (matters)
        stop();
    return matters;
}

uint64_t model_load(const volatile void *at, unsigned size, memory_order order, const char *place, const char *function)
{
    bool matters = before(at, LOADS);
    uint64_t value = read_memory(at, size);

    (void)order;
    if (buffers && machine_current >= 0) {
        const struct actor *a = &world.actor[machine_current];

        for (unsigned i = a->stores; i-- > 0;)
            if (a->store[i].at == at) {
                value = a->store[i].value;
                break;
            }
    }
    if (matters && machine_log)
        print_access(place, function, "load", at, "%#" PRIx64, value);
    return value;
}

static void buffer_store(struct actor *a, volatile void *at, unsigned size, uint64_t value, bool release)
{
    if (a->stores == STORES)
        drain(a, NULL);
    a->store[a->stores++] = (struct pending_store){ at, value, (uint8_t)size, release };
}

void model_store(volatile void *at, unsigned size, uint64_t value, memory_order order, const char *place, const char *function)
{
    bool matters = before(at, STORES_TO);

    if (matters && machine_log)
        print_access(place, function, "store", at, "%#" PRIx64 " -> %#" PRIx64, read_memory(at, size), value);
    if (matters && buffers && order != memory_order_seq_cst) {
        buffer_store(&world.actor[machine_current], at, size, value, order == memory_order_release);
        return;
    }
    if (matters && buffers)
        drain(&world.actor[machine_current], NULL);
    actor_writes(machine_current, at, size, value);
}

static void drain_for(const volatile void *at, memory_order order)
{
    if (buffers)
        drain(&world.actor[machine_current], is_release(order) ? NULL : at);
}

bool model_compare_exchange(volatile void *at, unsigned size, void *expected, uint64_t desired, memory_order order,
                            const char *place, const char *function)
{
    bool matters = before(at, CHANGES);
    uint64_t value, wanted = read_memory(expected, size);

    if (matters)
        drain_for(at, order);
    value = read_memory(at, size);
    if (value == wanted)
        actor_writes(machine_current, at, size, desired);
    else
        write_memory(expected, size, value);
    if (matters && machine_log) {
        if (value == wanted)
            print_access(place, function, "cas", at, "%#" PRIx64 " -> %#" PRIx64, value, desired);
        else
            print_access(place, function, "cas", at, "fails: is %#" PRIx64 ", expected %#" PRIx64, value, wanted);
    }
    return value == wanted;
}

uint64_t model_rmw(volatile void *at, unsigned size, enum model_rmw op, uint64_t operand, memory_order order,
                   const char *place, const char *function)
{
    bool matters = before(at, CHANGES);
    uint64_t value, result = operand;

    if (matters)
        drain_for(at, order);
    value = read_memory(at, size);
    switch (op) {
    case MODEL_EXCHANGE: break;
    case MODEL_ADD: result = value + operand; break;
    case MODEL_SUB: result = value - operand; break;
    case MODEL_OR: result = value | operand; break;
    case MODEL_AND: result = value & operand; break;
    }
    actor_writes(machine_current, at, size, result);
    if (matters && machine_log)
        print_access(place, function, "rmw", at, "%#" PRIx64 " -> %#" PRIx64, value, result);
    return value;
}

void model_fence(memory_order order)
{
    if (machine_current >= 0 && buffers && is_release(order))
        drain(&world.actor[machine_current], NULL);
}

/* Of the one lane that is lent while actors run. */
static char *spare_lane;

static size_t lane_bytes(void)
{
    return sizeof(struct lane) + pool_bins_bytes(true);
}

/* One small allocation per lane at a time is all that publish.c does, and one lane at most all that lane.c does. */
void *model_meta_alloc(size_t size)
{
    if (size == lane_bytes() && machine_current < 0)
        return la_meta_alloc(size);
    if (size == lane_bytes() && !world.lent++)
        return spare_lane;
    for (size_t i = 0; i < sizeof(world.meta) / sizeof(*world.meta); i += 4)
        if (!world.meta[i + 3] && size <= 3 * sizeof(uint64_t)) {
            world.meta[i + 3] = 1;
            return &world.meta[i];
        }
    violate("the model has no memory for a bundle, or for a second lane, of %zu bytes", size);
    return NULL;
}

void model_meta_free(void *memory, size_t size)
{
    if (memory == spare_lane)
        world.lent = 0;
    else if (size == lane_bytes())
        la_meta_free(memory, size);
    else
        memset(memory, 0, 4 * sizeof(uint64_t));
}

/* ---- memory that changes ---- */

/* All that actors may change outside of struct world and their stacks, and how it was at the beginning. */
struct region {
    char *at;
    size_t size;
    char *initial;
};

static struct region regions[MAX_REGIONS];
static unsigned region_count;
static struct world initial_world;

/* The lines that are in images. */
static char *lines[MAX_LINES];
static unsigned line_count;

static void add_region(void *at, size_t size)
{
    uintptr_t from = (uintptr_t)at / LINE * LINE, to = ((uintptr_t)at + size + LINE - 1) / LINE * LINE;

    if (region_count == MAX_REGIONS)
        abort();
    regions[region_count++] = (struct region){ (char *)from, to - from, checked_alloc(to - from) };
}

static bool add_line(char *line)
{
    const struct la_heap *heap = machine_heap;

    if (line >= (char *)heap->slices && line < (char *)(heap->slices + (size_t)heap->macro_count * SLICES_PER_MACRO))
        violate("the scenario makes pages or gives some back, whose memory is in no image: let its lanes have them at the start");
    for (unsigned i = 0; i < line_count; i++)
        if (lines[i] == line)
            return false;
    if (line_count == MAX_LINES)
        abort();
    lines[line_count++] = line;
    return true;
}

void machine_verify_images(void)
{
    for (unsigned r = 0; r < region_count; r++) {
        const struct region *region = &regions[r];

        if (memcmp(region->at, region->initial, region->size) == 0)
            continue;
        for (size_t i = 0; i < region->size; i += LINE)
            if (memcmp(region->at + i, region->initial + i, LINE) != 0 && add_line(region->at + i))
                learnt = true;
    }
}

bool machine_has_learnt(void)
{
    bool had = learnt;

    learnt = false;
    return had;
}

static void forget_uses(void)
{
    memset(uses, 0, sizeof(uses));
    stops = 0;
}

void machine_start(struct la_heap *heap, bool store_buffers, bool recoverers_meet)
{
    machine_heap = heap;
    buffers = store_buffers;
    recoverers_together = recoverers_meet;
    line_count = region_count = 0;
    learnt = false;
    violation[0] = '\0';
    memset(&world, 0, sizeof(world));
    forget_uses();
}

void machine_set_initial(void)
{
    struct la_heap *heap = machine_heap;
    size_t used_macros = 0;

    for (uint32_t i = 0; i < heap->macro_count; i++)
        if (owner_state(atomic_load(&heap->macros[i].owner)) != OWNER_NONE)
            used_macros = i + 1;
    for (size_t i = 0; i < used_macros * SLICES_PER_MACRO; i++)
        if (slice_kind(atomic_load(&heap->slices[i].page)) != SLICE_FREE)
            add_region(heap->payload + i * SLICE_SIZE, SLICE_SIZE);
    add_region(heap->base, (size_t)((char *)(heap->slices + (size_t)heap->macro_count * SLICES_PER_MACRO) - heap->base));
    add_region(heap->segment.macros, used_macros * sizeof(struct la_macro));
    add_region(heap->segment.pages, used_macros * SLICES_PER_MACRO * sizeof(struct la_page));
    add_region(heap, sizeof(*heap));
    for (struct lane *lane = heap->lanes; lane; lane = lane->next) {
        atomic_store(&lane->chain.user, NULL);      /* see actor_writes() */
        add_region(lane, lane_bytes());
    }
    spare_lane = la_meta_alloc(lane_bytes());
    if (!spare_lane)
        abort();
    add_region(spare_lane, lane_bytes());
    for (unsigned r = 0; r < region_count; r++)
        memcpy(regions[r].initial, regions[r].at, regions[r].size);
    initial_world = world;
}

void machine_reset(void)
{
    for (unsigned r = 0; r < region_count; r++)
        memcpy(regions[r].at, regions[r].initial, regions[r].size);
    world = initial_world;
    violation[0] = '\0';
}

void machine_stop(void)
{
    machine_reset();
    for (unsigned r = 0; r < region_count; r++)
        free(regions[r].initial);
    region_count = line_count = 0;
    la_meta_free(spare_lane, lane_bytes());
}

/* ---- images ---- */

struct image {
    size_t size;
    unsigned lines;     /* how many were known when it was taken; a search that learns more begins again, but goes on until it sees that */
    char bytes[];
};

static size_t stack_in_use(const struct actor *a)
{
    return a->state == ACTOR_RUNNING ? (size_t)(stacks[a - world.actor] + STACK_SIZE - (char *)a->sp) : 0;
}

size_t machine_image_bytes(void)
{
    size_t size = sizeof(world) + (size_t)line_count * LINE;

    for (int i = 0; i < ACTORS; i++)
        size += stack_in_use(&world.actor[i]);
    return size;
}

struct image *image_take(void)
{
    size_t size = machine_image_bytes();
    struct image *image = checked_alloc(sizeof(*image) + size);
    char *to = image->bytes;

    image->size = size;
    image->lines = line_count;
    memcpy(to, &world, sizeof(world));
    to += sizeof(world);
    for (unsigned i = 0; i < line_count; i++, to += LINE)
        memcpy(to, lines[i], LINE);
    for (int i = 0; i < ACTORS; i++) {
        size_t n = stack_in_use(&world.actor[i]);

        memcpy(to, world.actor[i].sp, n);
        to += n;
    }
    return image;
}

void image_restore(const struct image *image)
{
    const char *from = image->bytes;

    memcpy(&world, from, sizeof(world));
    from += sizeof(world);
    for (unsigned i = 0; i < image->lines; i++, from += LINE)
        memcpy(lines[i], from, LINE);
    for (int i = 0; i < ACTORS; i++) {
        size_t n = stack_in_use(&world.actor[i]);

        memcpy(world.actor[i].sp, from, n);
        from += n;
    }
}

void image_free(struct image *image)
{
    free(image);
}

static uint64_t mix(uint64_t hash, const void *from, size_t size)
{
    const uint64_t *words = from;

    for (size_t i = 0; i < size / 8; i++) {
        unsigned __int128 product = (unsigned __int128)(hash ^ words[i]) * 0x9fb21c651e98df25u;

        hash = (uint64_t)product ^ (uint64_t)(product >> 64) ^ words[i];
    }
    return hash;
}

_Static_assert(sizeof(struct world) % 8 == 0, "mix() takes whole words");

uint64_t machine_hash(void)
{
    uint64_t hash = mix(0x2545f4914f6cdd1du, &world, sizeof(world));

    for (unsigned i = 0; i < line_count; i++)
        hash = mix(hash + i, lines[i], LINE);
    for (int i = 0; i < ACTORS; i++)
        hash = mix(hash + 977, world.actor[i].sp, stack_in_use(&world.actor[i]));
    return hash ? hash : 1;
}
