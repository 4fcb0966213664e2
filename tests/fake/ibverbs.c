/*
 * ibverbs.c - a fake libibverbs: keeps book of regions, refuses what a device refuses (memory that is not there, what peers may write and we may not),
 * and fails on demand. No device behind it. A protection domain is any pointer; keys are never used twice. A dmabuf is any file that is long enough:
 * the region keeps a descriptor of its own, as a device holds the memory.
 */
#include "ibverbs.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "segments/verbs/runtime.h"

enum { LOCAL_WRITE = 1, REMOTE_WRITE = 2, REMOTE_ATOMIC = 8 };

#define EXPORT __attribute__((visibility("default")))

EXPORT struct fake_ibverbs fake_ibverbs = FAKE_IBVERBS_NEW;

static uint32_t last_key;

EXPORT struct ibv_device **ibv_get_device_list(int *count);
EXPORT void ibv_free_device_list(struct ibv_device **list);
EXPORT struct verbs_mr *ibv_reg_mr(struct ibv_pd *pd, void *address, size_t size, int access);
EXPORT struct verbs_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *address, size_t size, uint64_t iova, unsigned access);
EXPORT struct verbs_mr *ibv_reg_dmabuf_mr(struct ibv_pd *pd, uint64_t offset, size_t size, uint64_t iova, int fd, int access);
EXPORT int ibv_dereg_mr(struct verbs_mr *mr);
EXPORT const char *ibv_get_device_name(struct ibv_device *device);
EXPORT struct ibv_context *ibv_open_device(struct ibv_device *device);
EXPORT int ibv_close_device(struct ibv_context *context);
EXPORT struct ibv_pd *ibv_alloc_pd(struct ibv_context *context);
EXPORT int ibv_dealloc_pd(struct ibv_pd *pd);

/* What a caller gets is the first member. */
struct region {
    struct verbs_mr mr;
    void *iova;         /* what peers say for its first byte */
    int fd;             /* -1: not by a dmabuf */
};

static int is_mapped(void *address, size_t size)
{
    return msync((void *)((uintptr_t)address & ~(uintptr_t)4095), size, MS_ASYNC) == 0;
}

struct ibv_device **ibv_get_device_list(int *count)
{
    struct ibv_device **list;

    fake_ibverbs.calls++;
    if (fake_ibverbs.list_error) {
        errno = fake_ibverbs.list_error;
        return NULL;
    }
    *count = fake_ibverbs.devices;
    list = calloc((size_t)*count + 1, sizeof(*list));
    fake_ibverbs.lists += list != NULL;
    return list;
}

void ibv_free_device_list(struct ibv_device **list)
{
    fake_ibverbs.calls++;
    fake_ibverbs.lists--;
    free(list);
}

const char *ibv_get_device_name(struct ibv_device *device)
{
    (void)device;
    return "fake0";
}

struct ibv_context *ibv_open_device(struct ibv_device *device)
{
    (void)device;
    fake_ibverbs.open++;
    return (struct ibv_context *)&fake_ibverbs;
}

int ibv_close_device(struct ibv_context *context)
{
    (void)context;
    fake_ibverbs.open--;
    return 0;
}

struct ibv_pd *ibv_alloc_pd(struct ibv_context *context)
{
    fake_ibverbs.open++;
    return (struct ibv_pd *)context;
}

int ibv_dealloc_pd(struct ibv_pd *pd)
{
    (void)pd;
    fake_ibverbs.open--;
    return 0;
}

/* By the kernel's copy: no signal. */
static int is_accessible(void *address)
{
    int ends[2], ok;

    if (pipe2(ends, O_CLOEXEC) < 0)
        return 0;
    ok = write(ends[1], address, 1) == 1;
    close(ends[0]);
    close(ends[1]);
    return ok;
}

static int refuse(const void *pd, size_t size, unsigned access)
{
    if (fake_ibverbs.fail_at && --fake_ibverbs.fail_at == 0)
        return fake_ibverbs.error ? fake_ibverbs.error : -1;
    if (!pd || !size || (access & (REMOTE_WRITE | REMOTE_ATOMIC) && !(access & LOCAL_WRITE)))
        return EINVAL;
    return 0;
}

static struct verbs_mr *enter(int error, struct verbs_mr mr, void *iova, int fd, unsigned access)
{
    struct region *region = error ? NULL : calloc(1, sizeof(*region));

    fake_ibverbs.calls++;
    if (!region) {
        errno = error > 0 ? error : errno;
        return NULL;
    }
    fake_ibverbs.registered++;
    fake_ibverbs.access = access;
    fake_ibverbs.iova = iova;
    last_key++;
    mr.lkey = last_key;
    mr.rkey = last_key + 0x10000;
    *region = (struct region){ mr, iova, fd };
    return &region->mr;
}

static struct verbs_mr *enter_address(struct ibv_pd *pd, void *address, size_t size, unsigned access)
{
    int error = refuse(pd, size, access);

    if (!error && (!is_mapped(address, size) || !(is_accessible(address) || fake_ibverbs.peer_memory)))
        error = EFAULT;
    return enter(error, (struct verbs_mr){ .pd = pd, .address = address, .length = size }, address, -1, access);
}

struct verbs_mr *ibv_reg_mr(struct ibv_pd *pd, void *address, size_t size, int access)
{
    return enter_address(pd, address, size, (unsigned)access);
}

#ifndef OLD
struct verbs_mr *ibv_reg_dmabuf_mr(struct ibv_pd *pd, uint64_t offset, size_t size, uint64_t iova, int fd, int access)
{
    int error = refuse(pd, size, (unsigned)access);
    off_t end = lseek(fd, 0, SEEK_END);

    if (!error)
        error = fake_ibverbs.dmabuf_error;
    if (!error && end < 0)
        error = EBADF;
    if (!error && ((offset ^ iova) % 4096 || offset + size > (uint64_t)end))
        error = EINVAL;
    if (!error)
        fake_ibverbs.by_dmabuf++;
    return enter(error, (struct verbs_mr){ .pd = pd, .address = (void *)(uintptr_t)offset, .length = size }, (void *)(uintptr_t)iova,
                 error ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0), (unsigned)access);
}

struct verbs_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *address, size_t size, uint64_t iova, unsigned access)
{
    fake_ibverbs.by_iova++;
    if (iova != (uintptr_t)address) {
        errno = EINVAL;
        return NULL;
    }
    return enter_address(pd, address, size, access);
}
#endif

int ibv_dereg_mr(struct verbs_mr *mr)
{
    struct region *region = (struct region *)mr;

    fake_ibverbs.calls++;
    if (fake_ibverbs.dereg_error) {
        errno = fake_ibverbs.dereg_errno;
        return fake_ibverbs.dereg_error;
    }
    fake_ibverbs.unmapped += !is_mapped(region->iova, mr->length);
    fake_ibverbs.registered--;
    if (region->fd >= 0)
        close(region->fd);
    free(region);
    return 0;
}
