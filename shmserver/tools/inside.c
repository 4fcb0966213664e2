/*
 * inside.c - shms roots and shms who: what lies in a heap. They attach to it for reading, so they change nothing.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include <liballoc/error.h>

#include "shms.h"
#include "table.h"

int command_roots(const struct shms *shms)
{
    struct la_heap *heap;
    struct table *table;
    const char *name;
    la_link *root;

    if (shms_attach(shms, shms->args[0], LA_HEAP_READ_ONLY, &heap) < 0)
        return shms_fail();
    table = table_begin(TABLE_ROWS, shms->json);
    for (unsigned i = 0; la_heap_root_at(heap, i, &name, &root) == 0; i++) {
        char copy[LA_HEAP_NAME_MAX + 1];
        void *value = la_load(heap, root);

        /* It need not end where it should, and may change. */
        snprintf(copy, sizeof(copy), "%.*s", LA_HEAP_NAME_MAX, name);
        table_row(table);
        table_text(table, "name", "NAME", copy);
        table_address(table, "value", "VALUE", (uint64_t)(uintptr_t)value);
        table_bytes(table, "size", "SIZE", value ? la_usable_size(value) : 0);
    }
    table_end(table);
    shms_leave(shms, heap);
    return EXIT_SUCCESS;
}

/* ---- who ---- */

struct search {
    uint64_t address;
    char heap[LA_HEAP_NAME_MAX + 1];    /* around it; "": none */
    char *start;                        /* of the block around it; NULL: none */
    size_t size;
    bool held;
    struct la_heap_process holder;      /* pid 0: nobody, or nobody knows */
};

static void look_at_heap(void *user, const struct shms_heap *heap)
{
    struct search *search = user;

    if (search->address >= heap->address && search->address - heap->address < heap->size)
        snprintf(search->heap, sizeof(search->heap), "%s", heap->name);
}

static void look_at_block(void *user, void *block, size_t size, bool held)
{
    struct search *search = user;

    if (search->address - (uintptr_t)block >= size)
        return;
    search->start = block;
    search->size = size;
    search->held = held;
}

static void print_found(const struct shms *shms, const struct search *search)
{
    struct table *table = table_begin(TABLE_FIELDS, shms->json);

    table_row(table);
    table_text(table, "heap", "heap", search->heap);
    if (search->start) {
        table_address(table, "block", "block", (uint64_t)(uintptr_t)search->start);
        table_bytes(table, "size", "size", search->size);
        table_number(table, "offset", "offset in it", search->address - (uintptr_t)search->start);
    } else {
        table_unknown(table, "block", "block");
        table_unknown(table, "size", "size");
        table_unknown(table, "offset", "offset in it");
    }
    table_text(table, "state", "state", !search->start ? "free" : search->held ? "held by a process" : "kept by the heap");
    if (search->holder.pid) {
        table_number(table, "pid", "process", (uint64_t)search->holder.pid);
        table_text(table, "command", "command", search->holder.command);
    }
    table_end(table);
}

int command_who(const struct shms *shms)
{
    struct search search = { 0 };
    struct la_heap *heap;
    char *end;
    long n;

    errno = 0;
    search.address = strtoull(shms->args[0], &end, 0);
    if (errno || *end || end == shms->args[0]) {
        fprintf(stderr, "shms: \"%s\" is no address such as 0x410000200040\n", shms->args[0]);
        return EXIT_USAGE;
    }
    if (shms_list_heaps(shms, look_at_heap, &search) < 0)
        return shms_fail();
    if (!search.heap[0]) {
        fprintf(stderr, "shms: %s is in no heap that can be seen here: `shms info` tells where they are\n", shms->args[0]);
        return EXIT_REFUSED;
    }
    if (shms_attach(shms, search.heap, LA_HEAP_READ_ONLY, &heap) < 0)
        return shms_fail();
    n = la_heap_walk(heap, look_at_block, &search);
    /* It may have changed hands since it was found: then what is told of it is of two moments. */
    if (search.held && la_heap_holder(heap, search.start, &search.holder) < 0)
        search.holder.pid = 0;
    if (n >= 0)
        print_found(shms, &search);
    shms_leave(shms, heap);
    return n < 0 ? shms_fail() : EXIT_SUCCESS;
}
