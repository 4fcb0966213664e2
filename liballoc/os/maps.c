/*
 * maps.c - parser of /proc/PID/maps, one character at a time out of a buffer on the caller's stack.
 *
 *     7f12a4000000-7f12a4021000 rw-p 00000000 00:01 1234                       /memfd:name (deleted)
 *     start        end          perms offset  device inode                     path, to the end of the line
 */
#include "os/maps.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { END_OF_FILE = -1, FIRST_READ = 256 };

int maps_open_file(struct maps_reader *reader, const char *path)
{
    reader->at = reader->end = 0;
    reader->wanted = FIRST_READ;
    reader->fd = open(path, O_RDONLY | O_CLOEXEC);
    return reader->fd < 0 ? -errno : 0;
}

int maps_open(struct maps_reader *reader)
{
    /* /proc/self is the main thread, whose maps are empty once it has left by pthread_exit(). */
    int r = maps_open_file(reader, "/proc/thread-self/maps");

    return r < 0 ? maps_open_file(reader, "/proc/self/maps") : r;
}

void maps_close(struct maps_reader *reader)
{
    close_fd(&reader->fd);
}

/* The next character without taking it; END_OF_FILE or a negative errno below that. */
static int peek(struct maps_reader *reader)
{
    ssize_t n;

    if (reader->at < reader->end)
        return (unsigned char)reader->buffer[reader->at];
    do
        n = read(reader->fd, reader->buffer, reader->wanted);
    while (n < 0 && errno == EINTR);
    if (n <= 0)
        return n == 0 ? END_OF_FILE : END_OF_FILE - errno;
    reader->wanted = MIN(2 * reader->wanted, sizeof(reader->buffer));
    reader->at = 0;
    reader->end = (size_t)n;
    return (unsigned char)reader->buffer[0];
}

static int take(struct maps_reader *reader)
{
    int c = peek(reader);

    if (c >= 0)
        reader->at++;
    return c;
}

static int digit_value(int c, unsigned base)
{
    int value = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : 16;

    return value < (int)base ? value : -1;
}

/* A number and the character that ends it. */
static bool take_number(struct maps_reader *reader, unsigned base, char ending, uint64_t *ret)
{
    uint64_t number = 0;
    int digits = 0, value;

    for (; (value = digit_value(peek(reader), base)) >= 0; digits++) {
        number = number * base + (uint64_t)value;
        take(reader);
    }
    *ret = number;
    return digits > 0 && take(reader) == ending;
}

static bool take_perms(struct maps_reader *reader, char perms[5])
{
    for (int i = 0; i < 4; i++) {
        int c = take(reader);

        if (c <= ' ')
            return false;
        perms[i] = (char)c;
    }
    perms[4] = '\0';
    return take(reader) == ' ';
}

/* The inode, which the end of the line may follow, then the path behind any number of spaces. */
static bool take_inode_and_path(struct maps_reader *reader, struct maps_entry *entry)
{
    size_t length = 0;
    int c, value, digits = 0;

    for (entry->inode = 0; (value = digit_value(peek(reader), 10)) >= 0; digits++) {
        entry->inode = entry->inode * 10 + (uint64_t)value;
        take(reader);
    }
    while (peek(reader) == ' ')
        take(reader);
    while ((c = take(reader)) >= 0 && c != '\n')
        if (length + 1 < sizeof(entry->path))
            entry->path[length++] = (char)c;
    entry->path[length] = '\0';
    return digits > 0;
}

int maps_next(struct maps_reader *reader, struct maps_entry *ret)
{
    uint64_t start, end, major, minor;
    int c = peek(reader);

    if (c < 0)
        return c == END_OF_FILE ? 0 : c - END_OF_FILE;
    if (!take_number(reader, 16, '-', &start) || !take_number(reader, 16, ' ', &end) || !take_perms(reader, ret->perms) ||
        !take_number(reader, 16, ' ', &ret->offset) || !take_number(reader, 16, ':', &major) ||
        !take_number(reader, 16, ' ', &minor) || !take_inode_and_path(reader, ret))
        return -EPROTO;
    ret->start = (uintptr_t)start;
    ret->end = (uintptr_t)end;
    return 1;
}

int maps_find(uintptr_t start, uintptr_t end, struct maps_entry *ret)
{
    struct maps_reader reader;
    int r = maps_open(&reader);

    if (r < 0)
        return r;
    while ((r = maps_next(&reader, ret)) > 0)
        if (ret->end > start) {
            r = ret->start < end;
            break;
        }
    maps_close(&reader);
    return r;
}
