/*
 * cuda.c - extents that the CUDA runtime has pinned and mapped.
 *
 * What the runtime says while the process ends (unloading) is taken for success: its contexts are gone, and the registrations with them.
 */
#include <errno.h>
#include <stdint.h>

#include <segments/cuda.h>

#include "base/error.h"
#include "segments/cuda/runtime.h"

/* Whether seg_key.handle says that the registration is ours to end. */
static char registered;

static int find_device_address(const struct cuda_runtime *cuda, const struct seg_extent *extent, struct seg_key *ret)
{
    void *device = NULL;
    int error = cuda->cudaHostGetDevicePointer(&device, extent->base, 0);

    if (error)
        return cuda_fail(cuda, error, "cudaHostGetDevicePointer", extent->size);
    ret->device = (uintptr_t)device;
    return 0;
}

static int register_extent(const struct cuda_runtime *cuda, const struct seg_extent *extent, unsigned flags, struct seg_key *ret)
{
    int error = cuda->cudaHostRegister(extent->base, extent->size, flags), r = 0;

    if (error)
        return cuda_fail(cuda, error, "cudaHostRegister", extent->size);
    if (flags & SEG_CUDA_MAPPED)
        r = find_device_address(cuda, extent, ret);
    if (r < 0)
        cuda->cudaHostUnregister(extent->base);
    else
        ret->handle = &registered;
    return r;
}

/* @self: the flags. */
static int attach(void *self, const struct seg_extent *extent, struct seg_key *ret)
{
    unsigned flags = (unsigned)(uintptr_t)self;
    const struct cuda_runtime *cuda;
    int memory, r = cuda_runtime_open(&cuda);

    if (r < 0)
        return r;
    memory = cuda_memory(cuda, extent->base);
    if (extent->capabilities & SEG_DEVICE_ONLY && memory != SEG_CUDA_DEVICE)
        return la_fail(-ENOTSUP, "CUDA: %p is device memory that its driver does not know", extent->base);
    if (memory == SEG_CUDA_DEVICE)
        ret->device = (uintptr_t)extent->base;
    if (memory == SEG_CUDA_HOST)
        return flags & SEG_CUDA_MAPPED ? find_device_address(cuda, extent, ret) : 0;
    return memory == SEG_CUDA_PAGEABLE ? register_extent(cuda, extent, flags, ret) : 0;
}

static int detach(void *self, const struct seg_extent *extent, const struct seg_key *key)
{
    const struct cuda_runtime *cuda;
    int error;

    (void)self;
    if (key->handle != &registered || !cuda_runtime_is_ours())
        return 0;       /* memory of the driver's own, or the parent's registration: not ours to end */
    cuda_runtime_open(&cuda);
    error = cuda->cudaHostUnregister(extent->base);
    return error == 0 || error == CUDA_UNLOADING || error == CUDA_NOT_REGISTERED
               ? 0 : cuda_fail(cuda, error, "cudaHostUnregister", extent->size);
}

int seg_registrar_cuda(unsigned flags, struct seg_registrar **ret)
{
    static const struct seg_registrar_ops ops = {
        .struct_size = sizeof(ops), .name = "cuda", .flags = SEG_REGISTRAR_HOLDS | SEG_REGISTRAR_DEVICE, .adds = SEG_PINNED,
        .attach = attach, .detach = detach,
    };
    int r;

    if (flags & ~(unsigned)(SEG_CUDA_PORTABLE | SEG_CUDA_MAPPED | SEG_CUDA_READ_ONLY))
        return la_fail(-EINVAL, "CUDA: flags %#x are unknown", flags);
    r = seg_cuda_available();
    return r < 0 ? r : seg_registrar_create(&ops, (void *)(uintptr_t)flags, ret);
}
