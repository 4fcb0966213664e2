/*
 * verbs.h - segments that an RDMA device reads and writes: registered in protection domains of yours by libibverbs, whatever they are made of.
 *
 *     struct ibv_pd *domain = ibv_alloc_pd(ibv_open_device(device));
 *     struct seg_registrar *rdma;
 *
 *     seg_registrar_verbs(domain, SEG_VERBS_LOCAL_WRITE | SEG_VERBS_REMOTE_READ | SEG_VERBS_REMOTE_WRITE, 0, &rdma);
 *
 * Then rdma goes into seg_supply_config.registrars, and seg_key_of() tells the lkey (.local) and rkey (.remote) of any object. The address that
 * a peer says is the object's own. seg_location.keys[].handle is the struct ibv_mr.
 *
 * Extents whose source describes them by a dmabuf, those of "cuda-device", are registered by that: ibv_reg_dmabuf_mr(). Where library, card or GPU
 * cannot, they are by their address if nvidia-peermem is loaded; else growth fails with -ENOTSUP and the sentence says what is missing.
 *
 * libibverbs.so.1 is opened when it is first asked for (LIBALLOC_IBVERBS=PATH names another), never linked, never closed, so this header needs
 * none of its own. Without it, or without a device, these calls say so and nothing else changes.
 *
 * Not after fork(): the device belongs to the process that has opened it. In a child growth fails with -ECHILD, and what was registered
 * is forgotten without a call. The parent's keys go on: since Linux 5.12 a child gets copies of registered pages. Keys end with the process that has
 * registered them, however it ends. Nothing is called from an exit handler.
 */
#ifndef SEGMENTS_VERBS_H
#define SEGMENTS_VERBS_H

#include <segments/registrar.h>

LA_BEGIN_DECLS

struct ibv_pd;

/* The numbers are those of enum ibv_access_flags. */
enum seg_verbs_access {
    SEG_VERBS_LOCAL_WRITE = 1u << 0,        /* the device writes for us: receive, read from a peer */
    SEG_VERBS_REMOTE_WRITE = 1u << 1,       /* peers write; needs LOCAL_WRITE */
    SEG_VERBS_REMOTE_READ = 1u << 2,        /* peers read */
    SEG_VERBS_REMOTE_ATOMIC = 1u << 3,      /* peers swap and add; needs LOCAL_WRITE. iWARP devices refuse it */
    SEG_VERBS_MW_BIND = 1u << 4,            /* memory windows can be bound to it; while one is, its memory does not go back */
    SEG_VERBS_RELAXED_ORDERING = 1u << 20,  /* writes may overtake each other, where device and library know it */
};

/** seg_verbs_available() - Return: the number of RDMA devices, or -ENODEV with the reason (no library, no kernel support, no device) */
LA_API int seg_verbs_available(void);

/**
 * seg_verbs_dmabuf() - how many RDMA devices register memory of other devices by a dmabuf? Each is opened, and closed again.
 *
 * Return: a number above 0, -ENOTSUP (library or devices cannot: the sentence says what could), -ENODEV (no library, no device)
 */
LA_API int seg_verbs_dmabuf(void);

/** seg_verbs_peer_memory() - Return: 1 (nvidia-peermem is loaded: a GPU's memory is registered by its address), -ENOTSUP */
LA_API int seg_verbs_peer_memory(void);

/**
 * seg_registrar_verbs() - register extents in a protection domain, by ibv_reg_mr()
 * @domain: the caller's; outlives the supplies that use the registrar. For several, make a registrar each
 * @access: OR of enum seg_verbs_access; 0: the device reads for us
 * @max_size: bytes that one key covers at most: larger extents are not made, and blocks above it fail; 0: any. For chains at least 5 MiB
 *
 * Return: 0, -EINVAL (no domain, unknown or impossible @access, @max_size below a page), -ENODEV (no libibverbs.so.1), -ENOMEM
 */
LA_API int seg_registrar_verbs(struct ibv_pd *domain, unsigned access, size_t max_size, struct seg_registrar **ret);

LA_END_DECLS
#endif
