#include "segments/driver.h"

#include <dlfcn.h>
#include <stdlib.h>

void *driver_open(const char *variable, const char *const *names, size_t count)
{
    const char *path = secure_getenv(variable);
    void *library = NULL;

    if (path && path[0])
        return dlopen(path, RTLD_NOW | RTLD_LOCAL);
    /* Two of one driver in a process would not know of each other. */
    for (size_t i = 0; i < count && !library; i++)
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD);
    for (size_t i = 0; i < count && !library; i++)
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    return library;
}
