/*
 * growth.c - an extent joins a supply, and leaves it.
 *
 *     step                         may fail with           is undone by
 *     1 budgets                    -EDQUOT
 *     2 a source gives             -ENOMEM, -ENOSPC ...    release
 *     3 the gift is checked        -EPROTO                 release
 *     4 entered in the map         -EEXIST, -ENOMEM        map_leave(): nobody has seen it
 *     5 kept from children         -errno                  kept no more
 *       registrars attach          theirs                  detach, last first
 *     6 subscribers are told       theirs                  SEG_GONE to those who were told
 *     7 shown to lookups           never
 *
 * I1  A failed growth leaves the supply as it was, but for counters, and but for what a driver refuses to let go: that is quarantined.
 * I2  detach comes before release for every key, also in failure; an extent with a key that is not detached is never released.
 *
 * Locking: the supply's mutex, which no allocation takes but to grow this supply. No lock of the allocator that a malloc in a driver could need.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include <liballoc/error.h>

#include "base/error.h"
#include "base/fmt.h"
#include "os/inherit.h"
#include "os/os.h"
#include "segments/backend.h"
#include "segments/budget.h"
#include "segments/supply_state.h"

/* ---- 1: budgets ---- */

static size_t room(size_t limit, size_t used)
{
    return limit ? limit - MIN(limit, used) : SIZE_MAX;
}

/* Within every limit; *wanted becomes what they allow. */
static int check_budgets(const struct seg_supply *s, size_t min, size_t *wanted)
{
    size_t left = room(s->max_bytes, s->bytes), pinned = s->pins ? room(s->max_pinned, s->bytes) : SIZE_MAX;

    if (s->max_segments && s->segments >= s->max_segments)
        return la_fail(-EDQUOT, "supply %s: all %zu segments of its budget are in use; raise max_segments or step_size", s->name, s->max_segments);
    if (min > left)
        return la_fail(-EDQUOT, "supply %s: %zu bytes needed, %zu of max_bytes = %zu left", s->name, min, left, s->max_bytes);
    if (min > pinned)
        return la_fail(-EDQUOT, "supply %s: %zu bytes to pin, %zu of max_pinned = %zu left", s->name, min, pinned, s->max_pinned);
    if (s->max_extent && min > s->max_extent)
        return la_fail(-E2BIG, "supply %s: %zu bytes in one extent, a registrar's keys cover %zu", s->name, min, s->max_extent);
    *wanted = MIN(*wanted, MIN(left, pinned));
    if (s->max_extent)
        *wanted = MIN(*wanted, s->max_extent);
    return 0;
}

/* The system's limits: what registrars will need for @size bytes. Memory of a device counts against none of them. */
static int check_system(const struct seg_supply *s, size_t size, bool fresh)
{
    unsigned pins = 0;
    int r = 0;

    for (unsigned i = 0; i < s->registrar_count && r == 0; i++) {
        bool devices = s->registrars[i]->ops.flags & SEG_REGISTRAR_PINS;

        pins += devices;
        r = budget_check_pinning(s->registrars[i], size, devices ? pins : 1, fresh);
    }
    return r;
}

/* ---- 2: sources ---- */

static int release_extent(struct seg_supply *s, struct map_record *record)
{
    struct supply_source *source = &s->sources[record->source];

    return source->ops.release(source->self, &record->extent);
}

/* What a source gave and cannot be used; that it goes back is all that can be done. Keeps la_last_error(). */
static void give_back(struct seg_supply *s, struct map_record *record)
{
    struct error_kept why;

    error_keep(&why);
    release_extent(s, record);
    error_tell_again(&why);
}

static int ask_source(struct seg_supply *s, unsigned i, const struct seg_ask *ask, struct seg_extent *extent)
{
    struct supply_source *source = &s->sources[i];
    unsigned failures = error_count();
    int r;

    if (ask->required & ~source->ops.can) {
        char names[128];

        seg_capability_names(ask->required & ~source->ops.can, names, sizeof(names));
        return la_fail(-ENOTSUP, "cannot have what is required: %s", names);
    }
    *extent = (struct seg_extent){ .struct_size = sizeof(*extent), .fd = -1, .node = -1 };
    r = source->ops.acquire(source->self, ask, extent);
    if (r > 0)
        return la_fail(-EPROTO, "acquire returned %d: a contract is 0 or a negative errno", r);
    if (r < 0 && error_count() == failures)
        la_fail(r, "acquire failed (errno %d)", -r);
    extent->source = &source->ops;
    extent->source_self = source->self;
    return r;
}

