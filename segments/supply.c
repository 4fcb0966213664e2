/*
 * supply.c - the book of a supply: what it was made of, which extents are out, who wants to know.
 *
 * Locking: a mutex per supply that knows its owner, so that a driver or a subscriber that calls back gets -EDEADLK and not a hang. Not one of the
 * allocator's locks: those hold signals back and are ordered, and a registration may take seconds and call anything.
 */
#include "segments/supply_state.h"

#include <errno.h>
#include <string.h>

#include <liballoc/error.h>
#include <segments/nodes.h>

#include "base/error.h"
#include "base/fmt.h"
#include "os/nodes.h"
#include "os/os.h"
#include "os/vspace.h"
#include "segments/numa.h"
#include "segments/placement.h"

static struct la_list supplies = LIST_INIT(supplies);     /* under vspace_lock() */

/* ---- lock ---- */

static int lock(struct seg_supply *s)
{
    int r = pthread_mutex_lock(&s->lock);

    return r == 0 ? 0 : la_fail(-r, "supply %s is busy with this thread's own call: its drivers and subscribers may not call it", s->name);
}

static void unlock(struct seg_supply *s)
{
    pthread_mutex_unlock(&s->lock);
}

static void init_lock(struct seg_supply *s)
{
    pthread_mutexattr_t attributes;

    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK);
    pthread_mutex_init(&s->lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
}

/*
 * Not taken before fork(): who grows may be long in a driver. In the child nobody holds it; a growth that was on its way in another
 * thread has not linked its extent yet, and is lost with the thread.
 */
static void enter_child(void)
{
    list_for_each(node, &supplies) {
        struct seg_supply *s = list_entry(node, struct seg_supply, all);

        init_lock(s);
        if (!s->inherited)
            supply_forget(s);
    }
}

static void watch_forks(void)
{
    static _Atomic(bool) watching;

    if (!atomic_exchange_explicit(&watching, true, memory_order_relaxed))
        pthread_atfork(NULL, NULL, enter_child);
}

/* ---- creation ---- */

void supply_note(struct seg_supply *s, const char *who, const char *why)
{
    size_t length = strlen(s->reason);

    la_format(s->reason + length, sizeof(s->reason) - length, "%s%s: %s", length ? "; " : "", who, why);
}

static int open_source(struct seg_supply *s, const struct seg_choice *choice)
{
    struct supply_source *source = &s->sources[s->source_count];
    unsigned failures = error_count();
    int r = source_check_ops(choice->ops);

    if (r < 0)
        return r;
    memcpy(&source->ops, choice->ops, MIN(choice->ops->struct_size, sizeof(source->ops)));
    la_format(source->text, sizeof(source->text), "%s", choice->text ? choice->text : "");
    r = source->ops.open(source->text, choice->user, &source->self);
    if (r == 0) {
        s->source_count++;
        s->device_only |= source->ops.can & SEG_DEVICE_ONLY;
        s->host_memory |= !(source->ops.can & SEG_DEVICE_ONLY);
        s->sources_pin |= source->ops.can & SEG_PINNED;
        return 0;
    }
    if (error_count() == failures)
        la_fail(r, "source %s cannot be opened (errno %d)", source->ops.name, -r);
    supply_note(s, source->ops.name, la_last_error());
    return r == -EINVAL ? r : MIN(r, -r);
}

/* What is not there is left out; what is wrong is an error. */
static int open_sources(struct seg_supply *s, const struct seg_choice *choices, size_t count)
{
    int last = la_fail(-EINVAL, "a supply needs a list of sources");

    for (size_t i = 0; i < count; i++) {
        int r = open_source(s, &choices[i]);

        if (r == -EINVAL)
            return r;
        if (r < 0)
            last = r;
    }
    return s->source_count ? 0 : last;
}

