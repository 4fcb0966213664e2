/*
 * range_table.h - a sorted set of address ranges that do not overlap.
 *
 * Used where ranges are few and change rarely: mappings of the arena (vspace.c), claims of a user
 * (vspace_registry.c), parts of a segment that are in use (segments/segment.c). Its memory is its own mapping,
 * so that it works inside malloc. No lock: the owner of the table brings one.
 */
#ifndef OS_RANGE_TABLE_H
#define OS_RANGE_TABLE_H

#include "base/util.h"

struct range_entry {
    uintptr_t start, end;   /* [start, end), start < end */
    uint64_t tag;           /* the owner's business */
};

/* All zero: empty. */
struct range_table {
    struct range_entry *entries;    /* by rising address */
    size_t count, capacity;
};

/* Return: 0, -EEXIST (overlaps an entry), -ENOMEM. */
int range_insert(struct range_table *table, uintptr_t start, uintptr_t end, uint64_t tag);

/* Drop exactly [start, end). Return: false: no such entry. */
bool range_remove(struct range_table *table, uintptr_t start, uintptr_t end);

/* The lowest entry that overlaps [start, end), NULL: none. Valid until the next change. */
const struct range_entry *range_find(const struct range_table *table, uintptr_t start, uintptr_t end);

/* The lowest place of at least @size free bytes in [from, to). Return: false: none. */
bool range_first_gap(const struct range_table *table, uintptr_t from, uintptr_t to, size_t size, uintptr_t *ret);

/* Length of the longest free place in [from, to), 0: all is taken. */
size_t range_longest_gap(const struct range_table *table, uintptr_t from, uintptr_t to);

/* An independent copy. Return: 0, -ENOMEM. */
int range_copy(const struct range_table *table, struct range_table *ret);

/* Empty the table and give its memory back. */
void range_clear(struct range_table *table);

#endif
