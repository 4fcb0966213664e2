/*
 * registrar.h - what makes memory known to a device or to the kernel, as a table of functions: fill one to plug in your own.
 *
 * A registrar decorates extents: attach() makes a key for one, detach() ends it. Several stand on one extent, so that it is locked,
 * registered in two protection domains and mapped by a GPU at once. Registration happens once for each extent, when it joins a supply
 * (segments/supply.h), and never for an object; segments/find.h tells the keys of any pointer.
 */
#ifndef SEGMENTS_REGISTRAR_H
#define SEGMENTS_REGISTRAR_H

#include <segments/source.h>

LA_BEGIN_DECLS

/* What stands for an extent outside of the program; what a registrar does not have stays zero. */
struct seg_key {
    uint64_t local;         /* for our own device: lkey */
    uint64_t remote;        /* for peers: rkey */
    uint64_t device;        /* address of the extent's base as the device sees it */
    void *handle;           /* the registrar's own: struct ibv_mr * ... */
};

enum seg_registrar_flags {
    SEG_REGISTRAR_LOCKS = 1u << 0,      /* counts against RLIMIT_MEMLOCK with mlock()'s pages (VmLck) */
    SEG_REGISTRAR_PINS = 1u << 1,       /* counts against RLIMIT_MEMLOCK with devices' pages (VmPin) */
    SEG_REGISTRAR_HOLDS = 1u << 2,      /* holds pages in memory without counting against a limit of the system */
    SEG_REGISTRAR_DEVICE = 1u << 3,     /* also takes extents that are SEG_DEVICE_ONLY: others are refused when the supply is made */
};

/*
 * Contract: as for sources (segments/source.h). Memory of a device is found by seg_dmabuf_of() in attach(), where its source describes it so. detach()
 * comes before the extent is purged, unmapped or given back, always. When it fails the extent is quarantined: kept mapped, as the device may still
 * write to it.
 */
struct seg_registrar_ops {
    size_t struct_size;     /* sizeof(struct seg_registrar_ops) of the author's header */
    const char *name;
    unsigned flags;         /* OR of enum seg_registrar_flags */
    unsigned adds;          /* OR of enum seg_capability that a registered extent has in addition */
    size_t max_size;        /* bytes that one key can cover: larger extents are not made; 0: any */

    int (*attach)(void *self, const struct seg_extent *extent, struct seg_key *ret);
    int (*detach)(void *self, const struct seg_extent *extent, const struct seg_key *key);
    /** close() - optional: by seg_registrar_destroy() */
    void (*close)(void *self);
};

struct seg_registrar;

/** seg_registrar_create() - @ops: copied; @self: handed to its functions. Return: 0, -EINVAL (a member is missing), -ENOMEM */
LA_API int seg_registrar_create(const struct seg_registrar_ops *ops, void *self, struct seg_registrar **ret);

/** seg_registrar_destroy() - @registrar: NULL does nothing. Return: 0, -EBUSY (a supply uses it) */
LA_API int seg_registrar_destroy(struct seg_registrar *registrar);

/** seg_registrar_mlock() - pages that stay in memory, by mlock(). Keys are empty. Return: 0, -ENOMEM */
LA_API int seg_registrar_mlock(struct seg_registrar **ret);

LA_END_DECLS
#endif
