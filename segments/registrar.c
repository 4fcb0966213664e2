#include "segments/registrar_state.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "os/os.h"

int seg_registrar_create(const struct seg_registrar_ops *ops, void *self, struct seg_registrar **ret)
{
    struct seg_registrar *registrar;

    if (!ops || !ret || ops->struct_size < offsetof(struct seg_registrar_ops, close) || ops->struct_size > 4 * sizeof(*ops))
        return la_fail(-EINVAL, "set struct_size of the operations to sizeof(struct seg_registrar_ops)");
    if (!ops->name || !ops->attach || !ops->detach)
        return la_fail(-EINVAL, "a registrar needs a name, attach and detach");
    if (ops->flags & ~(unsigned)(SEG_REGISTRAR_LOCKS | SEG_REGISTRAR_PINS | SEG_REGISTRAR_HOLDS | SEG_REGISTRAR_DEVICE))
        return la_fail(-EINVAL, "registrar %s: flags %#x are unknown", ops->name, ops->flags);
    registrar = os_map(os_page_size());
    if (!registrar)
        return la_fail(-ENOMEM, "no memory for registrar %s", ops->name);
    memcpy(&registrar->ops, ops, MIN(ops->struct_size, sizeof(*ops)));
    registrar->self = self;
    *ret = registrar;
    return 0;
}

int seg_registrar_destroy(struct seg_registrar *registrar)
{
    unsigned users;

    if (!registrar)
        return 0;
    users = atomic_load_explicit(&registrar->users, memory_order_acquire);
    if (users)
        return la_fail(-EBUSY, "registrar %s: %u supplies use it, destroy them first", registrar->ops.name, users);
    if (registrar->ops.close)
        registrar->ops.close(registrar->self);
    os_unmap(registrar, os_page_size());
    return 0;
}
