#include "shmserver/daemon/scrape.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shmserver/daemon/log.h"
#include "shmserver/daemon/metrics.h"
#include "shmserver/daemon/server.h"

static void socket_is_ready(struct loop_source *source, uint32_t events)
{
    struct scrape *scrape = container_of(source, struct scrape, socket);
    ssize_t n = send(source->fd, scrape->text + scrape->sent, scrape->size - scrape->sent, MSG_NOSIGNAL);

    (void)events;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0)
        scrape->sent += (size_t)n;
    if (n <= 0 || scrape->sent == scrape->size)
        scrape_destroy(scrape);
}

static bool may_look(struct server *server, int fd)
{
    struct identity id;
    bool ok = identity_read(fd, &id) == 0;

    if (!ok)
        return false;
    ok = access_allows(&server->access, fd, &id);
    if (!ok)
        log_write(LOG_WARNING, "process %d (%s, user %u) may not read metrics", id.pid, id.command, id.uid);
    identity_deinit(&id);
    return ok;
}

static unsigned count(const struct server *server)
{
    unsigned n = 0;

    list_for_each(node, &server->scrapes)
        n++;
    return n;
}

void scrape_create(struct server *server, int fd)
{
    struct scrape *scrape = count(server) < SCRAPES_MAX && may_look(server, fd) ? calloc(1, sizeof(*scrape)) : NULL;

    if (!scrape) {
        close_fd(&fd);
        return;
    }
    *scrape = (struct scrape){ .server = server, .socket = { fd, socket_is_ready }, .until = now_ms() + SCRAPE_MS };
    list_add(&server->scrapes, &scrape->node);
    scrape->text = metrics_print(server, &scrape->size);
    if (!scrape->text || loop_add_writer(&server->loop, &scrape->socket) < 0)
        scrape_destroy(scrape);
}

void scrape_destroy(struct scrape *scrape)
{
    loop_remove(&scrape->server->loop, &scrape->socket);
    close_fd(&scrape->socket.fd);
    list_remove(&scrape->node);
    free(scrape->text);
    free(scrape);
}

int scrape_check_times(struct server *server, uint64_t now)
{
    uint64_t next = 0;

    for (struct la_list *node = server->scrapes.next, *following; node != &server->scrapes; node = following) {
        struct scrape *scrape = list_entry(node, struct scrape, node);

        following = node->next;
        if (scrape->until <= now)
            scrape_destroy(scrape);
        else if (!next || scrape->until < next)
            next = scrape->until;
    }
    return next ? (int)(next - now) : -1;
}
