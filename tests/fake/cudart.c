/*
 * cudart.c - a fake CUDA runtime: keeps book of what is pinned, refuses what the real one refuses (overlaps, what was never registered), and fails
 * on demand. No device behind it.
 *
 * A device's address of host memory is the host's, moved. Device memory is a file that is mapped twice: where the program sees it every touch
 * traps; the fake's own calls (cudaMemcpy(), kernels) go by the other mapping. Of the driver's interface there is what loads and starts the one
 * kernel that tests use: it is known by its name, and runs here; and what exports a dmabuf: a file of the same length stands for one.
 */
#include "cudart.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { RANGES = 1024, INVALID = 1, NO_MEMORY = 2, UNLOADING = 4, INVALID_DEVICE = 101, ALREADY = 712, NOT_REGISTERED = 713 };
enum { REGISTERED = 0, HOST = 1, DEVICE = 2 };

#define EXPORT __attribute__((visibility("default")))
#define DEVICE_SHIFT ((uintptr_t)1 << 44)
#define DEVICE_MEMORY ((size_t)1 << 30)

EXPORT struct fake_cudart fake_cudart = FAKE_CUDART_NEW;

struct range {
    char *base;
    size_t size;
    unsigned flags;
    int kind, device;
    char *alias;        /* DEVICE: the other mapping; both are .whole bytes long, from .start on */
    char *start;
    size_t whole;
};

static struct range ranges[RANGES];
static size_t device_used;

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

static int enter(char *base, size_t size, unsigned flags, int kind)
{
    for (int i = 0; i < RANGES; i++)
        if (ranges[i].size && base < ranges[i].base + ranges[i].size && ranges[i].base < base + size)
            return ALREADY;
    for (int i = 0; i < RANGES; i++)
        if (!ranges[i].size) {
            ranges[i] = (struct range){ .base = base, .size = size, .flags = flags, .kind = kind, .device = fake_cudart.device };
            fake_cudart.flags = flags;
            fake_cudart.last_device = fake_cudart.device;
            return 0;
        }
    return NO_MEMORY;
}

/* Where the fake itself finds what a pointer of the host or of the device means; NULL: a real one would fault. */
static char *resolve(const void *pointer)
{
    uintptr_t address = (uintptr_t)pointer;
    int i = find(pointer);

    if (i >= 0 && ranges[i].kind == DEVICE)
        return ranges[i].alias + (address - (uintptr_t)ranges[i].start);
    if (i < 0 && find((char *)(address - DEVICE_SHIFT)) >= 0)
        return (char *)(address - DEVICE_SHIFT);
    return (char *)address;
}

struct attributes {
    int type, device;
    void *device_pointer, *host_pointer;
};

EXPORT int cudaGetDeviceCount(int *count);
EXPORT int cudaHostAlloc(void **pointer, size_t size, unsigned flags);
EXPORT int cudaFreeHost(void *pointer);
EXPORT int cudaHostRegister(void *pointer, size_t size, unsigned flags);
EXPORT int cudaHostUnregister(void *pointer);
EXPORT int cudaHostGetDevicePointer(void **device, void *host, unsigned flags);
EXPORT int cudaMalloc(void **pointer, size_t size);
EXPORT int cudaFree(void *pointer);
EXPORT int cudaMemGetInfo(size_t *available, size_t *total);
EXPORT int cudaGetDevice(int *device);
EXPORT int cudaSetDevice(int device);
EXPORT int cudaHostGetFlags(unsigned *flags, void *host);
EXPORT int cudaPointerGetAttributes(struct attributes *attributes, const void *pointer);
EXPORT int cudaMemcpy(void *to, const void *from, size_t size, int kind);
EXPORT int cudaDeviceSynchronize(void);
EXPORT int cudaRuntimeGetVersion(int *version);
EXPORT int cudaDriverGetVersion(int *version);
EXPORT int cudaEventCreateWithFlags(void **event, unsigned flags);
EXPORT int cudaEventRecord(void *event, void *stream);
EXPORT int cudaEventQuery(void *event);
EXPORT int cudaEventDestroy(void *event);
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
        error = enter(pointer, size, flags, REGISTERED);
    if (!error)
        fake_cudart.registered++;
    return remember(error);
}

