/*
 * supply.h - memory that grows: sources in order, registrars on top, budgets around, chains above.
 *
 *     struct seg_registrar *lock;
 *     struct seg_supply *supply;
 *
 *     seg_registrar_mlock(&lock);
 *     struct seg_supply_config config = { .struct_size = sizeof(config), .list = "hugetlb:2M,thp,anon",
 *                                         .registrars = { lock }, .max_pinned = 1 << 30 };
 *     if (seg_supply_create(&config, &supply) == 0)
 *         la_chain_create(seg_supply_source(supply), 0, &chain);
 *
 * Whenever the chain needs memory the supply grows by one extent:
 *
 *     budgets -> a source gives -> checked -> registrars attach -> subscribers told -> lookups find it -> handed out
 *
 * Each step may fail; then those before it are undone, nothing is left, and the allocation returns NULL with the reason in la_last_error().
 */
#ifndef SEGMENTS_SUPPLY_H
#define SEGMENTS_SUPPLY_H

#include <segments/registrar.h>

LA_BEGIN_DECLS

struct seg_supply;

enum { SEG_REGISTRARS_MAX = 8, SEG_CHOICES_MAX = 8, SEG_SUBSCRIBERS_MAX = 8 };

enum seg_supply_flags {
    /*
     * Memory that a device uses (a registrar that pins or holds, a source that gives SEG_PINNED) is not a child's after fork(): its pages would
     * become copy-on-write, and the parent could be the one that gets the copies, which the device does not see. The supply is empty in the
     * child, a chain over it gives NULL (-ECHILD), its blocks are refused by la_free(), and a touch of private memory is SIGSEGV. With this flag
     * children get it as they get any memory: for registrars that can live with it.
     */
    SEG_SUPPLY_INHERITED = 1u << 0,
};

/* Set struct_size; what is left zero has the default. */
struct seg_supply_config {
    size_t struct_size;
    const char *name;                   /* for reports; NULL: the list */
    const char *list;                   /* sources in order, "hugetlb:2M,thp,anon"; see seg_source_find() */
    const struct seg_choice *choices;   /* instead of a list; copied */
    size_t choice_count;
    struct seg_registrar *registrars[SEG_REGISTRARS_MAX];   /* the first NULL ends it; they outlive the supply */
    unsigned required, preferred;       /* of every extent; what registrars add counts */
    struct seg_numa numa;
    size_t step_size;                   /* bytes to grow by at least; 0: as the chain asks */
    size_t max_bytes;                   /* hard limits; 0: none */
    size_t max_segments;
    size_t max_pinned;                  /* bytes under a registrar that locks or pins; the system's limit holds in any case */
    bool per_node;                      /* memory for each NUMA node apart, see segments/nodes.h; numa says how hard */
    unsigned flags;                     /* OR of enum seg_supply_flags */
};

/**
 * seg_supply_create() - open the sources of a list; no memory is taken yet
 *
 * A source that cannot be opened (its driver is missing) is left out, and named in seg_supply_info.reason; when none is left that is an error.
 *
 * When one of the sources can give memory of a device, chains over the supply touch none of its memory (LA_SOURCE_DEVICE_ONLY).
 *
 * Return: 0, -EINVAL (list, unknown source, flags, numa, an operation missing), -ENOTSUP (a registrar cannot take memory of a device), -E2BIG
 * (too many), -ENOMEM, or what the last source said.
 */
LA_API int seg_supply_create(const struct seg_supply_config *config, struct seg_supply **ret);

/** seg_supply_destroy() - @supply: NULL does nothing. Return: 0, -EBUSY (chains use it, extents are out or quarantined, it is the default) */
LA_API int seg_supply_destroy(struct seg_supply *supply);

/** seg_supply_source() - for la_chain_create(); ends with the supply, not by la_source_destroy() */
LA_API struct la_source *seg_supply_source(struct seg_supply *supply);

/**
 * seg_supply_make_default() - malloc's memory, and that of la_malloc() and of chains without a source, comes from this supply from now on
 *
 * For good; see la_source_default_set(). LIBALLOC_SOURCE=LIST in the environment does it before main(), with per_node.
 *
 * Return: 0, -ENOTSUP (a source gives shared memory: after fork() parent and child would write to the same blocks; or memory of a device; or a
 * child would not have it, see SEG_SUPPLY_INHERITED), -EBUSY (there is one).
 */
LA_API int seg_supply_make_default(struct seg_supply *supply);

/** seg_supply_default() - the supply that malloc's memory comes from, also one by LIBALLOC_SOURCE; NULL: none */
LA_API struct seg_supply *seg_supply_default(void);

/**
 * seg_supply_acquire() - one extent without a chain, through all the steps
 *
 * Return: 0, -EINVAL, -ENOTSUP (a required capability), -EDQUOT (a budget; the sentence says which, the need and the limit), -ENOMEM, -ENOSPC,
 * -EPROTO (a source broke its contract), -EDEADLK (called by a function that this supply has called), or what a source, a registrar or a
 * subscriber said.
 */
LA_API int seg_supply_acquire(struct seg_supply *supply, size_t min, size_t wanted, struct la_range *ret);

/**
 * seg_supply_acquire_on() - the same for threads on NUMA node @node, of a supply with per_node; seg_supply_acquire() is for the calling thread's
 *
 * Return: as seg_supply_acquire(), -EINVAL (no such node, no per_node).
 */
LA_API int seg_supply_acquire_on(struct seg_supply *supply, unsigned node, size_t min, size_t wanted, struct la_range *ret);

/** seg_supply_release() - give an extent back whole. Return: 0, -EINVAL (no such extent), or why it is quarantined */
LA_API int seg_supply_release(struct seg_supply *supply, struct la_range range);

struct seg_supply_info {
    size_t struct_size;     /* in */
    size_t bytes, segments; /* of extents that are out */
    size_t pinned;          /* bytes of them under a registrar that locks or pins */
    size_t quarantined;     /* bytes that a driver has not let go */
    size_t growths, failures;
    char source[32];        /* that gave the last extent; "" */
    char reason[256];       /* of the last growth: why better sources did not give it, and what was missed; "" */
};

/** seg_supply_info() - Return: 0, -EINVAL, -EDEADLK as above */
LA_API int seg_supply_info(struct seg_supply *supply, struct seg_supply_info *ret);

/* What subscribers are told. */
enum seg_event {
    SEG_GROWN = 1,      /* keys are there, no block of it is handed out before you return; negative: refused, the growth fails */
    SEG_GONE = 2,       /* no block of it is live; keys end when you return */
};

/*
 * @keys: one for each registrar of the supply, in their order.
 * Must not allocate from a chain over this supply.
 */
typedef int seg_subscriber(void *user, enum seg_event event, const struct seg_extent *extent, const struct seg_key *keys, size_t key_count);

/**
 * seg_supply_subscribe() - be told of every extent before it is used, first of those that are out already
 *
 * Return: 0, -ENOSPC (more than SEG_SUBSCRIBERS_MAX), -EDEADLK, or the first refusal (nobody has subscribed then; what was told is taken back).
 */
LA_API int seg_supply_subscribe(struct seg_supply *supply, seg_subscriber *subscriber, void *user);
/** seg_supply_unsubscribe() - Return: 0, -ENOENT, -EDEADLK */
LA_API int seg_supply_unsubscribe(struct seg_supply *supply, seg_subscriber *subscriber, void *user);

LA_END_DECLS
#endif
