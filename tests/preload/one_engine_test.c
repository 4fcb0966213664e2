/*
 * A program linked with -lalloc that runs under liballoc-malloc.so: one engine, so malloc() and la_malloc() are one heap.
 */
#include "support.h"

#include <liballoc/liballoc.h>

static struct la_owner owner_of(const void *address)
{
    struct la_owner owner = { .struct_size = sizeof(owner) };

    assert_int_equal(la_owner_of(address, &owner), 0);
    return owner;
}

static void the_library_is_mapped_once(void **state)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[1000], first[1000] = "";
    unsigned texts = 0;

    (void)state;
    assert_non_null(maps);
    while (fgets(line, sizeof(line), maps)) {
        char *name = strstr(line, "/liballoc.so");

        if (!name)
            continue;
        name = strchr(line, '/');
        if (!first[0])
            strcpy(first, name);
        assert_string_equal(name, first);
        texts += strstr(line, " r-xp ") != NULL;
    }
    fclose(maps);
    assert_int_equal(texts, 1);
}

static void the_engine_knows_blocks_of_malloc(void **state)
{
    const size_t sizes[] = { 1, 100, 5000, 100000, 5 * MiB };

    (void)state;
    for (unsigned i = 0; i < 5; i++) {
        char *block = malloc(sizes[i]);
        struct la_owner owner = owner_of(block + sizes[i] / 2);

        assert_ptr_equal(owner.block, block);
        assert_true(owner.live);
        assert_int_equal(owner.block_size, malloc_usable_size(block));
        assert_int_equal(la_usable_size(block), malloc_usable_size(block));
        free(block);
    }
}

static void either_side_frees_the_others_blocks(void **state)
{
    unsigned long misuses = la_misuse_count();
    void *block = malloc(100), *ours = la_malloc(100);

    (void)state;
    la_free(block);
    free(ours);
    block = opaque(la_realloc(opaque(malloc(100)), 5000));
    ours = opaque(realloc(opaque(la_malloc(100)), 5000));
    free(block);
    la_free(ours);
    assert_int_equal(la_misuse_count(), misuses);
    assert_int_equal(la_heap_check(NULL, NULL), 0);
}

/* Code that knows nothing of liballoc allocates in a buffer. */
static void malloc_follows_the_default_chain(void **state)
{
    static char buffer[MiB];
    struct la_chain *chain;
    char *text, *outside;
    FILE *file;

    (void)state;
    assert_int_equal(la_chain_create_in(buffer, sizeof(buffer), 0, &chain), 0);
    LA_WITH_CHAIN(chain) {
        text = strdup("in the buffer");
        file = fopen("/proc/self/status", "r");
    }
    outside = strdup("outside");
    assert_true(text > buffer && text < buffer + sizeof(buffer));
    assert_true((char *)file > buffer && (char *)file < buffer + sizeof(buffer));
    assert_false(outside > buffer && outside < buffer + sizeof(buffer));
    fclose(file);
    free(text);
    free(outside);
    assert_int_equal(la_chain_destroy(chain), 0);
}

/* A full buffer is NULL for malloc too, never memory from elsewhere. */
static void malloc_in_a_full_chain_fails(void **state)
{
    static char buffer[64 * KiB];
    struct la_chain *chain;
    unsigned count = 0;
    void *refused;

    (void)state;
    assert_int_equal(la_chain_create_in(buffer, sizeof(buffer), 0, &chain), 0);
    LA_WITH_CHAIN(chain) {
        char *block;

        while ((block = opaque(malloc(1000))) != NULL) {
            assert_true(block > buffer && block + 1000 <= buffer + sizeof(buffer));
            count++;
        }
        refused = opaque(malloc(MiB));
    }
    assert_true(count > 20);
    assert_null(refused);
    assert_int_equal(la_chain_destroy(chain), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_library_is_mapped_once),
        cmocka_unit_test(the_engine_knows_blocks_of_malloc),
        cmocka_unit_test(either_side_frees_the_others_blocks),
        cmocka_unit_test(malloc_follows_the_default_chain),
        cmocka_unit_test(malloc_in_a_full_chain_fails),
    };

    return cmocka_run_group_tests(tests, require_preload, NULL);
}
