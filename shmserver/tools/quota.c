/*
 * quota.c - shms quota: what users have and may have, and what they may have from now on.
 */
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "amount.h"
#include "shms.h"
#include "table.h"

struct listing {
    struct table *table;
    int64_t only;       /* user id, -1: all */
};

static void add_quota(void *user, const struct shms_quota *quota)
{
    const struct listing *listing = user;
    struct table *table = listing->table;

    if (listing->only >= 0 && quota->uid != (uint64_t)listing->only)
        return;
    table_row(table);
    table_number(table, "uid", "UID", quota->uid);
    table_number(table, "clients", "CLIENTS", quota->clients);
    table_number(table, "max_clients", "OF", quota->max_clients);
    table_number(table, "heaps", "HEAPS", quota->heaps);
    table_number(table, "max_heaps", "OF", quota->max_heaps);
    table_bytes(table, "bytes", "BYTES", quota->bytes);
    table_bytes(table, "max_bytes", "OF", quota->max_bytes);
    table_bytes(table, "huge", "HUGE", quota->huge);
    if (quota->max_huge == UINT64_MAX)
        table_unknown(table, "max_huge", "OF");
    else
        table_bytes(table, "max_huge", "OF", quota->max_huge);
    table_bytes(table, "committed", "COMMITTED", quota->committed);
    if (quota->max_committed == UINT64_MAX)
        table_unknown(table, "max_committed", "OF");
    else
        table_bytes(table, "max_committed", "OF", quota->max_committed);
    table_number(table, "max_requests", "REQUESTS/S", quota->max_requests);
    table_number(table, "refused", "REFUSED", quota->refused);
    table_number(table, "delayed", "DELAYED", quota->delayed);
}

static bool parse_user(const char *text, uint32_t *ret)
{
    const struct passwd *user = getpwnam(text);
    uint64_t n;

    if (user)
        *ret = user->pw_uid;
    else if (amount_parse(text, &n) && n < UINT32_MAX)
        *ret = (uint32_t)n;
    else
        return false;
    return true;
}

/* "huge=any" */
static bool parse_huge(const char *word, uint64_t *ret)
{
    if (strcmp(word, "any") == 0)
        *ret = UINT64_MAX;
    else if (!amount_parse(word, ret))
        return false;
    else if (*ret == 0)
        *ret = SHMS_NO_HUGE;
    return true;
}

/* "heaps=5" */
static bool parse_limit(const char *word, struct shms_quota *quota)
{
    struct { const char *name; uint32_t *limit; } numbers[] = {
        { "clients=", &quota->max_clients }, { "heaps=", &quota->max_heaps }, { "requests=", &quota->max_requests },
    };
    uint64_t n;

    if (strncmp(word, "bytes=", 6) == 0)
        return amount_parse(word + 6, &quota->max_bytes);
    if (strncmp(word, "huge=", 5) == 0)
        return parse_huge(word + 5, &quota->max_huge);
    if (strcmp(word, "committed=any") == 0)
        quota->max_committed = UINT64_MAX;
    if (strncmp(word, "committed=", 10) == 0)
        return quota->max_committed == UINT64_MAX || (amount_parse(word + 10, &quota->max_committed) && quota->max_committed > 0);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        size_t length = strlen(numbers[i].name);

        if (strncmp(word, numbers[i].name, length) != 0)
            continue;
        if (!amount_parse(word + length, &n) || n >= SHMS_UNCHANGED)
            return false;
        *numbers[i].limit = (uint32_t)n;
        return true;
    }
    return false;
}

static int set(const struct shms *shms, uint32_t uid)
{
    struct shms_quota quota = { .struct_size = sizeof(quota), .uid = uid, .max_clients = SHMS_UNCHANGED, .max_heaps = SHMS_UNCHANGED,
                                .max_bytes = UINT64_MAX, .max_requests = SHMS_UNCHANGED };

    for (int i = 1; i < shms->arg_count; i++)
        if (!parse_limit(shms->args[i], &quota)) {
            fprintf(stderr, "shms: \"%s\" is no limit: use clients=N, heaps=N, bytes=SIZE, huge=SIZE, huge=any, committed=SIZE, committed=any or requests=N\n",
                    shms->args[i]);
            return EXIT_USAGE;
        }
    return shms_quota_set(shms->client, &quota) < 0 ? shms_fail() : EXIT_SUCCESS;
}

int command_quota(const struct shms *shms)
{
    struct listing listing = { .only = -1 };
    uint32_t uid = 0;
    int status = EXIT_SUCCESS;

    if (shms->arg_count > 0 && !parse_user(shms->args[0], &uid)) {
        fprintf(stderr, "shms: there is no user \"%s\"\n", shms->args[0]);
        return EXIT_USAGE;
    }
    if (shms->arg_count > 0)
        listing.only = uid;
    if (shms->arg_count > 1)
        status = set(shms, uid);
    if (status != EXIT_SUCCESS || (shms->arg_count > 1 && !shms->json))
        return status;
    listing.table = table_begin(TABLE_ROWS, shms->json);
    if (shms_quotas(shms->client, add_quota, &listing) < 0)
        return shms_fail();
    table_end(listing.table);
    return EXIT_SUCCESS;
}
