/*
 * group.c - objects of one lifetime: a chain, a tree of children, callbacks in reverse order.
 *
 * Freeing a group is a reset of its chain, so it costs per macro block. The group's own records live in blocks of its chain
 * and go with it; only struct la_group survives la_group_free_all(), in the metadata allocator.
 */
#include <errno.h>

#include <liballoc/group.h>

#include "base/error.h"
#include "core/meta.h"
#include "core/types.h"

struct callback {
    struct callback *next;
    void (*call)(void *arg);
    void *arg;
};

struct la_group {
    struct la_chain *chain;
    struct la_group *parent, *children, *next, *prev;
    struct callback *callbacks;     /* last registered first */
};

static struct la_group *adopt(struct la_group *parent, struct la_group *group)
{
    group->parent = parent;
    if (parent) {
        group->next = parent->children;
        if (group->next)
            group->next->prev = group;
        parent->children = group;
    }
    return group;
}

static int new_group(struct la_group *parent, struct la_group **ret)
{
    *ret = la_meta_alloc(sizeof(**ret));
    if (!*ret)
        return la_fail(-ENOMEM, "no memory for a group");
    **ret = (struct la_group){ .parent = parent };
    return 0;
}

int la_group_create(struct la_group *parent, struct la_source *source, struct la_group **ret)
{
    struct la_group *group;
    int r = new_group(parent, &group);

    if (r < 0)
        return r;
    if (!source && parent && !parent->chain->source->fixed)
        source = parent->chain->source;
    r = la_chain_create(source, 0, &group->chain);
    if (r < 0) {
        la_meta_free(group, sizeof(*group));
        return r;
    }
    *ret = adopt(parent, group);
    return 0;
}

int la_group_create_in(struct la_group *parent, void *buffer, size_t size, struct la_group **ret)
{
    struct la_group *group;
    int r = new_group(parent, &group);

    if (r < 0)
        return r;
    r = la_chain_create_in(buffer, size, 0, &group->chain);
    if (r < 0) {
        la_meta_free(group, sizeof(*group));
        return r;
    }
    *ret = adopt(parent, group);
    return 0;
}

void *la_group_alloc(struct la_group *group, size_t size)
{
    return la_chain_alloc(group->chain, size);
}

struct la_chain *la_group_chain(struct la_group *group)
{
    return group->chain;
}

int la_group_on_free(struct la_group *group, void (*call)(void *arg), void *arg)
{
    struct callback *callback;

    if (chain_is_device_only(group->chain))
        return la_fail(-ENOTSUP, "a group over memory that is the device's only keeps no callbacks, as they lie in its blocks");
    callback = la_chain_alloc(group->chain, sizeof(*callback));
    if (!callback)
        return la_fail(-ENOMEM, "no memory in the group for a callback");
    *callback = (struct callback){ .next = group->callbacks, .call = call, .arg = arg };
    group->callbacks = callback;
    return 0;
}

static void run_callbacks(struct la_group *group)
{
    while (group->callbacks) {
        struct callback callback = *group->callbacks;

        group->callbacks = callback.next;
        callback.call(callback.arg);
    }
}

/* Children were made later, mostly over objects of the parent: they go first, the youngest before all. */
static void destroy_children(struct la_group *group)
{
    for (struct la_group *child = group->children, *next; child; child = next) {
        next = child->next;
        la_group_destroy(child);
    }
}

void la_group_free_all(struct la_group *group)
{
    destroy_children(group);
    run_callbacks(group);
    la_chain_reset(group->chain);
}

struct la_group *la_group_destroy(struct la_group *group)
{
    if (!group)
        return NULL;
    destroy_children(group);
    run_callbacks(group);
    if (la_chain_destroy(group->chain) < 0)
        return NULL;    /* some thread's default chain: kept, see la_last_error() */
    if (group->prev)
        group->prev->next = group->next;
    else if (group->parent)
        group->parent->children = group->next;
    if (group->next)
        group->next->prev = group->prev;
    la_meta_free(group, sizeof(*group));
    return NULL;
}
