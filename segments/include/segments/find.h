/*
 * find.h - from any pointer to its extent and keys, at a cost that does not grow with their number.
 *
 *     struct seg_key_here key;
 *
 *     if (seg_key_of(object, verbs, &key) == 0)
 *         tell_peer((uintptr_t)object, key.remote);
 *
 * All calls may be made from any thread, take no lock, and never touch the memory that they are asked about.
 */
#ifndef SEGMENTS_FIND_H
#define SEGMENTS_FIND_H

#include <segments/supply.h>

LA_BEGIN_DECLS

/* One key, as seen from an address. */
struct seg_key_here {
    uint64_t local, remote;
    uint64_t device;        /* the address as the device sees it, 0: the registrar has none */
    size_t bytes;           /* that the key covers from the address on */
    uint64_t generation;    /* of the extent: for seg_check() */
};

/**
 * seg_key_of() - the key that @registrar made for the memory around @address
 *
 * Return: 0, -ENOENT (@address lies in no extent of a supply), -ENOKEY (that extent is not registered with @registrar).
 */
LA_API int seg_key_of(const void *address, const struct seg_registrar *registrar, struct seg_key_here *ret);

/**
 * seg_check() - is a key from seg_key_of() still good?
 *
 * Return: 0, -ESTALE (the extent it belongs to is gone, or has been registered anew).
 */
LA_API int seg_check(const void *address, uint64_t generation);

/* All that is known of the extent around an address. */
struct seg_location {
    size_t struct_size;         /* in */
    struct seg_supply *supply;
    void *base;
    size_t size, page_size;     /* bytes */
    size_t offset;              /* of the address in the extent */
    unsigned capabilities;
    int node;                   /* NUMA node, -1: several or unknown */
    int fd;                     /* -1: none */
    uint64_t file_offset;       /* of the address in that file */
    uint64_t generation;
    size_t key_count;
    struct seg_registrar *registrars[SEG_REGISTRARS_MAX];
    struct seg_key keys[SEG_REGISTRARS_MAX];
};

/** seg_find() - Return: 0, -ENOENT, -EINVAL (struct_size) */
LA_API int seg_find(const void *address, struct seg_location *ret);

LA_END_DECLS
#endif
