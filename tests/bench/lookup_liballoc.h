/* lookup_liballoc.h - seg_key_of(), over a supply whose source gives addresses and no memory. */
#include <segments/find.h>

static struct { char *base; size_t size; unsigned long next; } lookup_space;
static struct seg_registrar *lookup_registrar;
static struct seg_supply *lookup_supply;

static int lookup_open(const char *text, void *user, void **ret)
{
    (void)text;
    *ret = user;
    return 0;
}

static void lookup_close(void *self)
{
    (void)self;
}

static int lookup_info(void *self, struct seg_source_info *ret)
{
    (void)self;
    ret->page_size = 4096;
    return 0;
}

static int lookup_acquire(void *self, const struct seg_ask *ask, struct seg_extent *ret)
{
    (void)self;
    (void)ask;
    ret->base = lookup_space.base + lookup_space.next++ * lookup_space.size;
    ret->size = lookup_space.size;
    ret->page_size = 4096;
    return 0;
}

static int lookup_release(void *self, struct seg_extent *extent)
{
    (void)self;
    (void)extent;
    return 0;
}

static int lookup_attach(void *self, const struct seg_extent *extent, struct seg_key *ret)
{
    (void)self;
    ret->remote = (uintptr_t)extent->base >> 21;
    return 0;
}

static int lookup_detach(void *self, const struct seg_extent *extent, const struct seg_key *key)
{
    (void)self;
    (void)extent;
    (void)key;
    return 0;
}

static inline void lookup_begin(char *base, size_t size, unsigned long most)
{
    static const struct seg_source_ops ops = { .struct_size = sizeof(ops), .name = "addresses", .open = lookup_open, .close = lookup_close,
                                               .info = lookup_info, .acquire = lookup_acquire, .release = lookup_release };
    static const struct seg_registrar_ops registrar = { .struct_size = sizeof(registrar), .name = "none", .attach = lookup_attach,
                                                        .detach = lookup_detach };
    struct seg_choice choice = { .ops = &ops };
    struct seg_supply_config config = { .struct_size = sizeof(config), .choices = &choice, .choice_count = 1 };

    (void)most;
    lookup_space.base = base;
    lookup_space.size = size;
    if (seg_registrar_create(&registrar, NULL, &lookup_registrar) < 0)
        abort();
    config.registrars[0] = lookup_registrar;
    if (seg_supply_create(&config, &lookup_supply) < 0)
        abort();
}

static inline void lookup_add(unsigned long i)
{
    struct la_range range;

    (void)i;
    if (seg_supply_acquire(lookup_supply, lookup_space.size, lookup_space.size, &range) < 0)
        abort();
}

static inline uint64_t lookup_key(const void *address)
{
    struct seg_key_here key;

    if (seg_key_of(address, lookup_registrar, &key) < 0)
        abort();
    return key.remote;
}