static int open_list(struct seg_supply *s, const char *list)
{
    struct list_entry entries[SEG_CHOICES_MAX];
    struct seg_choice choices[SEG_CHOICES_MAX];
    int count = list_read(list, entries, SEG_CHOICES_MAX);

    if (count < 0)
        return count;
    for (int i = 0; i < count; i++)
        choices[i] = (struct seg_choice){ .ops = entries[i].ops, .text = entries[i].text };
    return open_sources(s, choices, (size_t)count);
}

static void close_sources(struct seg_supply *s)
{
    while (s->source_count > 0) {
        struct supply_source *source = &s->sources[--s->source_count];

        source->ops.close(source->self);
    }
}

static void take_registrars(struct seg_supply *s, struct seg_registrar *const *registrars)
{
    unsigned adds = 0;

    for (; s->registrar_count < SEG_REGISTRARS_MAX && registrars[s->registrar_count]; s->registrar_count++) {
        struct seg_registrar *r = registrars[s->registrar_count];

        s->registrars[s->registrar_count] = r;
        atomic_fetch_add_explicit(&r->users, 1, memory_order_relaxed);
        s->pins |= registrar_pins(r);
        adds |= r->ops.adds;
        if (r->ops.max_size)
            s->max_extent = MIN(r->ops.max_size, s->max_extent ? s->max_extent : SIZE_MAX);
    }
    s->required &= ~adds;
    s->preferred &= ~adds;
}

static void leave_registrars(struct seg_supply *s)
{
    while (s->registrar_count > 0)
        atomic_fetch_sub_explicit(&s->registrars[--s->registrar_count]->users, 1, memory_order_release);
}

static int acquire(void *self, size_t min, size_t wanted, struct la_range *ret)
{
    return seg_supply_acquire(self, min, wanted, ret);
}

static void release(void *self, struct la_range range)
{
    seg_supply_release(self, range);
}

static int purge(void *self, struct la_range range)
{
    struct seg_supply *s = self;
    struct seg_location l = { .struct_size = sizeof(l) };

    /* Only what reads as zero at the next touch, which needs no permission: private pages without a registrar. */
    if (s->registrar_count || seg_find(range.base, &l) < 0 || l.fd >= 0 || l.capabilities & SEG_HUGE || !(l.capabilities & SEG_PURGE))
        return -ENOTSUP;
    return os_purge(range.base, range.size);
}

static int acquire_on(void *self, unsigned node, size_t min, size_t wanted, struct la_range *ret)
{
    return seg_supply_acquire_on(self, node, min, wanted, ret);
}

void supply_tell_nodes(const struct seg_supply *s, struct la_source_ops *ops)
{
    if (s->nodes == 0)
        return;
    ops->acquire_on = acquire_on;
    ops->nodes = s->nodes;
    ops->strict = s->numa.mode == SEG_NUMA_BIND;
}

static int make_source(struct seg_supply *s)
{
    struct la_source_ops ops = { .struct_size = sizeof(ops), .name = s->name, .acquire = acquire, .release = release, .purge = purge };

    supply_tell_nodes(s, &ops);
    ops.flags = (s->device_only ? LA_SOURCE_DEVICE_ONLY : 0u) | (s->inherited ? 0u : LA_SOURCE_NOT_INHERITED);
    return la_source_create(&ops, s, &s->source);
}

/* Nodes are told apart: which one is meant is asked at each growth. */
static int read_numa_per_node(struct seg_supply_config *copy)
{
    struct seg_numa *numa = &copy->numa;
    unsigned count = seg_node_count();
    uint64_t there = count < 64 ? (UINT64_C(1) << count) - 1 : UINT64_MAX;

    if (numa->mode == SEG_NUMA_ANY)
        numa->mode = SEG_NUMA_PREFER;
    if (numa->mode != SEG_NUMA_PREFER && numa->mode != SEG_NUMA_BIND)
        return la_fail(-EINVAL, "per_node goes with SEG_NUMA_PREFER and SEG_NUMA_BIND: with others nodes are not told apart");
    if (numa->nodes & ~there)
        return la_fail(-EINVAL, "per_node on NUMA nodes %#lx: this machine has nodes 0 to %u", (unsigned long)numa->nodes, count - 1);
    copy->preferred |= SEG_PLACED;
    return 0;
}

