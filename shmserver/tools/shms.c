/*
 * shms.c - look at shared heaps, make and remove them, from a shell. shms(1) is the manual.
 *
 * A command is a function that is given the rest of the command line; it works on a daemon's heaps or, with --embedded, on those
 * without one, through the few calls of struct place.
 */
#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <liballoc/error.h>
#include <shmserver/client.h>

#include "amount.h"
#include "embedded.h"
#include "shms.h"
#include "table.h"
#include "words.h"

const char *argp_program_version = "shms (liballoc) " SHMS_VERSION;

/* ---- both places ---- */

int shms_list_heaps(const struct shms *shms, void (*each)(void *user, const struct shms_heap *heap), void *user)
{
    return shms->embedded ? embedded_list(each, user) : shms_list(shms->client, each, user);
}

static int describe_heap(const struct shms *shms, const char *name, struct shms_heap *ret)
{
    ret->struct_size = sizeof(*ret);
    return shms->embedded ? embedded_info(name, ret) : shms_heap_info(shms->client, name, ret);
}

static int create_heap(const struct shms *shms, const char *name, size_t size, uint64_t page_size)
{
    unsigned flags = page_size == (uint64_t)1 << 30 ? LA_HEAP_HUGE_1G : page_size ? LA_HEAP_HUGE_2M : 0;

    return shms->embedded ? embedded_create(name, size, flags) : shms_heap_create_huge(shms->client, name, size, page_size);
}

static int remove_heap(const struct shms *shms, const char *name)
{
    return shms->embedded ? la_heap_remove(name) : shms_heap_remove(shms->client, name);
}

static int list_processes(const struct shms *shms, const char *name, void (*each)(void *user, const struct shms_process *process), void *user)
{
    return shms->embedded ? embedded_processes(name, each, user) : shms_processes(shms->client, name, each, user);
}

int shms_attach(const struct shms *shms, const char *name, unsigned flags, struct la_heap **ret)
{
    return shms->embedded ? la_heap_attach(name, flags, ret) : shms_heap_open(shms->client, name, 0, flags, ret);
}

int shms_leave(const struct shms *shms, struct la_heap *heap)
{
    return shms->embedded ? la_heap_detach(heap) : shms_heap_close(shms->client, heap);
}

const char *shms_last_error(void)
{
    static char sentence[WORDS_SIZE];

    return words_translate(la_last_error(), sentence);
}

int shms_fail(void)
{
    fprintf(stderr, "shms: %s\n", shms_last_error());
    return EXIT_REFUSED;
}

/* ---- commands ---- */

/* A daemon of before does not say it. */
static void add_page_size(struct table *table, const char *heading, uint64_t page_size)
{
    if (page_size)
        table_bytes(table, "page_size", heading, page_size);
    else
        table_unknown(table, "page_size", heading);
}

static void add_heap(void *user, const struct shms_heap *heap)
{
    struct table *table = user;

    table_row(table);
    table_text(table, "name", "NAME", heap->name);
    table_bytes(table, "size", "SIZE", heap->size);
    table_bytes(table, "committed", "COMMITTED", heap->committed);
    add_page_size(table, "PAGES", heap->page_size);
    table_number(table, "processes", "PROCESSES", heap->processes);
    table_number(table, "lanes", "LANES", heap->lanes);
    table_number(table, "owner", "OWNER", heap->owner);
    table_mode(table, "mode", "MODE", heap->mode);
    table_time(table, "created", "CREATED", heap->created);
    table_truth(table, "quarantined", "QUARANTINED", heap->quarantined);
}

static int command_ls(const struct shms *shms)
{
    struct table *table = table_begin(TABLE_ROWS, shms->json);
    int r = shms_list_heaps(shms, add_heap, table);

    if (r < 0)
        return shms_fail();
    table_end(table);
    return EXIT_SUCCESS;
}

