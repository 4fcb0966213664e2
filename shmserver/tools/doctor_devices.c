#include "doctor.h"

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

static struct finding check_manager(void)
{
    if (access("/run/systemd/system", F_OK) == 0)
        return finding(GOOD, "systemd runs: shmserver.service keeps its heaps in the fd store");
    return finding(ABSENT, "no systemd runs here: a shmserver that is started by hand keeps its heaps with a process of its own (--keeper)");
}

const struct check doctor_devices[] = {
    { "CUDA", check_cuda }, { "RDMA", check_verbs }, { "service manager", check_manager }, { 0 },
};
