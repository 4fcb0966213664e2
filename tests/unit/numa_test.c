/*
 * numa_test.c - segments/numa.c: what nodes there are and where pages lie. That pages are where they were asked to be takes several nodes:
 * tests/guest/nodes_test.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include <liballoc/liballoc.h>
#include <segments/nodes.h>

#include "os/os.h"
#include "segments/numa.h"

static size_t sum_of(const size_t *bytes)
{
    size_t sum = 0;

    for (unsigned i = 0; i < LA_NODES_MAX; i++)
        sum += bytes[i];
    return sum;
}

static void pages_are_counted_where_they_lie(void **state)
{
    size_t page = os_page_size(), bytes[LA_NODES_MAX];
    char *memory = os_map(700 * page);

    (void)state;
    memset(memory, 1, 300 * page);
    if (seg_pages_on_nodes((struct la_range){ memory, 700 * page }, bytes) == -ENOTSUP) {
        print_message("%s\n", la_last_error());
        os_unmap(memory, 700 * page);
        skip();
    }
    assert_true(sum_of(bytes) >= 300 * page && sum_of(bytes) <= 700 * page);    /* a transparent huge page is more */
    for (unsigned i = seg_node_count(); i < LA_NODES_MAX; i++)
        assert_int_equal(bytes[i], 0);
    assert_int_equal(seg_pages_on_nodes((struct la_range){ memory + 10 * page + 1, 2 }, bytes), 0);
    assert_int_equal(sum_of(bytes), page);
    os_unmap(memory, 700 * page);
    assert_int_equal(seg_pages_on_nodes((struct la_range){ memory, 700 * page }, bytes), 0);
    assert_int_equal(sum_of(bytes), 0);
}

static void questions_without_a_range_are_refused(void **state)
{
    size_t bytes[LA_NODES_MAX];

    (void)state;
    assert_int_equal(seg_pages_on_nodes((struct la_range){ NULL, 4096 }, bytes), -EINVAL);
    assert_int_equal(seg_pages_on_nodes((struct la_range){ bytes, SIZE_MAX }, bytes), -EINVAL);
    assert_int_equal(seg_pages_on_nodes((struct la_range){ bytes, 1 }, NULL), -EINVAL);
}

/* Only who is bound can run out on a node. */
static void headroom_of_nodes_binds_who_is_bound(void **state)
{
    uint64_t all = seg_node_count() < 64 ? (UINT64_C(1) << seg_node_count()) - 1 : UINT64_MAX;

    (void)state;
    assert_true(seg_numa_headroom(&(struct seg_numa){ 0 }) == SIZE_MAX);
    assert_true(seg_numa_headroom(&(struct seg_numa){ SEG_NUMA_PREFER, 1 }) == SIZE_MAX);
    assert_true(seg_numa_headroom(&(struct seg_numa){ SEG_NUMA_INTERLEAVE, all }) == SIZE_MAX);
    assert_true(seg_numa_headroom(&(struct seg_numa){ SEG_NUMA_BIND, all }) > MiB);
    assert_true(seg_numa_headroom(&(struct seg_numa){ SEG_NUMA_BIND, UINT64_C(1) << 63 }) == 0 ||
                seg_numa_headroom(&(struct seg_numa){ SEG_NUMA_BIND, UINT64_C(1) << 63 }) == SIZE_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_are_counted_where_they_lie),
        cmocka_unit_test(questions_without_a_range_are_refused),
        cmocka_unit_test(headroom_of_nodes_binds_who_is_bound),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
