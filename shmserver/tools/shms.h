/*
 * shms.h - what the commands of shms share: how it was called, how it ends.
 */
#ifndef TOOLS_SHMS_H
#define TOOLS_SHMS_H

#include <stdbool.h>

#include <shmserver/client.h>

enum { EXIT_REFUSED = 1, EXIT_USAGE = 2, EXIT_NO_DAEMON = 3, EXIT_FINDINGS = 4 };

struct shms {
    const char *socket;
    bool json;
    bool embedded;
    struct shms_client *client;     /* NULL with --embedded */
    char **args;                    /* of the command */
    int arg_count;
};

/* Print la_last_error(). Return: EXIT_REFUSED. */
int shms_fail(void);

/* Each command: its exit status. */
int command_acl(const struct shms *shms);
int command_quota(const struct shms *shms);

#endif
