#include "shmserver/daemon/log.h"

#include <stdarg.h>
#include <stdio.h>

#include "shmserver/daemon/loop.h"

static enum log_level highest = LOG_INFO;
static bool for_journal;

static struct {
    uint64_t filled_ms;
    unsigned lines;
    unsigned long left_out;
} bucket = { .lines = LOG_BURST };

void log_open(enum log_level level, bool journal)
{
    highest = level;
    for_journal = journal;
}

bool log_bucket_take(uint64_t now_ms)
{
    uint64_t due = (now_ms - bucket.filled_ms) * LOG_PER_SECOND / 1000;

    if (due > 0) {
        bucket.lines = (unsigned)MIN(bucket.lines + due, LOG_BURST);
        bucket.filled_ms = now_ms;
    }
    if (bucket.lines == 0) {
        bucket.left_out++;
        return false;
    }
    bucket.lines--;
    return true;
}

static void print(enum log_level level, const char *format, va_list args)
{
    static const char *const words[] = { "error: ", "warning: ", "", "" };
    static const char *const journal[] = { "<3>", "<4>", "<6>", "<7>" };
    char line[512];

    vsnprintf(line, sizeof(line), format, args);
    if (for_journal)
        fprintf(stderr, "%s%s\n", journal[level], line);
    else
        fprintf(stderr, "shmserver: %s%s\n", words[level], line);
}

void log_write(enum log_level level, const char *format, ...)
{
    va_list args;

    if (level > highest || (level > LOG_ERROR && !log_bucket_take(now_ms())))
        return;
    if (bucket.left_out > 0) {
        fprintf(stderr, "shmserver: %lu message%s left out\n", bucket.left_out, bucket.left_out == 1 ? " was" : "s were");
        bucket.left_out = 0;
    }
    va_start(args, format);
    print(level, format, args);
    va_end(args);
}
