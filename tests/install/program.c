/* program.c - an outside user's C program: built with pkg-config against the installed copy only. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <liballoc/liballoc.h>

static char buffer[64 << 10];

#define REQUIRE(condition)                                                               \
    do {                                                                                 \
        if (!(condition)) {                                                              \
            fprintf(stderr, "program.c:%d: %s (%s)\n", __LINE__, #condition, la_last_error()); \
            exit(1);                                                                     \
        }                                                                                \
    } while (0)

static int inside(const void *block)
{
    return (const char *)block >= buffer && (const char *)block < buffer + sizeof(buffer);
}

int main(void)
{
    struct la_chain *chain = NULL;
    struct la_owner owner = { .struct_size = sizeof(owner) };
    char version[32];
    void *block;

    snprintf(version, sizeof(version), "%d.%d.%d", LA_VERSION_MAJOR, LA_VERSION_MINOR, LA_VERSION_PATCH);
    REQUIRE(strcmp(la_library_version(), version) == 0);

    REQUIRE(la_chain_create_in(buffer, sizeof(buffer), 0, &chain) == 0);
    block = la_chain_alloc(chain, 100);
    REQUIRE(block != NULL && inside(block) && la_usable_size(block) >= 100);
    la_free(block);

    LA_WITH_CHAIN(chain)
        block = la_malloc(200);
    REQUIRE(inside(block));
    REQUIRE(la_owner_of(block, &owner) == 0 && owner.chain == chain && owner.block == block);
    la_free(block);
    REQUIRE(la_default_get() == NULL);

    block = la_calloc(1000, 1000);
    REQUIRE(block != NULL && !inside(block) && memcmp(block, (char *)block + 500, 999500) == 0);
    la_free(block);
    REQUIRE(la_chain_destroy(chain) == 0);

    /* Preloaded or not is told by the caller: then malloc and la_malloc must be one engine. */
    block = malloc(123);
    REQUIRE(la_owner_of(block, &owner) == (getenv("EXPECT_PRELOAD") ? 0 : -ENOENT));
    free(block);

    REQUIRE(la_heap_check(NULL, NULL) == 0);
    return 0;
}