int cudaHostUnregister(void *pointer)
{
    int error = begin(0), i = find(pointer);

    if (!error)
        error = fake_cudart.unregister_error == UNLOADING ? unload() : fake_cudart.unregister_error;
    if (!error && (i < 0 || ranges[i].base != pointer || ranges[i].kind != REGISTERED))
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
    error = p == MAP_FAILED ? NO_MEMORY : enter(p, size, flags, HOST);
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
    if (!error && (i < 0 || ranges[i].base != pointer || ranges[i].kind != HOST))
        error = INVALID;
    if (!error) {
        munmap(pointer, ranges[i].size);
        ranges[i].size = 0;
        fake_cudart.allocated--;
    }
    return remember(error);
}

/* Both mappings of @r; false: no memory. */
static int map_device(struct range *r, size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), crooked = fake_cudart.crooked ? 256 : 0, at = 2 << 20;
    int fd = memfd_create("fake device", MFD_CLOEXEC);

    r->whole = (size + crooked + page - 1) / page * page;
    if (fd < 0 || ftruncate(fd, (off_t)r->whole) < 0)
        return -1;
    /* Devices give multiples of 2 MiB. */
    r->start = mmap(NULL, r->whole + at, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (r->start != MAP_FAILED) {
        char *aligned = (char *)(((uintptr_t)r->start + at - 1) / at * at);

        if (aligned > r->start)
            munmap(r->start, (size_t)(aligned - r->start));
        munmap(aligned + r->whole, (size_t)(r->start + at - aligned));
        r->start = mmap(aligned, r->whole, PROT_NONE, MAP_SHARED | MAP_FIXED, fd, 0);
    }
    r->alias = mmap(NULL, r->whole, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    r->base = r->start + crooked;
    fake_cudart.crooked -= crooked > 0;
    return r->start == MAP_FAILED || r->alias == MAP_FAILED ? -1 : 0;
}

int cudaMalloc(void **pointer, size_t size)
{
    struct range r = { 0 };
    int error = begin(1);

    if (!error && (!size || size > DEVICE_MEMORY - device_used || map_device(&r, size) < 0))
        error = size ? NO_MEMORY : INVALID;
    if (!error)
        error = enter(r.base, size, 0, DEVICE);
    if (!error) {
        struct range *entered = &ranges[find(r.base)];

        entered->alias = r.alias;
        entered->start = r.start;
        entered->whole = r.whole;
        device_used += size;
        *pointer = r.base;
        fake_cudart.allocated++;
    }
    return remember(error);
}

int cudaFree(void *pointer)
{
    int error = begin(0), i = find(pointer);

    if (!pointer)
        return remember(error);
    if (!error)
        error = fake_cudart.unregister_error;
    if (!error && (i < 0 || ranges[i].base != pointer || ranges[i].kind != DEVICE))
        error = INVALID;
    if (!error) {
        munmap(ranges[i].start, ranges[i].whole);
        munmap(ranges[i].alias, ranges[i].whole);
        device_used -= ranges[i].size;
        ranges[i].size = 0;
        fake_cudart.allocated--;
    }
    return remember(error);
}

int cudaMemGetInfo(size_t *available, size_t *total)
{
    int error = begin(0);

    if (!error) {
        *available = DEVICE_MEMORY - device_used;
        *total = DEVICE_MEMORY;
    }
    return remember(error);
}

int cudaGetDevice(int *device)
{
    int error = begin(0);

    if (!error)
        *device = fake_cudart.device;
    return remember(error);
}

int cudaSetDevice(int device)
{
    int error = begin(0);

    if (!error && (device < 0 || device >= fake_cudart.devices))
        error = INVALID_DEVICE;
    if (!error)
        fake_cudart.device = device;
    return remember(error);
}

int cudaHostGetFlags(unsigned *flags, void *host)
{
    int error = begin(0), i = find(host);

    if (!error && (i < 0 || ranges[i].kind == DEVICE))
        error = INVALID;
    if (!error)
        *flags = ranges[i].flags;
    return remember(error);
}

int cudaPointerGetAttributes(struct attributes *attributes, const void *pointer)
{
    int error = begin(0), i = find(pointer);

    if (!error)
        error = fake_cudart.attributes_error;
    if (!error && i < 0)
        *attributes = (struct attributes){ .device = -2, .host_pointer = (void *)(uintptr_t)pointer };
    else if (!error && ranges[i].kind == DEVICE)
        *attributes = (struct attributes){ DEVICE, ranges[i].device, (void *)(uintptr_t)pointer, NULL };
    else if (!error)
        *attributes = (struct attributes){ HOST, ranges[i].device, (void *)((uintptr_t)pointer + DEVICE_SHIFT), (void *)(uintptr_t)pointer };
    return remember(error);
}

int cudaMemcpy(void *to, const void *from, size_t size, int kind)
{
    int error = begin(0);

    (void)kind;
    if (!error)
        memcpy(resolve(to), resolve(from), size);
    return remember(error);
}

int cudaDeviceSynchronize(void)
{
    return remember(begin(0));
}

int cudaRuntimeGetVersion(int *version)
{
    *version = 0;
    return 0;
}

int cudaDriverGetVersion(int *version)
{
    *version = 0;
    return 0;
}

/* ---- events: all the same one ---- */

int cudaEventCreateWithFlags(void **event, unsigned flags)
{
    (void)flags;
    *event = &fake_cudart;
    return remember(begin(0));
}

int cudaEventRecord(void *event, void *stream)
{
    (void)stream;
    return remember(event ? begin(0) : INVALID);
}

int cudaEventQuery(void *event)
{
    int error = begin(0);

    return remember(error ? error : event ? fake_cudart.event_error : INVALID);
}

int cudaEventDestroy(void *event)
{
    return remember(event ? begin(0) : INVALID);
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

/* ---- of the driver ---- */

EXPORT int cuModuleLoadData(void **module, const void *image);
EXPORT int cuModuleGetFunction(void **function, void *module, const char *name);
EXPORT int cuModuleUnload(void *module);
EXPORT int cuLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y, unsigned block_z,
                          unsigned shared, void *stream, void **arguments, void **extra);

EXPORT int cuDeviceGet(int *device, int number);
EXPORT int cuDeviceGetAttribute(int *value, int attribute, int device);
EXPORT int cuMemGetHandleForAddressRange(int *fd, uint64_t address, size_t size, int type, unsigned long long flags);

/* A device's handle is not its number. */
int cuDeviceGet(int *device, int number)
{
    *device = number + 100;
    return number < 0 || number >= fake_cudart.devices ? INVALID_DEVICE : begin(0);
}

int cuDeviceGetAttribute(int *value, int attribute, int device)
{
    *value = attribute == 124 && device >= 100 && fake_cudart.dmabuf;
    return begin(0);
}

/* Of whole pages that are all in one piece of memory of the thread's device. */
int cuMemGetHandleForAddressRange(int *fd, uint64_t address, size_t size, int type, unsigned long long flags)
{
    int error = begin(0), i = find((char *)(uintptr_t)address);

    if (!error)
        error = fake_cudart.dmabuf ? fake_cudart.dmabuf_error : 801;
    if (!error && (type != 1 || flags || (address | size) % 4096 || i < 0 || ranges[i].kind != DEVICE ||
                   ranges[i].device != fake_cudart.device || address + size > (uintptr_t)ranges[i].base + ranges[i].size))
        error = INVALID;
    if (error)
        return error;
    *fd = memfd_create("fake dmabuf", 0);
    if (*fd < 0 || ftruncate(*fd, (off_t)size) < 0)
        return NO_MEMORY;
    fake_cudart.dmabufs++;
    return 0;
}

int cuModuleLoadData(void **module, const void *image)
{
    *module = (void *)(uintptr_t)image;
    return image ? begin(0) : INVALID;
}

int cuModuleGetFunction(void **function, void *module, const char *name)
{
    *function = module;
    return strcmp(name, "la_add") == 0 ? begin(0) : INVALID;
}

int cuModuleUnload(void *module)
{
    return module ? begin(0) : INVALID;
}

/* la_add(uint32_t *data, uint32_t count, uint32_t number) */
int cuLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y, unsigned block_z,
                   unsigned shared, void *stream, void **arguments, void **extra)
{
    uint32_t *data = (uint32_t *)resolve(*(void **)arguments[0]), count = *(uint32_t *)arguments[1];

    (void)function, (void)grid_y, (void)grid_z, (void)block_y, (void)block_z, (void)shared, (void)stream, (void)extra;
    for (uint32_t i = 0; i < count && i < (uint64_t)grid_x * block_x; i++)
        data[i] += *(uint32_t *)arguments[2];
    return begin(0);
}
