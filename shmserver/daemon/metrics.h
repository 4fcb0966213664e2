/*
 * metrics.h - the state of the daemon as OpenMetrics text, for monitoring.
 *
 * All samples of a family stand together, as the format demands; label values are names of heaps and numbers, which need no escaping.
 */
#ifndef DAEMON_METRICS_H
#define DAEMON_METRICS_H

#include "base/util.h"

struct server;

/* The text, from malloc(). NULL: no memory. */
char *metrics_print(struct server *server, size_t *size);

#endif
