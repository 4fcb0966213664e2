/*
 * main.c - the model checker: every schedule of each scenario.
 *
 *   model [--deep] [--max STATES] [--quiet] [NAME]...     all scenarios, or these
 *
 * Exit status: 0 nothing found, 1 a violation (its schedule is printed), 3 too many states, 2 wrong arguments. MODEL_DEEP=1 in the
 * environment is --deep: the long scenarios, too.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "scenario.h"

/* Name, programs, objects on the list at the start, more fields. The number of programs is the number of lanes. */
#define TWO(text, first, second, on_list, ...) { .name = text, .program = { first, second }, .lanes = 2, .listed = on_list, __VA_ARGS__ }
#define THREE(text, first, second, third, on_list, ...) \
    { .name = text, .program = { first, second, third }, .lanes = 3, .listed = on_list, __VA_ARGS__ }
#define KILLS(who) .mortal = who, .kills = 1
#define KILLS_TWO .mortal = "123", .kills = 2
#define KILLS_RECOVERER .kills = 1, .recoverer_kills = 1

static const struct scenario scenarios[] = {
    /* Two lanes, nobody dies. */
    TWO("push-push", "+p", "+p", 1, .mortal = ""),
    TWO("push-take", "+p", "t", 1, .mortal = ""),
    TWO("take-take", "t", "t", 2, .mortal = ""),
    TWO("take-take-one", "t", "t", 1, .mortal = ""),
    TWO("swap-swap", "+s", "+s", 1, .mortal = ""),
    TWO("swap-take", "+s", "tf", 1, .mortal = ""),
    /* Blocks go and come back, with the next generation. */
    TWO("reuse-take", "tfhp", "t", 1, .mortal = ""),
    TWO("reuse-reuse", "tfhp", "tfhp", 2, .mortal = ""),
    TWO("repush-push", "tp", "+p", 1, .mortal = ""),
    TWO("repush-take", "tptp", "t", 2, .mortal = ""),
    /* One is killed anywhere, and recovered while the other goes on. */
    TWO("kill-push-push", "+p", "+p", 1, KILLS("12")),
    TWO("kill-push-take", "+p", "t", 1, KILLS("12")),
    TWO("kill-take-take", "t", "t", 2, KILLS("12")),
    TWO("kill-swap-take", "+s", "tf", 1, KILLS("12")),
    TWO("kill-repush-push", "tp", "+p", 1, KILLS("12")),
    TWO("kill-reuse-take", "tfhp", "tf", 1, KILLS("12")),
    TWO("kill-recoverer-push", "+p", "+p", 1, .mortal = "12", KILLS_RECOVERER),
    TWO("kill-recoverer-take", "t", "tf", 2, .mortal = "12", KILLS_RECOVERER),
    TWO("kill-both", "+p", "t", 1, KILLS_TWO),
    /* Bundles. */
    TWO("bundle-push", "*b", "+p", 1, KILLS("1"), .bundles = true),
    TWO("bundle-take", "*b", "tf", 0, KILLS("1"), .bundles = true),
    TWO("bundle-recoverer", "*b", "+p", 0, .mortal = "1", KILLS_RECOVERER, .bundles = true),
    /* Roots with a version. */
    TWO("version-version", "+v", "+v", 0, .mortal = ""),
    TWO("version-twice", "+vv", "+v", 0, .mortal = ""),
    TWO("version-read", "+v", "rr", 0, .mortal = ""),
    TWO("version-out-in", "+vx", "+v", 0, .mortal = ""),
    TWO("version-back", "+v", "xv", 1, .mortal = ""),
    TWO("version-given-up", "+wtfp", "xvx", 1, .mortal = "", .deep = true),
    TWO("version-take", "+v", "tf", 1, .mortal = ""),
    TWO("version-push", "+v", "+p", 0, .mortal = ""),
    TWO("kill-version-version", "+vf", "+vf", 0, KILLS("12")),
    TWO("kill-version-over", "+v", "+v", 1, KILLS("12"), .deep = true),
    TWO("kill-version-out", "xf", "+v", 1, KILLS("12")),
    TWO("kill-version-take", "+v", "tf", 1, KILLS("12")),
    TWO("kill-recoverer-version", "+v", "+v", 0, .mortal = "1", KILLS_RECOVERER, .deep = true),
    /* The queue: positions come round, and slots with them. */
    TWO("queue-push-push", "+P", "+P", 0, .mortal = "", .queue = 2),
    TWO("queue-push-pop", "+P", "Gf", 0, .mortal = "", .queue = 1),
    TWO("queue-pop-pop", "G", "G", 2, .mortal = "", .queue = 2),
    TWO("queue-pop-pop-one", "G", "G", 1, .mortal = "", .queue = 2),
    TWO("queue-full", "+P", "Gf", 1, .mortal = "", .queue = 1),
    TWO("queue-round", "GPGP", "GP", 2, .mortal = "", .queue = 2),
    TWO("queue-reuse", "GfhPGfhP", "G", 1, .mortal = "", .queue = 1),
    TWO("kill-queue-push-push", "+P", "+P", 0, KILLS("1"), .queue = 1),
    TWO("kill-queue-push-pop", "+P", "Gf", 1, KILLS("12"), .queue = 2),
    TWO("kill-queue-pop-pop", "Gf", "Gf", 1, KILLS("1"), .queue = 2),
    TWO("kill-queue-full", "+PP", "GP", 1, KILLS("12"), .queue = 1),
    /* A helper that sleeps. */
    TWO("late-helper", "tptpt", "t", 1, .mortal = ""),
    /* The mutex. */
    TWO("mutex", "ll", "ll", 0, KILLS("12")),
    /* Heirs of one who died before: they share what there is, and may be killed over it. */
    TWO("heir-heir", "i", "i", 0, .mortal = "", .left = 2),
    TWO("heir-free", "iff", "iff", 0, .mortal = "", .left = 2),
    TWO("heir-count", "ip", "cc", 0, .mortal = "", .left = 1),
    TWO("heir-push-take", "ip", "it", 0, .mortal = "", .left = 1),
    TWO("kill-heir", "i", "i", 0, KILLS("12"), .left = 2),
    TWO("kill-heir-of-heir", "Hi", "ii", 0, KILLS("1"), .left = 2),
    TWO("kill-heir-recoverer", "i", "i", 0, .mortal = "1", KILLS_RECOVERER, .left = 1),
    THREE("heir-lane-lent", "ip", "i", "Lt", 0, .mortal = "", .left = 1),
    /* The dead leave something while their heir is at work. */
    TWO("kill-leave", "H+.", "ii", 0, KILLS("1")),
    TWO("kill-leave-push", "H++p.", "i", 0, KILLS("1")),
    TWO("kill-leave-take", "Htf", "ti", 2, KILLS("1")),
    THREE("three-kill-leave-take", "Ht", "t", "i", 1, KILLS("1")),
    TWO("kill-leave-version", "H+v", "xi", 1, KILLS("1")),
    TWO("kill-leave-queue", "H+PG", "Gfi", 1, KILLS("1"), .queue = 2),
    TWO("kill-leave-bundle", "H*b", "it", 0, KILLS("1"), .bundles = true),
    TWO("kill-leave-recoverer", "H++p.", "i", 0, .mortal = "1", KILLS_RECOVERER),
    TWO("kill-set-heir", "++ef.", "i", 0, KILLS("1")),
    TWO("kill-leave-both", "H+.", "H+.", 0, .mortal = "12", .kills = 2, .recoverers_meet = true),
    THREE("three-kill-leave-both", "H+.", "H+.", "i", 0, .mortal = "12", .kills = 2, .recoverers_meet = true, .deep = true),
    /* Outcomes of operations with a number. */
    TWO("outcome-push", "++npnp", "oo", 0, .mortal = ""),
    TWO("outcome-take", "ntnt", "oO", 1, .mortal = ""),
    TWO("kill-outcome-push", "++npnp", "o", 0, KILLS("1")),
    TWO("kill-outcome-take", "nt", "oto", 1, KILLS("1")),
    TWO("kill-outcome-queue", "+nPnG", "o", 0, KILLS("1"), .queue = 1),
    TWO("kill-outcome-both", "n.", "n.", 0, .mortal = "12", .kills = 2, .recoverers_meet = true),
    TWO("kill-outcome-recoverer", "+np", "o", 0, .mortal = "1", KILLS_RECOVERER),
    TWO("kill-outcome-lane-lent", "+np.", "Lnt", 0, .mortal = "12", .kills = 2),
    THREE("three-outcome-lane-lent", "n.", "o", "Ln", 0, KILLS("1")),
    THREE("three-outcome-lane-lent-take", "+np.", "oo", "Lnt", 0, KILLS("1"), .deep = true),
    /* Obituaries. */
    TWO("obituary", "NN", "aa", 0, .mortal = ""),
    TWO("obituary-obituary", "NN", "NN", 0, .mortal = "", .told = 3),
    TWO("obituary-round", "NNN", "aaa", 0, .mortal = "", .told = 4),
    THREE("obituary-three", "N", "N", "aaaa", 0, .mortal = "", .told = 3),
    TWO("kill-obituary", "+.", "aaaaa", 0, KILLS("1"), .told = 4),
    TWO("kill-obituary-recoverer", ".", "NNNNN", 0, .mortal = "1", KILLS_RECOVERER),
    TWO("kill-obituary-both", ".", ".", 0, .mortal = "12", .kills = 2, .recoverers_meet = true, .told = 3),
    THREE("three-kill-obituary-both", ".", ".", "aaaa", 0, .mortal = "12", .kills = 2, .recoverers_meet = true, .told = 3, .deep = true),
    /* Three lanes. */
    THREE("three-push-take-take", "+p", "t", "t", 1, .mortal = ""),
    THREE("three-take", "t", "t", "t", 2, .mortal = ""),
    THREE("three-push-push-take", "+p", "+p", "tf", 1, .mortal = ""),
    THREE("three-reuse", "tfhp", "t", "+p", 1, .mortal = "", .deep = true),
    THREE("three-kill-push-take", "+p", "+p", "t", 0, KILLS("123"), .deep = true),
    THREE("three-kill-take", "t", "t", "+p", 1, KILLS("123"), .deep = true),
    THREE("three-version", "+v", "+v", "r", 0, .mortal = ""),
    THREE("three-version-take", "+v", "+v", "t", 1, .mortal = "", .deep = true),
    THREE("three-kill-version", "+v", "+v", "r", 0, KILLS("12"), .deep = true),
    THREE("three-queue", "+P", "+P", "G", 0, .mortal = "", .queue = 1),
    THREE("three-kill-queue", "+P", "G", "G", 1, KILLS("123"), .queue = 2, .deep = true),
    THREE("three-mutex", "l", "l", "l", 0, KILLS("123")),
    /* Stores that become visible late. */
    TWO("late-push-push", "+p", "+p", 1, KILLS("12"), .store_buffers = true),
    TWO("late-push-take", "+p", "t", 1, KILLS("12"), .store_buffers = true),
    TWO("late-take-take", "t", "t", 2, KILLS("12"), .store_buffers = true),
    TWO("late-reuse-take", "tfhp", "t", 1, .mortal = "", .store_buffers = true),
    TWO("late-version-version", "+v", "+v", 0, KILLS("1"), .store_buffers = true),
    TWO("late-version-read", "+vv", "r", 0, .mortal = "", .store_buffers = true),
    TWO("late-queue-push-pop", "+P", "Gf", 0, KILLS("1"), .queue = 1, .store_buffers = true),
    TWO("late-heir-heir", "ip", "it", 0, KILLS("1"), .left = 2, .store_buffers = true),
    TWO("late-outcome", "+npn", "o", 0, KILLS("1"), .store_buffers = true),
    TWO("late-obituary", "NN", "aa", 0, .mortal = "", .told = 3, .store_buffers = true),
    THREE("late-kill-obituary", ".", "N", "aa", 0, KILLS("1"), .told = 3, .store_buffers = true),
    TWO("late-bundle-push", "*b", "+p", 0, KILLS("1"), .bundles = true, .store_buffers = true),
};

