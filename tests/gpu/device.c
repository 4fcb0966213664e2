#include "device.h"

#include <dlfcn.h>
#include <stdlib.h>

#include "add.ptx.h"

struct device gpu;

static void *open_first(const char *variable, const char *const *names)
{
    const char *path = getenv(variable);
    void *library = NULL;

    if (path && path[0])
        return dlopen(path, RTLD_NOW);
    for (; *names && !library; names++)
        library = dlopen(*names, RTLD_NOW);
    return library;
}

static const char *find_functions(void *runtime, void *driver)
{
#define X(name, arguments)                                                                                              \
    *(void **)&gpu.name = dlsym(library, #name);                                                                        \
    if (!gpu.name)                                                                                                      \
        return "there is no " #name "()";
    void *library = runtime;

    RUNTIME_FUNCTIONS(X)
    library = driver;
    DRIVER_FUNCTIONS(X)
#undef X
    return NULL;
}

int device_open(const char **reason)
{
    static const char *const runtimes[] = { "libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0", NULL };
    static const char *const drivers[] = { "libcuda.so.1", NULL };
    void *runtime = open_first("LIBALLOC_CUDART", runtimes), *driver = open_first("LIBALLOC_TEST_CUDA", drivers), *module;

    *reason = !runtime || !driver ? dlerror() : find_functions(runtime, driver);
    if (*reason)
        return -1;
    /* Makes the context of the runtime the calling thread's, in which the driver then loads the kernel. */
    if (gpu.cudaSetDevice(0) != 0 || gpu.cudaFree(NULL) != 0)
        gpu.cudaGetLastError();
    *reason = gpu.cuModuleLoadData(&module, add_ptx) != 0               ? "the driver does not take the kernel (add.ptx.h)"
              : gpu.cuModuleGetFunction(&gpu.add, module, "la_add") != 0 ? "the driver does not find the kernel"
                                                                          : NULL;
    return *reason ? -1 : 0;
}

int device_start_add(uint64_t data, uint32_t count, uint32_t number)
{
    void *arguments[] = { &data, &count, &number };

    return gpu.cuLaunchKernel(gpu.add, (count + 255) / 256, 1, 1, 256, 1, 1, 0, NULL, arguments, NULL);
}

int device_add(uint64_t data, uint32_t count, uint32_t number)
{
    int error = device_start_add(data, count, number);

    return error ? error : gpu.cudaDeviceSynchronize();
}
