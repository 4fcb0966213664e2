#include "shmserver/daemon/metrics.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "shmserver/daemon/server.h"
#include "shmserver/daemon/view.h"

static void begin(FILE *out, const char *name, const char *type, const char *unit, const char *help)
{
    fprintf(out, "# TYPE %s %s\n", name, type);
    if (unit)
        fprintf(out, "# UNIT %s %s\n", name, unit);
    fprintf(out, "# HELP %s %s\n", name, help);
}

/* ---- heaps ---- */

/* One number of every heap. @size: of the field, 4 or 8. */
static const struct family {
    const char *name, *type, *unit, *help;
    size_t offset, size;
} families[] = {
#define FIELD(field) offsetof(struct shms_heap, field), sizeof(((struct shms_heap *)0)->field)
    { "shmserver_heap_size_bytes", "gauge", "bytes", "Size of the heap, used or not.", FIELD(size) },
    { "shmserver_heap_committed_bytes", "gauge", "bytes", "Memory behind it.", FIELD(committed) },
    { "shmserver_heap_page_size_bytes", "gauge", "bytes", "Size of its pages.", FIELD(page_size) },
    { "shmserver_heap_macro_blocks_used", "gauge", NULL, "Macro blocks of 2 MiB in use.", FIELD(macro_blocks_used) },
    { "shmserver_heap_processes", "gauge", NULL, "Processes attached for writing.", FIELD(processes) },
    { "shmserver_heap_lanes", "gauge", NULL, "Threads that work in it.", FIELD(lanes) },
    { "shmserver_heap_sealed", "gauge", NULL, "1: nobody can write any more.", FIELD(sealed) },
    { "shmserver_heap_quarantined", "gauge", NULL, "1: an invariant was found broken.", FIELD(quarantined) },
    { "shmserver_heap_deaths", "counter", NULL, "Processes that died while attached.", FIELD(recovered_processes) },
    { "shmserver_heap_recovered_blocks", "counter", NULL, "Blocks that dead processes held, freed.", FIELD(recovered_blocks) },
    { "shmserver_heap_recovered_bytes", "counter", "bytes", "Their bytes.", FIELD(recovered_bytes) },
#undef FIELD
};

static uint64_t value_of(const struct shms_heap *heap, const struct family *family)
{
    const char *field = (const char *)heap + family->offset;

    return family->size == sizeof(uint32_t) ? *(const uint32_t *)(const void *)field : *(const uint64_t *)(const void *)field;
}

static void print_family(FILE *out, const struct family *family, const struct shms_heap *heaps, size_t count)
{
    const char *suffix = family->type[0] == 'c' ? "_total" : "";

    begin(out, family->name, family->type, family->unit, family->help);
    for (size_t i = 0; i < count; i++)
        fprintf(out, "%s%s{heap=\"%s\",owner=\"%u\"} %" PRIu64 "\n", family->name, suffix, heaps[i].name, heaps[i].owner,
                value_of(&heaps[i], family));
}

static void print_heaps(FILE *out, struct registry *registry)
{
    struct shms_heap *heaps = calloc(registry->count + 1, sizeof(*heaps));
    size_t count = 0;

    if (!heaps)
        return;
    for (struct segment *segment = registry_after(registry, 0); segment; segment = registry_after(registry, segment->serial))
        if (!segment->removed && view_describe(segment, &heaps[count]) == 0)
            count++;
    for (size_t i = 0; i < ARRAY_SIZE(families); i++)
        print_family(out, &families[i], heaps, count);
    free(heaps);
}

/* ---- users ---- */

static void print_user_family(FILE *out, struct quota *quota, const char *name, const char *type, const char *unit, const char *help,
                              uint64_t (*value)(const struct quota_usage *usage))
{
    struct quota_usage usage;

    begin(out, name, type, unit, help);
    for (uint64_t uid = 0; uid <= UINT32_MAX && quota_next(quota, (uid_t)uid, &usage); uid = (uint64_t)usage.uid + 1)
        fprintf(out, "%s%s{uid=\"%u\"} %" PRIu64 "\n", name, type[0] == 'c' ? "_total" : "", usage.uid, value(&usage));
}

static uint64_t clients_of(const struct quota_usage *usage)
{
    return usage->clients;
}

static uint64_t bytes_of(const struct quota_usage *usage)
{
    return usage->bytes;
}

static uint64_t huge_of(const struct quota_usage *usage)
{
    return usage->huge;
}

static uint64_t refused_of(const struct quota_usage *usage)
{
    return usage->refused;
}

static uint64_t delayed_of(const struct quota_usage *usage)
{
    return usage->delayed;
}

static void print_users(FILE *out, struct quota *quota)
{
    print_user_family(out, quota, "shmserver_user_connections", "gauge", NULL, "Connections of a user.", clients_of);
    print_user_family(out, quota, "shmserver_user_heap_bytes", "gauge", "bytes", "Sizes of a user's heaps, used or not.", bytes_of);
    print_user_family(out, quota, "shmserver_user_huge_bytes", "gauge", "bytes", "Of them, those of heaps of huge pages.", huge_of);
    print_user_family(out, quota, "shmserver_user_refusals", "counter", NULL, "Connections and heaps refused for a limit.", refused_of);
    print_user_family(out, quota, "shmserver_user_delays", "counter", NULL, "Requests that waited for their turn.", delayed_of);
}

/* ---- all ---- */

char *metrics_print(struct server *server, size_t *size)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, size);

    if (!out)
        return NULL;
    begin(out, "shmserver", "info", NULL, "The daemon.");
    fprintf(out, "shmserver_info{version=\"%s\"} 1\n", SERVER_VERSION);
    begin(out, "shmserver_connections", "gauge", NULL, "Clients that are connected.");
    fprintf(out, "shmserver_connections %u\n", server->peer_count);
    begin(out, "shmserver_heaps", "gauge", NULL, "Heaps, with removed ones that are still in use.");
    fprintf(out, "shmserver_heaps %u\n", server->registry.count);
    begin(out, "shmserver_requests", "counter", NULL, "Requests answered.");
    fprintf(out, "shmserver_requests_total %" PRIu64 "\n", server->requests);
    begin(out, "shmserver_drops", "counter", NULL, "Clients dropped because they broke the protocol.");
    fprintf(out, "shmserver_drops_total %" PRIu64 "\n", server->drops);
    print_heaps(out, &server->registry);
    print_users(out, &server->quota);
    fputs("# EOF\n", out);
    if (fclose(out) == EOF) {
        free(text);
        return NULL;
    }
    return text;
}
