/*
 * group.c - objects of one lifetime, freed at once.
 *
 * A server handles a request: what it needs for that lives in a group, and what it needs for a part of it in a group
 * inside. At the end one call frees everything, in time that does not depend on the number of objects, and runs what
 * was registered, last first.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <liballoc/liballoc.h>

enum { HEADERS = 100000 };

struct header {
    struct header *next;
    char text[24];
};

static char closed[64];         /* in which order things were closed */

static void close_thing(void *name)
{
    strcat(strcat(closed, name), " ");
}

/* A list that nobody will take apart. */
static struct header *parse_headers(struct la_group *request)
{
    struct header *list = NULL;

    for (int i = 0; i < HEADERS; i++) {
        struct header *header = la_group_alloc(request, sizeof(*header));

        if (!header)
            return NULL;
        snprintf(header->text, sizeof(header->text), "x-header-%d", i);
        header->next = list;
        list = header;
    }
    return list;
}

static uint64_t live_blocks(struct la_group *group)
{
    struct la_stats stats = { .struct_size = sizeof(stats) };

    la_chain_stats(la_group_chain(group), &stats);
    return stats.blocks;
}

int main(void)
{
    struct la_group *request, *reply;

    if (la_group_create(NULL, NULL, &request) < 0 || la_group_create(request, NULL, &reply) < 0 ||
        la_group_on_free(request, close_thing, "connection") < 0 || la_group_on_free(reply, close_thing, "file") < 0) {
        fprintf(stderr, "%s\n", la_last_error());
        return EXIT_FAILURE;
    }
    if (!parse_headers(request) || !la_group_alloc(reply, 1 << 20)) {
        fprintf(stderr, "%s\n", la_last_error());
        return EXIT_FAILURE;
    }
    printf("request: %llu blocks, reply: %llu\n", (unsigned long long)live_blocks(request),
           (unsigned long long)live_blocks(reply));

    la_group_free_all(request);
    printf("freed at once: %llu blocks left; closed, last first: %s\n", (unsigned long long)live_blocks(request),
           closed);
    if (live_blocks(request) != 0 || strcmp(closed, "file connection ") != 0)
        return EXIT_FAILURE;

    /* The group itself is ready for the next request; its child is gone. */
    if (!parse_headers(request))
        return EXIT_FAILURE;
    printf("the same group again: %llu blocks\n", (unsigned long long)live_blocks(request));
    la_group_destroy(request);
    return EXIT_SUCCESS;
}
