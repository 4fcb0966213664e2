#include "doctor.h"

#include <stdio.h>
#include <unistd.h>

#include <liballoc/error.h>
#include <segments/cuda.h>
#include <segments/verbs.h>

static struct finding count(int devices, const char *what)
{
    if (devices < 0)
        return finding(ABSENT, "%.220s", la_last_error());
    return finding(GOOD, "%d %s", devices, devices == 1 ? what : "devices");
}

static struct finding check_cuda(void)
{
    return count(seg_cuda_available(), "device");
}

static struct finding check_verbs(void)
{
    return count(seg_verbs_available(), "device");
}

/* How many of the GPUs; else @reason, why not. */
static int count_exporters(char *reason, size_t size)
{
    int exporters = 0, count = seg_cuda_available();

    for (int i = 0; i < count; i++)
        exporters += seg_cuda_dmabuf(i) == 0;
    if (exporters == 0)
        snprintf(reason, size, "%s", la_last_error());
    return exporters;
}

/* Can memory of a GPU be registered with an RDMA device? It takes both, or the module that does without. */
static struct finding check_dmabuf(void)
{
    char export[110] = "the GPU could", import[110] = "the RDMA device could";
    int exporters = count_exporters(export, sizeof(export)), takers = seg_verbs_dmabuf();

    if (exporters > 0 && takers > 0)
        return finding(GOOD, "GPUs that export their memory: %d; RDMA devices that register it: %d", exporters, takers);
    if (takers <= 0)
        snprintf(import, sizeof(import), "%s", la_last_error());
    if (seg_verbs_available() > 0 && seg_cuda_available() > 0 && seg_verbs_peer_memory() > 0)
        return finding(GOOD, "memory of GPUs can be registered with RDMA devices by its address: nvidia-peermem is loaded (no dmabuf)");
    return finding(ABSENT, "%s; %s", export, import);
}

static struct finding check_manager(void)
{
    if (access("/run/systemd/system", F_OK) == 0)
        return finding(GOOD, "systemd runs: shmserver.service keeps its heaps in the fd store");
    return finding(ABSENT, "no systemd runs here: a shmserver that is started by hand keeps its heaps with a process of its own (--keeper)");
}

const struct check doctor_devices[] = {
    { "CUDA", check_cuda }, { "RDMA", check_verbs }, { "dmabuf", check_dmabuf }, { "service manager", check_manager }, { 0 },
};
