/*
 * dmabuf.h - memory of another device in a protection domain: by the dmabuf that its source describes it by, or, where the kernel asks the other
 * driver (nvidia-peermem), by its address.
 */
#ifndef SEGMENTS_VERBS_DMABUF_H
#define SEGMENTS_VERBS_DMABUF_H

#include <stdbool.h>

#include <segments/source.h>

#include "segments/verbs/runtime.h"

/* The extent's source has a dmabuf to give. */
bool verbs_is_dmabuf(const struct seg_extent *extent);

/*
 * Peers say the extent's own addresses. Nothing of the descriptor is left: the region holds the memory without it.
 * Return: 0, -ENOTSUP (library, device, source or its driver cannot: the sentence says which), -errno.
 */
int verbs_register_dmabuf(const struct verbs_runtime *verbs, struct ibv_pd *pd, const struct seg_extent *extent, unsigned access, struct verbs_mr **ret);

/* Memory of a GPU that this process uses by the CUDA runtime: with seg_verbs_peer_memory() ibv_reg_mr() of its address finds it. */
bool verbs_is_of_cuda(const void *address);

#endif
