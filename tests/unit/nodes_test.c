/* nodes_test.c - the machine's NUMA nodes: there is one at least, the thread runs on one of them, and none has more than the machine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <unistd.h>

#include "base/util.h"
#include "os/nodes.h"

static void thread_runs_on_one_of_the_nodes(void **state)
{
    (void)state;
    errno = 77;
    assert_true(os_node_count() >= 1);
    assert_int_equal(os_node_count(), os_node_count());
    assert_true(os_node_here() < os_node_count());
    assert_int_equal(errno, 77);
}

static void nodes_have_no_more_than_the_machine(void **state)
{
    size_t machine = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE), sum = 0;

    (void)state;
    for (unsigned i = 0; i < os_node_count(); i++) {
        if (os_node_headroom(i) == SIZE_MAX) {
            print_message("this kernel tells nothing of nodes\n");
            skip();
        }
        sum += os_node_headroom(i);
    }
    assert_true(sum > 0 && sum <= machine);
    assert_int_equal(os_node_headroom(os_node_count()), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thread_runs_on_one_of_the_nodes),
        cmocka_unit_test(nodes_have_no_more_than_the_machine),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
