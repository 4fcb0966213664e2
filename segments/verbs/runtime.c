/*
 * runtime.c - finds libibverbs, once.
 *
 * ibv_fork_init() is not called: it fails once memory is registered, and is the program's to decide.
 *
 * Locking: a mutex of its own around the search; the table does not change afterwards.
 */
#include "segments/verbs/runtime.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include <segments/verbs.h>

#include "base/error.h"
#include "base/util.h"
#include "segments/driver.h"

static pthread_mutex_t search = PTHREAD_MUTEX_INITIALIZER;
static struct verbs_runtime table;
static _Atomic(bool) is_open;       /* Release: publishes the table */

static int load(void)
{
    static const char *const names[] = { "libibverbs.so.1" };
    void *library = driver_open("LIBALLOC_IBVERBS", names, ARRAY_SIZE(names));
    struct verbs_runtime found;

    if (!library)
        return la_fail(-ENODEV, "verbs: no library: %s", dlerror());
#define FIND(version, type, name, arguments) *(void **)&found.name = dlvsym(library, #name, version);
#define NEED(version, type, name, arguments)                                                                           \
    if (!found.name)                                                                                                   \
        return la_fail(-ENODEV, "verbs: the library has no " #name "(), version " version);
    VERBS_FUNCTIONS(FIND)
    VERBS_OPTIONAL_FUNCTIONS(FIND)
    VERBS_FUNCTIONS(NEED)
#undef FIND
#undef NEED
    table = found;
    atomic_store_explicit(&is_open, true, memory_order_release);
    return 0;
}

int verbs_runtime_open(const struct verbs_runtime **ret)
{
    int r = 0;

    if (!atomic_load_explicit(&is_open, memory_order_acquire)) {
        pthread_mutex_lock(&search);
        if (!atomic_load_explicit(&is_open, memory_order_relaxed))
            r = load();
        pthread_mutex_unlock(&search);
    }
    if (r == 0)
        *ret = &table;
    return r;
}

static const char *explain(int error)
{
    switch (error) {
    case ENOMEM: return ": out of memory, or of RLIMIT_MEMLOCK (ulimit -l, LimitMEMLOCK=), which some devices count for root too";
    case EINVAL: return ": the device does not know one of the access flags, or not this size";
    case EFAULT: return ": the pages cannot be written to, or are not there";
    case EOPNOTSUPP: return ": the device cannot do that";
    default: return "";
    }
}

int verbs_fail(int error, const char *call, size_t size, unsigned access)
{
    error = error ? error : EIO;
    return la_fail(-error, "verbs: %s of %zu bytes, access %#x: errno %d%s", call, size, access, error, explain(error));
}

int seg_verbs_available(void)
{
    const struct verbs_runtime *verbs;
    struct ibv_device **list;
    int count = 0, r = verbs_runtime_open(&verbs);

    if (r < 0)
        return r;
    errno = 0;
    list = verbs->ibv_get_device_list(&count);
    if (!list)
        return la_fail(-ENODEV, "verbs: no list of devices (errno %d%s)", errno,
                       errno == ENOSYS ? ": the kernel has no RDMA, or its modules are not loaded" : "");
    verbs->ibv_free_device_list(list);
    return count > 0 ? count : la_fail(-ENODEV, "verbs: there are 0 RDMA devices");
}
