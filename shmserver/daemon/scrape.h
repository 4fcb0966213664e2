/*
 * scrape.h - a connection on the metrics socket: gets the text, whatever it sends, and is closed.
 *
 * It cannot do anything else, so the socket may be given to a monitor that shall not touch heaps. A reader that is slower than SCRAPE_MS, or comes
 * while SCRAPES_MAX others are served, is closed.
 */
#ifndef DAEMON_SCRAPE_H
#define DAEMON_SCRAPE_H

#include "base/list.h"
#include "shmserver/daemon/loop.h"

struct server;

enum { SCRAPE_MS = 20000, SCRAPES_MAX = 8 };

struct scrape {
    struct la_list node;        /* server.scrapes */
    struct server *server;
    struct loop_source socket;
    char *text;
    size_t size, sent;
    uint64_t until;             /* now_ms() */
};

/* Takes @fd, also on failure. */
void scrape_create(struct server *server, int fd);
void scrape_destroy(struct scrape *scrape);

/* Close those that are too slow. Return: ms until the next one is due, -1: none. */
int scrape_check_times(struct server *server, uint64_t now);

#endif
