/*
 * DPDK's rte_malloc: lists of free elements by size under a spin lock. Its second process needs huge pages: one process here, without them. Its headers
 * come with 200 packages; these four functions are called without.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "shared_one_process.h"

static void *(*rte_malloc)(const char *type, size_t size, unsigned alignment);
static void (*rte_free)(void *block);

static void *backend_find(const char *name)
{
    void *library = dlopen("librte_eal.so.23", RTLD_NOW), *found = library ? dlsym(library, name) : NULL;

    if (!found) {
        fputs("librte_eal.so.23\n", stderr);
        exit(77);
    }
    return found;
}

static void backend_create(const char *name, size_t bytes)
{
    char prefix[64], memory[32], folder[256];
    char *arguments[] = { "bench", "--no-huge", "--no-shconf", "--no-pci", "--no-telemetry", "-l", "0", "-m", memory, "--file-prefix", prefix,
                          "--log-level", "lib.*:error" };
    int (*rte_eal_init)(int argc, char **argv) = (int (*)(int, char **))backend_find("rte_eal_init");

    /* What it leaves goes to the current folder, not to /var/run. */
    setenv("RUNTIME_DIRECTORY", getcwd(folder, sizeof(folder)) ? folder : "/tmp", 1);
    snprintf(prefix, sizeof(prefix), "%s", name);
    snprintf(memory, sizeof(memory), "%zu", bytes >> 20);
    rte_malloc = (void *(*)(const char *, size_t, unsigned))backend_find("rte_malloc");
    rte_free = (void (*)(void *))backend_find("rte_free");
    if (rte_eal_init(sizeof(arguments) / sizeof(arguments[0]), arguments) < 0) {
        fputs("shared_dpdk: rte_eal_init\n", stderr);
        exit(2);
    }
}

static inline void *shared_alloc(size_t size)
{
    return rte_malloc(NULL, size, 0);
}

static inline void shared_free(void *block)
{
    rte_free(block);
}
