/*
 * backends.c - to be preloaded with liballoc-malloc.so: the main thread's malloc is a chain over the kind of memory that BENCH_BACKEND names, so that
 * every program of this folder can be measured over each kind.
 *
 *     BENCH_BACKEND=memfd LD_PRELOAD="bench-backends.so liballoc-malloc.so" bench-pair 1
 *
 * Kinds: a list of sources, with "+mlock" behind it under a registrar that locks; or "user", a buffer. Exit status 77, with the reason, where the
 * machine has not that kind. Names of files go at once, so that none is left.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <liballoc/liballoc.h>
#include <segments/supply.h>

enum { BUFFER = 512 << 20 };

static __attribute__((noreturn)) void cannot(const char *kind, const char *why)
{
    fprintf(stderr, "%s: %s\n", kind, why);
    _exit(77);
}

static struct la_chain *chain_over_buffer(void)
{
    struct seg_request request = { .struct_size = sizeof(request), .kind = SEG_USER, .wanted_size = BUFFER };
    struct seg_segment *segment;
    struct la_source *source;
    struct la_chain *chain;

    request.buffer = mmap(NULL, BUFFER, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (request.buffer == MAP_FAILED || seg_open(&request, &segment) < 0 || seg_source_create(segment, &source) < 0 ||
        la_chain_create(source, 0, &chain) < 0)
        cannot("user", la_last_error());
    return chain;
}

/* The next extent's name: "NAME.1", "NAME.2" ... in /dev/shm or by its path. */
static int forget_name(void *user, enum seg_event event, const struct seg_extent *extent, const struct seg_key *keys, size_t key_count)
{
    static unsigned number;
    const char *list = user, *text = strchr(list, ':') + 1;
    char name[256];

    (void)extent, (void)keys, (void)key_count;
    if (event != SEG_GROWN)
        return 0;
    snprintf(name, sizeof(name), "%s.%u", text, ++number);
    return strncmp(list, "shm:", 4) == 0 ? seg_remove(name) : unlink(name);
}

static struct la_chain *chain_over(const char *kind)
{
    struct seg_supply_config config = { .struct_size = sizeof(config) };
    static char list[256];
    size_t length = strcspn(kind, "+");
    struct seg_supply *supply;
    struct la_chain *chain;

    snprintf(list, sizeof(list), "%.*s", (int)length, kind);
    config.list = list;
    if (strcmp(kind + length, "+mlock") == 0 && seg_registrar_mlock(&config.registrars[0]) < 0)
        cannot(kind, la_last_error());
    if (seg_supply_create(&config, &supply) < 0 ||
        ((strncmp(list, "shm:", 4) == 0 || strncmp(list, "file:", 5) == 0) && seg_supply_subscribe(supply, forget_name, list) < 0) ||
        la_chain_create(seg_supply_source(supply), 0, &chain) < 0 || !la_chain_alloc(chain, 1))
        cannot(kind, la_last_error());
    return chain;
}

__attribute__((constructor)) static void begin(void)
{
    const char *kind = getenv("BENCH_BACKEND");

    if (kind)
        la_default_set(strcmp(kind, "user") == 0 ? chain_over_buffer() : chain_over(kind));
}
