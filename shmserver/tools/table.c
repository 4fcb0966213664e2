#include "table.h"

#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "amount.h"

enum { MAX_COLUMNS = 24 };

struct cell {
    char *text;
    bool right;         /* numbers */
};

struct row {
    struct row *next;
    struct cell cells[MAX_COLUMNS];
};

struct table {
    enum table_form form;
    bool json;
    json_object *rows, *object;         /* all; the current one */
    const char *headings[MAX_COLUMNS];
    int columns, at;                    /* known; next of the current row */
    struct row *first, *last;
};

/* A tool that is out of memory has nothing better to do. */
static void *need(void *p)
{
    if (!p) {
        fputs("shms: out of memory\n", stderr);
        exit(1);
    }
    return p;
}

struct table *table_begin(enum table_form form, bool json)
{
    struct table *table = need(calloc(1, sizeof(*table)));

    table->form = form;
    table->json = json;
    if (json)
        table->rows = need(json_object_new_array());
    return table;
}

void table_row(struct table *table)
{
    struct row *row;

    if (table->json) {
        table->object = need(json_object_new_object());
        json_object_array_add(table->rows, table->object);
        return;
    }
    row = need(calloc(1, sizeof(*row)));
    if (table->last)
        table->last->next = row;
    else
        table->first = row;
    table->last = row;
    table->at = 0;
}

/* ---- one value ---- */

/* Names of processes and roots are anybody's to write who may write to a heap; a terminal is not to obey them. */
static char *printable(const char *text)
{
    char *copy = need(strdup(text));

    for (char *c = copy; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
    return copy;
}

static void add_cell(struct table *table, const char *heading, const char *text, bool right)
{
    if (!heading || table->at == MAX_COLUMNS)
        return;
    table->headings[table->at] = heading;
    table->last->cells[table->at] = (struct cell){ printable(text), right };
    table->at++;
    if (table->at > table->columns)
        table->columns = table->at;
}

/* In JSON @value, which is consumed, else @text. */
static void add(struct table *table, const char *key, const char *heading, json_object *value, const char *text, bool right)
{
    if (table->json)
        json_object_object_add(table->object, key, value);
    else
        add_cell(table, heading, text, right);
}

void table_text(struct table *table, const char *key, const char *heading, const char *value)
{
    add(table, key, heading, table->json ? json_object_new_string(value) : NULL, *value ? value : "-", false);
}

static void add_number(struct table *table, const char *key, const char *heading, uint64_t value, const char *text, bool right)
{
    add(table, key, heading, table->json ? json_object_new_uint64(value) : NULL, text, right);
}

void table_number(struct table *table, const char *key, const char *heading, uint64_t value)
{
    char text[24];

    snprintf(text, sizeof(text), "%" PRIu64, value);
    add_number(table, key, heading, value, text, true);
}

void table_bytes(struct table *table, const char *key, const char *heading, uint64_t value)
{
    char text[AMOUNT_SIZE];

    add_number(table, key, heading, value, amount_print(value, text), true);
}

void table_address(struct table *table, const char *key, const char *heading, uint64_t value)
{
    char text[24];

    snprintf(text, sizeof(text), "0x%" PRIx64, value);
    add_number(table, key, heading, value, text, false);
}

void table_mode(struct table *table, const char *key, const char *heading, unsigned value)
{
    char text[24];

    snprintf(text, sizeof(text), "%04o", value);
    table_text(table, key, heading, text);
}

void table_time(struct table *table, const char *key, const char *heading, int64_t value)
{
    time_t t = (time_t)value;
    struct tm local;
    char text[32] = "-";

    if (localtime_r(&t, &local))
        strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &local);
    add_number(table, key, heading, (uint64_t)value, text, false);
}

void table_truth(struct table *table, const char *key, const char *heading, bool value)
{
    add(table, key, heading, table->json ? json_object_new_boolean(value) : NULL, value ? "yes" : "no", false);
}

void table_unknown(struct table *table, const char *key, const char *heading)
{
    add(table, key, heading, NULL, "-", false);
}

/* ---- printing ---- */

static void print_json(const struct table *table)
{
    json_object *what = table->form == TABLE_FIELDS ? table->object : table->rows;

    puts(json_object_to_json_string_ext(what, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE));
}

static void print_padded(const char *text, int width, bool right, bool last)
{
    if (last && !right)
        printf("%s\n", text);
    else
        printf(right ? "%*s%s" : "%-*s%s", width, text, last ? "\n" : "  ");
}

static void print_rows(const struct table *table)
{
    int width[MAX_COLUMNS];

    if (!table->first)
        return;
    for (int i = 0; i < table->columns; i++) {
        width[i] = (int)strlen(table->headings[i]);
        for (const struct row *row = table->first; row; row = row->next)
            if ((int)strlen(row->cells[i].text) > width[i])
                width[i] = (int)strlen(row->cells[i].text);
    }
    for (int i = 0; i < table->columns; i++)
        print_padded(table->headings[i], width[i], table->first->cells[i].right, i == table->columns - 1);
    for (const struct row *row = table->first; row; row = row->next)
        for (int i = 0; i < table->columns; i++)
            print_padded(row->cells[i].text, width[i], row->cells[i].right, i == table->columns - 1);
}

static void print_fields(const struct table *table)
{
    int width = 0;

    for (int i = 0; i < table->columns; i++)
        if ((int)strlen(table->headings[i]) > width)
            width = (int)strlen(table->headings[i]);
    for (int i = 0; table->first && i < table->columns; i++)
        printf("%-*s  %s\n", width, table->headings[i], table->first->cells[i].text);
}

void table_end(struct table *table)
{
    if (table->json)
        print_json(table);
    else if (table->form == TABLE_FIELDS)
        print_fields(table);
    else
        print_rows(table);
    for (struct row *row = table->first, *next; row; row = next) {
        next = row->next;
        for (int i = 0; i < MAX_COLUMNS; i++)
            free(row->cells[i].text);
        free(row);
    }
    json_object_put(table->rows);
    free(table);
}
