/* inherit_test.c - os/inherit.c, and what the engine makes of it: what a child of fork() does not have, nothing of ours touches there. */
#include "engine.h"

#include "child.h"
#include "core/page.h"
#include "os/inherit.h"
#include "os/os.h"
#include "os/vspace.h"

#define MIB ((size_t)1 << 20)

static bool is_forbidden(const void *p)
{
    bool is;

    vspace_lock();
    is = inherit_is_forbidden(p);
    vspace_unlock();
    return is;
}

static bool is_readable(const void *p)
{
    int ends[2];
    bool ok = pipe(ends) == 0 && write(ends[1], p, 1) == 1;

    close(ends[0]);
    close(ends[1]);
    return ok;
}

static void look_for_ranges(void *arg)
{
    char **range = arg;
    char *other;

    CHECK(is_readable(range[0]));           /* allowed again */
    CHECK(!is_readable(range[1]));
    for (int i = 0; i < 100; i++) {         /* nothing comes to lie there */
        other = os_map(MIB);
        CHECK(other && (other + MIB <= range[1] || other >= range[1] + MIB));
    }
    CHECK(!is_forbidden(range[1]));
}

static void child_has_a_fence_where_the_memory_was(void **state)
{
    char *range[2] = { os_map(MIB), os_map(MIB) };

    (void)state;
    skip_if_emulated("children inherit all memory");
    memset(range[0], 1, MIB);
    memset(range[1], 1, MIB);
    assert_int_equal(inherit_forbid(range[0], MIB), 0);
    assert_int_equal(inherit_forbid(range[1], MIB), 0);
    assert_int_equal(inherit_forbid(range[1] + 4096, MIB), -EEXIST);
    assert_true(is_forbidden(range[1] + MIB - 1));
    inherit_allow(range[0], MIB);
    assert_false(is_forbidden(range[0]));
    inherit_allow(range[0], MIB);           /* does nothing */
    assert_int_equal(run_in_child(look_for_ranges, range), 0);
    assert_true(is_readable(range[1]));
    inherit_allow(range[1], MIB);
    os_unmap(range[0], MIB);
    os_unmap(range[1], MIB);
}

static void what_is_not_mapped_is_refused(void **state)
{
    char *p = os_map(MIB);

    (void)state;
    skip_if_emulated("what is not mapped is accepted");
    os_unmap(p, MIB);
    assert_int_equal(inherit_forbid(p, MIB), -ENOMEM);
    assert_false(is_forbidden(p));
}

/* ---- chains ---- */

static int acquire(void *self, size_t min, size_t wanted, struct la_range *ret)
{
    (void)self;
    (void)min;
    *ret = (struct la_range){ os_map(wanted), wanted };
    return ret->base ? inherit_forbid(ret->base, wanted) : -ENOMEM;
}

static void release(void *self, struct la_range range)
{
    (void)self;
    inherit_allow(range.base, range.size);
    os_unmap(range.base, range.size);
}

struct chains {
    struct la_source *source;
    struct la_chain *chain[2];      /* plain, thread-safe */
    char *small, *own_large, *large, *huge, *freed;
    struct misuse_record misuse;
};

static void setup_chains(struct chains *c)
{
    struct la_source_ops ops = { .struct_size = sizeof(ops), .name = "device's", .acquire = acquire, .release = release,
                                 .flags = LA_SOURCE_NOT_INHERITED };

    assert_int_equal(la_source_create(&ops, NULL, &c->source), 0);
    assert_int_equal(la_chain_create(c->source, 0, &c->chain[0]), 0);
    assert_int_equal(la_chain_create(c->source, LA_CHAIN_MT, &c->chain[1]), 0);
    for (int i = 0; i < 100; i++)
        c->small = la_chain_alloc(c->chain[0], 100);
    c->freed = la_chain_alloc(c->chain[0], 100);
    la_free(c->freed);
    c->own_large = la_chain_alloc(c->chain[0], 100000);
    c->large = la_chain_alloc(c->chain[1], 100000);
    c->huge = la_chain_alloc(c->chain[1], 5 * MIB);
    record_misuse(&c->misuse);
}

static void end_chains(struct chains *c)
{
    assert_chain_is_sound(c->chain[0]);
    assert_int_equal(la_chain_destroy(c->chain[0]), 0);
    assert_int_equal(la_chain_destroy(c->chain[1]), 0);
    assert_int_equal(la_source_destroy(c->source), 0);
}