static int command_info(const struct shms *shms)
{
    struct shms_heap heap;
    struct table *table;
    char id[24];

    if (describe_heap(shms, shms->args[0], &heap) < 0)
        return shms_fail();
    table = table_begin(TABLE_FIELDS, shms->json);
    table_row(table);
    /* As text: 64 bits are more than a number of JSON holds in many languages. */
    snprintf(id, sizeof(id), "%016lx", (unsigned long)heap.id);
    table_text(table, "name", "name", heap.name);
    table_text(table, "id", "id", id);
    table_address(table, "address", "address", heap.address);
    table_bytes(table, "size", "size", heap.size);
    table_bytes(table, "committed", "committed", heap.committed);
    add_page_size(table, "page size", heap.page_size);
    table_number(table, "macro_blocks", "macro blocks", heap.macro_blocks);
    table_number(table, "macro_blocks_used", "macro blocks used", heap.macro_blocks_used);
    table_number(table, "processes", "processes", heap.processes);
    table_number(table, "lanes", "lanes", heap.lanes);
    table_number(table, "recovered_processes", "recovered processes", heap.recovered_processes);
    table_number(table, "recovered_blocks", "recovered blocks", heap.recovered_blocks);
    table_bytes(table, "recovered_bytes", "recovered bytes", heap.recovered_bytes);
    table_number(table, "owner", "owner", heap.owner);
    table_number(table, "group", "group", heap.group);
    table_mode(table, "mode", "mode", heap.mode);
    table_time(table, "created", "created", heap.created);
    table_truth(table, "sealed", "sealed", heap.sealed);
    table_truth(table, "quarantined", "quarantined", heap.quarantined);
    table_end(table);
    return EXIT_SUCCESS;
}

static int command_create(const struct shms *shms)
{
    uint64_t size, page_size = 0;

    if (!amount_parse(shms->args[1], &size)) {
        fprintf(stderr, "shms: \"%s\" is no size such as 512M or 1G\n", shms->args[1]);
        return EXIT_USAGE;
    }
    if (shms->huge && (!amount_parse(shms->huge, &page_size) || page_size == 0 || (shms->embedded && page_size != 2 << 20 && page_size != 1 << 30))) {
        fprintf(stderr, "shms: \"%s\" is no size of huge pages%s: use 2M or 1G\n", shms->huge, shms->embedded ? " without a daemon" : "");
        return EXIT_USAGE;
    }
    if (create_heap(shms, shms->args[0], size, page_size) < 0)
        return shms_fail();
    return shms->json ? command_info(shms) : EXIT_SUCCESS;
}

static int command_rm(const struct shms *shms)
{
    int status = EXIT_SUCCESS;
    struct table *table = shms->json ? table_begin(TABLE_ROWS, true) : NULL;    /* in words, no news is good news */

    for (int i = 0; i < shms->arg_count; i++) {
        if (remove_heap(shms, shms->args[i]) < 0) {
            status = shms_fail();
            continue;
        }
        if (!table)
            continue;
        table_row(table);
        table_text(table, "removed", "REMOVED", shms->args[i]);
    }
    if (table)
        table_end(table);
    return status;
}

static void add_process(void *user, const struct shms_process *process)
{
    static const char *const states[] = { [SHMS_CONNECTED] = "connected", [SHMS_ATTACHED] = "attached", [SHMS_DEAD] = "dead",
                                          [SHMS_READING] = "reading" };
    struct table *table = user;

    table_row(table);
    table_text(table, "heap", "HEAP", process->heap);
    table_number(table, "pid", "PID", (uint64_t)process->pid);
    if (process->uid == UINT32_MAX)
        table_unknown(table, "uid", "UID");
    else
        table_number(table, "uid", "UID", process->uid);
    table_number(table, "lanes", "LANES", process->lanes);
    table_text(table, "state", "STATE", process->state <= SHMS_READING ? states[process->state] : "unknown");
    table_text(table, "command", "COMMAND", process->command);
}

static int command_clients(const struct shms *shms)
{
    struct table *table = table_begin(TABLE_ROWS, shms->json);
    int r = list_processes(shms, shms->arg_count ? shms->args[0] : NULL, add_process, table);

    if (r < 0)
        return shms_fail();
    table_end(table);
    return EXIT_SUCCESS;
}

