#include "os/sysfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

bool os_read_text(const char *path, char *text, size_t size)
{
    int saved = errno;
    CLEANUP(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, size - 1);

    text[MAX(n, 0)] = '\0';
    errno = saved;
    return n > 0;
}

size_t os_number_after(const char *text, const char *key)
{
    size_t number = 0, length = strlen(key);

    for (const char *line = text; line; line = strchr(line, '\n')) {
        const char *c;

        line += *line == '\n';
        if (strncmp(line, key, length) != 0)
            continue;
        c = line + length + strspn(line + length, " \t");
        if (*c < '0' || *c > '9')
            break;
        for (; *c >= '0' && *c <= '9'; c++)
            number = number * 10 + (size_t)(*c - '0');
        return number;
    }
    return SIZE_MAX;
}

size_t os_read_number(const char *path)
{
    char text[32];

    return os_read_text(path, text, sizeof(text)) ? os_number_after(text, "") : SIZE_MAX;
}