/* ---- 3: what it says is checked: a wrong extent would be a crash far from here ---- */

static int check_extent(const struct seg_supply *s, const struct seg_ask *ask, const struct seg_extent *e)
{
    uintptr_t base = (uintptr_t)e->base, page = os_page_size();

    if (!e->base || base + e->size < base)
        return la_fail(-EPROTO, "gave %p + %zu bytes, which is no range", e->base, e->size);
    if (e->size < ask->min_size)
        return la_fail(-EPROTO, "gave %zu bytes where at least %zu were asked for", e->size, ask->min_size);
    if (!is_power_of_2(e->page_size) || (s->registrar_count && e->page_size < page))
        return la_fail(-EPROTO, "gave pages of %zu bytes; the machine's have %zu", e->page_size, (size_t)page);
    if ((base | e->size) & (e->page_size - 1))
        return la_fail(-EPROTO, "gave %p + %zu, not whole pages of %zu bytes", e->base, e->size, e->page_size);
    if (e->size > align_up(ask->wanted_size, e->page_size))
        return la_fail(-EPROTO, "gave %zu bytes where at most %zu were asked for", e->size, ask->wanted_size);
    if (e->capabilities & SEG_DEVICE_ONLY && !s->device_only)
        return la_fail(-EPROTO, "gave memory of a device, which its .can does not say: it would be touched");
    if (ask->required & ~e->capabilities)
        return la_fail(-EPROTO, "gave memory without the capabilities %#x that were required", ask->required & ~e->capabilities);
    if (e->capabilities & SEG_DEVICE_ONLY)
        return 0;
    /* Is all of it mapped? MS_ASYNC does nothing else, at the cost of a look at the mappings. */
    if (msync((void *)align_down(base, page), align_up(base + e->size, page) - align_down(base, page), MS_ASYNC) < 0)
        return la_fail(-EPROTO, "gave %p + %zu, which is not all mapped (errno %d)", e->base, e->size, errno);
    return 0;
}

/* ---- 5: children, registrars ---- */

/* Private pages under a device: fork() would make them copy-on-write. Others are not copied in any case. */
static bool is_kept_from_children(const struct seg_supply *s, const struct seg_extent *e)
{
    return !s->inherited && !(e->capabilities & (SEG_SHARED | SEG_DEVICE_ONLY));
}

static int keep_from_children(const struct seg_supply *s, const struct seg_extent *e)
{
    int r = is_kept_from_children(s, e) ? inherit_forbid(e->base, e->size) : 0;

    return r == 0 ? 0 : la_fail(r, "supply %s: %zu bytes cannot be kept from children of fork() (MADV_DONTFORK, errno %d); SEG_SUPPLY_INHERITED does "
                                   "without", s->name, e->size, -r);
}

static int detach_one(struct seg_supply *s, struct map_record *record, struct seg_key *keys)
{
    struct seg_registrar *registrar = s->registrars[record->attached - 1];
    unsigned failures = error_count();
    int r = registrar->ops.detach(registrar->self, &record->extent, &keys[record->attached - 1]);

    if (r == 0)
        record->attached--;
    else if (error_count() == failures)
        la_fail(r, "registrar %s does not let go of the extent (errno %d)", registrar->ops.name, -r);
    return r;
}

/* Last first; stops at the one that does not let go. */
static int detach_all(struct seg_supply *s, struct map_record *record, struct seg_key *keys)
{
    int r = 0;

    while (record->attached > 0 && r == 0)
        r = detach_one(s, record, keys);
    return r;
}

