/*
 * abi.h - what segments know of CUDA without its headers: functions, numbers, and the one structure. tests/gpu/abi_test.cpp holds this against
 * NVIDIA's headers where they are installed.
 */
#ifndef SEGMENTS_CUDA_ABI_H
#define SEGMENTS_CUDA_ABI_H

#include <stddef.h>
#include <stdint.h>

/* cudaPointerAttributes: its first members in CUDA 11, 12 and 13, and room for what follows in one of them. */
struct cuda_attributes {
    int type;                   /* enum seg_cuda_memory */
    int device;
    void *device_pointer, *host_pointer;
    long more[32];
};

/* Of the runtime: X(type, name, arguments). Handles are plain pointers, enumerations plain numbers. */
#define CUDA_FUNCTIONS(X)                                                                                              \
    X(int, cudaGetDeviceCount, (int *count))                                                                           \
    X(int, cudaHostAlloc, (void **pointer, size_t size, unsigned flags))                                               \
    X(int, cudaFreeHost, (void *pointer))                                                                              \
    X(int, cudaHostRegister, (void *pointer, size_t size, unsigned flags))                                             \
    X(int, cudaHostUnregister, (void *pointer))                                                                        \
    X(int, cudaHostGetDevicePointer, (void **device, void *host, unsigned flags))                                      \
    X(int, cudaMalloc, (void **pointer, size_t size))                                                                  \
    X(int, cudaFree, (void *pointer))                                                                                  \
    X(int, cudaMemGetInfo, (size_t *available, size_t *total))                                                         \
    X(int, cudaGetDevice, (int *device))                                                                               \
    X(int, cudaSetDevice, (int device))                                                                                \
    X(int, cudaPointerGetAttributes, (struct cuda_attributes *attributes, const void *pointer))                        \
    X(int, cudaEventQuery, (void *event))                                                                              \
    X(int, cudaGetLastError, (void))                                                                                   \
    X(const char *, cudaGetErrorString, (int error))

/* Of the driver. */
#define CUDA_DRIVER_FUNCTIONS(X)                                                                                       \
    X(int, cuDeviceGet, (int *device, int number))                                                                     \
    X(int, cuDeviceGetAttribute, (int *value, int attribute, int device))                                              \
    X(int, cuMemGetHandleForAddressRange, (int *fd, uint64_t address, size_t size, int type, unsigned long long flags))

enum cuda_error {
    CUDA_INVALID_VALUE = 1,
    CUDA_NO_MEMORY = 2,
    CUDA_NOT_INITIALIZED = 3,
    CUDA_UNLOADING = 4,         /* the process ends, contexts and registrations are gone */
    CUDA_OLD_DRIVER = 35,
    CUDA_DEVICES_UNAVAILABLE = 46,
    CUDA_NO_DEVICE = 100,
    CUDA_INVALID_DEVICE = 101,
    CUDA_NOT_READY = 600,
    CUDA_ALREADY_REGISTERED = 712,
    CUDA_NOT_REGISTERED = 713,
    CUDA_NOT_SUPPORTED = 801,
};

/* cudaHostAlloc */
enum { CUDA_ALLOC_PORTABLE = 1, CUDA_ALLOC_MAPPED = 2, CUDA_ALLOC_WRITE_COMBINED = 4 };

/* cuMemGetHandleForAddressRange, cuDeviceGetAttribute */
enum { CUDA_DMA_BUF_FD = 1, CUDA_ATTRIBUTE_DMA_BUF_SUPPORTED = 124 };

#endif
