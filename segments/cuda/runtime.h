/*
 * runtime.h - the functions of the CUDA runtime that segments call, found when the program runs.
 */
#ifndef SEGMENTS_CUDA_RUNTIME_H
#define SEGMENTS_CUDA_RUNTIME_H

#include <stddef.h>

/* cudaPointerAttributes: its first members in CUDA 11, 12 and 13, and room for what follows in one of them. */
struct cuda_attributes {
    int type;                   /* enum seg_cuda_memory */
    int device;
    void *device_pointer, *host_pointer;
    long more[32];
};

/* Plain types, but for that one: CUDA's headers are not needed. */
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

struct cuda_runtime {
#define X(type, name, arguments) type (*name) arguments;
    CUDA_FUNCTIONS(X)
#undef X
};

/* Return: 0, -ENODEV (not there, too old), -ECHILD (in a child of the process that has opened it). */
int cuda_runtime_open(const struct cuda_runtime **ret);

/* It was opened by this process, not by one that has forked it. */
int cuda_runtime_is_ours(void);

/* Turn an error of CUDA's into one of ours, with a sentence. @error is not 0; @size 0: it is about no memory. */
int cuda_fail(const struct cuda_runtime *cuda, int error, const char *what, size_t size);

/* What the runtime says of an address; SEG_CUDA_PAGEABLE also when it does not know. */
int cuda_memory(const struct cuda_runtime *cuda, const void *address);

/* cudaErrorCudartUnloading: the process ends, contexts and registrations are gone. */
enum { CUDA_UNLOADING = 4, CUDA_NOT_READY = 600, CUDA_NOT_REGISTERED = 713 };

#endif
