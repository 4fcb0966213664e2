/*
 * hostile_heap_test.c - any word of a shared heap may say anything: nobody leaves the segment, nobody runs for ever.
 *
 * A heap with some of everything in it is kept as an image. Each trial puts the image back, writes one to three words of its tables anew, and
 * lets a process attach and use all of the interface. The heap's neighbours in the address space are reserved without access, so that a step
 * outside is a fault. A fault, an abort, and two seconds of processor time are failures, printed with the trial's number: LA_HOSTILE_TRIAL=N
 * runs that one alone, LA_HOSTILE_TRIALS=N how many (2,000).
 *
 * What a user has in his blocks, and links there, is his own matter: payload is not touched, but for a bundle's record.
 */
#include "../unit/engine.h"

#include <execinfo.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <liballoc/heap.h>
#include <liballoc/vspace.h>

#include "../support/random.h"
#include "../unit/child.h"
#include "core/shared_layout.h"

enum { HEAP_SIZE = 24 << 20, LISTED = 10, SECONDS = 2 };

static char heap_name[40];
static int file = -1;
static char *image;         /* of HEAP_SIZE bytes */
static struct heap_header *header;
enum { PAGE = 4096 };
static off_t pages[HEAP_SIZE / PAGE];       /* of the image that are not empty */
static unsigned page_count;

/* ---- something of everything ---- */

static la_link *root(struct la_heap *heap, const char *name)
{
    la_link *link = NULL;

    CHECK(la_heap_root(heap, name, &link) == 0);
    return link;
}

static void make_bundle(struct la_heap *heap, const char *name)
{
    struct la_bundle *bundle;
    void *first = NULL;

    CHECK(la_bundle_begin(heap, &bundle) == 0);
    for (unsigned i = 0; i < LISTED; i++) {
        void *block = la_bundle_alloc(bundle, 200);

        CHECK(block);
        first = first ? first : block;
    }
    CHECK(la_bundle_publish(bundle, root(heap, name), NULL, first) == 0);
}

/* One that stays open: its record and blocks are held, the intent is none. */
static void begin_bundle(struct la_heap *heap)
{
    struct la_bundle *bundle;

    CHECK(la_bundle_begin(heap, &bundle) == 0);
    for (unsigned i = 0; i < LISTED; i++)
        CHECK(la_bundle_alloc(bundle, 300));
}

static void populate(struct la_heap *heap)
{
    static const size_t sizes[] = { 16, 32, 100, 1000, 5000, 30000, 100000, 3 << 20 };

    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++)
        for (unsigned n = 0; n < (sizes[i] > 30000 ? 2 : 40); n++) {
            void *kept = la_heap_alloc(heap, sizes[i]), *held = n % 4 ? NULL : la_heap_hold(heap, sizes[i] > 100000 ? 50000 : sizes[i]);

            CHECK(kept && (held || n % 4));
            if (n % 3 == 0)
                la_free(kept);
        }
    for (unsigned i = 0; i < LISTED; i++) {
        CHECK(la_push(heap, root(heap, "list"), la_heap_hold(heap, 64), 0) == 0);
        CHECK(la_publish(heap, root(heap, "last"), la_load(heap, root(heap, "last")), la_heap_hold(heap, 64)) == 0);
    }
    CHECK(la_publish(heap, root(heap, "mutex"), NULL, memset(la_heap_hold(heap, sizeof(struct la_mutex)), 0, sizeof(struct la_mutex))) == 0);
    make_bundle(heap, "bundle");
    begin_bundle(heap);
}

/* A process that dies while it holds blocks. */
static void make_heap(void *arg)
{
    struct la_heap *heap;

    (void)arg;
    CHECK(la_heap_create(heap_name, HEAP_SIZE, 0, &heap) == 0);
    populate(heap);
    raise(SIGKILL);
}

/* ---- what a process does with it ---- */

static void count_line(void *user, const char *line)
{
    (void)line;
    ++*(unsigned *)user;
}

static void look_at(void *user, void *block, size_t size, bool held)
{
    (void)size;
    (void)held;
    if (block)
        ++*(unsigned *)user;
}

