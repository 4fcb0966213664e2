#include "amount.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char units[] = "KMGTPE";

bool amount_parse(const char *text, uint64_t *ret)
{
    unsigned shift = 0;
    unsigned long long n;
    char *end;

    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    n = strtoull(text, &end, 10);
    if (*end) {
        const char *unit = strchr(units, *end >= 'a' ? *end - 'a' + 'A' : *end);

        if (!unit)
            return false;
        shift = 10 * (unsigned)(unit - units + 1);
        end++;
        if (strcmp(end, "iB") != 0 && strcmp(end, "B") != 0 && *end)
            return false;
    }
    if (errno || n > UINT64_MAX >> shift)
        return false;
    *ret = (uint64_t)n << shift;
    return true;
}

const char *amount_print(uint64_t bytes, char out[AMOUNT_SIZE])
{
    uint64_t unit = 1;
    int i = -1;

    while (bytes / unit >= 1024 && i < (int)sizeof(units) - 2) {
        unit *= 1024;
        i++;
    }
    if (i < 0)
        snprintf(out, AMOUNT_SIZE, "%lu B", (unsigned long)bytes);
    else if (bytes % unit == 0)
        snprintf(out, AMOUNT_SIZE, "%lu %ciB", (unsigned long)(bytes / unit), units[i]);
    else
        snprintf(out, AMOUNT_SIZE, "%.1f %ciB", (double)bytes / (double)unit, units[i]);
    return out;
}
