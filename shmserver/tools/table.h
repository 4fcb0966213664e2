/*
 * table.h - what a command prints: rows of named values, as an aligned table for people or as JSON for programs.
 *
 * A value that people read differently from programs (a size, an address) has both forms. The rows are kept until table_end(), as the
 * width of a column is that of its widest value.
 */
#ifndef TOOLS_TABLE_H
#define TOOLS_TABLE_H

#include <stdbool.h>
#include <stdint.h>

struct table;

enum table_form {
    TABLE_ROWS,     /* one row per line under a heading; JSON: an array of objects */
    TABLE_FIELDS,   /* one value per line with its name; JSON: one object */
};

struct table *table_begin(enum table_form form, bool json);
/* Print it to standard output and free it. */
void table_end(struct table *table);

void table_row(struct table *table);

/* The next value of the row. @key: its name in JSON, @heading: for people; NULL: people are not shown it. */
void table_text(struct table *table, const char *key, const char *heading, const char *value);
void table_number(struct table *table, const char *key, const char *heading, uint64_t value);
void table_bytes(struct table *table, const char *key, const char *heading, uint64_t value);
void table_address(struct table *table, const char *key, const char *heading, uint64_t value);
/* "0640": text in JSON as well. */
void table_mode(struct table *table, const char *key, const char *heading, unsigned value);
/* Seconds since 1970: a number in JSON, local time for people. */
void table_time(struct table *table, const char *key, const char *heading, int64_t value);
/* People read "yes" and "no". */
void table_truth(struct table *table, const char *key, const char *heading, bool value);
/* null, and "-". */
void table_unknown(struct table *table, const char *key, const char *heading);

#endif