static void use_lost_chains(void *arg)
{
    struct chains *c = arg;
    struct la_stats stats = { .struct_size = sizeof(stats) };
    struct la_owner owner = { .struct_size = sizeof(owner) };
    struct la_chain *chain;
    char *blocks[] = { c->small, c->large, c->huge, c->freed };

    for (unsigned i = 0; i < 2; i++) {
        CHECK(!la_chain_alloc(c->chain[i], 100) && !la_chain_alloc(c->chain[i], 100000) && !la_chain_alloc(c->chain[i], 5 * MIB));
        CHECK(la_last_error_code() == -ECHILD);
        CHECK(!la_chain_calloc(c->chain[i], 1, 100) && !la_chain_aligned_alloc(c->chain[i], 64, 100));
    }
    for (unsigned i = 0; i < ARRAY_SIZE(blocks); i++) {
        la_free(blocks[i]);
        CHECK(c->misuse.count == i + 1 && strstr(c->misuse.text, "is the parent's"));
        CHECK(la_owner_of(blocks[i] + 50, &owner) == 0);
    }
    CHECK(!la_realloc(c->small, 1000));
    /* Nor if it becomes the default there. */
    c->misuse.count = 0;
    la_default_set(c->chain[0]);
    la_free(c->own_large);
    CHECK(c->misuse.count == 1 && strstr(c->misuse.text, "is the parent's"));
    CHECK(!la_realloc(c->own_large, 90000) && !la_realloc(c->small, 100));
    CHECK(la_usable_size(c->own_large) >= 100000);
    la_default_set(NULL);
    CHECK(la_chain_create(c->source, 0, &chain) == -ECHILD);
    CHECK(la_chain_stats(c->chain[0], &stats) == 0 && la_process_stats(&stats) == 0);
    CHECK(la_chain_check(c->chain[0], NULL, NULL) == 0 && la_heap_check(NULL, NULL) == 0);
    la_source_trim(c->source);
    CHECK(la_chain_reset(c->chain[0]) == 0);
    CHECK(la_chain_destroy(c->chain[0]) == 0 && la_chain_destroy(c->chain[1]) == 0);
    CHECK(la_source_destroy(c->source) == 0);
    la_free(la_malloc(100));
}

static void chain_of_the_parent_gives_nothing_and_touches_nothing(void **state)
{
    struct chains c;

    (void)state;
    setup_chains(&c);
    assert_int_equal(run_in_child(use_lost_chains, &c), 0);
    la_free(c.small);
    la_free(c.own_large);
    la_free(c.large);
    la_free(c.huge);
    assert_int_equal(c.misuse.count, 0);
    end_chains(&c);
}

static void use_malloc(void *arg)
{
    char *block = la_malloc(100);

    (void)arg;
    CHECK(block && !la_default_get());
    memset(block, 1, 100);
    la_free(block);
    CHECK(la_heap_check(NULL, NULL) == 0);
}

static void default_chain_of_the_child_is_its_own(void **state)
{
    struct chains c;
    int status = -1;

    (void)state;
    setup_chains(&c);
    for (unsigned i = 0; i < 2; i++) {
        la_default_set(c.chain[i]);
        status = run_in_child(use_malloc, NULL);
        assert_ptr_equal(la_default_set(NULL), c.chain[i]);
        assert_int_equal(status, 0);
    }
    end_chains(&c);
}

/* With its descriptors in the buffer: the child must not even look at the chain. */
static void chain_in_a_forbidden_buffer_is_unknown_to_the_child(void **state)
{
    char *buffer = os_map(4 * MIB);
    struct la_chain *chain[2];
    int status;

    (void)state;
    assert_int_equal(la_chain_create_in(buffer, 2 * MIB, LA_CHAIN_MT, &chain[0]), 0);
    assert_int_equal(la_chain_create_in(buffer + 2 * MIB, MIB, 0, &chain[1]), 0);
    assert_non_null(la_chain_alloc(chain[0], 100));
    assert_int_equal(inherit_forbid(buffer, 4 * MIB), 0);
    assert_int_equal(run_in_child(use_malloc, NULL), 0);
    la_default_set(chain[1]);
    status = run_in_child(use_malloc, NULL);
    la_default_set(NULL);
    assert_int_equal(status, 0);
    assert_non_null(la_chain_alloc(chain[0], 100));
    assert_heap_is_sound();
    inherit_allow(buffer, 4 * MIB);
    assert_int_equal(la_chain_destroy(chain[0]) | la_chain_destroy(chain[1]), 0);
    os_unmap(buffer, 4 * MIB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(child_has_a_fence_where_the_memory_was),
        cmocka_unit_test(what_is_not_mapped_is_refused),
        cmocka_unit_test(chain_of_the_parent_gives_nothing_and_touches_nothing),
        cmocka_unit_test(default_chain_of_the_child_is_its_own),
        cmocka_unit_test(chain_in_a_forbidden_buffer_is_unknown_to_the_child),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