static int read_numa(struct seg_supply_config *copy)
{
    if (copy->per_node)
        return read_numa_per_node(copy);
    if (copy->numa.mode != SEG_NUMA_ANY)
        copy->preferred |= SEG_PLACED;
    return seg_check_numa(&copy->numa, copy->required);
}

static int read_config(const struct seg_supply_config *config, struct seg_supply_config *copy)
{
    if (!config || config->struct_size < offsetof(struct seg_supply_config, required) || config->struct_size > 4 * sizeof(*copy))
        return la_fail(-EINVAL, "set struct_size of the configuration to sizeof(struct seg_supply_config)");
    *copy = (struct seg_supply_config){ 0 };
    memcpy(copy, config, MIN(config->struct_size, sizeof(*copy)));
    if (!copy->list == !copy->choices)
        return la_fail(-EINVAL, "a supply needs a list or choices, one of them");
    if (copy->flags & ~(unsigned)SEG_SUPPLY_INHERITED)
        return la_fail(-EINVAL, "supply flags %#x: only SEG_SUPPLY_INHERITED is known", copy->flags);
    if (copy->choice_count > SEG_CHOICES_MAX)
        return la_fail(-E2BIG, "%zu choices, at most %d are possible", copy->choice_count, SEG_CHOICES_MAX);
    return read_numa(copy);
}

static bool registrars_are_of_device(const struct seg_supply *s)
{
    for (unsigned i = 0; i < s->registrar_count; i++)
        if (registrar_is_of_device(s->registrars[i]))
            return true;
    return false;
}

/* The machine's pages are not those of a device. */
static int check_combination(const struct seg_supply *s)
{
    for (unsigned i = 0; i < s->registrar_count && s->device_only; i++)
        if (!(s->registrars[i]->ops.flags & SEG_REGISTRAR_DEVICE))
            return la_fail(-ENOTSUP, "supply %s: registrar %s cannot take memory of a device; leave one of them out", s->name,
                           s->registrars[i]->ops.name);
    return 0;
}

static int fill(struct seg_supply *s, const struct seg_supply_config *config)
{
    int r;

    la_format(s->name, sizeof(s->name), "%s", config->name ? config->name : config->list ? config->list : "supply");
    s->required = config->required;
    s->preferred = config->preferred & ~config->required;
    s->numa = config->numa;
    s->nodes = config->per_node ? seg_node_count() : 0;
    s->step_size = config->step_size;
    s->max_bytes = config->max_bytes;
    s->max_segments = config->max_segments;
    s->max_pinned = config->max_pinned;
    take_registrars(s, config->registrars);
    r = config->list ? open_list(s, config->list) : open_sources(s, config->choices, config->choice_count);
    if (r == 0)
        r = check_combination(s);
    if (r < 0)
        return r;
    s->pins |= s->sources_pin;
    s->inherited = config->flags & SEG_SUPPLY_INHERITED || !(s->sources_pin || registrars_are_of_device(s));
    return make_source(s);
}

static void free_supply(struct seg_supply *s)
{
    close_sources(s);
    leave_registrars(s);
    pthread_mutex_destroy(&s->lock);
    os_unmap(s, align_up(sizeof(*s), os_page_size()));
}

int seg_supply_create(const struct seg_supply_config *config, struct seg_supply **ret)
{
    struct seg_supply_config copy;
    struct seg_supply *s;
    int r = ret ? read_config(config, &copy) : la_fail(-EINVAL, "no place for the supply");

    if (r < 0)
        return r;
    s = os_map(align_up(sizeof(*s), os_page_size()));
    if (!s)
        return la_fail(-ENOMEM, "no memory for a supply");
    init_lock(s);
    r = fill(s, &copy);
    if (r < 0) {
        free_supply(s);
        return r;
    }
    watch_forks();
    vspace_lock();
    list_add(&supplies, &s->all);
    vspace_unlock();
    *ret = s;
    return 0;
}

