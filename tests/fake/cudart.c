/*
 * cudart.c - a fake CUDA runtime: keeps book of what is pinned, refuses what the real one refuses (overlaps, what was never registered), and fails
 * on demand. No device behind it; a device address is the host's, moved.
 */
#include "cudart.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

enum { RANGES = 64, INVALID = 1, NO_MEMORY = 2, UNLOADING = 4, ALREADY = 712, NOT_REGISTERED = 713 };

#define EXPORT __attribute__((visibility("default")))
#define DEVICE_SHIFT ((uintptr_t)1 << 44)

EXPORT struct fake_cudart fake_cudart = FAKE_CUDART_NEW;

static struct { char *base; size_t size; unsigned flags; } ranges[RANGES];

static int remember(int error)
{
    if (error)
        fake_cudart.last_error = error;
    return error;
}

static int begin(int takes)
{
    fake_cudart.calls++;
    if (fake_cudart.driver_error)
        return fake_cudart.driver_error;
    if (takes && fake_cudart.fail_at && --fake_cudart.fail_at == 0)
        return fake_cudart.error;
    return 0;
}

/* The end of a process: with the contexts all goes at once. */
static int unload(void)
{
    for (int i = 0; i < RANGES; i++)
        ranges[i].size = 0;
    fake_cudart.registered = fake_cudart.allocated = 0;
    return UNLOADING;
}

static int find(const char *pointer)
{
    for (int i = 0; i < RANGES; i++)
        if (ranges[i].size && pointer >= ranges[i].base && pointer < ranges[i].base + ranges[i].size)
            return i;
    return -1;
}

static int enter(char *base, size_t size, unsigned flags)
{
    for (int i = 0; i < RANGES; i++)
        if (ranges[i].size && base < ranges[i].base + ranges[i].size && ranges[i].base < base + size)
            return ALREADY;
    for (int i = 0; i < RANGES; i++)
        if (!ranges[i].size) {
            ranges[i].base = base;
            ranges[i].size = size;
            ranges[i].flags = fake_cudart.flags = flags;
            return 0;
        }
    return NO_MEMORY;
}

EXPORT int cudaGetDeviceCount(int *count);
EXPORT int cudaHostAlloc(void **pointer, size_t size, unsigned flags);
EXPORT int cudaFreeHost(void *pointer);
EXPORT int cudaHostRegister(void *pointer, size_t size, unsigned flags);
EXPORT int cudaHostUnregister(void *pointer);
EXPORT int cudaHostGetDevicePointer(void **device, void *host, unsigned flags);
EXPORT int cudaGetLastError(void);
EXPORT const char *cudaGetErrorString(int error);

int cudaGetDeviceCount(int *count)
{
    int error = begin(0);

    if (!error)
        *count = fake_cudart.devices;
    return remember(error);
}

int cudaHostRegister(void *pointer, size_t size, unsigned flags)
{
    int error = begin(1);

    if (!error && (!pointer || !size || msync((void *)((uintptr_t)pointer & ~(uintptr_t)4095), size, MS_ASYNC) < 0))
        error = INVALID;
    if (!error)
        error = enter(pointer, size, flags);
    if (!error)
        fake_cudart.registered++;
    return remember(error);
}

int cudaHostUnregister(void *pointer)
{
    int error = begin(0), i = find(pointer);

    if (!error)
        error = fake_cudart.unregister_error == UNLOADING ? unload() : fake_cudart.unregister_error;
    if (!error && (i < 0 || ranges[i].base != pointer))
        error = NOT_REGISTERED;
    if (!error) {
        if (msync(pointer, ranges[i].size, MS_ASYNC) < 0)
            fake_cudart.unmapped++;
        ranges[i].size = 0;
        fake_cudart.registered--;
    }
    return remember(error);
}

int cudaHostAlloc(void **pointer, size_t size, unsigned flags)
{
    int error = begin(1);
    char *p;

    if (error)
        return remember(error);
    p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    error = p == MAP_FAILED ? NO_MEMORY : enter(p, size, flags);
    if (!error) {
        *pointer = p;
        fake_cudart.allocated++;
    } else if (p != MAP_FAILED) {
        munmap(p, size);
    }
    return remember(error);
}

int cudaFreeHost(void *pointer)
{
    int error = begin(0), i = find(pointer);

    if (!error)
        error = fake_cudart.unregister_error;
    if (!error && (i < 0 || ranges[i].base != pointer))
        error = INVALID;
    if (!error) {
        munmap(pointer, ranges[i].size);
        ranges[i].size = 0;
        fake_cudart.allocated--;
    }
    return remember(error);
}

int cudaHostGetDevicePointer(void **device, void *host, unsigned flags)
{
    int error = begin(0), i = find(host);

    if (!error)
        error = fake_cudart.device_pointer_error;
    if (!error && (i < 0 || flags || !(ranges[i].flags & 2)))
        error = INVALID;
    if (!error)
        *device = (void *)((uintptr_t)host + DEVICE_SHIFT);
    return remember(error);
}

int cudaGetLastError(void)
{
    int error = fake_cudart.last_error;

    fake_cudart.last_error = 0;
    return error;
}

const char *cudaGetErrorString(int error)
{
    return error == NO_MEMORY ? "out of memory" : error == 35 ? "driver too old" : "some error of CUDA's";
}
