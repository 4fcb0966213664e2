/*
 * count.c - read a file and count its words in blocks of a bundle.
 *
 * The tallies are blocks of the shared heap from the beginning, so that nothing is copied when the file is done. Until
 * then only this process knows them, through a hash table in its private memory; when it dies, they are free.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "count.h"
#include "steps.h"

enum { SLOTS_MIN = 1 << 10, READ_MIN = 1 << 16 };

/* A file in private memory; kept and used again for the next one. */
static struct {
    char *bytes;
    size_t size, capacity;
} text;

/* The tallies of the open bundle, in list order and by open addressing. */
static struct {
    struct tally **slot;
    size_t slots;               /* in use now, a power of two */
    size_t capacity;            /* allocated */
    struct tally *first, **end;
    uint32_t tallies;
} found;

/* ---- the text ---- */

static int read_all(int fd)
{
    ssize_t n;

    text.size = 0;
    do {
        if (text.capacity - text.size < READ_MIN) {
            size_t capacity = 2 * text.capacity + READ_MIN;
            char *bytes = la_realloc(text.bytes, capacity);

            if (!bytes)
                return -ENOMEM;
            text.bytes = bytes;
            text.capacity = capacity;
        }
        n = read(fd, text.bytes + text.size, text.capacity - text.size);
        if (n > 0)
            text.size += (size_t)n;
    } while (n > 0 || (n < 0 && errno == EINTR));
    return n < 0 ? -errno : 0;
}

static int read_file(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC), r;

    if (fd < 0)
        return -errno;
    r = read_all(fd);
    close(fd);
    return r;
}

static bool is_letter(unsigned char c)
{
    return (unsigned)(c | 0x20) - 'a' < 26;
}

/* The next word from @at on, made lower case where it stands; its length, 0: no more. */
static size_t next_word(char *at, const char *end, char **ret)
{
    char *p = at;

    while (p < end && !is_letter((unsigned char)*p))
        p++;
    *ret = p;
    for (; p < end && is_letter((unsigned char)*p); p++)
        *p |= 0x20;
    return (size_t)(p - *ret);
}

/* ---- the tallies ---- */

static int use_slots(size_t slots)
{
    if (slots > found.capacity) {
        struct tally **slot = la_realloc(found.slot, slots * sizeof(struct tally *));

        if (!slot)
            return -ENOMEM;
        found.slot = slot;
        found.capacity = slots;
    }
    memset(found.slot, 0, slots * sizeof(struct tally *));
    found.slots = slots;
    return 0;
}

static int forget_tallies(void)
{
    found.first = NULL;
    found.end = &found.first;
    found.tallies = 0;
    return use_slots(SLOTS_MIN);
}

static struct tally **slot_of(const char *word, size_t length, uint32_t hash)
{
    size_t i = hash & (found.slots - 1);

    for (; found.slot[i]; i = (i + 1) & (found.slots - 1)) {
        const struct tally *tally = found.slot[i];

        if (tally->hash == hash && tally->length == length && memcmp(tally->text, word, length) == 0)
            break;
    }
    return &found.slot[i];
}

static int grow_slots(void)
{
    int r = use_slots(2 * found.slots);

    for (struct tally *t = found.first; r == 0 && t; t = t->next)
        *slot_of(t->text, t->length, t->hash) = t;
    return r;
}

static int add_tally(struct la_bundle *bundle, struct tally **slot, const char *word, size_t length, uint32_t hash)
{
    struct tally *tally = la_bundle_alloc(bundle, sizeof(*tally) + length);

    if (!tally)
        return -ENOMEM;
    step(true);
    *tally = (struct tally){ .index = found.tallies, .count = 1, .hash = hash, .length = (uint32_t)length };
    memcpy(tally->text, word, length);
    *slot = *found.end = tally;
    found.end = &tally->next;
    found.tallies++;
    return found.tallies * 2 > found.slots ? grow_slots() : 0;
}

static int count_words(struct la_bundle *bundle)
{
    const char *end = text.bytes + text.size;
    char *at = text.bytes, *word;
    size_t length;
    int r = forget_tallies();

    for (; r == 0 && (length = next_word(at, end, &word)) > 0; at = word + length) {
        uint32_t hash = hash_of(word, length);
        struct tally **slot = slot_of(word, length, hash);

        if (*slot)
            (*slot)->count++;
        else
            r = add_tally(bundle, slot, word, length, hash);
    }
    return r;
}

int count_file(struct la_heap *heap, struct file *file)
{
    struct la_bundle *bundle;
    int r = read_file(file->path);

    if (r < 0)
        return r;
    r = la_bundle_begin(heap, &bundle);
    if (r < 0)
        return r;
    r = count_words(bundle);
    if (r == 0 && found.first) {
        step(true);
        r = la_bundle_publish(bundle, &file->tallies, NULL, found.first);
        step(false);
        if (r == 0)
            return 0;
    }
    la_bundle_abort(bundle);
    if (r == 0)
        file->merged = ALL_MERGED;
    return r;
}
