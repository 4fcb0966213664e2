#include "shmserver/daemon/acl.h"

#include <errno.h>
#include <unistd.h>

#include "base/error.h"

bool acl_is_admin(const struct identity *id)
{
    return id->uid == 0 || id->uid == geteuid();
}

bool acl_is_owner(const struct acl *acl, const struct identity *id)
{
    return id->uid == acl->owner || acl_is_admin(id);
}

/* The first of the three that fits decides, as for a file: an owner may shut himself out, and open up again. */
static unsigned rights_of(const struct acl *acl, int socket, const struct identity *id)
{
    if (id->uid == acl->owner)
        return acl->mode >> 6;
    if (identity_has_group(socket, id, acl->group))
        return acl->mode >> 3;
    return acl->mode;
}

bool acl_allows(const struct acl *acl, int socket, const struct identity *id, enum acl_right right)
{
    return acl_is_admin(id) || (rights_of(acl, socket, id) & right) == right;
}

int acl_check_change(const struct acl *from, const struct acl *to, int socket, const struct identity *id, const char *name)
{
    if (!acl_is_owner(from, id))
        return la_fail(-EPERM, "heap %s belongs to user %u: ask him to change who may use it", name, from->owner);
    if (to->mode & ~(unsigned)ACL_MODE_ALL)
        return la_fail(-EINVAL, "mode %#o of heap %s: use r and w of owner, group and others, such as 0640", to->mode, name);
    if (acl_is_admin(id))
        return 0;
    if (to->owner != from->owner)
        return la_fail(-EPERM, "heap %s can be given to another user by root or user %u only", name, geteuid());
    if (to->group != from->group && !identity_has_group(socket, id, to->group))
        return la_fail(-EPERM, "heap %s can be opened to group %u by a member of it only", name, to->group);
    return 0;
}
