/*
 * runtime.c - finds the CUDA runtime, once.
 *
 * Locking: a mutex of its own around the search; the table does not change afterwards.
 */
#include "segments/cuda/runtime.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include <segments/cuda.h>

#include "base/error.h"
#include "base/util.h"
#include "segments/driver.h"

static pthread_mutex_t search = PTHREAD_MUTEX_INITIALIZER;
static struct cuda_runtime table;
static _Atomic(pid_t) owner;        /* process that has opened it, 0: nobody yet. Release: publishes the table */

static int load(void)
{
    static const char *const names[] = { "libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0" };
    void *library = driver_open("LIBALLOC_CUDART", names, ARRAY_SIZE(names));
    struct cuda_runtime found;

    if (!library)
        return la_fail(-ENODEV, "CUDA: no runtime: %s", dlerror());
#define X(type, name, arguments)                                                                                       \
    *(void **)&found.name = dlsym(library, #name);                                                                     \
    if (!found.name)                                                                                                   \
        return la_fail(-ENODEV, "CUDA: the runtime has no " #name "()");
    CUDA_FUNCTIONS(X)
#undef X
    table = found;
    atomic_store_explicit(&owner, getpid(), memory_order_release);
    return 0;
}

int cuda_runtime_is_ours(void)
{
    return atomic_load_explicit(&owner, memory_order_acquire) == getpid();
}

int cuda_runtime_open(const struct cuda_runtime **ret)
{
    int r = 0;

    if (!atomic_load_explicit(&owner, memory_order_acquire)) {
        pthread_mutex_lock(&search);
        if (!atomic_load_explicit(&owner, memory_order_relaxed))
            r = load();
        pthread_mutex_unlock(&search);
    }
    if (r < 0)
        return r;
    if (!cuda_runtime_is_ours())
        return la_fail(-ECHILD, "CUDA: process %d was forked by one that uses CUDA, which does not work; use exec", (int)getpid());
    *ret = &table;
    return 0;
}

static const struct {
    int cuda, ours;
} errors[] = {
    { CUDA_INVALID_VALUE, -EINVAL },       { CUDA_NO_MEMORY, -ENOMEM },       { CUDA_NOT_INITIALIZED, -ENODEV },
    { CUDA_OLD_DRIVER, -ENODEV },          { CUDA_DEVICES_UNAVAILABLE, -EBUSY }, { CUDA_NO_DEVICE, -ENODEV },
    { CUDA_INVALID_DEVICE, -ENODEV },      { CUDA_ALREADY_REGISTERED, -EEXIST }, { CUDA_NOT_REGISTERED, -ENOENT },
    { CUDA_NOT_SUPPORTED, -ENOTSUP },
};

int cuda_fail(const struct cuda_runtime *cuda, int error, const char *what, size_t size)
{
    const char *text = cuda->cudaGetErrorString(error);
    int ours = -EIO;

    for (size_t i = 0; i < ARRAY_SIZE(errors); i++)
        if (errors[i].cuda == error)
            ours = errors[i].ours;
    cuda->cudaGetLastError();       /* or the program's next check would find our error */
    if (size == 0)
        return la_fail(ours, "CUDA: %s: error %d (%s)", what, error, text ? text : "");
    return la_fail(ours, "CUDA: %s of %zu bytes: error %d (%s)", what, size, error, text ? text : "");
}

int cuda_memory(const struct cuda_runtime *cuda, const void *address)
{
    struct cuda_attributes attributes = { 0 };

    if (cuda->cudaPointerGetAttributes(&attributes, address) == 0)
        return attributes.type;
    cuda->cudaGetLastError();
    return SEG_CUDA_PAGEABLE;
}

int seg_cuda_memory(const void *address)
{
    const struct cuda_runtime *cuda;
    int r = cuda_runtime_open(&cuda);

    return r < 0 ? r : cuda_memory(cuda, address);
}

int seg_cuda_available(void)
{
    const struct cuda_runtime *cuda;
    int count = 0, r = cuda_runtime_open(&cuda);

    if (r < 0)
        return r;
    r = cuda->cudaGetDeviceCount(&count);
    if (r != 0) {
        cuda->cudaGetLastError();
        return la_fail(-ENODEV, "CUDA: no device: error %d (%s)", r, cuda->cudaGetErrorString(r));
    }
    return count > 0 ? count : la_fail(-ENODEV, "CUDA: there are 0 devices");
}
