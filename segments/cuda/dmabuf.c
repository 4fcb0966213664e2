/*
 * dmabuf.c - cuMemGetHandleForAddressRange(), which libcuda.so.1 has since CUDA 11.7 and does where NVIDIA's open kernel modules run.
 *
 * Locking: none. The library is the one that the runtime has opened, so that all who look for it find the same.
 */
#include "segments/cuda/dmabuf.h"

#include <dlfcn.h>
#include <errno.h>

#include <segments/cuda.h>

#include "base/error.h"
#include "base/util.h"
#include "segments/driver.h"

struct driver {
#define X(type, name, arguments) type (*name) arguments;
    CUDA_DRIVER_FUNCTIONS(X)
#undef X
};

static int find_driver(struct driver *ret)
{
    static const char *const names[] = { "libcuda.so.1" };
    void *library = driver_open("LIBALLOC_CUDA", names, ARRAY_SIZE(names));

    if (!library)
        return la_fail(-ENOTSUP, "CUDA: no dmabuf: no driver: %s", dlerror());
#define X(type, name, arguments)                                                                                       \
    *(void **)&ret->name = dlsym(library, #name);                                                                      \
    if (!ret->name)                                                                                                    \
        return la_fail(-ENOTSUP, "CUDA: no dmabuf: the driver has no " #name "() (11.7 or newer has)");
    CUDA_DRIVER_FUNCTIONS(X)
#undef X
    return 0;
}

static int check_device(const struct driver *driver, int number)
{
    int device = 0, does = 0;

    if (driver->cuDeviceGet(&device, number) == 0 && driver->cuDeviceGetAttribute(&does, CUDA_ATTRIBUTE_DMA_BUF_SUPPORTED, device) == 0 && does)
        return 0;
    return la_fail(-ENOTSUP, "CUDA: device %d exports no dmabuf (with NVIDIA's open kernel modules it would, from Turing on)", number);
}

int cuda_export_dmabuf(const struct cuda_runtime *cuda, int device, void *base, size_t size, int *fd)
{
    struct driver driver;
    int error, r = find_driver(&driver);

    if (r == 0)
        r = check_device(&driver, device);
    if (r < 0)
        return r;
    /* The driver's own calls need a context; the runtime makes its own the thread's when it has something to do. */
    if (cuda->cudaFree(NULL) != 0)
        cuda->cudaGetLastError();
    error = driver.cuMemGetHandleForAddressRange(fd, (uintptr_t)base, size, CUDA_DMA_BUF_FD, 0);
    return error ? cuda_fail(cuda, error, "cuMemGetHandleForAddressRange", size) : 0;
}

int seg_cuda_dmabuf(int device)
{
    struct driver driver;
    int count = seg_cuda_available(), r = MIN(count, 0);

    if (r == 0 && (device < 0 || device >= count))
        r = la_fail(-ENODEV, "CUDA: device %d: there are %d, from 0 on", device, count);
    if (r == 0)
        r = find_driver(&driver);
    return r < 0 ? r : check_device(&driver, device);
}
