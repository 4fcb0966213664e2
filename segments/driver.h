/*
 * driver.h - libraries of drivers, opened when the program runs: by versioned names only, as others belong to development packages and stubs.
 */
#ifndef SEGMENTS_DRIVER_H
#define SEGMENTS_DRIVER_H

#include <stddef.h>

/*
 * The library that the environment's @variable names, else the first of @names that the program has loaded, else the first that there is. It is not
 * to be closed: drivers keep threads and exit handlers of their own. NULL: dlerror() says why.
 */
void *driver_open(const char *variable, const char *const *names, size_t count);

#endif
