/*
 * cuda.h - segments that a GPU reaches: pinned and mapped by the CUDA runtime, whatever they are made of.
 *
 * The runtime is opened when it is first asked for (libcudart.so.13, .12, .11.0; one that the program has loaded already is shared;
 * LIBALLOC_CUDART=PATH names another), never linked, never closed. Without it, or without a driver, these calls say so and nothing else changes.
 *
 * The registrar composes: one extent can be shared, huge, locked and mapped for a GPU. Registration is each process's own. The source
 * "cuda-host" gives memory of the driver's own making instead.
 *
 * Not after fork(): CUDA does not work in a child. Growth fails there with -ECHILD, and what was registered is forgotten without a call.
 */
#ifndef SEGMENTS_CUDA_H
#define SEGMENTS_CUDA_H

#include <segments/registrar.h>

LA_BEGIN_DECLS

/* The numbers are CUDA's own. */
enum seg_cuda_flags {
    SEG_CUDA_PORTABLE = 1u << 0,    /* pinned for all contexts */
    SEG_CUDA_MAPPED = 1u << 1,      /* in the address space of the device: seg_key_here.device */
    SEG_CUDA_READ_ONLY = 1u << 3,   /* the device only reads it */
};

/** seg_cuda_available() - Return: the number of devices, or -ENODEV with the reason (no runtime, no driver, no device) */
LA_API int seg_cuda_available(void);

/** seg_registrar_cuda() - pin and map extents by cudaHostRegister(). Return: 0, -EINVAL (@flags), -ENODEV, -ENOMEM */
LA_API int seg_registrar_cuda(unsigned flags, struct seg_registrar **ret);

LA_END_DECLS
#endif
