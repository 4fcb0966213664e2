/*
 * range_table.c - one sorted array, found by bisection, changed by moving its tail.
 *
 * A tree would move less; with at most some thousand entries that change once per attach, the array is smaller
 * and a reader sees at once that it is right.
 */
#include "os/range_table.h"

#include <errno.h>
#include <string.h>

#include "os/os.h"

/* Index of the first entry that ends after @address. */
static size_t first_after(const struct range_table *table, uintptr_t address)
{
    size_t low = 0, high = table->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (table->entries[middle].end <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static size_t bytes_for(size_t capacity)
{
    return align_up(capacity * sizeof(struct range_entry), os_page_size());
}

static int grow(struct range_table *table)
{
    size_t capacity = bytes_for(table->capacity ? 2 * table->capacity : 1) / sizeof(struct range_entry);
    struct range_entry *entries = os_map(bytes_for(capacity));

    if (!entries)
        return -ENOMEM;
    if (table->count > 0)
        memcpy(entries, table->entries, table->count * sizeof(*entries));
    if (table->entries)
        os_unmap(table->entries, bytes_for(table->capacity));
    table->entries = entries;
    table->capacity = capacity;
    return 0;
}

int range_insert(struct range_table *table, uintptr_t start, uintptr_t end, uint64_t tag)
{
    size_t at = first_after(table, start);

    if (at < table->count && table->entries[at].start < end)
        return -EEXIST;
    if (table->count == table->capacity && grow(table) < 0)
        return -ENOMEM;
    memmove(table->entries + at + 1, table->entries + at, (table->count - at) * sizeof(*table->entries));
    table->entries[at] = (struct range_entry){ .start = start, .end = end, .tag = tag };
    table->count++;
    return 0;
}

bool range_remove(struct range_table *table, uintptr_t start, uintptr_t end)
{
    size_t at = first_after(table, start);

    if (at == table->count || table->entries[at].start != start || table->entries[at].end != end)
        return false;
    table->count--;
    memmove(table->entries + at, table->entries + at + 1, (table->count - at) * sizeof(*table->entries));
    return true;
}

const struct range_entry *range_find(const struct range_table *table, uintptr_t start, uintptr_t end)
{
    size_t at = first_after(table, start);

    return at < table->count && table->entries[at].start < end ? &table->entries[at] : NULL;
}

bool range_first_gap(const struct range_table *table, uintptr_t from, uintptr_t to, size_t size, uintptr_t *ret)
{
    for (size_t i = first_after(table, from); from < to && to - from >= size; i++) {
        if (i == table->count || (table->entries[i].start > from && table->entries[i].start - from >= size)) {
            *ret = from;
            return true;
        }
        from = table->entries[i].end;
    }
    return false;
}

size_t range_longest_gap(const struct range_table *table, uintptr_t from, uintptr_t to)
{
    size_t longest = 0;

    for (size_t i = first_after(table, from); from < to; i++) {
        uintptr_t end = i < table->count ? MIN(table->entries[i].start, to) : to;

        if (end > from)
            longest = MAX(longest, end - from);
        from = i < table->count ? table->entries[i].end : to;
    }
    return longest;
}

int range_copy(const struct range_table *table, struct range_table *ret)
{
    struct range_table copy = { .count = table->count, .capacity = table->capacity };

    if (table->capacity > 0) {
        copy.entries = os_map(bytes_for(table->capacity));
        if (!copy.entries)
            return -ENOMEM;
        memcpy(copy.entries, table->entries, table->count * sizeof(*table->entries));
    }
    *ret = copy;
    return 0;
}

void range_clear(struct range_table *table)
{
    if (table->entries)
        os_unmap(table->entries, bytes_for(table->capacity));
    *table = (struct range_table){ 0 };
}