int seg_supply_destroy(struct seg_supply *s)
{
    int r;

    if (!s)
        return 0;
    r = lock(s);
    if (r < 0)
        return r;
    supply_retry(s);
    unlock(s);
    if (s->is_default)
        return la_fail(-EBUSY, "supply %s is the default: malloc's blocks lie in it", s->name);
    /* With its source go the extents that chains had; what is left was taken without one, or is quarantined. */
    r = la_source_destroy(s->source);
    if (r < 0)
        return r;
    if (s->records) {
        r = make_source(s);
        return r < 0 ? r : la_fail(-EBUSY, "supply %s: %zu extents are out, %zu bytes are quarantined", s->name, s->segments, s->quarantined);
    }
    vspace_lock();
    list_remove(&s->all);
    vspace_unlock();
    free_supply(s);
    return 0;
}

struct la_source *seg_supply_source(struct seg_supply *s)
{
    return s->source;
}

/* ---- extents ---- */

static int acquire_extent(struct seg_supply *s, unsigned node, size_t min, size_t wanted, struct la_range *ret)
{
    struct map_record *record;
    int r;

    if (min == 0 || min > wanted)
        return la_fail(-EINVAL, "acquire of %zu, better %zu bytes: the first must be above 0 and not above the second", min, wanted);
    r = lock(s);
    if (r < 0)
        return r;
    r = supply_grow(s, node, min, wanted, &record);
    if (r == 0)
        *ret = (struct la_range){ record->extent.base, record->extent.size };
    unlock(s);
    return r;
}

int seg_supply_acquire(struct seg_supply *s, size_t min, size_t wanted, struct la_range *ret)
{
    unsigned node = s->nodes > 1 ? os_node_here() : 0;

    return acquire_extent(s, node < s->nodes ? node : 0, min, wanted, ret);
}

static int check_node(const struct seg_supply *s, unsigned node)
{
    if (s->nodes == 0)
        return la_fail(-EINVAL, "supply %s does not tell NUMA nodes apart: make it with per_node", s->name);
    return node < s->nodes ? 0 : la_fail(-EINVAL, "NUMA node %u: this machine has nodes 0 to %u", node, s->nodes - 1);
}

int seg_supply_acquire_on(struct seg_supply *s, unsigned node, size_t min, size_t wanted, struct la_range *ret)
{
    int r = check_node(s, node);

    return r < 0 ? r : acquire_extent(s, node, min, wanted, ret);
}

static struct map_record *find_record(const struct seg_supply *s, struct la_range range)
{
    struct map_record *record = s->records;

    while (record && (record->quarantined || record->extent.base != range.base || record->extent.size != range.size))
        record = record->next;
    return record;
}

int seg_supply_release(struct seg_supply *s, struct la_range range)
{
    struct map_record *record;
    int r = lock(s);

    if (r < 0)
        return r;
    record = find_record(s, range);
    r = record ? supply_shrink(s, record)
               : la_fail(-EINVAL, "%p + %zu is no extent of supply %s", range.base, range.size, s->name);
    unlock(s);
    return r;
}

int seg_supply_info(struct seg_supply *s, struct seg_supply_info *ret)
{
    struct seg_supply_info info;
    size_t size = ret ? ret->struct_size : 0;
    int r;

    if (size < offsetof(struct seg_supply_info, source) || size > 4 * sizeof(info))
        return la_fail(-EINVAL, "set struct_size to sizeof(struct seg_supply_info) before the call");
    r = lock(s);
    if (r < 0)
        return r;
    info = (struct seg_supply_info){ .struct_size = size, .bytes = s->bytes, .segments = s->segments, .pinned = s->pins ? s->bytes : 0,
                                     .quarantined = s->quarantined, .growths = s->growths, .failures = s->failures };
    memcpy(info.source, s->last_source, sizeof(info.source));
    memcpy(info.reason, s->reason, sizeof(info.reason));
    unlock(s);
    memset(ret, 0, size);
    memcpy(ret, &info, MIN(size, sizeof(info)));
    return 0;
}

