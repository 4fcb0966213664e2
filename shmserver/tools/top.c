/*
 * top.c - shms top: the heaps, live, in a terminal.
 *
 * Each round asks for the list, compares it with the one before (by id, as names may be reused) for the growth per second, sorts and draws what
 * fits. A key or a change of the window's size begins a round at once.
 */
#include <curses.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "amount.h"
#include "shms.h"

enum { ROUND_MS = 1000, LINES_ABOVE = 4 };

struct line {
    struct shms_heap heap;
    int64_t growth;         /* of committed bytes per second */
    bool died;              /* a process since the last round */
};

struct screen {
    struct line *lines, *before;
    size_t count, before_count, room;
    double seconds;         /* between the two */
    unsigned order;         /* of orders[] */
    bool full;              /* of memory: lines are missing */
};

/* ---- one round ---- */

static const struct line *line_before(const struct screen *screen, uint64_t id)
{
    for (size_t i = 0; i < screen->before_count; i++)
        if (screen->before[i].heap.id == id)
            return &screen->before[i];
    return NULL;
}

static bool make_room(struct screen *screen)
{
    size_t room = screen->room ? 2 * screen->room : 64;
    struct line *lines = realloc(screen->lines, room * sizeof(*lines)), *before;

    if (!lines)
        return false;
    screen->lines = lines;
    before = realloc(screen->before, room * sizeof(*before));
    if (!before)
        return false;
    screen->before = before;
    screen->room = room;
    return true;
}

static void add_heap(void *user, const struct shms_heap *heap)
{
    struct screen *screen = user;
    const struct line *old;
    struct line *line;

    if (screen->count == screen->room && !make_room(screen)) {
        screen->full = true;
        return;
    }
    line = &screen->lines[screen->count++];
    *line = (struct line){ .heap = *heap };
    old = line_before(screen, heap->id);
    if (!old)
        return;
    line->died = heap->recovered_processes > old->heap.recovered_processes;
    if (screen->seconds > 0)
        line->growth = (int64_t)((double)((int64_t)heap->committed - (int64_t)old->heap.committed) / screen->seconds);
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int look(const struct shms *shms, struct screen *screen)
{
    static double last;
    struct line *lines = screen->before;
    double time = now();

    screen->before = screen->lines;
    screen->before_count = screen->count;
    screen->lines = lines;
    screen->count = 0;
    screen->seconds = last > 0 ? time - last : 0;
    last = time;
    return shms_list_heaps(shms, add_heap, screen);
}

/* ---- sorting ---- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct line *)a)->heap.name, ((const struct line *)b)->heap.name);
}

static int by_committed(const void *a, const void *b)
{
    uint64_t x = ((const struct line *)a)->heap.committed, y = ((const struct line *)b)->heap.committed;

    return x != y ? (x < y) - (x > y) : by_name(a, b);
}

static int by_growth(const void *a, const void *b)
{
    int64_t x = ((const struct line *)a)->growth, y = ((const struct line *)b)->growth;

    return x != y ? (x < y) - (x > y) : by_committed(a, b);
}

static int by_processes(const void *a, const void *b)
{
    uint32_t x = ((const struct line *)a)->heap.processes, y = ((const struct line *)b)->heap.processes;

    return x != y ? (x < y) - (x > y) : by_committed(a, b);
}

static const struct {
    const char *name;
    int (*compare)(const void *a, const void *b);
} orders[] = { { "committed", by_committed }, { "growth", by_growth }, { "processes", by_processes }, { "name", by_name } };

enum { ORDERS = sizeof(orders) / sizeof(orders[0]) };

/* ---- drawing ---- */

static void draw_line(int y, const struct line *line)
{
    const struct shms_heap *heap = &line->heap;
    char size[AMOUNT_SIZE], committed[AMOUNT_SIZE], growth[AMOUNT_SIZE];

    amount_print((uint64_t)(line->growth < 0 ? -line->growth : line->growth), growth);
    if (heap->quarantined)
        attron(A_REVERSE);
    if (line->died)
        attron(A_BOLD);
    mvprintw(y, 0, "%-24.24s %10s %10s %c%9s %5u %5u %6" PRIu64 "  %s", heap->name, amount_print(heap->size, size),
             amount_print(heap->committed, committed), line->growth < 0 ? '-' : line->growth > 0 ? '+' : ' ', growth, heap->processes, heap->lanes,
             heap->recovered_processes, heap->quarantined ? "quarantined" : heap->sealed ? "sealed" : "");
    attrset(A_NORMAL);
}

static void draw(const struct screen *screen)
{
    char committed_text[AMOUNT_SIZE];
    uint64_t committed = 0;
    unsigned processes = 0;

    for (size_t i = 0; i < screen->count; i++) {
        committed += screen->lines[i].heap.committed;
        processes += screen->lines[i].heap.processes;
    }
    erase();
    mvprintw(0, 0, "%zu heap%s, %s committed, %u attachment%s%s", screen->count, plural(screen->count), amount_print(committed, committed_text), processes,
             plural(processes), screen->full ? " (out of memory: some are missing)" : "");
    mvprintw(1, 0, "sorted by %s; s: another order, q: quit", orders[screen->order].name);
    attron(A_UNDERLINE);
    mvprintw(LINES_ABOVE - 1, 0, "%-24s %10s %10s %10s %5s %5s %6s  %-11s", "NAME", "SIZE", "COMMITTED", "GROWTH/S", "PROCS", "LANES", "DEATHS", "STATE");
    attrset(A_NORMAL);
    for (size_t i = 0; i < screen->count && LINES_ABOVE + (int)i < LINES; i++)
        draw_line(LINES_ABOVE + (int)i, &screen->lines[i]);
    refresh();
}

static int run(const struct shms *shms, struct screen *screen)
{
    int key = 0;

    while (key != 'q' && key != 'Q') {
        if (key == 's')
            screen->order = (screen->order + 1) % ORDERS;
        if (look(shms, screen) < 0)
            return -1;
        if (screen->count)
            qsort(screen->lines, screen->count, sizeof(*screen->lines), orders[screen->order].compare);
        draw(screen);
        key = getch();
    }
    return 0;
}

int command_top(const struct shms *shms)
{
    struct screen screen = { 0 };
    SCREEN *terminal = isatty(STDOUT_FILENO) ? newterm(NULL, stdout, stdin) : NULL;
    int r;

    if (!terminal) {
        fputs("shms: top needs a terminal (and $TERM): use ls, watch or metrics elsewhere\n", stderr);
        return EXIT_USAGE;
    }
    cbreak();
    noecho();
    curs_set(0);
    timeout(ROUND_MS);
    r = run(shms, &screen);
    endwin();
    delscreen(terminal);
    free(screen.lines);
    free(screen.before);
    return r < 0 ? shms_fail() : EXIT_SUCCESS;
}