static int command_seal(const struct shms *shms)
{
    if (shms_heap_seal(shms->client, shms->args[0]) < 0)
        return shms_fail();
    return shms->json ? command_info(shms) : EXIT_SUCCESS;
}

static int command_kick(const struct shms *shms)
{
    char *end;
    long pid = strtol(shms->args[0], &end, 10);

    if (*end || pid <= 0 || pid > INT32_MAX) {
        fprintf(stderr, "shms: \"%s\" is no number of a process\n", shms->args[0]);
        return EXIT_USAGE;
    }
    return shms_kick(shms->client, (int32_t)pid, shms->kill) < 0 ? shms_fail() : EXIT_SUCCESS;
}

static void print_text(void *user, const char *text, size_t size)
{
    (void)user;
    fwrite(text, 1, size, stdout);
}

static int command_metrics(const struct shms *shms)
{
    return shms_metrics(shms->socket, print_text, NULL) < 0 ? shms_fail() : EXIT_SUCCESS;
}

static int command_gc(const struct shms *shms)
{
    uint64_t recovered = 0, freed = 0;
    struct table *table;
    int r;

    if (shms->arg_count && !shms->embedded) {
        fputs("shms: gc of one heap is for --embedded ones; a daemon looks at all of its heaps\n", stderr);
        return EXIT_USAGE;
    }
    r = shms->embedded ? embedded_gc(shms->arg_count ? shms->args[0] : NULL, &recovered) : shms_gc(shms->client, &recovered, &freed);
    if (r < 0)
        return shms_fail();
    table = table_begin(TABLE_FIELDS, shms->json);
    table_row(table);
    table_number(table, "recovered_processes", "recovered processes", recovered);
    table_number(table, "freed_heaps", "freed heaps", freed);
    table_end(table);
    return EXIT_SUCCESS;
}

static void print_finding(void *user, const char *line)
{
    (void)user;
    fprintf(stderr, "shms: %s\n", line);
}

/* Only if a second look finds something, too: while others change the heap, the first may have met it between two steps. */
static void quarantine(const struct shms *shms, struct la_heap *heap)
{
    if (la_heap_fsck(heap, NULL, NULL, NULL) <= 0)
        return;
    if (la_heap_quarantine(heap, true) < 0)
        shms_fail();
    else
        fprintf(stderr, "shms: heap %s is quarantined: nothing is allocated from it any more\n", shms->args[0]);
}

static void print_fsck(const struct shms *shms, struct la_heap *heap, const struct la_fsck *fsck)
{
    static const char *const states[] = { "free", "held", "in_doubt", "heap" };
    static const char *const headings[] = { "free", "held by processes", "in doubt", "kept by the heap" };
    struct table *table = table_begin(TABLE_FIELDS, shms->json);
    struct la_heap_info info = { .struct_size = sizeof(info) };

    la_heap_info(heap, &info);
    table_row(table);
    table_text(table, "name", "name", shms->args[0]);
    table_number(table, "errors", "errors", fsck->errors);
    table_truth(table, "quarantined", "quarantined", info.quarantined);
    table_number(table, "macro_blocks", "macro blocks", fsck->macro_blocks);
    table_number(table, "pages", "pages", fsck->pages);
    for (int i = 0; i < 4; i++) {
        char key[32], heading[48];

        snprintf(key, sizeof(key), "%s_blocks", states[i]);
        table_number(table, key, NULL, fsck->blocks[i]);
        snprintf(key, sizeof(key), "%s_bytes", states[i]);
        table_number(table, key, NULL, fsck->bytes[i]);
        snprintf(heading, sizeof(heading), "%lu block%s, %lu byte%s", (unsigned long)fsck->blocks[i], plural(fsck->blocks[i]),
                 (unsigned long)fsck->bytes[i], plural(fsck->bytes[i]));
        if (!shms->json)
            table_text(table, states[i], headings[i], heading);
    }
    table_end(table);
}

