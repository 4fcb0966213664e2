/*
 * ibverbs.c - a fake libibverbs: keeps book of regions, refuses what a device refuses (memory that is not there, what peers may write and we may not),
 * and fails on demand. No device behind it. A protection domain is any pointer; keys are never used twice.
 */
#include "ibverbs.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "segments/verbs/runtime.h"

enum { LOCAL_WRITE = 1, REMOTE_WRITE = 2, REMOTE_ATOMIC = 8 };

#define EXPORT __attribute__((visibility("default")))

EXPORT struct fake_ibverbs fake_ibverbs = FAKE_IBVERBS_NEW;

static uint32_t last_key;

EXPORT struct ibv_device **ibv_get_device_list(int *count);
EXPORT void ibv_free_device_list(struct ibv_device **list);
EXPORT struct verbs_mr *ibv_reg_mr(struct ibv_pd *pd, void *address, size_t size, int access);
EXPORT struct verbs_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *address, size_t size, uint64_t iova, unsigned access);
EXPORT int ibv_dereg_mr(struct verbs_mr *mr);

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

static int refuse(const void *pd, void *address, size_t size, unsigned access)
{
    if (fake_ibverbs.fail_at && --fake_ibverbs.fail_at == 0)
        return fake_ibverbs.error ? fake_ibverbs.error : -1;
    if (!pd || !size || (access & (REMOTE_WRITE | REMOTE_ATOMIC) && !(access & LOCAL_WRITE)))
        return EINVAL;
    return is_mapped(address, size) ? 0 : EFAULT;
}

static struct verbs_mr *enter(struct ibv_pd *pd, void *address, size_t size, unsigned access)
{
    int error = refuse(pd, address, size, access);
    struct verbs_mr *mr = error ? NULL : calloc(1, sizeof(*mr));

    fake_ibverbs.calls++;
    if (!mr) {
        errno = error > 0 ? error : errno;
        return NULL;
    }
    fake_ibverbs.registered++;
    fake_ibverbs.access = access;
    last_key++;
    *mr = (struct verbs_mr){ .pd = pd, .address = address, .length = size, .lkey = last_key, .rkey = last_key + 0x10000 };
    return mr;
}

struct verbs_mr *ibv_reg_mr(struct ibv_pd *pd, void *address, size_t size, int access)
{
    return enter(pd, address, size, (unsigned)access);
}

#ifndef WITHOUT_IOVA2
struct verbs_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *address, size_t size, uint64_t iova, unsigned access)
{
    fake_ibverbs.by_iova++;
    if (iova != (uintptr_t)address) {
        errno = EINVAL;
        return NULL;
    }
    return enter(pd, address, size, access);
}
#endif

int ibv_dereg_mr(struct verbs_mr *mr)
{
    fake_ibverbs.calls++;
    if (fake_ibverbs.dereg_error) {
        errno = fake_ibverbs.dereg_errno;
        return fake_ibverbs.dereg_error;
    }
    fake_ibverbs.unmapped += !is_mapped(mr->address, mr->length);
    fake_ibverbs.registered--;
    free(mr);
    return 0;
}
