/*
 * A process that runs out of memory: NULL and ENOMEM, every block as it was, and everything usable again after frees. Each
 * case runs in a child under RLIMIT_AS.
 * "MPC" marks what the MPC allocator (S. Valat, 2012 to 2024) got wrong when it was measured as a preload library: it
 * compared mmap's result with NULL, so that the end of memory was a crash, and a failing mremap aborted.
 */
#include "support.h"

#include <errno.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/wait.h>

/* In the child, where CMocka cannot report: say what was wrong, without allocating, and leave. */
#define must(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            static const char text[] = "limits_test.c: not true: " #condition "\n";                \
            if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)                                  \
                _exit(2);                                                                          \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

static size_t address_space_bytes(void)
{
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");

    must(file && fscanf(file, "%lu", &pages) == 1);
    fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static void limit_growth(size_t bytes)
{
    struct rlimit limit = { .rlim_cur = address_space_bytes() + bytes, .rlim_max = RLIM_INFINITY };

    must(setrlimit(RLIMIT_AS, &limit) == 0);
}

static void in_child(void (*run)(void))
{
    pid_t child = fork();
    int status;

    assert_true(child >= 0);
    if (child == 0) {
        alarm(60);
        run();
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

enum { MOST = 1 << 24 };        /* untouched, so it costs nothing */
static void *blocks[MOST];
static const size_t LIMIT = 64 * MiB;

/* Blocks of @size until there is no more; how many. */
static unsigned fill_up(size_t size)
{
    unsigned n = 0;

    for (; n < MOST; n++) {
        errno = 0;
        blocks[n] = malloc(size);
        if (!blocks[n])
            break;
        fill(blocks[n], size, n);
    }
    must(n < MOST && errno == ENOMEM);
    return n;
}

static void check_and_free(unsigned count, size_t size)
{
    for (unsigned i = 0; i < count; i++) {
        must(is_filled(blocks[i], size, i));
        free(blocks[i]);
    }
}

static void fill_up_twice(size_t size, unsigned least)
{
    unsigned first = fill_up(size), again;

    must(first >= least);
    check_and_free(first, size);
    again = fill_up(size);
    must(again >= first - first / 20);      /* nothing was lost */
    check_and_free(again, size);
}

static void of_100_bytes(void)
{
    limit_growth(LIMIT);
    fill_up_twice(100, 200000);
}

static void of_5000_bytes(void)
{
    limit_growth(LIMIT);
    fill_up_twice(5000, 5000);
}

static void of_100_kb(void)
{
    limit_growth(LIMIT);
    fill_up_twice(100 * KiB, 200);
}

static void of_5_mib(void)
{
    limit_growth(LIMIT);
    fill_up_twice(5 * MiB, 5);
}

static void the_end_of_memory_is_null_and_nothing_is_lost(void **state)
{
    (void)state;
    in_child(of_100_bytes);
    in_child(of_5000_bytes);
    in_child(of_100_kb);
    in_child(of_5_mib);
}

/* What one size has given back serves the others. */
static void one_size_after_the_other(void)
{
    const size_t sizes[] = { 5 * MiB, 100, 20000, 300 * KiB, 3 * MiB, 48, 10 * MiB, 8, 2 * MiB };

    limit_growth(LIMIT);
    for (unsigned i = 0; i < 9; i++) {
        unsigned count = fill_up(sizes[i]);

        must(count * sizes[i] > LIMIT / 4);
        check_and_free(count, sizes[i]);
    }
}

static void freed_memory_serves_other_sizes(void **state)
{
    (void)state;
    in_child(one_size_after_the_other);
}

static void grow_too_far(void)
{
    char *small = malloc(1000), *large = malloc(100 * KiB), *huge = malloc(10 * MiB);

    must(small && large && huge);
    fill(small, 1000, 1);
    fill(large, 100 * KiB, 2);
    fill(huge, 10 * MiB, 3);
    limit_growth(20 * MiB);
    errno = 0;
    must(!realloc(opaque(small), 100 * MiB) && errno == ENOMEM);
    must(!realloc(opaque(large), 100 * MiB) && errno == ENOMEM);
    must(!realloc(opaque(huge), 100 * MiB) && errno == ENOMEM);
    must(!calloc(10, 10 * MiB) && errno == ENOMEM);
    must(!aligned_alloc(2 * MiB, 100 * MiB) && errno == ENOMEM);
    must(is_filled(small, 1000, 1) && is_filled(large, 100 * KiB, 2) && is_filled(huge, 10 * MiB, 3));
    huge = realloc(huge, 15 * MiB);
    must(huge && is_filled(huge, 10 * MiB, 3));
    free(small);
    free(large);
    free(huge);
}

/* MPC: a failing mremap aborted; the old block was freed when the new one failed. */
static void realloc_at_the_end_of_memory_keeps_the_block(void **state)
{
    (void)state;
    in_child(grow_too_far);
}

static void *try_in_thread(void *arg)
{
    void *block = malloc(1000);

    (void)arg;
    if (block)
        fill(block, 1000, 1);
    free(block);
    return NULL;
}

/* A thread's first allocation may be the one that finds no memory; it is refused, and later ones are served. */
static void threads_at_the_end(void)
{
    pthread_attr_t attr;
    pthread_t thread;
    unsigned count;

    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 64 * KiB);
    limit_growth(LIMIT);
    must(pthread_create(&thread, &attr, try_in_thread, NULL) == 0);
    must(pthread_join(thread, NULL) == 0);
    count = fill_up(500);
    for (unsigned i = 0; i < 20; i++)
        if (pthread_create(&thread, &attr, try_in_thread, NULL) == 0)
            pthread_join(thread, NULL);
    check_and_free(count, 500);
    must(pthread_create(&thread, &attr, try_in_thread, NULL) == 0);
    must(pthread_join(thread, NULL) == 0);
}

static void threads_at_the_end_of_memory_survive(void **state)
{
    (void)state;
    in_child(threads_at_the_end);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_end_of_memory_is_null_and_nothing_is_lost),
        cmocka_unit_test(freed_memory_serves_other_sizes),
        cmocka_unit_test(realloc_at_the_end_of_memory_keeps_the_block),
        cmocka_unit_test(threads_at_the_end_of_memory_survive),
    };

    return cmocka_run_group_tests(tests, require_preload, NULL);
}