static int attach_all(struct seg_supply *s, struct map_record *record, struct seg_key *keys)
{
    int r = 0;

    for (unsigned i = 0; i < s->registrar_count && r == 0; i++) {
        struct seg_registrar *registrar = s->registrars[i];
        unsigned failures = error_count();

        keys[i] = (struct seg_key){ 0 };
        r = registrar->ops.attach(registrar->self, &record->extent, &keys[i]);
        if (r == 0)
            record->attached++;
        else if (error_count() == failures)
            la_fail(MIN(r, -r), "registrar %s refuses %zu bytes (errno %d)", registrar->ops.name, record->extent.size, MAX(r, -r));
        if (r == 0)
            record->extent.capabilities |= registrar->ops.adds;
    }
    return MIN(r, -r);
}

/* ---- 6: subscribers ---- */

static void tell_gone(struct seg_supply *s, const struct map_record *record, const struct seg_key *keys, unsigned count)
{
    while (count-- > 0)
        s->subscribers[count].call(s->subscribers[count].user, SEG_GONE, &record->extent, keys, s->registrar_count);
}

static int tell_grown(struct seg_supply *s, const struct map_record *record, const struct seg_key *keys)
{
    for (unsigned i = 0; i < s->subscriber_count; i++) {
        unsigned failures = error_count();
        int r = s->subscribers[i].call(s->subscribers[i].user, SEG_GROWN, &record->extent, keys, s->registrar_count);

        if (r < 0) {
            if (error_count() == failures)
                la_fail(r, "supply %s: a subscriber refuses the extent (errno %d)", s->name, -r);
            tell_gone(s, record, keys, i);
            return r;
        }
    }
    return 0;
}

/* ---- together ---- */

static void quarantine(struct seg_supply *s, struct map_record *record)
{
    record->quarantined = true;
    s->quarantined += record->extent.size;
    record->next = s->records;
    s->records = record;
}

static struct map_answer answer_for(struct seg_supply *s, const struct map_record *record, const struct seg_key *keys)
{
    const struct seg_extent *e = &record->extent;
    struct map_answer a = { .base = (uintptr_t)e->base, .size = e->size, .page_size = e->page_size, .file_offset = e->offset, .supply = s,
                            .capabilities = e->capabilities, .node = e->node, .fd = e->fd };

    for (unsigned i = 0; i < s->registrar_count; i++) {
        a.keys[i] = (struct map_key){ s->registrars[i], keys[i].local, keys[i].remote, keys[i].device };
        a.handles[i] = keys[i].handle;
    }
    return a;
}

/* Keys first, then the memory. On success the record is gone. */
static int let_go(struct seg_supply *s, struct map_record *record)
{
    int r = detach_all(s, record, record->keys);

    /* Whoever has the memory next may want it to be inherited. */
    if (r == 0 && is_kept_from_children(s, &record->extent))
        inherit_allow(record->extent.base, record->extent.size);
    if (r == 0)
        r = release_extent(s, record);
    if (r != 0)
        return MIN(r, -r);
    map_leave(record);
    map_record_free(record);
    return 0;
}

/* A growth that got as far as registrars goes back; what went wrong first stays in la_last_error(). */
static int undo(struct seg_supply *s, struct map_record *record, int r)
{
    struct error_kept why;

    error_keep(&why);
    if (let_go(s, record) < 0)
        quarantine(s, record);
    error_tell_again(&why);
    return r;
}

/* Steps 5 to 7, for an extent that is entered and hidden. */
static int join(struct seg_supply *s, struct map_record *record)
{
    struct seg_key *keys = record->keys;
    struct map_answer answer;
    int r = keep_from_children(s, &record->extent);

    if (r == 0)
        r = attach_all(s, record, keys);
    if (r == 0)
        r = tell_grown(s, record, keys);
    if (r < 0)
        return undo(s, record, r);
    answer = answer_for(s, record, keys);
    map_show(record, &answer);
    record->next = s->records;
    s->records = record;
    s->bytes += record->extent.size;
    s->segments++;
    return 0;
}

/* Steps 2 to 4. A source that fails is followed by the next; *ret is entered and hidden. */
static int get_extent(struct seg_supply *s, const struct seg_ask *ask, struct map_record *record)
{
    int r = -ENOMEM;

    for (unsigned i = 0; i < s->source_count; i++) {
        r = ask_source(s, i, ask, &record->extent);
        record->source = i;
        if (r == 0) {
            r = check_extent(s, ask, &record->extent);
            if (r == 0)
                r = map_enter(record, (uintptr_t)record->extent.base, record->extent.size);
            if (r == 0)
                return 0;
            give_back(s, record);
        }
        supply_note(s, s->sources[i].ops.name, la_last_error());
    }
    return s->source_count > 1 ? la_fail(r, "no source of %s gives %zu bytes: %s", s->name, ask->min_size, s->reason) : r;
}

