/*
 * shared_roots.c - the names of roots. Their values are links: publish.c; with versions: root_swap.c.
 */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "core/shared_format.h"
#include "core/shared_heap.h"

static uint64_t root_hash(const char *name)
{
    uint64_t hash = 0xcbf29ce484222325;     /* FNV-1a */

    for (; *name; name++)
        hash = (hash ^ (unsigned char)*name) * 0x100000001b3;
    return hash & ~3ull;
}

static int find_root(struct la_heap *heap, const char *name, la_link **ret)
{
    const char *found;

    for (unsigned i = 0; la_heap_root_at(heap, i, &found, ret) == 0; i++)
        if (strncmp(found, name, LA_HEAP_NAME_MAX + 1) == 0)
            return 0;
    return la_fail(-ENOENT, "heap %s has no root \"%s\", and is attached for reading only", heap->header->name, name);
}

/*
 * Everybody walks the table in the same order and claims the first free entry with the hash of the name, so two who name the same
 * root at once meet in one entry; either finishes what the other may have died in.
 */
int la_heap_root(struct la_heap *heap, const char *name, la_link **ret)
{
    uint64_t hash;
    int r = heap_check_attached(heap);

    if (r == 0)
        r = heap_check_name(name);
    if (r < 0)
        return r;
    if (heap->flags & LA_HEAP_READ_ONLY)
        return find_root(heap, name, ret);
    hash = root_hash(name);
    for (unsigned i = 0; i < LA_HEAP_MAX_ROOTS; i++) {
        struct heap_root *root = &heap->roots[i];
        uint64_t state = ROOT_FREE;

        atomic_compare_exchange_strong(&root->state, &state, hash | ROOT_NAMING);
        if (state == ROOT_FREE || state == (hash | ROOT_NAMING)) {
            strncpy(root->name, name, sizeof(root->name) - 1);
            atomic_store_explicit(&root->state, hash | ROOT_NAMED, memory_order_release);
        } else if (state != (hash | ROOT_NAMED) || strncmp(root->name, name, sizeof(root->name)) != 0) {
            continue;
        }
        *ret = (la_link *)&root->value;
        return 0;
    }
    return la_fail(-ENOSPC, "heap %s: all %d roots are named, and a name is for good: let root \"%.*s\" lead to a table of pointers, or use one of their names",
                   heap->header->name, LA_HEAP_MAX_ROOTS, LA_HEAP_NAME_MAX, heap->roots[0].name);
}

int la_heap_root_at(struct la_heap *heap, unsigned index, const char **name, la_link **ret)
{
    for (unsigned i = 0; i < LA_HEAP_MAX_ROOTS; i++) {
        struct heap_root *root = &heap->roots[i];

        if ((atomic_load_explicit(&root->state, memory_order_acquire) & 3) == ROOT_NAMED && index-- == 0) {
            *name = root->name;
            *ret = (la_link *)&root->value;
            return 0;
        }
    }
    return -ENOENT;
}
