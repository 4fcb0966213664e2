/* restartable_test.c - pop and push on a bin, also when a signal handler does the same in the middle of them. */
#include "engine.h"

#include <stdatomic.h>

#include "../support/storm.h"

#include "core/pool.h"
#include "core/restartable.h"
#include "core/size_class.h"

enum { ROOM = 64, BLOCKS = 48, SIGNALS = 20000 };

static struct la_chain chain;
static void *stack[ROOM + 1];
static uint64_t blocks[BLOCKS][4];
static const size_t offset = 5 * sizeof(struct la_bin);

static struct la_bin *bin(void)
{
    return &chain.fast[5];
}

static int setup(void **state)
{
    (void)state;
    if (!la_malloc(1))      /* chooses the mark */
        return -1;
    memset(blocks, 0, sizeof(blocks));
    stack[0] = &la_no_block;
    *bin() = (struct la_bin){ stack, stack + ROOM };
    return 0;
}

static void the_youngest_comes_first_and_an_empty_bin_gives_none(void **state)
{
    (void)state;
    assert_null(bin_pop(bin()));
    for (unsigned i = 0; i < BLOCKS; i++) {
        assert_true(bin_push(&chain, offset, blocks[i]));
        assert_int_equal(blocks[i][0], la_free_mark);
    }
    for (unsigned i = BLOCKS; i-- > 0;)
        assert_ptr_equal(bin_pop(bin()), blocks[i]);
    assert_null(bin_pop(bin()));
    assert_ptr_equal(bin()->top, stack);
}

static void full_bins_and_second_frees_are_refused_and_change_nothing(void **state)
{
    (void)state;
    assert_true(bin_push(&chain, offset, blocks[0]));
    assert_false(bin_push(&chain, offset, blocks[0]));
    assert_ptr_equal(bin()->top, stack + 1);
    bin()->last = stack + 1;
    blocks[1][0] = 77;
    assert_false(bin_push(&chain, offset, blocks[1]));
    assert_int_equal(blocks[1][0], 77);
    assert_ptr_equal(bin()->top, stack + 1);
}

static void a_block_without_its_mark_is_not_handed_out(void **state)
{
    (void)state;
    assert_true(bin_push(&chain, offset, blocks[0]));
    blocks[0][0] = 1;
    assert_null(bin_pop(bin()));
    assert_ptr_equal(bin()->top, stack + 1);
}

/* ---- signals ---- */

static atomic_uint handled, bad;
static uint64_t *handlers[8];       /* blocks that the handler keeps for some time */

/* Each user of a block writes its name into it and wants to find it there. */
static uint64_t *take(uint64_t name)
{
    uint64_t *block = bin_pop(bin());

    if (!block)
        return NULL;
    block[0] = 0;
    if (block[1] != 0)
        atomic_fetch_add(&bad, 1);
    block[1] = name;
    return block;
}

static void give(uint64_t *block, uint64_t name)
{
    if (!block)
        return;
    if (block[1] != name)
        atomic_fetch_add(&bad, 1);
    block[1] = 0;
    if (!bin_push(&chain, offset, block))
        atomic_fetch_add(&bad, 1);
}

static void handle(int signal)
{
    unsigned n = atomic_fetch_add(&handled, 1);
    uint64_t **kept = &handlers[n % 8];

    (void)signal;
    if (n % 3) {
        give(*kept, 2);
        *kept = take(2);
    } else if (!*kept) {
        *kept = take(2);
    } else {
        give(*kept, 2);
        *kept = NULL;
    }
}

static void handlers_find_the_bin_whole_and_leave_it_whole(void **state)
{
    uint64_t *mine[8] = { 0 };
    bool seen[BLOCKS] = { false };
    unsigned n = 0;

    (void)state;
    if (!RESTARTABLE)
        skip();
    for (unsigned i = 0; i < BLOCKS; i++)
        bin_push(&chain, offset, blocks[i]);
    assert_true(storm_begin(handle));
    for (unsigned i = 0; atomic_load(&handled) < SIGNALS; i++) {
        give(mine[i % 8], 1);
        mine[i % 8] = take(1);
        give(take(1), 1);
    }
    storm_end();
    assert_int_equal(atomic_load(&bad), 0);
    for (unsigned i = 0; i < 8; i++) {
        give(mine[i], 1);
        give(handlers[i], 2);
    }
    /* Every block is there, once. */
    for (uint64_t *block; (block = bin_pop(bin())) != NULL; n++) {
        assert_false(seen[(block - blocks[0]) / 4]);
        seen[(block - blocks[0]) / 4] = true;
    }
    assert_int_equal(n, BLOCKS);
    assert_int_equal(atomic_load(&bad), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_youngest_comes_first_and_an_empty_bin_gives_none, setup),
        cmocka_unit_test_setup(full_bins_and_second_frees_are_refused_and_change_nothing, setup),
        cmocka_unit_test_setup(a_block_without_its_mark_is_not_handed_out, setup),
        cmocka_unit_test_setup(handlers_find_the_bin_whole_and_leave_it_whole, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
