/*
 * supply_state.h - what supply.c (book) and growth.c (steps) share.
 */
#ifndef SEGMENTS_SUPPLY_STATE_H
#define SEGMENTS_SUPPLY_STATE_H

#include <pthread.h>

#include <segments/supply.h>

#include "base/list.h"
#include "segments/catalogue.h"
#include "segments/registrar_state.h"
#include "segments/segment_map.h"

/* One of the ordered list, opened. */
struct supply_source {
    struct seg_source_ops ops;
    void *self;
    char text[SOURCE_TEXT_SIZE];
};

struct supply_subscriber {
    seg_subscriber *call;
    void *user;
};

struct seg_supply {
    pthread_mutex_t lock;       /* everything below, during growth too: one step at a time */
    struct supply_source sources[SEG_CHOICES_MAX];
    unsigned source_count;
    struct seg_registrar *registrars[SEG_REGISTRARS_MAX];
    unsigned registrar_count;
    struct supply_subscriber subscribers[SEG_SUBSCRIBERS_MAX];
    unsigned subscriber_count;
    unsigned required, preferred;       /* less what registrars add */
    bool pins;                          /* one of the registrars or sources does */
    bool sources_pin, device_only, host_memory;     /* one of the sources gives such memory */
    bool inherited;                     /* children of fork() have its memory */
    struct seg_numa numa;
    unsigned nodes;                     /* told apart; 0: they are not (config.per_node) */
    size_t step_size, max_bytes, max_segments, max_pinned, max_extent;
    struct map_record *records;         /* out and quarantined */
    size_t bytes, segments, quarantined, growths, failures;
    char last_source[32], reason[256];
    char name[32];
    struct la_source *source;
    bool is_default;
    struct la_list all;                 /* of all supplies, for fork */
};

/* All steps, all or nothing; under the lock. @node: for whose threads. */
int supply_grow(struct seg_supply *supply, unsigned node, size_t min, size_t wanted, struct map_record **ret);
/* The same in reverse; a driver that does not let go has the extent quarantined. */
int supply_shrink(struct seg_supply *supply, struct map_record *record);

/* In a child of fork(): what was out is the parent's alone. */
void supply_forget(struct seg_supply *supply);

/* Ask the drivers of quarantined extents again; those that let go are released. */
void supply_retry(struct seg_supply *supply);

/* An engine's source over @supply tells nodes apart if that does. */
void supply_tell_nodes(const struct seg_supply *supply, struct la_source_ops *ops);

/* Note why a better source did not serve. */
void supply_note(struct seg_supply *supply, const char *who, const char *why);

#endif
