/*
 * events.c - shms obituary and shms watch: what happened lately, and what happens.
 */
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "amount.h"
#include "shms.h"
#include "table.h"

enum { LOOK_EACH_MS = 250 };

static const char *kind_name(unsigned kind)
{
    static const char *const names[] = { [SHMS_EVENT_CREATED] = "created", [SHMS_EVENT_REMOVED] = "removed", [SHMS_EVENT_SEALED] = "sealed",
        [SHMS_EVENT_ACL] = "acl", [SHMS_EVENT_ATTACHED] = "attached", [SHMS_EVENT_REFUSED] = "refused", [SHMS_EVENT_DIED] = "died",
        [SHMS_EVENT_KICKED] = "kicked", [SHMS_EVENT_COMMITTED] = "memory" };

    return kind < sizeof(names) / sizeof(names[0]) && names[kind] ? names[kind] : "unknown";
}

/* ---- obituary ---- */

struct wanted {
    const char *heap;       /* NULL: all */
    bool found;             /* something that is told of it */
    struct table *table;    /* of obituary */
    bool json;
    uint64_t last;          /* serial */
};

/* Of who had given his operations no numbers nothing is known. */
static void add_outcome(struct table *table, const struct shms_event *event)
{
    if (event->operation) {
        table_number(table, "operation", "OPERATION", event->operation);
        table_truth(table, "happened", "HAPPENED", event->happened);
    } else {
        table_unknown(table, "operation", "OPERATION");
        table_unknown(table, "happened", "HAPPENED");
    }
}

static void add_obituary(void *user, const struct shms_event *event)
{
    struct wanted *wanted = user;
    struct table *table = wanted->table;

    if (event->kind != SHMS_EVENT_DIED || (wanted->heap && strcmp(wanted->heap, event->heap) != 0))
        return;
    wanted->found = true;
    table_row(table);
    table_time(table, "time", "TIME", event->time);
    table_text(table, "heap", "HEAP", event->heap);
    table_number(table, "pid", "PID", (uint64_t)event->pid);
    table_text(table, "command", "COMMAND", event->command);
    table_number(table, "blocks", "BLOCKS", event->blocks);
    table_bytes(table, "bytes", "BYTES", event->bytes);
    table_number(table, "finished", "FINISHED", event->published);
    table_number(table, "undone", "UNDONE", event->undone);
    add_outcome(table, event);
    table_text(table, "heir", "HEIR", event->heir);
    table_number(table, "left_blocks", "LEFT", event->left_blocks);
    table_bytes(table, "left_bytes", "LEFT BYTES", event->left_bytes);
}

/* There is such a heap, or there was one: who asks for another one would wait for nothing. */
static bool is_known(const struct shms *shms, const struct wanted *wanted)
{
    struct shms_heap heap = { .struct_size = sizeof(heap) };
    int r = wanted->heap && !wanted->found ? shms_heap_info(shms->client, wanted->heap, &heap) : 0;

    return r != -ENOENT && r != -EACCES;
}

int command_obituary(const struct shms *shms)
{
    struct wanted wanted = { .heap = shms->arg_count ? shms->args[0] : NULL, .table = table_begin(TABLE_ROWS, shms->json) };

    if (shms_events(shms->client, 0, add_obituary, &wanted) < 0 || !is_known(shms, &wanted))
        return shms_fail();
    table_end(wanted.table);
    return EXIT_SUCCESS;
}

/* ---- watch ---- */

static void print_json(const struct shms_event *event)
{
    json_object *object = json_object_new_object();

    json_object_object_add(object, "serial", json_object_new_uint64(event->serial));
    json_object_object_add(object, "time", json_object_new_int64(event->time));
    json_object_object_add(object, "event", json_object_new_string(kind_name(event->kind)));
    json_object_object_add(object, "heap", json_object_new_string(event->heap));
    json_object_object_add(object, "pid", json_object_new_int(event->pid));
    json_object_object_add(object, "uid", event->uid == UINT32_MAX ? NULL : json_object_new_uint64(event->uid));
    json_object_object_add(object, "command", json_object_new_string(event->command));
    json_object_object_add(object, "blocks", json_object_new_uint64(event->blocks));
    json_object_object_add(object, "bytes", json_object_new_uint64(event->bytes));
    json_object_object_add(object, "reason", json_object_new_string(event->reason));
    puts(json_object_to_json_string_ext(object, JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(object);
}

static void print_line(const struct shms_event *event)
{
    char when[32] = "-", bytes[AMOUNT_SIZE];
    time_t t = (time_t)event->time;
    struct tm local;

    if (localtime_r(&t, &local))
        strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &local);
    if (event->kind == SHMS_EVENT_COMMITTED) {
        printf("%s  %-8s  user %u has %s, more than he may\n", when, kind_name(event->kind), event->uid, amount_print(event->bytes, bytes));
        return;
    }
    if (event->kind == SHMS_EVENT_REFUSED) {
        printf("%s  %-8s  %s%sprocess %d (%s)%s%s\n", when, kind_name(event->kind), event->heap, event->heap[0] ? " to " : "", event->pid, event->command,
               event->reason[0] ? ": " : "", event->reason);
        return;
    }
    printf("%s  %-8s  %s%sprocess %d (%s)", when, kind_name(event->kind), event->heap, event->heap[0] ? " by " : "", event->pid, event->command);
    if (event->kind == SHMS_EVENT_DIED)
        printf(", freed %" PRIu64 " block%s of %s", event->blocks, plural(event->blocks), amount_print(event->bytes, bytes));
    if (event->kind == SHMS_EVENT_DIED && event->heir[0])
        printf(", left %" PRIu64 " of %s to %s", event->left_blocks, amount_print(event->left_bytes, bytes), event->heir);
    putchar('\n');
}

static void follow(void *user, const struct shms_event *event)
{
    struct wanted *wanted = user;

    wanted->last = event->serial;
    if (wanted->heap && strcmp(wanted->heap, event->heap) != 0)
        return;
    wanted->found |= event->kind != SHMS_EVENT_REFUSED;     /* that one may be about a heap that was never there */
    if (wanted->json)
        print_json(event);
    else
        print_line(event);
}

/* Until it is interrupted, or the daemon ends, or nobody reads. */
int command_watch(const struct shms *shms)
{
    const struct timespec pause = { .tv_nsec = LOOK_EACH_MS * 1000000l };
    struct wanted wanted = { .heap = shms->arg_count ? shms->args[0] : NULL, .json = shms->json };

    while (shms_events(shms->client, wanted.last, follow, &wanted) >= 0) {
        if (!is_known(shms, &wanted))
            return shms_fail();
        wanted.found = true;        /* it may be removed from now on, and come again */
        if (fflush(stdout) == EOF)
            return EXIT_SUCCESS;
        nanosleep(&pause, NULL);
    }
    return shms_fail();
}