static int command_fsck(const struct shms *shms)
{
    struct la_fsck fsck = { .struct_size = sizeof(fsck) };
    struct la_heap *heap;
    int errors;

    if (shms_attach(shms, shms->args[0], shms->quarantine ? LA_HEAP_NO_RECOVER : LA_HEAP_READ_ONLY, &heap) < 0)
        return shms_fail();
    errors = la_heap_fsck(heap, print_finding, NULL, &fsck);
    if (errors < 0) {
        shms_fail();
    } else {
        if (errors && shms->quarantine)
            quarantine(shms, heap);
        print_fsck(shms, heap, &fsck);
    }
    shms_leave(shms, heap);
    return errors < 0 ? EXIT_REFUSED : errors ? EXIT_FINDINGS : EXIT_SUCCESS;
}

/* Of a daemon: it is connected to before; EITHER: unless --embedded is given. */
enum needs { EITHER, DAEMON, NOTHING };

/* Options that not every command has. */
enum { OPTION_JSON = 1, OPTION_HUGE = 2, OPTION_KILL = 4, OPTION_QUARANTINE = 8 };

static const struct command {
    const char *name;
    const char *arguments;
    int min_args, max_args;
    int (*run)(const struct shms *shms);
    enum needs needs;
    unsigned options;
} commands[] = {
    { "ls", "", 0, 0, command_ls, EITHER, OPTION_JSON },
    { "info", "NAME", 1, 1, command_info, EITHER, OPTION_JSON },
    { "create", "NAME SIZE", 2, 2, command_create, EITHER, OPTION_JSON | OPTION_HUGE },
    { "rm", "NAME...", 1, 1 << 16, command_rm, EITHER, OPTION_JSON },
    { "clients", "[NAME]", 0, 1, command_clients, EITHER, OPTION_JSON },
    { "fsck", "NAME", 1, 1, command_fsck, EITHER, OPTION_JSON | OPTION_QUARANTINE },
    { "acl", "NAME [MODE] [OWNER][:GROUP]", 1, 3, command_acl, DAEMON, OPTION_JSON },
    { "seal", "NAME", 1, 1, command_seal, DAEMON, OPTION_JSON },
    { "roots", "NAME", 1, 1, command_roots, EITHER, OPTION_JSON },
    { "who", "ADDRESS", 1, 1, command_who, EITHER, OPTION_JSON },
    { "kick", "PID", 1, 1, command_kick, DAEMON, OPTION_JSON | OPTION_KILL },
    { "gc", "[NAME]", 0, 1, command_gc, EITHER, OPTION_JSON },
    { "obituary", "[NAME]", 0, 1, command_obituary, DAEMON, OPTION_JSON },
    { "metrics", "", 0, 0, command_metrics, DAEMON, 0 },
    { "top", "", 0, 0, command_top, EITHER, 0 },
    { "watch", "[NAME]", 0, 1, command_watch, DAEMON, OPTION_JSON },
    { "quota", "[USER [LIMIT=N...]]", 0, 7, command_quota, DAEMON, OPTION_JSON },
    { "doctor", "", 0, 0, command_doctor, NOTHING, OPTION_JSON },
};

/* ---- the command line ---- */

