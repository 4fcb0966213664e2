#include "os/maps.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

struct reader {
    int fd;
    size_t at, end;
    char buffer[4096];
};

static int next_char(struct reader *r)
{
    if (r->at == r->end) {
        ssize_t n;

        do
            n = read(r->fd, r->buffer, sizeof(r->buffer));
        while (n < 0 && errno == EINTR);
        if (n <= 0)
            return -1;
        r->at = 0;
        r->end = (size_t)n;
    }
    return (unsigned char)r->buffer[r->at++];
}

/* One line, cut at @size; false at the end of the file. */
static bool read_line(struct reader *r, char *line, size_t size)
{
    size_t n = 0;
    int c;

    while ((c = next_char(r)) >= 0 && c != '\n')
        if (n + 1 < size)
            line[n++] = (char)c;
    line[n] = '\0';
    return c >= 0 || n > 0;
}

static const char *parse_hex(const char *s, uintptr_t *ret)
{
    *ret = 0;
    for (;; s++) {
        if (*s >= '0' && *s <= '9')
            *ret = *ret * 16 + (uintptr_t)(*s - '0');
        else if (*s >= 'a' && *s <= 'f')
            *ret = *ret * 16 + (uintptr_t)(*s - 'a' + 10);
        else
            return s;
    }
}

/* "start-end perms offset device inode      path" */
static bool parse_line(const char *s, struct map_entry *entry)
{
    s = parse_hex(s, &entry->start);
    if (*s != '-')
        return false;
    s = parse_hex(s + 1, &entry->end);
    if (*s != ' ' || strnlen(s + 1, 4) < 4)
        return false;
    memcpy(entry->permissions, s + 1, 4);
    entry->permissions[4] = '\0';
    s += 5;
    for (int field = 0; field < 3; field++) {
        s += strspn(s, " ");
        s += strcspn(s, " ");
    }
    s += strspn(s, " ");
    entry->path[0] = '\0';
    strncat(entry->path, s, sizeof(entry->path) - 1);
    return true;
}

int maps_each(uintptr_t start, uintptr_t end, bool (*visit)(void *arg, const struct map_entry *entry), void *arg)
{
    struct reader reader = { .fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC) };
    struct map_entry entry;
    char line[320];

    if (reader.fd < 0)
        return -errno;
    while (read_line(&reader, line, sizeof(line)))
        if (parse_line(line, &entry) && entry.end > start && entry.start < end && !visit(arg, &entry))
            break;
    close(reader.fd);
    return 0;
}
