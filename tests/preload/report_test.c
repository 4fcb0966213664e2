/*
 * The reporting and tuning half of the malloc family: figures add up, documents are well formed, nothing hangs though stdio
 * allocates.
 */
#include "support.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

/* ---- mallinfo ---- */

static void mallinfo2_follows_what_is_allocated(void **state)
{
    enum { COUNT = 1000, SIZE = 4000 };
    struct mallinfo2 before = mallinfo2(), during, after;
    void *blocks[COUNT];

    (void)state;
    for (unsigned i = 0; i < COUNT; i++)
        blocks[i] = malloc(SIZE);
    during = mallinfo2();
    for (unsigned i = 0; i < COUNT; i++)
        free(blocks[i]);
    after = mallinfo2();
    assert_true(during.uordblks - before.uordblks >= COUNT * SIZE);
    assert_true(during.uordblks - before.uordblks < COUNT * SIZE * 5 / 4);
    assert_true(after.uordblks < before.uordblks + COUNT * SIZE / 10);
    /* The sums that programs make of glibc's words. */
    assert_int_equal(during.arena, during.uordblks + during.fordblks);
    assert_true(during.arena + during.hblkhd >= during.uordblks + during.hblkhd);
}

static void mallinfo2_counts_huge_blocks(void **state)
{
    struct mallinfo2 before = mallinfo2(), during;
    void *block = opaque(malloc(50 * MiB));

    (void)state;
    during = mallinfo2();
    assert_int_equal(during.hblks, before.hblks + 1);
    assert_true(during.uordblks + during.hblkhd >= before.uordblks + before.hblkhd + 50 * MiB);
    free(block);
    assert_int_equal(mallinfo2().hblks, before.hblks);
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
static void the_old_mallinfo_saturates(void **state)
{
    void *block = opaque(malloc(3 * GiB));
    struct mallinfo narrow = mallinfo();

    (void)state;
    if (block)
        assert_int_equal(narrow.uordblks, 0x7fffffff);
    free(block);
    narrow = mallinfo();
    assert_true(narrow.uordblks > 0 && narrow.uordblks < 0x7fffffff);
}
#pragma GCC diagnostic pop

static atomic_bool stop;

static void *churn(void *arg)
{
    unsigned n = (unsigned)(uintptr_t)arg;

    while (!atomic_load(&stop)) {
        void *blocks[50];

        for (unsigned i = 0; i < 50; i++)
            blocks[i] = malloc(++n * 7919 % 100000);
        for (unsigned i = 0; i < 50; i++)
            free(blocks[i]);
    }
    return NULL;
}

static void figures_may_be_asked_for_while_threads_allocate_and_end(void **state)
{
    FILE *file = fopen("/dev/null", "w");

    (void)state;
    assert_non_null(file);
    for (unsigned round = 0; round < 30; round++) {
        pthread_t threads[3];

        atomic_store(&stop, false);
        for (unsigned i = 0; i < 3; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, churn, (void *)(uintptr_t)(round * 3 + i)), 0);
        for (unsigned i = 0; i < 20; i++) {
            struct mallinfo2 info = mallinfo2();

            assert_int_equal(info.arena, info.uordblks + info.fordblks);
            assert_int_equal(malloc_info(0, file), 0);
            malloc_trim(0);
        }
        atomic_store(&stop, true);
        for (unsigned i = 0; i < 3; i++)
            pthread_join(threads[i], NULL);
    }
    fclose(file);
}

/* ---- malloc_info, malloc_stats ---- */

/* Every tag that opens is closed in order. Enough for a document without text, comments or attributes with ">". */
static bool is_well_formed(const char *text)
{
    const char *open[16];
    unsigned depth = 0;
    bool seen = false;

    while ((text = strchr(text, '<')) != NULL) {
        const char *end = strchr(++text, '>');
        size_t name = strcspn(text + (*text == '/'), " />");

        if (!end)
            return false;
        if (*text == '/') {
            if (depth == 0 || strncmp(open[--depth], text + 1, name) != 0)
                return false;
        } else if (end[-1] != '/') {
            if (depth == 16 || (depth == 0 && seen))
                return false;
            open[depth++] = text;
        }
        seen = true;
        text = end;
    }
    return seen && depth == 0;
}