/*
 * Where pages for threads on @node are to lie. On a machine with one node nothing is asked for, unless it is required. A node that takes no part
 * gets what those have that do: bound, the kernel takes the nearest of them, preferred the first.
 */
static struct seg_numa numa_for(const struct seg_supply *s, unsigned node)
{
    struct seg_numa numa = s->numa;

    if (s->nodes == 0)
        return numa;
    if (s->nodes == 1 && numa.mode == SEG_NUMA_PREFER && !(s->required & SEG_PLACED))
        return (struct seg_numa){ 0 };
    if (!numa.nodes || numa.nodes >> node & 1)
        numa.nodes = UINT64_C(1) << node;
    return numa;
}

static int grow_within(struct seg_supply *s, unsigned node, size_t min, size_t wanted, struct map_record **ret)
{
    struct seg_ask ask = { .struct_size = sizeof(ask), .min_size = min, .wanted_size = wanted, .required = s->required,
                           .preferred = s->preferred, .numa = numa_for(s, node) };
    struct map_record *record = map_record_new();
    size_t got;
    int r;

    if (!record)
        return la_fail(-ENOMEM, "no memory for the description of an extent");
    if (ask.numa.mode == SEG_NUMA_ANY)
        ask.preferred &= ~(unsigned)SEG_PLACED;
    record->node = node;
    s->reason[0] = '\0';
    r = get_extent(s, &ask, record);
    if (r < 0) {
        map_record_free(record);
        return r;
    }
    /* Whole huge pages may be more than was asked for: look at the limits again. */
    got = record->extent.size;
    r = check_budgets(s, got, &got);
    if (r == 0 && !(record->extent.capabilities & SEG_DEVICE_ONLY))
        r = check_system(s, record->extent.size, false);
    if (r < 0)
        return undo(s, record, r);
    la_format(s->last_source, sizeof(s->last_source), "%s", s->sources[record->source].ops.name);
    if (record->extent.reason[0])
        supply_note(s, s->last_source, record->extent.reason);
    r = join(s, record);
    if (r == 0)
        *ret = record;
    return r;
}

int supply_grow(struct seg_supply *s, unsigned node, size_t min, size_t wanted, struct map_record **ret)
{
    int r;

    wanted = MAX(wanted, s->step_size);
    r = check_budgets(s, min, &wanted);
    /* What the system does not allow to be locked in full may be possible in part. */
    if (r == 0 && s->host_memory && check_system(s, wanted, true) < 0) {
        wanted = min;
        r = check_system(s, min, true);
    }
    if (r == 0)
        r = grow_within(s, node, min, wanted, ret);
    if (r == 0)
        s->growths++;
    else
        s->failures++;
    return r;
}

static void drop_record(struct seg_supply *s, const struct map_record *record)
{
    struct map_record **at = &s->records;

    while (*at != record)
        at = &(*at)->next;
    *at = record->next;
}

int supply_shrink(struct seg_supply *s, struct map_record *record)
{
    size_t size = record->extent.size;
    int r;

    map_hide(record);
    tell_gone(s, record, record->keys, s->subscriber_count);
    drop_record(s, record);
    s->bytes -= size;
    s->segments--;
    r = let_go(s, record);
    if (r < 0)
        quarantine(s, record);
    return r;
}

void supply_forget(struct seg_supply *s)
{
    for (struct map_record *record = s->records; record; record = record->next)
        map_hide(record);
    s->records = NULL;
    s->bytes = s->segments = s->quarantined = 0;
}

void supply_retry(struct seg_supply *s)
{
    struct map_record *record = s->records, *next;

    for (; record; record = next) {
        size_t size = record->extent.size;

        next = record->next;
        if (!record->quarantined)
            continue;
        drop_record(s, record);
        s->quarantined -= size;
        if (let_go(s, record) < 0)
            quarantine(s, record);
    }
}
