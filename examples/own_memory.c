/*
 * own_memory.c - plug in a kind of memory and a device: each is a table of functions, filled in a page.
 *
 * The source below hands out slices of one big arena, as a driver would that was given its memory at boot. The registrar below stands for a
 * device with an address table of its own; a real one would call ibv_reg_mr() or an ioctl() there. The chain above knows nothing of
 * either: it allocates objects, and the key of any object is found by its pointer.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <liballoc/liballoc.h>
#include <segments/find.h>

/* ---- the source: "arena:MIB" ---- */

enum { SLICE = 2 << 20, SLICES_MAX = 64 };

struct arena {
    char *base;
    size_t slices;
    char used[SLICES_MAX];
};

static int arena_open(const char *text, void *user, void **ret)
{
    struct arena *arena = calloc(1, sizeof(*arena));

    (void)user;
    if (!arena)
        return -ENOMEM;
    arena->slices = strtoul(text, NULL, 10) / 2;
    if (arena->slices == 0 || arena->slices > SLICES_MAX) {
        free(arena);
        return seg_fail(-EINVAL, "arena:%s: say how many MiB, 2 to %d", text, SLICES_MAX * 2);
    }
    arena->base = mmap(NULL, arena->slices * SLICE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (arena->base == MAP_FAILED) {
        free(arena);
        return -ENOMEM;
    }
    *ret = arena;
    return 0;
}

static void arena_close(void *self)
{
    struct arena *arena = self;

    munmap(arena->base, arena->slices * SLICE);
    free(arena);
}

static int arena_info(void *self, struct seg_source_info *ret)
{
    struct arena *arena = self;

    ret->page_size = 4096;
    ret->available = 0;
    for (size_t i = 0; i < arena->slices; i++)
        ret->available += arena->used[i] ? 0 : SLICE;
    return 0;
}

/* A row of free slices: what is wanted if there is one, else what is needed. */
static int arena_acquire(void *self, const struct seg_ask *ask, struct seg_extent *ret)
{
    struct arena *arena = self;
    size_t needed = (ask->min_size + SLICE - 1) / SLICE, run = 0;

    for (size_t i = 0; i < arena->slices; i++) {
        run = arena->used[i] ? 0 : run + 1;
        if (run == needed) {
            memset(arena->used + i + 1 - run, 1, run);
            ret->base = arena->base + (i + 1 - run) * SLICE;
            ret->size = run * SLICE;
            if (ret->size > ask->wanted_size)       /* no more than was asked for, in whole pages */
                ret->size = (ask->wanted_size + 4095) / 4096 * 4096;
            ret->page_size = 4096;
            return 0;
        }
    }
    return seg_fail(-ENOMEM, "the arena of %zu MiB has no %zu MiB in a row", arena->slices * 2, needed * 2);
}

static int arena_release(void *self, struct seg_extent *extent)
{
    struct arena *arena = self;
    size_t first = (size_t)((char *)extent->base - arena->base) / SLICE;

    memset(arena->used + first, 0, (extent->size + SLICE - 1) / SLICE);
    return 0;
}

static const struct seg_source_ops arena_ops = {
    .struct_size = sizeof(arena_ops), .name = "arena", .open = arena_open, .close = arena_close,
    .info = arena_info, .acquire = arena_acquire, .release = arena_release,
};

/* ---- the registrar: a device with a table of windows ---- */

enum { WINDOWS = 16 };

struct device {
    void *window[WINDOWS];
};

static int device_attach(void *self, const struct seg_extent *extent, struct seg_key *ret)
{
    struct device *device = self;

    for (unsigned i = 0; i < WINDOWS; i++)
        if (!device->window[i]) {
            device->window[i] = extent->base;
            ret->remote = i + 1;                        /* what a peer would have to say */
            ret->device = 0x8000000000 + ((uint64_t)i << 32);
            return 0;
        }
    return seg_fail(-ENOSPC, "all %d windows of the device are in use", WINDOWS);
}

static int device_detach(void *self, const struct seg_extent *extent, const struct seg_key *key)
{
    struct device *device = self;

    (void)extent;
    device->window[key->remote - 1] = NULL;
    return 0;
}

static const struct seg_registrar_ops device_ops = {
    .struct_size = sizeof(device_ops), .name = "example device", .attach = device_attach, .detach = device_detach,
};

/* ---- and their use ---- */

static int fail(void)
{
    fprintf(stderr, "%s\n", la_last_error());
    return EXIT_FAILURE;
}

int main(void)
{
    struct seg_supply_config config = { .struct_size = sizeof(config), .list = "arena:64" };
    struct device device = { { NULL } };
    struct seg_registrar *registrar;
    struct seg_supply *supply;
    struct seg_key_here key;
    struct la_chain *chain;
    char *object = NULL;

    if (seg_source_register(&arena_ops) < 0 || seg_registrar_create(&device_ops, &device, &registrar) < 0)
        return fail();
    config.registrars[0] = registrar;
    if (seg_supply_create(&config, &supply) < 0 || la_chain_create(seg_supply_source(supply), 0, &chain) < 0)
        return fail();

    for (int i = 0; i < 1000; i++)
        if (!(object = la_chain_alloc(chain, 5000)))
            return fail();
    strcpy(object, "known to the device");
    if (seg_key_of(object, registrar, &key) < 0)
        return fail();
    printf("%s: window %d, device address %#llx, good for %zu bytes\n", object, (int)key.remote, (unsigned long long)key.device, key.bytes);

    while (la_chain_alloc(chain, 5000))
        ;
    printf("in the end: %s\n", la_last_error());

    if (la_chain_destroy(chain) < 0 || seg_supply_destroy(supply) < 0 || seg_registrar_destroy(registrar) < 0)
        return fail();
    if (key.remote == 0 || key.bytes < 5000 || seg_check(object, key.generation) != -ESTALE || device.window[0])
        return EXIT_FAILURE;
    printf("afterwards: %s\n", la_last_error());
    return EXIT_SUCCESS;
}