static unsigned long long attribute(const char *text, const char *element, const char *name)
{
    const char *at = strstr(text, element);

    at = at ? strstr(at, name) : NULL;
    assert_non_null(at);
    return strtoull(at + strlen(name), NULL, 10);
}

static void malloc_info_writes_glibcs_document(void **state)
{
    void *kept = opaque(malloc(10 * MiB));
    char *text = NULL;
    size_t length = 0;
    FILE *file = open_memstream(&text, &length);    /* allocates at every write */

    (void)state;
    assert_int_equal(malloc_info(0, file), 0);
    fclose(file);
    assert_true(is_well_formed(text));
    assert_true(strncmp(text, "<malloc version=\"1\">", 20) == 0);
    assert_true(attribute(text, "<system type=\"current\"", "size=\"") >= 10 * MiB);
    assert_true(attribute(text, "<total type=\"mmap\"", "count=\"") >= 1);
    free(text);
    free(kept);
}

static void malloc_info_refuses_unknown_options(void **state)
{
    (void)state;
    assert_int_equal(malloc_info(1, stderr), EINVAL);
}

static void malloc_stats_writes_to_standard_error(void **state)
{
    int file = memfd_create("stderr", 0), saved = dup(STDERR_FILENO);
    char text[1000] = "";
    unsigned long long system, used;

    (void)state;
    assert_true(file >= 0 && saved >= 0);
    dup2(file, STDERR_FILENO);
    malloc_stats();
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    assert_true(pread(file, text, sizeof(text) - 1, 0) > 0);
    close(file);
    close(saved);
    system = attribute(text, "system bytes", "=");
    used = attribute(text, "in use bytes", "=");
    assert_true(system >= used && used > 0);
}

/* ---- tuning ---- */

static void mallopt_knows_glibcs_parameters(void **state)
{
    const int known[] = { M_MXFAST, M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX, M_CHECK_ACTION,
                          M_PERTURB, M_ARENA_TEST, M_ARENA_MAX };

    (void)state;
    for (unsigned i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        assert_int_equal(mallopt(known[i], 64), 1);
    assert_int_equal(mallopt(4711, 1), 0);
    assert_int_equal(mallopt(-100, 1), 0);
}

static void malloc_trim_gives_pages_back(void **state)
{
    enum { COUNT = 20000, SIZE = 2000 };
    static void *blocks[COUNT];
    size_t full, trimmed;

    (void)state;
    for (unsigned i = 0; i < COUNT; i++) {
        blocks[i] = malloc(SIZE);
        fill(blocks[i], SIZE, i);
    }
    for (unsigned i = 0; i < COUNT; i++)
        free(blocks[i]);
    full = resident_bytes();
    assert_int_equal(malloc_trim(0), 1);
    trimmed = resident_bytes();
    assert_true(trimmed + COUNT / 2 * SIZE < full);
    for (unsigned i = 0; i < COUNT; i++)
        free(opaque(calloc(1, SIZE)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mallinfo2_follows_what_is_allocated),
        cmocka_unit_test(mallinfo2_counts_huge_blocks),
        cmocka_unit_test(the_old_mallinfo_saturates),
        cmocka_unit_test(figures_may_be_asked_for_while_threads_allocate_and_end),
        cmocka_unit_test(malloc_info_writes_glibcs_document),
        cmocka_unit_test(malloc_info_refuses_unknown_options),
        cmocka_unit_test(malloc_stats_writes_to_standard_error),
        cmocka_unit_test(mallopt_knows_glibcs_parameters),
        cmocka_unit_test(malloc_trim_gives_pages_back),
    };

    return cmocka_run_group_tests(tests, require_preload, NULL);
}
