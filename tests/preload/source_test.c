/*
 * source_test.c - LIBALLOC_SOURCE says which memory malloc is made of. Each case is this program again, by exec, with another environment.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <liballoc/liballoc.h>
#include <segments/find.h>
#include <segments/nodes.h>

enum { BLOCKS = 4000, SIZE = 4000, LARGE = 5 << 20 };

/* ---- what runs with another environment ---- */

static int in_supply(const void *block, unsigned *capabilities)
{
    struct seg_location l = { .struct_size = sizeof(l) };

    if (seg_find(block, &l) < 0)
        return 0;
    *capabilities = l.capabilities;
    return 1;
}

/* Each extent was asked for some node, by the thread that needed it. */
static int nodes_hold_the_supply(void)
{
    struct seg_supply_info info = { .struct_size = sizeof(info) };
    size_t bytes = 0, segments = 0;

    for (unsigned i = 0; i < seg_node_count(); i++) {
        struct seg_node_info node = { .struct_size = sizeof(node) };

        if (seg_supply_node_info(NULL, i, &node) < 0)
            return 0;
        bytes += node.bytes;
        segments += node.segments;
    }
    return seg_supply_info(seg_supply_default(), &info) == 0 && bytes == info.bytes && segments == info.segments && segments > 0;
}

/* Prints how much of what malloc gives lies in the supply: "small N large N thp N". */
static int count_blocks(void)
{
    unsigned small = 0, thp = 0, capabilities = 0;
    char *large = malloc(LARGE), *block[BLOCKS];
    int status, found;
    pid_t child;

    for (int i = 0; i < BLOCKS; i++) {
        block[i] = malloc(SIZE);
        memset(block[i], i, SIZE);
        small += (unsigned)in_supply(block[i], &capabilities);
    }
    memset(large, 1, LARGE);
    found = in_supply(large, &capabilities);
    thp = (capabilities & SEG_THP) != 0;
    large = realloc(large, 2 * LARGE);
    found &= large[0] == 1 && large[LARGE - 1] == 1 && in_supply(large, &capabilities);
    for (int i = 0; i < BLOCKS; i += 2)
        free(block[i]);
    /* A child has its own copy, and grows by itself. */
    child = fork();
    if (child == 0) {
        memset(large, 2, LARGE);
        _exit(malloc(3 * LARGE) && malloc(100) ? 0 : 1);
    }
    if (waitpid(child, &status, 0) != child || status != 0 || large[0] != 1 || la_heap_check(NULL, NULL) != 0)
        return 1;
    if (seg_supply_default() && !nodes_hold_the_supply())
        return 1;
    free(large);
    printf("small %d large %d thp %d\n", small > BLOCKS / 2, found, (int)thp);
    return 0;
}

/* ---- cases ---- */

/* Standard output and error of the program with LIBALLOC_SOURCE=@list. */
static void run_with(const char *list, char *output, size_t size)
{
    char command[1024], self[512];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    size_t length;
    FILE *pipe;

    assert_true(n > 0);
    self[n] = '\0';
    snprintf(command, sizeof(command), "LD_PRELOAD='%s' LIBALLOC_SOURCE='%s' '%s' count 2>&1", getenv("PRELOAD"), list, self);
    pipe = popen(command, "r");
    assert_non_null(pipe);
    length = fread(output, 1, size - 1, pipe);
    output[length] = '\0';
    if (pclose(pipe) != 0)
        fail_msg("LIBALLOC_SOURCE=%s: %s", list, output);
}

static void malloc_is_made_of_what_the_list_says(void **state)
{
    char output[1024];

    (void)state;
    run_with("", output, sizeof(output));
    assert_string_equal(output, "small 0 large 0 thp 0\n");
    run_with("anon", output, sizeof(output));
    assert_string_equal(output, "small 1 large 1 thp 0\n");
    run_with("hugetlb:1G,thp,anon", output, sizeof(output));
    if (strstr(output, "thp 0"))        /* switched off on this machine: the next of the list */
        assert_string_equal(output, "small 1 large 1 thp 0\n");
    else
        assert_string_equal(output, "small 1 large 1 thp 1\n");
}

static void wrong_list_is_told_and_the_program_runs(void **state)
{
    char output[1024];

    (void)state;
    run_with("anon,nonsense", output, sizeof(output));
    assert_non_null(strstr(output, "liballoc: LIBALLOC_SOURCE=anon,nonsense: source \"nonsense\" is unknown"));
    assert_non_null(strstr(output, "malloc uses anonymous memory\nsmall 0 large 0 thp 0\n"));
    run_with("anon,memfd", output, sizeof(output));
    assert_non_null(strstr(output, "memfd gives shared memory"));
    assert_non_null(strstr(output, "small 0 large 0"));
}

/* A pool without pages is found out before malloc is made of it. */
static void pool_without_pages_is_told_and_the_program_runs(void **state)
{
    static const char path[] = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
    FILE *file = fopen(path, "r");
    char output[1024];
    long pages = -1;

    (void)state;
    if (file) {
        if (fscanf(file, "%ld", &pages) != 1)
            pages = -1;
        fclose(file);
    }
    /* No such file: there is no such pool at all. */
    if (pages > 0)
        skip();
    run_with("hugetlb:2M", output, sizeof(output));
    assert_non_null(strstr(output, "liballoc: LIBALLOC_SOURCE=hugetlb:2M: "));
    assert_non_null(strstr(output, "malloc uses anonymous memory\nsmall 0 large 0 thp 0\n"));
    run_with("hugetlb:2M,anon", output, sizeof(output));
    assert_string_equal(output, "small 1 large 1 thp 0\n");
}

/* Without preload, in this process: by calls. Last, as it is for good. */
static void default_source_is_set_once(void **state)
{
    struct seg_supply_config config = { .struct_size = sizeof(config), .list = "memfd" };
    struct seg_supply *supply;
    unsigned capabilities = 0, small = 0;
    char *block;

    (void)state;
    assert_int_equal(seg_supply_create(&config, &supply), 0);
    assert_int_equal(seg_supply_make_default(supply), -ENOTSUP);
    assert_int_equal(seg_supply_destroy(supply), 0);
    config.list = "anon";
    assert_int_equal(in_supply(la_malloc(100), &capabilities), 0);     /* the source has its first segment, mostly free */
    block = la_malloc(3 << 20);
    assert_int_equal(in_supply(block, &capabilities), 0);
    assert_int_equal(seg_supply_create(&config, &supply), 0);
    assert_int_equal(seg_supply_make_default(supply), 0);
    assert_int_equal(seg_supply_make_default(supply), -EBUSY);
    memset(block, 1, 3 << 20);
    la_free(block);                             /* from before */
    block = la_malloc(3 << 20);
    assert_int_equal(in_supply(block, &capabilities), 1);
    la_free(block);
    for (unsigned i = 0; i < BLOCKS; i++)
        small += (unsigned)in_supply(la_malloc(SIZE), &capabilities);
    assert_in_range(small, BLOCKS / 2, BLOCKS);     /* but for what is left in macro blocks that were in use */
    la_source_trim(NULL);
    assert_int_equal(seg_supply_destroy(supply), -EBUSY);
    assert_int_equal(la_heap_check(NULL, NULL), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(malloc_is_made_of_what_the_list_says),
        cmocka_unit_test(wrong_list_is_told_and_the_program_runs),
        cmocka_unit_test(pool_without_pages_is_told_and_the_program_runs),
        cmocka_unit_test(default_source_is_set_once),
    };

    if (argc > 1 && strcmp(argv[1], "count") == 0)
        return count_blocks();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
