/* owner_test.c - what la_owner_of() says of any address. */
#include "engine.h"

#include "core/thread.h"

static struct la_owner owner_of(const void *address)
{
    struct la_owner o = { .struct_size = sizeof(o) };

    assert_int_equal(la_owner_of(address, &o), 0);
    return o;
}

static struct la_chain *named_chain(const char *name)
{
    struct la_chain *chain = NULL;

    assert_int_equal(la_chain_create(NULL, 0, &chain), 0);
    la_chain_name(chain, name);
    return chain;
}

static void every_byte_of_a_block_leads_to_it(void **state)
{
    static const size_t sizes[] = { 8, 100, 5000, 32768, 100000, MiB, 5 * MiB };
    struct la_chain *chain = named_chain("mine");

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        char *block = la_chain_alloc(chain, sizes[i]);

        for (size_t at = 0; at < sizes[i]; at += MAX(sizes[i] / 7, (size_t)1)) {
            struct la_owner o = owner_of(block + at);

            assert_ptr_equal(o.chain, chain);
            assert_string_equal(o.chain_name, "mine");
            assert_ptr_equal(o.block, block);
            assert_int_equal(o.block_size, la_usable_size(block));
            assert_true(o.live);
            assert_false(o.shared);
            assert_true((char *)o.segment_base <= block);
            assert_true((char *)o.segment_base + o.segment_size >= block + o.block_size);
        }
    }
    assert_int_equal(la_chain_destroy(chain), 0);
}

static void freed_block_is_not_live(void **state)
{
    char *a = la_malloc(200), *b = la_malloc(200);
    struct la_owner o;

    (void)state;
    la_free(a);
    o = owner_of(a + 50);
    assert_false(o.live);
    assert_ptr_equal(o.block, a);
    assert_true(owner_of(b).live);
    la_source_trim(NULL);       /* from the bin to its page */
    assert_false(owner_of(a).live);
    assert_true(owner_of(b).live);
    la_free(b);
}

static void block_that_was_never_handed_out_is_not_live(void **state)
{
    struct la_chain *chain = named_chain("");
    char *block = la_chain_alloc(chain, 1024);

    (void)state;
    assert_false(owner_of(block + 30 * KiB).live);
    assert_string_equal(owner_of(block).chain_name, "");
    assert_int_equal(la_chain_destroy(chain), 0);
}

static void live_block_that_looks_free_is_live(void **state)
{
    uint64_t *block = la_malloc(100), *copy = la_malloc(100);

    (void)state;
    la_free(block);
    memcpy(copy, opaque(block), 100);       /* with the mark of a free block */
    assert_true(owner_of(copy).live);
    la_free(copy);
}

static void buffer_is_the_segment_of_its_blocks(void **state)
{
    static char memory[20000];
    struct la_chain *chain;
    struct la_owner o;
    char *block;

    (void)state;
    assert_int_equal(la_chain_create_in(memory, sizeof(memory), 0, &chain), 0);
    block = la_chain_alloc(chain, 100);
    o = owner_of(block + 5);
    assert_ptr_equal(o.chain, chain);
    assert_ptr_equal(o.block, block);
    assert_ptr_equal(o.segment_base, memory);
    assert_int_equal(o.segment_size, sizeof(memory));
    assert_int_equal(la_chain_destroy(chain), 0);
}

static void foreign_address_is_nobodys(void **state)
{
    struct la_owner o = { .struct_size = sizeof(o), .block_size = 77 };
    int on_stack;

    (void)state;
    assert_int_equal(la_owner_of(NULL, &o), -ENOENT);
    assert_int_equal(la_owner_of(&on_stack, &o), -ENOENT);
    assert_int_equal(la_owner_of((void *)0x123456789000, &o), -ENOENT);
    assert_int_equal(la_owner_of((void *)UINTPTR_MAX, &o), -ENOENT);
    assert_int_equal(o.block_size, 77);     /* untouched */
}

static void caller_of_another_version_gets_what_it_knows(void **state)
{
    struct {
        struct la_owner o;
        char later[64];
    } newer;
    struct la_owner older;
    void *block = la_malloc(100);

    (void)state;
    memset(&newer, 0xff, sizeof(newer));
    newer.o.struct_size = sizeof(newer);
    assert_int_equal(la_owner_of(block, &newer.o), 0);
    assert_int_equal(newer.o.struct_size, sizeof(newer));
    for (unsigned i = 0; i < sizeof(newer.later); i++)
        assert_int_equal(newer.later[i], 0);

    memset(&older, 0xff, sizeof(older));
    older.struct_size = offsetof(struct la_owner, block_size);
    assert_int_equal(la_owner_of(block, &older), 0);
    assert_ptr_equal(older.block, block);
    assert_int_equal(older.block_size, SIZE_MAX);       /* not written */

    older.struct_size = 0;
    assert_int_equal(la_owner_of(block, &older), -EINVAL);
    older.struct_size = 4000;
    assert_int_equal(la_owner_of(block, &older), -EINVAL);
    assert_int_equal(la_owner_of(block, NULL), -EINVAL);
    la_free(block);
}

static void allocate(void *arg)
{
    *(void **)arg = la_malloc(300);
}

static void look_at_mine(void *arg)
{
    struct la_owner *o = arg;

    la_owner_of(o->block, o);
}

static void block_of_another_thread_is_live_and_its_chain_is_known(void **state)
{
    struct la_owner o = { .struct_size = sizeof(o), .block = la_malloc(300) };
    void *block = o.block;

    (void)state;
    in_other_thread(look_at_mine, &o);
    assert_ptr_equal(o.chain, la_tls_own);
    assert_ptr_equal(o.block, block);
    assert_true(o.live);
    la_free(block);
}

static void block_of_an_ended_thread_has_no_chain(void **state)
{
    void *block;
    struct la_owner o;

    (void)state;
    in_other_thread(allocate, &block);
    o = owner_of(block);
    assert_null(o.chain);
    assert_string_equal(o.chain_name, "");
    assert_ptr_equal(o.block, block);
    assert_true(o.live);
    la_free(block);
    la_source_trim(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_byte_of_a_block_leads_to_it),
        cmocka_unit_test(freed_block_is_not_live),
        cmocka_unit_test(block_that_was_never_handed_out_is_not_live),
        cmocka_unit_test(live_block_that_looks_free_is_live),
        cmocka_unit_test(buffer_is_the_segment_of_its_blocks),
        cmocka_unit_test(foreign_address_is_nobodys),
        cmocka_unit_test(caller_of_another_version_gets_what_it_knows),
        cmocka_unit_test(block_of_another_thread_is_live_and_its_chain_is_known),
        cmocka_unit_test(block_of_an_ended_thread_has_no_chain),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
