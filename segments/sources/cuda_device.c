/*
 * cuda_device.c - "cuda-device[:NUMBER]": memory of a GPU, by cudaMalloc(). The number is the device's; without one it is the device that is the
 * calling thread's when the source is opened.
 *
 * The processor must not touch it (SEG_DEVICE_ONLY), nor does anything here. cudaFree() waits for the device: extents go back when a supply or a
 * chain's source ends, not as blocks do.
 */
#include <errno.h>
#include <stdint.h>

#include <segments/cuda.h>

#include "base/error.h"
#include "os/os.h"
#include "segments/catalogue.h"
#include "segments/cuda/dmabuf.h"
#include "segments/cuda/runtime.h"

/* Extents begin at multiples of it, which the driver does for all but small ones anyway: so no slice of the engine is lost. */
enum { GRANULE = 64 << 10, DEVICES_MAX = 1024 };

static int read_number(const char *text, int *number)
{
    *number = 0;
    for (const char *c = text; *c; c++) {
        if (*c < '0' || *c > '9' || *number >= DEVICES_MAX)
            return la_fail(-EINVAL, "cuda-device:%s: behind the colon stands the number of a device", text);
        *number = *number * 10 + (*c - '0');
    }
    return 0;
}

/* The calling thread's device becomes @device; its own goes to *@before. */
static int enter_device(const struct cuda_runtime *cuda, int device, int *before)
{
    int error = cuda->cudaGetDevice(before);

    if (!error && *before != device)
        error = cuda->cudaSetDevice(device);
    return error ? cuda_fail(cuda, error, "cudaSetDevice", 0) : 0;
}

static void leave_device(const struct cuda_runtime *cuda, int device, int before)
{
    if (before != device)
        cuda->cudaSetDevice(before);
}

/* @self is the device, one above, so that it is not NULL. */
static int device_of(const void *self)
{
    return (int)(uintptr_t)self - 1;
}

static int device_open(const char *text, void *user, void **ret)
{
    const struct cuda_runtime *cuda;
    int number, count = 0, error = 0, r = read_number(text, &number);

    (void)user;
    if (r == 0)
        r = count = seg_cuda_available();
    if (r < 0)
        return r;
    cuda_runtime_open(&cuda);
    if (!text[0])
        error = cuda->cudaGetDevice(&number);
    if (error)
        return cuda_fail(cuda, error, "cudaGetDevice", 0);
    if (number >= count)
        return la_fail(-ENODEV, "cuda-device:%d: there are %d devices, from 0 on", number, count);
    *ret = (void *)((uintptr_t)number + 1);
    return 0;
}

static void device_close(void *self)
{
    (void)self;
}

static int device_info(void *self, struct seg_source_info *ret)
{
    const struct cuda_runtime *cuda;
    size_t available = 0, total;
    int before, r = cuda_runtime_open(&cuda);

    if (r == 0)
        r = enter_device(cuda, device_of(self), &before);
    if (r < 0)
        return r;
    if (cuda->cudaMemGetInfo(&available, &total) != 0)
        cuda->cudaGetLastError();
    leave_device(cuda, device_of(self), before);
    ret->can = SEG_DEVICE_ONLY | SEG_PINNED;
    ret->page_size = MAX(os_page_size(), (size_t)GRANULE);
    ret->available = available;
    return 0;
}

/* @size bytes at a multiple of @page; what cudaFree() wants goes to ret->cookie. */
static int allocate(const struct cuda_runtime *cuda, size_t size, size_t page, struct seg_extent *ret)
{
    void *p = NULL;
    int error = cuda->cudaMalloc(&p, size);

    if (!error && (uintptr_t)p & (page - 1)) {
        cuda->cudaFree(p);
        error = cuda->cudaMalloc(&p, size + page);
    }
    if (error)
        return error;
    ret->cookie = p;
    ret->base = (void *)align_up((uintptr_t)p, page);
    ret->size = size;
    ret->page_size = page;
    return 0;
}

static int device_acquire(void *self, const struct seg_ask *ask, struct seg_extent *ret)
{
    size_t page = MAX(os_page_size(), (size_t)GRANULE), least = align_up(ask->min_size, page), size = MAX(least, align_up(ask->wanted_size, page));
    const struct cuda_runtime *cuda;
    int before, error, r = cuda_runtime_open(&cuda);

    if (r < 0)
        return r;
    if (least < ask->min_size || least + page < least)
        return la_fail(-ENOMEM, "CUDA: %zu bytes are more than any device has", ask->min_size);
    r = enter_device(cuda, device_of(self), &before);
    if (r < 0)
        return r;
    error = allocate(cuda, size, page, ret);
    if (error && size > least) {
        cuda->cudaGetLastError();
        error = allocate(cuda, size = least, page, ret);
    }
    if (error)
        r = cuda_fail(cuda, error, "cudaMalloc", size);
    leave_device(cuda, device_of(self), before);
    ret->capabilities = SEG_DEVICE_ONLY | SEG_PINNED;
    ret->missed = ask->preferred & ~ret->capabilities;
    return r;
}

static int device_release(void *self, struct seg_extent *extent)
{
    const struct cuda_runtime *cuda;
    int error;

    (void)self;
    if (!cuda_runtime_is_ours())
        return 0;       /* the parent's */
    cuda_runtime_open(&cuda);
    error = cuda->cudaFree(extent->cookie);
    return error == 0 || error == CUDA_UNLOADING ? 0 : cuda_fail(cuda, error, "cudaFree", extent->size);
}

static int device_export_dmabuf(void *self, const struct seg_extent *extent, struct seg_dmabuf *ret)
{
    const struct cuda_runtime *cuda;
    int before, r = cuda_runtime_open(&cuda);

    if (r == 0)
        r = enter_device(cuda, device_of(self), &before);
    if (r < 0)
        return r;
    ret->offset = 0;
    r = cuda_export_dmabuf(cuda, device_of(self), extent->base, extent->size, &ret->fd);
    leave_device(cuda, device_of(self), before);
    return r;
}

const struct seg_source_ops cuda_device_source = {
    .struct_size = sizeof(cuda_device_source), .name = "cuda-device", .can = SEG_DEVICE_ONLY | SEG_PINNED, .open = device_open,
    .close = device_close, .info = device_info, .acquire = device_acquire, .release = device_release, .export_dmabuf = device_export_dmabuf,
};
