/*
 * group.h - objects of one lifetime, freed at once.
 *
 * A group is a chain whose blocks all go together; groups nest (a child goes with its parent). As in
 * APR pools and PostgreSQL memory contexts, destructors run in reverse order of registration, those of children before those of their parent.
 */
#ifndef LIBALLOC_GROUP_H
#define LIBALLOC_GROUP_H

#include <liballoc/chain.h>

LA_BEGIN_DECLS

struct la_group;

/**
 * la_group_create() - make a group
 * @parent: group that this one goes with, or NULL
 * @source: where its memory comes from; NULL: the parent's source, or the default source, also below a group of la_group_create_in(): a buffer
 *          serves one chain only, the parent's. A child that shall stay inside makes do with a buffer of its own: la_group_create_in()
 * @ret:    set to the group on success, untouched on failure
 *
 * Threads: one thread at a time uses a group and its children; any thread may la_free() its blocks.
 *
 * Return: 0, -ENOMEM.
 */
LA_API int la_group_create(struct la_group *parent, struct la_source *source, struct la_group **ret);

/** la_group_create_in() - the same over a caller's buffer; arguments and errors of la_chain_create_in() */
LA_API int la_group_create_in(struct la_group *parent, void *buffer, size_t size, struct la_group **ret);

/** la_group_alloc() - a block of @size bytes that lives as long as the group; NULL when out of memory */
LA_API LA_GIVES_BLOCK void *la_group_alloc(struct la_group *group, size_t size);

/** la_group_chain() - the group's chain, for la_chain_*() and la_default_set() */
LA_API struct la_chain *la_group_chain(struct la_group *group);

/**
 * la_group_on_free() - call @callback(@arg) when the group is freed, before its memory goes
 *
 * Callbacks live in the registering process only: they are not run for a process that has died.
 *
 * Return: 0, -ENOMEM, -ENOTSUP (the group's memory is a device's only).
 */
LA_API int la_group_on_free(struct la_group *group, void (*callback)(void *arg), void *arg);

/**
 * la_group_free_all() - end the children, the youngest first, each as by la_group_destroy(); then run the group's own callbacks, last registered
 * first, and free all its blocks; the group stays usable
 *
 * So the callbacks of children run before those of the parent, whenever they were registered: a child may use what its parent has until it ends.
 */
LA_API void la_group_free_all(struct la_group *group);

/** la_group_destroy() - la_group_free_all(), then end the group itself; NULL does nothing; returns NULL */
LA_API struct la_group *la_group_destroy(struct la_group *group);

LA_END_DECLS
#endif