static void use_blocks(struct la_heap *heap)
{
    static const size_t sizes[] = { 9, 16, 100, 1000, 5000, 30000, 100000, 3 << 20 };
    void *blocks[ARRAY_SIZE(sizes) * 8];
    unsigned n = 0;

    for (unsigned i = 0; i < ARRAY_SIZE(blocks); i++) {
        size_t size = sizes[i / 8];
        /* One of the largest, and only its ends are written: pages cost most of a trial's time. */
        void *block = size > MiB && i % 8 ? NULL : i % 2 ? la_heap_alloc(heap, size) : la_heap_hold(heap, size);

        if (!block)
            continue;
        memset(block, 0x77, MIN(size, (size_t)8000));
        memset((char *)block + size - 8, 0x77, 8);
        blocks[n++] = block;
    }
    while (n > 0)
        la_free(blocks[--n]);
}

static void take_all(struct la_heap *heap, const char *name, size_t next_offset)
{
    la_link *link;

    if (la_heap_root(heap, name, &link) < 0)
        return;
    /* Bounded by us: a list that a user has made a ring is the user's. */
    for (unsigned i = 0; i < 4 * LISTED; i++) {
        void *block = la_take(heap, link, next_offset);

        if (!block)
            return;
        la_free(block);
    }
}

static void publish_some(struct la_heap *heap)
{
    struct la_bundle *bundle;
    la_link *link;

    for (unsigned i = 0; i < 3; i++) {
        void *block = la_heap_hold(heap, 64);

        if (!block || la_heap_root(heap, "list", &link) < 0)
            continue;
        if (la_push(heap, link, block, 0) < 0)
            la_free(block);
    }
    if (la_heap_root(heap, "bundle", &link) < 0 || la_bundle_begin(heap, &bundle) < 0)
        return;
    if (la_bundle_publish(bundle, link, la_load(heap, link), la_bundle_alloc(bundle, 100)) < 0)
        la_bundle_abort(bundle);
}

static void try_mutex(struct la_heap *heap)
{
    struct la_mutex *mutex;
    la_link *link;

    if (la_heap_root(heap, "mutex", &link) < 0)
        return;
    mutex = la_load(heap, link);
    /* A root that was overwritten leads anywhere: users have la_usable_size(). */
    if (mutex && la_usable_size(mutex) >= sizeof(*mutex) && la_mutex_trylock(heap, mutex) >= 0)
        la_mutex_unlock(heap, mutex);
}

enum outcome { HARMLESS, FOUND, REFUSED, OUTCOMES };

/* @flags: LA_HEAP_NO_RECOVER, and the dead process is in the way of the living one. */
static enum outcome use_heap(unsigned flags)
{
    struct la_heap_info info = { .struct_size = sizeof(info) };
    struct la_heap_process processes[8];
    unsigned lines = 0, seen = 0;
    struct la_heap *heap;
    const char *name;
    la_link *link;
    int errors;

    if (la_heap_attach(heap_name, flags, &heap) < 0)
        return REFUSED;
    errors = la_heap_fsck(heap, count_line, &lines, NULL);
    if (!flags)
        la_heap_recover(heap, NULL, NULL);
    la_heap_info(heap, &info);
    la_heap_processes(heap, processes, ARRAY_SIZE(processes));
    la_heap_walk(heap, look_at, &seen);
    for (unsigned i = 0; i < LA_HEAP_MAX_ROOTS; i++)
        la_heap_root_at(heap, i, &name, &link);
    use_blocks(heap);
    publish_some(heap);
    take_all(heap, "list", 0);
    take_all(heap, "last", LA_NO_NEXT);
    take_all(heap, "bundle", LA_NO_NEXT);
    take_all(heap, "new", 0);
    try_mutex(heap);
    la_heap_recover(heap, NULL, NULL);
    errors += la_heap_fsck(heap, count_line, &lines, NULL);
    la_heap_info(heap, &info);
    if (info.quarantined)
        errors++;
    la_heap_reset(heap);
    use_blocks(heap);
    la_heap_detach(heap);
    return errors != 0 ? FOUND : HARMLESS;
}

