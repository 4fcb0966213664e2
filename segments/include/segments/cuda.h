/*
 * cuda.h - segments that a GPU reaches: pinned and mapped by the CUDA runtime, whatever they are made of; and the GPU's own memory.
 *
 * The runtime is opened when it is first asked for (libcudart.so.13, .12, .11.0; one that the program has loaded already is shared;
 * LIBALLOC_CUDART=PATH names another), never linked, never closed. Without it, or without a driver, these calls say so and nothing else changes.
 *
 * The registrar composes: one extent can be shared, huge, locked and mapped for a GPU. Registration is each process's own. Two sources give memory
 * of the driver's own making: "cuda-host" pinned memory of the machine (cudaHostAlloc), "cuda-device" memory of the GPU (cudaMalloc), which the
 * processor must not touch (SEG_DEVICE_ONLY).
 *
 * Not after fork(): CUDA does not work in a child. Growth fails there with -ECHILD, and what was registered is forgotten without a call. No
 * function here is called when a process exits.
 */
#ifndef SEGMENTS_CUDA_H
#define SEGMENTS_CUDA_H

#include <liballoc/limbo.h>
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

/**
 * seg_cuda_dmabuf() - can extents of "cuda-device:@device" be described by a dmabuf, so that other devices register them (segments/verbs.h)?
 *
 * By the driver, libcuda.so.1 (LIBALLOC_CUDA=PATH names another).
 *
 * Return: 0, -ENOTSUP (driver older than 11.7, or the device does not: the sentence says what helps), -ENODEV, -ECHILD
 */
LA_API int seg_cuda_dmabuf(int device);

/**
 * seg_registrar_cuda() - pin and map extents by cudaHostRegister()
 *
 * Extents of "cuda-host" are pinned and those of "cuda-device" the device's already: for them it only finds the device's address. One and the
 * same registrar so serves a list of all kinds.
 *
 * Return: 0, -EINVAL (@flags), -ENODEV, -ENOMEM
 */
LA_API int seg_registrar_cuda(unsigned flags, struct seg_registrar **ret);

/* What the driver knows of an address. The numbers are CUDA's own. */
enum seg_cuda_memory {
    SEG_CUDA_PAGEABLE = 0,      /* nothing */
    SEG_CUDA_HOST = 1,          /* pinned memory of the machine */
    SEG_CUDA_DEVICE = 2,        /* the GPU's own */
    SEG_CUDA_MANAGED = 3,
};

/** seg_cuda_memory() - Return: enum seg_cuda_memory, -ENODEV, -ECHILD */
LA_API int seg_cuda_memory(const void *address);

/**
 * seg_cuda_token() - complete when all work before @event is done
 * @event: a cudaEvent_t that has been recorded. It must live until the limbo has let go of what waits for it; recorded anew, it is waited for anew
 *
 * Return: 0, -ENODEV, -ECHILD
 */
LA_API int seg_cuda_token(void *event, struct la_token *ret);

LA_END_DECLS
#endif
