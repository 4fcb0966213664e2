#include "image.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- sets of hashes ---- */

static bool set_insert(uint64_t *slots, uint32_t mask, uint64_t hash)
{
    uint32_t i = (uint32_t)hash & mask;

    for (; slots[i]; i = (i + 1) & mask)
        if (slots[i] == hash)
            return false;
    slots[i] = hash;
    return true;
}

static void set_grow(struct image_set *set)
{
    uint32_t mask = set->slots ? set->mask * 2 + 1 : 1023;
    uint64_t *slots = calloc(mask + 1u, sizeof(*slots));

    if (!slots)
        abort();
    for (uint32_t i = 0; set->slots && i <= set->mask; i++)
        if (set->slots[i])
            set_insert(slots, mask, set->slots[i]);
    free(set->slots);
    set->slots = slots;
    set->mask = mask;
}

bool image_set_add(struct image_set *set, uint64_t hash)
{
    if (set->used * 2 >= set->mask)
        set_grow(set);
    if (!set_insert(set->slots, set->mask, hash | 1))
        return false;
    set->used++;
    return true;
}

void image_set_free(struct image_set *set)
{
    free(set->slots);
    *set = (struct image_set){ 0 };
}

/* ---- images ---- */

static uint64_t mix(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)(a ^ 0x9e3779b97f4a7c15u) * (b ^ 0xe7037ed1a0b428dbu);

    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Pages are combined by exclusive or, so that one that changes is taken out and put in again. */
static uint64_t hash_page(uint32_t page, const char *bytes)
{
    const uint64_t *word = (const uint64_t *)bytes;
    uint64_t h = page + 1, any = 0;

    for (unsigned i = 0; i < TRACE_PAGE / 8; i++) {
        any |= word[i];
        h = mix(h + i, word[i]);
    }
    return any ? h | 1 : 0;
}

static void set_page(struct images *images, uint32_t page)
{
    uint64_t h = hash_page(page, images->bytes + (size_t)page * TRACE_PAGE);

    images->hash ^= images->page_hash[page] ^ h;
    images->page_hash[page] = h;
}

static void apply(struct images *images)
{
    const struct trace *trace = images->trace;

    for (; images->next < trace->change_count && trace->changes[images->next].step == images->step; images->next++) {
        uint32_t page = trace->changes[images->next].page;

        memcpy(images->bytes + (size_t)page * TRACE_PAGE, trace->pages + (size_t)images->next * TRACE_PAGE, TRACE_PAGE);
        set_page(images, page);
    }
}

void images_open(struct images *images, const struct trace *trace)
{
    *images = (struct images){ .trace = trace };
    images->bytes = mmap(NULL, trace->file_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    images->page_hash = calloc(trace->file_size / TRACE_PAGE, sizeof(uint64_t));
    if (images->bytes == MAP_FAILED || !images->page_hash)
        abort();
}

bool images_next(struct images *images)
{
    const struct trace *trace = images->trace;

    if (!images->begun) {
        images->begun = true;       /* step 0: what was there before */
        apply(images);
        return true;
    }
    if (images->next == trace->change_count)
        return false;
    images->step = trace->changes[images->next].step;
    images->at = trace->changes[images->next].at;
    apply(images);
    return true;
}

int images_file(const struct images *images)
{
    uint32_t pages = (uint32_t)(images->trace->file_size / TRACE_PAGE), end;
    int fd = memfd_create("crash-image", MFD_CLOEXEC);

    if (fd < 0 || ftruncate(fd, (off_t)images->trace->file_size) < 0)
        abort();
    for (uint32_t page = 0; page < pages; page = end + 1) {
        size_t at = (size_t)page * TRACE_PAGE, size;

        for (end = page; end < pages && images->page_hash[end]; end++)
            ;
        size = (size_t)(end - page) * TRACE_PAGE;
        if (size && pwrite(fd, images->bytes + at, size, (off_t)at) != (ssize_t)size)
            abort();
    }
    return fd;
}

void images_close(struct images *images)
{
    munmap(images->bytes, images->trace->file_size);
    free(images->page_hash);
}