/* ---- what is overwritten ---- */

struct field {
    const char *name;
    uint64_t offset;        /* of the first */
    uint64_t stride;        /* from one to the next */
    unsigned size, count;
};

enum { MAX_FIELDS = 64 };
static struct field fields[MAX_FIELDS];
static unsigned field_count;

static void add_field(const char *name, uint64_t offset, size_t size, uint64_t stride, unsigned count)
{
    assert_true(field_count < MAX_FIELDS);
    fields[field_count++] = (struct field){ name, offset, stride, (unsigned)MIN(size, (size_t)8), count };
}

#define ADD(table, at, type, member, count)                                                                                    \
    add_field(table ": " #member, (at) + offsetof(type, member), sizeof(((type *)0)->member), sizeof(type), (count))

static uint32_t rows_used(void)
{
    const struct heap_macro *macros = (void *)(image + header->macros_at);
    uint32_t n = 0;

    for (uint32_t i = 0; i < header->macro_count; i++)
        if (atomic_load(&macros[i].owner) != 0)
            n = i + 1;
    return n;
}

/* State words lie in slices of their own. */
static void add_words(uint32_t rows)
{
    const struct heap_slice *slices = (void *)(image + header->slices_at);

    for (uint32_t i = 0; i < rows * SLICES_PER_MACRO; i++)
        if (slice_kind(atomic_load(&slices[i].page)) == SLICE_WORDS)
            add_field("state words", header->payload_at + i * SLICE_SIZE, sizeof(word_t), sizeof(word_t), 4000);
}

/* Blocks of 968 bytes with the count of an open or a published bundle: found by its look. */
static void list_fields(void)
{
    uint32_t rows = rows_used();

    ADD("header", 0, struct heap_header, magic, 1);
    ADD("header", 0, struct heap_header, size, 1);
    ADD("header", 0, struct heap_header, address, 1);
    ADD("header", 0, struct heap_header, name, 1);
    ADD("header", 0, struct heap_header, macro_count, 1);
    ADD("header", 0, struct heap_header, lanes_at, 1);
    ADD("header", 0, struct heap_header, trail_at, 1);
    ADD("header", 0, struct heap_header, macros_at, 1);
    ADD("header", 0, struct heap_header, marks_at, 1);
    ADD("header", 0, struct heap_header, payload_at, 1);
    ADD("header", 0, struct heap_header, quarantined, 1);
    ADD("header", 0, struct heap_header, next_macro, 1);
    ADD("header", 0, struct heap_header, abandoned, 1);
    ADD("header", 0, struct heap_header, rows, 1);
    ADD("header", 0, struct heap_header, lanes, 1);
    ADD("header", 0, struct heap_header, committed, 1);
    ADD("process", header->processes_at, struct heap_process, state, 3);
    ADD("process", header->processes_at, struct heap_process, command, 3);
    ADD("process", header->processes_at, struct heap_process, trail_lost, 3);
    ADD("lane", header->lanes_at, struct heap_lane, owner, 4);
    ADD("lane", header->lanes_at, struct heap_lane, op, 4);
    ADD("lane", header->lanes_at, struct heap_lane, sequence, 4);
    ADD("lane", header->lanes_at, struct heap_lane, link, 4);
    ADD("lane", header->lanes_at, struct heap_lane, block, 4);
    ADD("lane", header->lanes_at, struct heap_lane, record, 4);
    ADD("lane", header->lanes_at, struct heap_lane, next_offset, 4);
    ADD("lane", header->lanes_at, struct heap_lane, generation, 4);
    ADD("lane", header->lanes_at, struct heap_lane, has_row, 4);
    ADD("lane", header->lanes_at, struct heap_lane, freeing, 4);
    ADD("trail", header->trail_at, struct heap_trail, block[0], 4);
    ADD("root", header->roots_at, struct heap_root, state, 5);
    ADD("root", header->roots_at, struct heap_root, value, 4);
    ADD("root", header->roots_at, struct heap_root, name, 4);
    ADD("macro block", header->macros_at, struct heap_macro, owner, rows + 1);
    ADD("macro block", header->macros_at, struct heap_macro, committed, rows + 1);
    ADD("macro block", header->macros_at, struct heap_macro, hinted, rows + 1);
    ADD("slice", header->slices_at, struct heap_slice, page, (rows + 1) * SLICES_PER_MACRO);
    ADD("slice", header->slices_at, struct heap_slice, run, (rows + 1) * SLICES_PER_MACRO);
    add_field("marks", header->marks_at, 1, 1, (rows + 1) * SLICES_PER_MACRO);
    add_words(rows);
}

static uint64_t other_value(const struct field *f, uint64_t old, uint64_t *seed)
{
    uint64_t r = next_random(seed), neighbour = 0;

    switch (next_random(seed) % 8) {
    case 0: return old ^ 1ull << r % (8 * f->size);
    case 1: return old ^ 1ull << r % (8 * f->size) ^ 1ull << (r >> 8) % (8 * f->size);
    case 2: return r;
    case 3: return UINT64_MAX;
    case 4: return r % 4096;
    case 5: return old + 1 - r % 2 * 2;
    case 6: return r % HEAP_SIZE & ~7ull;       /* an offset */
    default:
        memcpy(&neighbour, image + f->offset + r % f->count * f->stride, f->size);
        return neighbour;
    }
}

static void overwrite(const struct field *f, uint64_t *seed)
{
    uint64_t offset = f->offset + next_random(seed) % f->count * f->stride, value = 0;

    memcpy(&value, image + offset, f->size);
    value = other_value(f, value, seed);
    CHECK(pwrite(file, &value, f->size, (off_t)offset) == (ssize_t)f->size);
}

/* Lane 1's, of its latest sequence number (publish.c). */
static void leave_mark(uint64_t link)
{
    const struct heap_lane *lane = (const void *)(image + header->lanes_at + sizeof(*lane));
    uint64_t mark = 1ull << 63 | 1ull << 51 | atomic_load(&lane->sequence);

    CHECK(pwrite(file, &mark, sizeof(mark), (off_t)link) == sizeof(mark));
}

/* Intents matter while one is under way: then its fields are read. */
static void begin_some_intent(uint64_t *seed)
{
    uint32_t op = 1 + next_random(seed) % 2;
    uint64_t link = header->roots_at + next_random(seed) % 4 * sizeof(struct heap_root) + offsetof(struct heap_root, value);

    CHECK(pwrite(file, &op, sizeof(op), (off_t)(header->lanes_at + sizeof(struct heap_lane) + offsetof(struct heap_lane, op))) == sizeof(op));
    CHECK(pwrite(file, &link, sizeof(link), (off_t)(header->lanes_at + sizeof(struct heap_lane) + offsetof(struct heap_lane, link))) ==
          sizeof(link));
    if (next_random(seed) % 2)
        leave_mark(link);
}

static const struct field *damage(uint64_t trial)
{
    uint64_t seed = (trial + 1) * 0x5851f42d4c957f2du;
    const struct field *f = &fields[trial % field_count];

    if (strncmp(f->name, "lane", 4) == 0 && trial / field_count % 2)
        begin_some_intent(&seed);
    overwrite(f, &seed);
    for (uint64_t more = next_random(&seed) % 4; more >= 2; more--)
        overwrite(&fields[next_random(&seed) % field_count], &seed);
    return f;
}

/* ---- trials ---- */

static void put_image_back(void)
{
    /* What the image has not, is not there. */
    assert_int_equal(fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, HEAP_SIZE), 0);
    for (unsigned i = 0; i < page_count; i++)
        assert_int_equal(pwrite(file, image + pages[i] * PAGE, PAGE, pages[i] * PAGE), PAGE);
}

