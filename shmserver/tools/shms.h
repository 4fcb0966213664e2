/*
 * shms.h - what the commands of shms share: how it was called, how it ends.
 */
#ifndef TOOLS_SHMS_H
#define TOOLS_SHMS_H

#include <stdbool.h>
#include <stdint.h>

#include <shmserver/client.h>

enum { EXIT_REFUSED = 1, EXIT_USAGE = 2, EXIT_NO_DAEMON = 3, EXIT_FINDINGS = 4 };

struct shms {
    const char *socket;
    bool json;
    bool embedded;
    bool kill;
    bool quarantine;
    const char *huge;               /* size of a new heap's pages; NULL: small ones */
    struct shms_client *client;     /* NULL with --embedded */
    char **args;                    /* of the command */
    int arg_count;
};

/* "%d heap%s" */
static inline const char *plural(uint64_t n)
{
    return n == 1 ? "" : "s";
}

/* la_last_error(), with what a user of shms can do about it. Valid until the next call. */
const char *shms_last_error(void);
/* Print it. Return: EXIT_REFUSED. */
int shms_fail(void);

/* Of the daemon or embedded. Most attach for looking only: LA_HEAP_READ_ONLY; so a sealed heap, and one that may just be read, can be checked too. */
int shms_list_heaps(const struct shms *shms, void (*each)(void *user, const struct shms_heap *heap), void *user);
int shms_attach(const struct shms *shms, const char *name, unsigned flags, struct la_heap **ret);
int shms_leave(const struct shms *shms, struct la_heap *heap);

/* Each command: its exit status. */
int command_doctor(const struct shms *shms);
int command_top(const struct shms *shms);
int command_obituary(const struct shms *shms);
int command_roots(const struct shms *shms);
int command_watch(const struct shms *shms);
int command_who(const struct shms *shms);
int command_acl(const struct shms *shms);
int command_quota(const struct shms *shms);

#endif