static double seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void print_findings(const struct scenario *s, const struct findings *f, double time)
{
    printf("%-28s %10lu %10lu %9.2g %6lu %6u %5u %6.2f  %s\n", s->name, f->states, f->edges, f->schedules, f->ends, f->longest_alone,
           f->stops, time, f->violated ? "VIOLATED" : !f->complete ? "TOO MANY STATES" : "holds");
    fflush(stdout);
}

static bool is_wanted(const struct scenario *s, char **names, bool deep)
{
    if (!*names)
        return deep || !s->deep;
    for (; *names; names++)
        if (strcmp(s->name, *names) == 0)
            return true;
    return false;
}

int main(int argc, char **argv)
{
    unsigned long max_states = 20000000;
    bool deep = getenv("MODEL_DEEP") && strcmp(getenv("MODEL_DEEP"), "0") != 0, quiet = false;
    int i = 1, status = 0;
    unsigned ran = 0;

    for (; i < argc && argv[i][0] == '-'; i++) {
        if (strcmp(argv[i], "--deep") == 0) {
            deep = true;
        } else if (strcmp(argv[i], "--quiet") == 0) {
            quiet = true;
        } else if (strcmp(argv[i], "--max") == 0 && i + 1 < argc) {
            max_states = strtoul(argv[++i], NULL, 10);
        } else {
            fprintf(stderr, "usage: model [--deep] [--max STATES] [--quiet] [NAME]...\n");
            return 2;
        }
    }
    printf("%-28s %10s %10s %9s %6s %6s %5s %6s\n", "scenario", "states", "steps", "schedules", "ends", "alone", "stops", "s");
    for (size_t n = 0; n < sizeof(scenarios) / sizeof(*scenarios); n++) {
        double start = seconds();
        struct findings f;

        if (!is_wanted(&scenarios[n], argv + i, deep))
            continue;
        f = scenario_run(&scenarios[n], max_states, quiet);
        print_findings(&scenarios[n], &f, seconds() - start);
        ran++;
        if (f.violated)
            return 1;
        if (!f.complete)
            status = 3;
    }
    if (!ran) {
        fprintf(stderr, "model: no scenario has such a name\n");
        return 2;
    }
    return status;
}