static void show_where(int number)
{
    void *calls[40];

    backtrace_symbols_fd(calls, backtrace(calls, ARRAY_SIZE(calls)), 2);
    signal(number, SIG_DFL);
    raise(number);
}

static void victim(unsigned flags)
{
    struct rlimit cpu = { SECONDS, SECONDS + 1 };

    setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
    setrlimit(RLIMIT_CPU, &cpu);
    alarm(60);      /* blocked for ever: a last resort */
    for (int s = 1; s < 32; s++)
        if (s != SIGKILL && s != SIGSTOP && s != SIGALRM)
            signal(s, getenv("LA_HOSTILE_TRIAL") ? show_where : SIG_DFL);
    la_misuse_set(LA_MISUSE_IGNORE, NULL, NULL);
    _exit(use_heap(flags));
}

/* false: what must not happen. */
static bool run_trial(uint64_t trial, unsigned results[MAX_FIELDS][OUTCOMES])
{
    const struct field *f;
    pid_t child;
    int status;

    put_image_back();
    f = damage(trial);
    child = fork();
    if (child == 0)
        victim(trial / field_count % 3 == 0 ? LA_HEAP_NO_RECOVER : 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) < OUTCOMES) {
        results[f - fields][WEXITSTATUS(status)]++;
        return true;
    }
    print_error("trial %lu, %s: %s %d\n", (unsigned long)trial, f->name, WIFSIGNALED(status) ? "killed by signal" : "exit status",
                WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    return false;
}

