/*
 * acl.h - who may do what with one heap: owner, group and mode, as of a file.
 *
 *   r  look at it, attach for reading
 *   w  with r: attach
 *
 * Removing it and changing these needs its owner. Root and the daemon's own user may do everything: they could by other means, too.
 * Whether somebody may use the daemon at all was asked before, when he connected (identity.h).
 */
#ifndef DAEMON_ACL_H
#define DAEMON_ACL_H

#include "shmserver/daemon/identity.h"

enum acl_right { ACL_READ = 4, ACL_WRITE = 6 };

struct acl {
    uid_t owner;
    gid_t group;
    unsigned mode;      /* 0 to 0666 */
};

enum { ACL_MODE_NEW = 0600, ACL_MODE_ALL = 0666 };

/* @socket: of the peer, for the kernel's word on its groups. */
bool acl_allows(const struct acl *acl, int socket, const struct identity *id, enum acl_right right);
bool acl_is_owner(const struct acl *acl, const struct identity *id);
/* Root, and the user that the daemon runs as. */
bool acl_is_admin(const struct identity *id);

/*
 * May @id turn @from into @to? Return: 0; -EPERM (not the owner; another owner; a group that he is not in); -EINVAL (mode); with the reason
 * in la_last_error(). @name: of the heap.
 */
int acl_check_change(const struct acl *from, const struct acl *to, int socket, const struct identity *id, const char *name);

#endif
