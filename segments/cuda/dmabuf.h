/* dmabuf.h - memory of a GPU as a dmabuf, by the CUDA driver: the runtime has no call for it. */
#ifndef SEGMENTS_CUDA_DMABUF_H
#define SEGMENTS_CUDA_DMABUF_H

#include <stddef.h>

#include "segments/cuda/runtime.h"

/* @device is the calling thread's. @base and @size: whole pages of the machine. Return: 0, -ENOTSUP (driver or device cannot), -errno. */
int cuda_export_dmabuf(const struct cuda_runtime *cuda, int device, void *base, size_t size, int *fd);

#endif