static void print_results(unsigned results[MAX_FIELDS][OUTCOMES])
{
    for (unsigned i = 0; i < field_count; i++) {
        unsigned *r = results[i], all = r[HARMLESS] + r[FOUND] + r[REFUSED];

        /* Several slices of state words are one field. */
        if (i + 1 < field_count && strcmp(fields[i].name, fields[i + 1].name) == 0) {
            for (unsigned o = 0; o < OUTCOMES; o++)
                results[i + 1][o] += r[o];
            continue;
        }
        print_message("%-24s %5u trials: %3u %% refused, %3u %% found, %3u %% without effect on an invariant\n", fields[i].name, all,
                      all ? r[REFUSED] * 100 / all : 0, all ? r[FOUND] * 100 / all : 0, all ? r[HARMLESS] * 100 / all : 0);
    }
}

static void no_word_makes_a_process_fault_or_hang(void **state)
{
    const char *one = getenv("LA_HOSTILE_TRIAL"), *many = getenv("LA_HOSTILE_TRIALS");
    static unsigned results[MAX_FIELDS][OUTCOMES];
    uint64_t trials = many ? strtoull(many, NULL, 0) : 2000;
    unsigned bad = 0;

    (void)state;
    if (one) {
        assert_true(run_trial(strtoull(one, NULL, 0), results));
        return;
    }
    for (uint64_t trial = 0; trial < trials && bad < 20; trial++)
        bad += !run_trial(trial, results);
    print_results(results);
    assert_int_equal(bad, 0);
}

/* The image itself is sound: else every trial would be refused. */
static void image_is_a_heap(void **state)
{
    pid_t child;
    int status;

    (void)state;
    put_image_back();
    child = fork();
    if (child == 0)
        victim(0);
    waitpid(child, &status, 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), HARMLESS);
}

static int setup(void **state)
{
    static const char zeros[PAGE];
    char path[80];

    (void)state;
    snprintf(heap_name, sizeof(heap_name), "hostile-%d", (int)getpid());
    assert_int_equal(run_in_child(make_heap, NULL), 128 + SIGKILL);
    snprintf(path, sizeof(path), "/dev/shm/liballoc-%u-%s", getuid(), heap_name);
    file = open(path, O_RDWR | O_CLOEXEC);
    image = malloc(HEAP_SIZE);
    if (file < 0 || !image || pread(file, image, HEAP_SIZE, 0) != HEAP_SIZE)
        return -1;
    header = (struct heap_header *)image;
    for (off_t i = 0; i < HEAP_SIZE / PAGE; i++)
        if (memcmp(image + i * PAGE, zeros, PAGE) != 0)
            pages[page_count++] = i;
    list_fields();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(image);
    close(file);
    return la_heap_remove(heap_name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(image_is_a_heap),
        cmocka_unit_test(no_word_makes_a_process_fault_or_hang),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
