/*
 * user_buffer.c - a 64 KiB static array as a heap.
 *
 * Everything comes from inside the array, also what the allocator has to remember. When it is full the answer is NULL,
 * never memory from elsewhere: for programs that may not grow, and for buffers of special memory.
 */
#include <stdio.h>
#include <stdlib.h>

#include <liballoc/liballoc.h>

struct node {
    struct node *next;
    int value;
};

static char buffer[64 << 10];

static bool is_inside(const void *p, size_t size)
{
    return (const char *)p >= buffer && (const char *)p + size <= buffer + sizeof(buffer);
}

/* Allocate until nothing is left; false: a node lies outside the buffer. */
static bool fill(struct la_chain *chain, struct node **list, unsigned *nodes)
{
    struct node *node;

    while ((node = la_chain_alloc(chain, sizeof(*node)))) {
        if (!is_inside(node, sizeof(*node)))
            return false;
        node->next = *list;
        node->value = (int)(*nodes)++;
        *list = node;
    }
    return true;
}

static void free_list(struct node *list)
{
    while (list) {
        struct node *next = list->next;

        la_free(list);      /* finds the chain by the address */
        list = next;
    }
}

int main(void)
{
    struct la_chain *chain;
    struct node *list = NULL;
    unsigned first = 0, again = 0;

    if (la_chain_create_in(buffer, sizeof(buffer), 0, &chain) < 0) {
        fprintf(stderr, "%s\n", la_last_error());
        return EXIT_FAILURE;
    }
    if (!fill(chain, &list, &first)) {
        fprintf(stderr, "a block lies outside the buffer\n");
        return EXIT_FAILURE;
    }
    printf("%u nodes of %zu bytes fit into a buffer of %zu; for the next one the answer is NULL\n", first,
           sizeof(struct node), sizeof(buffer));

    free_list(list);
    list = NULL;
    if (!fill(chain, &list, &again) || again != first || la_chain_check(chain, NULL, NULL) != 0) {
        fprintf(stderr, "after freeing them all, only %u nodes fit\n", again);
        return EXIT_FAILURE;
    }
    printf("after freeing them all, %u fit again\n", again);
    return la_chain_destroy(chain) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
