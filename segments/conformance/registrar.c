/*
 * registrar.c - the contract of struct seg_registrar_ops (segments/registrar.h), rule by rule.
 */
#include <errno.h>
#include <string.h>

#include <liballoc/error.h>

#include "segments/conformance/kit.h"

enum { EXTENTS = 4, CYCLES = 50, MARK = 1000000, SLACK_KIB = 512 };

struct subject {
    struct kit kit;
    const struct seg_registrar_ops *ops;
    void *self;
    struct seg_extent extent[EXTENTS];
    struct seg_key key[EXTENTS];
    bool attached[EXTENTS];
};

static bool attach(struct subject *s, unsigned i)
{
    int r;

    s->key[i] = (struct seg_key){ 0 };
    r = s->ops->attach(s->self, &s->extent[i], &s->key[i]);
    s->attached[i] = r == 0;
    return kit_check(&s->kit, r == 0, "attach: 0 for memory that it can take", "%d for %zu bytes (%s)", r, s->extent[i].size, la_last_error());
}

static void detach(struct subject *s, unsigned i)
{
    int r;

    if (!s->attached[i])
        return;
    r = s->ops->detach(s->self, &s->extent[i], &s->key[i]);
    s->attached[i] = false;
    kit_check(&s->kit, r == 0, "detach: 0 for a key that is out", "%d (%s)", r, la_last_error());
}

/* Several at once, given up in another order; memory stays what it is meanwhile. */
static void check_many(struct subject *s)
{
    static const unsigned order[EXTENTS] = { 2, 0, 3, 1 };

    for (unsigned i = 0; i < EXTENTS; i++)
        kit_mark(&s->kit, &s->extent[i], i * MARK);
    for (unsigned i = 0; i < EXTENTS; i++)
        attach(s, i);
    for (unsigned i = 0; i < EXTENTS; i++) {
        kit_check(&s->kit, kit_is_marked(&s->kit, &s->extent[i], i * MARK), "attach: keeps the content", "it has changed");
        kit_mark(&s->kit, &s->extent[i], i * MARK + 7);
        detach(s, order[i]);
    }
    for (unsigned i = 0; i < EXTENTS; i++)
        kit_check(&s->kit, kit_is_marked(&s->kit, &s->extent[i], i * MARK + 7), "detach: keeps the content", "it has changed");
}

static void check_cycles(struct subject *s)
{
    struct kit_trace before = kit_look();

    for (int i = 0; i < CYCLES; i++)
        if (attach(s, 0))
            detach(s, 0);
    kit_compare(&s->kit, &before, "detach: gives all back", SLACK_KIB);
}

static void check_limit(struct subject *s)
{
    struct seg_key key = { 0 };
    int r;

    if (s->ops->max_size == 0 || s->ops->max_size >= s->extent[0].size)
        return;
    r = s->ops->attach(s->self, &s->extent[0], &key);
    kit_check(&s->kit, r < 0, "attach: more than max_size is refused", "%d for %zu bytes", r, s->extent[0].size);
    if (r == 0)
        s->ops->detach(s->self, &s->extent[0], &key);
}

static size_t extent_size(const struct subject *s)
{
    size_t size = s->kit.size;

    return s->ops->max_size && s->ops->max_size < size ? s->ops->max_size / s->kit.page * s->kit.page : size;
}

static int get_extents(struct subject *s, const struct seg_source_ops *source, void *memory, size_t size, unsigned *count)
{
    struct seg_ask ask = { .struct_size = sizeof(ask), .min_size = size, .wanted_size = size };
    int r = 0;

    for (*count = 0; *count < EXTENTS && r == 0; *count += r == 0) {
        s->extent[*count] = (struct seg_extent){ .struct_size = sizeof(struct seg_extent), .fd = -1, .node = -1 };
        r = source->acquire(memory, &ask, &s->extent[*count]);
        s->extent[*count].source = source;
        s->extent[*count].source_self = memory;
    }
    return r;
}

int seg_conformance_registrar(const struct seg_registrar_ops *ops, void *self, const char *memory, struct seg_conformance *run)
{
    const struct seg_source_ops *source = seg_source_find(memory);
    struct subject s = { .ops = ops, .self = self };
    unsigned count;
    void *opened;
    int r = kit_begin(&s.kit, run);

    if (r < 0)
        return r;
    if (!source)
        return seg_fail(-EINVAL, "source \"%s\" is unknown", memory ? memory : "");
    if (!kit_check(&s.kit, ops && ops->struct_size >= offsetof(struct seg_registrar_ops, close) && ops->name && ops->attach && ops->detach,
                   "table: struct_size, name, attach, detach", "one is missing"))
        return kit_end(&s.kit);
    r = source->open("", NULL, &opened);
    if (r < 0)
        return r;
    r = get_extents(&s, source, opened, extent_size(&s), &count);
    if (r == 0) {
        check_many(&s);
        check_cycles(&s);
        check_limit(&s);
    }
    while (count-- > 0)
        source->release(opened, &s.extent[count]);
    source->close(opened);
    return r < 0 ? r : kit_end(&s.kit);
}
