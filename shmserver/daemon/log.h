/*
 * log.h - the daemon's messages, on standard error.
 *
 * Peers can cause messages; so that none of them fills a disk, what is below LOG_ERROR passes a bucket: a burst of
 * LOG_BURST lines, LOG_PER_SECOND in the long run, and then one line that says how many were left out.
 */
#ifndef DAEMON_LOG_H
#define DAEMON_LOG_H

#include "base/util.h"

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG };
enum { LOG_BURST = 200, LOG_PER_SECOND = 10 };

/* What is below @level is not written. @journal: begin lines with <N>, as the service manager's journal reads them. */
void log_open(enum log_level level, bool journal);

void log_write(enum log_level level, const char *format, ...) PRINTF_LIKE(2, 3);

/* false: the bucket is empty at @now_ms. For log_write() and its test. */
bool log_bucket_take(uint64_t now_ms);

#endif