static const struct argp_option argp_options[] = {
    { "socket", 's', "PATH", 0, "The daemon's socket; default: $SHMSERVER_SOCKET, else $XDG_RUNTIME_DIR/shmserver.sock, then "
                                "/run/shmserver/shmserver.sock", 0 },
    { "embedded", 'e', NULL, 0, "Act on this user's heaps without a daemon (in /dev/shm, or a hugetlbfs)", 0 },
    { "json", 'j', NULL, 0, "Print JSON (all but top, and metrics, which prints OpenMetrics text)", 0 },
    { "huge", 'H', "SIZE", 0, "With create: of huge pages of 2M or 1G, or, of a daemon, another size that the machine has", 0 },
    { "kill", 'k', NULL, 0, "With kick: end the process, not only its connections", 0 },
    { "quarantine", 'q', NULL, 0, "With fsck: let nobody allocate from a heap that is found broken", 0 },
    { 0 },
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct shms *shms = state->input;

    switch (key) {
    case 's':
        shms->socket = arg;
        break;
    case 'e':
        shms->embedded = true;
        break;
    case 'j':
        shms->json = true;
        break;
    case 'H':
        shms->huge = arg;
        break;
    case 'k':
        shms->kill = true;
        break;
    case 'q':
        shms->quarantine = true;
        break;
    case ARGP_KEY_ARGS:
        shms->args = state->argv + state->next;
        shms->arg_count = state->argc - state->next;
        break;
    case ARGP_KEY_NO_ARGS:
        argp_usage(state);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct command *find_command(const struct shms *shms)
{
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        const struct command *command = &commands[i];

        if (strcmp(command->name, shms->args[0]) != 0)
            continue;
        if (shms->arg_count - 1 >= command->min_args && shms->arg_count - 1 <= command->max_args)
            return command;
        fprintf(stderr, "shms: usage: shms %s%s%s\n", command->name, *command->arguments ? " " : "", command->arguments);
        return NULL;
    }
    fprintf(stderr, "shms: there is no command \"%s\": see shms --help\n", shms->args[0]);
    return NULL;
}

/* An option that would change nothing was meant for something. */
static bool check_options(const struct shms *shms, const struct command *command)
{
    if (shms->json && !(command->options & OPTION_JSON))
        fprintf(stderr, "shms: %s has no JSON: %s\n", command->name,
                strcmp(command->name, "metrics") == 0 ? "its text is OpenMetrics, which programs read as it is" : "use ls, clients or watch");
    else if (shms->huge && !(command->options & OPTION_HUGE))
        fprintf(stderr, "shms: --huge is for create, which says what pages a heap has\n");
    else if (shms->kill && !(command->options & OPTION_KILL))
        fprintf(stderr, "shms: --kill is for kick\n");
    else if (shms->quarantine && !(command->options & OPTION_QUARANTINE))
        fprintf(stderr, "shms: --quarantine is for fsck, which finds out whether a heap is broken\n");
    else
        return true;
    return false;
}

int main(int argc, char **argv)
{
    static const struct argp argp = { .options = argp_options, .parser = parse_option,
        .args_doc = "ls\ninfo NAME\ncreate NAME SIZE\nrm NAME...\nclients [NAME]\nfsck NAME\nacl NAME [MODE] [OWNER][:GROUP]\nseal NAME"
                     "\nroots NAME\nwho ADDRESS\nkick PID\ngc [NAME]\nobituary [NAME]\ntop\nwatch [NAME]\nmetrics\ndoctor\nquota [USER [LIMIT=N...]]",
        .doc = "Look at heaps that processes share, make and remove them.\v"
               "SIZE is in bytes, or with K, M, G, T: 512M. Exit status: 0; 1 refused; 2 wrong usage; 3 no daemon; 4 fsck or doctor found errors." };
    const struct command *command;
    struct shms shms = { 0 };
    int status;

    argp_err_exit_status = EXIT_USAGE;
    argp_parse(&argp, argc, argv, 0, NULL, &shms);
    command = find_command(&shms);
    if (!command || !check_options(&shms, command))
        return EXIT_USAGE;
    shms.args++;
    shms.arg_count--;
    if (command->needs == DAEMON && shms.embedded) {
        fprintf(stderr, "shms: %s is for heaps of a daemon, not for --embedded ones\n", command->name);
        return EXIT_USAGE;
    }
    if (command->needs != NOTHING && !shms.embedded && shms_connect(shms.socket, &shms.client) < 0) {
        shms_fail();
        return la_last_error_code() == -ECONNREFUSED ? EXIT_NO_DAEMON : EXIT_REFUSED;
    }
    status = command->run(&shms);
    shms_disconnect(shms.client);
    return status;
}
