/*
 * device.h - the CUDA functions that the test itself calls, and its kernel. Found when the test runs, like the library's own.
 */
#ifndef TESTS_GPU_DEVICE_H
#define TESTS_GPU_DEVICE_H

#include <stddef.h>
#include <stdint.h>

struct attributes {
    int type, device;
    void *device_pointer, *host_pointer;
    long more[32];
};

#define RUNTIME_FUNCTIONS(X)                                                                                            \
    X(cudaRuntimeGetVersion, (int *version))                                                                            \
    X(cudaDriverGetVersion, (int *version))                                                                             \
    X(cudaSetDevice, (int device))                                                                                      \
    X(cudaHostAlloc, (void **pointer, size_t size, unsigned flags))                                                     \
    X(cudaFreeHost, (void *pointer))                                                                                    \
    X(cudaHostRegister, (void *pointer, size_t size, unsigned flags))                                                   \
    X(cudaHostGetFlags, (unsigned *flags, void *host))                                                                  \
    X(cudaPointerGetAttributes, (struct attributes *attributes, const void *pointer))                                   \
    X(cudaMalloc, (void **pointer, size_t size))                                                                        \
    X(cudaFree, (void *pointer))                                                                                        \
    X(cudaMemcpy, (void *to, const void *from, size_t size, int kind))                                                  \
    X(cudaDeviceSynchronize, (void))                                                                                    \
    X(cudaEventCreateWithFlags, (void **event, unsigned flags))                                                         \
    X(cudaEventRecord, (void *event, void *stream))                                                                     \
    X(cudaEventDestroy, (void *event))                                                                                  \
    X(cudaGetLastError, (void))

#define DRIVER_FUNCTIONS(X)                                                                                             \
    X(cuModuleLoadData, (void **module, const void *image))                                                             \
    X(cuModuleGetFunction, (void **function, void *module, const char *name))                                           \
    X(cuLaunchKernel, (void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y, unsigned block_z, \
                       unsigned shared, void *stream, void **arguments, void **extra))

struct device {
#define X(name, arguments) int(*name) arguments;
    RUNTIME_FUNCTIONS(X)
    DRIVER_FUNCTIONS(X)
#undef X
    void *add;      /* the kernel */
};

extern struct device gpu;

/* @reason: why not. */
int device_open(const char **reason);

/* data[i] += number on the device, for @count words at the device's address @data; waits. Return: 0 or an error of CUDA's. */
int device_add(uint64_t data, uint32_t count, uint32_t number);
/* The same without waiting. */
int device_start_add(uint64_t data, uint32_t count, uint32_t number);

enum { TO_DEVICE = 1, FROM_DEVICE = 2 };

#endif
