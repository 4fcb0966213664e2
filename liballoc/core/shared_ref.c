/*
 * shared_ref.c - objects that others may free while they are read: validated by the generation of their block.
 *
 * A block's generation moves when it is freed or taken (R10). So what was read between two looks at the state word, both of the same generation and
 * of a block that is the heap's, is of one object. Acquire on every load keeps the looks outside. Nothing is written: it works in a
 * heap that is mapped for reading.
 */
#include <errno.h>
#include <string.h>

#include <liballoc/error.h>

#include "base/error.h"
#include "core/publish.h"
#include "core/shared_block.h"

/* Whoever holds it may write into it, and frees it next. */
static bool is_readable(word_t w, unsigned epoch)
{
    return word_state(w, epoch) == WORD_HEAP || word_state(w, epoch) == WORD_IN_DOUBT;
}

/* 0; -ENOENT: NULL; -EAGAIN: the link leads to a block that is being taken or was freed. */
static int try_get(struct la_heap *heap, la_link *link, struct la_ref *ret)
{
    void *block = la_load(heap, link);
    struct block_ref ref;
    word_t w;

    if (!block)
        return -ENOENT;
    if (!block_find(heap, block, &ref) || ref.start != block)
        return la_load(heap, link) == block ? la_fail(-EINVAL, "link %p points to %p, which is no block of heap %s", (void *)link, block,
                                                      heap->header->name) : -EAGAIN;
    w = atomic_load_explicit(ref.word, memory_order_acquire);
    if (!is_readable(w, ref.epoch))
        return -EAGAIN;
    *ret = (struct la_ref){ .block = block, .generation = word_generation(w), .epoch = ref.epoch };
    return 0;
}

int la_ref_get(struct la_heap *heap, la_link *link, struct la_ref *ret)
{
    int r;

    if (!heap_link_is_valid(heap, link))
        return la_fail(-EINVAL, "link %p is no pointer-sized, aligned word of heap %s", (void *)link, heap->header->name);
    for (;;) {
        uintptr_t seen = atomic_load_explicit(link_bits(link), memory_order_acquire);

        r = try_get(heap, link, ret);
        if (r != -EAGAIN)
            return r;
        if (is_marked_still(link, seen) && (!is_marked(seen) || heap->flags & LA_HEAP_READ_ONLY))
            return la_fail(-EAGAIN, "what link %p points to is held by somebody: it is being taken, or was never published", (void *)link);
        if (is_marked(seen) && !(heap->flags & LA_HEAP_READ_ONLY) && link_help(heap, link, seen) < 0)
            return la_last_error_code();
    }
}

static bool find_valid(struct la_heap *heap, const struct la_ref *ref, struct block_ref *block)
{
    word_t w;

    if (!block_find(heap, ref->block, block) || block->start != ref->block || block->epoch != ref->epoch)
        return false;
    w = atomic_load_explicit(block->word, memory_order_acquire);
    return is_readable(w, block->epoch) && word_generation(w) == ref->generation;
}

bool la_ref_is_valid(struct la_heap *heap, const struct la_ref *ref)
{
    struct block_ref block;

    return find_valid(heap, ref, &block);
}

/* By whole words where they are aligned: others may write there. */
static void copy(char *to, const char *from, size_t size)
{
    while (size > 0) {
        size_t n = (uintptr_t)from % sizeof(uint64_t) || size < sizeof(uint64_t) ? 1 : sizeof(uint64_t);

        if (n == 1)
            *to = __atomic_load_n(from, __ATOMIC_ACQUIRE);
        else
            memcpy(to, &(uint64_t){ __atomic_load_n((const uint64_t *)from, __ATOMIC_ACQUIRE) }, n);
        to += n;
        from += n;
        size -= n;
    }
}

int la_ref_read(struct la_heap *heap, const struct la_ref *ref, size_t offset, void *to, size_t size)
{
    struct block_ref block;

    if (!find_valid(heap, ref, &block))
        return -ESTALE;
    if (offset > block.size || size > block.size - offset)
        return la_fail(-EINVAL, "%zu bytes at %zu do not lie in the block of %zu bytes", size, offset, block.size);
    copy(to, block.start + offset, size);
    return find_valid(heap, ref, &block) ? 0 : -ESTALE;
}
