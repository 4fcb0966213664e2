/*
 * acl.c - shms acl: who may use a heap.
 */
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shms.h"
#include "table.h"

struct change {
    uint32_t owner, group, mode;
};

static bool parse_number(const char *text, int base, uint32_t *ret)
{
    char *end;
    unsigned long n = strtoul(text, &end, base);

    /* A word that is no number is tried as something else then, so *ret stays as it is. */
    if (*text < '0' || *text > '9' || *end || n >= UINT32_MAX)
        return false;
    *ret = (uint32_t)n;
    return true;
}

static bool parse_user(const char *name, uint32_t *ret)
{
    const struct passwd *user = getpwnam(name);

    if (!user)
        return parse_number(name, 10, ret);
    *ret = user->pw_uid;
    return true;
}

static bool parse_group(const char *name, uint32_t *ret)
{
    const struct group *group = getgrnam(name);

    if (!group)
        return parse_number(name, 10, ret);
    *ret = group->gr_gid;
    return true;
}

/* "0640", "user", "user:group" or ":group" */
static bool parse_word(const char *word, struct change *change)
{
    char user[256];
    const char *colon = strchr(word, ':');
    size_t length = colon ? (size_t)(colon - word) : strlen(word);

    if (!colon && parse_number(word, 8, &change->mode))
        return true;
    if (length >= sizeof(user))
        return false;
    memcpy(user, word, length);
    user[length] = '\0';
    return (length == 0 || parse_user(user, &change->owner)) && (!colon || parse_group(colon + 1, &change->group));
}

static int show(const struct shms *shms, const char *name)
{
    struct shms_heap heap = { .struct_size = sizeof(heap) };
    struct table *table;

    if (shms_heap_info(shms->client, name, &heap) < 0)
        return shms_fail();
    table = table_begin(TABLE_FIELDS, shms->json);
    table_row(table);
    table_text(table, "name", "name", heap.name);
    table_number(table, "owner", "owner", heap.owner);
    table_number(table, "group", "group", heap.group);
    table_mode(table, "mode", "mode", heap.mode);
    table_end(table);
    return EXIT_SUCCESS;
}

int command_acl(const struct shms *shms)
{
    struct change change = { SHMS_UNCHANGED, SHMS_UNCHANGED, SHMS_UNCHANGED };

    for (int i = 1; i < shms->arg_count; i++)
        if (!parse_word(shms->args[i], &change)) {
            fprintf(stderr, "shms: \"%s\" is no mode such as 0640 and no USER, USER:GROUP or :GROUP that is known here\n", shms->args[i]);
            return EXIT_USAGE;
        }
    if (shms->arg_count == 1)
        return show(shms, shms->args[0]);
    if (shms_heap_set_acl(shms->client, shms->args[0], change.owner, change.group, change.mode) < 0)
        return shms_fail();
    return shms->json ? show(shms, shms->args[0]) : EXIT_SUCCESS;
}
