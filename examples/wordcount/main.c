/*
 * main.c - wordcount: count the words of many files in one shared heap, by several processes, one of which is killed.
 *
 * Reading order: job.h (what is in the heap), worker.c, count.c, merge.c, coordinator.c, reader.c, summary.c. The
 * script "run" beside this file puts the processes together and checks the result against coreutils.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <liballoc/liballoc.h>

#include "roles.h"

static const char usage[] =
    "usage: wordcount ROLE --heap NAME [OPTION...]\n"
    "roles:\n"
    "  coordinator   create the heap, index the files named on standard input (each name with a NUL), kill one worker\n"
    "  reader        print COUNT WORD of all words, or the most frequent with --top N\n"
    "  summary       check that nothing was leaked, and print what it took\n"
    "  remove        remove the heap\n"
    "  worker        started by the coordinator\n"
    "options:\n"
    "  --socket PATH     of the shmserver that keeps the heap; without it the heap is embedded\n"
    "  --workers N       number of workers, 1 to 32 (default 3)\n"
    "  --seed N          chooses who is killed, and where (default 1)\n"
    "  --kill WAY        bundle (default): at a step with a bundle in hand; step: at any step; time: from outside\n"
    "  --no-kill         kill nobody\n"
    "  --heap-mib N      size of the heap's address space\n"
    "  --top N           reader: words to print\n";

int complain(const char *what, int code)
{
    const char *reason = la_last_error_code() == code ? la_last_error() : strerror(-code);

    fprintf(stderr, "wordcount: %s: %s\n", what, reason);
    return EXIT_FAILURE;
}

static bool parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *ret)
{
    char *end;
    uint64_t n = strtoull(text, &end, 10);

    if (*text < '0' || *text > '9' || *end || n < min || n > max)
        return false;
    *ret = n;
    return true;
}

static bool parse_way(const char *text, enum kill_way *ret)
{
    static const char *const names[] = { [KILL_BUNDLE] = "bundle", [KILL_STEP] = "step", [KILL_TIME] = "time" };

    for (enum kill_way way = KILL_BUNDLE; way <= KILL_TIME; way++) {
        if (strcmp(text, names[way]) == 0) {
            *ret = way;
            return true;
        }
    }
    return false;
}

enum { HEAP = 1, SOCKET, WORKERS, SEED, KILL, NO_KILL, HEAP_MIB, TOP, NUMBER, DIE_AT, DIE_IN_BUNDLE };

static const struct option long_options[] = {
    { "heap", required_argument, NULL, HEAP },
    { "socket", required_argument, NULL, SOCKET },
    { "workers", required_argument, NULL, WORKERS },
    { "seed", required_argument, NULL, SEED },
    { "kill", required_argument, NULL, KILL },
    { "no-kill", no_argument, NULL, NO_KILL },
    { "heap-mib", required_argument, NULL, HEAP_MIB },
    { "top", required_argument, NULL, TOP },
    { "number", required_argument, NULL, NUMBER },
    { "die-at", required_argument, NULL, DIE_AT },
    { "die-in-bundle", required_argument, NULL, DIE_IN_BUNDLE },
    { 0 },
};

/* False: @argument is wrong. */
static bool set_option(struct options *options, int option, const char *argument)
{
    uint64_t n = 0;
    bool good = true;

    switch (option) {
    case HEAP:
        options->heap = argument;
        break;
    case SOCKET:
        options->socket = argument;
        break;
    case WORKERS:
        good = parse_number(argument, 1, 32, &n);
        options->workers = (unsigned)n;
        break;
    case SEED:
        good = parse_number(argument, 0, UINT64_MAX, &options->seed);
        break;
    case KILL:
        good = parse_way(argument, &options->kill);
        break;
    case NO_KILL:
        options->kill = KILL_NONE;
        break;
    case HEAP_MIB:
        good = parse_number(argument, LA_HEAP_MIN_SIZE >> 20, 1 << 20, &n);
        options->heap_mib = (size_t)n;
        break;
    case TOP:
        good = parse_number(argument, 1, 1000, &n);
        options->top = (unsigned)n;
        break;
    case NUMBER:
        good = parse_number(argument, 1, 1000, &n);
        options->number = (uint32_t)n;
        break;
    case DIE_AT:
    case DIE_IN_BUNDLE:
        good = parse_number(argument, 1, UINT64_MAX, &options->die_at);
        options->die_in_bundle = option == DIE_IN_BUNDLE;
        break;
    default:
        good = false;
        break;
    }
    return good;
}

static const struct role {
    const char *name;
    int (*run)(const struct options *options);
} roles[] = {
    { "coordinator", run_coordinator }, { "worker", run_worker }, { "reader", run_reader },
    { "summary", run_summary },         { "remove", run_remove },
};

static const struct role *find_role(const char *name)
{
    for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++)
        if (strcmp(name, roles[i].name) == 0)
            return &roles[i];
    return NULL;
}

int main(int argc, char **argv)
{
    struct options options = { .workers = 3, .seed = 1, .kill = KILL_BUNDLE };
    const struct role *role = argc > 1 ? find_role(argv[1]) : NULL;
    bool good = role;
    int option;

    while (good && (option = getopt_long(argc - 1, argv + 1, "", long_options, NULL)) >= 0)
        good = set_option(&options, option, optarg);
    if (!good || !options.heap || optind != argc - 1 || (role->run == run_worker && options.number == 0)) {
        fputs(usage, stderr);
        return 2;
    }
    return role->run(&options);
}