static struct seg_node_info node_info(const struct seg_supply *s, unsigned node)
{
    struct seg_request on_node = { .numa = { SEG_NUMA_BIND, UINT64_C(1) << node } };
    struct seg_node_info info = { .available = os_node_headroom(node), .huge_available = seg_huge_free(&on_node) };

    for (const struct map_record *record = s->records; record; record = record->next) {
        if (record->quarantined || record->node != node)
            continue;
        info.segments++;
        info.bytes += record->extent.size;
        info.bound += record->extent.node == (int)node ? record->extent.size : 0;
    }
    return info;
}

int seg_supply_node_info(struct seg_supply *s, unsigned node, struct seg_node_info *ret)
{
    struct seg_node_info info;
    size_t size = ret ? ret->struct_size : 0;
    int r;

    if (size < offsetof(struct seg_node_info, bound) || size > 4 * sizeof(info))
        return la_fail(-EINVAL, "set struct_size to sizeof(struct seg_node_info) before the call");
    if (!s)
        s = seg_supply_default();
    if (!s)
        return la_fail(-ENOENT, "malloc's memory comes from no supply: LIBALLOC_SOURCE, or seg_supply_make_default()");
    r = check_node(s, node);
    if (r == 0)
        r = lock(s);
    if (r < 0)
        return r;
    info = node_info(s, node);
    unlock(s);
    info.struct_size = size;
    memset(ret, 0, size);
    memcpy(ret, &info, MIN(size, sizeof(info)));
    return 0;
}

/* ---- subscribers ---- */

static int tell(struct seg_supply *s, const struct supply_subscriber *subscriber, enum seg_event event, const struct map_record *record)
{
    return subscriber->call(subscriber->user, event, &record->extent, record->keys, s->registrar_count);
}

/* What is out already; on a refusal what was told is taken back. */
static int tell_all(struct seg_supply *s, const struct supply_subscriber *subscriber)
{
    struct map_record *record;
    int r = 0;

    for (record = s->records; record && r >= 0; record = record->next)
        r = record->quarantined ? 0 : tell(s, subscriber, SEG_GROWN, record);
    if (r >= 0)
        return 0;
    for (struct map_record *told = s->records; told->next != record; told = told->next)
        if (!told->quarantined)
            tell(s, subscriber, SEG_GONE, told);
    return r;
}

int seg_supply_subscribe(struct seg_supply *s, seg_subscriber *call, void *user)
{
    struct supply_subscriber subscriber = { call, user };
    int r = lock(s);

    if (r < 0)
        return r;
    if (s->subscriber_count == SEG_SUBSCRIBERS_MAX)
        r = la_fail(-ENOSPC, "supply %s has %d subscribers already", s->name, SEG_SUBSCRIBERS_MAX);
    else
        r = tell_all(s, &subscriber);
    if (r == 0)
        s->subscribers[s->subscriber_count++] = subscriber;
    unlock(s);
    return r;
}

int seg_supply_unsubscribe(struct seg_supply *s, seg_subscriber *call, void *user)
{
    unsigned i = 0;
    int r = lock(s);

    if (r < 0)
        return r;
    while (i < s->subscriber_count && (s->subscribers[i].call != call || s->subscribers[i].user != user))
        i++;
    if (i == s->subscriber_count) {
        r = la_fail(-ENOENT, "supply %s: nobody has subscribed with that function and argument", s->name);
    } else {
        s->subscriber_count--;
        memmove(&s->subscribers[i], &s->subscribers[i + 1], (s->subscriber_count - i) * sizeof(s->subscribers[0]));
    }
    unlock(s);
    return r;
}
