/*
 * heap_inspect.c NAME TEXT - find TEXT in the live blocks of a shared heap that other processes work in.
 *
 * For each block that contains it: its address (which is the same in those processes), its size, and what la_owner_of()
 * knows of it. Exit status 0: found.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <liballoc/liballoc.h>

struct search {
    const char *text;
    size_t length;
    long found;
};

static void look_into(void *user, void *block, size_t size, bool held)
{
    struct search *search = user;
    struct la_owner owner = { .struct_size = sizeof(owner) };
    const char *at = memmem(block, size, search->text, search->length);

    if (!at)
        return;
    if (la_owner_of(at, &owner) < 0 || owner.block != block || !owner.shared || !owner.live) {
        fprintf(stderr, "la_owner_of(%p) disagrees with la_heap_walk() about block %p\n", (const void *)at, block);
        exit(EXIT_FAILURE);
    }
    search->found++;
    printf("%p: \"%s\" at byte %td of a block of %zu bytes%s, heap mapped at %p\n", block, search->text,
           at - (const char *)block, size, held ? ", held by a process" : "", owner.segment_base);
}

int main(int argc, char **argv)
{
    struct search search = { 0 };
    struct la_heap *heap;
    long blocks;

    if (argc != 3 || !*argv[2]) {
        fprintf(stderr, "usage: heap-inspect NAME TEXT\n");
        return 2;
    }
    search.text = argv[2];
    search.length = strlen(argv[2]);
    if (la_heap_attach(argv[1], 0, &heap) < 0) {
        fprintf(stderr, "heap-inspect: %s\n", la_last_error());
        return EXIT_FAILURE;
    }
    blocks = la_heap_walk(heap, look_into, &search);
    la_heap_detach(heap);
    if (blocks < 0) {
        fprintf(stderr, "heap-inspect: %s\n", la_last_error());
        return EXIT_FAILURE;
    }
    printf("%ld live blocks, %ld with the text\n", blocks, search.found);
    return search.found > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
