#include "heap_access.h"

#include <stdlib.h>

#include <shmserver/client.h>

static struct shms_client *client;      /* NULL: the heap is embedded */

static int connect_if_asked(const struct options *options)
{
    return options->socket && !client ? shms_connect(options->socket, &client) : 0;
}

int heap_open(const struct options *options, size_t create_size, struct la_heap **ret)
{
    int r = connect_if_asked(options);

    if (r < 0)
        return r;
    if (client)
        return shms_heap_open(client, options->heap, create_size, create_size ? SHMS_CREATE_ONLY : 0, ret);
    if (create_size)
        return la_heap_create(options->heap, create_size, 0, ret);
    return la_heap_attach(options->heap, 0, ret);
}

int job_open(const struct options *options, struct la_heap **ret_heap, struct job **ret)
{
    int r = heap_open(options, 0, ret_heap);

    if (r < 0)
        return complain("attaching the heap", r);
    r = job_find(*ret_heap, ret);
    return r < 0 ? complain("finding the job", r) : EXIT_SUCCESS;
}

void heap_close(struct la_heap *heap)
{
    if (client)
        shms_heap_close(client, heap);
    else
        la_heap_detach(heap);
    client = shms_disconnect(client);
}

int heap_remove(const struct options *options)
{
    int r = connect_if_asked(options);

    if (r < 0)
        return r;
    r = client ? shms_heap_remove(client, options->heap) : la_heap_remove(options->heap);
    client = shms_disconnect(client);
    return r;
}
