/*
 * default_chain.c - let code that knows nothing of chains allocate where you want.
 *
 * library_parse() stands for code that one cannot change: it calls la_malloc(), or plain malloc() in a program that
 * links or preloads liballoc-malloc.so. The caller chooses where that goes, for its own thread.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <liballoc/liballoc.h>

static _Alignas(4096) char near_memory[1 << 20];

/* A copy of each word of @text; the last one is NULL. */
static char **library_parse(const char *text)
{
    char **words = la_calloc(strlen(text) / 2 + 2, sizeof(char *));
    size_t n = 0;

    for (size_t length; words && *text; text += length + strspn(text + length, " ")) {
        length = strcspn(text, " ");
        words[n] = la_calloc(1, length + 1);
        if (!words[n])
            return NULL;
        memcpy(words[n++], text, length);
    }
    return words;
}

/* Which chain serves @block: looked up by its address. */
static const char *chain_name_of(const void *block)
{
    struct la_owner owner = { .struct_size = sizeof(owner) };

    if (la_owner_of(block, &owner) < 0)
        return "nobody we know";
    return owner.chain_name[0] ? owner.chain_name : "the thread's own chain";
}

static bool all_from(char **words, const char *chain_name)
{
    for (; *words; words++)
        if (strcmp(chain_name_of(*words), chain_name) != 0)
            return false;
    return true;
}

/* LA_WITH_CHAIN puts the old default back however the statement is left; here by return. */
static char **parse_into(struct la_chain *chain, const char *text)
{
    LA_WITH_CHAIN(chain)
        return library_parse(text);
    return NULL;    /* not reached */
}

int main(void)
{
    struct la_chain *chain;
    char **words, *outside;

    if (la_chain_create_in(near_memory, sizeof(near_memory), 0, &chain) < 0) {
        fprintf(stderr, "%s\n", la_last_error());
        return EXIT_FAILURE;
    }
    la_chain_name(chain, "near");

    words = parse_into(chain, "the library does not know where it allocates");
    outside = la_malloc(100);
    if (!words || !outside)
        return EXIT_FAILURE;
    printf("inside the switch:  \"%s\" is served by %s\n", words[1], chain_name_of(words[1]));
    printf("after the switch:   100 bytes are served by %s\n", chain_name_of(outside));
    if (!all_from(words, "near") || strcmp(chain_name_of(outside), "near") == 0 || la_default_get())
        return EXIT_FAILURE;
    la_free(outside);

    /* A chain that is somebody's default cannot go away under it. */
    la_default_set(chain);
    if (la_chain_destroy(chain) == 0)
        return EXIT_FAILURE;
    printf("destroy is refused: %s\n", la_last_error());
    la_default_set(NULL);

    return la_chain_destroy(chain) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;      /* frees all words */
}
