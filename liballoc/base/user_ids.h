/*
 * user_ids.h - does the number of a user or group say who he is?
 *
 * In a user namespace that maps some ids only, the kernel shows all others by one and the same number, the overflow id (65534, "nobody"): there
 * that number may be anybody, the bearer of the name among them. A namespace that maps all ids, as the machine's own does, knows everybody.
 */
#ifndef BASE_USER_IDS_H
#define BASE_USER_IDS_H

#include <sys/stat.h>
#include <sys/types.h>

#include "base/util.h"

/* Nobody else is shown to this process by the same number. */
bool user_id_is_certain(uid_t uid);
bool group_id_is_certain(gid_t gid);

/* The open file is of this process's user, and not only of somebody who is shown by the same number. @st: of fstat(). */
bool file_is_own(int fd, const struct stat *st);

#endif
