#include "shmserver/protocol/socket_path.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/error.h"
#include "base/fmt.h"

bool socket_path_nth(unsigned index, char *ret, size_t size)
{
    const char *chosen = secure_getenv("SHMSERVER_SOCKET");
    const char *runtime = secure_getenv("XDG_RUNTIME_DIR");

    if (chosen && *chosen) {
        la_format(ret, size, "%s", chosen);
        return index == 0;
    }
    if (runtime && *runtime == '/' && index-- == 0) {
        la_format(ret, size, "%s/shmserver.sock", runtime);
        return true;
    }
    la_format(ret, size, "%s/shmserver.sock", SOCKET_PATH_SYSTEM_DIR);
    return index == 0;
}

int socket_path_address(const char *path, struct sockaddr_un *ret)
{
    size_t length = strlen(path);

    if (length == 0)
        return la_fail(-EINVAL, "the path of the socket is empty: say where with --socket or $SHMSERVER_SOCKET");
    if (length >= sizeof(ret->sun_path))
        return la_fail(-ENAMETOOLONG, "the path of the socket, %.80s..., has %zu bytes: a socket's may have %zu, choose a shorter one (shmserver --socket)",
                       path, length, sizeof(ret->sun_path) - 1);
    *ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
    memcpy(ret->sun_path, path, length);
    return 0;
}
