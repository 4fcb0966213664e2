/*
 * dmabuf.c - regions by ibv_reg_dmabuf_mr(), which devices do that can reach another one's memory (mlx5, irdma, efa, bnxt_re; not software ones).
 *
 * What cannot do it says so in several ways: the library's own answer is EOPNOTSUPP, a kernel before 5.12 says EPROTONOSUPPORT.
 */
#include "segments/verbs/dmabuf.h"

#include <errno.h>
#include <unistd.h>

#include <segments/cuda.h>
#include <segments/verbs.h>

#include "base/error.h"
#include "base/util.h"
#include "os/os.h"
#include "segments/catalogue.h"
#include "segments/cuda/runtime.h"

bool verbs_is_dmabuf(const struct seg_extent *extent)
{
    return extent->source && SOURCE_HAS(extent->source, export_dmabuf);
}

static bool means_never(int error)
{
    return error == EOPNOTSUPP || error == EPROTONOSUPPORT || error == ENOSYS;
}

static int check_library(const struct verbs_runtime *verbs)
{
    if (verbs->ibv_reg_dmabuf_mr)
        return 0;
    return la_fail(-ENOTSUP, "verbs: no dmabuf: the library has no ibv_reg_dmabuf_mr() (rdma-core 34 or newer has)");
}

int verbs_register_dmabuf(const struct verbs_runtime *verbs, struct ibv_pd *pd, const struct seg_extent *extent, unsigned access, struct verbs_mr **ret)
{
    struct seg_dmabuf dmabuf = { .struct_size = sizeof(dmabuf), .fd = -1 };
    uint64_t address = (uintptr_t)extent->base;
    int error, r = check_library(verbs);

    if (r == 0)
        r = seg_dmabuf_of(extent, &dmabuf);
    if (r < 0)
        return r;
    errno = 0;
    *ret = verbs->ibv_reg_dmabuf_mr(pd, dmabuf.offset, extent->size, address, dmabuf.fd, (int)access);
    error = errno;
    close(dmabuf.fd);
    if (*ret)
        return 0;
    if (means_never(error))
        return la_fail(-ENOTSUP, "verbs: the device does not register a dmabuf (errno %d; mlx5, irdma and efa do, on Linux 5.12 or newer)", error);
    if (error == EINVAL && (dmabuf.offset ^ address) & (os_page_size() - 1))
        return la_fail(-EINVAL, "verbs: source %s: offset %#llx in its dmabuf and address %p lie differently in their pages", extent->source->name,
                       (unsigned long long)dmabuf.offset, extent->base);
    return verbs_fail(error, "ibv_reg_dmabuf_mr", extent->size, access);
}

/* ---- by address ---- */

/* Old and new name of the module, and the interface that vendors' kernels have for it. */
int seg_verbs_peer_memory(void)
{
    static const char *const signs[] = { "/sys/module/nvidia_peermem", "/sys/module/nv_peer_mem", "/sys/kernel/mm/memory_peers/nv_mem",
                                         "/sys/kernel/mm/memory_peers/nvidia-peermem" };

    for (size_t i = 0; i < ARRAY_SIZE(signs); i++)
        if (access(signs[i], F_OK) == 0)
            return 1;
    return la_fail(-ENOTSUP, "nvidia-peermem is not loaded (modprobe nvidia-peermem)");
}

/* CUDA is not opened for the question: memory of its is there only if it has been. */
bool verbs_is_of_cuda(const void *address)
{
    return cuda_runtime_is_ours() && seg_cuda_memory(address) == SEG_CUDA_DEVICE;
}

/* ---- which devices do ---- */

/* No such descriptor: who looks at it at all says EBADF. */
static bool takes_dmabuf(const struct verbs_runtime *verbs, struct ibv_device *device)
{
    struct ibv_context *context = verbs->ibv_open_device(device);
    struct ibv_pd *pd = context ? verbs->ibv_alloc_pd(context) : NULL;
    bool takes = false;

    if (pd) {
        errno = 0;
        takes = !verbs->ibv_reg_dmabuf_mr(pd, 0, os_page_size(), 0, -1, SEG_VERBS_LOCAL_WRITE) && !means_never(errno);
        verbs->ibv_dealloc_pd(pd);
    }
    if (context)
        verbs->ibv_close_device(context);
    return takes;
}

int seg_verbs_dmabuf(void)
{
    const struct verbs_runtime *verbs;
    struct ibv_device **list;
    int count = 0, takers = 0, r = seg_verbs_available();

    if (r > 0)
        r = verbs_runtime_open(&verbs);
    if (r == 0)
        r = check_library(verbs);
    if (r < 0)
        return r;
    list = verbs->ibv_get_device_list(&count);
    for (int i = 0; list && i < count; i++)
        takers += takes_dmabuf(verbs, list[i]);
    if (list)
        verbs->ibv_free_device_list(list);
    return takers > 0 ? takers : la_fail(-ENOTSUP, "verbs: none of %d RDMA devices registers a dmabuf (mlx5, irdma and efa do, on Linux 5.12 or newer)", count);
}
