#include "shmserver/daemon/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "shmserver/daemon/log.h"
#include "shmserver/daemon/named_fds.h"
#include "shmserver/daemon/notify.h"

/* Something to tell the manager. */
struct order {
    struct la_list node;
    char name[NAMED_FD_NAME_MAX + 1];
    size_t count;               /* of descriptors to keep; 0: keep nothing under this name */
    int fds[NOTIFY_FDS_MAX];    /* our own copies */
};

static struct order *order_of(struct la_list *node)
{
    return list_entry(node, struct order, node);
}

static void free_order(struct order *order)
{
    for (size_t i = 0; i < order->count; i++)
        close_fd(&order->fds[i]);
    list_remove(&order->node);
    free(order);
}

void store_init(struct store *store)
{
    const char *manager = secure_getenv("NOTIFY_SOCKET");

    *store = (struct store){ .on = manager && *manager };
    list_init(&store->waiting);
}

void store_deinit(struct store *store)
{
    while (!list_is_empty(&store->waiting))
        free_order(order_of(store->waiting.next));
}

/* FDPOLL: a memory file cannot be polled, and a manager has no reason to look. */
static int send_order(const struct order *order)
{
    char state[NAMED_FD_NAME_MAX + 64];

    snprintf(state, sizeof(state), order->count ? "FDSTORE=1\nFDNAME=%s\nFDPOLL=0" : "FDSTOREREMOVE=1\nFDNAME=%s", order->name);
    return notify_send_fds(state, order->fds, order->count);
}

int store_flush(struct store *store)
{
    while (!list_is_empty(&store->waiting)) {
        if (send_order(order_of(store->waiting.next)) < 0)
            return STORE_RETRY_MS;
        free_order(order_of(store->waiting.next));
    }
    return -1;
}

static int give_order(struct store *store, const char *name, const int *fds, size_t count)
{
    struct order *order = store->on ? calloc(1, sizeof(*order)) : NULL;

    if (!store->on)
        return 0;
    if (!order)
        return la_fail(-ENOMEM, "shmserver is out of memory");
    snprintf(order->name, sizeof(order->name), "%s", name);
    list_init(&order->node);
    for (; order->count < count; order->count++) {
        order->fds[order->count] = fcntl(fds[order->count], F_DUPFD_CLOEXEC, 3);
        if (order->fds[order->count] < 0) {
            int r = la_fail(-errno, "cannot copy descriptor %s (errno %d)", name, errno);

            free_order(order);
            return r;
        }
    }
    list_add(store->waiting.prev, &order->node);
    store_flush(store);
    return 0;
}

int store_put(struct store *store, const char *name, const int *fds, size_t count)
{
    return give_order(store, name, fds, count);
}

/* What was never sent need not be taken back. */
static bool cancel(struct store *store, const char *name)
{
    for (struct la_list *node = store->waiting.next; node != &store->waiting; node = node->next)
        if (order_of(node)->count && strcmp(order_of(node)->name, name) == 0) {
            free_order(order_of(node));
            return true;
        }
    return false;
}

void store_drop(struct store *store, const char *name)
{
    if (!cancel(store, name) && give_order(store, name, NULL, 0) < 0)
        log_write(LOG_WARNING, "%s stays with the service manager: %s", name, "out of memory");
}
